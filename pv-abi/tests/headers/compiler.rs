//! Finds the cross compiler and the headers, and asks them for the values of constant expressions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const GCC: &str = "aarch64-linux-gnu-gcc";
const OBJCOPY: &str = "aarch64-linux-gnu-objcopy";
const SECTION: &str = ".nacelle_table";

/// Every header that the crate covers. `__XEN_TOOLS__` opens the toolstack's part and the latest interface version.
const PROLOGUE: &str = "\
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/vcpu.h>
#include <xen/version.h>
";

/// What is not installed.
pub struct Missing(pub String);

/// A cross compiler that can see the headers.
pub struct Compiler {
    include: PathBuf,
}

impl Compiler {
    /// Looks where `NACELLE_XEN_HEADERS` says; if it is not set, into the package `libxen-dev`, then `/usr/include`.
    pub fn find() -> Result<Self, Missing> {
        for tool in [GCC, OBJCOPY] {
            if !Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success()) {
                return Err(Missing(format!("{tool} does not run")));
            }
        }
        let candidates = match std::env::var_os("NACELLE_XEN_HEADERS") {
            Some(include) => vec![PathBuf::from(include)],
            None => package_include().into_iter().chain([PathBuf::from("/usr/include")]).collect(),
        };
        candidates
            .into_iter()
            .find(|include| include.join("xen/xen.h").is_file() && include.join("xen/arch-arm.h").is_file())
            .map(|include| Self { include })
            .ok_or_else(|| Missing("Xen's public headers are not there".to_owned()))
    }

    /// The text of a header.
    pub fn read(&self, header: &str) -> String {
        std::fs::read_to_string(self.include.join(header)).unwrap_or_else(|error| panic!("{header}: {error}"))
    }

    /// The values of constant integer expressions, as the compiler for arm64 sees them.
    pub fn evaluate<'a>(&self, expressions: impl Iterator<Item = &'a str>) -> Vec<i64> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("headers-{}-{run}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory to compile in");

        let mut source = PROLOGUE.to_owned();
        source +=
            &format!("__attribute__((section(\"{SECTION}\"), used)) static const long long table[] = {{\n");
        for expression in expressions {
            source += &format!("(long long)({expression}),\n");
        }
        source += "};\n";

        let (c, object, binary) = (directory.join("t.c"), directory.join("t.o"), directory.join("t.bin"));
        std::fs::write(&c, source).expect("the source can be written");
        run_tool(self.gcc().arg("-c").arg(&c).arg("-o").arg(&object));
        run_tool(Command::new(OBJCOPY).args(["-O", "binary", "-j", SECTION]).arg(&object).arg(&binary));
        let bytes = std::fs::read(&binary).expect("objcopy wrote the table");
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
        bytes.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
    }

    /// The names of all macros that the headers define.
    pub fn macros(&self) -> Vec<String> {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("macros-{}.c", std::process::id()));
        std::fs::write(&source, PROLOGUE).expect("the source can be written");
        let listing = run_tool(self.gcc().args(["-E", "-dM"]).arg(&source));
        std::fs::remove_file(&source).expect("the file is ours");
        listing
            .lines()
            .filter_map(|line| line.strip_prefix("#define "))
            .filter_map(|rest| rest.split([' ', '(']).next())
            .map(str::to_owned)
            .collect()
    }

    /// Freestanding, and the headers' directory last: it may be the host's, whose libc is not meant.
    fn gcc(&self) -> Command {
        let mut gcc = Command::new(GCC);
        gcc.args(["-std=gnu11", "-ffreestanding", "-idirafter"]).arg(&self.include);
        gcc
    }
}

/// Where the package put `xen/xen.h`.
fn package_include() -> Option<PathBuf> {
    let output = Command::new("dpkg").args(["-L", "libxen-dev"]).output().ok()?;
    let listing = String::from_utf8(output.stdout).ok()?;
    listing.lines().find_map(|path| path.strip_suffix("/xen/xen.h")).map(PathBuf::from)
}

fn run_tool(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}:\n{}",
        errors.lines().take(40).collect::<Vec<_>>().join("\n")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

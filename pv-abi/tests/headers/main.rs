//! Compares every size, offset and number of this crate with Xen's public headers for arm64.
//!
//! The headers are those of Debian's `libxen-dev`. The C cross compiler turns a table of `sizeof`, `offsetof` and
//! constant expressions into data; nothing of it runs. Adding a type or a number is one line in `structures.rs` or
//! `numbers.rs`. `manual.rs` compares the ABI manual with the same numbers.

mod compiler;
mod manual;
mod numbers;
mod structures;

use compiler::{Compiler, Missing};

/// An expression of C, and what it has to be.
pub struct Check {
    /// The expression, constant and integer.
    pub c: String,
    /// Our value.
    pub ours: i128,
}

/// The compiler and the headers; without them no comparison is made, and in CI that is a failure.
fn compiler() -> Option<Compiler> {
    match Compiler::find() {
        Ok(compiler) => Some(compiler),
        Err(Missing(what)) if std::env::var_os("CI").is_some() => panic!(
            "{what}. This test needs the packages libxen-dev and gcc-aarch64-linux-gnu (or NACELLE_XEN_HEADERS, the \
             directory that holds xen/xen.h)"
        ),
        Err(Missing(what)) => {
            eprintln!(
                "SKIPPED: {what}; install libxen-dev and gcc-aarch64-linux-gnu to compare with Xen's headers"
            );
            None
        }
    }
}

fn compare(checks: &[Check]) {
    let Some(compiler) = compiler() else { return };
    let theirs = compiler.evaluate(checks.iter().map(|check| check.c.as_str()));
    assert_eq!(theirs.len(), checks.len(), "the object's table is as long as ours");
    let differences: Vec<String> = checks
        .iter()
        .zip(theirs)
        .filter(|(check, theirs)| check.ours as i64 != *theirs)
        .map(|(check, theirs)| format!("{}: Xen has {theirs:#x}, we have {:#x}", check.c, check.ours))
        .collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn structures_have_the_layout_of_the_headers() {
    let checks = structures::all();
    assert!(checks.len() > 1000, "the table is there: {}", checks.len());
    compare(&checks);
}

#[test]
fn numbers_are_those_of_the_headers() {
    let checks = numbers::all();
    assert!(checks.len() > 500, "the table is there: {}", checks.len());
    compare(&checks);
}

#[test]
fn no_operation_of_the_headers_is_missing() {
    let Some(compiler) = compiler() else { return };
    let macros = compiler.macros();
    let known: std::collections::HashSet<String> = numbers::all().into_iter().map(|check| check.c).collect();
    let missing: Vec<&String> =
        macros.iter().filter(|name| numbers::must_be_known(name) && !known.contains(*name)).collect();
    assert!(missing.is_empty(), "operations without a name in this crate: {missing:?}");
    for prefix in numbers::OPERATION_PREFIXES {
        assert!(macros.iter().any(|name| name.starts_with(prefix)), "the headers define no {prefix}*");
    }
}

#[test]
fn no_error_of_the_headers_is_missing() {
    let Some(compiler) = compiler() else { return };
    let text = compiler.read("xen/errno.h");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("XEN_ERRNO("))
        .filter_map(|rest| rest.split([',', '\t', ' ']).next())
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        // Two that Xen keeps to itself, and the second names of two others.
        if matches!(name, "EINTR" | "ERESTART" | "EWOULDBLOCK" | "EDEADLOCK") {
            continue;
        }
        assert!(pv_abi::Errno::ALL.iter().any(|errno| errno.name() == name), "{name}");
    }
}

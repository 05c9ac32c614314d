//! `xen_version`: who this is. Numbers are those of Xen 4.17, the release whose interfaces Nacelle speaks.

use alloc::boxed::Box;

use pv_abi::Errno;
use pv_abi::features;
use pv_abi::version::{
    Capabilities, Changeset, Commandline, CompileInfo, FeatureInfo, Op, PlatformParameters,
};
use spin::Once;

use crate::mm::guest;
use crate::privilege::{self, Action};

use super::{Caller, Outcome};

/// Major and minor version of the interfaces.
const VERSION: i64 = 4 << 16 | 17;
/// What follows `4.17` in `xl info`: 15 characters at most.
const EXTRAVERSION: &str = concat!("-nacelle-", env!("CARGO_PKG_VERSION"));
/// Where Xen's own virtual addresses begin on arm64; `xl info` shows it.
const VIRT_START: u64 = 0x20_0000;

static COMMAND_LINE: Once<Box<str>> = Once::new();

/// Keeps a copy of the hypervisor's command line for `xl info`.
pub fn set_command_line(line: &str) {
    COMMAND_LINE.call_once(|| line.into());
}

/// `text` in a field of `N` bytes, cut to leave a zero at its end.
fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let count = text.len().min(N.saturating_sub(1));
    bytes[..count].copy_from_slice(&text.as_bytes()[..count]);
    bytes
}

/// What an unprivileged domain does not get to know.
fn privileged<'t>(caller: &Caller<'_>, text: &'t str) -> &'t str {
    if privilege::may(caller.domain, Action::ReadBuild).is_ok() { text } else { "<denied>" }
}

/// `HYPERVISOR_xen_version(op, address)`.
#[inline]
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    if args[0] as u32 == Op::Version as u32 {
        return Outcome::Done(VERSION);
    }
    describe(caller, args).into()
}

fn features(caller: &Caller<'_>) -> u32 {
    let mut bits = 1 << features::XENFEAT_MEMORY_OP_VNODE_SUPPORTED
        | 1 << features::XENFEAT_ARM_SMCCC_SUPPORTED
        | 1 << features::XENFEAT_WRITABLE_PAGE_TABLES
        | 1 << features::XENFEAT_AUTO_TRANSLATED_PHYSMAP;
    if caller.domain.is_control {
        bits |= 1 << features::XENFEAT_DOM0;
    }
    bits | if caller.domain.is_direct_mapped {
        1 << features::XENFEAT_DIRECT_MAPPED
    } else {
        1 << features::XENFEAT_NOT_DIRECT_MAPPED
    }
}

#[inline(never)]
fn describe(caller: &Caller<'_>, args: &[u64; 5]) -> Result<i64, Errno> {
    let address = args[1];
    match Op::try_from(args[0] as u32).map_err(|_| Errno::ENOSYS)? {
        Op::Version => return Ok(VERSION),
        Op::Extraversion => guest::write(caller, address, &field::<16>(EXTRAVERSION))?,
        Op::CompileInfo => {
            let info = CompileInfo {
                compiler: field(privileged(
                    caller,
                    concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), " or later"),
                )),
                compile_by: field(privileged(caller, "nacelle")),
                compile_domain: field(privileged(caller, "")),
                compile_date: field(privileged(caller, "")),
            };
            guest::write(caller, address, &info)?;
        }
        Op::Capabilities => guest::write::<Capabilities>(caller, address, &field("xen-3.0-aarch64 "))?,
        Op::Changeset => {
            guest::write::<Changeset>(caller, address, &field(privileged(caller, "unavailable")))?
        }
        Op::PlatformParameters => {
            guest::write(caller, address, &PlatformParameters { virt_start: VIRT_START })?;
        }
        Op::GetFeatures => {
            let info: FeatureInfo = guest::read(caller, address)?;
            let submap = match info.submap_idx {
                0 => features(caller),
                _ => return Err(Errno::EINVAL),
            };
            guest::write(caller, address, &FeatureInfo { submap, ..info })?;
        }
        // The granule of stage 2.
        Op::Pagesize => return Ok(4096),
        Op::GuestHandle => {
            let handle = *caller.domain.handle.lock();
            guest::write(caller, address, &handle)?;
        }
        Op::Commandline => {
            let line = COMMAND_LINE.get().map_or("", |line| line);
            guest::write::<Commandline>(caller, address, &field(privileged(caller, line)))?;
        }
        // The image carries no build-id note.
        Op::BuildId => return privilege::may(caller.domain, Action::ReadBuild).and(Err(Errno::ENODATA)),
    }
    Ok(0)
}

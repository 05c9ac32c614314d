//! `xl dmesg`: the hypervisor's log.

use std::io::Write;

use anyhow::Result;

use super::command_line::Dmesg;
use crate::privcmd::Privcmd;

/// Prints the log, and empties it if that is asked for.
pub(super) fn run(xen: &Privcmd, options: &Dmesg, out: &mut impl Write) -> Result<()> {
    Ok(xen.console(options.clear, out)?)
}

//! `xl dmesg`: the hypervisor's log.

use std::io::Write;

use anyhow::Result;

use super::command_line::Dmesg;
use super::host::Host;
use super::print_json;

/// Prints the log, and empties it if that is asked for.
pub(super) fn run(host: &Host, options: &Dmesg, out: &mut impl Write) -> Result<()> {
    if !options.json {
        return Ok(host.xen.console(options.clear, out)?);
    }
    let mut log = Vec::new();
    host.xen.console(options.clear, &mut log)?;
    print_json(&String::from_utf8_lossy(&log).lines().collect::<Vec<_>>(), out)
}

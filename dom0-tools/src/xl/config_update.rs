//! `xl config-update`: what a domain is made of when it reboots.

use std::io::Write;

use anyhow::Result;

use super::command_line::ConfigUpdate;
use super::configuration::Given;
use super::host::Host;
use super::print_json;
use crate::userdata::{Kind, UserData};

/// Keeps the new configuration beside the one that the domain runs with.
pub(super) fn run(host: &Host, options: &ConfigUpdate, dry_run: bool, out: &mut impl Write) -> Result<()> {
    let domain = host.find(&options.domain)?;
    let given = Given::read(&options.config)?;
    let config = given.understand(host.memory_kib())?;
    if options.debug || dry_run {
        let cpus = host.xen.physinfo()?.max_cpu_id.saturating_add(1);
        print_json(&config.to_libxl(cpus), out)?;
    }
    let number = domain.id().raw();
    if dry_run {
        return Ok(());
    }
    eprintln!("setting dom{number} configuration");
    let data = UserData::new(domain.id(), domain.uuid());
    let _lock = data.lock()?;
    Ok(data.write(Kind::Xl, &given.text())?)
}

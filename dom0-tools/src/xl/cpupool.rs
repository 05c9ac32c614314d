//! `xl cpupool-list`: the CPU pools.

use std::io::{self, Write};

use anyhow::{Result, bail};
use serde_json::json;

use super::command_line::CpupoolList;
use super::host::Host;
use super::{print_json, scheduler_name};
use crate::privcmd::Pool;

/// Prints the pools, or the one that is named.
pub(super) fn run(host: &Host, options: &CpupoolList, out: &mut impl Write) -> Result<()> {
    let is_wanted = |(_, found): &(Pool, String)| options.pool.as_ref().is_none_or(|name| name == found);
    let named = |pool: Pool| {
        let name = host.pool_name(pool.id);
        (pool, name)
    };
    let pools: Vec<(Pool, String)> = host.xen.pools()?.into_iter().map(named).filter(is_wanted).collect();
    if let Some(name) = &options.pool
        && pools.is_empty()
    {
        bail!("Pool '{name}' does not exist");
    }
    if options.json {
        let entry = |(pool, name): &(Pool, String)| {
            json!({
                "poolid": pool.id,
                "name": name,
                "sched": scheduler_name(pool.scheduler),
                "n_dom": pool.domains,
                "cpumap": pool.cpus,
            })
        };
        return print_json(&pools.iter().map(entry).collect::<Vec<_>>(), out);
    }
    Ok(print(&pools, options.cpus, out)?)
}

fn print(pools: &[(Pool, String)], with_cpus: bool, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{:<19}", "Name")?;
    match with_cpus {
        true => writeln!(out, "CPU list")?,
        false => writeln!(out, "CPUs   Sched     Active   Domain count")?,
    }
    for (pool, name) in pools {
        write!(out, "{name:<19}")?;
        if with_cpus {
            let cpus: Vec<String> = pool.cpus.iter().map(|cpu| cpu.to_string()).collect();
            writeln!(out, "{}", cpus.join(","))?;
        } else {
            let (cpus, scheduler) = (pool.cpus.len(), scheduler_name(pool.scheduler));
            writeln!(out, "{cpus:3} {scheduler:>9}       y       {:4}", pool.domains)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu_set::CpuSet;

    #[test]
    fn columns_are_debians() {
        let pools = [(Pool { id: 0, scheduler: 6, domains: 1, cpus: CpuSet::first(2) }, "Pool-0".to_owned())];
        let text = |with_cpus| {
            let mut out = Vec::new();
            print(&pools, with_cpus, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "\
Name               CPUs   Sched     Active   Domain count
Pool-0               2   credit2       y          1
";
        assert_eq!(text(false), expected);
        assert_eq!(text(true), "Name               CPU list\nPool-0             0,1\n");
    }
}

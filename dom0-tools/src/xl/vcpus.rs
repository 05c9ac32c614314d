//! `xl vcpu-list` and `xl vcpu-pin`: vCPUs and their CPUs.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use pv_abi::domctl::{GetVcpuInfo, XEN_INVALID_MAX_VCPU_ID};
use rustix::io::Errno;
use serde_json::json;

use super::command_line::{VcpuList, VcpuPin};
use super::host::{Domain, Host};
use super::print_json;
use crate::cpu_set::CpuSet;
use crate::privcmd::Affinity;

/// One row.
struct Vcpu<'a> {
    domain: &'a Domain,
    info: GetVcpuInfo,
    affinity: Affinity,
}

/// The number of CPUs in a set's text.
fn cpus(host: &Host) -> Result<u32> {
    Ok(host.xen.physinfo()?.max_cpu_id.saturating_add(1))
}

/// Prints the vCPUs of all domains, or of those that are named.
pub(super) fn list(host: &Host, options: &VcpuList, out: &mut impl Write) -> Result<()> {
    if !options.json {
        writeln!(
            out,
            "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)"
        )?;
    }
    let cpus = cpus(host)?;
    let domains = match options.domains.as_slice() {
        [] => host.domains()?,
        given => given
            .iter()
            .map(|given| match host.domain(host.parse(given)?)? {
                Some(domain) => Ok(domain),
                None => bail!("Error: Domain '{given}' does not exist."),
            })
            .collect::<Result<Vec<_>>>()?,
    };
    let mut rows = Vec::new();
    for domain in &domains {
        vcpus_of(host, domain, &mut rows)?;
    }
    if options.json {
        return print_json(&rows.iter().map(|row| row.json(cpus)).collect::<Vec<_>>(), out);
    }
    for row in &rows {
        row.print(cpus, out)?;
    }
    Ok(())
}

fn vcpus_of<'a>(host: &Host, domain: &'a Domain, rows: &mut Vec<Vcpu<'a>>) -> Result<()> {
    if domain.info.max_vcpu_id == XEN_INVALID_MAX_VCPU_ID {
        return Ok(());
    }
    for vcpu in 0..=domain.info.max_vcpu_id {
        if let Some(info) = host.xen.vcpu(domain.id(), vcpu)? {
            match host.xen.affinity(domain.id(), vcpu) {
                Ok(affinity) => rows.push(Vcpu { domain, info, affinity }),
                // It has gone since it was listed.
                Err(error) if error.is(Errno::SRCH) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

impl Vcpu<'_> {
    fn print(&self, cpus: u32, out: &mut impl Write) -> io::Result<()> {
        let info = &self.info;
        write!(out, "{:<32} {:5} {:5}", self.domain.shown(), self.domain.id().raw(), info.vcpu)?;
        if info.online == 0 {
            write!(out, "{:>5} {:>3}-p ", '-', '-')?;
        } else {
            let running = if info.running != 0 { 'r' } else { '-' };
            let blocked = if info.blocked != 0 { 'b' } else { '-' };
            write!(out, "{:5} {running:>3}{blocked}- ", info.cpu)?;
        }
        let Affinity { hard, soft } = &self.affinity;
        let seconds = info.cpu_time as f64 / 1e9;
        writeln!(out, "{seconds:9.1}  {} / {}", hard.within(cpus), soft.within(cpus))
    }

    fn json(&self, cpus: u32) -> serde_json::Value {
        let info = &self.info;
        json!({
            "domid": self.domain.id().raw(),
            "name": self.domain.name,
            "vcpuid": info.vcpu,
            "cpu": info.cpu,
            "online": info.online != 0,
            "blocked": info.blocked != 0,
            "running": info.running != 0,
            "vcpu_time_ns": info.cpu_time,
            "hard_affinity": self.affinity.hard.within(cpus),
            "soft_affinity": self.affinity.soft.within(cpus),
        })
    }
}

/// What a set of CPUs on the command line asks for; `None`: leave it.
fn wanted(given: &str, cpus: u32) -> Result<Option<CpuSet>> {
    match given {
        "-" => Ok(None),
        list => Ok(Some(CpuSet::parse(list, cpus)?)),
    }
}

/// Sets the CPUs of one vCPU or all of a domain's.
pub(super) fn pin(host: &Host, options: &VcpuPin) -> Result<()> {
    let xen = &host.xen;
    let domain = host.find(&options.domain)?;
    let id = domain.id();
    let cpus = cpus(host)?;
    let hard = wanted(&options.hard, cpus)?;
    let soft = wanted(options.soft.as_deref().unwrap_or("-"), cpus)?;
    if hard.is_none() && soft.is_none() {
        bail!("Neither a hard nor a soft affinity is given: nothing to do.");
    }
    let vcpus = match options.vcpu.as_str() {
        "all" => match domain.info.max_vcpu_id {
            XEN_INVALID_MAX_VCPU_ID => 0..0,
            last => 0..last.saturating_add(1),
        },
        number => {
            let vcpu: u32 = number
                .parse()
                .ok()
                .filter(|vcpu| *vcpu < u32::MAX)
                .with_context(|| format!("Error: Invalid argument {number} as VCPU."))?;
            vcpu..vcpu + 1
        }
    };
    for vcpu in vcpus {
        xen.set_affinity(id, vcpu, hard.as_ref(), soft.as_ref(), options.force)
            .with_context(|| format!("Could not set affinity for vcpu `{vcpu}'."))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(info: GetVcpuInfo, hard: &[u8]) -> String {
        let affinity = Affinity { hard: CpuSet::from_bytes(hard), soft: CpuSet::from_bytes(&[0xff]) };
        let mut out = Vec::new();
        let domain = Domain { info: Default::default(), name: Some("Domain-0".to_owned()) };
        Vcpu { domain: &domain, info, affinity }.print(2, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_debians() {
        let info = GetVcpuInfo { online: 1, running: 1, cpu_time: 12_400_000_000, ..GetVcpuInfo::default() };
        let expected = "Domain-0                             0     0    0   r--      12.4  all / all\n";
        assert_eq!(row(info, &[0xff]), expected);
        let info = GetVcpuInfo { vcpu: 1, cpu: 1, online: 1, blocked: 1, ..info };
        let info = GetVcpuInfo { running: 0, ..info };
        let expected = "Domain-0                             0     1    1   -b-      12.4  1 / all\n";
        assert_eq!(row(info, &[2]), expected);
        let expected = "Domain-0                             0     1    -   --p      12.4  none / all\n";
        assert_eq!(row(GetVcpuInfo { online: 0, ..info }, &[4]), expected);
    }

    #[test]
    fn a_dash_leaves_the_affinity() {
        assert_eq!(wanted("-", 4).unwrap(), None);
        assert_eq!(wanted("all", 4).unwrap(), Some(CpuSet::first(4)));
        assert!(wanted("x", 4).is_err());
    }
}

//! `xl vcpu-list` and `xl vcpu-pin`: vCPUs and their CPUs.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use pv_abi::domctl::{GetDomainInfo, GetVcpuInfo, XEN_INVALID_MAX_VCPU_ID};
use pv_abi::domid::DomId;
use serde_json::json;

use super::command_line::{VcpuList, VcpuPin};
use super::{names, print_json};
use crate::cpu_set::CpuSet;
use crate::privcmd::{Affinity, Privcmd};

/// One row.
struct Vcpu {
    domain: DomId,
    info: GetVcpuInfo,
    affinity: Affinity,
}

/// The number of CPUs in a set's text.
fn cpus(xen: &Privcmd) -> Result<u32> {
    Ok(xen.physinfo()?.max_cpu_id.saturating_add(1))
}

/// Prints the vCPUs of all domains, or of those that are named.
pub(super) fn list(xen: &Privcmd, options: &VcpuList, out: &mut impl Write) -> Result<()> {
    if !options.json {
        writeln!(
            out,
            "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)"
        )?;
    }
    let cpus = cpus(xen)?;
    let mut rows = Vec::new();
    if options.domains.is_empty() {
        for info in xen.domains(DomId::DOM0)? {
            vcpus_of(xen, &info, &mut rows)?;
        }
    }
    for given in &options.domains {
        match xen.domain(names::parse(given)?)? {
            Some(info) => vcpus_of(xen, &info, &mut rows)?,
            None => bail!("Error: Domain '{given}' does not exist."),
        }
    }
    if options.json {
        return print_json(&rows.iter().map(|row| row.json(cpus)).collect::<Vec<_>>(), out);
    }
    for row in &rows {
        row.print(cpus, out)?;
    }
    Ok(())
}

fn vcpus_of(xen: &Privcmd, domain: &GetDomainInfo, rows: &mut Vec<Vcpu>) -> Result<()> {
    if domain.max_vcpu_id == XEN_INVALID_MAX_VCPU_ID {
        return Ok(());
    }
    for vcpu in 0..=domain.max_vcpu_id {
        if let Some(info) = xen.vcpu(domain.domain, vcpu)? {
            let affinity = xen.affinity(domain.domain, vcpu)?;
            rows.push(Vcpu { domain: domain.domain, info, affinity });
        }
    }
    Ok(())
}

impl Vcpu {
    fn print(&self, cpus: u32, out: &mut impl Write) -> io::Result<()> {
        let info = &self.info;
        write!(out, "{:<32} {:5} {:5}", names::shown(self.domain), self.domain.raw(), info.vcpu)?;
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
            "domid": self.domain.raw(),
            "name": names::name(self.domain),
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
pub(super) fn pin(xen: &Privcmd, options: &VcpuPin) -> Result<()> {
    let id = names::find(xen, &options.domain)?;
    let cpus = cpus(xen)?;
    let hard = wanted(&options.hard, cpus)?;
    let soft = wanted(options.soft.as_deref().unwrap_or("-"), cpus)?;
    if hard.is_none() && soft.is_none() {
        bail!("Neither a hard nor a soft affinity is given: nothing to do.");
    }
    let vcpus = match options.vcpu.as_str() {
        "all" => match xen.domain(id)?.map(|info| info.max_vcpu_id) {
            Some(XEN_INVALID_MAX_VCPU_ID) | None => 0..0,
            Some(last) => 0..last.saturating_add(1),
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
        Vcpu { domain: DomId::DOM0, info, affinity }.print(2, &mut out).unwrap();
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

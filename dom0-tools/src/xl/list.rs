//! `xl list`: the domains; and `xl claims`.

use std::io::{self, Write};

use anyhow::{Result, bail};
use pv_abi::domctl::GetDomainInfo;
use pv_abi::domid::DomId;
use pv_abi::nacelle::MemoryCounters;
use serde::Serialize;
use serde_json::Value;

use super::command_line::{Claims, List};
use super::host::{Domain, Host};
use super::long::long;
use super::memory::{Amounts, table};
use super::print_json;
use super::state::{State, reason};
use crate::memoryd::protocol;
use crate::memoryd::view::DomainView;
use crate::uuid::Uuid;

/// KiB in a page.
const PAGE_KIB: u64 = 4;

fn cpu_seconds(info: &GetDomainInfo) -> f64 {
    info.cpu_time as f64 / 1e9
}

/// MiB as in the column `Mem`: with what was claimed for it.
fn mib(info: &GetDomainInfo) -> u64 {
    (info.tot_pages.saturating_add(info.outstanding_pages)).saturating_mul(PAGE_KIB) / 1024
}

/// What the optional columns need, asked for each domain.
#[derive(Default)]
struct Extra {
    pool: Option<String>,
    nodes: Option<String>,
    memory: Option<Amounts>,
    dynamic: Option<DomainView>,
}

/// Prints the domains, or the one that is named.
pub(super) fn run(host: &Host, options: &List, out: &mut impl Write) -> Result<()> {
    let domains = match &options.domain {
        None => host.domains()?,
        Some(given) => match host.domain(host.parse(given)?)? {
            Some(domain) => vec![domain],
            None => bail!("Error: Domain '{given}' does not exist."),
        },
    };
    if options.long {
        let mut all: Vec<Value> = Vec::new();
        for domain in &domains {
            match long(host, domain) {
                Ok(value) => all.push(value),
                // It has gone since it was listed.
                Err(_) if host.xen.domain(domain.id())?.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        return print_json(&all, out);
    }
    if options.json {
        let dynamic = protocol::status();
        let of = |domain| {
            let entry = Entry::of(host, domain)?;
            let dynamic = dynamic.as_ref().and_then(|status| status.domain(domain.id()));
            Ok(Entry { dynamic, ..entry })
        };
        let entries: Result<Vec<Entry<'_>>> = domains.iter().map(of).collect();
        return print_json(&entries?, out);
    }
    print_header(options, out)?;
    let dynamic = if options.memory { protocol::status() } else { None };
    let nodes = if options.numa { host.xen.physinfo()?.nr_nodes } else { 0 };
    for domain in &domains {
        let extra = Extra {
            pool: options.cpupool.then(|| host.pool_name(domain.info.cpupool)),
            nodes: match options.numa {
                true => Some(host.xen.node_affinity(domain.id())?.within(nodes)),
                false => None,
            },
            memory: match options.memory {
                true => Some(Amounts::of(host, &domain.info)?),
                false => None,
            },
            dynamic: dynamic.as_ref().and_then(|status| status.domain(domain.id())).cloned(),
        };
        print_row(domain, options, &extra, out)?;
    }
    Ok(())
}

/// Prints what is claimed for each domain.
pub(super) fn claims(host: &Host, options: &Claims, out: &mut impl Write) -> Result<()> {
    let domains = host.domains()?;
    if options.json {
        let entries: Result<Vec<Entry<'_>>> = domains.iter().map(|domain| Entry::of(host, domain)).collect();
        return print_json(&entries?, out);
    }
    writeln!(out, "Name                                        ID   Mem VCPUs\tState\tTime(s)  Claimed")?;
    for domain in &domains {
        print_common(domain, out)?;
        writeln!(out, " {:5}", domain.info.outstanding_pages * PAGE_KIB / 1024)?;
    }
    Ok(())
}

/// Prints the domains and their UUIDs: `xl vm-list`.
pub(super) fn uuids(host: &Host, json: bool, out: &mut impl Write) -> Result<()> {
    let domains = host.domains()?;
    if json {
        let entry = |domain: &Domain| serde_json::json!({ "uuid": domain.uuid(), "domid": domain.id().raw(), "name": domain.name });
        return print_json(&domains.iter().map(entry).collect::<Vec<_>>(), out);
    }
    writeln!(out, "UUID                                  ID    name")?;
    for domain in &domains {
        writeln!(out, "{}  {}    {:<30}", domain.uuid(), domain.id().raw(), domain.shown())?;
    }
    Ok(())
}

fn print_header(options: &List, out: &mut impl Write) -> io::Result<()> {
    write!(out, "Name                                        ID   Mem VCPUs\tState\tTime(s)")?;
    if options.verbose {
        write!(out, "   UUID                            Reason-Code\tSecurity Label")?;
    }
    if options.context && !options.verbose {
        write!(out, "   Security Label")?;
    }
    if options.cpupool {
        write!(out, "         Cpupool")?;
    }
    if options.numa {
        write!(out, " NODE Affinity")?;
    }
    if options.memory {
        write!(out, "{}", table::HEADING)?;
    }
    writeln!(out)
}

fn print_common(domain: &Domain, out: &mut impl Write) -> io::Result<()> {
    let info = &domain.info;
    write!(
        out,
        "{:<40} {:5} {:5} {:5}     {}  {:8.1}",
        domain.shown(),
        info.domain.raw(),
        mib(info),
        info.nr_online_vcpus,
        State::new(info.flags).letters(),
        cpu_seconds(info),
    )
}

fn print_row(domain: &Domain, options: &List, extra: &Extra, out: &mut impl Write) -> io::Result<()> {
    print_common(domain, out)?;
    let info = &domain.info;
    if options.verbose {
        write!(out, " {}", domain.uuid())?;
        match State::new(info.flags).shutdown {
            true => write!(out, " {:8x}", reason(info.flags))?,
            false => write!(out, " {:>8}", "-")?,
        }
    }
    if options.verbose || options.context {
        // No labels: there is no security module.
        write!(out, " {:>16}", "-")?;
    }
    if let Some(pool) = &extra.pool {
        write!(out, "{pool:>16}")?;
    }
    if let Some(nodes) = &extra.nodes {
        write!(out, " {nodes}")?;
    }
    if let Some(memory) = &extra.memory {
        let dynamic = extra.dynamic.as_ref();
        write!(out, "{}", table::columns(memory.target_kib, memory.ceiling_kib, dynamic))?;
    }
    writeln!(out)
}

/// One domain, for `--json`.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(serialize_with = "super::number")]
    domid: DomId,
    name: Option<&'a str>,
    uuid: Uuid,
    #[serde(flatten)]
    state: State,
    shutdown_reason: Option<u32>,
    current_memkb: u64,
    target_memkb: u64,
    ceiling_memkb: u64,
    unbacked_memkb: u64,
    max_memkb: u64,
    outstanding_memkb: u64,
    cpu_time_ns: u64,
    vcpu_online: u32,
    vcpu_max_id: u32,
    cpupool: u32,
    /// `null` on Xen, which does not tell.
    mapping: Option<Mapping>,
    /// What xenmemd knows of it; `null` without that daemon.
    dynamic: Option<&'a DomainView>,
}

/// How a domain's memory is mapped: Nacelle's counters (docs/abi.md).
#[derive(Serialize)]
struct Mapping {
    pages_4k: u64,
    blocks_2m: u64,
    blocks_1g: u64,
    on_demand_pages: u64,
    reserved_pages: u64,
    faults: u64,
    splits: u64,
    merges: u64,
    tlb_invalidations: u64,
    table_pages: u64,
}

impl From<MemoryCounters> for Mapping {
    fn from(counters: MemoryCounters) -> Self {
        Self {
            pages_4k: counters.pages_4k,
            blocks_2m: counters.blocks_2m,
            blocks_1g: counters.blocks_1g,
            on_demand_pages: counters.on_demand,
            reserved_pages: counters.reserved,
            faults: counters.faults,
            splits: counters.splits,
            merges: counters.merges,
            tlb_invalidations: counters.invalidations,
            table_pages: counters.tables,
        }
    }
}

impl<'a> Entry<'a> {
    fn of(host: &Host, domain: &'a Domain) -> Result<Self> {
        let counters = host.xen.memory_counters(domain.id())?;
        Ok(Self::new(domain, Amounts::of(host, &domain.info)?, counters))
    }

    fn new(domain: &'a Domain, memory: Amounts, counters: Option<MemoryCounters>) -> Self {
        let info = &domain.info;
        let state = State::new(info.flags);
        Self {
            domid: info.domain,
            name: domain.name.as_deref(),
            uuid: domain.uuid(),
            state,
            shutdown_reason: state.shutdown.then(|| reason(info.flags)),
            current_memkb: info.tot_pages.saturating_mul(PAGE_KIB),
            target_memkb: memory.target_kib,
            ceiling_memkb: memory.ceiling_kib,
            unbacked_memkb: memory.unbacked_kib,
            max_memkb: info.max_pages.saturating_mul(PAGE_KIB),
            outstanding_memkb: info.outstanding_pages.saturating_mul(PAGE_KIB),
            cpu_time_ns: info.cpu_time,
            vcpu_online: info.nr_online_vcpus,
            vcpu_max_id: info.max_vcpu_id,
            cpupool: info.cpupool,
            mapping: counters.map(Mapping::from),
            dynamic: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use pv_abi::domctl::{XEN_DOMINF_RUNNING, XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNSHIFT};
    use serde_json::json;

    use super::*;

    fn dom0() -> Domain {
        let info = GetDomainInfo {
            flags: XEN_DOMINF_RUNNING | 0xff << XEN_DOMINF_SHUTDOWNSHIFT,
            tot_pages: 262_144,
            max_pages: 262_144,
            nr_online_vcpus: 2,
            cpu_time: 17_749_000_000,
            ..GetDomainInfo::default()
        };
        Domain { info, name: Some("Domain-0".to_owned()) }
    }

    fn memory() -> Amounts {
        Amounts { target_kib: 512 << 10, ceiling_kib: 1024 << 10, unbacked_kib: 4 }
    }

    fn table(domain: &Domain, options: &List, extra: &Extra) -> String {
        let mut out = Vec::new();
        print_header(options, &mut out).unwrap();
        print_row(domain, options, extra, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_debians() {
        let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0  1024     2     r-----      17.7
";
        assert_eq!(table(&dom0(), &List::default(), &Extra::default()), expected);
        let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label
Domain-0                                     0  1024     2     r-----      17.7 00000000-0000-0000-0000-000000000000        -                -
";
        let verbose = List { verbose: true, ..List::default() };
        assert_eq!(table(&dom0(), &verbose, &Extra::default()), expected);
        let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)   Security Label
Domain-0                                     0  1024     2     r-----      17.7                -
";
        let context = List { context: true, ..List::default() };
        assert_eq!(table(&dom0(), &context, &Extra::default()), expected);
        let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)         Cpupool NODE Affinity
Domain-0                                     0  1024     2     r-----      17.7          Pool-0 all
";
        let pool = List { cpupool: true, numa: true, ..List::default() };
        let extra = Extra { pool: Some("Pool-0".into()), nodes: Some("all".into()), ..Extra::default() };
        assert_eq!(table(&dom0(), &pool, &extra), expected);
    }

    #[test]
    fn memory_comes_after_them() {
        let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)  Target  Ceiling  Minimum   Demand Pressure Reporter Since
Domain-0                                     0  1024     2     r-----      17.7     512     1024        -        -        - -            -
";
        let options = List { memory: true, ..List::default() };
        let extra = Extra { memory: Some(memory()), ..Extra::default() };
        assert_eq!(table(&dom0(), &options, &extra), expected);
    }

    #[test]
    fn a_crash_has_its_number_and_a_guest_its_uuid() {
        let info = GetDomainInfo {
            domain: DomId::new(12),
            flags: XEN_DOMINF_SHUTDOWN | 3 << XEN_DOMINF_SHUTDOWNSHIFT,
            handle: core::array::from_fn(|index| index as u8),
            ..dom0().info
        };
        let domain = Domain { info, name: None };
        let verbose = List { verbose: true, ..List::default() };
        let text = table(&domain, &verbose, &Extra::default());
        let row = "(null)                                      12  1024     2     ---sc-      17.7 \
            00010203-0405-0607-0809-0a0b0c0d0e0f        3                -\n";
        assert!(text.ends_with(row), "{text}");
        let entry = serde_json::to_value(Entry::new(
            &domain,
            memory(),
            Some(MemoryCounters { blocks_2m: 5, ..Default::default() }),
        ))
        .unwrap();
        assert_eq!((&entry["domid"], &entry["name"]), (&json!(12), &Value::Null));
        assert_eq!((&entry["shutdown_reason"], &entry["crashed"]), (&json!(3), &json!(true)));
        assert_eq!((&entry["target_memkb"], &entry["unbacked_memkb"]), (&json!(524_288), &json!(4)));
        assert_eq!(entry["mapping"]["blocks_2m"], json!(5));
        let dom0 = dom0();
        let entry = serde_json::to_value(Entry::new(&dom0, memory(), None)).unwrap();
        assert_eq!(entry["shutdown_reason"], Value::Null);
    }
}

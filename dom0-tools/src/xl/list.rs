//! `xl list`: the domains; and `xl claims`.

use std::io::{self, Write};

use anyhow::{Result, bail};
use pv_abi::domctl::{
    GetDomainInfo, XEN_DOMINF_BLOCKED, XEN_DOMINF_DYING, XEN_DOMINF_PAUSED, XEN_DOMINF_RUNNING,
    XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT,
};
use pv_abi::domid::DomId;
use pv_abi::sched::ShutdownReason;
use serde::Serialize;
use serde_json::{Value, json};

use super::command_line::{Claims, List};
use super::{names, print_json};
use crate::privcmd::{CreditParameters, Privcmd};

/// KiB in a page.
const PAGE_KIB: u64 = 4;

/// What a domain is doing, letter by letter as `xl list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct State {
    running: bool,
    blocked: bool,
    paused: bool,
    shutdown: bool,
    crashed: bool,
    dying: bool,
}

impl State {
    fn new(flags: u32) -> Self {
        let is = |flag| flags & flag != 0;
        Self {
            running: is(XEN_DOMINF_RUNNING),
            blocked: is(XEN_DOMINF_BLOCKED),
            paused: is(XEN_DOMINF_PAUSED),
            shutdown: is(XEN_DOMINF_SHUTDOWN),
            crashed: is(XEN_DOMINF_SHUTDOWN) && reason(flags) == ShutdownReason::Crash as u32,
            dying: is(XEN_DOMINF_DYING),
        }
    }

    fn letters(self) -> String {
        let Self { running, blocked, paused, shutdown, crashed, dying } = self;
        let letters = [running, blocked, paused, shutdown, crashed, dying].into_iter().zip("rbpscd".chars());
        letters.map(|(is, letter)| if is { letter } else { '-' }).collect()
    }
}

/// `SHUTDOWN_*` of a domain that is shut down.
fn reason(flags: u32) -> u32 {
    flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK
}

fn uuid(handle: &[u8; 16]) -> String {
    let mut text = String::new();
    for (index, byte) in handle.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

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
}

/// The name of a pool. Others than the first have names in XenStore only.
pub(super) fn pool_name(id: u32) -> String {
    format!("Pool-{id}")
}

/// Prints the domains, or the one that is named.
pub(super) fn run(xen: &Privcmd, options: &List, out: &mut impl Write) -> Result<()> {
    let domains = match &options.domain {
        None => xen.domains(DomId::DOM0)?,
        Some(given) => match xen.domain(names::parse(given)?)? {
            Some(info) => vec![info],
            None => bail!("Error: Domain '{given}' does not exist."),
        },
    };
    if options.long {
        let long: Result<Vec<Value>> =
            domains.iter().map(|info| Ok(long(info, xen.credit_parameters(info.domain)?))).collect();
        return print_json(&long?, out);
    }
    if options.json {
        return print_json(&domains.iter().map(Entry::new).collect::<Vec<_>>(), out);
    }
    print_header(options, out)?;
    let nodes = if options.numa { xen.physinfo()?.nr_nodes } else { 0 };
    for info in &domains {
        let extra = Extra {
            pool: options.cpupool.then(|| pool_name(info.cpupool)),
            nodes: match options.numa {
                true => Some(xen.node_affinity(info.domain)?.within(nodes)),
                false => None,
            },
        };
        print_row(info, options, &extra, out)?;
    }
    Ok(())
}

/// Prints what is claimed for each domain.
pub(super) fn claims(xen: &Privcmd, options: &Claims, out: &mut impl Write) -> Result<()> {
    let domains = xen.domains(DomId::DOM0)?;
    if options.json {
        return print_json(&domains.iter().map(Entry::new).collect::<Vec<_>>(), out);
    }
    writeln!(out, "Name                                        ID   Mem VCPUs\tState\tTime(s)  Claimed")?;
    for info in &domains {
        print_common(info, out)?;
        writeln!(out, " {:5}", info.outstanding_pages * PAGE_KIB / 1024)?;
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
    writeln!(out)
}

fn print_common(info: &GetDomainInfo, out: &mut impl Write) -> io::Result<()> {
    write!(
        out,
        "{:<40} {:5} {:5} {:5}     {}  {:8.1}",
        names::shown(info.domain),
        info.domain.raw(),
        mib(info),
        info.nr_online_vcpus,
        State::new(info.flags).letters(),
        cpu_seconds(info),
    )
}

fn print_row(info: &GetDomainInfo, options: &List, extra: &Extra, out: &mut impl Write) -> io::Result<()> {
    print_common(info, out)?;
    if options.verbose {
        write!(out, " {}", uuid(&info.handle))?;
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
    writeln!(out)
}

/// One domain, for `--json`.
#[derive(Serialize)]
struct Entry {
    #[serde(serialize_with = "super::number")]
    domid: DomId,
    name: Option<&'static str>,
    uuid: String,
    #[serde(flatten)]
    state: State,
    shutdown_reason: Option<u32>,
    current_memkb: u64,
    max_memkb: u64,
    outstanding_memkb: u64,
    cpu_time_ns: u64,
    vcpu_online: u32,
    vcpu_max_id: u32,
    cpupool: u32,
}

impl Entry {
    fn new(info: &GetDomainInfo) -> Self {
        let state = State::new(info.flags);
        Self {
            domid: info.domain,
            name: names::name(info.domain),
            uuid: uuid(&info.handle),
            state,
            shutdown_reason: state.shutdown.then(|| reason(info.flags)),
            current_memkb: info.tot_pages.saturating_mul(PAGE_KIB),
            max_memkb: info.max_pages.saturating_mul(PAGE_KIB),
            outstanding_memkb: info.outstanding_pages.saturating_mul(PAGE_KIB),
            cpu_time_ns: info.cpu_time,
            vcpu_online: info.nr_online_vcpus,
            vcpu_max_id: info.max_vcpu_id,
            cpupool: info.cpupool,
        }
    }
}

/// One domain as `xl list -l` has it: what a configuration file would say, as far as it can be known from here.
fn long(info: &GetDomainInfo, parameters: CreditParameters) -> Value {
    let mut general = json!({ "type": "pvh" });
    if let Some(name) = names::name(info.domain) {
        general["name"] = json!(name);
    }
    if info.handle != [0; 16] {
        general["uuid"] = json!(uuid(&info.handle));
    }
    json!({
        "domid": info.domain.raw(),
        "config": {
            "c_info": general,
            "b_info": {
                "max_memkb": info.max_pages.saturating_mul(PAGE_KIB),
                "target_memkb": info.tot_pages.saturating_mul(PAGE_KIB),
                "sched_params": {
                    "sched": "credit2",
                    "weight": parameters.weight,
                    "cap": parameters.cap,
                },
                "type.pvh": {},
                "arch_arm": {},
                "arch_x86": {},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dom0() -> GetDomainInfo {
        GetDomainInfo {
            flags: XEN_DOMINF_RUNNING | 0xff << XEN_DOMINF_SHUTDOWNSHIFT,
            tot_pages: 262_144,
            max_pages: 262_144,
            nr_online_vcpus: 2,
            cpu_time: 17_749_000_000,
            ..GetDomainInfo::default()
        }
    }

    fn table(info: &GetDomainInfo, options: &List, extra: &Extra) -> String {
        let mut out = Vec::new();
        print_header(options, &mut out).unwrap();
        print_row(info, options, extra, &mut out).unwrap();
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
        let extra = Extra { pool: Some(pool_name(0)), nodes: Some("all".into()) };
        assert_eq!(table(&dom0(), &pool, &extra), expected);
    }

    #[test]
    fn states_are_letters() {
        let letters = |flags| State::new(flags).letters();
        assert_eq!(letters(0), "------");
        assert_eq!(letters(XEN_DOMINF_BLOCKED | XEN_DOMINF_PAUSED), "-bp---");
        assert_eq!(letters(XEN_DOMINF_SHUTDOWN), "---s--");
        assert_eq!(letters(XEN_DOMINF_SHUTDOWN | XEN_DOMINF_DYING | 3 << 16), "---scd");
        // The reason means nothing before it is shut down.
        assert_eq!(letters(3 << 16), "------");
    }

    #[test]
    fn a_crash_has_its_number_and_a_guest_its_uuid() {
        let info = GetDomainInfo {
            domain: DomId::new(12),
            flags: XEN_DOMINF_SHUTDOWN | 3 << XEN_DOMINF_SHUTDOWNSHIFT,
            handle: core::array::from_fn(|index| index as u8),
            ..dom0()
        };
        let verbose = List { verbose: true, ..List::default() };
        let text = table(&info, &verbose, &Extra::default());
        let row = "(null)                                      12  1024     2     ---sc-      17.7 \
            00010203-0405-0607-0809-0a0b0c0d0e0f        3                -\n";
        assert!(text.ends_with(row), "{text}");
        let entry = serde_json::to_value(Entry::new(&info)).unwrap();
        assert_eq!((&entry["domid"], &entry["name"]), (&json!(12), &Value::Null));
        assert_eq!((&entry["shutdown_reason"], &entry["crashed"]), (&json!(3), &json!(true)));
        assert_eq!(serde_json::to_value(Entry::new(&dom0())).unwrap()["shutdown_reason"], Value::Null);
    }

    #[test]
    fn the_long_form_is_a_configuration() {
        let value = long(&dom0(), CreditParameters { weight: 256, cap: 0 });
        assert_eq!(value["config"]["c_info"], json!({ "type": "pvh", "name": "Domain-0" }));
        assert_eq!(value["config"]["b_info"]["max_memkb"], json!(1_048_576));
        assert_eq!(value["config"]["b_info"]["sched_params"]["weight"], json!(256));
    }
}

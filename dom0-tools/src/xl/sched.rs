//! `xl sched-credit2`: domains' shares.

use std::io::Write;

use anyhow::{Context, Result, bail};
use pv_abi::domctl::SchedulerId;
use rustix::io::Errno;
use serde_json::json;

use super::command_line::SchedCredit2;
use super::host::{Domain, Host};
use super::print_json;
use crate::privcmd::CreditParameters;

/// Prints the parameters of pools and domains, or sets a domain's.
pub(super) fn run(host: &Host, options: &SchedCredit2, out: &mut impl Write) -> Result<()> {
    let xen = &host.xen;
    if let Some(given) = &options.domain {
        let domain = host.find(given)?;
        let id = domain.id();
        let old = xen.credit_parameters(id)?;
        if options.weight.is_none() && options.cap.is_none() {
            if options.json {
                return print_json(&entry(&domain, old), out);
            }
            print_header(out)?;
            return print_row(&domain, old, out);
        }
        let new = CreditParameters {
            weight: options.weight.unwrap_or(old.weight),
            cap: options.cap.unwrap_or(old.cap),
        };
        return xen
            .set_credit_parameters(id, new)
            .with_context(|| format!("cannot set the parameters of domain {}", id.raw()));
    }
    let pools: Vec<_> = xen
        .pools()?
        .into_iter()
        .filter(|pool| pool.scheduler == SchedulerId::Credit2.raw())
        .filter(|pool| options.cpupool.as_ref().is_none_or(|wanted| *wanted == host.pool_name(pool.id)))
        .collect();
    if let Some(wanted) = &options.cpupool
        && pools.is_empty()
    {
        bail!("unknown cpupool '{wanted}'");
    }
    let domains = host.domains()?;
    let mut all = Vec::new();
    for pool in pools {
        let ratelimit = xen.credit2_ratelimit(pool.id)?;
        if !options.json {
            writeln!(out, "Cpupool {}: ratelimit={ratelimit}us", host.pool_name(pool.id))?;
        }
        let mut entries = Vec::new();
        if !options.schedparam {
            if !options.json {
                print_header(out)?;
            }
            for domain in domains.iter().filter(|domain| domain.info.cpupool == pool.id) {
                let parameters = match xen.credit_parameters(domain.id()) {
                    // It has gone since it was listed.
                    Err(error) if error.is(Errno::SRCH) => continue,
                    other => other?,
                };
                match options.json {
                    true => entries.push(entry(domain, parameters)),
                    false => print_row(domain, parameters, out)?,
                }
            }
        }
        all.push(
            json!({ "cpupool": host.pool_name(pool.id), "ratelimit_us": ratelimit, "domains": entries }),
        );
    }
    if options.json { print_json(&all, out) } else { Ok(()) }
}

fn entry(domain: &Domain, parameters: CreditParameters) -> serde_json::Value {
    let CreditParameters { weight, cap } = parameters;
    json!({ "domid": domain.id().raw(), "name": domain.name, "weight": weight, "cap": cap })
}

fn print_header(out: &mut impl Write) -> Result<()> {
    Ok(writeln!(out, "{:<33} {:>4} {:>6} {:>4}", "Name", "ID", "Weight", "Cap")?)
}

fn print_row(domain: &Domain, parameters: CreditParameters, out: &mut impl Write) -> Result<()> {
    let CreditParameters { weight, cap } = parameters;
    Ok(writeln!(out, "{:<33} {:4} {weight:6} {cap:4}", domain.shown(), domain.id().raw())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_debians() {
        let mut out = Vec::new();
        print_header(&mut out).unwrap();
        let dom0 = Domain { info: Default::default(), name: Some("Domain-0".to_owned()) };
        print_row(&dom0, CreditParameters { weight: 256, cap: 0 }, &mut out).unwrap();
        let expected = "\
Name                                ID Weight  Cap
Domain-0                             0    256    0
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

//! `xl domid`, `xl domname` and `xl rename`: domains' names and numbers.

use std::io::Write;

use anyhow::{Context, Result, bail};
use pv_abi::domid::DomId;

use super::host::{Domain, Host, number};
use super::print_json;
use crate::userdata::{Kind, UserData};
use crate::xenstore::Nodes;

/// `xl domid`.
pub(super) fn domid(host: &Host, wanted: &str, json: bool, out: &mut impl Write) -> Result<()> {
    let found = host.domains()?.into_iter().find(|domain| domain.name.as_deref() == Some(wanted));
    match found {
        Some(domain) if json => print_json(&entry(&domain), out),
        Some(domain) => Ok(writeln!(out, "{}", domain.id().raw())?),
        None => bail!(
            "Can't get domid of domain name '{wanted}', maybe this domain does not exist.{}",
            host.names_hint()
        ),
    }
}

/// `xl domname`.
pub(super) fn domname(host: &Host, id: &str, json: bool, out: &mut impl Write) -> Result<()> {
    let Some(wanted) = number(id) else {
        bail!("Invalid domain id.\n");
    };
    match host.domain(wanted)?.filter(|domain| domain.name.is_some()) {
        Some(domain) if json => print_json(&entry(&domain), out),
        Some(domain) => Ok(writeln!(out, "{}", domain.shown())?),
        None => bail!(
            "Can't get domain name of domain id '{id}', maybe this domain does not exist.{}",
            host.names_hint()
        ),
    }
}

fn entry(domain: &Domain) -> serde_json::Value {
    serde_json::json!({ "domid": domain.id().raw(), "name": domain.name, "uuid": domain.uuid() })
}

/// Whether a domain may be called that.
fn check(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '/' || c.is_control()) {
        bail!("'{name}' is no name: it has 1 to 255 characters, none of them '/'");
    }
    Ok(())
}

/// `xl rename`.
pub(super) fn rename(host: &Host, given: &str, new: &str) -> Result<()> {
    let failed = || format!("Can't rename domain '{given}'.");
    check(new).with_context(failed)?;
    let domain = host.find(given).with_context(failed)?;
    let store = host.store()?;
    let (id, path) = (domain.id(), domain.path());
    let owner = host.domains()?.into_iter().find(|other| other.name.as_deref() == Some(new));
    if let Some(owner) = owner.filter(|owner| owner.id() != id) {
        bail!("Can't rename domain '{given}': domain {} has the name '{new}' already.", owner.id().raw());
    }
    store.transaction(|transaction| {
        let old = transaction.read_text(&format!("{path}/name"))?;
        if old != domain.name {
            bail!("Can't rename domain '{given}': somebody else renames it just now.");
        }
        domain.write(transaction, "name", new)?;
        transaction.write_below(&format!("/vm/{}", domain.uuid()), "name", new)?;
        anyhow::Ok(())
    })?;
    keep(id, &domain, new)
        .with_context(|| format!("domain {} is renamed, but its saved configuration is not", id.raw()))
}

/// Writes the name into the configuration that is kept, for the next start.
fn keep(id: DomId, domain: &Domain, new: &str) -> Result<()> {
    let data = UserData::new(id, domain.uuid());
    let _lock = data.lock()?;
    let Some(text) = data.read(Kind::LibxlJson)? else { return Ok(()) };
    let mut config: serde_json::Value = serde_json::from_str(text.trim_end_matches('\0'))?;
    config["c_info"]["name"] = new.into();
    Ok(data.write(Kind::LibxlJson, &serde_json::to_string_pretty(&config)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(check("g1").is_ok());
        for bad in ["", "a/b", "a\nb", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}

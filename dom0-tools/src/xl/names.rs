//! Domains' names and numbers.
//!
//! Names are kept by XenStore. Without it only dom0 has one.

use std::io::Write;

use anyhow::{Result, anyhow, bail};
use pv_abi::domid::DomId;

use crate::privcmd::Privcmd;

/// dom0's name.
const DOM0: &str = "Domain-0";

/// A domain's name, if it is known.
pub(super) fn name(id: DomId) -> Option<&'static str> {
    (id == DomId::DOM0).then_some(DOM0)
}

/// A domain's name, for a table.
pub(super) fn shown(id: DomId) -> &'static str {
    name(id).unwrap_or("(null)")
}

/// The number that a user means: a number, whether or not there is such a domain, or a name.
fn number(given: &str) -> Option<DomId> {
    if !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit()) {
        return given.parse().ok().map(DomId::new).filter(|id| id.is_domain());
    }
    (given == DOM0).then_some(DomId::DOM0)
}

/// The same, refused in xl's words.
///
/// # Errors
/// No domain has that name.
pub(super) fn parse(given: &str) -> Result<DomId> {
    number(given).ok_or_else(|| anyhow!("{given} is an invalid domain identifier (rc=-6)"))
}

/// The same for a domain that exists.
///
/// # Errors
/// There is none of that name or number.
pub(super) fn find(xen: &Privcmd, given: &str) -> Result<DomId> {
    let id = parse(given)?;
    match xen.domain(id)? {
        Some(_) => Ok(id),
        None => bail!("Error: Domain '{given}' does not exist."),
    }
}

/// `xl domid`.
pub(super) fn domid(xen: &Privcmd, wanted: &str, out: &mut impl Write) -> Result<()> {
    let found = xen.domains(DomId::DOM0)?.into_iter().find(|info| name(info.domain) == Some(wanted));
    match found {
        Some(info) => Ok(writeln!(out, "{}", info.domain.raw())?),
        None => bail!("Can't get domid of domain name '{wanted}', maybe this domain does not exist."),
    }
}

/// `xl domname`.
pub(super) fn domname(xen: &Privcmd, id: &str, out: &mut impl Write) -> Result<()> {
    let Some(wanted) = id.parse().ok().map(DomId::new).filter(|id| id.is_domain()) else {
        bail!("Invalid domain id.\n");
    };
    match xen.domain(wanted)?.and_then(|info| name(info.domain)) {
        Some(name) => Ok(writeln!(out, "{name}")?),
        None => bail!("Can't get domain name of domain id '{id}', maybe this domain does not exist."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_told_apart() {
        assert_eq!(number("0"), Some(DomId::DOM0));
        assert_eq!(number("Domain-0"), Some(DomId::DOM0));
        assert_eq!(number("17"), Some(DomId::new(17)));
        for bad in ["", "nosuch", "-1", "0x1", "70000", "32752", "domain-0"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!((shown(DomId::DOM0), shown(DomId::new(3))), ("Domain-0", "(null)"));
    }
}

//! `xl destroy`: ends domains at once. The taking away itself is [`crate::domain`]'s.

use anyhow::{Context, Result, bail};
use pv_abi::domid::DomId;

use super::host::Host;
use crate::domain;

/// Takes the domains away; those that can be, where one cannot.
pub(super) fn run(host: &Host, given: &[String], force: bool) -> Result<()> {
    let mut result = Ok(());
    for given in given {
        if let Err(error) = one(host, given, force) {
            match result {
                Ok(()) => result = Err(error),
                Err(_) => eprintln!("{error:#}"),
            }
        }
    }
    result
}

fn one(host: &Host, given: &str, force: bool) -> Result<()> {
    let id = host.find(given)?.id();
    if id == DomId::DOM0 && !force {
        bail!(
            "Not destroying domain 0; use -f to force.\nThis can only be done when using a disaggregated hardware \
                domain and toolstack.\n"
        );
    }
    domain::destroy(id).with_context(|| format!("destroy failed for domain {}", id.raw()))
}

//! Taking a domain away, and finishing what others left unfinished.

use pv_abi::domid::DomId;
use rustix::io::Errno;

use super::create::with_handle;
use super::intent::{self, Abandoned, Gate};
use super::{Error, store};
use crate::privcmd::Privcmd;
use crate::userdata::UserData;
use crate::uuid::Uuid;
use crate::xenstore::Client;

/// Takes a domain away, at once and without asking it.
///
/// # Errors
/// [`Error`].
pub fn destroy(domain: DomId) -> Result<(), Error> {
    let xen = Privcmd::open().map_err(|error| Error::Hypervisor { step: "reach the hypervisor", error })?;
    let client = Client::connect()?;
    let info = xen.domain(domain).map_err(|error| Error::Hypervisor { step: "look at the domain", error })?;
    let info = info.ok_or(Error::NoDomain(domain))?;
    let uuid = Uuid(info.handle);
    let file = |error| Error::File { what: "say that the domain is being destroyed", error };
    let name = store::name(&client, domain)?.unwrap_or_default();
    let gate = Gate::enter().map_err(file)?;
    let intent = gate.announce(uuid, &name, Some(domain)).map_err(file)?.ok_or(Error::Busy(uuid))?;
    drop(gate);
    take_away(&xen, &client, domain, uuid)?;
    intent.done();
    Ok(())
}

/// Removes the domain from the hypervisor, then what the tools know of it. The order matters: whoever looks sees a domain
/// with its nodes, or a domain that is going, or nothing.
pub(super) fn take_away(xen: &Privcmd, client: &Client, domain: DomId, uuid: Uuid) -> Result<(), Error> {
    match xen.destroy_domain(domain) {
        Err(error) if !error.is(Errno::SRCH) => {
            return Err(Error::Hypervisor { step: "destroy the domain", error });
        }
        _ => {}
    }
    forget(client, domain, uuid)
}

/// Removes what the tools know of a domain.
fn forget(client: &Client, domain: DomId, uuid: Uuid) -> Result<(), Error> {
    store::unregister(client, domain, Some(uuid))?;
    UserData::new(domain, uuid)
        .remove_all()
        .map_err(|error| Error::File { what: "remove what was kept of the domain", error })
}

/// Finishes what one left who died.
pub(super) fn finish(xen: &Privcmd, client: &Client, left: Abandoned) -> Result<(), Error> {
    for info in with_handle(xen, left.uuid)? {
        take_away(xen, client, info.domain, left.uuid)?;
    }
    if let Some(domain) = left.domain {
        // The number may be another domain's by now.
        let now =
            xen.domain(domain).map_err(|error| Error::Hypervisor { step: "look at the domain", error })?;
        if now.is_none_or(|info| info.handle == left.uuid.0) {
            forget(client, domain, left.uuid)?;
        }
    }
    left.done();
    Ok(())
}

/// Takes away every domain whose making or destroying was begun by a command that died. Quick where there is none.
///
/// # Errors
/// [`Error`].
pub fn clean_up() -> Result<(), Error> {
    if !intent::is_any() {
        return Ok(());
    }
    let file = |error| Error::File { what: "look for domains that were left unfinished", error };
    let gate = Gate::enter().map_err(file)?;
    let (abandoned, _) = gate.look().map_err(file)?;
    if abandoned.is_empty() {
        return Ok(());
    }
    let xen = Privcmd::open().map_err(|error| Error::Hypervisor { step: "reach the hypervisor", error })?;
    let client = Client::connect()?;
    abandoned.into_iter().try_for_each(|left| finish(&xen, &client, left))
}

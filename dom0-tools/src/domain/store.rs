//! A domain's nodes in XenStore, as libxl 4.17 makes them, so that its tools see our domains and ours see theirs.
//!
//! | where | what | who may |
//! | --- | --- | --- |
//! | `/local/domain/N` | what the domain reads | it reads; the nodes of [`ITS_OWN`] are its own |
//! | `/local/domain/0/backend/KIND/N` | the backends' side of its devices | it reads |
//! | `/vm/UUID` | what stays over its reboots | it reads |
//! | `/libxl/N` | what only tools read | nobody else |
//!
//! A node that dom0 makes has the permissions of the one above it, so only the topmost are set.

use std::time::{SystemTime, UNIX_EPOCH};

use memory_policy::Kib;
use pv_abi::domid::DomId;

use super::Error;
use super::build::Built;
use super::minimums::HostMemory;
use crate::config::DomainConfig;
use crate::memoryd::settings::Settings;
use crate::uuid::Uuid;
use crate::xenstore::{Access, Client, Nodes, Permission, Result as StoreResult, Transaction};

/// Nodes that the domain itself writes.
const ITS_OWN: [&str; 11] = [
    "device/suspend/event-channel",
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
];
/// Bytes that the console daemon keeps for a domain (libxl's `LIBXL_XENCONSOLE_LIMIT`).
const CONSOLE_LIMIT: &str = "1048576";

/// Where a domain's nodes are.
pub fn home(domain: DomId) -> String {
    format!("/local/domain/{}", domain.raw())
}

fn tools(domain: DomId) -> String {
    format!("/libxl/{}", domain.raw())
}

/// A domain's name.
///
/// # Errors
/// Of XenStore.
pub fn name(store: &impl Nodes, domain: DomId) -> StoreResult<Option<String>> {
    store.read_text(&format!("{}/name", home(domain)))
}

/// The domain that has a name, if any.
///
/// # Errors
/// Of XenStore.
pub fn find(store: &Client, wanted: &str) -> StoreResult<Option<DomId>> {
    let numbers = store.directory("/local/domain")?;
    let ids: Vec<_> = numbers.iter().filter_map(|number| number.parse().ok().map(DomId::new)).collect();
    let names = names(store, ids.iter().copied())?;
    Ok(ids.into_iter().zip(names).find(|(_, name)| name.as_deref() == Some(wanted)).map(|(id, _)| id))
}

/// The names of many domains.
///
/// # Errors
/// Of XenStore.
pub fn names(store: &Client, ids: impl Iterator<Item = DomId>) -> StoreResult<Vec<Option<String>>> {
    store.read_texts(&ids.map(|id| format!("{}/name", home(id))).collect::<Vec<_>>())
}

/// What is set for a domain's memory: by its configuration, or since then. `None`: XenStore knows nothing of it.
///
/// # Errors
/// Of XenStore.
pub fn memory_settings(store: &impl Nodes, domain: DomId) -> StoreResult<Option<Settings>> {
    const NODES: [&str; 8] =
        ["target", "static-max", "hotplug-max", "startup", "minimum", "buffer", "weight", "policy"];
    let texts = store.read_texts(&NODES.map(|node| format!("{}/memory/{node}", home(domain))))?;
    let node = |wanted: &str| {
        let place = NODES.iter().position(|node| *node == wanted)?;
        texts.get(place).cloned().flatten()
    };
    let number = |name: &str| node(name).and_then(|text| text.trim().parse::<u64>().ok());
    let Some(target) = number("target") else { return Ok(None) };
    let maximum = number("hotplug-max").max(number("static-max")).unwrap_or(target);
    Ok(Some(Settings::read(target, maximum, node)))
}

/// The CPU pool of a name.
///
/// # Errors
/// Of XenStore.
pub fn pool(store: &impl Nodes, wanted: &str) -> StoreResult<Option<u32>> {
    for number in store.directory("/local/pool")? {
        let name = store.read_text(&format!("/local/pool/{number}/name"))?;
        if name.as_deref() == Some(wanted) {
            return Ok(number.parse().ok());
        }
    }
    Ok(None)
}

/// Makes all nodes of a domain, and makes it known. `host` looks at the host's memory.
///
/// # Errors
/// [`Error::Store`].
pub fn register(
    client: &Client,
    domain: DomId,
    uuid: Uuid,
    config: &DomainConfig,
    built: &Built,
    host: impl Fn() -> Result<HostMemory, Error>,
) -> Result<(), Error> {
    let settings = config.memory_settings();
    client.transaction(|store| -> Result<(), Error> {
        // One that is left alone has all of it from the hypervisor already, which does not promise what is not there; so making it
        // costs the same however many there are.
        if settings.balance.is_on {
            // Nobody had promised it anything before.
            host()?.check(store, domain, Kib::ZERO, settings.always(Kib::new(config.memory_kib)))?;
        }
        Ok(write_all(store, domain, uuid, config, built)?)
    })?;
    Ok(client.introduce(domain, Built::STORE_FRAME, built.store_port)?)
}

fn write_all(
    store: &Transaction<'_>,
    domain: DomId,
    uuid: Uuid,
    config: &DomainConfig,
    built: &Built,
) -> StoreResult<()> {
    let for_it = [Permission::new(DomId::DOM0, Access::None), Permission::new(domain, Access::Read)];
    let its_own = [Permission::new(domain, Access::None)];
    let vm = format!("/vm/{uuid}");
    // Something that a tool left when it was killed would have permissions of another domain.
    for top in [&vm, &home(domain), &tools(domain)] {
        remove(store, top)?;
        store.mkdir(top)?;
    }
    for top in [&vm, &home(domain)] {
        store.set_permissions(top, &for_it)?;
    }
    let put = |path: &str, value: &str| store.write(&format!("{}/{path}", home(domain)), value);

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    store.write(&format!("{vm}/name"), &config.name)?;
    store.write(&format!("{vm}/uuid"), uuid.to_string())?;
    store.write(&format!("{vm}/start_time"), format!("{}.{:02}", now.as_secs(), now.subsec_millis() / 10))?;

    put("vm", &vm)?;
    put("name", &config.name)?;
    put("domid", &domain.raw().to_string())?;
    for vcpu in 0..config.maxvcpus {
        let state = if vcpu < config.vcpus { "online" } else { "offline" };
        put(&format!("cpu/{vcpu}/availability"), state)?;
    }
    // Linux takes the difference between static-max and the memory that it booted with for what it will never see, and from
    // every target: so it is what it sees, not what it may have one day. That is hotplug-max.
    put("memory/static-max", &built.visible_kib.to_string())?;
    put("memory/hotplug-max", &config.maxmem_kib.to_string())?;
    put("memory/target", &config.memory_kib.to_string())?;
    put("memory/videoram", "0")?;
    for (node, value) in config.memory_settings().nodes() {
        put(&format!("memory/{node}"), &value)?;
    }
    put("control/platform-feature-multiprocessor-suspend", "1")?;
    put("control/platform-feature-xs_reset_watches", "1")?;
    for node in ITS_OWN {
        put(node, "")?;
        store.set_permissions(&format!("{}/{node}", home(domain)), &its_own)?;
    }
    put("store/port", &built.store_port.to_string())?;
    put("store/ring-ref", &Built::STORE_FRAME.to_string())?;
    console(store, domain, built, &for_it)?;
    store.write(&format!("{}/type", tools(domain)), "pvh")?;
    store.write(&format!("{}/dm-version", tools(domain)), "qemu_xen")
}

/// The console: a device, though its frontend is not below `device`.
fn console(store: &Transaction<'_>, domain: DomId, built: &Built, for_it: &[Permission]) -> StoreResult<()> {
    let number = domain.raw();
    let backend = format!("{}/backend/console/{number}/0", home(DomId::DOM0));
    let frontend = format!("{}/console", home(domain));
    store.mkdir(&backend)?;
    store.set_permissions(&backend, for_it)?;
    let libxl = format!("{}/device/console/0", tools(domain));
    for side in [&backend, &libxl] {
        let put = |name: &str, value: &str| store.write(&format!("{side}/{name}"), value);
        put("frontend", &frontend)?;
        if *side == libxl {
            put("backend", &backend)?;
        }
        put("frontend-id", &number.to_string())?;
        put("online", "1")?;
        put("state", "1")?;
        put("protocol", "vt100")?;
    }
    for (name, value) in [
        ("backend", backend.as_str()),
        ("backend-id", "0"),
        ("limit", CONSOLE_LIMIT),
        ("type", "xenconsoled"),
        ("output", "pty"),
        ("tty", ""),
        ("port", &built.console_port.to_string()),
        ("ring-ref", &Built::CONSOLE_FRAME.to_string()),
    ] {
        store.write(&format!("{frontend}/{name}"), value)?;
    }
    Ok(())
}

/// Removes everything of a domain.
///
/// # Errors
/// [`Error::Store`].
pub fn unregister(client: &Client, domain: DomId, uuid: Option<Uuid>) -> Result<(), Error> {
    client.transaction(|store| -> StoreResult<()> {
        let vm = store.read_text(&format!("{}/vm", home(domain)))?;
        for backend in backends(store, domain)? {
            remove_with_empty_parents(store, &backend)?;
        }
        for top in [home(domain), tools(domain)] {
            remove(store, &top)?;
        }
        let made = uuid.map(|uuid| format!("/vm/{uuid}"));
        for vm in vm.into_iter().chain(made).filter(|vm| vm.starts_with("/vm/")) {
            remove(store, &vm)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Removes a node, if it is there.
fn remove(store: &Transaction<'_>, path: &str) -> StoreResult<()> {
    match store.rm(path) {
        Err(error) if error.is(pv_abi::Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Removes a node, and what is above it and has nothing below it any more.
fn remove_with_empty_parents(store: &Transaction<'_>, path: &str) -> StoreResult<()> {
    remove(store, path)?;
    let mut path = path;
    while let Some((parent, _)) = path.rsplit_once('/') {
        if parent.split('/').count() <= 4 || !children(store, parent)?.is_empty() {
            break;
        }
        remove(store, parent)?;
        path = parent;
    }
    Ok(())
}

pub(super) fn children(store: &Transaction<'_>, path: &str) -> StoreResult<Vec<String>> {
    match store.directory(path) {
        Err(error) if error.is(pv_abi::Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// The backends' sides of a domain's devices.
fn backends(store: &Transaction<'_>, domain: DomId) -> StoreResult<Vec<String>> {
    let devices = format!("{}/device", tools(domain));
    let mut all = Vec::new();
    for kind in children(store, &devices)? {
        for device in children(store, &format!("{devices}/{kind}"))? {
            let backend = store.read_text(&format!("{devices}/{kind}/{device}/backend"))?;
            all.extend(backend.filter(|path| path.contains("/backend/")));
        }
    }
    Ok(all)
}

/// Gives a domain another name and UUID.
///
/// # Errors
/// [`Error::Store`]; [`Error::NoDomain`] if it is gone meanwhile.
pub fn set_identity(client: &Client, domain: DomId, name: &str, uuid: Uuid) -> Result<(), Error> {
    client.transaction(|store| {
        if !store.exists(&home(domain))? {
            return Err(Error::NoDomain(domain));
        }
        let old = store.read_text(&format!("{}/vm", home(domain)))?;
        let vm = format!("/vm/{uuid}");
        store.mkdir(&vm)?;
        let for_it = [Permission::new(DomId::DOM0, Access::None), Permission::new(domain, Access::Read)];
        store.set_permissions(&vm, &for_it)?;
        store.write(&format!("{vm}/name"), name)?;
        store.write(&format!("{vm}/uuid"), uuid.to_string())?;
        if let Some(start) =
            old.as_deref().map(|old| store.read_text(&format!("{old}/start_time"))).transpose()?
        {
            store.write(&format!("{vm}/start_time"), start.unwrap_or_default())?;
        }
        if let Some(old) = old.filter(|old| old.starts_with("/vm/")) {
            remove(store, &old)?;
        }
        store.write(&format!("{}/vm", home(domain)), &vm)?;
        Ok(store.write(&format!("{}/name", home(domain)), name)?)
    })
}

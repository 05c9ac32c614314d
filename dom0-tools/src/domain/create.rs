//! Making a domain: files, hypervisor, XenStore, supervisor; or nothing of it.

use std::path::Path;
use std::time::Duration;

use memory_policy::Kib;
use pv_abi::domctl::{GetDomainInfo, XEN_DOMINF_DYING};
use pv_abi::domid::DomId;

use super::build::{self, Built, Images};
use super::destroy::{finish, take_away};
use super::intent::{Gate, Intent};
use super::minimums::HostMemory;
use super::supervisor::Waiting;
use super::{Error, Progress, store};
use crate::config::DomainConfig;
use crate::memoryd::protocol::{Answer, Connection, Request};
use crate::privcmd::Privcmd;
use crate::userdata::{Kind, UserData};
use crate::uuid::Uuid;
use crate::xenstore::Client;

/// How long other domains may take to give memory for one that is made.
const CLAIM: Duration = Duration::from_secs(30);
/// What it needs beyond its RAM: pages for its rings.
const ROOM_KIB: u64 = 64;

/// How a domain is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// It does not run yet when it is made: `xl create -p`, or to connect to its console first.
    pub paused: bool,
    /// Nobody waits for its end: `xl create -e`, and who waits in the foreground.
    pub unsupervised: bool,
}

/// Makes a domain. On any error, and if this process dies on the way, nothing stays of it.
///
/// # Errors
/// [`Error`].
pub fn create(config: &DomainConfig, options: &Options, progress: &mut Progress<'_>) -> Result<DomId, Error> {
    let images = prepare(config)?;
    let xen = Privcmd::open().map_err(open)?;
    let client = Client::connect()?;
    let uuid = match config.uuid {
        Some(uuid) => uuid,
        None => Uuid::random().map_err(|error| Error::File { what: "make up a UUID", error })?,
    };
    let config = &DomainConfig { uuid: Some(uuid), ..config.clone() };
    // Kept until the domain is made, or we are gone.
    let _claim = claim(&xen, config, uuid)?;
    let mut intent = announce(&xen, &client, config, uuid)?;
    // From here on a process watches us that finishes what we leave.
    let waiting = match options.unsupervised {
        true => None,
        false => Some(Waiting::start(config)?),
    };
    let domain = match make(&xen, &client, config, uuid, &images, &mut intent, progress) {
        Ok(domain) => domain,
        Err((made, error)) => {
            // What cannot be taken away now is left to whoever comes next: then the intent stays.
            if made.is_none_or(|domain| take_away(&xen, &client, domain, uuid).is_ok()) {
                intent.done();
            }
            return Err(error);
        }
    };
    if let Some(waiting) = waiting {
        waiting.supervise(domain)?;
    }
    intent.done();
    if !options.paused {
        xen.unpause(domain).map_err(|error| Error::Hypervisor { step: "let the domain run", error })?;
    }
    Ok(domain)
}

/// Asks the daemon that balances memory for what the domain starts with, and waits until others have given it. `None`: there is
/// no daemon, or it does not answer; then what is free is all there is.
fn claim(xen: &Privcmd, config: &DomainConfig, uuid: Uuid) -> Result<Option<Connection>, Error> {
    let Some(mut connection) = Connection::open() else { return Ok(None) };
    let deadline_ms = u64::try_from(CLAIM.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Reserve { uuid: uuid.to_string(), kib: config.memory_kib + ROOM_KIB, deadline_ms };
    match connection.ask(&request, CLAIM) {
        Ok(Answer::Refused(why)) => {
            let free =
                xen.physinfo().map_or(0, |host| host.free_pages.saturating_sub(host.outstanding_pages));
            Err(Error::NoMemory {
                needed: config.memory_kib >> 10,
                free: free >> 8,
                hint: format!("; {why}"),
            })
        }
        Ok(Answer::Reserved { .. }) => Ok(Some(connection)),
        Ok(_) | Err(_) => Ok(None),
    }
}

fn open(error: crate::privcmd::Error) -> Error {
    Error::Hypervisor { step: "reach the hypervisor", error }
}

/// What can be known to be wrong before anything is done.
fn prepare(config: &DomainConfig) -> Result<Images, Error> {
    if config.has_vuart {
        return Err(Error::Unsupported("vuart: there is no emulated UART; the console is hvc0"));
    }
    if config.device_tree.is_some() {
        return Err(Error::Unsupported("device_tree: no devices of the host are passed through"));
    }
    Images::open(config)
}

/// Makes sure that name and UUID are free, and says that they are ours.
fn announce(xen: &Privcmd, client: &Client, config: &DomainConfig, uuid: Uuid) -> Result<Intent, Error> {
    let file = |error| Error::File { what: "say that the domain is being made", error };
    let gate = Gate::enter().map_err(file)?;
    let (abandoned, names) = gate.look().map_err(file)?;
    for left in abandoned {
        finish(xen, client, left)?;
    }
    if names.contains(&config.name) {
        return Err(Error::NameTaken(config.name.clone()));
    }
    if let Some(domain) = store::find(client, &config.name)? {
        return Err(Error::NameInUse { name: config.name.clone(), domain });
    }
    if let Some(domain) = with_handle(xen, uuid)?.first() {
        return Err(Error::UuidInUse { uuid, domain: domain.domain });
    }
    gate.announce(uuid, &config.name, None).map_err(file)?.ok_or(Error::Busy(uuid))
}

/// The domains of a UUID that are not going away already.
pub(super) fn with_handle(xen: &Privcmd, uuid: Uuid) -> Result<Vec<GetDomainInfo>, Error> {
    let all =
        xen.domains(DomId::DOM0).map_err(|error| Error::Hypervisor { step: "list the domains", error })?;
    let is_it = |info: &GetDomainInfo| info.handle == uuid.0 && info.flags & XEN_DOMINF_DYING == 0;
    Ok(all.into_iter().filter(|info| info.domain != DomId::DOM0 && is_it(info)).collect())
}

/// The domain, complete but paused. On an error the number that it has, if it came so far.
fn make(
    xen: &Privcmd,
    client: &Client,
    config: &DomainConfig,
    uuid: Uuid,
    images: &Images,
    intent: &mut Intent,
    progress: &mut Progress<'_>,
) -> Result<DomId, (Option<DomId>, Error)> {
    let nothing = |error| (None, error);
    let pool = match &config.pool {
        None => 0,
        Some(name) => store::pool(client, name)
            .map_err(|error| nothing(error.into()))?
            .ok_or_else(|| nothing(Error::NoPool(name.clone())))?,
    };
    let host = xen.physinfo().map_err(|error| nothing(open(error)))?;
    let (domain, arch) = build::create_empty(xen, config, uuid, pool, &host).map_err(nothing)?;
    let mut rest = || -> Result<(), Error> {
        let what = "say that the domain is being made";
        intent.number(domain).map_err(|error| Error::File { what, error })?;
        let built = build::build(xen, domain, arch, config, images, &host, progress)
            .map_err(|error| with_hint(error, xen, client, domain))?;
        keep(xen, client, domain, uuid, config, &built, host.max_cpu_id.saturating_add(1))
    };
    rest().map(|()| domain).map_err(|error| (Some(domain), error))
}

/// Makes the domain known to the other tools.
fn keep(
    xen: &Privcmd,
    client: &Client,
    domain: DomId,
    uuid: Uuid,
    config: &DomainConfig,
    built: &Built,
    cpus: u32,
) -> Result<(), Error> {
    let mut json = config.to_libxl(cpus);
    // libxl settles this when it makes the domain, and takes it from the target when it reads it back.
    if let Some(info) = json.get_mut("b_info").and_then(|info| info.as_object_mut()) {
        info.insert("video_memkb".to_owned(), 0.into());
    }
    let json = serde_json::to_string_pretty(&json).unwrap_or_default();
    UserData::new(domain, uuid)
        .write(Kind::LibxlJson, &json)
        .map_err(|error| Error::File { what: "keep the domain's configuration", error })?;
    let host = || HostMemory::look(xen, Kib::ZERO).map_err(open);
    store::register(client, domain, uuid, config, built, host)
}

/// Adds to an error for want of memory who could give some.
fn with_hint(error: Error, xen: &Privcmd, client: &Client, itself: DomId) -> Error {
    match error {
        Error::NoMemory { needed, free, .. } => {
            Error::NoMemory { needed, free, hint: donors(xen, client, itself) }
        }
        other => other,
    }
}

/// Domains that have more than they are asked to have; and without any, those that have most.
fn donors(xen: &Privcmd, client: &Client, itself: DomId) -> String {
    let Ok(domains) = xen.domains(DomId::DOM0) else { return String::new() };
    let mut all = Vec::new();
    for info in domains
        .iter()
        .filter(|info| ![DomId::DOM0, itself].contains(&info.domain) && info.flags & XEN_DOMINF_DYING == 0)
    {
        let name = store::name(client, info.domain).ok().flatten();
        let name = name.unwrap_or_else(|| info.domain.raw().to_string());
        let target =
            crate::xenstore::Nodes::read_text(client, &format!("{}/memory/target", store::home(info.domain)));
        let target = target.ok().flatten().and_then(|target| target.parse::<u64>().ok()).unwrap_or(0) >> 10;
        let has = info.tot_pages >> 8;
        // Its own pages for rings and console do not count.
        all.push((has, has.saturating_sub(target + 1), name));
    }
    let mut over: Vec<_> = all.iter().filter(|(_, over, _)| *over > 0).collect();
    if !over.is_empty() {
        over.sort_by_key(|(_, over, _)| std::cmp::Reverse(*over));
        let list: Vec<_> =
            over.iter().take(3).map(|(_, over, name)| format!("{name} ({over} MiB)")).collect();
        return format!("; these are about to give back what is beyond their targets: {}", list.join(", "));
    }
    all.sort_by_key(|(has, ..)| std::cmp::Reverse(*has));
    let list: Vec<_> = all.iter().take(3).map(|(has, _, name)| format!("{name} (has {has} MiB)")).collect();
    match list.is_empty() {
        true => String::new(),
        false => format!("; 'xl mem-set' could take some from: {}", list.join(", ")),
    }
}

/// The program that is running, to be started again as a supervisor.
pub(super) fn program() -> std::io::Result<std::path::PathBuf> {
    // Not the link's target: that may have been replaced meanwhile.
    let itself = Path::new("/proc/self/exe");
    if itself.exists() { Ok(itself.into()) } else { std::env::current_exe() }
}

//! The rings and event channels of all domains: what the store knows of the machine it is on.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io;
use std::ops::Deref;

use pv_abi::Errno;
use pv_abi::domctl::{XEN_DOMINF_DYING, XEN_DOMINF_SHUTDOWN};
use pv_abi::domid::DomId;
use pv_abi::xen::Virq;

use super::ring::{Broken, Ring};
use crate::evtchn::{EventChannels, Port};
use crate::gnttab::{self, GrantedPage, Grants};
use crate::privcmd::Privcmd;
use crate::shared_memory::SharedMemory;
use crate::xenstore::store::domains::Condition;
use crate::xenstore::store::restore::Former;
use crate::xenstore::store::{ClientId, Host, Store};
use crate::xenstore::wire::Assembler;

/// The page and the event channel that dom0's kernel has for the store.
const KERNEL_PAGE: &str = "/proc/xen/xsd_kva";
const KERNEL_PORT: &str = "/proc/xen/xsd_port";
const PAGE: usize = 4096;

/// A mapped ring.
#[derive(Debug)]
enum Page {
    Granted(GrantedPage),
    Mapped(SharedMemory),
}

impl Deref for Page {
    type Target = SharedMemory;

    fn deref(&self) -> &SharedMemory {
        match self {
            Self::Granted(page) => page,
            Self::Mapped(memory) => memory,
        }
    }
}

/// A connected domain.
#[derive(Debug)]
pub struct Connection {
    page: Page,
    port: Option<Port>,
    /// The front of a request that does not fit in the ring.
    pub partial: Assembler,
    /// What it sent cannot be understood, so it is not listened to until it begins anew.
    pub broken: bool,
    /// How much had been queued for it when what did not fit was put on file.
    pub noted: u64,
    pub domain: DomId,
}

impl Connection {
    fn new(page: Page, domain: DomId) -> Self {
        Self { page, port: None, partial: Assembler::default(), broken: false, noted: 0, domain }
    }

    /// Its ring.
    pub fn ring(&self) -> Ring<'_> {
        Ring(&self.page)
    }
}

/// The machine's devices.
#[derive(Debug)]
struct Devices {
    events: EventChannels,
    grants: Grants,
    hypervisor: Privcmd,
    domains_changed: Port,
}

/// All rings. Without devices, where there is no hypervisor, there are none.
#[derive(Debug, Default)]
pub struct Rings {
    devices: Option<Devices>,
    connections: BTreeMap<ClientId, Connection>,
    by_port: BTreeMap<Port, ClientId>,
    /// Commands to the daemon that the main loop obeys.
    pub commands: Vec<(String, Vec<String>)>,
    /// Rings for domains of tests, which have no machine.
    #[cfg(test)]
    pub pages: HashMap<DomId, SharedMemory>,
}

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A domain has done something with its ring.
    Ring(ClientId),
    /// A domain has ended.
    DomainsChanged,
}

impl Rings {
    /// Opens the devices.
    ///
    /// # Errors
    /// A device is missing, or the hypervisor's events belong to somebody else.
    pub fn open() -> io::Result<Self> {
        let events = EventChannels::open()?;
        let domains_changed = events.bind_virq(Virq::DomExc.raw()).map_err(|error| {
            let hint = "another xenstored may have it";
            io::Error::new(error.kind(), format!("the event that a domain has ended: {error} ({hint})"))
        })?;
        let hypervisor = Privcmd::open().map_err(io::Error::other)?;
        let devices = Devices { events, grants: Grants::open()?, hypervisor, domains_changed };
        Ok(Self { devices: Some(devices), ..Self::default() })
    }

    /// The event channel that dom0's kernel waits at.
    ///
    /// # Errors
    /// The file is not there.
    pub fn kernel_port() -> io::Result<u32> {
        let text = std::fs::read_to_string(KERNEL_PORT).map_err(|error| {
            io::Error::new(error.kind(), format!("{KERNEL_PORT}: {error} (is xenfs mounted?)"))
        })?;
        text.trim().parse().map_err(|_| io::Error::other(format!("{KERNEL_PORT}: not a number: {text}")))
    }

    /// The device that becomes readable when events are there.
    pub fn events(&self) -> Option<&EventChannels> {
        self.devices.as_ref().map(|devices| &devices.events)
    }

    /// A domain's connection.
    pub fn get(&mut self, client: ClientId) -> Option<&mut Connection> {
        self.connections.get_mut(&client)
    }

    /// What an event at a port means; `None`: it is of nobody any more.
    pub fn meaning(&self, port: Port) -> Option<Sign> {
        if self.devices.as_ref().is_some_and(|devices| devices.domains_changed == port) {
            return Some(Sign::DomainsChanged);
        }
        self.by_port.get(&port).copied().map(Sign::Ring)
    }

    /// Lets the domains run that wait for this CPU.
    ///
    /// # Errors
    /// Of the kernel, or there is no machine.
    pub fn give_way(&self) -> io::Result<()> {
        let devices = self.devices.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        devices.hypervisor.yield_cpu().map_err(io::Error::other)
    }

    /// Tells a domain to look at its ring.
    pub fn notify(&mut self, client: ClientId) {
        let Some(connection) = self.connections.get(&client) else { return };
        if let (Some(devices), Some(port)) = (&self.devices, connection.port) {
            // Its end may be closed, when it is going. Then there is nobody to tell.
            let _ = devices.events.notify(port);
        }
    }

    /// Takes the page of a domain of a test back.
    #[cfg(test)]
    pub fn into_page(mut self, client: ClientId) -> SharedMemory {
        match self.connections.remove(&client).expect("a domain").page {
            Page::Mapped(memory) => memory,
            Page::Granted(_) => unreachable!("tests have no grants"),
        }
    }

    /// Goes on in the middle of what a former daemon did at a ring, and looks at it.
    pub fn resume(&mut self, client: ClientId, store: &mut Store, former: &Former) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let (taken, room) = (connection.ring().taken(), connection.ring().room());
        if let Some((_, bytes)) = former.input.iter().rfind(|(consumed, _)| *consumed == taken) {
            // It was understood before, and is not whole.
            let _ = connection.partial.feed(&mut &bytes[..]);
        }
        if let (Some((produced, bytes)), Ok((now, _))) = (&former.output, room) {
            let done = now.wrapping_sub(*produced) as usize;
            if let (Some(rest), Some(client)) = (bytes.get(done..), store.client(client)) {
                client.outbox.resume(rest.to_vec());
            }
        }
        store.dirty.push(client);
        self.notify(client);
    }

    /// Does not listen to a domain any more, and tells it why.
    pub fn give_up(&mut self, client: ClientId, broken: Broken) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.ring().give_up(broken);
            connection.broken = true;
            connection.partial = Assembler::default();
            self.notify(client);
        }
    }

    /// How each domain is. Asked once for all of them.
    pub fn conditions(&self) -> Option<impl Fn(DomId) -> Condition + use<>> {
        let all = self.devices.as_ref()?.hypervisor.domains(DomId::DOM0).ok()?;
        let known: HashMap<_, _> = all.into_iter().map(|info| (info.domain, info.flags)).collect();
        Some(move |id| match known.get(&id) {
            None => Condition::Gone,
            Some(flags) if flags & XEN_DOMINF_DYING != 0 => Condition::Gone,
            Some(flags) if flags & XEN_DOMINF_SHUTDOWN != 0 => Condition::ShutDown,
            Some(_) => Condition::Alive,
        })
    }
}

impl Devices {
    fn map(&self, domain: DomId, gfn: u64) -> io::Result<Page> {
        if domain == DomId::DOM0 {
            let kernel = OpenOptions::new().read(true).write(true).open(KERNEL_PAGE)?;
            return Ok(Page::Mapped(SharedMemory::map(&kernel, PAGE, 0)?));
        }
        // By the grant that its builder made, or, where none did, by its frame.
        match self.grants.map(domain, gnttab::RESERVED_XENSTORE) {
            Ok(page) => Ok(Page::Granted(page)),
            Err(error) => match self.hypervisor.map_foreign(domain, &[gfn]) {
                Ok(memory) => Ok(Page::Mapped(memory)),
                Err(_) => Err(error),
            },
        }
    }
}

impl Host for Rings {
    fn introduce(&mut self, client: ClientId, domain: DomId, gfn: u64, port: u32) -> Result<(), Errno> {
        #[cfg(test)]
        if let Some(memory) = self.pages.remove(&domain) {
            let connection = Connection::new(Page::Mapped(memory), domain);
            connection.ring().offer();
            self.connections.insert(client, connection);
            return Ok(());
        }
        let devices = self.devices.as_ref().ok_or(Errno::ENOSYS)?;
        if let Some(connection) = self.connections.get_mut(&client) {
            if let Some(old) = connection.port.take() {
                self.by_port.remove(&old);
                // It may be closed from the other side.
                let _ = devices.events.unbind(old);
            }
        } else {
            let page = devices.map(domain, gfn).map_err(|_| Errno::EINVAL)?;
            self.connections.insert(client, Connection::new(page, domain));
        }
        match devices.events.bind_interdomain(domain, port) {
            Ok(ours) => {
                self.by_port.insert(ours, client);
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.port = Some(ours);
                    connection.ring().offer();
                }
                Ok(())
            }
            Err(_) => {
                self.connections.remove(&client);
                Err(Errno::EINVAL)
            }
        }
    }

    fn reset(&mut self, client: ClientId) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.ring().reset();
            connection.partial = Assembler::default();
            connection.broken = false;
        }
        self.notify(client);
    }

    fn release(&mut self, client: ClientId) {
        let Some(connection) = self.connections.remove(&client) else { return };
        if let (Some(devices), Some(port)) = (&self.devices, connection.port) {
            self.by_port.remove(&port);
            // It may be closed from the other side.
            let _ = devices.events.unbind(port);
        }
    }

    fn control(&mut self, command: &str, arguments: &[&str]) -> Option<Result<String, Errno>> {
        let answer = match (command, arguments) {
            ("log", ["on" | "off"]) | ("logfile", [_]) | ("print", [_]) => Ok("OK".to_owned()),
            ("log" | "logfile" | "print", _) => Err(Errno::EINVAL),
            ("live-update", _) => {
                // xenstore-control shows what it is told.
                return Some(Ok(
                    "not by this command: stop this xenstored and start the new one, which goes on \
                    where it was"
                        .to_owned(),
                ));
            }
            _ => return None,
        };
        if answer.is_ok() {
            let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
            self.commands.push((command.to_owned(), arguments));
        }
        Some(answer)
    }
}

//! The hypervisor's own messages, followed into a file: those of before the daemon's start, too.

use std::io;

use pv_abi::xen::Virq;

use super::log::Log;
use crate::evtchn::{EventChannels, Port};
use crate::privcmd::Privcmd;

/// The log, and how far the hypervisor's ring has been read.
#[derive(Debug)]
pub(super) struct HypervisorLog {
    log: Log,
    port: Port,
    index: u32,
}

impl HypervisorLog {
    /// Asks to be told of messages. Those that are there already no event tells of.
    pub(super) fn new(log: Log, channels: &EventChannels) -> io::Result<Self> {
        Ok(Self { log, port: channels.bind_virq(Virq::ConRing.raw())?, index: 0 })
    }

    pub(super) fn port(&self) -> Port {
        self.port
    }

    /// Writes what is new.
    pub(super) fn go_on(&mut self, xen: &Privcmd, channels: &EventChannels) -> io::Result<()> {
        loop {
            let text = xen.console_from(&mut self.index).map_err(io::Error::other)?;
            if text.is_empty() {
                return channels.unmask(self.port);
            }
            self.log.write(&text)?;
        }
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.log.reopen()
    }
}

//! Sleeping until a time, by the virtual timer and without a handler: the interrupt is acknowledged after it woke.

use payloads::gic::{Gic, SPURIOUS};
use payloads::machine::Machine;
use payloads::{io, timer};

pub struct Sleeper {
    gic: Gic,
}

impl Sleeper {
    /// Interrupts stay masked, as the payload starts.
    pub fn new(machine: &Machine<'_>) -> Option<Self> {
        let gic = Gic::for_this_cpu(machine.gic?)?;
        gic.enable_distributor();
        gic.enable_cpu();
        gic.enable(machine.virtual_timer);
        Some(Self { gic })
    }

    /// Sleeps until the counter is at `deadline`.
    pub fn until(&self, deadline: u64) {
        timer::fire_at(deadline);
        while timer::ticks() < deadline {
            io::wait_for_interrupt();
        }
        timer::stop();
        loop {
            let interrupt = self.gic.acknowledge();
            if interrupt >= SPURIOUS {
                return;
            }
            self.gic.end(interrupt);
        }
    }
}

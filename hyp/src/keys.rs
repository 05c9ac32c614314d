//! Nacelle's keys: what is typed while the console's input is switched to it.

use log::info;

use crate::{domain, mm, sched};
use pv_abi::domid::DomId;
use pv_abi::sched::ShutdownReason;

/// Says where the input goes now.
pub fn announce_input(to_nacelle: bool) {
    info!(
        "*** Serial input to {} (type 'CTRL-a' three times to switch input)",
        if to_nacelle { "Xen" } else { "DOM0" }
    );
}

/// Acts on a key.
pub fn press(key: u8) {
    match key {
        b'h' => {
            info!("key 'C' (trigger a crash)");
            info!("key 'h' (show this message)");
            info!("key 'm' (memory info)");
            info!("key 'q' (dump domain and vCPU info)");
            info!("key 'R' (reboot machine)");
        }
        // What a crash looks like, and that it is reported, can be seen and tested.
        b'C' => panic!("'C' pressed -> crash"),
        b'm' => {
            let (used, all) = mm::heap::usage();
            info!("heap: {} of {} KiB in use", used.div_ceil(1024), all / 1024);
            info!("free memory: {} KiB", mm::memory().free_count().get() * 4);
        }
        b'q' => dump_domains(),
        b'R' => {
            info!("'R' pressed -> rebooting machine");
            crate::arch::shut_down_machine(ShutdownReason::Reboot);
        }
        // Any other key means nothing.
        _ => info!("type 'h' for help"),
    }
}

fn dump_domains() {
    let mut next = DomId::DOM0;
    while let Some(domain) = domain::first_from(next) {
        info!(
            "{}: {:?}, {} vCPUs, shut down: {}, {} pages, {} for tables",
            domain.id,
            domain.life.stage(),
            domain.vcpus().len(),
            domain.is_shut_down.load(core::sync::atomic::Ordering::Relaxed),
            domain.pages.current(),
            domain.p2m.table_pages().0
        );
        for vcpu in domain.vcpus() {
            let run = sched::runstate(vcpu);
            info!(
                "    v{}: {:?} home {} loaded on {:?}",
                vcpu.id.get(),
                run.phase,
                vcpu.sched.home(),
                vcpu.sched.loaded_on()
            );
        }
        next = DomId::new(domain.id.raw().saturating_add(1));
    }
}

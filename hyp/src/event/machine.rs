//! The machine's own virtual interrupts: which domain hears them, the control domain or whom it named instead.
#![forbid(unsafe_code)]

use alloc::sync::{Arc, Weak};

use pv_abi::errno::Errno;
use pv_abi::xen::Virq;

use super::channels::VIRQS;
use super::send_global_virq;
use crate::arch;
use crate::domain::life::Stage;
use crate::domain::{Domain, control_domain};
use crate::sync::TicketMutex;

arch::machine_static! {
    /// Who hears each global VIRQ in the control domain's place.
    handlers: TicketMutex<[Option<Weak<Domain>>; VIRQS]> = TicketMutex::new([const { None }; VIRQS])
}

/// Gives a global VIRQ of the machine's to a domain (`XEN_DOMCTL_set_virq_handler`). `EINVAL` for one that is no such.
pub fn set_virq_handler(domain: &Arc<Domain>, virq: u32) -> Result<(), Errno> {
    if Virq::try_from(virq).is_ok_and(Virq::is_per_vcpu) {
        return Err(Errno::EINVAL);
    }
    *handlers().lock().get_mut(virq as usize).ok_or(Errno::EINVAL)? = Some(Arc::downgrade(domain));
    Ok(())
}

/// Raises a global VIRQ of the machine's, in the domain that handles it: the control domain again when another has died.
pub fn send_machine_virq(virq: Virq) {
    let named = handlers().lock().get(virq.raw() as usize).and_then(|handler| handler.as_ref()?.upgrade());
    let alive = named.filter(|domain| domain.life.stage() == Stage::Alive);
    if let Some(domain) = alive.or_else(control_domain) {
        send_global_virq(&domain, virq);
    }
}

//! How much of the machine's memory is left: free pages and this domain's, for `scripts/bench` to subtract from what
//! the machine has.

use payloads::xen::sysctl::{self, PhysInfo, Sysctl};
use payloads::xen::{DOMID_SELF, memory, op};
use payloads::{expect, hypercall, println};

pub fn measure() {
    let mut request = Sysctl {
        command: sysctl::PHYSINFO,
        interface_version: sysctl::INTERFACE_VERSION,
        physinfo: PhysInfo::default(),
    };
    // SAFETY: the hypervisor writes only into the structure.
    let answer = unsafe { hypercall::hypercall(op::SYSCTL, [&raw mut request as u64, 0, 0, 0, 0]) };
    let mut domid = DOMID_SELF;
    // SAFETY: the hypervisor only reads the identifier.
    let own = unsafe { hypercall::with_struct(op::MEMORY_OP, memory::CURRENT_RESERVATION, &mut domid) };
    expect!(answer == 0 && own > 0, "no memory figures: {answer}, {own}");
    if answer == 0 && own > 0 {
        println!(
            "footprint total {} free {} dom0 {} pages",
            request.physinfo.total_pages, request.physinfo.free_pages, own
        );
    }
}

//! The operations of a toolstack, by the layouts of Xen's `domctl.h`, `sysctl.h` and `memory.h` (4.17), as words.

use payloads::hypercall::{hypercall, with_struct};
use payloads::timer;
use payloads::xen::memory::{DECREASE_RESERVATION, POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP, Reservation};
use payloads::xen::sysctl::{self, PhysInfo, Sysctl};
use payloads::xen::{DOMID_SELF, op};

/// The step that failed, and what it returned.
pub type Failed = (&'static str, i64);

const DOMCTL_VERSION: u32 = 0x15;
const CREATE: u32 = 1;
const DESTROY: u32 = 2;
const UNPAUSE: u32 = 4;
const GET_INFO: u32 = 5;
const MAX_MEM: u32 = 11;
const SET_CONTEXT: u32 = 12;
const MAX_VCPUS: u32 = 15;
const LIST: u32 = 6;
const ADD_TO_PHYSMAP_BATCH: u64 = 23;
const FOREIGN: u32 = 4;

/// `xen_domctl`: command, version, domain, and 128 bytes of arguments.
#[repr(C, align(8))]
struct Domctl {
    command: u32,
    version: u32,
    domain: u64,
    arguments: [u32; 32],
}

fn domctl(command: u32, domain: u16, arguments: &[(usize, u32)]) -> (i64, Domctl) {
    let mut call = Domctl { command, version: DOMCTL_VERSION, domain: domain.into(), arguments: [0; 32] };
    for &(offset, value) in arguments {
        call.arguments[offset / 4] = value;
    }
    // SAFETY: the calls made here lead to no memory but the structure and the context of `start_at`.
    let result = unsafe { hypercall(op::DOMCTL, [&raw mut call as u64, 0, 0, 0, 0]) };
    (result, call)
}

fn done(step: &'static str, result: i64, wanted: i64) -> Result<(), Failed> {
    if result == wanted { Ok(()) } else { Err((step, result)) }
}

/// A domain with one vCPU that may have four pages.
pub fn create() -> Result<u16, Failed> {
    let flags = 3; // hvm, hap
    let arguments = [(20, flags), (28, 1), (32, 1023), (36, 1), (40, 1), (44, 1)];
    let (result, call) = domctl(CREATE, 0, &arguments);
    done("create", result, 0)?;
    let id = call.domain as u16;
    done("max_vcpus", domctl(MAX_VCPUS, id, &[(0, 1)]).0, 0)?;
    done("max_mem", domctl(MAX_MEM, id, &[(0, 16)]).0, 0)?;
    Ok(id)
}

pub fn unpause(id: u16) -> i64 {
    domctl(UNPAUSE, id, &[]).0
}

pub fn destroy(id: u16) -> i64 {
    domctl(DESTROY, id, &[]).0
}

/// Whether the domain is there and has shut down.
pub fn is_shut_down(id: u16) -> bool {
    let (result, call) = domctl(GET_INFO, id, &[]);
    // `flags` follows the identifier; bit 2 is XEN_DOMINF_shutdown.
    result == 0 && call.arguments[1] & 4 != 0
}

/// Domains that `getdomaininfolist` tells of, asked for some at a time.
pub fn listed() -> usize {
    const ROOM: usize = 64;
    let mut infos = [[0u64; 15]; ROOM];
    let (mut count, mut first) = (0, 0u16);
    loop {
        // first_domain, max_domains, buffer, num_domains.
        let mut call = [0u64; 17];
        call[0] = u64::from(LIST) | u64::from(sysctl::INTERFACE_VERSION) << 32;
        call[1] = u64::from(first) | (ROOM as u64) << 32;
        call[2] = infos.as_mut_ptr() as u64;
        // SAFETY: the hypervisor writes into the structure and the list, both borrowed here.
        let result = unsafe { hypercall(op::SYSCTL, [&raw mut call as u64, 0, 0, 0, 0]) };
        let told = if result == 0 { call[3] as u32 as usize } else { 0 };
        count += told;
        match infos.get(told.wrapping_sub(1)) {
            Some(last) if told == ROOM => first = last[0] as u16 + 1,
            _ => return count,
        }
    }
}

/// Gives the domain a page.
pub fn populate(id: u16, gfn: u64) -> Result<(), Failed> {
    let mut list = [gfn];
    let mut reservation = Reservation {
        extent_start: list.as_mut_ptr() as u64,
        nr_extents: 1,
        extent_order: 0,
        mem_flags: 0,
        domid: id,
    };
    // SAFETY: the hypervisor reads the structure and the list.
    done("populate", unsafe { with_struct(op::MEMORY_OP, POPULATE_PHYSMAP, &mut reservation) }, 1)
}

/// Shows the domain's page at `window`, a page of this domain's that nothing uses, in place of what was there.
pub fn open_window(window: u64, id: u16, gfn: u64) -> Result<(), Failed> {
    let (index, place, error) = ([gfn], [window >> 12], [0i32; 2]);
    // xen_add_to_physmap_batch: domain, space, size, other domain; then the lists.
    let mut batch = [
        u64::from(DOMID_SELF) | u64::from(FOREIGN) << 16 | 1 << 32 | u64::from(id) << 48,
        &raw const index as u64,
        &raw const place as u64,
        &raw const error as u64,
    ];
    // SAFETY: the hypervisor reads the lists and writes the error; the page at `window` is nobody's.
    done("foreign map", unsafe { with_struct(op::MEMORY_OP, ADD_TO_PHYSMAP_BATCH, &mut batch) }, 0)
}

/// Gives this domain its own page back.
pub fn close_window(window: u64) {
    let mut place = [u64::from(DOMID_SELF), window >> 12];
    // SAFETY: the page at `window` is nobody's.
    unsafe { with_struct(op::MEMORY_OP, REMOVE_FROM_PHYSMAP, &mut place) };
    for command in [DECREASE_RESERVATION, POPULATE_PHYSMAP] {
        let mut list = [window >> 12];
        let mut reservation = Reservation {
            extent_start: list.as_mut_ptr() as u64,
            nr_extents: 1,
            domid: DOMID_SELF,
            ..Reservation::default()
        };
        // SAFETY: as above.
        unsafe { with_struct(op::MEMORY_OP, command, &mut reservation) };
    }
}

/// Sets where the domain's vCPU starts, with x19 and x20.
pub fn start_at(id: u16, entry: u64, registers: [u64; 2]) -> Result<(), Failed> {
    // vcpu_guest_context: flags (online), x0 to x30, pc, cpsr, six more, sctlr, three more.
    let mut context = [0u64; 44];
    context[0] = 1;
    context[20..22].copy_from_slice(&registers);
    context[32] = entry;
    context[33] = 0x1c5;
    context[40] = 0x00c5_0078;
    let address = context.as_mut_ptr() as u64;
    let arguments = [(0, 0), (8, address as u32), (12, (address >> 32) as u32)];
    done("context", domctl(SET_CONTEXT, id, &arguments).0, 0)
}

/// Free pages and the time in instructions (under `-icount shift=0`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub free: u64,
    pub time: u64,
}

pub fn figures() -> Figures {
    let mut request = Sysctl {
        command: sysctl::PHYSINFO,
        interface_version: sysctl::INTERFACE_VERSION,
        physinfo: PhysInfo::default(),
    };
    // SAFETY: the hypervisor writes only into the structure.
    unsafe { hypercall(op::SYSCTL, [&raw mut request as u64, 0, 0, 0, 0]) };
    Figures { free: request.physinfo.free_pages, time: timer::nanoseconds(timer::ticks()) }
}

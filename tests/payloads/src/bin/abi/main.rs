//! What hypercalls answer: the same on Xen 4.17 and on Nacelle.
//!
//! Every expectation was first recorded on Debian's Xen 4.17.7 as dom0, and passes there. Names in comments are those of the
//! public headers.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod events;
#[cfg(target_os = "none")]
mod firmware;
#[cfg(target_os = "none")]
mod grants;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod misc;
#[cfg(target_os = "none")]
mod version;

/// An address that no stage 1 table maps.
#[cfg(target_os = "none")]
const NOWHERE: u64 = payloads::paging::UNMAPPED_GIB << 30;

/// A domain that does not exist.
#[cfg(target_os = "none")]
const NOBODY: u16 = 77;

/// A hypercall with the address of `argument` as its second argument.
#[cfg(target_os = "none")]
fn call<T>(number: u64, command: u64, argument: &mut T) -> i64 {
    // SAFETY: the tests of this program name only memory they own, inside `argument` too.
    unsafe { payloads::hypercall::with_struct(number, command, argument) }
}

/// A hypercall with these arguments and no memory to write.
#[cfg(target_os = "none")]
fn raw(number: u64, arguments: [u64; 5]) -> i64 {
    // SAFETY: the tests of this program use it with pointers to nowhere, or to what the hypervisor only reads.
    unsafe { payloads::hypercall::hypercall(number, arguments) }
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    use payloads::report;

    report::run(&version::TESTS, machine);
    report::run(&firmware::TESTS, machine);
    report::run(&misc::TESTS, machine);
    report::run(&memory::TESTS, machine);
    report::run(&grants::TESTS, machine);
    report::run(&events::TESTS, machine);
}

#[cfg(not(target_os = "none"))]
fn main() {}

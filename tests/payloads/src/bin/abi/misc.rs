//! Calls with a sub-operation or two each: scheduling, console, processors, parameters, devices, toolstack, batches.

use payloads::machine::Machine;
use payloads::report::Test;
use payloads::xen::{DOMID_SELF, errno, op, sched, sysctl};
use payloads::{expect, expect_eq, tests};

use crate::{NOBODY, NOWHERE, call, raw};

pub const TESTS: [Test; 8] =
    tests![scheduling, console, processors, parameters, devices, toolstack, services, multicall];

fn scheduling(_: &Machine<'static>) {
    expect_eq!(raw(op::SCHED_OP, [sched::YIELD, 0, 0, 0, 0]), 0);
    expect_eq!(raw(op::SCHED_OP, [sched::SHUTDOWN, NOWHERE, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::SCHED_OP, [sched::POLL, NOWHERE, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::SCHED_OP, [99, 0, 0, 0, 0]), errno::ENOSYS);
    // sched_poll: ports, how many, deadline. More than 128 ports; a port that does not exist.
    let mut poll = [0_u64, 129, 0];
    expect_eq!(call(op::SCHED_OP, sched::POLL, &mut poll), errno::EINVAL);
    let ports = [100_000_u32];
    let mut poll = [ports.as_ptr() as u64, 1, 1];
    expect_eq!(call(op::SCHED_OP, sched::POLL, &mut poll), errno::EINVAL);
    // A deadline that has passed ends the wait at once.
    let mut poll = [0_u64, 0, 1];
    expect_eq!(call(op::SCHED_OP, sched::POLL, &mut poll), 0);
    // A hypervisor may go without watchdogs; if it has them, identifier 9 was never given out.
    let mut watchdog = [9_u32, 5];
    let answer = call(op::SCHED_OP, sched::WATCHDOG, &mut watchdog);
    expect!(answer == errno::EINVAL || answer == errno::ENOSYS, "watchdog answered {answer}");
}

fn console(_: &Machine<'static>) {
    let text = b"abi: console_io writes this line\n";
    expect_eq!(raw(op::CONSOLE_IO, [0, text.len() as u64, text.as_ptr() as u64, 0, 0]), 0);
    expect_eq!(raw(op::CONSOLE_IO, [0, 0, NOWHERE, 0, 0]), 0);
    expect_eq!(raw(op::CONSOLE_IO, [0, 4, NOWHERE, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::CONSOLE_IO, [9, 4, NOWHERE, 0, 0]), errno::ENOSYS);
}

fn processors(machine: &Machine<'static>) {
    // VCPUOP_register_vcpu_info: frame, offset. An offset that leaves the page; one not aligned; then one that is good, once.
    let Some(page) = machine.free(4096, 4096) else { return expect!(false, "no free page") };
    let frame = page.start / 4096;
    let register = |vcpu: u64, offset: u64| {
        let info = [frame, offset];
        raw(op::VCPU_OP, [10, vcpu, info.as_ptr() as u64, 0, 0])
    };
    expect_eq!(register(0, 4096), errno::ENXIO);
    expect_eq!(register(0, 4096 - 32), errno::ENXIO);
    expect_eq!(register(99, 0), errno::ENOENT);
    expect_eq!(raw(op::VCPU_OP, [10, 0, NOWHERE, 0, 0]), errno::EFAULT);
    expect_eq!(register(0, 0), 0);
    expect_eq!(register(0, 0), errno::EINVAL);
    expect_eq!(register(0, 64), errno::EINVAL);
    // VCPUOP_is_up, get_runstate_info and others: not on Arm.
    for command in [0, 1, 2, 3, 4, 6, 7, 11, 12, 13, 99] {
        expect_eq!((command, raw(op::VCPU_OP, [command, 0, NOWHERE, 0, 0])), (command, errno::EINVAL));
    }
    // VCPUOP_register_runstate_memory_area: the hypervisor may keep the address, so it gets none that works.
    expect_eq!(raw(op::VCPU_OP, [5, 0, NOWHERE, 0, 0]), errno::EFAULT);
}

/// `xen_hvm_param`.
fn parameter(command: u64, domid: u16, index: u64, value: u64) -> (i64, u64) {
    let mut argument = [u64::from(domid) | index << 32, value];
    (call(op::HVM_OP, command, &mut argument), argument[1])
}

fn parameters(machine: &Machine<'static>) {
    // STORE_PFN, STORE_EVTCHN, CONSOLE_PFN, CONSOLE_EVTCHN are the toolstack's to set, not the domain's own.
    for (index, value) in [(1, 0x1234), (2, 7), (17, 0x4321), (18, 9)] {
        expect_eq!(parameter(0, DOMID_SELF, index, value), (errno::EPERM, value));
        expect_eq!(parameter(1, DOMID_SELF, index, value), (0, 0));
    }
    expect_eq!(parameter(1, DOMID_SELF, 39, 5), (errno::EINVAL, 5));
    expect_eq!(parameter(0, DOMID_SELF, 39, 5), (errno::EINVAL, 5));
    expect_eq!(parameter(1, NOBODY, 1, 5), (errno::ESRCH, 5));
    expect_eq!(parameter(0, NOBODY, 1, 5), (errno::ESRCH, 5));
    expect_eq!(raw(op::HVM_OP, [0, NOWHERE, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::HVM_OP, [1, NOWHERE, 0, 0, 0]), errno::EFAULT);
    for command in [2, 9, 99] {
        expect_eq!((command, raw(op::HVM_OP, [command, NOWHERE, 0, 0, 0])), (command, errno::ENOSYS));
    }
    // HVM_PARAM_CALLBACK_IRQ reads as the PPI of the device tree: type 2 in the top byte, level low in the second.
    let interrupt = machine.event_interrupt.map_or(0, u64::from);
    expect_eq!(parameter(1, DOMID_SELF, 0, 0), (0, 2 << 56 | 2 << 8 | interrupt));
}

fn devices(_: &Machine<'static>) {
    // Without a PCI host bridge that the hypervisor drives, pci_device_add and pci_device_remove neither.
    for command in [0, 5, 12, 13, 15, 25, 26, 28, 99] {
        expect_eq!((command, raw(op::PHYSDEV_OP, [command, NOWHERE, 0, 0, 0])), (command, errno::ENOSYS));
    }
}

fn toolstack(_: &Machine<'static>) {
    let mut request = [0_u64; 24];
    for number in [op::SYSCTL, op::DOMCTL, op::PLATFORM_OP] {
        expect_eq!((number, raw(number, [NOWHERE, 0, 0, 0, 0])), (number, errno::EFAULT));
        // The wrong interface version.
        request[0] = 0x1000_0003;
        expect_eq!((number, raw(number, [request.as_mut_ptr() as u64, 0, 0, 0, 0])), (number, errno::EACCES));
    }
    let version = u64::from(sysctl::INTERFACE_VERSION) << 32;
    request[0] = version | 99;
    expect_eq!(raw(op::SYSCTL, [request.as_mut_ptr() as u64, 0, 0, 0, 0]), errno::ENOSYS);
    request[0] = version | 99;
    expect_eq!(raw(op::DOMCTL, [request.as_mut_ptr() as u64, 0, 0, 0, 0]), errno::ENOSYS);
    // XEN_DOMCTL_getdomaininfo of nobody.
    request[0] = version | 5;
    request[1] = u64::from(NOBODY);
    expect_eq!(raw(op::DOMCTL, [request.as_mut_ptr() as u64, 0, 0, 0, 0]), errno::ESRCH);
    // XEN_SYSCTL_physinfo, and XEN_DOMCTL_getdomaininfo of dom0.
    request[0] = version | 3;
    expect_eq!(raw(op::SYSCTL, [request.as_mut_ptr() as u64, 0, 0, 0, 0]), 0);
    expect_eq!(request[3] >> 32, 0);
    request[0] = version | 5;
    request[1] = 0;
    expect_eq!(raw(op::DOMCTL, [request.as_mut_ptr() as u64, 0, 0, 0, 0]), 0);
}

fn services(_: &Machine<'static>) {
    expect_eq!(raw(op::XSM_OP, [0; 5]), errno::ENOSYS);
    // vm_assist: enable runstate_update_flag; a type that does not exist; a command that does not exist.
    expect_eq!(raw(op::VM_ASSIST, [0, 5, 0, 0, 0]), 0);
    expect_eq!(raw(op::VM_ASSIST, [1, 5, 0, 0, 0]), 0);
    expect_eq!(raw(op::VM_ASSIST, [0, 20, 0, 0, 0]), errno::EINVAL);
    expect_eq!(raw(op::VM_ASSIST, [9, 5, 0, 0, 0]), errno::ENOSYS);
}

fn multicall(_: &Machine<'static>) {
    // multicall_entry: number, result, six arguments.
    let mut entries = [[0_u64; 8]; 3];
    entries[0][0] = op::XEN_VERSION;
    entries[1][0] = 62;
    entries[2][0] = op::XEN_VERSION;
    entries[2][2] = 7;
    expect_eq!(raw(op::MULTICALL, [entries.as_mut_ptr() as u64, 3, 0, 0, 0]), 0);
    expect_eq!(entries.map(|entry| entry[1] as i64), [4 << 16 | 17, errno::ENOSYS, 4096]);
    // One inside another is refused.
    entries[0] = [op::MULTICALL, 0, entries[1].as_ptr() as u64, 1, 0, 0, 0, 0];
    expect_eq!(raw(op::MULTICALL, [entries.as_mut_ptr() as u64, 1, 0, 0, 0]), 0);
    expect_eq!(entries[0][1] as i64, errno::EINVAL);
    expect_eq!(raw(op::MULTICALL, [NOWHERE, 1, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::MULTICALL, [NOWHERE, 0, 0, 0, 0]), 0);
}

//! Random loads and stores: the interrupt controller's registers, and addresses where nothing is.

use core::arch::asm;

use payloads::exceptions::{Width, try_read, try_run, try_write};
use payloads::machine::{GicRegisters, Machine, Range};
use payloads::{expect, println};

use super::values::Values;

const DATA_ABORT: u64 = 0x25;

/// Where to aim, and counts of what came back.
pub struct Device {
    registers: [Range; 2],
    /// From the end of the domain's memory up: on QEMU's `virt`, nothing but memory of others below 256 GiB.
    nothing: Range,
    served: u64,
    aborted: u64,
    unbacked_served: u64,
    strange: u64,
}

impl Device {
    pub fn new(machine: &Machine<'_>) -> Self {
        let registers = match machine.gic {
            Some(GicRegisters::V2 { distributor, cpu_interface }) => {
                [Range::sized(distributor, 0x1000), Range::sized(cpu_interface, 0x2000)]
            }
            // Beyond the last processor's redistributor too.
            Some(GicRegisters::V3 { distributor, redistributors }) => {
                let two = Range::sized(redistributors.start, 0x4_0000);
                [Range::sized(distributor, 0x1_0000), two]
            }
            None => [Range::default(); 2],
        };
        let end = machine.memory.iter().map(|bank| bank.end).max().unwrap_or(0);
        Self {
            registers,
            nothing: Range { start: end, end: 1 << 38 },
            served: 0,
            aborted: 0,
            unbacked_served: 0,
            strange: 0,
        }
    }

    /// Makes one access.
    pub fn one(&mut self, values: &mut Values) {
        let backed = !values.random().one_in(8);
        let range = if backed { values.random().pick(&self.registers) } else { self.nothing };
        let width =
            values.random().pick(&[Width::Word, Width::Word, Width::Byte, Width::Half, Width::Double]);
        let align = match width {
            Width::Byte => 1,
            Width::Half => 2,
            Width::Word => 4,
            Width::Double => 8,
        };
        let mut address = range.start + values.random().below((range.end - range.start).saturating_sub(16));
        if !values.random().one_in(32) {
            address &= !(align - 1);
        }
        let value = values.any();
        let outcome = match values.random().below(32) {
            0 => odd_access(address & !7, values.random().below(5)),
            1..16 => try_read(address, width).map(|_| ()),
            // SAFETY: an address of the interrupt controller or of nothing; no device that writes memory.
            _ => unsafe { try_write(address, width, value) },
        };
        match outcome {
            Ok(()) => {
                self.served += 1;
                self.unbacked_served += u64::from(!backed);
            }
            Err(syndrome) => {
                self.aborted += 1;
                if syndrome.class() != DATA_ABORT {
                    self.strange += 1;
                    if self.strange <= 8 {
                        println!("fuzz: access to {address:#x} ended in {syndrome:x?}");
                    }
                }
            }
        }
    }

    /// Prints the counts. An access to nothing must abort, except where an earlier hypercall put something there.
    pub fn report(&self) {
        println!(
            "fuzz: {} device accesses served, {} aborted; {} served where nothing is",
            self.served, self.aborted, self.unbacked_served
        );
        expect!(self.strange == 0, "{} accesses ended in something else than a data abort", self.strange);
        expect!(self.unbacked_served * 100 <= self.aborted, "accesses to nothing were served");
    }
}

/// Accesses whose syndrome does not tell the hypervisor what to do (ESR_EL2.ISV is zero), or that are no accesses of data.
fn odd_access(address: u64, kind: u64) -> Result<(), payloads::exceptions::Syndrome> {
    try_run(|| {
        // SAFETY: an address of the interrupt controller or of nothing; a fault is caught and skipped, the
        // registers named are outputs whether it happens or not.
        unsafe {
            match kind {
                0 => asm!("ldp x9, x10, [{}]", in(reg) address, out("x9") _, out("x10") _, options(nostack)),
                1 => asm!("stp xzr, xzr, [{}]", in(reg) address, options(nostack)),
                2 => asm!("ldr w9, [{}], #4", inout(reg) address => _, out("x9") _, options(nostack)),
                3 => asm!("ldxr w9, [{}]", "clrex", in(reg) address, out("x9") _, options(nostack)),
                _ => asm!("dc civac, {}", in(reg) address, options(nostack)),
            }
        }
    })
}

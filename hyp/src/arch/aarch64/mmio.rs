//! Stage-2 faults: emulated registers, translations that another CPU is just changing, and accesses to nothing.

use gic::Frame;
use stage2::Ipa;

use crate::arch::Access;
use crate::console::GUEST;
use crate::p2m;

use super::errata;
use super::percpu::Loaded;
use super::sysreg::{read_sysreg, write_sysreg};
use super::vectors::Context;
use super::{inject, irq, trap};

/// ESR_EL2.ISS of an abort (DDI 0487 D19.2.37).
mod iss {
    /// The instruction is described: register, width, direction.
    pub const ISV: u64 = 1 << 24;
    /// On a walk of stage 1.
    pub const S1PTW: u64 = 1 << 7;
    /// Write, not read.
    pub const WNR: u64 = 1 << 6;
    /// The fault, without its level.
    pub const FAULT: u64 = 0x3c;
    pub const TRANSLATION: u64 = 0x04;
    pub const ACCESS_FLAG: u64 = 0x08;
    pub const PERMISSION: u64 = 0x0c;
}

/// The IPA in HPFAR_EL2, valid for translation, access-flag and address-size faults, and for any fault on a stage 1 walk
/// (DDI 0487 D19.2.61).
#[inline]
fn reported_ipa(far: u64) -> Ipa {
    Ipa::new((read_sysreg!("hpfar_el2") >> 4 & 0xff_ffff_ffff) << 12 | far & 0xfff)
}

/// The faulting IPA, for permission faults and where HPFAR_EL2 is not to be trusted by way of stage 1. `None`: stage 1
/// translates it no more, or never did.
fn fault_ipa(far: u64, esr: u64) -> Option<Ipa> {
    if esr & iss::S1PTW != 0 || (esr & iss::FAULT != iss::PERMISSION && !errata::hides_stage1_faults()) {
        return Some(reported_ipa(far));
    }
    let guest_par = read_sysreg!("par_el1");
    // SAFETY: a stage 1 translation as EL1 would read; changes PAR_EL1 only.
    unsafe { core::arch::asm!("at s1e1r, {}", "isb", in(reg) far, options(nostack)) };
    let par = read_sysreg!("par_el1");
    // SAFETY: restores what the guest had.
    unsafe { write_sysreg!("par_el1", guest_par) };
    if par & 1 != 0 { None } else { Some(Ipa::new(par & 0x000f_ffff_ffff_f000 | far & 0xfff)) }
}

/// Handles the data abort (EC 0x24) from AArch64 that an access to an emulated register is. `false`: it is something else, for
/// [`data_abort`].
#[inline(always)]
pub fn is_emulated(loaded: &Loaded, ctx: &mut Context, esr: u64) -> bool {
    if esr & (iss::ISV | iss::S1PTW | iss::FAULT) != iss::ISV | iss::TRANSLATION
        || errata::hides_stage1_faults()
    {
        return false;
    }
    let Some((frame, offset)) = loaded.domain.vgic.locate(reported_ipa(read_sysreg!("far_el2"))) else {
        return false;
    };
    emulate(loaded, ctx, esr, frame, offset);
    trap::skip_a64_instruction();
    true
}

#[inline(always)]
fn emulate(loaded: &Loaded, ctx: &mut Context, esr: u64, frame: Frame, offset: u32) {
    let width = 1u8 << (esr >> 22 & 3);
    let rt = (esr >> 16 & 0x1f) as usize;
    if esr & iss::WNR != 0 {
        let value = if rt == 31 { 0 } else { ctx.x[rt] };
        irq::mmio_write(loaded, frame, offset, width, value);
    } else {
        let value = irq::mmio_read(loaded, frame, offset, width);
        if rt != 31 {
            ctx.x[rt] = extend(value, width, esr);
        }
    }
}

/// Handles a data abort from the guest (EC 0x24).
pub fn data_abort(loaded: &Loaded, ctx: &mut Context, esr: u64) {
    let far = read_sysreg!("far_el2");
    let is_write = esr & iss::WNR != 0;
    if !is_translation_abort(esr) {
        return other_abort(loaded, far, esr, true, is_write);
    }
    let Some(ipa) = fault_ipa(far, esr) else {
        // Stage 1 changed under us: let the guest try again.
        return;
    };
    if esr & iss::ISV != 0
        && let Some((frame, offset)) = loaded.domain.vgic.locate(ipa)
    {
        emulate(loaded, ctx, esr, frame, offset);
        return trap::skip_instruction(esr);
    }
    if is_watched(loaded, esr, ipa) {
        return;
    }
    let access = if is_write { Access::Write } else { Access::Read };
    // If there is something: another CPU was in the middle of break-before-make, or was first to touch the page.
    if is_backed(loaded, ipa) || loaded.domain.p2m.allows(ipa.gfn(), access) {
        return;
    }
    log::warn!(target: GUEST, "{} v{}: data abort, {} of IPA {:#x} (VA {far:#x}) at {:#x}, ESR {esr:#x}",
        loaded.domain.id, loaded.vcpu.id.get(), if is_write { "write" } else { "read" }, ipa.raw(), read_sysreg!("elr_el2"));
    inject::external_abort(far, true, is_write);
}

/// Whether the access was to a page that is watched ([`p2m::P2m::touch`]), which it may now be made to.
fn is_watched(loaded: &Loaded, esr: u64, ipa: Ipa) -> bool {
    esr & iss::FAULT == iss::ACCESS_FLAG && loaded.domain.p2m.touch(ipa.gfn())
}

/// Gives memory on demand its backing, or ends the domain for which there is none. Whether the access was to such memory.
fn is_backed(loaded: &Loaded, ipa: Ipa) -> bool {
    loaded.domain.p2m.back(ipa.gfn()).unwrap_or_else(|_| {
        p2m::out_of_budget(&loaded.domain, ipa.gfn());
        true
    })
}

/// Whether an abort is one of stage 2's translation: address size, translation, access flag or permission (fault status
/// 0b00xxxx).
fn is_translation_abort(esr: u64) -> bool {
    esr & 0x30 == 0
}

/// Any other abort that reaches EL2: TLB conflict, unsupported atomic access, lockdown.
#[cold]
fn other_abort(loaded: &Loaded, far: u64, esr: u64, data: bool, is_write: bool) {
    const TLB_CONFLICT: u64 = 0x30;
    if esr & 0x3f == TLB_CONFLICT {
        // SAFETY: drops the guest's translations of both stages here, the conflicting ones among them; they are found again.
        unsafe { core::arch::asm!("tlbi vmalls12e1", "dsb nsh", "isb", options(nostack)) };
        return;
    }
    log::warn!(target: GUEST, "{} v{}: abort at VA {far:#x}, ESR {esr:#x}", loaded.domain.id, loaded.vcpu.id.get());
    inject::external_abort(far, data, is_write);
}

/// Sign (SSE) and width (SF) of a load into a register.
fn extend(value: u64, width: u8, esr: u64) -> u64 {
    const SSE: u64 = 1 << 21;
    const SF: u64 = 1 << 15;
    if esr & SSE == 0 || width == 8 {
        return value;
    }
    let shift = 64 - 8 * u32::from(width);
    let signed = ((value << shift) as i64 >> shift) as u64;
    if esr & SF != 0 { signed } else { signed & 0xffff_ffff }
}

/// Handles an instruction abort from the guest (EC 0x20).
pub fn instruction_abort(loaded: &Loaded, esr: u64) {
    let far = read_sysreg!("far_el2");
    if !is_translation_abort(esr) {
        return other_abort(loaded, far, esr, false, false);
    }
    let Some(ipa) = fault_ipa(far, esr) else { return };
    if is_watched(loaded, esr, ipa) || is_backed(loaded, ipa) || loaded.domain.p2m.allows_execution(ipa.gfn())
    {
        return;
    }
    log::warn!(target: GUEST, "{} v{}: instruction abort at IPA {:#x} (VA {far:#x}), ESR {esr:#x}",
        loaded.domain.id, loaded.vcpu.id.get(), ipa.raw());
    inject::external_abort(far, false, false);
}

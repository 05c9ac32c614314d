//! The machine's part of a vCPU: EL1 registers, timers, FP, and moving them into and out of a CPU.
//!
//! ```text
//!            load()                       FP trap
//!  memory ──────────▶ registers, FP trapped ─────▶ registers and FP
//!     ▲                        │                         │
//!     └──────── unload() ──────┴─────────────────────────┘
//! ```
//! [`VcpuState`] is touched only by the CPU on which the vCPU is loaded, or, while it is loaded nowhere, by
//! whoever keeps the scheduler from loading it (its builder, PSCI CPU_ON, a toolstack that paused it).

use core::arch::asm;
use core::cell::UnsafeCell;

use pv_abi::arch_arm::{VcpuGuestContext, VcpuGuestCoreRegs};
use stage2::{Ipa, Pa};

use super::sysreg::{hcr, isb, read_sysreg, write_sysreg};
use super::vectors::Context;
use crate::arch::{Access, TranslationFault};
use crate::time::Ticks;

/// SPSR_EL2 of a vCPU that starts: EL1h, D, A, I, F masked.
pub const SPSR_START: u64 = 0x3c5;
/// SCTLR_EL1 at reset: RES1 bits of ARMv8.0, MMU and caches off.
pub const SCTLR_EL1_RESET: u64 = 0x30d0_0800;

macro_rules! el1_registers {
    ($($field:ident = $name:literal;)*) => {
        /// EL1 and EL0 system registers that a guest owns.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct El1Registers {
            $(#[doc = concat!("`", $name, "`.")] pub $field: u64,)*
        }

        impl El1Registers {
            #[inline]
            fn save(&mut self) {
                $(self.$field = read_sysreg!($name);)*
            }

            /// # Safety
            /// This CPU runs no guest that relies on the registers' present contents.
            #[inline]
            unsafe fn load(&self) {
                $(
                    // SAFETY: an EL1 register: it affects only the guest, which is loaded by this.
                    unsafe { write_sysreg!($name, self.$field) };
                )*
            }
        }
    };
}

el1_registers! {
    sctlr = "sctlr_el1";
    cpacr = "cpacr_el1";
    ttbr0 = "ttbr0_el1";
    ttbr1 = "ttbr1_el1";
    tcr = "tcr_el1";
    mair = "mair_el1";
    amair = "amair_el1";
    vbar = "vbar_el1";
    contextidr = "contextidr_el1";
    esr = "esr_el1";
    far = "far_el1";
    afsr0 = "afsr0_el1";
    afsr1 = "afsr1_el1";
    par = "par_el1";
    elr = "elr_el1";
    spsr = "spsr_el1";
    sp_el0 = "sp_el0";
    sp = "sp_el1";
    tpidr_el0 = "tpidr_el0";
    tpidrro_el0 = "tpidrro_el0";
    tpidr = "tpidr_el1";
    cntkctl = "cntkctl_el1";
    csselr = "csselr_el1";
}

/// FP and SIMD registers.
#[repr(C, align(16))]
#[derive(Clone, Debug)]
pub struct FpRegisters {
    v: [u128; 32],
    fpcr: u64,
    fpsr: u64,
}

impl FpRegisters {
    const fn new() -> Self {
        Self { v: [0; 32], fpcr: 0, fpsr: 0 }
    }

    fn save(&mut self) {
        // SAFETY: stores the 32 vector registers and the two control registers to this structure, whose layout
        // (repr(C)) the offsets follow; FP is not trapped at EL2 when this runs (see `fp_enabled`).
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "stp q0, q1, [{0}, #0]", "stp q2, q3, [{0}, #32]", "stp q4, q5, [{0}, #64]",
                "stp q6, q7, [{0}, #96]", "stp q8, q9, [{0}, #128]", "stp q10, q11, [{0}, #160]",
                "stp q12, q13, [{0}, #192]", "stp q14, q15, [{0}, #224]", "stp q16, q17, [{0}, #256]",
                "stp q18, q19, [{0}, #288]", "stp q20, q21, [{0}, #320]", "stp q22, q23, [{0}, #352]",
                "stp q24, q25, [{0}, #384]", "stp q26, q27, [{0}, #416]", "stp q28, q29, [{0}, #448]",
                "stp q30, q31, [{0}, #480]",
                "mrs {1}, fpcr", "str {1}, [{0}, #512]", "mrs {1}, fpsr", "str {1}, [{0}, #520]",
                in(reg) self, out(reg) _, options(nostack)
            );
        }
    }

    fn load(&self) {
        // SAFETY: loads the vector registers, which EL2 code (soft-float) never uses, from this structure.
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "ldp q0, q1, [{0}, #0]", "ldp q2, q3, [{0}, #32]", "ldp q4, q5, [{0}, #64]",
                "ldp q6, q7, [{0}, #96]", "ldp q8, q9, [{0}, #128]", "ldp q10, q11, [{0}, #160]",
                "ldp q12, q13, [{0}, #192]", "ldp q14, q15, [{0}, #224]", "ldp q16, q17, [{0}, #256]",
                "ldp q18, q19, [{0}, #288]", "ldp q20, q21, [{0}, #320]", "ldp q22, q23, [{0}, #352]",
                "ldp q24, q25, [{0}, #384]", "ldp q26, q27, [{0}, #416]", "ldp q28, q29, [{0}, #448]",
                "ldp q30, q31, [{0}, #480]",
                "ldr {1}, [{0}, #512]", "msr fpcr, {1}", "ldr {1}, [{0}, #520]", "msr fpsr, {1}",
                in(reg) self, out(reg) _, options(nostack)
            );
        }
    }
}

/// CPTR_EL2 without VHE (DDI 0487 D19.2.34): RES1 bits; TZ, TSM, TTA and TAM keep SVE, SME, trace and activity monitors
/// away.
const CPTR_BASE: u64 = 0x22ff | 1 << 8 | 1 << 12 | 1 << 20 | 1 << 30;
/// CPTR_EL2.TCPAC: not set, a guest owns CPACR_EL1. CPTR_EL2.TFP: FP and SIMD trap.
const CPTR_TFP: u64 = 1 << 10;

/// The emulated EL1 physical timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PhysicalTimer {
    /// CNTP_CTL_EL0: ENABLE and IMASK; ISTATUS is computed.
    pub ctl: u64,
    /// CNTP_CVAL_EL0.
    pub cval: u64,
}

/// The virtual timer of a vCPU that is not loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualTimer {
    /// CNTV_CTL_EL0.
    pub ctl: u64,
    /// CNTV_CVAL_EL0.
    pub cval: u64,
}

/// All of it.
pub struct Machine {
    /// General registers, PC and PSTATE.
    pub context: Context,
    /// EL1 system registers, while not loaded.
    pub el1: El1Registers,
    fp: FpRegisters,
    fp_enabled: bool,
    /// The virtual timer, while not loaded.
    pub vtimer: VirtualTimer,
    /// The physical timer, always.
    pub ptimer: PhysicalTimer,
    /// CNTVOFF_EL2.
    pub counter_offset: u64,
    /// VMPIDR_EL2.
    pub vmpidr: u64,
    /// VPIDR_EL2.
    pub vpidr: u64,
    /// HCR_EL2.VSE, while not loaded: a virtual SError that it has not taken yet.
    virtual_serror: u64,
    /// The GIC CPU interface's virtual half and list registers, while not loaded.
    pub gic: super::irq::VirtualInterface,
}

/// [`Machine`], reached under the rules of the module.
pub struct VcpuState {
    machine: UnsafeCell<Machine>,
}

// SAFETY: `machine` is reached through `machine()` alone, whose contract says by whom.
unsafe impl Sync for VcpuState {}
// SAFETY: as above; nothing in it belongs to one CPU.
unsafe impl Send for VcpuState {}

impl VcpuState {
    /// Registers as after reset, with the given affinity (VMPIDR_EL2 value) and CNTVOFF_EL2.
    pub fn new(vmpidr: u64, counter_offset: u64) -> Self {
        Self {
            machine: UnsafeCell::new(Machine {
                context: Context::new(),
                el1: El1Registers { sctlr: SCTLR_EL1_RESET, ..El1Registers::default() },
                fp: FpRegisters::new(),
                fp_enabled: false,
                vtimer: VirtualTimer::default(),
                ptimer: PhysicalTimer::default(),
                counter_offset,
                vmpidr,
                vpidr: read_sysreg!("midr_el1"),
                virtual_serror: 0,
                gic: super::irq::VirtualInterface::new(),
            }),
        }
    }

    /// The registers.
    ///
    /// # Safety
    /// The caller is the CPU on which the vCPU is loaded, or keeps it from being loaded; and no other reference
    /// from this function is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn machine(&self) -> &mut Machine {
        // SAFETY: by the contract nobody else holds a reference.
        unsafe { &mut *self.machine.get() }
    }

    /// The registers, for [`super::vectors::enter_guest`].
    pub fn context(&self) -> *mut Context {
        // SAFETY: no reference is made; the field lies within the cell.
        unsafe { &raw mut (*self.machine.get()).context }
    }

    /// Sets where a vCPU starts and with what in X0, everything else as after reset (PSCI CPU_ON).
    ///
    /// # Safety
    /// As for [`machine`](Self::machine).
    pub unsafe fn start_at(&self, entry: u64, x0: u64) {
        // SAFETY: the caller's promise.
        let machine = unsafe { self.machine() };
        machine.context = Context::new();
        machine.context.elr = entry;
        machine.context.spsr = SPSR_START;
        machine.context.x[0] = x0;
        machine.el1 = El1Registers { sctlr: SCTLR_EL1_RESET, ..El1Registers::default() };
        machine.vtimer = VirtualTimer::default();
        machine.ptimer = PhysicalTimer::default();
        machine.virtual_serror = 0;
    }

    /// The emulated physical timer. The pointer is to a field that the registers in [`context`](Self::context), which are
    /// borrowed while a trap is handled, do not overlap.
    pub fn physical_timer(&self) -> *mut PhysicalTimer {
        // SAFETY: no reference is made; the field lies within the cell.
        unsafe { &raw mut (*self.machine.get()).ptimer }
    }

    /// Gives the guest FP and SIMD, on its first use since it was loaded.
    ///
    /// # Safety
    /// The caller is the CPU on which the vCPU is loaded; of its registers, only the [`Context`] is borrowed.
    pub unsafe fn enable_fp(&self) {
        // SAFETY: stops trapping FP; takes effect for the loads after the isb.
        unsafe { write_sysreg!("cptr_el2", CPTR_BASE) };
        isb();
        // SAFETY: the caller's promise; these two fields do not overlap the `Context`.
        let (fp, fp_enabled) = unsafe {
            let machine = self.machine.get();
            (&(*machine).fp, &mut (*machine).fp_enabled)
        };
        fp.load();
        *fp_enabled = true;
    }
}

impl Machine {
    /// When the virtual timer of this unloaded vCPU fires, by the system counter; `None` if it will not.
    pub fn virtual_deadline(&self) -> Option<Ticks> {
        const ENABLE: u64 = 1;
        const IMASK: u64 = 2;
        (self.vtimer.ctl & (ENABLE | IMASK) == ENABLE)
            .then(|| Ticks::new(self.vtimer.cval.saturating_add(self.counter_offset)))
    }

    /// Puts the vCPU into this CPU's registers. Interrupt state: [`super::irq`]; stage 2: [`super::tlb`].
    ///
    /// # Safety
    /// No other vCPU is loaded here, and VTTBR_EL2 has an empty root (see [`super::tlb`]).
    pub unsafe fn load(&mut self) {
        // SAFETY: EL2 registers that act on EL1 and EL0 only, which run next from `enter_guest`; everything is
        // synchronised by the isb below, or by the exception return.
        unsafe {
            write_sysreg!("hcr_el2", hcr::GUEST | self.virtual_serror);
            write_sysreg!("vmpidr_el2", self.vmpidr);
            write_sysreg!("vpidr_el2", self.vpidr);
            write_sysreg!("cntvoff_el2", self.counter_offset);
            write_sysreg!("cptr_el2", CPTR_BASE | CPTR_TFP);
            self.el1.load();
            write_sysreg!("cntv_cval_el0", self.vtimer.cval);
            write_sysreg!("cntv_ctl_el0", self.vtimer.ctl);
        }
        if has_ras() {
            // SAFETY: what an ESB of the guest before left in VDISR_EL2 is not this one's to read (as DISR_EL1).
            unsafe { write_sysreg!("s3_4_c12_c1_1", 0) };
        }
        self.fp_enabled = false;
        isb();
    }

    /// The registers that the toolstack's context has.
    pub fn read_context(&self) -> VcpuGuestContext {
        let el1 = &self.el1;
        VcpuGuestContext {
            user_regs: VcpuGuestCoreRegs {
                x: self.context.x,
                pc64: self.context.elr,
                cpsr: self.context.spsr,
                spsr_el1: el1.spsr,
                sp_el0: el1.sp_el0,
                sp_el1: el1.sp,
                elr_el1: el1.elr,
                ..VcpuGuestCoreRegs::default()
            },
            sctlr: el1.sctlr,
            ttbcr: el1.tcr,
            ttbr0: el1.ttbr0,
            ttbr1: el1.ttbr1,
            ..VcpuGuestContext::default()
        }
    }

    /// Sets those. `cpsr` names EL1 or EL0 in AArch64 state: it becomes SPSR_EL2.
    pub fn write_context(&mut self, context: &VcpuGuestContext) {
        let (user, el1) = (&context.user_regs, &mut self.el1);
        self.context.x = user.x;
        (self.context.elr, self.context.spsr) = (user.pc64, user.cpsr);
        (el1.spsr, el1.sp_el0, el1.sp, el1.elr) = (user.spsr_el1, user.sp_el0, user.sp_el1, user.elr_el1);
        (el1.sctlr, el1.tcr, el1.ttbr0, el1.ttbr1) =
            (context.sctlr, context.ttbcr, context.ttbr0, context.ttbr1);
    }

    /// A virtual SError for this vCPU, which is not loaded: it takes it when it runs and has them unmasked.
    pub fn pend_serror(&mut self) {
        self.virtual_serror = hcr::VSE;
    }

    /// Takes the vCPU out of this CPU's registers.
    pub fn unload(&mut self) {
        self.el1.save();
        // Cleared by hardware when the guest took it (DDI 0487 D1.3.6).
        self.virtual_serror = read_sysreg!("hcr_el2") & hcr::VSE;
        self.vtimer.cval = read_sysreg!("cntv_cval_el0");
        self.vtimer.ctl = read_sysreg!("cntv_ctl_el0");
        // SAFETY: stops the virtual timer, so that it does not fire for somebody else.
        unsafe { write_sysreg!("cntv_ctl_el0", 0) };
        if self.fp_enabled {
            self.fp.save();
            self.fp_enabled = false;
        }
        isb();
    }
}

/// A field of an identification register (DDI 0487 D19.2).
fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}

/// FEAT_RAS: ID_AA64PFR0_EL1.RAS.
#[inline]
fn has_ras() -> bool {
    field(read_sysreg!("id_aa64pfr0_el1"), 28) != 0
}

/// Registers of this CPU that are the same for every guest. Once per CPU. All that a guest could notice is written here or
/// when a vCPU is loaded: EL2's registers are UNKNOWN after a reset, or what the firmware left.
///
/// # Safety
/// The CPU runs no guest yet.
pub unsafe fn init_cpu(vtcr: u64) {
    super::tlb::init_cpu();
    // SAFETY: EL2 configuration registers; they act on guests only.
    unsafe {
        write_sysreg!("hcr_el2", hcr::GUEST);
        write_sysreg!("vtcr_el2", vtcr);
        write_sysreg!("hstr_el2", 0);
        // EL1 may read the physical counter; the physical timer traps (EL1PCTEN, not EL1PCEN).
        write_sysreg!("cnthctl_el2", 1);
        // TPMCR, TPM: EL2 keeps the PMU, all counters (HPMN). TDA, TDOSA, TDRA: debug, OS lock, debug ROM. TPMS, TTRF:
        // statistical profiling, trace filter (RES0 where they do not exist). E2PB, E2TB = 0: buffers are EL2's.
        write_sysreg!(
            "mdcr_el2",
            read_sysreg!("mdcr_el2") & 0x1f
                | 1 << 5
                | 1 << 6
                | 1 << 9
                | 1 << 10
                | 1 << 11
                | 1 << 14
                | 1 << 19
        );
        // No monitor mode, no software step: guests cannot write it (TDA), so this is what they run with.
        write_sysreg!("mdscr_el1", 0);
        write_sysreg!("cptr_el2", CPTR_BASE | CPTR_TFP);
        write_sysreg!("cntp_ctl_el0", 0);
        write_sysreg!("cntv_ctl_el0", 0);
    }
    super::spectre::init_cpu();
    let (mmfr0, mmfr1) = (read_sysreg!("id_aa64mmfr0_el1"), read_sysreg!("id_aa64mmfr1_el1"));
    // SAFETY: registers that exist by the ID registers, and that Linux's Documentation/arch/arm64/booting.rst makes the
    // firmware leave to EL2; they act on guests only. At 0, fine-grained traps (FEAT_FGT) trap what is new since they came,
    // HCRX_EL2 keeps off what needs its consent, LORegions do not exist, and a virtual SError has no syndrome.
    unsafe {
        if field(mmfr0, 56) != 0 {
            write_sysreg!("s3_4_c1_c1_4", 0); // HFGRTR_EL2
            write_sysreg!("s3_4_c1_c1_5", 0); // HFGWTR_EL2
            write_sysreg!("s3_4_c1_c1_6", 0); // HFGITR_EL2
            write_sysreg!("s3_4_c3_c1_4", 0); // HDFGRTR_EL2
            write_sysreg!("s3_4_c3_c1_5", 0); // HDFGWTR_EL2
        }
        if field(mmfr1, 40) != 0 {
            write_sysreg!("s3_4_c1_c2_2", 0); // HCRX_EL2
        }
        if field(mmfr1, 16) != 0 {
            write_sysreg!("s3_0_c10_c4_3", 0); // LORC_EL1
        }
        if has_ras() {
            write_sysreg!("s3_4_c5_c2_3", 0); // VSESR_EL2
        }
    }
    isb();
    // SAFETY: no vCPU is loaded.
    if unsafe { super::serror::take() } {
        log::warn!("an SError was pending from before boot");
    }
}

/// Translates through the instruction `$at`; what PAR_EL1 then says.
macro_rules! address_translation {
    ($at:literal, $va:expr) => {{
        // The guest may be in the middle of using PAR_EL1 itself; its value is put back.
        let guest_par = read_sysreg!("par_el1");
        let par: u64;
        // SAFETY: an address translation changes PAR_EL1 only.
        unsafe {
            asm!(concat!("at ", $at, ", {}"), "isb", "mrs {}, par_el1", in(reg) $va, out(reg) par, options(nostack));
        }
        // SAFETY: restores what the guest had.
        unsafe { write_sysreg!("par_el1", guest_par) };
        par
    }};
}

/// The address in PAR_EL1, unless it says that the translation failed.
#[inline]
fn output(par: u64, va: u64) -> Option<u64> {
    (par & 1 == 0).then_some(par & 0x000f_ffff_ffff_f000 | va & 0xfff)
}

/// Translates a virtual address of the loaded guest (AT S12E1R or S12E1W, DDI 0487 C5.4).
#[inline]
pub fn translate(va: u64, access: Access) -> Result<Pa, TranslationFault> {
    let par = match access {
        Access::Read => address_translation!("s12e1r", va),
        Access::Write => address_translation!("s12e1w", va),
    };
    output(par, va).map(Pa::new).ok_or(TranslationFault)
}

/// Translates through stage 1 alone (AT S1E1R or S1E1W).
pub fn stage1(va: u64, access: Access) -> Option<Ipa> {
    let par = match access {
        Access::Read => address_translation!("s1e1r", va),
        Access::Write => address_translation!("s1e1w", va),
    };
    output(par, va).map(Ipa::new)
}

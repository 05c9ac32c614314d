//! The state of one virtual interrupt.
#![forbid(unsafe_code)]

/// No vCPU, or no list register.
pub(super) const NOWHERE: u8 = 0xff;

/// The bits of [`Irq::flags`].
pub(super) mod flag {
    /// GICD_ISENABLER. Set and cleared by the guest.
    pub const ENABLED: u16 = 1 << 0;
    /// Latched pending. Set by a pulse, an SGI or ISPENDR; cleared when it goes into a list register, or by ICPENDR.
    pub const PENDING: u16 = 1 << 1;
    /// The line is high. Follows the line; counts when not [`EDGE`].
    pub const LINE: u16 = 1 << 2;
    /// Acknowledged, not deactivated. As old as the last fold while in a list register.
    pub const ACTIVE: u16 = 1 << 3;
    /// GICD_ICFGR: edge-triggered. Set and cleared by the guest; always set for an SGI.
    pub const EDGE: u16 = 1 << 4;
    /// A physical interrupt backs it. Set and cleared by `attach_hw`.
    pub const HW: u16 = 1 << 5;
    /// That physical interrupt is active and waits for a deactivation. Set when injected; cleared on completion.
    pub const HW_IN_FLIGHT: u16 = 1 << 6;
    /// The pending state in the list register came from the latch, not the line. Set by `place`.
    pub const LR_LATCH: u16 = 1 << 7;
    /// What is in the list register is the physical interrupt's instance. Set by `place`.
    pub const LR_HW: u16 = 1 << 8;
    /// Its list register has no HW bit (it asks for an EOI maintenance interrupt instead): software deactivates.
    pub const LR_SOFT: u16 = 1 << 9;
    /// Another vCPU wrote ICACTIVER: drop the active state at the owner's next fold.
    pub const DROP_ACTIVE: u16 = 1 << 10;
    /// All that describes the contents of a list register.
    pub const IN_LR: u16 = LR_LATCH | LR_HW | LR_SOFT | DROP_ACTIVE;
}

/// One virtual interrupt. Private ones exist once per vCPU.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct Irq {
    /// See [`flag`].
    pub flags: u16,
    /// The physical INTID behind it, with [`flag::HW`].
    pub pintid: u16,
    /// GICD_IPRIORITYR; five bits are implemented.
    pub priority: u8,
    /// The vCPU it is routed to, or [`NOWHERE`].
    pub target: u8,
    /// The vCPU in whose list register it is, or that acknowledged it.
    pub owner: u8,
    /// Which list register, or [`NOWHERE`].
    pub lr: u8,
    /// GICv2 SGI: the vCPUs that sent it and wait. [`flag::PENDING`] is set while there is one.
    pub sources: u8,
    /// GICv2 SGI: the sender of the one in the list register, or active.
    pub lr_source: u8,
}

impl Irq {
    /// An SGI or a PPI of `vcpu` at reset.
    pub const fn private(vcpu: u8, sgi: bool) -> Self {
        Self { flags: if sgi { flag::EDGE } else { 0 }, target: vcpu, owner: vcpu, ..Self::shared() }
    }

    /// An SPI at reset, not routed.
    pub const fn shared() -> Self {
        Self {
            flags: 0,
            pintid: 0,
            priority: 0,
            target: NOWHERE,
            owner: NOWHERE,
            lr: NOWHERE,
            sources: 0,
            lr_source: 0,
        }
    }

    /// Any of these flags?
    #[inline]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    #[inline]
    pub const fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    #[inline]
    pub const fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }

    #[inline]
    pub const fn in_lr(&self) -> bool {
        self.lr != NOWHERE
    }

    /// Level-sensitive with its line high?
    #[inline]
    pub const fn line_pending(&self) -> bool {
        self.flags & (flag::LINE | flag::EDGE) == flag::LINE
    }

    /// Pending outside a list register?
    #[inline]
    pub const fn is_pending(&self) -> bool {
        self.has(flag::PENDING) || self.line_pending()
    }

    /// Could be pending in a list register now, as far as the interrupt itself goes?
    #[inline]
    pub const fn is_deliverable(&self) -> bool {
        self.is_pending() && self.flags & (flag::ENABLED | flag::ACTIVE) == flag::ENABLED
    }

    /// Has no list register and needs one: to be delivered, or because only there the guest can deactivate it.
    #[inline]
    pub const fn wants_lr(&self) -> bool {
        !self.in_lr() && (self.has(flag::ACTIVE) || self.is_deliverable())
    }

    /// The vCPU whose business it is now.
    #[inline]
    pub const fn home(&self) -> u8 {
        if self.has(flag::ACTIVE) { self.owner } else { self.target }
    }
}

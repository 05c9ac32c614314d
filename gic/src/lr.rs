//! List registers: one virtual interrupt as the hardware's virtual CPU interface holds it.
#![forbid(unsafe_code)]

use crate::IntId;

/// Where a virtual interrupt is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LrState {
    /// The list register is free.
    Inactive,
    /// Waits for the guest's acknowledge.
    Pending,
    /// Acknowledged, not deactivated.
    Active,
    /// Acknowledged, and pending once more.
    PendingActive,
}

impl LrState {
    const fn bits(self) -> u32 {
        match self {
            Self::Inactive => 0,
            Self::Pending => 1,
            Self::Active => 2,
            Self::PendingActive => 3,
        }
    }

    const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Inactive,
            1 => Self::Pending,
            2 => Self::Active,
            _ => Self::PendingActive,
        }
    }

    /// Pending, active or not?
    #[inline]
    pub const fn is_pending(self) -> bool {
        self.bits() & 1 != 0
    }

    /// Active, pending or not?
    #[inline]
    pub const fn is_active(self) -> bool {
        self.bits() & 2 != 0
    }
}

/// The contents of a list register. A GICv2 guest's interrupts are in group 0, a GICv3 guest's in group 1: what an
/// operating system enables that sees the Non-secure side of a GIC (`docs/support.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lr {
    /// The number the guest sees (10 bits).
    pub vintid: u32,
    /// Its priority; the top five bits count.
    pub priority: u8,
    /// Where it is.
    pub state: LrState,
    /// The physical interrupt that the guest's deactivation deactivates too.
    pub hw: Option<IntId>,
    /// Raise a maintenance interrupt at the guest's deactivation. Not with `hw`: the bit is the same.
    pub eoi: bool,
    /// GICv2: the vCPU that sent the SGI (0–7).
    pub source: u8,
}

impl Lr {
    /// A free list register.
    pub const EMPTY: Self =
        Self { vintid: 0, priority: 0, state: LrState::Inactive, hw: None, eoi: false, source: 0 };

    /// GICH_LR (IHI 0048B, 5.3.11): HW 31, Grp1 30, State 29:28, Priority 27:23, PhysicalID 19:10 (without HW: EOI
    /// 19, CPUID 12:10), VirtualID 9:0. Group 0.
    #[inline(always)]
    pub const fn to_v2(self) -> u32 {
        let common = self.vintid & 0x3ff | (self.priority as u32 >> 3) << 23 | self.state.bits() << 28;
        match self.hw {
            Some(pintid) => common | 1 << 31 | (pintid.get() & 0x3ff) << 10,
            None => common | (self.eoi as u32) << 19 | (self.source as u32 & 7) << 10,
        }
    }

    /// The inverse of [`Lr::to_v2`]. The group bit is not kept.
    #[inline(always)]
    pub const fn from_v2(raw: u32) -> Self {
        let hw = if raw >> 31 != 0 { IntId::new(raw >> 10 & 0x3ff) } else { None };
        let software = raw >> 31 == 0;
        Self {
            vintid: raw & 0x3ff,
            priority: (raw >> 23 & 0x1f) as u8 * 8,
            state: LrState::from_bits(raw >> 28),
            hw,
            eoi: software && raw >> 19 & 1 != 0,
            source: if software { (raw >> 10 & 7) as u8 } else { 0 },
        }
    }

    /// ICH_LR_EL2 (IHI 0069H, 12.4.4): State 63:62, HW 61, Group 60, Priority 55:48, pINTID 44:32 (without HW: EOI
    /// 41), vINTID 31:0. Group 1.
    #[inline(always)]
    pub const fn to_v3(self) -> u64 {
        let common = self.vintid as u64
            | (self.priority as u64 & 0xf8) << 48
            | (self.state.bits() as u64) << 62
            | if matches!(self.state, LrState::Inactive) { 0 } else { 1 << 60 };
        match self.hw {
            Some(pintid) => common | 1 << 61 | (pintid.get() as u64) << 32,
            None => common | (self.eoi as u64) << 41,
        }
    }

    /// The inverse of [`Lr::to_v3`]. The group bit is not kept.
    #[inline(always)]
    pub const fn from_v3(raw: u64) -> Self {
        let hw = if raw >> 61 & 1 != 0 { IntId::new((raw >> 32) as u32 & 0x1fff) } else { None };
        Self {
            vintid: raw as u32,
            priority: (raw >> 48) as u8 & 0xf8,
            state: LrState::from_bits((raw >> 62) as u32),
            hw,
            eoi: raw >> 61 & 1 == 0 && raw >> 41 & 1 != 0,
            source: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lr, LrState};
    use crate::IntId;
    use proptest::prelude::*;

    #[test]
    fn v2_bits_are_those_of_the_specification() {
        let lr = Lr { vintid: 27, priority: 0, state: LrState::Pending, hw: None, eoi: false, source: 0 };
        assert_eq!(lr.to_v2(), 0x1000_001b);
        assert_eq!(Lr { priority: 0xa0, ..lr }.to_v2(), 0x1a00_001b, "0xa0 >> 3 = 0x14 in 27:23");
        assert_eq!(Lr { state: LrState::Active, ..lr }.to_v2(), 0x2000_001b);
        assert_eq!(Lr { state: LrState::PendingActive, ..lr }.to_v2(), 0x3000_001b);
        assert_eq!(Lr { hw: IntId::new(1019), ..lr }.to_v2(), 0x9000_001b | 1019 << 10);
        assert_eq!(Lr { eoi: true, source: 5, vintid: 3, ..lr }.to_v2(), 0x1008_1403);
        assert_eq!(Lr::EMPTY.to_v2(), 0);
    }

    #[test]
    fn v3_bits_are_those_of_the_specification() {
        let lr = Lr { vintid: 27, priority: 0, state: LrState::Pending, hw: None, eoi: false, source: 0 };
        assert_eq!(lr.to_v3(), 0x5000_0000_0000_001b, "group 1");
        assert_eq!(Lr { priority: 0xa7, ..lr }.to_v3(), 0x50a0_0000_0000_001b);
        assert_eq!(Lr { state: LrState::Active, ..lr }.to_v3(), 0x9000_0000_0000_001b);
        assert_eq!(Lr { state: LrState::PendingActive, ..lr }.to_v3(), 0xd000_0000_0000_001b);
        assert_eq!(Lr { hw: IntId::new(1019), ..lr }.to_v3(), 0x7000_0000_0000_001b | 1019 << 32);
        assert_eq!(Lr { eoi: true, ..lr }.to_v3(), 0x5000_0200_0000_001b);
        assert_eq!(Lr::EMPTY.to_v3(), 0);
    }

    prop_compose! {
        fn any_lr()(vintid in 0..1020u32, priority in 0..32u8, state in 1..4u32, hw in proptest::option::of(16..1020u32),
                    eoi: bool, source in 0..8u8) -> Lr {
            let hw = hw.and_then(IntId::new);
            let source = if hw.is_some() { 0 } else { source };
            Lr { vintid, priority: priority * 8, state: LrState::from_bits(state), hw, eoi: eoi && hw.is_none(), source }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(lr in any_lr()) {
            prop_assert_eq!(Lr::from_v2(lr.to_v2()), lr);
            prop_assert_eq!(Lr::from_v3(lr.to_v3()), Lr { source: 0, ..lr });
        }

        #[test]
        fn any_bits_can_be_read(raw: u64) {
            let (v2, v3) = (Lr::from_v2(raw as u32), Lr::from_v3(raw));
            prop_assert_eq!(Lr::from_v2(v2.to_v2()), v2);
            prop_assert_eq!(v3.state.is_pending(), raw >> 62 & 1 != 0);
            prop_assert_eq!(v3.state.is_active(), raw >> 63 & 1 != 0);
        }
    }
}

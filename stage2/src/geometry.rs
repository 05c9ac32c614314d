//! How a domain's IPA size shapes its tables: initial level, concatenation, and the registers that say so.

use crate::addr::{Gfn, Pa, Vmid};

/// The shape of a stage-2 table: IPA bits, initial lookup level, concatenated root tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    ipa_bits: u8,
    root_level: u8,
    root_pages_log2: u8,
}

/// How wide VMIDs are (`ID_AA64MMFR1_EL1.VMIDBits`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmidBits {
    /// 8 bits.
    Eight,
    /// 16 bits (FEAT_VMID16).
    Sixteen,
}

impl VmidBits {
    /// From the field `VMIDBits`, bits 7 to 4 of `ID_AA64MMFR1_EL1`: 0b0010 means 16; all else is treated as 8.
    #[inline]
    pub const fn from_id_aa64mmfr1(value: u64) -> Self {
        match (value >> 4) & 0xf {
            0b0010 => Self::Sixteen,
            _ => Self::Eight,
        }
    }
}

/// Bits of address resolved at and below `level`: the shift of the level's index.
#[inline]
pub(crate) const fn level_shift(level: u8) -> u32 {
    39 - 9 * level as u32
}

impl Geometry {
    /// Tables for `ipa_bits` (32 to 48): level 1 with up to 16 concatenated tables as long as that reaches, because
    /// a level less makes walks shorter, else level 0 (DDI 0487 D8.2.8). `None` outside.
    #[inline]
    pub const fn new(ipa_bits: u32) -> Option<Self> {
        match ipa_bits {
            32..=39 => Some(Self { ipa_bits: ipa_bits as u8, root_level: 1, root_pages_log2: 0 }),
            40..=43 => {
                Some(Self { ipa_bits: ipa_bits as u8, root_level: 1, root_pages_log2: (ipa_bits - 39) as u8 })
            }
            44..=48 => Some(Self { ipa_bits: ipa_bits as u8, root_level: 0, root_pages_log2: 0 }),
            _ => None,
        }
    }

    /// The largest IPA space of a CPU: from `PARange`, bits 3 to 0 of `ID_AA64MMFR0_EL1`. 48 bits where the CPU has
    /// 52, which the 4 KiB granule reaches only with FEAT_LPA2; an unknown value is treated as 48 too, since the
    /// architecture only ever adds larger ones.
    #[inline]
    pub const fn from_id_aa64mmfr0(value: u64) -> Self {
        let (bits, level, log2) = match value & 0xf {
            0b0000 => (32, 1, 0),
            0b0001 => (36, 1, 0),
            0b0010 => (40, 1, 1),
            0b0011 => (42, 1, 3),
            0b0100 => (44, 0, 0),
            _ => (48, 0, 0),
        };
        Self { ipa_bits: bits, root_level: level, root_pages_log2: log2 }
    }

    /// Bits of an intermediate physical address.
    #[inline]
    pub const fn ipa_bits(self) -> u32 {
        self.ipa_bits as u32
    }

    /// The initial lookup level, 0 or 1.
    #[inline]
    pub const fn root_level(self) -> u8 {
        self.root_level
    }

    /// Log2 of the concatenated tables at the initial level, each one page.
    #[inline]
    pub const fn root_pages_log2(self) -> u8 {
        self.root_pages_log2
    }

    /// The first guest frame number beyond the IPA space.
    #[inline]
    pub const fn gfn_limit(self) -> Gfn {
        Gfn::new(1 << (self.ipa_bits - 12))
    }

    /// Entries of the root that the IPA space uses.
    #[inline]
    pub(crate) const fn root_entries(self) -> usize {
        1 << (self.ipa_bits as u32 - level_shift(self.root_level))
    }

    /// `VTCR_EL2` for these tables: T0SZ, SL0, write-back inner-shareable walks, 4 KiB granule, PS 48 bits or what
    /// `id_aa64mmfr0` says if less, VS by VMIDBits and HA by HAFDBS of `id_aa64mmfr1`; bit 31 is RES1 (DDI 0487, VTCR_EL2).
    /// A CPU without FEAT_HAFDBS ignores HA, where big.LITTLE mixes them: it faults, and software sets the flag.
    #[inline]
    pub const fn vtcr(self, id_aa64mmfr0: u64, id_aa64mmfr1: u64) -> u64 {
        const IRGN0_WRITE_BACK: u64 = 0b01 << 8;
        const ORGN0_WRITE_BACK: u64 = 0b01 << 10;
        const SH0_INNER: u64 = 0b11 << 12;
        const TG0_4K: u64 = 0b00 << 14;
        const RES1: u64 = 1 << 31;
        let t0sz = 64 - self.ipa_bits as u64;
        let sl0 = match self.root_level {
            0 => 0b10 << 6,
            _ => 0b01 << 6,
        };
        let pa_range = id_aa64mmfr0 & 0xf;
        let ps = if pa_range < 0b0101 { pa_range } else { 0b0101 } << 16;
        let ha = if id_aa64mmfr1 & 0xf != 0 { 1 << 21 } else { 0 };
        let vs = match VmidBits::from_id_aa64mmfr1(id_aa64mmfr1) {
            VmidBits::Eight => 0,
            VmidBits::Sixteen => 1 << 19,
        };
        t0sz | sl0 | IRGN0_WRITE_BACK | ORGN0_WRITE_BACK | SH0_INNER | TG0_4K | ps | vs | ha | RES1
    }
}

/// `VTTBR_EL2` for a root table and a VMID. CnP stays 0: CPUs do not share entries.
#[inline]
pub const fn vttbr(root: Pa, vmid: Vmid) -> u64 {
    root.raw() | (vmid.raw() as u64) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pa_range_has_its_shape() {
        let expected = [(32, 1, 0), (36, 1, 0), (40, 1, 1), (42, 1, 3), (44, 0, 0), (48, 0, 0), (48, 0, 0)];
        for (range, (bits, level, log2)) in expected.into_iter().enumerate() {
            let geometry = Geometry::from_id_aa64mmfr0(range as u64 | 0xabc0);
            assert_eq!(
                (geometry.ipa_bits(), geometry.root_level(), geometry.root_pages_log2()),
                (bits, level, log2)
            );
            assert_eq!(Geometry::new(bits), Some(geometry));
            // The root covers the IPA space and no more than 16 tables are concatenated.
            assert_eq!((geometry.root_entries() as u64) << level_shift(level), 1 << bits);
            assert!(geometry.root_entries() <= 512 << log2 && log2 <= 4);
        }
        assert_eq!(Geometry::new(31), None);
        assert_eq!(Geometry::new(49), None);
        assert_eq!(Geometry::new(43).map(|g| g.root_pages_log2()), Some(4));
    }

    #[test]
    fn vtcr_of_a_cortex_a72_with_44_bits() {
        let geometry = Geometry::from_id_aa64mmfr0(0b0100);
        // T0SZ 20, SL0 2, IRGN0 1, ORGN0 1, SH0 3, TG0 0, PS 4, VS 0.
        assert_eq!(geometry.vtcr(0b0100, 0), 0x8004_3594);
        let geometry = Geometry::from_id_aa64mmfr0(0b0010);
        // T0SZ 24, SL0 1, PS 2, VS 1; and HA.
        assert_eq!(geometry.vtcr(0b0010, 0b0010_0000), 0x800a_3558);
        assert_eq!(geometry.vtcr(0b0010, 0b0010_0010), 0x802a_3558);
        // A CPU with 52 bits is used with 48.
        assert_eq!(Geometry::from_id_aa64mmfr0(0b0110).vtcr(0b0110, 0) >> 16 & 7, 5);
    }

    #[test]
    fn vttbr_joins_root_and_vmid() {
        assert_eq!(vttbr(Pa::new(0x4000_2000), Vmid::new(0xa5)), 0x00a5_0000_4000_2000);
    }
}

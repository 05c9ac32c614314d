//! Interrupt numbers.
#![forbid(unsafe_code)]

/// A GIC interrupt number (INTID): 0–15 SGI, 16–31 PPI, 32–1019 SPI (IHI 0069H, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntId(u32);

impl IntId {
    /// One more than the largest SPI.
    pub const LIMIT: u32 = 1020;

    /// SGI `number` (0–15).
    #[inline]
    pub const fn sgi(number: u32) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// PPI `number` (0–15, as device trees count them: INTID 16–31).
    #[inline]
    pub const fn ppi(number: u32) -> Option<Self> {
        if number < 16 { Some(Self(number + 16)) } else { None }
    }

    /// SPI `number` (0–987, as device trees count them: INTID 32–1019).
    #[inline]
    pub const fn spi(number: u32) -> Option<Self> {
        if number < Self::LIMIT - 32 { Some(Self(number + 32)) } else { None }
    }

    /// The interrupt with this INTID; `None` for the special numbers 1020–1023 and everything above.
    #[inline]
    pub const fn new(intid: u32) -> Option<Self> {
        if intid < Self::LIMIT { Some(Self(intid)) } else { None }
    }

    /// The INTID.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Software-generated?
    #[inline]
    pub const fn is_sgi(self) -> bool {
        self.0 < 16
    }

    /// Private peripheral interrupt?
    #[inline]
    pub const fn is_ppi(self) -> bool {
        self.0 >= 16 && self.0 < 32
    }

    /// One instance per CPU (SGI or PPI)?
    #[inline]
    pub const fn is_private(self) -> bool {
        self.0 < 32
    }

    /// Shared peripheral interrupt?
    #[inline]
    pub const fn is_spi(self) -> bool {
        self.0 >= 32
    }
}

impl core::fmt::Display for IntId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            n @ 0..=15 => write!(f, "SGI {n}"),
            n @ 16..=31 => write!(f, "PPI {}", n - 16),
            n => write!(f, "SPI {}", n - 32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IntId;

    #[test]
    fn constructors_check_their_range() {
        assert_eq!(IntId::sgi(15).map(IntId::get), Some(15));
        assert_eq!(IntId::sgi(16), None);
        assert_eq!(IntId::ppi(11).map(IntId::get), Some(27));
        assert_eq!(IntId::ppi(16), None);
        assert_eq!(IntId::spi(0).map(IntId::get), Some(32));
        assert_eq!(IntId::spi(987).map(IntId::get), Some(1019));
        assert_eq!(IntId::spi(988), None);
        assert_eq!(IntId::spi(u32::MAX), None);
        assert_eq!(IntId::new(1020), None);
    }

    #[test]
    fn classes_partition_the_numbers() {
        for id in (0..IntId::LIMIT).filter_map(IntId::new) {
            assert_eq!(u32::from(id.is_sgi()) + u32::from(id.is_ppi()) + u32::from(id.is_spi()), 1, "{id}");
            assert_eq!(id.is_private(), !id.is_spi());
        }
    }
}

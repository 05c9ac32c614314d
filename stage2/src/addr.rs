//! Addresses, frame numbers and sizes as types, so that a guest's address never passes for a machine's.
//!
//! All hold a `u64` behind a private field and cost nothing at run time. A byte address ([`Pa`], [`Ipa`]) turns into
//! its frame number ([`Mfn`], [`Gfn`]) and back; a machine type never turns into a guest type except through a
//! stage-2 table.

use core::fmt;

/// Log2 of the translation granule: 4 KiB.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// The bits of an address that are the offset within its page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $(#[$frame_doc:meta])* $frame:ident, $to_frame:ident, $to_address:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Address zero.
            pub const ZERO: Self = Self(0);

            /// The address of byte `raw`.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The address as a number of bytes.
            #[inline]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The offset within the page: bits 11 to 0.
            #[inline]
            pub const fn page_offset(self) -> u64 {
                self.0 & PAGE_MASK
            }

            /// Whether this is the first byte of a page.
            #[inline]
            pub const fn is_page_aligned(self) -> bool {
                self.page_offset() == 0
            }

            /// Whether this is a multiple of `size` bytes; `size` is a power of two.
            #[inline]
            pub const fn is_aligned(self, size: u64) -> bool {
                self.0 & size.wrapping_sub(1) == 0
            }

            /// The highest multiple of `size` (a power of two) that is not above this address.
            #[inline]
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !size.wrapping_sub(1))
            }

            /// The lowest multiple of `size` (a power of two) that is not below this address; `None` past the top.
            #[inline]
            pub const fn align_up(self, size: u64) -> Option<Self> {
                match self.0.checked_add(size.wrapping_sub(1)) {
                    Some(end) => Some(Self(end & !size.wrapping_sub(1))),
                    None => None,
                }
            }

            /// The address `bytes` higher; `None` on overflow.
            #[inline]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// The address `bytes` lower; `None` below zero.
            #[inline]
            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// The address `bytes` higher, modulo 2^64: for sums whose bounds were checked before.
            #[inline]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Bytes from `start` up to this address; `None` if `start` is higher.
            #[inline]
            pub const fn checked_offset_from(self, start: Self) -> Option<u64> {
                self.0.checked_sub(start.0)
            }

            /// The frame this byte lies in.
            #[inline]
            pub const fn $to_frame(self) -> $frame {
                $frame(self.0 >> PAGE_SHIFT)
            }
        }

        impl From<$frame> for $name {
            #[inline]
            fn from(frame: $frame) -> Self {
                frame.$to_address()
            }
        }

        impl From<$name> for $frame {
            #[inline]
            fn from(address: $name) -> Self {
                address.$to_frame()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        $(#[$frame_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $frame(u64);

        impl $frame {
            /// Frame number zero.
            pub const ZERO: Self = Self(0);

            /// Frame number `raw`.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The frame number.
            #[inline]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The address of the frame's first byte. A number of 2^52 or more has none and gives the topmost page
            /// of the 64-bit space, which no memory and no table reaches, so that a number a guest made up never
            /// aliases a real frame.
            #[inline]
            pub const fn $to_address(self) -> $name {
                if self.0 >> (64 - PAGE_SHIFT) == 0 { $name(self.0 << PAGE_SHIFT) } else { $name(!PAGE_MASK) }
            }

            /// The frame `pages` further; `None` on overflow.
            #[inline]
            pub const fn checked_add(self, pages: Pages) -> Option<Self> {
                match self.0.checked_add(pages.get()) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// The frame `pages` further, modulo 2^64: for sums whose bounds were checked before.
            #[inline]
            pub const fn wrapping_add(self, pages: Pages) -> Self {
                Self(self.0.wrapping_add(pages.get()))
            }

            /// Frames from `start` up to this one; `None` if `start` is higher.
            #[inline]
            pub const fn checked_offset_from(self, start: Self) -> Option<Pages> {
                match self.0.checked_sub(start.0) {
                    Some(pages) => Some(Pages::new(pages)),
                    None => None,
                }
            }

            /// Whether the number is a multiple of the frames in a block of `size`.
            #[inline]
            pub const fn is_aligned(self, size: BlockSize) -> bool {
                self.0 & (size.pages().get() - 1) == 0
            }
        }

        impl fmt::Display for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($frame), "({:#x})"), self.0)
            }
        }
    };
}

address!(
    /// A physical address of the machine.
    Pa,
    /// A machine frame number: a physical address divided by 4 KiB (Xen's `mfn`).
    Mfn,
    mfn,
    pa
);
address!(
    /// An intermediate physical address: what a guest takes for physical.
    Ipa,
    /// A guest frame number: an intermediate physical address divided by 4 KiB (Xen's `gfn`).
    Gfn,
    gfn,
    ipa
);

/// A count of 4 KiB pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Pages(u64);

impl Pages {
    /// No page.
    pub const ZERO: Self = Self(0);
    /// One page.
    pub const ONE: Self = Self(1);

    /// `count` pages.
    #[inline]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The count.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The whole pages that fit in `bytes`.
    #[inline]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes >> PAGE_SHIFT)
    }

    /// The pages needed to hold `bytes`.
    #[inline]
    pub const fn covering_bytes(bytes: u64) -> Self {
        Self((bytes >> PAGE_SHIFT) + (bytes & PAGE_MASK != 0) as u64)
    }

    /// `2^order` pages (the extent order of Xen's memory operations); `None` from order 64 up.
    #[inline]
    pub const fn from_order(order: u32) -> Option<Self> {
        match 1u64.checked_shl(order) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }

    /// The size in bytes; `None` when it does not fit in 64 bits.
    #[inline]
    pub const fn bytes(self) -> Option<u64> {
        if self.0 >> (64 - PAGE_SHIFT) == 0 { Some(self.0 << PAGE_SHIFT) } else { None }
    }

    /// The sum; `None` on overflow.
    #[inline]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }

    /// The difference; `None` below zero.
    #[inline]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }

    /// The sum, or the largest count.
    #[inline]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or none.
    #[inline]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Whole mebibytes in these pages.
    #[inline]
    pub const fn mib(self) -> Mib {
        Mib(self.0 >> (20 - PAGE_SHIFT))
    }

    /// Whole kibibytes in these pages, or the largest number.
    #[inline]
    pub const fn kib(self) -> u64 {
        self.0.saturating_mul(PAGE_SIZE / 1024)
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl core::iter::Sum for Pages {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::ZERO, Self::saturating_add)
    }
}

/// A size in mebibytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Mib(u64);

impl Mib {
    /// `count` MiB.
    #[inline]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The count.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The whole mebibytes that fit in `bytes`.
    #[inline]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes >> 20)
    }

    /// The size in bytes; `None` when it does not fit in 64 bits.
    #[inline]
    pub const fn bytes(self) -> Option<u64> {
        if self.0 >> 44 == 0 { Some(self.0 << 20) } else { None }
    }

    /// The size in pages, or the largest count.
    #[inline]
    pub const fn pages(self) -> Pages {
        Pages(self.0.saturating_mul(1 << (20 - PAGE_SHIFT)))
    }
}

impl From<Mib> for Pages {
    #[inline]
    fn from(size: Mib) -> Self {
        size.pages()
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// A virtual machine identifier: the tag of a domain's TLB entries (`VTTBR_EL2.VMID`), 8 or 16 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Vmid(u16);

impl Vmid {
    /// VMID `raw`.
    #[inline]
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The identifier.
    #[inline]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What one leaf entry can map: a page, or a block at level 2 or 1 (DDI 0487 D8.3, 4 KiB granule).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BlockSize {
    /// 4 KiB, at level 3.
    Page4K,
    /// 2 MiB, at level 2.
    Block2M,
    /// 1 GiB, at level 1.
    Block1G,
}

impl BlockSize {
    /// All sizes, the largest first.
    pub const DESCENDING: [Self; 3] = [Self::Block1G, Self::Block2M, Self::Page4K];

    /// Log2 of the bytes.
    #[inline]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Page4K => 12,
            Self::Block2M => 21,
            Self::Block1G => 30,
        }
    }

    /// Log2 of the pages: the extent order of Xen's memory operations.
    #[inline]
    pub const fn order(self) -> u32 {
        self.shift() - PAGE_SHIFT
    }

    /// The size in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The size in pages.
    #[inline]
    pub const fn pages(self) -> Pages {
        Pages(1 << self.order())
    }

    /// The next smaller size.
    #[inline]
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::Page4K => None,
            Self::Block2M => Some(Self::Page4K),
            Self::Block1G => Some(Self::Block2M),
        }
    }

    /// The size whose extent order is `order`: 0, 9 or 18.
    #[inline]
    pub const fn from_order(order: u32) -> Option<Self> {
        match order {
            0 => Some(Self::Page4K),
            9 => Some(Self::Block2M),
            18 => Some(Self::Block1G),
            _ => None,
        }
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page4K => "4 KiB",
            Self::Block2M => "2 MiB",
            Self::Block1G => "1 GiB",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_frame_convert_both_ways() {
        let pa = Pa::new(0x4_0000_1234);
        assert_eq!(pa.mfn(), Mfn::new(0x40_0001));
        assert_eq!(pa.mfn().pa(), Pa::new(0x4_0000_1000));
        assert_eq!(pa.page_offset(), 0x234);
        assert_eq!(pa.align_down(BlockSize::Block2M.bytes()), Pa::new(0x4_0000_0000));
        assert_eq!(pa.align_up(PAGE_SIZE), Some(Pa::new(0x4_0000_2000)));
        assert_eq!(Pa::new(u64::MAX).align_up(PAGE_SIZE), None);
        assert_eq!(Ipa::from(Gfn::new(3)), Ipa::new(0x3000));
    }

    #[test]
    fn a_frame_number_without_address_aliases_nothing() {
        for raw in [1 << 52, (1 << 52) | 5, u64::MAX] {
            assert_eq!(Gfn::new(raw).ipa(), Ipa::new(0xffff_ffff_ffff_f000));
        }
        assert_eq!(Gfn::new((1 << 52) - 1).ipa(), Ipa::new(0xffff_ffff_ffff_f000));
        assert_eq!(Gfn::new(u64::MAX).checked_add(Pages::ONE), None);
    }

    #[test]
    fn sizes_convert_without_wrapping() {
        assert_eq!(Pages::from_bytes(0x1fff), Pages::ONE);
        assert_eq!(Pages::covering_bytes(0x1001), Pages::new(2));
        assert_eq!(Pages::covering_bytes(u64::MAX), Pages::new(1 << 52));
        assert_eq!(Pages::new(1 << 52).bytes(), None);
        assert_eq!(Pages::from_order(64), None);
        assert_eq!(Pages::from_order(9), Some(BlockSize::Block2M.pages()));
        assert_eq!(Mib::new(3).pages(), Pages::new(768));
        assert_eq!(Mib::new(u64::MAX).pages(), Pages::new(u64::MAX));
        assert_eq!(Mib::new(1 << 44).bytes(), None);
        assert_eq!(Pages::new(513).mib(), Mib::new(2));
        for size in BlockSize::DESCENDING {
            assert_eq!(BlockSize::from_order(size.order()), Some(size));
        }
    }

    #[test]
    fn addresses_print_as_hexadecimal() {
        assert_eq!(
            format!("{} {:?} {}", Pa::new(0x4000), Ipa::new(0x1f), Gfn::new(16)),
            "0x4000 Ipa(0x1f) 0x10"
        );
    }
}

//! Stage-2 descriptors of the 4 KiB granule: how attributes and output addresses are encoded.
//!
//! ```text
//!  63    59 58    55 54 53 52 51 48 47                  12 11 10 9  8 7  6 5     2 1 0
//! +--------+--------+--+--+--+-----+----------------------+--+--+----+----+-------+-+-+
//! |  RES0  |PageType|XN|0 |0 |  0  |    output address    |0 |AF| SH |S2AP|MemAttr|t|1|  page (t=1), block (t=0)
//! +--------+--------+--+--+--+-----+----------------------+--+--+----+----+-------+-+-+
//! |  RES0  |      ignored    |  0  |  next-level table    | entries of it in use  |1|1|  table
//! +--------+-----------------+-----+----------------------+-----------------------+-+-+
//! |   0    |   8    |                              0                            |0|0|  on demand
//! +--------+--------+-----------------------------------------------------------+-+-+
//! ```
//!
//! Bits 58 to 55 of a leaf and bits 11 to 2 of a table descriptor are ignored by hardware (DDI 0487 D8.3); the first
//! hold the [`PageType`], the second how many of the next table's 512 entries are in use, so that a table that became
//! empty or full is recognised without a scan and without memory beside the tables. In use is what is valid, and what
//! is *on demand*: nothing yet to hardware, which keeps no such entry in a TLB, and to be mapped on first touch.
//! The access flag is set but in pages that are watched ([`Edit::watch`](crate::Edit::watch)).

use crate::addr::{BlockSize, Gfn, Ipa, Mfn, Pa, Pages};

/// Entries in a table of the 4 KiB granule.
pub const ENTRIES: usize = 512;

const VALID: u64 = 1 << 0;
const TABLE_OR_PAGE: u64 = 1 << 1;
const MEM_ATTR_SHIFT: u32 = 2;
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
const SH_SHIFT: u32 = 8;
const AF: u64 = 1 << 10;
const XN: u64 = 1 << 54;
const PAGE_TYPE_SHIFT: u32 = 55;
const OUTPUT_ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const PAGE_TYPE: u64 = 0xf << PAGE_TYPE_SHIFT;
const MEM_ATTR: u64 = 0xf << MEM_ATTR_SHIFT;
const SH: u64 = 0x3 << SH_SHIFT;
const ATTRIBUTES: u64 = PAGE_TYPE | XN | SH | S2AP_READ | S2AP_WRITE | MEM_ATTR;
const COUNT_SHIFT: u32 = 2;
const COUNT: u64 = 0x3ff << COUNT_SHIFT;

/// The first frame number that does not fit a descriptor's 48-bit output address.
pub const MFN_LIMIT: Mfn = Mfn::new(1 << 36);

/// What a guest may do with a page (S2AP and XN).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Access {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches, at EL1 and EL0.
    pub execute: bool,
}

impl Access {
    /// Nothing: every access faults.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Loads only.
    pub const R: Self = Self { read: true, write: false, execute: false };
    /// Loads and stores.
    pub const RW: Self = Self { read: true, write: true, execute: false };
    /// Loads and instruction fetches.
    pub const RX: Self = Self { read: true, write: false, execute: true };
    /// Everything.
    pub const RWX: Self = Self { read: true, write: true, execute: true };
}

/// The memory type stage 2 allows (MemAttr); combined with stage 1 by taking the stricter one (DDI 0487 D8.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryType {
    /// Normal, inner and outer write-back cacheable.
    NormalWb,
    /// Normal, non-cacheable.
    NormalNc,
    /// Device-nGnRE.
    DeviceNGnRE,
}

/// Who a Normal page is kept coherent with (SH).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shareability {
    /// One processing element.
    Non,
    /// The outer shareable domain. Device and non-cacheable memory is always treated so.
    Outer,
    /// The inner shareable domain: all CPUs that run the hypervisor.
    Inner,
}

/// Why a page is mapped: what its removal must undo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PageType {
    /// The domain's own memory.
    Ram = 1,
    /// The domain's own memory, read-only.
    RamRo = 2,
    /// Another domain's page, mapped by grant, writable.
    GrantRw = 3,
    /// Another domain's page, mapped by grant, read-only.
    GrantRo = 4,
    /// Another domain's page, mapped by a privileged domain.
    Foreign = 5,
    /// A device's registers or memory, mapped directly: never counted, never freed.
    Mmio = 6,
    /// A page the hypervisor owns and shows to the guest, such as `shared_info`.
    SharedXen = 7,
}

impl PageType {
    const fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Ram,
            2 => Self::RamRo,
            3 => Self::GrantRw,
            4 => Self::GrantRo,
            5 => Self::Foreign,
            7 => Self::SharedXen,
            // 6; and what this module never writes is taken for the type whose removal undoes nothing.
            _ => Self::Mmio,
        }
    }
}

/// All attributes of a leaf but the access flag, held as the descriptor's bits so that mapping a page is one OR.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Attributes(u64);

impl Attributes {
    /// Memory of the domain: readable, writable, executable, write-back.
    pub const RAM: Self = Self::new(Access::RWX, MemoryType::NormalWb, PageType::Ram);
    /// A device's registers: readable, writable, Device-nGnRE.
    pub const MMIO: Self = Self::new(Access::RW, MemoryType::DeviceNGnRE, PageType::Mmio);

    /// Attributes with the usual shareability: inner for write-back memory, outer for the rest.
    #[inline]
    pub const fn new(access: Access, memory: MemoryType, page_type: PageType) -> Self {
        let mem_attr = match memory {
            MemoryType::NormalWb => 0b1111,
            MemoryType::NormalNc => 0b0101,
            MemoryType::DeviceNGnRE => 0b0001,
        };
        let shareability = match memory {
            MemoryType::NormalWb => Shareability::Inner,
            MemoryType::NormalNc | MemoryType::DeviceNGnRE => Shareability::Outer,
        };
        Self(mem_attr << MEM_ATTR_SHIFT | (page_type as u64) << PAGE_TYPE_SHIFT)
            .with_access(access)
            .with_shareability(shareability)
    }

    /// The same with another access.
    #[inline]
    pub const fn with_access(self, access: Access) -> Self {
        let mut bits = self.0 & !(S2AP_READ | S2AP_WRITE | XN);
        if access.read {
            bits |= S2AP_READ;
        }
        if access.write {
            bits |= S2AP_WRITE;
        }
        if !access.execute {
            bits |= XN;
        }
        Self(bits)
    }

    /// The same with another shareability.
    #[inline]
    pub const fn with_shareability(self, shareability: Shareability) -> Self {
        let sh = match shareability {
            Shareability::Non => 0b00,
            Shareability::Outer => 0b10,
            Shareability::Inner => 0b11,
        };
        Self(self.0 & !SH | sh << SH_SHIFT)
    }

    /// The same with another type.
    #[inline]
    pub const fn with_page_type(self, page_type: PageType) -> Self {
        Self(self.0 & !PAGE_TYPE | (page_type as u64) << PAGE_TYPE_SHIFT)
    }

    /// What the guest may do.
    #[inline]
    pub const fn access(self) -> Access {
        Access { read: self.0 & S2AP_READ != 0, write: self.0 & S2AP_WRITE != 0, execute: self.0 & XN == 0 }
    }

    /// Whether the guest may store.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.0 & S2AP_WRITE != 0
    }

    /// Whether the guest may load.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.0 & S2AP_READ != 0
    }

    /// The memory type.
    #[inline]
    pub const fn memory_type(self) -> MemoryType {
        match (self.0 & MEM_ATTR) >> MEM_ATTR_SHIFT {
            0b1111 => MemoryType::NormalWb,
            0b0101 => MemoryType::NormalNc,
            // 0b0001; nothing else is ever written.
            _ => MemoryType::DeviceNGnRE,
        }
    }

    /// The shareability.
    #[inline]
    pub const fn shareability(self) -> Shareability {
        match (self.0 & SH) >> SH_SHIFT {
            0b10 => Shareability::Outer,
            0b11 => Shareability::Inner,
            // 0b00; 0b01 is reserved and never written.
            _ => Shareability::Non,
        }
    }

    /// The type.
    #[inline]
    pub const fn page_type(self) -> PageType {
        PageType::from_bits((self.0 & PAGE_TYPE) >> PAGE_TYPE_SHIFT)
    }

    /// Whether a live entry with these attributes may be overwritten by one with `new` at the same output address
    /// and size, and only then be invalidated. A change of memory type, cacheability or shareability needs
    /// break-before-make instead (DDI 0487 D8.16.1).
    #[inline]
    pub const fn may_become(self, new: Self) -> bool {
        (self.0 ^ new.0) & (MEM_ATTR | SH) == 0
    }

    /// Whether hardware tells these attributes from `other`, that is whether more than the type differs.
    #[inline]
    pub const fn differs_to_hardware(self, other: Self) -> bool {
        (self.0 ^ other.0) & !PAGE_TYPE != 0
    }
}

impl core::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let access = self.access();
        write!(
            f,
            "{}{}{} {:?} {:?} {:?}",
            if access.read { 'r' } else { '-' },
            if access.write { 'w' } else { '-' },
            if access.execute { 'x' } else { '-' },
            self.memory_type(),
            self.shareability(),
            self.page_type(),
        )
    }
}

/// One mapping: a page or block, where it lies and how it may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    gfn: Gfn,
    size: BlockSize,
    descriptor: Descriptor,
}

impl Leaf {
    #[inline]
    pub(crate) const fn new(gfn: Gfn, size: BlockSize, descriptor: Descriptor) -> Self {
        Self { gfn, size, descriptor }
    }

    /// The first guest frame.
    #[inline]
    pub const fn gfn(&self) -> Gfn {
        self.gfn
    }

    /// The guest's address of the first byte.
    #[inline]
    pub const fn ipa(&self) -> Ipa {
        self.gfn.ipa()
    }

    /// The first machine frame.
    #[inline]
    pub const fn mfn(&self) -> Mfn {
        self.descriptor.output().mfn()
    }

    /// The machine's address of the first byte.
    #[inline]
    pub const fn pa(&self) -> Pa {
        self.descriptor.output()
    }

    /// The size.
    #[inline]
    pub const fn size(&self) -> BlockSize {
        self.size
    }

    /// The attributes.
    #[inline]
    pub const fn attributes(&self) -> Attributes {
        self.descriptor.attributes()
    }

    /// Whether it was used since its access flag was cleared, if it was.
    #[inline]
    pub const fn is_accessed(&self) -> bool {
        self.descriptor.is_accessed()
    }

    /// Why it is mapped.
    #[inline]
    pub const fn page_type(&self) -> PageType {
        self.descriptor.attributes().page_type()
    }

    /// The machine's address of `ipa`, which lies in this leaf (any other bits of `ipa` than the offset in the leaf
    /// are ignored).
    #[inline]
    pub const fn pa_of(&self, ipa: Ipa) -> Pa {
        self.pa().wrapping_add(ipa.raw() & (self.size.bytes() - 1))
    }

    /// The machine frame of `gfn`, which lies in this leaf.
    #[inline]
    pub const fn mfn_of(&self, gfn: Gfn) -> Mfn {
        self.mfn().wrapping_add(Pages::new(gfn.raw() & (self.size.pages().get() - 1)))
    }

    /// The guest frame after the last one; within the 64-bit space because tables end at 48 bits.
    #[inline]
    pub const fn end(&self) -> Gfn {
        self.gfn.wrapping_add(self.size.pages())
    }
}

/// An entry of a table, as hardware reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Descriptor(u64);

impl Descriptor {
    pub(crate) const INVALID: Self = Self(0);
    /// All that a leaf here would cover gets its backing on first touch.
    pub(crate) const ON_DEMAND: Self = Self(8 << PAGE_TYPE_SHIFT);

    #[inline]
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline]
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// A page descriptor for level 3.
    #[inline]
    pub(crate) const fn page(mfn: Mfn, attributes: Attributes) -> Self {
        Self(mfn.raw() << 12 | attributes.0 | AF | TABLE_OR_PAGE | VALID)
    }

    /// A page or block descriptor.
    #[inline]
    pub(crate) const fn leaf(mfn: Mfn, size: BlockSize, attributes: Attributes) -> Self {
        match size {
            BlockSize::Page4K => Self::page(mfn, attributes),
            BlockSize::Block2M | BlockSize::Block1G => Self(mfn.raw() << 12 | attributes.0 | AF | VALID),
        }
    }

    /// A descriptor of the next level's table at `table`, `valid` entries of which are in use.
    #[inline]
    pub(crate) const fn table(table: Pa, valid: u64) -> Self {
        Self(table.raw() & OUTPUT_ADDRESS | valid << COUNT_SHIFT | TABLE_OR_PAGE | VALID)
    }

    #[inline]
    pub(crate) const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    #[inline]
    pub(crate) const fn is_on_demand(self) -> bool {
        self.0 == Self::ON_DEMAND.0
    }

    /// Whether this descriptor, found above level 3, points to a table.
    #[inline]
    pub(crate) const fn is_table(self) -> bool {
        self.0 & (TABLE_OR_PAGE | VALID) == TABLE_OR_PAGE | VALID
    }

    #[inline]
    pub(crate) const fn output(self) -> Pa {
        Pa::new(self.0 & OUTPUT_ADDRESS)
    }

    #[inline]
    pub(crate) const fn attributes(self) -> Attributes {
        Attributes(self.0 & ATTRIBUTES)
    }

    /// Entries in use of the table this table descriptor points to.
    #[inline]
    pub(crate) const fn count(self) -> u64 {
        (self.0 & COUNT) >> COUNT_SHIFT
    }

    #[inline]
    pub(crate) const fn with_count(self, count: u64) -> Self {
        Self(self.0 & !COUNT | count << COUNT_SHIFT)
    }

    /// Whether it is a leaf of the domain's own memory.
    #[inline]
    pub(crate) const fn is_own_memory(self) -> bool {
        self.is_valid() && matches!(self.attributes().page_type(), PageType::Ram | PageType::RamRo)
    }

    /// Whether the access flag of a leaf is set.
    #[inline]
    pub(crate) const fn is_accessed(self) -> bool {
        self.0 & AF != 0
    }

    /// The same leaf with the access flag set or clear.
    #[inline]
    pub(crate) const fn with_accessed(self, accessed: bool) -> Self {
        if accessed { Self(self.0 | AF) } else { Self(self.0 & !AF) }
    }

    /// The same leaf made invalid for a moment, its content kept.
    #[inline]
    pub(crate) const fn broken(self) -> Self {
        Self(self.0 & !VALID)
    }

    /// A [`broken`](Self::broken) leaf made valid again.
    #[inline]
    pub(crate) const fn made(self) -> Self {
        Self(self.0 | VALID)
    }

    /// The same leaf `pages` further on in machine memory.
    #[inline]
    pub(crate) const fn advanced(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages << 12))
    }
}

/// A link of the list of tables that wait for the invalidation: invalid to hardware, which may still walk the table.
#[inline]
pub(crate) const fn retired_link(next: Option<Pa>) -> u64 {
    match next {
        Some(table) => table.raw() | TABLE_OR_PAGE,
        None => 0,
    }
}

/// The table a [`retired_link`] names.
#[inline]
pub(crate) const fn retired_next(link: u64) -> Option<Pa> {
    if link & TABLE_OR_PAGE != 0 { Some(Pa::new(link & OUTPUT_ADDRESS)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_ram_has_the_bits_of_the_manual() {
        let raw = Descriptor::page(Mfn::new(0x12345), Attributes::RAM).raw();
        // PageType Ram in 58:55, no XN, AF, inner shareable, read and write, MemAttr 0b1111, page.
        assert_eq!(raw, 1 << 55 | 0x1234_5000 | 1 << 10 | 0b11 << 8 | 0b11 << 6 | 0b1111 << 2 | 0b11);
        let raw = Descriptor::leaf(Mfn::new(0x200), BlockSize::Block2M, Attributes::MMIO).raw();
        assert_eq!(raw, 6 << 55 | 1 << 54 | 0x20_0000 | 1 << 10 | 0b10 << 8 | 0b11 << 6 | 0b0001 << 2 | 0b01);
    }

    #[test]
    fn attributes_survive_the_encoding() {
        let types = [
            PageType::Ram,
            PageType::RamRo,
            PageType::GrantRw,
            PageType::GrantRo,
            PageType::Foreign,
            PageType::Mmio,
            PageType::SharedXen,
        ];
        for page_type in types {
            for memory in [MemoryType::NormalWb, MemoryType::NormalNc, MemoryType::DeviceNGnRE] {
                for access in [Access::NONE, Access::R, Access::RW, Access::RX, Access::RWX] {
                    for shareability in [Shareability::Non, Shareability::Outer, Shareability::Inner] {
                        let attributes =
                            Attributes::new(access, memory, page_type).with_shareability(shareability);
                        let descriptor = Descriptor::page(Mfn::new((1 << 36) - 1), attributes);
                        let read = descriptor.attributes();
                        assert_eq!(read, attributes);
                        assert_eq!(read.page_type(), page_type);
                        assert_eq!(read.memory_type(), memory);
                        assert_eq!(read.access(), access);
                        assert_eq!(read.shareability(), shareability);
                        assert_eq!(descriptor.output().mfn(), Mfn::new((1 << 36) - 1));
                    }
                }
            }
        }
    }

    #[test]
    fn a_table_descriptor_counts_up_to_512() {
        let table = Descriptor::table(Pa::new(0x8000_1000), 512);
        assert!(table.is_table());
        assert_eq!((table.output(), table.count()), (Pa::new(0x8000_1000), 512));
        assert_eq!(table.with_count(7), Descriptor::table(Pa::new(0x8000_1000), 7));
        // Only the ignored bits 11:2 hold the count.
        assert_eq!(Descriptor::table(Pa::ZERO, 512).raw() & !0xffc, 0b11);
    }

    #[test]
    fn the_list_of_retired_tables_is_invalid_to_hardware() {
        for next in [None, Some(Pa::ZERO), Some(Pa::new(0x1000))] {
            assert!(!Descriptor::from_raw(retired_link(next)).is_valid());
            assert_eq!(retired_next(retired_link(next)), next);
        }
    }
}

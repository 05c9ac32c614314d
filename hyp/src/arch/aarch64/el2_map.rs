//! EL2's own address space: RAM and devices at their physical addresses, this image with W^X, stacks in a
//! window of their own with unmapped pages between them.
//!
//! ```text
//! VA = PA                     RAM: RW, never executable       devices: Device-nGnRE
//!   └ this image              .text RX │ .rodata R │ .data .bss RW
//! STACKS + 64 KiB × cpu       [ guard | guard | … | 16 KiB of stack ]
//! ```
//! Tables come from a pool in .bss. Entries only ever go from invalid to valid, so no invalidation is needed
//! after the switch from the early tables (DDI 0487 D8.17.1).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Attr0 Normal write-back, Attr1 Device-nGnRE, Attr2 Normal non-cacheable.
pub const MAIR_EL2_VALUE: u64 = 0x44_04_ff;
/// 48-bit addresses from level 0, 4 KiB granule, inner shareable write-back walks; PS is added at run time.
pub const TCR_EL2_STATIC: u64 = 1 << 31 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 16;
/// Virtual addresses of the stacks: above any physical address that the boards in scope have.
pub const STACKS: u64 = 0x7000_0000_0000;
/// Distance between two CPUs' stacks.
pub const STACK_STRIDE: u64 = 0x1_0000;
/// Usable bytes of a CPU's stack.
pub const STACK_SIZE: u64 = 0x4000;

const TABLES: usize = 64;
const PAGE: u64 = 4096;
const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 2;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Code of this image.
    Text,
    /// Constants of this image, and input that is only read.
    ReadOnly,
    /// Everything else in RAM.
    Data,
    /// Registers.
    Device,
    /// Only until [`switch`]: this image before its parts are told apart.
    Early,
}

impl Use {
    /// Stage 1 EL2 attributes: AttrIndx[4:2], AP[7:6], SH[9:8], AF, XN[54] (DDI 0487 D8.3.1.2). AP[1] is RES1.
    const fn bits(self) -> u64 {
        const AF: u64 = 1 << 10;
        const INNER: u64 = 3 << 8;
        const RO: u64 = 3 << 6;
        const RW: u64 = 1 << 6;
        const XN: u64 = 1 << 54;
        match self {
            Self::Text => AF | INNER | RO,
            Self::ReadOnly => AF | INNER | RO | XN,
            Self::Data => AF | INNER | RW | XN,
            Self::Device => AF | RW | XN | 1 << 2,
            Self::Early => AF | INNER | RW,
        }
    }
}

/// Why something could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The pool of tables is used up.
    NoTable,
    /// The page is mapped already, or lies under a block.
    Occupied(u64),
}

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u64; 512]; TABLES]>);

// SAFETY: each table is handed out once, by the atomic counter, and then written only under `&mut Map`, of
// which `take` makes one.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([[0; 512]; TABLES]));
static USED: AtomicUsize = AtomicUsize::new(0);
static ROOT: AtomicU64 = AtomicU64::new(0);

/// A table tree being built or extended.
pub struct Map {
    root: *mut [u64; 512],
}

// SAFETY: the pointer is to the static pool; nothing about it belongs to one CPU.
unsafe impl Send for Map {}

fn new_table() -> Result<*mut [u64; 512], MapError> {
    // Plain load and store, since with the MMU off exclusives are not to be had (DDI 0487 B2.17.5); tables are
    // made while one CPU runs, or under the lock of the only `Map`.
    let index = USED.load(Ordering::Relaxed);
    if index >= TABLES {
        return Err(MapError::NoTable);
    }
    USED.store(index + 1, Ordering::Relaxed);
    // SAFETY: index is in bounds of the array.
    Ok(unsafe { POOL.0.get().cast::<[u64; 512]>().add(index) })
}

impl Map {
    /// An empty tree.
    pub fn new() -> Result<Self, MapError> {
        Ok(Self { root: new_table()? })
    }

    /// What goes into TTBR0_EL2.
    pub fn ttbr(&self) -> u64 {
        self.root as u64
    }

    /// Maps `[va, va + len)`, widened to whole pages, with the largest blocks that fit.
    pub fn map(&mut self, va: u64, pa: u64, len: u64, usage: Use) -> Result<(), MapError> {
        let end = (va + len).next_multiple_of(PAGE);
        let mut pa = pa & !(PAGE - 1);
        let mut va = va & !(PAGE - 1);
        while va < end {
            let step = self.map_one(va, pa, end - va, usage)?;
            va += step;
            pa += step;
        }
        Ok(())
    }

    fn map_one(&mut self, va: u64, pa: u64, len: u64, usage: Use) -> Result<u64, MapError> {
        let mut table = self.root;
        for level in 0..=3u32 {
            let shift = 39 - 9 * level;
            let size = 1u64 << shift;
            let index = (va >> shift & 511) as usize;
            // SAFETY: `table` is a table of the pool and index < 512.
            let entry = unsafe { &raw mut (*table)[index] };
            // SAFETY: as above; the hardware walker only reads it.
            let old = unsafe { entry.read_volatile() };
            let fits = level > 0 && (va | pa) & (size - 1) == 0 && len >= size;
            if level == 3 || (fits && old & VALID == 0) {
                if old & VALID != 0 {
                    return Err(MapError::Occupied(va));
                }
                let kind = if level == 3 { VALID | TABLE_OR_PAGE } else { VALID };
                // SAFETY: as above; invalid to valid.
                unsafe { entry.write_volatile(pa | usage.bits() | kind) };
                return Ok(size);
            }
            table = match old & (VALID | TABLE_OR_PAGE) {
                3 => (old & ADDRESS) as *mut [u64; 512],
                0 => {
                    let new = new_table()?;
                    // SAFETY: as above; the new table is all invalid.
                    unsafe { entry.write_volatile(new as u64 | VALID | TABLE_OR_PAGE) };
                    new
                }
                _ => return Err(MapError::Occupied(va)),
            };
        }
        Err(MapError::Occupied(va))
    }

    /// Makes new entries visible to the table walkers of all CPUs (DDI 0487 D8.2.6).
    pub fn publish(&self) {
        // SAFETY: barriers only.
        unsafe { core::arch::asm!("dsb ishst", "isb", options(nostack)) };
    }
}

/// The early map, to add to it; only before [`switch`].
pub fn early() -> Option<Map> {
    (ROOT.load(Ordering::Acquire) == 0)
        .then(|| Map { root: super::sysreg::read_sysreg!("ttbr0_el2") as *mut [u64; 512] })
}

/// Start and end of parts of this image, as the linker script has them.
pub fn image() -> Image {
    unsafe extern "C" {
        static __image_start: u8;
        static __text_end: u8;
        static __rodata_end: u8;
        static __file_end: u8;
        static __image_end: u8;
    }
    Image {
        start: &raw const __image_start as u64,
        text_end: &raw const __text_end as u64,
        rodata_end: &raw const __rodata_end as u64,
        file_end: &raw const __file_end as u64,
        end: &raw const __image_end as u64,
    }
}

/// Addresses within this image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// First byte, where the loader put it.
    pub start: u64,
    /// End of code, page-aligned.
    pub text_end: u64,
    /// End of constants, page-aligned.
    pub rodata_end: u64,
    /// End of what is in the file.
    pub file_end: u64,
    /// End of .bss, page-aligned.
    pub end: u64,
}

impl Image {
    /// Maps the image with the permissions that each part is to have.
    pub fn map_into(&self, map: &mut Map) -> Result<(), MapError> {
        map.map(self.start, self.start, self.text_end - self.start, Use::Text)?;
        map.map(self.text_end, self.text_end, self.rodata_end - self.text_end, Use::ReadOnly)?;
        map.map(self.rodata_end, self.rodata_end, self.end - self.rodata_end, Use::Data)
    }
}

/// The first map: this image, and the device tree at `dtb` (at most 2 MiB, so within two blocks). Runs with the
/// MMU off. Returns the root, or 0 when the tables do not suffice, which the fixed sizes exclude.
#[unsafe(no_mangle)]
extern "C" fn early_tables(dtb: u64) -> u64 {
    const BLOCK: u64 = 2 << 20;
    let image = image();
    let Ok(mut map) = Map::new() else { return 0 };
    let start = image.start & !(BLOCK - 1);
    if map.map(start, start, (image.end - start).next_multiple_of(BLOCK), Use::Early).is_err() {
        return 0;
    }
    for block in [dtb & !(BLOCK - 1), (dtb & !(BLOCK - 1)) + BLOCK] {
        // Overlap with the image's blocks is fine: it is mapped then.
        let _ = map.map(block, block, BLOCK, Use::Early);
    }
    map.ttbr()
}

/// Puts `map` in force on this CPU and remembers its root for the others.
///
/// # Safety
/// As for [`super::entry::switch_tables`].
pub unsafe fn switch(map: &Map) {
    ROOT.store(map.ttbr(), Ordering::Release);
    // SAFETY: the caller's promise.
    unsafe { super::entry::switch_tables(map.ttbr()) };
}

/// The root in force, for secondary CPUs.
pub fn root() -> u64 {
    ROOT.load(Ordering::Acquire)
}

/// Top of a CPU's stack in the stack window.
pub fn stack_top(cpu: crate::cpu::CpuId) -> u64 {
    STACKS + STACK_STRIDE * (cpu.index() as u64 + 1)
}

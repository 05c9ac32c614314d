//! Names of this image's functions, for backtraces.
//!
//! `scripts/build` writes the table of functions into the space that `build.rs` leaves for it, in read-only data.
//! Without it (all zeros) backtraces show offsets.
//!
//! ```text
//! u32 count, u32 0, count × { u32 offset in the image, u32 offset of its name in the names }, names, each ending in 0
//! ```

/// The function that `offset` (bytes from the start of the image) is in, and how far into it.
pub fn find(offset: u64) -> Option<(&'static str, u64)> {
    unsafe extern "C" {
        static __symbols_start: u8;
        static __symbols_end: u8;
    }
    let start = &raw const __symbols_start;
    let len = &raw const __symbols_end as usize - start as usize;
    // SAFETY: the linker script places the section between these two symbols, in read-only data of this image.
    let table = unsafe { core::slice::from_raw_parts(start, len) };
    lookup(table, offset)
}

fn word(table: &[u8], index: usize) -> Option<u32> {
    table.get(index * 4..index * 4 + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn lookup(table: &'static [u8], offset: u64) -> Option<(&'static str, u64)> {
    let count = word(table, 0)? as usize;
    let names = table.get(8 + count * 8..)?;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        if u64::from(word(table, 2 + middle * 2)?) <= offset { low = middle + 1 } else { high = middle }
    }
    let index = low.checked_sub(1)?;
    let function = u64::from(word(table, 2 + index * 2)?);
    let name = names.get(word(table, 3 + index * 2)? as usize..)?;
    let end = name.iter().position(|&b| b == 0)?;
    Some((core::str::from_utf8(&name[..end]).ok()?, offset - function))
}

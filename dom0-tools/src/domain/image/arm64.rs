//! The arm64 Linux `Image` (Linux, `Documentation/arch/arm64/booting.rst`).
//!
//! | offset | what |
//! | ---: | --- |
//! | 0 | `MZ`, where it is an EFI program too |
//! | 8 | `text_offset`: from a 2 MiB boundary |
//! | 16 | `image_size`: bytes of memory, more than the file has; 0 before Linux 3.17 |
//! | 24 | flags: bit 0 is big-endian, bits 1 and 2 the page size, bit 3 "anywhere" |
//! | 56 | `ARM\x64` |
//! | 60 | offset of the PE header, if so |

use pv_abi::arch_arm::GUEST_RAM_BASE;

use super::{Content, Plan, Problem, Segment, Wrong, expect_bytes, le16, le32, le64};

const MAGIC: u32 = u32::from_le_bytes(*b"ARM\x64");
/// `text_offset` where the header does not tell.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
/// It must be less than the boundary it counts from.
const BOUNDARY: u64 = 2 << 20;

/// Whether a file begins like one.
pub(super) fn is(head: &[u8]) -> bool {
    le32(head, 56) == Some(MAGIC)
}

/// Where it goes: to the start of memory.
pub(super) fn plan(content: &Content, head: &[u8]) -> Result<Plan, Problem> {
    let short = Wrong::Truncated { what: "its header", needed: 64, found: head.len() as u64 };
    let field = |offset| le64(head, offset).ok_or(short.clone());
    let (text_offset, image_size, flags) = (field(8)?, field(16)?, field(24)?);
    let length = content.length();
    let (text_offset, image_size) = match image_size {
        0 => (OLD_TEXT_OFFSET, length),
        size => (text_offset, size),
    };
    if flags & 1 != 0 {
        return Err(Wrong::Format("it is big-endian").into());
    }
    if text_offset >= BOUNDARY || !text_offset.is_multiple_of(4096) {
        return Err(Wrong::Damaged("its text_offset is no offset from a 2 MiB boundary").into());
    }
    expect_bytes("the Image", pe_bytes(content, head)?, length)?;
    let start = GUEST_RAM_BASE + text_offset;
    let end = start.checked_add(image_size.max(length)).ok_or(Wrong::Damaged("its image_size is no size"))?;
    let segments = vec![Segment { offset: 0, bytes: length, address: start }];
    Ok(Plan { format: "arm64 Image", segments, start, end, entry: start, efi: head.starts_with(b"MZ") })
}

/// The bytes that the file must have by its PE header: `image_size` counts memory that is not in the file. 0 where there is
/// no such header.
fn pe_bytes(content: &Content, head: &[u8]) -> Result<u64, Problem> {
    let at = u64::from(le32(head, 60).unwrap_or(0));
    if at == 0 || at + 24 > content.length() {
        return Ok(0);
    }
    let mut coff = [0; 24];
    content.read_at(at, &mut coff)?;
    if !coff.starts_with(b"PE\0\0") {
        return Ok(0);
    }
    let sections = u64::from(le16(&coff, 6).unwrap_or(0));
    let table = at + 24 + u64::from(le16(&coff, 20).unwrap_or(0));
    let mut needed = table + sections * 40;
    for index in 0..sections {
        let mut section = [0; 40];
        let place = table + index * 40;
        expect_bytes("its section table", place + 40, content.length())?;
        content.read_at(place, &mut section)?;
        let (size, start) = (le32(&section, 16).unwrap_or(0), le32(&section, 20).unwrap_or(0));
        needed = needed.max(u64::from(size) + u64::from(start));
    }
    Ok(needed)
}

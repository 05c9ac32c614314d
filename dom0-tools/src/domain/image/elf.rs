//! ELF programs for AArch64 (System V ABI, "Object Files", and Arm's ELF for the 64-bit architecture).
//!
//! Segments go to their physical addresses, in the first bank of memory. A program that names none in a domain's memory but is position independent (`ET_DYN`)
//! goes to the start of memory.

use pv_abi::arch_arm::{GUEST_RAM_BASE, GUEST_RAM0_SIZE};

use super::{Content, Plan, Problem, Segment, Wrong, expect_bytes, le16, le32, le64};

pub(super) const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_AARCH64: u16 = 183;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const LOAD: u32 = 1;
const HEADER: u64 = 64;
const PROGRAM_HEADER: u16 = 56;

/// One segment as the file describes it.
#[derive(Clone, Copy, Debug)]
struct Load {
    offset: u64,
    virtual_address: u64,
    address: u64,
    bytes: u64,
    memory: u64,
}

/// What an ELF file of another kind is.
fn other_kind(head: &[u8]) -> Option<&'static str> {
    let (class, data) = (head.get(4).copied()?, head.get(5).copied()?);
    let (kind, machine) = (le16(head, 16)?, le16(head, 18)?);
    if class != CLASS_64 {
        return Some(if machine == 40 {
            "it is an ELF program for 32-bit Arm"
        } else {
            "it is a 32-bit ELF program"
        });
    }
    if data != LITTLE_ENDIAN {
        return Some("it is a big-endian ELF program");
    }
    match machine {
        MACHINE_AARCH64 => {}
        62 => return Some("it is an ELF program for x86-64"),
        243 => return Some("it is an ELF program for RISC-V"),
        _ => return Some("it is an ELF program for another architecture"),
    }
    match kind {
        EXECUTABLE | SHARED => None,
        _ => Some("it is an ELF file, but no program"),
    }
}

/// Where it goes.
pub(super) fn plan(content: &Content, head: &[u8]) -> Result<Plan, Problem> {
    let length = content.length();
    expect_bytes("the ELF header", HEADER, length)?;
    if let Some(kind) = other_kind(head) {
        return Err(Wrong::Format(kind).into());
    }
    let damaged = Wrong::Damaged("its ELF header is not complete");
    let entry = le64(head, 24).ok_or(damaged.clone())?;
    let table = le64(head, 32).ok_or(damaged.clone())?;
    let (size, count) = (le16(head, 54).ok_or(damaged.clone())?, le16(head, 56).ok_or(damaged)?);
    if size != PROGRAM_HEADER {
        return Err(Wrong::Damaged("its program headers have an unknown size").into());
    }
    let loads = loads(content, table, count)?;
    let shift = shift(&loads, le16(head, 16) == Some(SHARED))?;
    // The entry is a virtual address: that of a segment, if any.
    let by_virtual =
        loads.iter().find(|load| (load.virtual_address..load.virtual_address + load.memory).contains(&entry));
    let entry = match by_virtual {
        Some(load) => load.address + (entry - load.virtual_address),
        None => return Err(Wrong::Damaged("its entry is in none of its segments").into()),
    };
    let segments: Vec<_> = loads
        .iter()
        .map(|load| Segment { offset: load.offset, bytes: load.bytes, address: load.address + shift })
        .collect();
    let start = loads.iter().map(|load| load.address + shift).min().unwrap_or(GUEST_RAM_BASE);
    let end = loads.iter().map(|load| load.address + shift + load.memory).max().unwrap_or(start);
    Ok(Plan { format: "ELF program", segments, start, end, entry: entry + shift, efi: false })
}

/// The segments to load, in order of their addresses.
fn loads(content: &Content, table: u64, count: u16) -> Result<Vec<Load>, Problem> {
    let overflow = Wrong::Damaged("a segment ends beyond all addresses");
    let end = table.checked_add(u64::from(count) * u64::from(PROGRAM_HEADER)).ok_or(overflow.clone())?;
    expect_bytes("the list of segments", end, content.length())?;
    let mut loads = Vec::new();
    for index in 0..count {
        let mut header = [0; PROGRAM_HEADER as usize];
        content.read_at(table + u64::from(index) * u64::from(PROGRAM_HEADER), &mut header)?;
        let field = |offset| le64(&header, offset).unwrap_or(0);
        let load = Load {
            offset: field(8),
            virtual_address: field(16),
            address: field(24),
            bytes: field(32),
            memory: field(40),
        };
        if le32(&header, 0) != Some(LOAD) || load.memory == 0 {
            continue;
        }
        if load.bytes > load.memory {
            return Err(Wrong::Damaged("a segment has more bytes in the file than in memory").into());
        }
        // The top half of the addresses is room for the shift.
        let ends = [load.offset, load.virtual_address, load.address].map(|at| at.checked_add(load.memory));
        if ends[1].is_none() || ends[2].is_none_or(|end| end > 1 << 48) {
            return Err(overflow.into());
        }
        expect_bytes(
            "a segment",
            load.offset.checked_add(load.bytes).ok_or(overflow.clone())?,
            content.length(),
        )?;
        loads.push(load);
    }
    loads.sort_by_key(|load| load.address);
    if loads.is_empty() {
        return Err(Wrong::Damaged("it has nothing to load").into());
    }
    if loads.windows(2).any(|pair| matches!(pair, [a, b] if a.address + a.memory > b.address)) {
        return Err(Wrong::Damaged("its segments lie across each other").into());
    }
    Ok(loads)
}

/// How far a program moves to be in memory.
fn shift(loads: &[Load], movable: bool) -> Result<u64, Wrong> {
    let first_bank = GUEST_RAM_BASE..GUEST_RAM_BASE + GUEST_RAM0_SIZE;
    let Some(outside) = loads.iter().find(|load| !first_bank.contains(&load.address)) else { return Ok(0) };
    let lowest = loads.first().map_or(0, |load| load.address);
    if movable && lowest < GUEST_RAM_BASE {
        // A multiple of 2 MiB, so that pages keep their offsets.
        return Ok(GUEST_RAM_BASE - (lowest & !0x1f_ffff));
    }
    Err(Wrong::Address { address: outside.address })
}

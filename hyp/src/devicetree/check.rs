//! The structural check of a flattened device tree, made before any parser sees it.
//!
//! Firmware hands over a pointer to bytes; nothing says that they are what the header claims. The crate `fdt` takes
//! them at their word: it indexes and unwraps. [`check`] accepts only blobs on which none of that can fail or run
//! forever, so everything behind it reads a tree and not an allegation. What it demands beyond the Devicetree
//! Specification 0.4, chapter 5, is listed at [`DtbError`].

use core::fmt;
use core::ops::Range;

/// First word of a blob (Devicetree Specification, 5.2).
pub const MAGIC: u32 = 0xd00d_feed;
/// Bytes of the header of a version 17 blob.
pub const HEADER_SIZE: usize = 40;
/// The most a blob may hold: the arm64 boot protocol's limit (Linux, Documentation/arch/arm64/booting.rst).
pub const MAX_SIZE: usize = 2 << 20;
/// How many nodes may lie inside one another, the root included.
pub const MAX_DEPTH: usize = 16;
/// Bytes in a node's or property's name at most. Bounds what one look-up costs.
pub const MAX_NAME: usize = 255;
/// Cells in an address or size at most; PCI's 3 is the most in use.
pub const MAX_CELLS: u32 = 4;

/// Properties at most of a node that has children: each child looks through them, so they bound what a walk costs.
pub const MAX_PARENT_PROPERTIES: u32 = 128;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// What is wrong with a blob. Offsets are bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtbError {
    /// Fewer bytes than a header.
    TooShort(usize),
    /// Does not begin with [`MAGIC`]; holds what it begins with.
    BadMagic(u32),
    /// Not readable as version 17: `version`, `last_comp_version`.
    Version(u32, u32),
    /// `totalsize` exceeds the bytes there are, or [`MAX_SIZE`].
    TotalSize {
        /// What the header claims.
        claimed: usize,
        /// What is there.
        available: usize,
    },
    /// A block does not lie within `totalsize`, or lies upon the header or another block.
    Block(&'static str),
    /// The structure block does not start at a multiple of 4, or the reservations not at one of 8.
    Misaligned(&'static str),
    /// The list of memory reservations does not end.
    Reservations,
    /// The structure block ends in the middle of something.
    Truncated(usize),
    /// A token that does not exist or may not stand there.
    Token {
        /// Where.
        offset: usize,
        /// Which.
        token: u32,
    },
    /// A no-operation token: legal, but `fdt` 0.1.5 loses the rest of the tree at it. [`prepare`] removes them.
    NoOperation(usize),
    /// Nodes nest deeper than [`MAX_DEPTH`].
    TooDeep(usize),
    /// A node has children and more than [`MAX_PARENT_PROPERTIES`] properties.
    TooManyProperties(usize),
    /// A name is empty, longer than [`MAX_NAME`], unterminated, or not printable ASCII.
    Name(usize),
    /// `#address-cells` or `#size-cells` is there twice, or not one cell, or more than [`MAX_CELLS`].
    Cells(usize),
    /// A `reg` whose entries have neither address nor size, so that nobody can tell how many there are.
    EmptyReg(usize),
    /// An alias that is not a path, or is named like one: a look-up would go round in circles.
    Alias(usize),
}

impl fmt::Display for DtbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort(n) => write!(f, "{n} bytes are too few for a device tree"),
            Self::BadMagic(m) => {
                write!(f, "not a device tree: starts with {m:#010x} instead of {MAGIC:#010x}")
            }
            Self::Version(v, c) => write!(f, "device tree version {v} (compatible with {c}); 17 is needed"),
            Self::TotalSize { claimed, available } => {
                write!(
                    f,
                    "device tree claims {claimed} bytes; {available} are there and {MAX_SIZE} is the limit"
                )
            }
            Self::Block(what) => {
                write!(f, "device tree's {what} block lies outside it or upon another block")
            }
            Self::Misaligned(what) => write!(f, "device tree's {what} block is misaligned"),
            Self::Reservations => write!(f, "device tree's list of memory reservations has no end"),
            Self::Truncated(at) => write!(f, "device tree is cut off at offset {at:#x}"),
            Self::Token { offset, token } => {
                write!(f, "device tree has unexpected token {token:#x} at offset {offset:#x}")
            }
            Self::NoOperation(at) => {
                write!(f, "device tree has a no-operation token at offset {at:#x}")
            }
            Self::TooDeep(at) => write!(f, "device tree nests deeper than {MAX_DEPTH} at offset {at:#x}"),
            Self::TooManyProperties(at) => {
                write!(f, "device tree has too many properties in the parent of the node at offset {at:#x}")
            }
            Self::Name(at) => write!(f, "device tree has an invalid name at offset {at:#x}"),
            Self::Cells(at) => {
                write!(f, "device tree has invalid #address-cells or #size-cells at offset {at:#x}")
            }
            Self::EmptyReg(at) => {
                write!(f, "device tree has a reg without cells at offset {at:#x}")
            }
            Self::Alias(at) => write!(f, "device tree has an alias that is not a path at offset {at:#x}"),
        }
    }
}

impl core::error::Error for DtbError {}

/// Accepts `blob` if `fdt` 0.1.5 can read all of it without a panic or an endless loop.
///
/// The claim covers every method that does not demand a particular node or property: `chosen()`, `cpus()`,
/// `memory()` and `Root::model()` panic on a well-formed tree that lacks theirs, so use `find_node` instead. It also
/// excepts those that demand a value of a certain form: `Compatible::first`, `Chosen::bootargs`, `Cpu::*`.
///
/// # Errors
/// The first offence found.
pub fn check(blob: &[u8]) -> Result<(), DtbError> {
    let blocks = blocks(blob)?;
    walk(blob, &blocks, |offset| Err(DtbError::NoOperation(offset)))
}

/// Like [`check`], but removes no-operation tokens first, which firmware leaves where it deleted something.
///
/// # Errors
/// The first offence found. Then nothing has been changed.
pub fn prepare(blob: &mut [u8]) -> Result<(), DtbError> {
    let blocks = blocks(blob)?;
    let mut found = false;
    walk(blob, &blocks, |_| {
        found = true;
        Ok(())
    })?;
    if found {
        remove_no_operations(blob, &blocks.structure)?;
    }
    check(blob)
}

/// The number of bytes that a header says follow from its start, for whoever holds only a pointer.
///
/// # Errors
/// [`DtbError::TooShort`], [`DtbError::BadMagic`], or [`DtbError::TotalSize`] when the size cannot be true.
pub fn total_size(header: &[u8; HEADER_SIZE]) -> Result<usize, DtbError> {
    let magic = word(header, 0)?;
    if magic != MAGIC {
        return Err(DtbError::BadMagic(magic));
    }
    let claimed = word(header, 4)? as usize;
    if !(HEADER_SIZE..=MAX_SIZE).contains(&claimed) {
        return Err(DtbError::TotalSize { claimed, available: MAX_SIZE });
    }
    Ok(claimed)
}

struct Blocks {
    structure: Range<usize>,
    strings: Range<usize>,
}

fn word(blob: &[u8], offset: usize) -> Result<u32, DtbError> {
    blob.get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or(DtbError::Truncated(offset))
}

fn blocks(blob: &[u8]) -> Result<Blocks, DtbError> {
    let header: &[u8; HEADER_SIZE] = blob.first_chunk().ok_or(DtbError::TooShort(blob.len()))?;
    let total = total_size(header)?;
    if total > blob.len() {
        return Err(DtbError::TotalSize { claimed: total, available: blob.len() });
    }
    let (version, compatible) = (word(header, 20)?, word(header, 24)?);
    if version < 17 || compatible > 17 {
        return Err(DtbError::Version(version, compatible));
    }
    let range = |offset: u32, size: u32, name| {
        let (start, end) = (offset as usize, offset as usize + size as usize);
        if start < HEADER_SIZE || end > total { Err(DtbError::Block(name)) } else { Ok(start..end) }
    };
    let structure = range(word(header, 8)?, word(header, 36)?, "structure")?;
    let strings = range(word(header, 12)?, word(header, 32)?, "strings")?;
    let reservations = range(word(header, 16)?, 0, "reservation")?.start;
    if !structure.start.is_multiple_of(4) {
        return Err(DtbError::Misaligned("structure"));
    }
    if !reservations.is_multiple_of(8) {
        return Err(DtbError::Misaligned("reservation"));
    }
    let mut end = reservations;
    loop {
        let entry: &[u8; 16] =
            blob[..total].get(end..).and_then(|rest| rest.first_chunk()).ok_or(DtbError::Reservations)?;
        end += entry.len();
        if *entry == [0; 16] {
            break;
        }
    }
    let overlap = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
    if overlap(&structure, &strings) {
        return Err(DtbError::Block("strings"));
    }
    if overlap(&structure, &(reservations..end)) || overlap(&strings, &(reservations..end)) {
        return Err(DtbError::Block("reservation"));
    }
    Ok(Blocks { structure, strings })
}

/// The NUL-terminated name at `offset`, inside `limit`.
fn name_at<'a>(blob: &'a [u8], offset: usize, limit: &Range<usize>) -> Result<&'a str, DtbError> {
    let end = limit.end.min(offset.saturating_add(MAX_NAME + 1));
    let bytes = blob.get(offset..end).ok_or(DtbError::Name(offset))?;
    let length = bytes.iter().position(|&b| b == 0).ok_or(DtbError::Name(offset))?;
    let name = &bytes[..length];
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(DtbError::Name(offset));
    }
    core::str::from_utf8(name).map_err(|_| DtbError::Name(offset))
}

/// An open node.
#[derive(Clone, Copy)]
struct Open {
    address_cells: Option<u32>,
    size_cells: Option<u32>,
    properties: u32,
    has_children: bool,
    is_aliases: bool,
}

fn walk(
    blob: &[u8],
    blocks: &Blocks,
    mut no_operation: impl FnMut(usize) -> Result<(), DtbError>,
) -> Result<(), DtbError> {
    let structure = &blocks.structure;
    let fresh =
        Open { address_cells: None, size_cells: None, properties: 0, has_children: false, is_aliases: false };
    let mut open = [fresh; MAX_DEPTH];
    let mut depth = 0;
    let mut root_seen = false;
    let mut at = structure.start;
    loop {
        let offset = at;
        let in_block = |end: usize| {
            if end <= structure.end { Ok(end) } else { Err(DtbError::Truncated(offset)) }
        };
        at = in_block(offset + 4)?;
        let token = word(blob, offset)?;
        let unexpected = Err(DtbError::Token { offset, token });
        match token {
            NOP => no_operation(offset)?,
            BEGIN_NODE => {
                if depth == 0 && root_seen {
                    return unexpected;
                }
                let name = name_at(blob, at, structure)?;
                if name.is_empty() == root_seen || name.contains('/') {
                    return Err(DtbError::Name(at));
                }
                root_seen = true;
                if depth == MAX_DEPTH {
                    return Err(DtbError::TooDeep(offset));
                }
                at = in_block(at + (name.len() + 1).next_multiple_of(4))?;
                if let Some(parent) = depth.checked_sub(1) {
                    open[parent].has_children = true;
                    if open[parent].properties > MAX_PARENT_PROPERTIES {
                        return Err(DtbError::TooManyProperties(offset));
                    }
                }
                let is_aliases = depth == 1 && name.split('@').next() == Some("aliases");
                open[depth] = Open { is_aliases, ..fresh };
                depth += 1;
            }
            END_NODE => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return unexpected,
            },
            PROP => {
                let Some(current) = depth.checked_sub(1) else {
                    return unexpected;
                };
                if open[current].has_children {
                    return unexpected;
                }
                let length = word(blob, in_block(offset + 8)? - 4)? as usize;
                let name_offset = word(blob, in_block(offset + 12)? - 4)? as usize;
                let value_at = offset + 12;
                at = in_block(value_at.saturating_add(length.next_multiple_of(4)))?;
                let value = blob.get(value_at..value_at + length).ok_or(DtbError::Truncated(offset))?;
                let name = name_at(blob, blocks.strings.start + name_offset, &blocks.strings)?;
                if name.is_empty() {
                    return Err(DtbError::Name(offset));
                }
                property(name, value, &mut open[..depth]).map_err(|wrong| wrong(offset))?;
            }
            END => {
                if depth != 0 || !root_seen {
                    return unexpected;
                }
                return Ok(());
            }
            _ => return unexpected,
        }
    }
}

/// Judges one property of the last of the `open` nodes.
fn property(name: &str, value: &[u8], open: &mut [Open]) -> Result<(), fn(usize) -> DtbError> {
    let Some((node, parents)) = open.split_last_mut() else {
        return Ok(());
    };
    node.properties = node.properties.saturating_add(1);
    match name {
        "#address-cells" | "#size-cells" => {
            let cells = <[u8; 4]>::try_from(value).map(u32::from_be_bytes).ok().filter(|&n| n <= MAX_CELLS);
            let cells = cells.ok_or(DtbError::Cells as fn(usize) -> DtbError)?;
            let place = if name == "#address-cells" { &mut node.address_cells } else { &mut node.size_cells };
            if place.replace(cells).is_some() {
                return Err(DtbError::Cells);
            }
        }
        "reg"
            if parents
                .last()
                .is_some_and(|parent| (parent.address_cells, parent.size_cells) == (Some(0), Some(0))) =>
        {
            return Err(DtbError::EmptyReg);
        }
        _ => {}
    }
    if node.is_aliases {
        let is_handle = matches!(name, "phandle" | "linux,phandle") && value.len() == 4;
        if name.starts_with('/') || !(is_handle || value.starts_with(b"/")) {
            return Err(DtbError::Alias);
        }
    }
    Ok(())
}

/// Closes the gaps that no-operation tokens leave, and corrects `size_dt_struct`. The block has passed [`walk`].
fn remove_no_operations(blob: &mut [u8], structure: &Range<usize>) -> Result<(), DtbError> {
    let (mut from, mut to) = (structure.start, structure.start);
    loop {
        let token = word(blob, from)?;
        let length = match token {
            NOP => {
                from += 4;
                continue;
            }
            BEGIN_NODE => 4 + (name_at(blob, from + 4, structure)?.len() + 1).next_multiple_of(4),
            PROP => 12 + (word(blob, from + 4)? as usize).next_multiple_of(4),
            _ => 4,
        };
        blob.copy_within(from..from + length, to);
        from += length;
        to += length;
        if token == END {
            break;
        }
    }
    // The block has become shorter, so its size still fits a word.
    let size = (to - structure.start) as u32;
    blob.get_mut(36..40).ok_or(DtbError::Truncated(36))?.copy_from_slice(&size.to_be_bytes());
    Ok(())
}

//! What a domain can start: kernels and unikernels, as files.
//!
//! | format | told by | module |
//! | --- | --- | --- |
//! | arm64 Linux `Image`, and unikernels with its header | `ARM\x64` at 56 | [`arm64`] |
//! | ELF, 64-bit little-endian AArch64 | `\x7fELF` | [`elf`] |
//! | flat binary | its first instruction is a branch forward in the file | here |
//! | any of these in gzip, zstd or an EFI zboot image | their magic numbers | [`packed`] |
//!
//! Flat binaries are loaded at the start of memory and entered at their first byte, as an `Image` is. What comes from a file
//! is judged before it is used: sizes are compared with the file and with the domain's memory.

mod arm64;
mod elf;
mod packed;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use pv_abi::arch_arm::{GUEST_RAM_BASE, GUEST_RAM0_SIZE};

use crate::privcmd::FilePages;

/// Why a file cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is something else, or damaged.
    #[error("{}: {wrong}", .path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        wrong: Wrong,
    },
}

/// What is wrong with a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// None of the formats.
    #[error("not a kernel for arm64: {0}")]
    Format(&'static str),
    /// It ends early.
    #[error("the file is cut off: {what} needs {needed} bytes, {found} are there")]
    Truncated {
        /// Which part.
        what: &'static str,
        /// Bytes that this part needs.
        needed: u64,
        /// Bytes there.
        found: u64,
    },
    /// It cannot be unpacked.
    #[error("cannot unpack it: {0}")]
    Packed(String),
    /// It does not fit.
    #[error("it needs {needed} MiB of memory, the domain has {memory}: raise memory=")]
    TooLarge {
        /// MiB that it needs.
        needed: u64,
        /// MiB that the domain has.
        memory: u64,
    },
    /// It wants to be where the domain has no memory.
    #[error(
        "it is linked for address {address:#x}, where a domain has no memory (that begins at {GUEST_RAM_BASE:#x})"
    )]
    Address {
        /// Where it wants to be.
        address: u64,
    },
    /// Its headers contradict themselves.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

/// Bytes to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where they begin in the image.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
    /// The guest physical address they go to.
    pub address: u64,
}

/// What a format's module found: where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    format: &'static str,
    segments: Vec<Segment>,
    start: u64,
    end: u64,
    entry: u64,
    /// It is an EFI program, too.
    efi: bool,
}

/// Where an image's bytes are.
#[derive(Debug)]
enum Content {
    File(FilePages),
    Memory(Vec<u8>),
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::File(pages) => pages.length(),
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// The file, if it is one and mapped.
    fn pages(&self) -> Option<&FilePages> {
        match self {
            Self::File(pages) => Some(pages).filter(|pages| pages.is_mapped()),
            Self::Memory(_) => None,
        }
    }

    /// Fills `to` from `offset` on.
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(pages) => pages.read_at(offset, to),
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let from = bytes.get(start..).and_then(|rest| rest.get(..to.len()));
                to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// A kernel or unikernel, ready to be copied into a domain.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    content: Content,
    plan: Plan,
}

/// Bytes at a file's start that tell its format. EFI zboot's header and the Image's fit, PE sections and ELF's program
/// headers are read where they are.
const HEAD: u64 = 4096;

impl Kernel {
    /// Reads a kernel for a domain of `memory` bytes. Only a packed one is read whole, and unpacked to at most as much.
    ///
    /// # Errors
    /// [`Error`]: what is wrong with the file.
    pub fn open(path: &Path, memory: u64) -> Result<Self, Error> {
        let content = open(path)?;
        let read = |error| Error::Read { path: path.into(), error };
        let wrong = |wrong| Error::Wrong { path: path.into(), wrong };
        let mut head = vec![0; content.length().min(HEAD) as usize];
        content.read_at(0, &mut head).map_err(read)?;
        let content = match packed::Packing::of(&head, content.length()).map_err(wrong)? {
            None => content,
            Some(packing) => {
                let mut bytes = vec![0; packing.bytes() as usize];
                content.read_at(packing.offset(), &mut bytes).map_err(read)?;
                Content::Memory(packing.unpack(&bytes, memory).map_err(wrong)?)
            }
        };
        let plan = plan(&content, memory).map_err(|error| match error {
            Problem::Read(error) => read(error),
            Problem::Wrong(error) => wrong(error),
        })?;
        Ok(Self { path: path.into(), content, plan })
    }

    /// Its format, for people.
    pub fn format(&self) -> &'static str {
        self.plan.format
    }

    /// What to copy where.
    pub fn segments(&self) -> &[Segment] {
        &self.plan.segments
    }

    /// Its lowest address.
    pub fn start(&self) -> u64 {
        self.plan.start
    }

    /// The address behind its last byte, and behind what it needs of memory after it.
    pub fn end(&self) -> u64 {
        self.plan.end
    }

    /// Whether it is an EFI program, too.
    pub fn is_efi(&self) -> bool {
        self.plan.efi
    }

    /// Where it is entered.
    pub fn entry(&self) -> u64 {
        self.plan.entry
    }

    /// The file's pages, if its bytes are those of the image.
    pub fn pages(&self) -> Option<&FilePages> {
        self.content.pages()
    }

    /// Fills `to` from the image's `offset` on.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<(), Error> {
        self.content.read_at(offset, to).map_err(|error| Error::Read { path: self.path.clone(), error })
    }
}

/// A file that is copied as it is: an initramfs.
#[derive(Debug)]
pub struct Module {
    path: PathBuf,
    content: Content,
}

impl Module {
    /// Opens the file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.into(), content: open(path)? })
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.content.length()
    }

    /// The file's pages, if its bytes are mapped.
    pub fn pages(&self) -> Option<&FilePages> {
        self.content.pages()
    }

    /// Fills `to` from `offset` on.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<(), Error> {
        self.content.read_at(offset, to).map_err(|error| Error::Read { path: self.path.clone(), error })
    }
}

fn open(path: &Path) -> Result<Content, Error> {
    let read = |error| Error::Read { path: path.into(), error };
    let file = File::open(path).map_err(read)?;
    let about = file.metadata().map_err(read)?;
    if !about.is_file() {
        return Err(read(io::Error::other("not a regular file")));
    }
    FilePages::new(file).map(Content::File).map_err(read)
}

/// A file that cannot be read, or is wrong.
#[derive(Debug)]
enum Problem {
    Read(io::Error),
    Wrong(Wrong),
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Finds the format of what is unpacked.
fn plan(content: &Content, memory: u64) -> Result<Plan, Problem> {
    let mut head = vec![0; content.length().min(HEAD) as usize];
    content.read_at(0, &mut head)?;
    let plan = if arm64::is(&head) {
        arm64::plan(content, &head)?
    } else if head.starts_with(elf::MAGIC) {
        elf::plan(content, &head)?
    } else if branches_into_itself(&head, content.length()) {
        flat(content.length())
    } else {
        return Err(Wrong::Format(what_it_is(&head)).into());
    };
    let outside = plan.segments.iter().find(|segment| segment.address < GUEST_RAM_BASE);
    if let Some(segment) = outside {
        return Err(Wrong::Address { address: segment.address }.into());
    }
    let needed = plan.end - GUEST_RAM_BASE;
    // Everything a domain starts with is in its first bank.
    let memory = memory.min(GUEST_RAM0_SIZE);
    if needed > memory {
        return Err(Wrong::TooLarge { needed: needed.div_ceil(1 << 20), memory: memory >> 20 }.into());
    }
    Ok(plan)
}

fn flat(length: u64) -> Plan {
    let start = GUEST_RAM_BASE;
    let segments = vec![Segment { offset: 0, bytes: length, address: start }];
    Plan { format: "flat binary", segments, start, end: start + length, entry: start, efi: false }
}

/// Whether a file begins with `b` to a place further on in it. Text and archives do not: the byte is not a letter.
fn branches_into_itself(head: &[u8], length: u64) -> bool {
    let Some(word) = le32(head, 0) else { return false };
    // B (DDI 0487 C6.2): 000101 and the distance in words, positive below 2^25.
    word >> 25 == 0b000_1010 && word & 0x1ff_ffff != 0 && u64::from(word & 0x1ff_ffff) * 4 < length
}

/// What a file that is no kernel looks like.
fn what_it_is(head: &[u8]) -> &'static str {
    if head.is_empty() {
        "the file is empty"
    } else if le32(head, 0x24) == Some(0x016f_2818) {
        "it is a zImage for 32-bit Arm"
    } else if le32(head, 0x202) == Some(u32::from_le_bytes(*b"HdrS")) {
        "it is a bzImage for x86"
    } else if head.starts_with(&[0x27, 0x05, 0x19, 0x56]) {
        "it is a uImage for U-Boot; give the Image that it was made from"
    } else if head.starts_with(b"MZ") {
        "it is an EFI program of another kind"
    } else if head.starts_with(b"0707") {
        "it is a cpio archive; an initramfs goes to ramdisk="
    } else if head.starts_with(b"\xd0\x0d\xfe\xed") {
        "it is a device tree"
    } else if head.starts_with(b"#!")
        || head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    {
        "it is text"
    } else if [&b"BZh"[..], b"\xfd7zXZ\0", b"\x02\x21\x4c\x18", b"\x89LZO"]
        .iter()
        .any(|magic| head.starts_with(magic))
    {
        "it is packed in a way that is not supported (gzip and zstd are)"
    } else {
        "it is no Image, no ELF program, and does not begin with a branch"
    }
}

/// The little-endian number at `offset`.
fn le32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn le16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|word| u16::from_le_bytes(*word))
}

fn le64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// Objects where `needed` bytes of the file should be, and are not.
fn expect_bytes(what: &'static str, needed: u64, found: u64) -> Result<(), Wrong> {
    if needed > found { Err(Wrong::Truncated { what, needed, found }) } else { Ok(()) }
}

//! dom0's kernel: an arm64 Linux `Image`, plain, gzip-compressed, or in an EFI "zboot" wrapper around gzip.
//!
//! The header and what it demands of whoever loads it: Linux, Documentation/arch/arm64/booting.rst, section 4.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The `Image` header's 64 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    code: [U32; 2],
    text_offset: U64,
    image_size: U64,
    flags: U64,
    reserved: [U64; 3],
    magic: [u8; 4],
    pe_offset: U32,
}

const HEADER_SIZE: usize = 64;
const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);

/// The start of a Linux EFI "zboot" image: drivers/firmware/efi/libstub/zboot-header.S.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ZbootHeader {
    mz: [u8; 4],
    magic: [u8; 4],
    payload_offset: U32,
    payload_size: U32,
    reserved: [U32; 2],
    compression: [u8; 8],
}

/// A kernel's start must be this much aligned, apart from its `text_offset`.
pub const ALIGNMENT: u64 = 2 << 20;
/// The most memory that a kernel image may take. Bounds what a corrupt header makes us reserve and decompress.
pub const MAX_MEMORY: u64 = 512 << 20;

/// Why a file is not a kernel that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// There are fewer bytes than a header.
    TooShort(usize),
    /// It does not have the magic of an `Image`; holds the first bytes and what they look like.
    NotImage([u8; 8], &'static str),
    /// It predates Linux 3.17 and does not say how much memory it takes.
    NoSize,
    /// The header asks for more than [`MAX_MEMORY`], or for less than it decompresses to.
    Size(u64),
    /// `text_offset` is not below [`ALIGNMENT`].
    TextOffset(u64),
    /// It is built for big-endian.
    BigEndian,
    /// Its compression is not gzip.
    Compression(&'static str),
    /// The compressed data end too early.
    Truncated,
    /// The compressed data are corrupt.
    Corrupt,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel: ")?;
        match self {
            Self::TooShort(size) => write!(f, "{size} bytes are too few for an arm64 Image"),
            Self::NotImage(found, kind) => {
                write!(f, "not an arm64 Image: starts with")?;
                found.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
                write!(f, " ({kind})")
            }
            Self::NoSize => write!(f, "the Image does not say how much memory it takes (before Linux 3.17)"),
            Self::Size(size) => write!(f, "the Image's header claims an impossible size of {size:#x} bytes"),
            Self::TextOffset(offset) => {
                write!(f, "the Image's header claims an impossible text offset of {offset:#x}")
            }
            Self::BigEndian => write!(f, "the Image is big-endian"),
            Self::Compression(kind) => {
                write!(f, "compressed with {kind}: only plain and gzip-compressed Images are supported")
            }
            Self::Truncated => write!(f, "the compressed data are cut off"),
            Self::Corrupt => write!(f, "the compressed data are corrupt"),
        }
    }
}

impl core::error::Error for ImageError {}

/// A kernel that can be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    source: Source<'a>,
    text_offset: u64,
    memory_size: u64,
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Plain(&'a [u8]),
    /// A gzip member (RFC 1952).
    Gzip(&'a [u8]),
}

impl<'a> Image<'a> {
    /// Reads the header of the kernel in `file`, decompressing as much as that takes.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let source = source(file)?;
        let header = match source {
            Source::Plain(bytes) => *bytes.first_chunk().ok_or(ImageError::TooShort(bytes.len()))?,
            Source::Gzip(member) => {
                let mut header = [0; HEADER_SIZE];
                let mut filled = 0;
                let outcome = gunzip(member, &mut |chunk| {
                    let room = header.get_mut(filled..).unwrap_or_default();
                    let count = room.len().min(chunk.len());
                    room.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                    filled += count;
                    if filled == HEADER_SIZE { Err(Enough) } else { Ok(()) }
                });
                match outcome {
                    Err(Inflate::Sink(Enough)) => header,
                    Err(Inflate::Error(error)) => return Err(error),
                    Ok(()) => return Err(ImageError::TooShort(filled)),
                }
            }
        };
        let (text_offset, memory_size) = requirements(&header)?;
        // What follows the image, a signature say, is no part of it.
        let source = match source {
            Source::Plain(bytes) => {
                let end = usize::try_from(memory_size).unwrap_or(usize::MAX).min(bytes.len());
                Source::Plain(bytes.get(..end).unwrap_or(bytes))
            }
            gzip => gzip,
        };
        Ok(Self { source, text_offset, memory_size })
    }

    /// Distance of the image from an address that is a multiple of [`ALIGNMENT`].
    pub const fn text_offset(&self) -> u64 {
        self.text_offset
    }

    /// Bytes that must be free from the image's start on: its own, and its BSS.
    pub const fn memory_size(&self) -> u64 {
        self.memory_size
    }

    /// Hands the image over in order, piece by piece: `sink` gets the offset from the image's start and the bytes.
    /// Never more than [`Image::memory_size`] bytes. The rest of that is left as it is; the kernel clears its BSS.
    ///
    /// # Errors
    /// The sink's, or the [`ImageError`] that turns up in the compressed data.
    pub fn load<E>(&self, mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), LoadError<E>> {
        let member = match self.source {
            Source::Plain(bytes) => return sink(0, bytes).map_err(LoadError::Sink),
            Source::Gzip(member) => member,
        };
        let mut at = 0;
        let mut overrun = false;
        let outcome = gunzip(member, &mut |chunk| {
            let end = at + chunk.len() as u64;
            if end > self.memory_size {
                overrun = true;
                return Err(None);
            }
            sink(at, chunk).map_err(Some)?;
            at = end;
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(Inflate::Sink(Some(error))) => Err(LoadError::Sink(error)),
            Err(Inflate::Sink(None)) => Err(LoadError::Image(ImageError::Size(self.memory_size))),
            Err(Inflate::Error(error)) => Err(LoadError::Image(error)),
        }
    }
}

/// Why [`Image::load`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError<E> {
    /// The image is at fault.
    Image(ImageError),
    /// The sink refused.
    Sink(E),
}

fn requirements(header: &[u8; HEADER_SIZE]) -> Result<(u64, u64), ImageError> {
    let raw = RawHeader::read_from_bytes(header).map_err(|_| ImageError::TooShort(HEADER_SIZE))?;
    if raw.magic != *b"ARM\x64" {
        return Err(not_image(header));
    }
    let (offset, size, flags) = (raw.text_offset.get(), raw.image_size.get(), raw.flags.get());
    if flags & 1 != 0 {
        return Err(ImageError::BigEndian);
    }
    if size == 0 {
        return Err(ImageError::NoSize);
    }
    if !(HEADER_SIZE as u64..=MAX_MEMORY).contains(&size) {
        return Err(ImageError::Size(size));
    }
    if offset >= ALIGNMENT {
        return Err(ImageError::TextOffset(offset));
    }
    Ok((offset, size))
}

/// What the file is, judged by its first bytes.
fn source(file: &[u8]) -> Result<Source<'_>, ImageError> {
    if file.starts_with(b"\x1f\x8b") {
        return Ok(Source::Gzip(file));
    }
    if let Ok((zboot, _)) = ZbootHeader::ref_from_prefix(file)
        && zboot.mz.starts_with(b"MZ")
        && zboot.magic == *b"zimg"
    {
        let (offset, size) = (zboot.payload_offset.get() as usize, zboot.payload_size.get() as usize);
        let payload = file.get(offset..).and_then(|rest| rest.get(..size)).ok_or(ImageError::Truncated)?;
        return match (&zboot.compression, compression(payload)) {
            ([b'g', b'z', b'i', b'p', ..], Some("gzip")) => Ok(Source::Gzip(payload)),
            (_, Some(kind)) if kind != "gzip" => Err(ImageError::Compression(kind)),
            _ => Err(ImageError::Corrupt),
        };
    }
    match compression(file) {
        Some(kind) => Err(ImageError::Compression(kind)),
        None => Ok(Source::Plain(file)),
    }
}

fn compression(bytes: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x04\x22\x4d\x18", "LZ4"),
        (b"\x02\x21\x4c\x18", "LZ4"),
        (b"BZh", "bzip2"),
        (b"\x89LZO", "LZO"),
    ];
    known.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
}

fn not_image(bytes: &[u8; HEADER_SIZE]) -> ImageError {
    let known: [(&[u8], &str); 6] = [
        (b"\x7fELF", "an ELF file"),
        (b"\x27\x05\x19\x56", "a U-Boot uImage"),
        (b"\xd0\x0d\xfe\xed", "a device tree or FIT image"),
        (b"070701", "a cpio archive"),
        (b"MZ", "an EFI program, but no kernel"),
        (&[0; HEADER_SIZE], "all zero"),
    ];
    let kind = known.iter().find(|(magic, _)| bytes.starts_with(magic));
    let mut found = [0; 8];
    found.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    ImageError::NotImage(found, kind.map_or("unknown", |(_, kind)| kind))
}

/// The sink has what it wants.
struct Enough;

enum Inflate<E> {
    Error(ImageError),
    Sink(E),
}

/// Decompresses one gzip member (RFC 1952) into `sink`, 32 KiB at most at a time, and verifies its checksum.
fn gunzip<E>(member: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), Inflate<E>> {
    let mut input = deflate_data(member).map_err(Inflate::Error)?;
    let mut state = Box::<DecompressorOxide>::default();
    let mut window = vec![0; miniz_oxide::inflate::core::TINFL_LZ_DICT_SIZE];
    let (mut at, mut total, mut sum) = (0, 0u64, !0);
    loop {
        let (status, read, written) = decompress(&mut state, input, &mut window, at, 0);
        let chunk = window.get(at..at + written).ok_or(Inflate::Error(ImageError::Corrupt))?;
        input = input.get(read..).unwrap_or_default();
        sum = crc32(sum, chunk);
        total = total.wrapping_add(written as u64);
        sink(chunk).map_err(Inflate::Sink)?;
        at = (at + written) % window.len();
        match status {
            TINFLStatus::Done => break,
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                return Err(Inflate::Error(ImageError::Truncated));
            }
            _ => return Err(Inflate::Error(ImageError::Corrupt)),
        }
    }
    let (Some(stored), Some(length)) =
        (input.first_chunk::<4>(), input.get(4..).and_then(|rest| rest.first_chunk::<4>()))
    else {
        return Err(Inflate::Error(ImageError::Truncated));
    };
    if u32::from_le_bytes(*stored) != !sum || u32::from_le_bytes(*length) != total as u32 {
        return Err(Inflate::Error(ImageError::Corrupt));
    }
    Ok(())
}

/// What follows a gzip member's header.
fn deflate_data(member: &[u8]) -> Result<&[u8], ImageError> {
    let [0x1f, 0x8b, method, flags, _, _, _, _, _, _, rest @ ..] = member else {
        return Err(ImageError::Truncated);
    };
    if *method != 8 || flags & 0xe0 != 0 {
        return Err(ImageError::Corrupt);
    }
    let mut rest = rest;
    if flags & 4 != 0 {
        let (length, extra) = rest.split_first_chunk::<2>().ok_or(ImageError::Truncated)?;
        rest = extra.get(u16::from_le_bytes(*length) as usize..).ok_or(ImageError::Truncated)?;
    }
    // A file name, a comment: each ends with a NUL.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = rest.iter().position(|&byte| byte == 0).ok_or(ImageError::Truncated)?;
            rest = rest.get(end + 1..).ok_or(ImageError::Truncated)?;
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..).ok_or(ImageError::Truncated)?;
    }
    Ok(rest)
}

/// Continues the CRC-32 of RFC 1952, section 8, over `bytes`; starts at and ends with a complement.
fn crc32(sum: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < table.len() {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ ((value & 1) * 0xedb8_8320);
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(sum, |sum, &byte| (sum >> 8) ^ TABLE[(sum as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    fn image(length: usize) -> Vec<u8> {
        let mut image: Vec<u8> = (0..length).map(|at| ((at * at) >> 7) as u8).collect();
        image[..64].fill(0);
        image[..2].copy_from_slice(b"MZ");
        image[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
        image[16..24].copy_from_slice(&(length as u64 + 0x1000).to_le_bytes());
        image[24] = 0xa;
        image[56..60].copy_from_slice(b"ARM\x64");
        image
    }

    fn gzip(data: &[u8], flags: u8, extra: &[u8]) -> Vec<u8> {
        let mut file = std::vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3];
        file.extend(extra);
        file.extend(compress_to_vec(data, 6));
        file.extend((!crc32(!0, data)).to_le_bytes());
        file.extend((data.len() as u32).to_le_bytes());
        file
    }

    fn zboot(payload: &[u8], kind: &[u8; 8]) -> Vec<u8> {
        let mut file = b"MZ\0\0zimg".to_vec();
        file.extend(64u32.to_le_bytes());
        file.extend((payload.len() as u32).to_le_bytes());
        file.extend([0; 8]);
        file.extend(kind);
        file.resize(64, 0);
        file.extend(payload);
        file
    }

    fn loaded(file: &[u8]) -> Result<Vec<u8>, LoadError<()>> {
        let mut memory = Vec::new();
        Image::parse(file).map_err(LoadError::Image)?.load(|at, bytes| {
            assert_eq!(at as usize, memory.len());
            memory.extend(bytes);
            Ok(())
        })?;
        Ok(memory)
    }

    fn error(file: &[u8]) -> ImageError {
        match loaded(file) {
            Err(LoadError::Image(error)) => error,
            other => panic!("not refused: {:?}", other.map(|memory| memory.len())),
        }
    }

    #[test]
    fn loads_each_kind() {
        let plain = image(100_000);
        let parsed = Image::parse(&plain).unwrap();
        assert_eq!((parsed.text_offset(), parsed.memory_size()), (0x8_0000, 100_000 + 0x1000));
        let compressed = gzip(&plain, 0, &[]);
        let named = gzip(&plain, 0x1e, b"\x02\0xxImage\0comment\0hh");
        let wrapped = zboot(&compressed, b"gzip\0\0\0\0");
        for file in [&plain, &compressed, &named, &wrapped] {
            assert!(loaded(file).unwrap() == plain);
        }
    }

    #[test]
    fn what_follows_a_plain_image_is_left_out() {
        let mut signed = image(5000);
        signed.resize(5000 + 0x1000, 0);
        let whole = signed.clone();
        signed.extend(b"signature");
        assert!(loaded(&signed).unwrap() == whole);
    }

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn mistakes_are_named() {
        let plain = image(5000);
        let with = |at: usize, bytes: &[u8]| {
            let mut file = plain.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            error(&file)
        };
        assert_eq!(error(&plain[..63]), ImageError::TooShort(63));
        assert_eq!(with(16, &[0; 8]), ImageError::NoSize);
        assert_eq!(with(16, &[0xff; 8]), ImageError::Size(u64::MAX));
        assert_eq!(with(8, &[0, 0, 0x20]), ImageError::TextOffset(0x20_0000));
        assert_eq!(with(24, &[1]), ImageError::BigEndian);
        assert!(with(56, b"RISC").to_string().contains("4d 5a 00 00"));
        assert!(with(0, &[0; 64]).to_string().contains("all zero"));
        let mut elf = std::vec![0; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        assert!(error(&elf).to_string().contains("ELF"));
        assert_eq!(error(b"\xfd7zXZ\0"), ImageError::Compression("xz"));
        assert_eq!(error(&zboot(b"\x28\xb5\x2f\xfd", b"zstd\0\0\0\0")), ImageError::Compression("zstd"));
        let file = gzip(&plain, 0, &[]);
        assert_eq!(error(&file[..file.len() - 1]), ImageError::Truncated);
        assert_eq!(error(&file[..file.len() / 2]), ImageError::Truncated);
        assert_eq!(error(&file[..5]), ImageError::Truncated);
        let mut sum = file.clone();
        *sum.last_mut().unwrap() ^= 1;
        assert_eq!(error(&sum), ImageError::Corrupt);
    }

    #[test]
    fn what_unpacks_to_more_than_it_claims_is_stopped() {
        let mut bomb = image(5000);
        bomb.resize(1 << 24, 0);
        let file = gzip(&bomb, 0, &[]);
        let parsed = Image::parse(&file).unwrap();
        let mut received = 0;
        let outcome = parsed.load::<()>(|_, bytes| {
            received += bytes.len() as u64;
            Ok(())
        });
        assert_eq!(outcome, Err(LoadError::Image(ImageError::Size(parsed.memory_size()))));
        assert!(received <= parsed.memory_size());
    }

    #[test]
    fn the_sink_may_refuse() {
        for file in [image(5000), gzip(&image(5000), 0, &[])] {
            assert_eq!(Image::parse(&file).unwrap().load(|_, _| Err("full")), Err(LoadError::Sink("full")));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(start in 0usize..4, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut file = [&b""[..], b"\x1f\x8b\x08", b"MZ\0\0zimg", b"MZ"][start].to_vec();
            file.extend(bytes);
            let _ = loaded(&file);
        }

        #[test]
        fn any_mutant_is_judged(edits in prop::collection::vec((any::<u16>(), any::<u8>()), 1..5), wrap: bool) {
            let mut file = gzip(&image(3000), 0, &[]);
            if wrap {
                file = zboot(&file, b"gzip\0\0\0\0");
            }
            for (at, value) in edits {
                let at = at as usize % file.len();
                file[at] = value;
            }
            if let Ok(memory) = loaded(&file) {
                prop_assert!(memory.len() as u64 <= MAX_MEMORY);
            }
        }
    }
}

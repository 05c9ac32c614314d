//! Kernels that are packed: gzip, zstd, and either of them in an EFI zboot image (Linux, `drivers/firmware/efi/libstub/zboot.lds`).

use std::io::{self, Read};

use super::{Wrong, expect_bytes, le32};

/// The most that an unpacked kernel may have, whatever the domain's memory.
const LARGEST: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Gzip,
    Zstd,
}

/// How a file is packed, and where in it the packed bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    method: Method,
    offset: u64,
    bytes: u64,
}

impl Packing {
    /// That of a file of `length` bytes with this beginning; `None` if it is not packed.
    pub(super) fn of(head: &[u8], length: u64) -> Result<Option<Self>, Wrong> {
        if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
            return Self::of_zboot(head, length).map(Some);
        }
        let method = method_of(head);
        Ok(method.map(|method| Self { method, offset: 0, bytes: length }))
    }

    /// `struct linux_efi_zboot_header`: `zimg` at 4, offset and size of the payload at 8 and 12, the method's name at 24.
    fn of_zboot(head: &[u8], length: u64) -> Result<Self, Wrong> {
        let (Some(offset), Some(bytes), Some(name)) = (le32(head, 8), le32(head, 12), head.get(24..56))
        else {
            return Err(Wrong::Truncated {
                what: "the header of an EFI zboot image",
                needed: 64,
                found: length,
            });
        };
        let method = if name.starts_with(b"gzip\0") {
            Method::Gzip
        } else if name.starts_with(b"zstd") {
            Method::Zstd
        } else {
            return Err(Wrong::Packed("an EFI zboot image packed in another way than gzip or zstd".into()));
        };
        let (offset, bytes) = (u64::from(offset), u64::from(bytes));
        expect_bytes("the packed kernel in an EFI zboot image", offset + bytes, length)?;
        Ok(Self { method, offset, bytes })
    }

    /// Where the packed bytes begin.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many there are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Unpacks, if that makes no more than `memory` bytes. What follows the packed data is ignored.
    pub(super) fn unpack(&self, bytes: &[u8], memory: u64) -> Result<Vec<u8>, Wrong> {
        let limit = memory.min(LARGEST);
        let unpacked = match self.method {
            Method::Gzip => read_bounded(flate2::bufread::GzDecoder::new(bytes), limit),
            Method::Zstd => ruzstd::decoding::StreamingDecoder::new(bytes)
                .map_err(io::Error::other)
                .and_then(|decoder| read_bounded(decoder, limit)),
        };
        match unpacked {
            Ok(Some(unpacked)) => Ok(unpacked),
            Ok(None) => Err(Wrong::TooLarge { needed: (limit >> 20) + 1, memory: memory >> 20 }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Wrong::Packed("the file is cut off".into()))
            }
            Err(error) => Err(Wrong::Packed(error.to_string())),
        }
    }
}

fn method_of(head: &[u8]) -> Option<Method> {
    if head.starts_with(&[0x1f, 0x8b]) {
        Some(Method::Gzip)
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Some(Method::Zstd)
    } else {
        None
    }
}

/// All that comes, or `None` if it is more than `limit`.
fn read_bounded(from: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

//! The bundle: everything for dom0 in one file, given where a boot loader expects a Linux initrd.
//!
//! It is a cpio archive of the "newc" kind (Linux, Documentation/driver-api/early-userspace/buffer-format.rst) with
//! the members `kernel`, `ramdisk` and `cmdline`; a Raspberry Pi's firmware can load nothing more elaborate.
//! Archives may follow one another, as that firmware joins files; of a member that occurs twice the last counts.

use core::fmt;

/// The dom0 that a bundle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// Its kernel, as it came.
    pub kernel: &'a [u8],
    /// Its initramfs.
    pub ramdisk: Option<&'a [u8]>,
    /// Its command line, without blanks or NULs at the ends.
    pub cmdline: Option<&'a str>,
}

/// Why a file is not a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It is no cpio archive; holds the first bytes.
    NotCpio([u8; 6]),
    /// It is compressed as a whole, which a bundle must not be (its ramdisk may).
    Compressed,
    /// It ends in the middle of the member that starts at this offset.
    Truncated(usize),
    /// The header at this offset holds something that is not a number, or a name that is not text.
    Header(usize),
    /// There is no member `kernel`.
    NoKernel,
    /// The command line is not UTF-8.
    Cmdline,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCpio(found) => {
                write!(f, "bundle: not a cpio archive (newc): starts with")?;
                found.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
            Self::Compressed => {
                write!(f, "bundle: the archive is compressed; it must not be (its ramdisk may)")
            }
            Self::Truncated(at) => {
                write!(f, "bundle: the archive is cut off in the member at offset {at:#x}")
            }
            Self::Header(at) => write!(f, "bundle: the archive has a malformed header at offset {at:#x}"),
            Self::NoKernel => write!(f, "bundle: the archive has no member named 'kernel'"),
            Self::Cmdline => write!(f, "bundle: the member 'cmdline' is not text"),
        }
    }
}

impl core::error::Error for BundleError {}

/// Bytes of a member's header: the magic and 13 numbers of 8 hexadecimal digits.
const HEADER: usize = 6 + 13 * 8;
/// Names are short; a longer one is a corrupt header.
const MAX_NAME: usize = 4096;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// Finds dom0's parts in `archive`. Bytes after the last archive that are not one are ignored.
///
/// # Errors
/// See [`BundleError`].
pub fn read(archive: &[u8]) -> Result<Bundle<'_>, BundleError> {
    let (mut kernel, mut ramdisk, mut cmdline) = (None, None, None);
    let mut reader = Reader { archive, at: 0, is_inside: false };
    while let Some(member) = reader.next()? {
        if member.mode & S_IFMT != S_IFREG {
            continue;
        }
        match member.name.trim_start_matches("./") {
            "kernel" => kernel = Some(member.data),
            "ramdisk" => ramdisk = Some(member.data),
            "cmdline" => cmdline = Some(member.data),
            _ => {}
        }
    }
    let kernel = kernel.ok_or(BundleError::NoKernel)?;
    let is_blank = |c: char| c == '\0' || c.is_ascii_whitespace();
    let cmdline = match cmdline.map(core::str::from_utf8) {
        None => None,
        Some(Ok(line)) => Some(line.trim_matches(is_blank)),
        Some(Err(_)) => return Err(BundleError::Cmdline),
    };
    Ok(Bundle { kernel, ramdisk, cmdline })
}

struct Member<'a> {
    name: &'a str,
    mode: u32,
    data: &'a [u8],
}

/// Where reading has got to.
struct Reader<'a> {
    archive: &'a [u8],
    at: usize,
    /// The trailer of the current archive is still to come.
    is_inside: bool,
}

impl<'a> Reader<'a> {
    /// The next member, of this archive or of the one that follows; `None` at the end.
    fn next(&mut self) -> Result<Option<Member<'a>>, BundleError> {
        loop {
            let at = self.at;
            let rest = self.archive.get(at..).unwrap_or_default();
            if !rest.starts_with(b"070701") && !rest.starts_with(b"070702") {
                // Between archives there is nothing but padding.
                match rest.iter().position(|&byte| byte != 0) {
                    _ if at == 0 => return Err(foreign(rest)),
                    _ if self.is_inside && rest.len() < HEADER => return Err(BundleError::Truncated(at)),
                    _ if self.is_inside => return Err(BundleError::Header(at)),
                    Some(padding) if padding > 0 => self.at = at + padding,
                    _ => return Ok(None),
                }
                continue;
            }
            let header = rest.get(..HEADER).ok_or(BundleError::Truncated(at))?;
            let field = |index: usize| {
                let digits = header.get(6 + index * 8..).and_then(|rest| rest.get(..8));
                let digits = digits.and_then(|digits| core::str::from_utf8(digits).ok());
                digits
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .ok_or(BundleError::Header(at))
            };
            let (mode, size, name_size) = (field(1)?, field(6)? as usize, field(11)? as usize);
            if !(1..=MAX_NAME).contains(&name_size) {
                return Err(BundleError::Header(at));
            }
            let name = rest.get(HEADER..HEADER + name_size).ok_or(BundleError::Truncated(at))?;
            let name = name.strip_suffix(&[0]).ok_or(BundleError::Header(at))?;
            let name = core::str::from_utf8(name).map_err(|_| BundleError::Header(at))?;
            // Sums of 32-bit numbers and an offset into a slice do not overflow.
            let data_at = at + (HEADER + name_size).next_multiple_of(4);
            let data = self.archive.get(data_at..data_at + size).ok_or(BundleError::Truncated(at))?;
            self.at = (data_at + size).next_multiple_of(4);
            self.is_inside = name != "TRAILER!!!";
            if self.is_inside {
                return Ok(Some(Member { name, mode, data }));
            }
        }
    }
}

fn foreign(bytes: &[u8]) -> BundleError {
    let mut found = [0; 6];
    found.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    // gzip, xz, zstd, LZ4 (frame and legacy), bzip2.
    let compressions: [&[u8]; 6] =
        [b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18", b"BZh"];
    if compressions.iter().any(|magic| bytes.starts_with(magic)) {
        BundleError::Compressed
    } else {
        BundleError::NotCpio(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::format;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    fn add(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
        let numbers = [1, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        archive.extend(b"070701");
        numbers.iter().for_each(|number| archive.extend(format!("{number:08X}").as_bytes()));
        archive.extend(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        add(&mut archive, ".", 0o40_755, &[]);
        members.iter().for_each(|(name, data)| add(&mut archive, name, 0o100_644, data));
        add(&mut archive, "TRAILER!!!", 0, &[]);
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive
    }

    #[test]
    fn finds_the_members() {
        let file = archive(&[
            ("./kernel", b"MZ"),
            ("ramdisk", b"xyz"),
            ("cmdline", b" console=hvc0 \n"),
            ("x", b"y"),
        ]);
        let bundle = read(&file).unwrap();
        assert_eq!(bundle, Bundle { kernel: b"MZ", ramdisk: Some(b"xyz"), cmdline: Some("console=hvc0") });
        let file = archive(&[("kernel", b"MZ")]);
        assert_eq!(read(&file).unwrap(), Bundle { kernel: b"MZ", ramdisk: None, cmdline: None });
    }

    #[test]
    fn archives_may_follow_one_another() {
        let mut file = archive(&[("kernel", b"old"), ("cmdline", b"a")]);
        file.extend(archive(&[("kernel", b"new")]));
        let bundle = read(&file).unwrap();
        assert_eq!((bundle.kernel, bundle.cmdline), (&b"new"[..], Some("a")));
    }

    #[test]
    fn mistakes_are_named() {
        let good = archive(&[("kernel", b"MZ")]);
        assert_eq!(read(&archive(&[("vmlinuz", b"MZ")])), Err(BundleError::NoKernel));
        assert_eq!(read(b"\x1f\x8b\x08\0"), Err(BundleError::Compressed));
        assert_eq!(read(b""), Err(BundleError::NotCpio([0; 6])));
        assert_eq!(read(&[0; 64]), Err(BundleError::NotCpio([0; 6])));
        assert!(read(b"MZ\x40\xfa").unwrap_err().to_string().contains("4d 5a 40 fa"));
        assert_eq!(read(&good[..150]), Err(BundleError::Truncated(112)));
        let mut huge = good.clone();
        huge[112 + 6 + 6 * 8..][..8].copy_from_slice(b"FFFFFFFF");
        assert_eq!(read(&huge), Err(BundleError::Truncated(112)));
        let mut sign = good.clone();
        sign[112 + 6 + 6 * 8..][..8].copy_from_slice(b"+0000002");
        assert_eq!(read(&sign), Err(BundleError::Header(112)));
        let mut directory = Vec::new();
        add(&mut directory, "kernel", 0o40_755, &[]);
        assert_eq!(read(&directory), Err(BundleError::Truncated(directory.len())));
        add(&mut directory, "TRAILER!!!", 0, &[]);
        assert_eq!(read(&directory), Err(BundleError::NoKernel));
        assert_eq!(read(&archive(&[("kernel", b""), ("cmdline", b"\xff")])), Err(BundleError::Cmdline));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn any_mutant_is_read(
            edits in prop::collection::vec((0usize..600, any::<u8>()), 0..6),
            cut in 0usize..2000,
        ) {
            let mut file = archive(&[("kernel", &[7; 100]), ("ramdisk", &[8; 33]), ("cmdline", b"quiet")]);
            for (at, value) in edits {
                let at = at % file.len();
                file[at] = value;
            }
            file.truncate(cut);
            if let Ok(bundle) = read(&file) {
                prop_assert!(bundle.kernel.len() <= file.len());
            }
        }

        #[test]
        fn what_was_put_in_comes_out(kernel in prop::collection::vec(any::<u8>(), 0..50),
                                     ramdisk in prop::collection::vec(any::<u8>(), 0..50)) {
            let file = archive(&[("kernel", &kernel), ("ramdisk", &ramdisk)]);
            let bundle = read(&file).unwrap();
            prop_assert_eq!(bundle.kernel, &kernel[..]);
            prop_assert_eq!(bundle.ramdisk, Some(&ramdisk[..]));
        }
    }
}

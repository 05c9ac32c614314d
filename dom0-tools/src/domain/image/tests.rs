//! Kernels of every format, whole and damaged.

use std::io::Write;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 64 * MIB;

/// An Image of `length` bytes that says it needs `image_size`.
fn image(length: usize, image_size: u64) -> Vec<u8> {
    let mut image = vec![0u8; length.max(256)];
    image[..2].copy_from_slice(b"MZ");
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[24..32].copy_from_slice(&0b1010u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    // One PE section that ends where the file does.
    image[60..64].copy_from_slice(&64u32.to_le_bytes());
    image[64..68].copy_from_slice(b"PE\0\0");
    image[70..72].copy_from_slice(&1u16.to_le_bytes());
    let size = image.len() as u32 - 128;
    image[88 + 16..88 + 20].copy_from_slice(&size.to_le_bytes());
    image[88 + 20..88 + 24].copy_from_slice(&128u32.to_le_bytes());
    image
}

/// An ELF program with these segments: virtual and physical address, bytes in the file and in memory.
fn elf(kind: u16, entry: u64, segments: &[(u64, u64, u64, u64)]) -> Vec<u8> {
    let mut file = vec![0u8; 64 + 56 * segments.len()];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&183u16.to_le_bytes());
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    for (index, (virtual_address, address, bytes, memory)) in segments.iter().enumerate() {
        let at = 64 + 56 * index;
        let offset = file.len() as u64;
        file[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
        for (field, value) in
            [(8, offset), (16, *virtual_address), (24, *address), (32, *bytes), (40, *memory)]
        {
            file[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
        }
        file.resize(file.len() + *bytes as usize, index as u8 + 1);
    }
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn zboot(method: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0u8; 512];
    file[..8].copy_from_slice(b"MZ\0\0zimg");
    file[8..12].copy_from_slice(&512u32.to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + method.len()].copy_from_slice(method);
    file.extend_from_slice(payload);
    file.extend_from_slice(&[0xaa; 100]);
    file
}

/// What `Kernel::open` does once the file is open.
fn open_bytes(bytes: &[u8], memory: u64) -> Result<Plan, Wrong> {
    let head = &bytes[..bytes.len().min(HEAD as usize)];
    let content = match packed::Packing::of(head, bytes.len() as u64)? {
        None => Content::Memory(bytes.to_vec()),
        Some(packing) => {
            let start = packing.offset() as usize;
            let payload = &bytes[start..start + packing.bytes() as usize];
            Content::Memory(packing.unpack(payload, memory)?)
        }
    };
    plan(&content, memory).map_err(|problem| match problem {
        Problem::Wrong(wrong) => wrong,
        Problem::Read(error) => panic!("bytes in memory can be read, but: {error}"),
    })
}

#[test]
fn an_image_goes_to_the_start_of_memory() {
    let plan = open_bytes(&image(5000, 3 * MIB), MEMORY).unwrap();
    assert_eq!(plan.segments, [Segment { offset: 0, bytes: 5000, address: 0x4000_0000 }]);
    assert_eq!((plan.start, plan.end, plan.entry), (0x4000_0000, 0x4030_0000, 0x4000_0000));
    // Before Linux 3.17: no size, and 512 KiB above the boundary.
    let plan = open_bytes(&image(5000, 0), MEMORY).unwrap();
    assert_eq!((plan.start, plan.end, plan.entry), (0x4008_0000, 0x4008_0000 + 5000, 0x4008_0000));
}

#[test]
fn packed_images_are_the_image() {
    let plain = image(100_000, 3 * MIB);
    let expected = open_bytes(&plain, MEMORY).unwrap();
    for packed in [
        gzip(&plain),
        zstd(&plain),
        zboot(b"gzip", &gzip(&plain)),
        zboot(b"zstd", &zstd(&plain)),
        zboot(b"zstd22", &zstd(&plain)),
    ] {
        assert_eq!(open_bytes(&packed, MEMORY).as_ref(), Ok(&expected));
    }
    let lzma = open_bytes(&zboot(b"lzma", &plain), MEMORY).unwrap_err();
    assert!(lzma.to_string().contains("gzip or zstd"), "{lzma}");
}

#[test]
fn unpacking_is_bounded_by_the_domains_memory() {
    let large = image(3 << 20, 3 * MIB);
    for packed in [gzip(&large), zstd(&large)] {
        assert_eq!(open_bytes(&packed, 2 * MIB), Err(Wrong::TooLarge { needed: 3, memory: 2 }));
    }
}

#[test]
fn programs_go_to_their_physical_addresses() {
    // Linked high, loaded low, as kernels of their own are.
    let high = 0xffff_0000_0000_0000u64;
    let file =
        elf(2, high + 0x2010, &[(high + 0x2000, 0x4000_2000, 100, 0x1000), (high, 0x4000_0000, 50, 0x2000)]);
    let plan = open_bytes(&file, MEMORY).unwrap();
    assert_eq!(plan.entry, 0x4000_2010);
    assert_eq!((plan.start, plan.end), (0x4000_0000, 0x4000_3000));
    assert_eq!(plan.segments[0], Segment { offset: 64 + 112 + 100, bytes: 50, address: 0x4000_0000 });
    // Position independent: moved to where memory is.
    let plan = open_bytes(&elf(3, 0x1_0010, &[(0x1_0000, 0x1_0000, 32, 32)]), MEMORY).unwrap();
    assert_eq!((plan.start, plan.entry), (0x4001_0000, 0x4001_0010));
    let fixed = open_bytes(&elf(2, 0x8_0000, &[(0x8_0000, 0x8_0000, 4, 4)]), MEMORY);
    assert_eq!(fixed, Err(Wrong::Address { address: 0x8_0000 }));
}

#[test]
fn damaged_programs_are_refused() {
    let at = 0x4000_0000;
    let cases = [
        (elf(2, at, &[]), "nothing to load"),
        (elf(2, at, &[(at, at, 8, 4)]), "more bytes in the file"),
        (elf(2, at, &[(at, at, 8, 0x1000), (at + 0x800, at + 0x800, 8, 8)]), "across each other"),
        (elf(2, 0, &[(at, at, 8, 8)]), "entry is in none"),
        (elf(2, at, &[(at, at, 8, u64::MAX)]), "beyond all addresses"),
        (elf(2, at, &[(at, at, 8, 1 << 40)]), "raise memory="),
        (elf(1, at, &[(at, at, 8, 8)]), "no program"),
    ];
    for (file, expected) in cases {
        let error = open_bytes(&file, MEMORY).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} instead of {expected}");
    }
    let mut cut = elf(2, at, &[(at, at, 100, 100)]);
    cut.truncate(150);
    let truncated = Wrong::Truncated { what: "a segment", needed: 220, found: 150 };
    assert_eq!(open_bytes(&cut, MEMORY), Err(truncated));
}

#[test]
fn a_flat_binary_begins_with_a_branch_into_itself() {
    let mut flat = vec![0u8; 4096];
    flat[..4].copy_from_slice(&0x1400_0010u32.to_le_bytes());
    assert_eq!(open_bytes(&flat, MEMORY).unwrap().entry, 0x4000_0000);
    // Behind its end.
    flat[..4].copy_from_slice(&0x1400_1000u32.to_le_bytes());
    assert!(open_bytes(&flat, MEMORY).is_err());
}

#[test]
fn what_is_no_kernel_is_named() {
    let bzimage = {
        let mut file = vec![0u8; 1024];
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file
    };
    let zimage = {
        let mut file = vec![0u8; 1024];
        file[0x24..0x28].copy_from_slice(&0x016f_2818u32.to_le_bytes());
        file
    };
    let mut x86 = elf(2, 0, &[(0, 0, 4, 4)]);
    x86[18] = 62;
    let mut elf32 = elf(2, 0, &[(0, 0, 4, 4)]);
    elf32[4] = 1;
    elf32[18] = 40;
    let mut big_endian = image(4096, 8192);
    big_endian[24] |= 1;
    let cases = [
        (bzimage, "bzImage for x86"),
        (zimage, "zImage for 32-bit Arm"),
        (x86, "x86-64"),
        (elf32, "32-bit Arm"),
        (big_endian, "big-endian"),
        (vec![], "empty"),
        (b"name = \"guest\"\nmemory = 256\n".to_vec(), "text"),
        (b"070701000000".to_vec(), "ramdisk="),
        (b"\x27\x05\x19\x56uImage".to_vec(), "U-Boot"),
        (b"\xd0\x0d\xfe\xed\0\0\0\x40".to_vec(), "device tree"),
        (b"\xfd7zXZ\0\0\0".to_vec(), "gzip and zstd"),
        (vec![0x80; 100], "does not begin with a branch"),
    ];
    for (file, expected) in cases {
        let error = open_bytes(&file, MEMORY).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} instead of {expected}");
    }
}

#[test]
fn files_that_are_cut_off_are_refused() {
    let plain = image(100_000, 3 * MIB);
    let mut cut = plain.clone();
    cut.truncate(60_000);
    let wrong = Wrong::Truncated { what: "the Image", needed: 100_000, found: 60_000 };
    assert_eq!(open_bytes(&cut, MEMORY), Err(wrong));
    for packed in [gzip(&plain), zstd(&plain)] {
        let error = open_bytes(&packed[..packed.len() / 2], MEMORY).unwrap_err();
        assert!(matches!(error, Wrong::Packed(_)), "{error}");
    }
    let packed = zboot(b"gzip", &gzip(&plain));
    let error = open_bytes(&packed[..packed.len() / 2], MEMORY).unwrap_err();
    assert!(matches!(error, Wrong::Truncated { .. }), "{error}");
}

#[test]
fn a_kernel_needs_its_memory() {
    let error = open_bytes(&image(5000, 65 * MIB), MEMORY).unwrap_err();
    assert_eq!(error, Wrong::TooLarge { needed: 65, memory: 64 });
}

#[test]
fn errors_name_the_file() {
    let error = Kernel::open(Path::new("/nowhere/vmlinuz"), MEMORY).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/vmlinuz"), "{error}");
    let error = Kernel::open(Path::new("/"), MEMORY).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = Kernel::open(Path::new("/proc/self/comm"), MEMORY).unwrap_err();
    assert!(error.to_string().starts_with("/proc/self/comm: not a kernel for arm64"), "{error}");
}

proptest! {
    /// Whatever is in the file: a plan within file and memory, or an error.
    #[test]
    fn plans_stay_within_file_and_memory(
        kind in 0usize..6, edits in prop::collection::vec((0usize..1200, any::<u8>()), 0..20), cut in 0usize..3000
    ) {
        let at = 0x4000_0000;
        let plain = image(1000, 2 * MIB);
        let mut file = match kind {
            0 => plain,
            1 => elf(2, at, &[(at, at, 300, 0x1000), (at + 0x1000, at + 0x1000, 300, 0x1000)]),
            2 => elf(3, 0x10, &[(0, 0, 300, 0x1000)]),
            3 => gzip(&plain),
            4 => zstd(&plain),
            _ => zboot(b"zstd", &zstd(&plain)),
        };
        for (place, byte) in edits {
            if let Some(at) = file.get_mut(place) {
                *at = byte;
            }
        }
        file.truncate(cut.max(1));
        let length = file.len() as u64;
        if let Ok(plan) = open_bytes(&file, MEMORY) {
            prop_assert!(plan.end <= GUEST_RAM_BASE + MEMORY);
            for segment in &plan.segments {
                prop_assert!(segment.address >= plan.start && segment.address + segment.bytes <= plan.end);
                if kind < 3 {
                    prop_assert!(segment.offset + segment.bytes <= length);
                }
            }
        }
    }
}

//! Sets of CPUs or nodes in guest memory (`struct xenctl_bitmap`): copies in and out, as long as either side has bits.

use pv_abi::Errno;
use pv_abi::xen::Bitmap;
use zerocopy::IntoBytes;

use super::Caller;
use crate::mm::guest;

/// The longest bitmap that is filled, in bytes: more CPUs than any machine has.
const MAX_BYTES: u64 = 4096;

fn bytes_of(bitmap: &Bitmap) -> u64 {
    u64::from(bitmap.nr_bits).div_ceil(8)
}

/// Reads the first 32 bits of `bitmap`; bits past its end are clear.
///
/// # Errors
/// `EFAULT`.
pub fn read(caller: &Caller<'_>, bitmap: &Bitmap) -> Result<u32, Errno> {
    let mut bits = 0u32;
    let wanted = bytes_of(bitmap).min(size_of::<u32>() as u64) as usize;
    guest::read_slice(caller, bitmap.bitmap.raw(), &mut bits.as_mut_bytes()[..wanted])?;
    Ok(match bitmap.nr_bits {
        0..32 => u32::from_le(bits) & ((1 << bitmap.nr_bits) - 1),
        _ => u32::from_le(bits),
    })
}

/// Writes `bits`, cut or continued with zeros to the length of `bitmap`, whose last byte may hold more bits.
///
/// # Errors
/// `EFAULT`; `EINVAL` beyond any sensible length.
pub fn write(caller: &Caller<'_>, bitmap: &Bitmap, bits: u32) -> Result<(), Errno> {
    let length = bytes_of(bitmap);
    if length > MAX_BYTES {
        return Err(Errno::EINVAL);
    }
    let mut at = 0;
    let mut chunk = [0; 64];
    chunk[..size_of::<u32>()].copy_from_slice(&bits.to_le_bytes());
    while at < length {
        let count = (length - at).min(chunk.len() as u64);
        let address = bitmap.bitmap.checked_add(at).ok_or(Errno::EFAULT)?;
        guest::write_slice(caller, address.raw(), &chunk[..count as usize])?;
        chunk = [0; 64];
        at += count;
    }
    Ok(())
}

//! Physical CPUs: their numbers.

/// The most physical CPUs that Nacelle uses; further ones stay off.
pub const MAX_CPUS: usize = 32;

/// A physical CPU, numbered from 0 in the order of the device tree, the boot CPU first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u8);

impl CpuId {
    /// The CPU that the firmware started.
    pub const BOOT: Self = Self(0);

    /// `None` at [`MAX_CPUS`] and beyond.
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_CPUS { Some(Self(index as u8)) } else { None }
    }

    /// For use as an index into per-CPU arrays of [`MAX_CPUS`] elements.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl core::fmt::Display for CpuId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CPU{}", self.0)
    }
}

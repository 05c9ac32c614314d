//! Sets of physical CPUs.
#![forbid(unsafe_code)]

use crate::cpu::{CpuId, MAX_CPUS};

/// A set of physical CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMask(u32);

const _: () = assert!(MAX_CPUS <= u32::BITS as usize);

impl CpuMask {
    /// No CPU.
    pub const NONE: Self = Self(0);
    /// Every CPU there can be.
    pub const ALL: Self = Self(u32::MAX >> (u32::BITS as usize - MAX_CPUS));

    /// The CPUs whose bits are set; bits past [`MAX_CPUS`] are dropped.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// One bit per CPU.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Just that CPU.
    pub const fn only(cpu: CpuId) -> Self {
        Self(1 << cpu.index())
    }

    /// The first `count` CPUs.
    pub const fn first_n(count: usize) -> Self {
        if count >= MAX_CPUS { Self::ALL } else { Self((1 << count) - 1) }
    }

    /// Whether `cpu` is in it.
    pub const fn contains(self, cpu: CpuId) -> bool {
        self.0 & 1 << cpu.index() != 0
    }

    /// Whether no CPU is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The CPUs in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The CPUs in this one but not in the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The lowest-numbered CPU.
    pub fn first(self) -> Option<CpuId> {
        CpuId::new(self.0.trailing_zeros() as usize)
    }

    /// The CPUs in ascending order.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        let mut left = self;
        core::iter::from_fn(move || {
            let cpu = left.first()?;
            left = left.without(Self::only(cpu));
            Some(cpu)
        })
    }
}

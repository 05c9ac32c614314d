//! Which vCPUs must look at their interrupts again.
#![forbid(unsafe_code)]

/// The number of a vCPU within its domain, as the virtual GIC counts them. A number the domain does not have is
/// legal everywhere and has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuIndex(u32);

impl VcpuIndex {
    /// vCPU `number`.
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// For use as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of vCPUs of one domain: each must call [`crate::VGic::flush`] on the CPU that runs it (so a running one
/// must be made to exit) or, when it sleeps, be asked for [`crate::VGic::has_pending`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a vCPU that is not kicked does not see its interrupt"]
pub struct Kicks(u128);

impl Kicks {
    /// The most vCPUs of one domain.
    pub const MAX_VCPUS: usize = 128;
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// Only `vcpu`.
    #[inline]
    pub const fn one(vcpu: VcpuIndex) -> Self {
        if vcpu.0 < Self::MAX_VCPUS as u32 { Self(1 << vcpu.0) } else { Self::NONE }
    }

    /// Nobody at all?
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is `vcpu` in the set?
    #[inline]
    pub const fn contains(self, vcpu: VcpuIndex) -> bool {
        vcpu.0 < Self::MAX_VCPUS as u32 && self.0 >> vcpu.0 & 1 != 0
    }

    /// The set without `vcpu`.
    #[inline]
    pub const fn without(self, vcpu: VcpuIndex) -> Self {
        Self(self.0 & !Self::one(vcpu).0)
    }

    /// Both sets together.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds `vcpu`.
    #[inline]
    pub const fn add(&mut self, vcpu: VcpuIndex) {
        self.0 |= Self::one(vcpu).0;
    }
}

impl core::ops::BitOr for Kicks {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl core::ops::BitOrAssign for Kicks {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl Iterator for Kicks {
    type Item = VcpuIndex;

    /// Takes the lowest vCPU out of the set.
    #[inline]
    fn next(&mut self) -> Option<VcpuIndex> {
        if self.0 == 0 {
            return None;
        }
        let vcpu = VcpuIndex(self.0.trailing_zeros());
        self.0 &= self.0 - 1;
        Some(vcpu)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kicks, VcpuIndex};

    #[test]
    fn sets_hold_what_was_added() {
        let mut kicks = Kicks::one(VcpuIndex::new(127)) | Kicks::one(VcpuIndex::new(0));
        kicks.add(VcpuIndex::new(65));
        kicks.add(VcpuIndex::new(128));
        assert!(kicks.contains(VcpuIndex::new(65)) && !kicks.contains(VcpuIndex::new(64)));
        assert!(!kicks.contains(VcpuIndex::new(1000)));
        let kicks = kicks.without(VcpuIndex::new(0));
        assert_eq!(kicks.map(VcpuIndex::get).collect::<Vec<_>>(), [65, 127]);
    }
}

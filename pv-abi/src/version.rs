//! Who the hypervisor is and what it can do (public header `version.h`): x0 is the [`Op`], x1 the address.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

number_enum! {
    /// An operation of `xen_version`.
    pub enum Op {
        /// Returns major << 16 | minor; no structure.
        Version = 0,
        /// The rest of the version: [`Extraversion`].
        Extraversion = 1,
        /// By whom, when and with what it was built: [`CompileInfo`].
        CompileInfo = 2,
        /// Which guests can run: [`Capabilities`].
        Capabilities = 3,
        /// The source revision: [`Changeset`].
        Changeset = 4,
        /// [`PlatformParameters`].
        PlatformParameters = 5,
        /// [`FeatureInfo`]: 32 bits of [`crate::features`].
        GetFeatures = 6,
        /// Returns the page size; no structure.
        Pagesize = 7,
        /// The caller's UUID: [`crate::xen::DomainHandle`].
        GuestHandle = 8,
        /// The hypervisor's command line: [`Commandline`].
        Commandline = 9,
        /// The build's identifier: [`BuildId`], then its bytes.
        BuildId = 10,
    }
}

/// Text, with a final zero.
pub type Extraversion = [u8; 16];
/// Text, with a final zero: names like `xen-3.0-aarch64`, each with a space after it.
pub type Capabilities = [u8; 1024];
/// Text, with a final zero.
pub type Changeset = [u8; 64];
/// Text, with a final zero.
pub type Commandline = [u8; 1024];

/// `XENVER_compile_info`: texts, with final zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CompileInfo {
    /// The compiler.
    pub compiler: [u8; 64],
    /// Who ran it.
    pub compile_by: [u8; 16],
    /// Where.
    pub compile_domain: [u8; 32],
    /// When.
    pub compile_date: [u8; 32],
}

zero_default!(CompileInfo);

/// `XENVER_platform_parameters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PlatformParameters {
    /// Where the hypervisor lies in the guest's address space; without meaning on Arm.
    pub virt_start: u64,
}

/// `XENVER_get_features`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FeatureInfo {
    /// In: which 32 features.
    pub submap_idx: u32,
    /// Out: bit n is feature 32 × `submap_idx` + n.
    pub submap: u32,
}

/// `XENVER_build_id`: the head; the bytes follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BuildId {
    /// In: room for bytes; 0 asks for their count.
    pub len: u32,
}

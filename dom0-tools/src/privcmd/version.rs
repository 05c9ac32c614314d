//! `xen_version`: who the hypervisor is.

use pv_abi::hypercall::Hypercall;
use pv_abi::version::{
    BuildId, Capabilities, Changeset, Commandline, CompileInfo, Extraversion, FeatureInfo, Op,
    PlatformParameters,
};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Error, Privcmd, Result};

/// Room for a build's identifier; that of GNU's linker has 20 bytes.
const MAX_BUILD_ID: usize = 256;

/// Everything that `xen_version` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Version of the interfaces: major.
    pub major: u32,
    /// Version of the interfaces: minor.
    pub minor: u32,
    /// What follows them.
    pub extra: String,
    /// The guests that can run, by name.
    pub capabilities: String,
    /// Source revision.
    pub changeset: String,
    /// The hypervisor's command line.
    pub command_line: String,
    /// The compiler.
    pub compiler: String,
    /// Who built it.
    pub compile_by: String,
    /// Where it was built.
    pub compile_domain: String,
    /// When it was built.
    pub compile_date: String,
    /// Bytes in a page.
    pub page_size: u64,
    /// Where the hypervisor's addresses begin.
    pub virt_start: u64,
    /// The build's identifier; empty if it has none.
    pub build_id: Vec<u8>,
}

/// Text up to its final zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Privcmd {
    /// An operation that returns a number.
    fn version_number(&self, what: &'static str, op: Op) -> Result<u32> {
        // SAFETY: only used for operations without a structure.
        let value = unsafe { self.call(what, Hypercall::XenVersion, [u64::from(op.raw()), 0, 0, 0, 0]) }?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// An operation that fills a `T`.
    fn version_structure<T>(&self, what: &'static str, op: Op) -> Result<T>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let buffer = self.buffer(size_of::<T>())?;
        let arg = [u64::from(op.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the callers below name the type that goes with the operation, and the buffer has room for it.
        unsafe { self.call(what, Hypercall::XenVersion, arg) }?;
        Ok(buffer.get(0))
    }

    fn build_id(&self) -> Result<Vec<u8>> {
        let at = size_of::<BuildId>();
        let buffer = self.buffer_with(&BuildId { len: MAX_BUILD_ID as u32 }, at + MAX_BUILD_ID)?;
        let arg = [u64::from(Op::BuildId.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the buffer has room for the head and the bytes it announces.
        let length = unsafe { self.call("xen_version build_id", Hypercall::XenVersion, arg) }?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0).min(MAX_BUILD_ID)];
        buffer.copy_out(at, &mut bytes);
        Ok(bytes)
    }

    /// What the hypervisor offers dom0: bits of [`pv_abi::features`].
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn features(&self) -> Result<u32> {
        let info: FeatureInfo = self.version_structure("xen_version get_features", Op::GetFeatures)?;
        Ok(info.submap)
    }

    /// Who the hypervisor is.
    ///
    /// # Errors
    /// [`Error::Refused`]; not for a build without an identifier.
    pub fn version(&self) -> Result<Version> {
        let number = self.version_number("xen_version version", Op::Version)?;
        let extra: Extraversion = self.version_structure("xen_version extraversion", Op::Extraversion)?;
        let compile: CompileInfo = self.version_structure("xen_version compile_info", Op::CompileInfo)?;
        let capabilities: Capabilities =
            self.version_structure("xen_version capabilities", Op::Capabilities)?;
        let changeset: Changeset = self.version_structure("xen_version changeset", Op::Changeset)?;
        let platform: PlatformParameters =
            self.version_structure("xen_version platform_parameters", Op::PlatformParameters)?;
        let command_line: Commandline = self.version_structure("xen_version commandline", Op::Commandline)?;
        let build_id = match self.build_id() {
            Err(Error::Refused { errno: Errno::NODATA | Errno::NOSYS | Errno::PERM, .. }) => Vec::new(),
            other => other?,
        };
        Ok(Version {
            major: number >> 16,
            minor: number & 0xffff,
            extra: text(&extra),
            capabilities: text(&capabilities),
            changeset: text(&changeset),
            command_line: text(&command_line),
            compiler: text(&compile.compiler),
            compile_by: text(&compile.compile_by),
            compile_domain: text(&compile.compile_domain),
            compile_date: text(&compile.compile_date),
            page_size: u64::from(self.version_number("xen_version pagesize", Op::Pagesize)?),
            virt_start: platform.virt_start,
            build_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_its_zero_or_with_its_field() {
        assert_eq!(text(b".7\0\0x"), ".7");
        assert_eq!(text(b"full"), "full");
        assert_eq!(text(b"\xff\0"), "\u{fffd}");
    }
}

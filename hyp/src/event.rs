//! Event channels.
/// A domain's ports.
pub struct EventChannels {}
impl EventChannels {
    /// None open.
    pub fn new(_max_ports: u32) -> Self {
        Self {}
    }
}
/// A vCPU's part.
pub struct VcpuEvents {}
impl VcpuEvents {
    /// Nothing registered.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {}
    }
}

/// Raises a global virtual interrupt in a domain, if it bound it.
pub fn send_global_virq(_domain: &crate::domain::Domain, _virq: pv_abi::xen::Virq) {}

/// The time-out of a vCPU's poll has passed.
pub fn poll_timeout(_vcpu: &alloc::sync::Arc<crate::vcpu::Vcpu>) {}

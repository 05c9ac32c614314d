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

//! Scheduler.
/// A vCPU as the scheduler sees it.
pub struct Entity {}
impl Entity {
    /// Blocked.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {}
    }
}

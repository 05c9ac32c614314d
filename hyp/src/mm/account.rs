//! Page counts of a domain.
/// Pages had and allowed.
pub struct PageAccount {}
impl PageAccount {
    /// None.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {}
    }
}

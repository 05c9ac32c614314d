//! What a payload with a balloon needs: its free memory, and the way to hypervisor and XenStore.

mod guest;
mod pool;

pub use guest::Guest;
pub use pool::{PAGE, Pool};

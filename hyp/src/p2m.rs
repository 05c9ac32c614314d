//! A domain's guest-physical memory.
/// Stage-2 tables and their lock.
pub struct P2m {}

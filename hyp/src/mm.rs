//! Physical memory.
pub mod account;

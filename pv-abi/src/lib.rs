//! Placeholder line until this crate's author lands it.

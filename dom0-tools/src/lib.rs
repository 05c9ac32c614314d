//! Libraries under the dom0 tools.
//!
//! | module | idea |
//! | --- | --- |
//! | [`privcmd`] | hypercalls through `/dev/xen/privcmd`; the only unsafe code |
//! | [`cpu_set`] | sets of CPUs: how they are written, read and kept |
//! | [`xl`] | the command `xl`: what it asks, and how the answers are printed |

pub mod cpu_set;
pub mod privcmd;
pub mod xl;

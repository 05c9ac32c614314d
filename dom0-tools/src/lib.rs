//! Libraries under the dom0 tools.
//!
//! | module | idea |
//! | --- | --- |
//! | [`memoryd`] | dynamic memory: xenmemd, what users set, and what they see of it |
//! | [`privcmd`] | hypercalls through `/dev/xen/privcmd` |
//! | [`evtchn`], [`gnttab`] | event channels and granted pages, through their devices |
//! | `mapping` | pages that the kernel has mapped |
//! | [`shared_memory`] | pages that somebody else changes, too |
//! | [`xenstore`] | XenStore: protocol, client, daemon |
//! | [`init_dom0`] | dom0's own nodes |
//! | [`domain`] | making, rebooting and taking away domains |
//! | [`config`] | a domain as `xl.cfg` describes it, with diagnostics; libxl's JSON of it |
//! | [`console`] | the guests' consoles: xenconsoled, `xl console` |
//! | [`cpu_set`] | sets of CPUs: how they are written, read and kept |
//! | [`daemon`] | what daemons share: background, number, signals |
//! | [`userdata`] | what is kept of a domain in files, where libxl keeps it |
//! | [`uuid`] | UUIDs, as domains carry them |
//! | [`xl`] | the command `xl`: what it asks, and how the answers are printed |

pub mod config;
pub mod console;
pub mod cpu_set;
pub mod daemon;
pub mod domain;
pub mod evtchn;
pub mod gnttab;
pub mod init_dom0;
mod mapping;
pub mod memoryd;
pub mod privcmd;
pub mod shared_memory;
pub mod userdata;
pub mod uuid;
pub mod xenstore;
pub mod xl;

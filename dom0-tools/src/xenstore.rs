//! XenStore: the tree of settings that domains share, its protocol, its clients and its daemon.
//!
//! | module | idea |
//! | --- | --- |
//! | [`wire`] | messages, as bytes |
//! | [`permissions`] | who may do what to a node, as the protocol writes it |
//! | `path` | names of nodes |
//! | [`client`] | a connection to the daemon |
//! | [`lasting`] | one that is made anew when it breaks |
//! | [`commands`] | `xenstore`: the store from the command line |
//! | [`daemon`] | `xenstored`: the store with its sockets, rings and file |
//! | `store` | the daemon's mind: requests in, answers and events out |

pub mod client;
pub mod commands;
pub mod daemon;
pub mod lasting;
mod path;
pub mod permissions;
mod store;
pub mod wire;

pub use client::{Client, Error, Event, Nodes, Result, Transaction};
pub use lasting::Lasting;
pub use permissions::{Access, Permission};

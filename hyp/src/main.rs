//! The EL2 image: everything is in the library; here it is linked into a program for the bare machine.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use hyp as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("nacelle is an EL2 image: build it with scripts/build and boot it with scripts/run");
}

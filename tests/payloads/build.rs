//! Links the payloads as position-independent images when they are built for the bare-metal target.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=payload.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{directory}/payload.ld");
    // The entry code relocates the image, also where the compiler put an address into read-only data (`-z notext`).
    for argument in ["-pie", "--no-dynamic-linker", "-znotext", "-znorelro", "--build-id=none"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}

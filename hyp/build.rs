//! Links the EL2 image with the workspace's linker script; nothing to do for host builds.

fn main() {
    println!("cargo:rerun-if-changed=../linker.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    for arg in [
        &format!("-T{root}/../linker.ld"),
        "-pie",
        "--no-dynamic-linker",
        "-znorelro",
        "-zmax-page-size=4096",
        "--build-id=none",
        // Which sequences of instructions end up at the end of a page, the linker alone knows.
        "--fix-cortex-a53-843419",
    ] {
        println!("cargo:rustc-link-arg-bin=nacelle={arg}");
    }
}

//! Links the EL2 image with the workspace's linker script; nothing to do for host builds.

fn main() {
    println!("cargo:rerun-if-changed=../linker.ld");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_PROFILE_RELEASE_LTO");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    // Bytes for the functions' names. Without the profile's link-time optimization there are more functions.
    let lto = std::env::var("CARGO_PROFILE_RELEASE_LTO").unwrap_or_default();
    let room = if matches!(lto.as_str(), "" | "fat" | "true") { 48 << 10 } else { 192 << 10 };
    for arg in [
        &format!("-T{root}/../linker.ld"),
        &format!("--defsym=__symbols_room={room}"),
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

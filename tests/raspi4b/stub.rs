//! The EL3 stub for QEMU's `raspi4b`, see `stub.S`. Built by `scripts/build stub`, which has Rust's assembler wherever it runs.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod stub {
    core::arch::global_asm!(include_str!("stub.S"));

    /// Nothing here is Rust.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! Sets dom0 up in XenStore after boot.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_tools::init_dom0::main(std::env::args_os())
}

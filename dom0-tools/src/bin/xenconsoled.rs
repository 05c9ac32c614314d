//! `xenconsoled`: serves the consoles of all guests. What it does is in `dom0_tools::console`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_tools::console::daemon_main(std::env::args_os())
}

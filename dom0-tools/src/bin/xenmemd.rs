//! `xenmemd`: dynamic memory. What it does is in `dom0_tools::memoryd`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_tools::memoryd::main(std::env::args_os())
}

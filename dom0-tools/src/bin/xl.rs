//! The command `xl`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_tools::xl::main(std::env::args_os())
}

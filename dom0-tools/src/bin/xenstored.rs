//! XenStore's daemon.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_tools::xenstore::daemon::main(std::env::args_os())
}

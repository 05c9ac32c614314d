//! XenStore from the command line: `xenstore COMMAND`, or `xenstore-COMMAND` by a link.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_tools::xenstore::commands::main(std::env::args_os())
}

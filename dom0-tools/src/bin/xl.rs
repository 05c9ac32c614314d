//! The command `xl`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    if dom0_tools::domain::supervisor::is_asked() {
        return dom0_tools::domain::supervisor::main();
    }
    // Whatever a command that was killed left half made is gone before this one looks.
    if let Err(error) = dom0_tools::domain::clean_up() {
        eprintln!("a domain that was left unfinished cannot be taken away: {error}");
    }
    dom0_tools::xl::main(std::env::args_os())
}

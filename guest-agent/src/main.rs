//! `xen-memory-agent`: tells dom0 what this Linux guest does with its memory.

use std::process::ExitCode;

use guest_agent::linux::{Agent, Courier, MEMINFO, Meminfo, Outlet, PRESSURE, PressureFile, harden};

const HELP: &str = "\
xen-memory-agent [--print]

Reports this guest's memory to dom0, whose balancer gives and takes memory by it: once a second, and at once when programs
wait for memory. It writes the node data/memory of XenStore through /dev/xen/xenbus, needs no configuration, and runs
until it is killed. Start it from the init system; units are in Nacelle's guest-agent/.

  --print      write the reports to standard output instead
  --help, --version
";

fn main() -> ExitCode {
    let mut print = false;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--print") => print = true,
            Some("-h" | "--help") => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Some("-V" | "--version") => {
                println!("xen-memory-agent {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            Some(_) | None => {
                eprintln!("xen-memory-agent: unknown argument {argument:?} (try --help)");
                return ExitCode::from(2);
            }
        }
    }
    match run(print) {
        Ok(never) => match never {},
        Err(why) => {
            eprintln!("xen-memory-agent: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(print: bool) -> Result<std::convert::Infallible, String> {
    let outlet = if print {
        Outlet::Print
    } else {
        harden();
        Outlet::Store(Courier::open().map_err(|error| {
            format!("cannot open /dev/xen/xenbus: {error} (run it as root, in a guest of Xen or Nacelle)")
        })?)
    };
    let unreadable = |error| format!("cannot read {MEMINFO}: {error}");
    let meminfo = Meminfo::open(MEMINFO).map_err(unreadable)?;
    // A kernel without it: the reports say nothing of stalls.
    let pressure = PressureFile::open(PRESSURE).ok();
    let mut agent = Agent::new(meminfo, pressure, outlet);
    loop {
        agent.turn().map_err(unreadable)?;
    }
}

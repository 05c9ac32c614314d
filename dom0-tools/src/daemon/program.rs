//! A daemon's program: the options that all have, and the way from the command line to the exit status.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use super::{Begun, Daemon, begin, report};

/// The options that all have. The default of `pid_file` is each daemon's own: `mut_arg` of its parser.
#[derive(Debug, Args)]
pub struct Common {
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Say what is done
    #[arg(short, long)]
    pub verbose: bool,
    /// Stay in the foreground
    #[arg(short, long, visible_alias = "no-fork")]
    pub interactive: bool,
    /// A file with the daemon's process number
    #[arg(long, value_name = "FILE", default_value = "")]
    pub pid_file: PathBuf,
}

/// A daemon's options.
pub trait Options: Parser {
    /// Those that all have.
    fn common(&self) -> &Common;
}

/// Runs a daemon that `serve` sets up and serves; the program's exit status.
pub fn main<O: Options>(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(O, Daemon) -> anyhow::Result<()>,
) -> ExitCode {
    let options = match O::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // If nobody reads it, the status still tells.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let end = match begin(options.common().interactive) {
        Ok(Begun::Daemon(daemon)) => serve(options, daemon),
        Ok(Begun::Command(status)) => return status,
        Err(error) => Err(error.into()),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(O::command().get_name(), &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

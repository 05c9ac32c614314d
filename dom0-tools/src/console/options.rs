//! `xenconsoled`'s command line: Xen's, and how logs are turned over.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::backlog::Overflow;
use super::log::Rotation;
use crate::daemon;

/// Whose output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Nobody's.
    None,
    /// The guests'.
    Guest,
    /// The hypervisor's.
    Hv,
    /// Both.
    All,
}

impl Which {
    /// Whether the guests' is meant.
    pub fn guests(self) -> bool {
        matches!(self, Self::Guest | Self::All)
    }

    /// Whether the hypervisor's is meant.
    pub fn hypervisor(self) -> bool {
        matches!(self, Self::Hv | Self::All)
    }
}

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "xenconsoled",
    bin_name = "xenconsoled",
    version,
    disable_version_flag = true,
    about = "Serves the consoles of all guests. SIGHUP: opens the logs anew",
    mut_arg("pid_file", |arg| arg.default_value("/run/xen/xenconsoled.pid"))
)]
pub struct Options {
    /// Those that all daemons have.
    #[command(flatten)]
    pub common: daemon::Common,
    /// Whose output is logged
    #[arg(long, value_enum, default_value = "none")]
    pub log: Which,
    /// Where logs are: guest-NAME.log and hypervisor.log
    #[arg(long, value_name = "DIR", default_value = "/var/log/xen/console")]
    pub log_dir: PathBuf,
    /// Whose log lines begin with a time, in UTC
    #[arg(short, long, value_enum, default_value = "none")]
    pub timestamp: Which,
    /// What happens to output that nobody reads
    #[arg(short, long, value_enum, default_value = "discard")]
    pub overflow_data: Overflow,
    /// Replace ESC by a dot in logs
    #[arg(long)]
    pub replace_escape: bool,
    /// A log's greatest size in KiB; 0 is no limit
    #[arg(long, value_name = "KIB", default_value_t = 10 << 10)]
    pub log_size: u64,
    /// How many older logs are kept for each
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub log_keep: u32,
}

impl daemon::Options for Options {
    fn common(&self) -> &daemon::Common {
        &self.common
    }
}

impl Options {
    /// How logs are turned over.
    pub fn rotation(&self) -> Rotation {
        Rotation { size: self.log_size.saturating_mul(1024), keep: self.log_keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_options_are_xens() {
        let options = parse(
            "xenconsoled --log=all --log-dir=/tmp/x -t guest -o keep --pid-file=/run/p -i -v --replace-escape",
        );
        assert!(options.log.guests() && options.log.hypervisor());
        assert!(options.timestamp.guests() && !options.timestamp.hypervisor());
        assert_eq!(options.overflow_data, Overflow::Keep);
        let common = &options.common;
        assert!(common.interactive && common.verbose && options.replace_escape);
        assert_eq!(common.pid_file, PathBuf::from("/run/p"));
        let options = parse("xenconsoled --timestamp=hv --overflow-data=discard");
        assert_eq!(options.common.pid_file, PathBuf::from("/run/xen/xenconsoled.pid"));
        assert!(!options.common.interactive && !options.log.guests() && options.timestamp.hypervisor());
        assert!(parse("xenconsoled --no-fork").common.interactive);
        assert!(Options::try_parse_from(["xenconsoled", "--log=some"]).is_err());
    }
}

//! The command line of `xenstored`: Xen's options, and two of our own.

use std::path::PathBuf;

use clap::Parser;

use crate::xenstore::store::quota::Quotas;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "xenstored",
    disable_version_flag = true,
    about = "XenStore's daemon",
    disable_help_flag = true,
    after_help = "Quotas, for -Q and -q: nodes, watches, transactions, outstanding, transaction-nodes, memory, \
        node-size, path-max, permissions. They limit what one domain may use; dom0 has no limits."
)]
pub struct Options {
    /// Do not connect to dom0's kernel and to domains: the socket only
    #[arg(short = 'D', long)]
    pub no_domain_init: bool,
    /// Write the process number to FILE
    #[arg(short = 'F', long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Show this
    #[arg(short = 'H', short_alias = 'h', long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Stay in the foreground
    #[arg(short = 'N', long)]
    pub no_fork: bool,
    /// Print the process number
    #[arg(short = 'P', long)]
    pub output_pid: bool,
    /// Write what is asked and answered to FILE; anew on SIGHUP
    #[arg(short = 'T', long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,
    /// Nodes per domain
    #[arg(short = 'E', long, value_name = "NUMBER")]
    entry_nb: Option<usize>,
    /// Bytes per node
    #[arg(short = 'S', long, value_name = "BYTES")]
    entry_size: Option<usize>,
    /// Watches per domain
    #[arg(short = 'W', long, value_name = "NUMBER")]
    watch_nb: Option<usize>,
    /// Transactions at once per domain
    #[arg(short = 't', long, value_name = "NUMBER")]
    transaction: Option<usize>,
    /// Permissions per node
    #[arg(short = 'A', long, value_name = "NUMBER")]
    perm_nb: Option<usize>,
    /// Bytes of a path
    #[arg(short = 'M', long, value_name = "BYTES")]
    path_max: Option<usize>,
    /// A quota by its name
    #[arg(short = 'Q', long, value_name = "WHAT=NUMBER", value_parser = quota)]
    quota: Vec<(String, usize)>,
    /// A quota that only warns: memory
    #[arg(short = 'q', long, value_name = "WHAT=NUMBER", value_parser = quota)]
    quota_soft: Vec<(String, usize)>,
    /// A time limit; without meaning here, as events that are not taken are bounded by their size
    #[arg(short = 'w', long, value_name = "WHAT=SECONDS", value_parser = quota)]
    timeout: Vec<(String, usize)>,
    /// Give the nodes of a domain that is gone to dom0 instead of removing them
    #[arg(short = 'K', long)]
    pub keep_orphans: bool,
    /// Without meaning here: there is nothing to recover
    #[arg(short = 'R', long)]
    no_recovery: bool,
    /// Without meaning here: the store is in memory
    #[arg(short = 'I', long, num_args = 0..=1, value_name = "on|off")]
    internal_db: Option<Option<String>>,
    /// Say more
    #[arg(short = 'V', long)]
    pub verbose: bool,
    /// Where the store is kept for the next start [default: state, beside the socket]
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// Begin with an empty store, whatever the state file has
    #[arg(long)]
    pub forget: bool,
}

fn quota(text: &str) -> Result<(String, usize), String> {
    let (name, value) = text.split_once('=').ok_or("a name, =, and a number")?;
    Ok((name.to_owned(), value.parse().map_err(|_| format!("'{value}' is not a number"))?))
}

impl Options {
    /// The limits.
    ///
    /// # Errors
    /// There is no such limit; the text says so.
    pub fn quotas(&self) -> Result<Quotas, String> {
        let mut quotas = Quotas::default();
        for (name, value) in [
            ("nodes", self.entry_nb),
            ("node-size", self.entry_size),
            ("watches", self.watch_nb),
            ("transactions", self.transaction),
            ("permissions", self.perm_nb),
            ("path-max", self.path_max),
        ] {
            if let Some(value) = value {
                quotas.set(false, name, value);
            }
        }
        for (soft, list) in [(false, &self.quota), (true, &self.quota_soft)] {
            for (name, value) in list {
                if !quotas.set(soft, name, *value) {
                    return Err(format!("there is no quota '{name}' (--help lists them)"));
                }
            }
        }
        Ok(quotas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xens_options_are_understood() {
        let line = "xenstored --pid-file=/run/x -N -E 5 -W7 -Q memory=9 -Q outstanding=3 -q memory=8 -I off -R -w watch-event=3";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        let quotas = options.quotas().unwrap();
        assert_eq!((quotas.nodes, quotas.watches, quotas.memory), (5, 7, 9));
        assert_eq!((quotas.outstanding, quotas.memory_soft), (3, 8));
        assert!(options.no_fork && options.pid_file.is_some());
        let wrong = Options::try_parse_from(["xenstored", "-Q", "nothing=1"]).unwrap();
        assert!(wrong.quotas().unwrap_err().contains("nothing"));
        assert!(Options::try_parse_from(["xenstored", "-Q", "memory"]).is_err());
    }
}

//! The commands and their options.

use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "xl",
    bin_name = "xl",
    version,
    about = "Xen management tool",
    infer_subcommands = true,
    arg_required_else_help = true
)]
pub(super) struct Arguments {
    /// Say more
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Force execution
    #[arg(short = 'f')]
    pub(super) force: bool,
    /// Dry run: do nothing
    #[arg(short = 'N')]
    pub(super) dry_run: bool,
    /// Overwrite lines with progress; without meaning for these commands
    #[arg(short = 't')]
    pub(super) carriage_return: bool,
    /// Put timestamps into messages; without meaning for these commands
    #[arg(short = 'T')]
    pub(super) timestamps: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Get information about Xen host
    Info(Info),
    /// List information about all/some domains
    List(List),
    /// List the VCPUs for all/some domains
    VcpuList(VcpuList),
    /// Set which CPUs a VCPU can use
    VcpuPin(VcpuPin),
    /// Pause execution of a domain
    Pause {
        /// Its name or number
        domain: String,
    },
    /// Unpause a paused domain
    Unpause {
        /// Its name or number
        domain: String,
    },
    /// Set the maximum amount reservation for a domain
    MemMax {
        /// Its name or number
        domain: String,
        /// MiB, or with b, k, m, g or t after it
        memory: Memory,
    },
    /// Convert a domain name to domain id
    Domid {
        /// The name
        name: String,
    },
    /// Convert a domain id to domain name
    Domname {
        /// The number
        id: String,
    },
    /// Print uptime for all/some domains
    Uptime(Uptime),
    /// Read and/or clear dmesg buffer
    Dmesg(Dmesg),
    /// Send debug keys to Xen
    DebugKeys {
        /// The keys; h lists them
        keys: String,
    },
    /// Get/set credit2 scheduler parameters
    #[command(name = "sched-credit2")]
    SchedCredit2(SchedCredit2),
    /// List CPU pools on host
    CpupoolList(CpupoolList),
    /// List outstanding claim information about all domains
    Claims(Claims),
}

#[derive(Debug, Args)]
pub(super) struct Info {
    /// List host NUMA topology information
    #[arg(short, long)]
    pub(super) numa: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Default, Args)]
pub(super) struct List {
    /// Output all VM details
    #[arg(short, long)]
    pub(super) long: bool,
    /// Prints out UUIDs and security context
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Prints out security context
    #[arg(short = 'Z', long)]
    pub(super) context: bool,
    /// Prints the cpupool the domain is in
    #[arg(short, long)]
    pub(super) cpupool: bool,
    /// Prints out NUMA node affinity
    #[arg(short, long)]
    pub(super) numa: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Only this one, by name or number
    pub(super) domain: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Claims {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct VcpuList {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Only these, by name or number
    pub(super) domains: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct VcpuPin {
    /// Undo an override pinning done by the kernel
    #[arg(short, long)]
    pub(super) force: bool,
    /// Ignore global masks in xl.conf; there are none
    #[arg(long)]
    pub(super) ignore_global_affinity_masks: bool,
    /// Its name or number
    pub(super) domain: String,
    /// The VCPU, or all
    pub(super) vcpu: String,
    /// The CPUs that it may use: a list, all, or - to leave them
    #[arg(allow_hyphen_values = true)]
    pub(super) hard: String,
    /// The CPUs that it should use: a list, all, or - to leave them
    #[arg(allow_hyphen_values = true)]
    pub(super) soft: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Uptime {
    /// Short
    #[arg(short, long)]
    pub(super) short: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Only these, by name or number
    pub(super) domains: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Dmesg {
    /// Clear dmesg buffer as well as printing it
    #[arg(short, long)]
    pub(super) clear: bool,
}

#[derive(Debug, Args)]
pub(super) struct SchedCredit2 {
    /// Domain to show or modify
    #[arg(short, long)]
    pub(super) domain: Option<String>,
    /// Weight
    #[arg(short, long, requires = "domain", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) weight: Option<u16>,
    /// Cap
    #[arg(short, long, requires = "domain")]
    pub(super) cap: Option<u16>,
    /// Query scheduler parameters
    #[arg(short, long, conflicts_with = "domain")]
    pub(super) schedparam: bool,
    /// Restrict output to this CPU pool
    #[arg(short = 'p', long, conflicts_with = "domain")]
    pub(super) cpupool: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CpupoolList {
    /// Output list of CPUs used by a pool
    #[arg(short, long)]
    pub(super) cpus: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Only this one
    pub(super) pool: Option<String>,
}

/// An amount of memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory(pub(super) u64);

impl FromStr for Memory {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not an amount of memory: say 512, 512m or 4g";
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let amount: u64 = digits.parse().map_err(|_| wrong)?;
        let kib = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "b" => Some(amount / 1024),
            "k" => Some(amount),
            "" | "m" => amount.checked_mul(1 << 10),
            "g" => amount.checked_mul(1 << 20),
            "t" => amount.checked_mul(1 << 30),
            _ => None,
        };
        kib.map(Self).ok_or(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn memory_is_in_mib_unless_said_otherwise() {
        let kib = |text: &str| text.parse::<Memory>().map(|memory| memory.0);
        assert_eq!(kib("512"), Ok(512 << 10));
        assert_eq!(kib("512M"), Ok(512 << 10));
        assert_eq!(kib("2048b"), Ok(2));
        assert_eq!(kib("7k"), Ok(7));
        assert_eq!(kib("1g"), Ok(1 << 20));
        assert_eq!(kib("1t"), Ok(1 << 30));
        for bad in ["", "m", "1x", "-1", "1gg", "99999999999t", "1.5"] {
            assert!(kib(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dash_leaves_an_affinity() {
        let line = ["xl", "vcpu-pin", "0", "all", "-", "0-1"];
        let Command::VcpuPin(pin) = Arguments::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!((pin.hard.as_str(), pin.soft.as_deref()), ("-", Some("0-1")));
    }
}

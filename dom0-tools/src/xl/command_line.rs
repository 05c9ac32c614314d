//! The commands and their options.

use std::path::PathBuf;
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
    /// Create a domain from config file <filename>
    Create(Create),
    /// Update a running domain's saved configuration, used when rebuilding the domain after reboot
    ConfigUpdate(ConfigUpdate),
    /// List information about all/some domains
    List(List),
    /// List domains and their UUIDs
    VmList {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Terminate a domain immediately
    Destroy {
        /// Permit destroying domain 0
        #[arg(short)]
        force: bool,
        /// Their names or numbers
        #[arg(required = true)]
        domains: Vec<String>,
    },
    /// Issue a shutdown signal to a domain
    Shutdown(Power),
    /// Issue a reboot signal to a domain
    Reboot(Power),
    /// Attach to domain's console; Ctrl-] leads back
    Console(Console),
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
    /// Set the current memory usage for a domain
    MemSet(MemSet),
    /// Set the maximum amount reservation for a domain
    MemMax {
        /// Its name or number
        domain: String,
        /// MiB, or with b, k, m, g or t after it
        memory: String,
    },
    /// Dynamic memory: who has, needs and gets how much, and why; change a running domain's settings
    #[command(args_conflicts_with_subcommands = true)]
    Memory(MemoryCommand),
    /// List the VCPUs for all/some domains
    VcpuList(VcpuList),
    /// Set which CPUs a VCPU can use
    VcpuPin(VcpuPin),
    /// Set the number of active VCPUs allowed for the domain
    VcpuSet {
        /// Don't limit the vCPU based on the host CPU count
        #[arg(short, long)]
        ignore_host: bool,
        /// Its name or number
        domain: String,
        /// How many shall be online
        vcpus: String,
    },
    /// Get/set credit2 scheduler parameters
    #[command(name = "sched-credit2")]
    SchedCredit2(SchedCredit2),
    /// Convert a domain name to domain id
    Domid {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The name
        name: String,
    },
    /// Convert a domain id to domain name
    Domname {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The number
        id: String,
    },
    /// Rename a domain
    Rename {
        /// Its name or number
        domain: String,
        /// Its new name
        name: String,
    },
    /// Send a trigger to a domain
    Trigger(Trigger),
    /// Send a sysrq to a domain
    Sysrq {
        /// Its name or number
        domain: String,
        /// What Linux would do at Alt-SysRq-letter
        letter: String,
    },
    /// Get information about Xen host
    Info(Info),
    /// Read and/or clear dmesg buffer
    Dmesg(Dmesg),
    /// Send debug keys to Xen
    DebugKeys {
        /// The keys; h lists them
        keys: String,
    },
    /// Monitor a host and the domains in real time
    Top(Top),
    /// Print uptime for all/some domains
    Uptime(Uptime),
    /// List outstanding claim information about all domains
    Claims(Claims),
    /// List CPU pools on host
    CpupoolList(CpupoolList),
    /// Print a script that completes xl's commands and options
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Manual {
        /// Where
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    pub(super) config: Configuration,
    /// Connect to the console after the domain is created
    #[arg(short)]
    pub(super) console: bool,
    /// Show what the configuration says
    #[arg(short)]
    pub(super) debug: bool,
    /// Do not wait in the background for the death of the domain
    #[arg(short = 'e')]
    pub(super) unattended: bool,
    /// Run in foreground until death of the domain
    #[arg(short = 'F')]
    pub(super) foreground: bool,
    /// Dry run: print the resulting configuration
    #[arg(short = 'n', long = "dryrun")]
    pub(super) dry_run: bool,
    /// Leave the domain paused after it is created
    #[arg(short)]
    pub(super) paused: bool,
    /// Quiet
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Ignored: no domain has a display
    #[arg(short = 'V', long)]
    pub(super) vncviewer: bool,
    /// Ignored: no domain has a display
    #[arg(short = 'A', long = "vncviewer-autopass")]
    pub(super) autopass: bool,
    /// Ignore global masks in xl.conf; there are none
    #[arg(long)]
    pub(super) ignore_global_affinity_masks: bool,
}

#[derive(Debug, Args)]
pub(super) struct ConfigUpdate {
    /// Its name or number
    pub(super) domain: String,
    #[command(flatten)]
    pub(super) config: Configuration,
    /// Show what the configuration says
    #[arg(short)]
    pub(super) debug: bool,
}

/// Where a configuration comes from.
#[derive(Debug, Args)]
pub(super) struct Configuration {
    /// Use the given configuration file
    #[arg(short = 'f', long = "defconfig", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The configuration file, and settings that come after it
    #[arg(value_name = "FILE|KEY=VALUE")]
    pub(super) parts: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Power {
    /// All guest domains
    #[arg(short, long)]
    pub(super) all: bool,
    /// Wait for the guest(s) to end
    #[arg(short, long)]
    pub(super) wait: bool,
    /// Fallback to an ACPI event for guests without PV drivers; on Arm there is none
    #[arg(short = 'F')]
    pub(super) fallback: bool,
    /// Its name or number
    pub(super) domain: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct MemSet {
    /// Do not wait until the guest has got there
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Its name or number
    pub(super) domain: String,
    /// MiB, or with b, k, m, g or t after it
    pub(super) memory: String,
}

#[derive(Debug, Args)]
pub(super) struct MemoryCommand {
    #[command(subcommand)]
    pub(super) what: Option<MemoryWhat>,
    /// Its name or number; without one, all domains are listed
    pub(super) domain: Option<String>,
    /// Settings to change: startup, minimum, maximum (MiB, or with k, m, g or t after it), buffer (5 to 2000 percent),
    /// weight (0 to 10000), policy (0 or 1); also by their names in a configuration file
    #[arg(value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What `xl memory` can do beyond listing and setting.
#[derive(Debug, Subcommand)]
pub(super) enum MemoryWhat {
    /// List what each domain has, needs and is to have, and who says so
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say why a domain has what it has: the last decisions, with what went into them
    Explain {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Its name or number
        domain: String,
    },
    /// Print the counters, under Hyper-V's names and ours
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print them as Prometheus reads them
        #[arg(long, conflicts_with = "json")]
        prometheus: bool,
    },
    /// Record what happens, until it is interrupted
    Record {
        /// End after so many seconds
        #[arg(short, long)]
        seconds: Option<u64>,
        /// Where
        file: PathBuf,
    },
    /// Draw a recording as an SVG picture
    Plot {
        /// Where; without it, to the standard output
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// The recording
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Trigger {
    /// Its name or number
    pub(super) domain: String,
    /// nmi, reset, init, power, sleep or s3resume
    pub(super) trigger: String,
    /// To which VCPU
    pub(super) vcpu: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Seconds between updates
    #[arg(short, long, default_value_t = 3.0)]
    pub(super) delay: f64,
    /// End after so many updates; without a terminal, after one
    #[arg(short, long)]
    pub(super) iterations: Option<u64>,
    /// One table after the other, as without a terminal
    #[arg(short, long)]
    pub(super) batch: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Console {
    /// Console type: that of the paravirtual console, or an emulated serial port
    #[arg(short = 't', value_enum, default_value = "pv")]
    pub(super) kind: crate::console::Kind,
    /// Console number
    #[arg(short = 'n', default_value_t = 0)]
    pub(super) number: u32,
    /// Its name or number
    pub(super) domain: String,
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
    /// Prints what each is asked to have and can have, in MiB
    #[arg(short, long)]
    pub(super) memory: bool,
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
    /// Print JSON: the lines
    #[arg(long)]
    pub(super) json: bool,
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
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || anyhow::anyhow!("invalid memory size: {text} (say 512, 512m or 4g)");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let amount: u64 = digits.parse().map_err(|_| wrong())?;
        let kib = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "b" => Some(amount / 1024),
            "k" => Some(amount),
            "" | "m" => amount.checked_mul(1 << 10),
            "g" => amount.checked_mul(1 << 20),
            "t" => amount.checked_mul(1 << 30),
            _ => None,
        };
        kib.map(Self).ok_or_else(wrong)
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
        let kib = |text: &str| text.parse::<Memory>().map(|memory| memory.0).ok();
        assert_eq!(kib("512"), Some(512 << 10));
        assert_eq!(kib("512M"), Some(512 << 10));
        assert_eq!(kib("2048b"), Some(2));
        assert_eq!(kib("7k"), Some(7));
        assert_eq!(kib("1g"), Some(1 << 20));
        assert_eq!(kib("1t"), Some(1 << 30));
        for bad in ["", "m", "1x", "-1", "1gg", "99999999999t", "1.5"] {
            assert_eq!(kib(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_dash_leaves_an_affinity() {
        let line = ["xl", "vcpu-pin", "0", "all", "-", "0-1"];
        let Command::VcpuPin(pin) = Arguments::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!((pin.hard.as_str(), pin.soft.as_deref()), ("-", Some("0-1")));
    }
}

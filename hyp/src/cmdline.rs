//! Nacelle's command line, with Xen's option names and syntax (Xen 4.17, docs/misc/xen-command-line.pandoc).
//!
//! Options are separated by blanks; a lone `--` ends them. A flag is on by `name` or `name=yes`, off by `no-name` or
//! `name=no`. Of an option given twice the last counts. Nothing here allocates: the console is not up yet, so what
//! is wrong is collected as [`Problem`]s and reported later.

use core::fmt;

use arrayvec::ArrayVec;
use log::LevelFilter;

#[cfg(test)]
mod tests;

/// Problems kept at most; further ones are only counted.
pub const MAX_PROBLEMS: usize = 16;

/// The names that `console=` knows.
pub const CONSOLES: &str = "dtuart, none";
const SIZE: &str = "a number with suffix B, K, M, G or T (K without one)";
const DOM0_MEM: &str = "<size>, min:<size>, max:<size>, or several of them separated by commas; a size is a number with suffix B, K, M, G or T (K without one)";
const VCPUS: &str = "<number>, <min>-<max>, <min>- or -<max>, 1 or more";
const LEVELS: &str = "none, error, warning, info, debug or all; or two of them as <always>/<rate-limited>";
const FLAG: &str = "yes, on, true, enable, 1, or no, off, false, disable, 0";
const PATH: &str = "a device tree path or alias, with ':' and options or without";

/// Something on the command line that is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem<'a> {
    /// Not an option of Nacelle. Worth a warning: Xen has many that do not matter here.
    Unknown(&'a str),
    /// An option whose value makes no sense. An error: somebody meant something else.
    Value {
        /// The option.
        option: &'a str,
        /// What was given.
        value: &'a str,
        /// What could be.
        accepted: &'static str,
    },
}

impl Problem<'_> {
    /// Whether to stop at it.
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Value { .. })
    }
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "command line: unknown option '{option}' ignored"),
            Self::Value { option: "console", value, .. } => {
                write!(f, "command line: console={value}: no such console; known are {CONSOLES}")
            }
            Self::Value { option, value, accepted } => {
                write!(f, "command line: {option}={value}: bad value; accepted is {accepted}")
            }
        }
    }
}

/// `dom0_mem=`, all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Memory {
    /// How much to give.
    pub amount: Option<u64>,
    /// Not less than this.
    pub min: Option<u64>,
    /// Not more than this.
    pub max: Option<u64>,
}

impl Dom0Memory {
    /// The amount asked for, or `default`, brought between `min` and `max`. `max` wins where the two cross.
    pub fn choose(&self, default: u64) -> u64 {
        let amount = self.amount.unwrap_or(default).max(self.min.unwrap_or(0));
        self.max.map_or(amount, |max| amount.min(max))
    }
}

/// `dom0_max_vcpus=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuCount {
    /// Not fewer than this.
    pub min: Option<u32>,
    /// Not more than this.
    pub max: Option<u32>,
}

impl VcpuCount {
    /// How many vCPUs on a machine with `cpus` CPUs: as many, within the limits, and at least 1.
    pub fn choose(&self, cpus: u32) -> u32 {
        let count = cpus.max(self.min.unwrap_or(1));
        self.max.map_or(count, |max| count.min(max)).max(1)
    }
}

/// Two thresholds for messages, as `loglvl=` and `guest_loglvl=` give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevels {
    /// Messages up to this level are always shown.
    pub always: LevelFilter,
    /// Messages above that and up to this level are shown within a rate limit.
    pub limited: LevelFilter,
}

/// `console=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// The UART that `dtuart=` names, or else `stdout-path`.
    DtUart,
    /// No output but the ring that dom0 reads.
    None,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// `dom0_mem=`.
    pub dom0_mem: Dom0Memory,
    /// `dom0_max_vcpus=`.
    pub dom0_max_vcpus: VcpuCount,
    /// `console=`.
    pub console: Console,
    /// `dtuart=`: path or alias, with options behind a `:`.
    pub dtuart: Option<&'a str>,
    /// `loglvl=`: Nacelle's own messages.
    pub loglvl: LogLevels,
    /// `guest_loglvl=`: messages that guests cause.
    pub guest_loglvl: LogLevels,
    /// `noreboot`: halt where one would reboot.
    pub noreboot: bool,
    /// `spec-ctrl`: EL2 is entered so that guests' training of branch predictors does not reach it.
    pub spec_ctrl: bool,
    /// `sync_console`: accepted; Nacelle's console is always synchronous.
    pub sync_console: bool,
    /// `conring_size=`: bytes of the console ring.
    pub conring_size: Option<u64>,
    /// What was wrong, in order.
    pub problems: ArrayVec<Problem<'a>, MAX_PROBLEMS>,
    /// Problems beyond [`MAX_PROBLEMS`].
    pub problems_dropped: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            dom0_mem: Dom0Memory::default(),
            dom0_max_vcpus: VcpuCount::default(),
            console: Console::DtUart,
            dtuart: None,
            loglvl: LogLevels { always: LevelFilter::Info, limited: LevelFilter::Info },
            guest_loglvl: LogLevels { always: LevelFilter::Off, limited: LevelFilter::Warn },
            noreboot: false,
            spec_ctrl: true,
            sync_console: false,
            conring_size: None,
            problems: ArrayVec::new(),
            problems_dropped: 0,
        }
    }
}

impl Options<'_> {
    /// Whether one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }
}

/// Reads a command line. Never fails: what cannot be read is in [`Options::problems`].
pub fn parse(line: &str) -> Options<'_> {
    let mut options = Options::default();
    for word in line.split_ascii_whitespace() {
        if word == "--" {
            break;
        }
        if let Err(problem) = options.take(word) {
            // Errors displace warnings when there is no room for both.
            if options.problems.is_full() {
                options.problems_dropped = options.problems_dropped.saturating_add(1);
                if problem.is_error()
                    && let Some(warning) = options.problems.iter().position(|kept| !kept.is_error())
                {
                    options.problems.remove(warning);
                }
            }
            // Full only where everything kept is as important as this.
            let _ = options.problems.try_push(problem);
        }
    }
    options
}

impl<'a> Options<'a> {
    fn take(&mut self, word: &'a str) -> Result<(), Problem<'a>> {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        let text = value.unwrap_or("");
        let wrong = |accepted| Problem::Value { option, value: text, accepted };
        match option {
            "dom0_mem" => self.dom0_mem = dom0_memory(text).ok_or_else(|| wrong(DOM0_MEM))?,
            "dom0_max_vcpus" => self.dom0_max_vcpus = vcpus(text).ok_or_else(|| wrong(VCPUS))?,
            "console" => self.console = console(text).ok_or_else(|| wrong(CONSOLES))?,
            "dtuart" if text.is_empty() => return Err(wrong(PATH)),
            "dtuart" => self.dtuart = Some(text),
            "loglvl" => self.loglvl = levels(text).ok_or_else(|| wrong(LEVELS))?,
            "guest_loglvl" => self.guest_loglvl = levels(text).ok_or_else(|| wrong(LEVELS))?,
            "conring_size" => self.conring_size = Some(size(text).ok_or_else(|| wrong(SIZE))?),
            _ => {
                let (name, is_negated) = match option.strip_prefix("no-") {
                    Some(name) => (name, true),
                    None => (option, false),
                };
                let flag = match name {
                    "noreboot" => &mut self.noreboot,
                    // Xen's only form for Arm, about another attack.
                    "spec-ctrl" if text.starts_with("ssbd=") => return Err(Problem::Unknown(word)),
                    "spec-ctrl" => &mut self.spec_ctrl,
                    "sync_console" => &mut self.sync_console,
                    _ => return Err(Problem::Unknown(word)),
                };
                let value = match value {
                    None => Some(true),
                    Some("yes" | "on" | "true" | "enable" | "1") => Some(true),
                    Some("no" | "off" | "false" | "disable" | "0") => Some(false),
                    Some(_) => None,
                };
                *flag = value.ok_or_else(|| wrong(FLAG))? != is_negated;
            }
        }
        Ok(())
    }
}

/// Decimal, or hexadecimal with `0x`. No sign.
fn integer(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` would take a leading plus.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// A size in bytes. Without a suffix the number counts KiB, as on Xen.
fn size(text: &str) -> Option<u64> {
    let is_suffix = |c: char| matches!(c.to_ascii_lowercase(), 'k' | 'm' | 'g' | 't');
    let is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let shift = match text.chars().last()?.to_ascii_lowercase() {
        // In a hexadecimal number it is a digit.
        'b' if !is_hexadecimal => 0,
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        _ => 10,
    };
    let digits = match text.char_indices().last()? {
        (at, last) if is_suffix(last) || (last.eq_ignore_ascii_case(&'b') && !is_hexadecimal) => {
            text.get(..at)?
        }
        _ => text,
    };
    integer(digits)?.checked_mul(1 << shift)
}

fn dom0_memory(text: &str) -> Option<Dom0Memory> {
    let mut memory = Dom0Memory::default();
    for part in text.split(',') {
        let (field, number) = match part.split_once(':') {
            Some(("min", number)) => (&mut memory.min, number),
            Some(("max", number)) => (&mut memory.max, number),
            Some(_) => return None,
            None => (&mut memory.amount, part),
        };
        *field = Some(size(number).filter(|&size| size != 0)?);
    }
    Some(memory)
}

fn vcpus(text: &str) -> Option<VcpuCount> {
    let number = |text: &str| match text {
        "" => Some(None),
        _ => integer(text).and_then(|n| u32::try_from(n).ok()).filter(|&n| n != 0).map(Some),
    };
    let count = match text.split_once('-') {
        None => {
            let exactly = number(text)?;
            VcpuCount { min: exactly, max: exactly }
        }
        Some((min, max)) => VcpuCount { min: number(min)?, max: number(max)? },
    };
    match (count.min, count.max) {
        (None, None) => None,
        (Some(min), Some(max)) if min > max => None,
        _ => Some(count),
    }
}

fn console(text: &str) -> Option<Console> {
    let mut chosen = None;
    for name in text.split(',') {
        match name {
            "dtuart" => chosen = Some(Console::DtUart),
            "none" => chosen = chosen.or(Some(Console::None)),
            _ => return None,
        }
    }
    chosen
}

fn levels(text: &str) -> Option<LogLevels> {
    let level = |name: &str| match name {
        "none" => Some(LevelFilter::Off),
        "error" => Some(LevelFilter::Error),
        "warning" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "all" => Some(LevelFilter::Trace),
        _ => None,
    };
    let (always, limited) = text.split_once('/').unwrap_or((text, text));
    let always = level(always)?;
    Some(LogLevels { always, limited: level(limited)?.max(always) })
}

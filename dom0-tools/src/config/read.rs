//! From settings to a [`DomainConfig`]: types, ranges, and what the keys say together.

use std::path::PathBuf;

use memory_policy::SettingsError;

use super::devices::{Disk, InvalidDevice, Vif};
use super::diagnostic::{Diagnostic, Diagnostics, Severity, Source};
use super::settings::Settings;
use super::syntax::Content;
use super::{Action, Affinity, DomainConfig, GicVersion};
use crate::cpu_set::CpuSet;
use crate::memoryd::settings::{BUFFER, Balance, Invalid, Settings as MemorySettings, WEIGHT};
use crate::uuid::Uuid;

/// vCPUs that the GICv3 of a guest has redistributors for (Xen's `GUEST_MAX_VCPUS`).
const MAX_VCPUS: u64 = 128;
/// MiB of the two banks of a guest's RAM (public/arch-arm.h: 3 GiB and 1016 GiB).
const MAX_MEMORY: u64 = (3 + 1016) << 10;
/// KiB without `memory`, as libxl has it.
const DEFAULT_MEMORY_KIB: u64 = 32 << 10;
/// Numbers that libxl keeps in an `int`.
const INT_MAX: u64 = i32::MAX as u64;

/// Reads the sources, each taking precedence over those before it: the file, then the command line. The warnings come
/// with the configuration.
///
/// # Errors
/// [`Diagnostics`]: everything that is wrong, and the warnings.
pub fn read(sources: &[Source<'_>]) -> Result<(DomainConfig, Vec<Diagnostic>), Diagnostics> {
    read_on(sources, None)
}

/// The same for a host that has so many KiB, if that is known: a domain that is balanced can have no more.
///
/// # Errors
/// [`Diagnostics`].
pub fn read_on(
    sources: &[Source<'_>],
    host_kib: Option<u64>,
) -> Result<(DomainConfig, Vec<Diagnostic>), Diagnostics> {
    let mut settings = Settings::new(sources);
    settings.check_keys();
    let config = domain(&mut settings, host_kib);
    let complaints = settings.into_complaints();
    match config {
        Some(config) if complaints.iter().all(|complaint| complaint.severity == Severity::Warning) => {
            Ok((config, complaints))
        }
        _ => Err(Diagnostics(complaints)),
    }
}

/// `None` only with an error among the complaints.
fn domain(settings: &mut Settings<'_>, host_kib: Option<u64>) -> Option<DomainConfig> {
    check_type(settings);
    check_refused_values(settings);
    let name = name(settings);
    let kernel = settings.text("kernel");
    if kernel.is_none() && settings.value("kernel").is_none() {
        settings.complain(Severity::Error, None, "there is no 'kernel': what is to boot?".to_owned());
    }
    let (memory_kib, maxmem_kib) = memory(settings);
    let balance = balance(settings, memory_kib, maxmem_kib, host_kib);
    let (vcpus, maxvcpus) = vcpus(settings);
    let config = DomainConfig {
        name: name.unwrap_or_default(),
        uuid: uuid(settings),
        kernel: kernel.map(|(path, _)| PathBuf::from(path)).unwrap_or_default(),
        ramdisk: path(settings, "ramdisk"),
        device_tree: path(settings, "device_tree"),
        cmdline: cmdline(settings),
        memory_kib,
        maxmem_kib,
        balance,
        vcpus,
        maxvcpus,
        cpus: affinity(settings, "cpus"),
        cpus_soft: affinity(settings, "cpus_soft"),
        cpu_weight: small(settings, "cpu_weight", 1),
        cap: small(settings, "cap", 0),
        pool: settings.text("pool").map(|(pool, _)| pool),
        on_poweroff: action(settings, "on_poweroff", Action::Destroy),
        on_reboot: action(settings, "on_reboot", Action::Restart),
        on_watchdog: action(settings, "on_watchdog", Action::Destroy),
        on_crash: action(settings, "on_crash", Action::Destroy),
        on_soft_reset: action(settings, "on_soft_reset", Action::SoftReset),
        gic_version: gic_version(settings),
        has_vuart: settings.choice("vuart", &[("sbsa_uart", true), ("unknown", false)]).unwrap_or(false),
        acpi: acpi(settings),
        max_grant_frames: count(settings, "max_grant_frames"),
        max_maptrack_frames: count(settings, "max_maptrack_frames"),
        max_grant_version: count(settings, "max_grant_version"),
        max_event_channels: count(settings, "max_event_channels"),
        disks: devices(settings, "disk", Disk::parse),
        vifs: devices(settings, "vif", Vif::parse),
    };
    Some(config)
}

/// `type` and `builder`: whatever a config of old says, Arm has one kind of guest.
fn check_type(settings: &mut Settings<'_>) {
    let hvm = "Arm has no fully emulated guests; type 'pvh' boots the kernel directly";
    if let Some((kind, span)) = settings.text("type") {
        match kind.as_str() {
            "pvh" => {}
            "pv" => settings.warn(&span, "type 'pv' is taken for 'pvh', as xl does on Arm"),
            "hvm" => settings.error(&span, hvm),
            other => settings.error(&span, format!("'type' is pvh, not '{other}'")),
        }
    }
    if let Some((builder, span)) = settings.text("builder") {
        match builder.as_str() {
            "generic" => settings.warn(&span, "'builder' is out of date: it is left out"),
            "hvm" => settings.error(&span, hvm),
            other => settings.error(&span, format!("'builder' is generic, not '{other}'")),
        }
    }
}

/// Keys with one value that can be served.
fn check_refused_values(settings: &mut Settings<'_>) {
    if let Some((tee, span)) = settings.text("tee").filter(|(tee, _)| tee != "none") {
        settings.error(&span, format!("'tee' is none: no '{tee}' is passed on to domains"));
    }
    if let Some((mode, span)) = settings.text("passthrough") {
        match mode.as_str() {
            "default" | "disabled" => {}
            "enabled" | "sync_pt" | "share_pt" => {
                settings.error(&span, "no device of the host can be given to a domain");
            }
            other => settings.error(&span, format!("'passthrough' is default or disabled, not '{other}'")),
        }
    }
}

/// The name has to be one that XenStore and the tools can tell from a number and from a path.
fn name(settings: &mut Settings<'_>) -> Option<String> {
    let Some(value) = settings.value("name") else {
        settings.complain(Severity::Error, None, "there is no 'name'".to_owned());
        return None;
    };
    let name = settings.atom("'name'", &value)?;
    if name.is_empty() || name.contains(|c: char| c == '/' || c.is_control()) || name.len() > 255 {
        let message = "a name has 1 to 255 characters, none of them '/'";
        settings.error(&value.span, message);
        return None;
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        settings.warn(&value.span, "a name of digits alone: commands will take it for a domain's number");
    }
    Some(name)
}

fn acpi(settings: &mut Settings<'_>) -> Option<bool> {
    let wanted = settings.switch("acpi")?;
    if wanted && let Some(value) = settings.value("acpi") {
        settings.warn(&value.span, "no ACPI tables are made: the guest gets a device tree");
    }
    Some(wanted)
}

fn uuid(settings: &mut Settings<'_>) -> Option<Uuid> {
    let (text, span) = settings.text("uuid")?;
    match text.parse() {
        Ok(uuid) => Some(uuid),
        Err(error) => {
            settings.error(&span, format!("'{text}' is {error}"));
            None
        }
    }
}

fn path(settings: &mut Settings<'_>, key: &str) -> Option<PathBuf> {
    settings.text(key).map(|(path, _)| path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn cmdline(settings: &mut Settings<'_>) -> Option<String> {
    let whole = settings.text("cmdline");
    let parts = [("root", "root="), ("extra", "")]
        .map(|(key, prefix)| settings.text(key).map(|(text, span)| (format!("{prefix}{text}"), span)));
    match (whole, parts) {
        (Some((whole, _)), [root, extra]) => {
            for (_, span) in [root, extra].into_iter().flatten() {
                settings.warn(&span, "ignored, since there is a 'cmdline'");
            }
            Some(whole)
        }
        (None, [None, None]) => None,
        (None, parts) => {
            Some(parts.into_iter().flatten().map(|(text, _)| text).collect::<Vec<_>>().join(" "))
        }
    }
}

fn memory(settings: &mut Settings<'_>) -> (u64, u64) {
    let mut kib = |key| settings.number(key, 1..=MAX_MEMORY).map(|(mib, span)| (mib << 10, span));
    let (memory, maxmem) = (kib("memory"), kib("maxmem"));
    if memory.is_none() && settings.value("memory").is_none() {
        let message = "there is no 'memory': it is 32 MiB, or 'maxmem' if that is given";
        settings.complain(Severity::Warning, None, message.to_owned());
    }
    match (memory, maxmem) {
        (Some((memory, _)), Some((maxmem, span))) if maxmem < memory => {
            settings.warn(&span, "'maxmem' is below 'memory': the domain gets no more than 'maxmem'");
            (maxmem, maxmem)
        }
        (Some((memory, _)), maxmem) => (memory, maxmem.map_or(memory, |(maxmem, _)| maxmem)),
        (None, Some((maxmem, _))) => (maxmem, maxmem),
        (None, None) => (DEFAULT_MEMORY_KIB, DEFAULT_MEMORY_KIB),
    }
}

/// How its memory is balanced. Who says any of it wants that, unless `memory_policy` says otherwise.
fn balance(
    settings: &mut Settings<'_>,
    startup_kib: u64,
    maximum_kib: u64,
    host_kib: Option<u64>,
) -> Balance {
    let minimum = settings.number("memory_min", 1..=MAX_MEMORY).map(|(mib, span)| (mib << 10, span));
    let mut small =
        |key, range| settings.number(key, range).and_then(|(number, _)| u16::try_from(number).ok());
    let (buffer, weight) = (small("memory_buffer", BUFFER), small("memory_weight", WEIGHT));
    let is_on = small("memory_policy", 0..=1).map(|policy| policy == 1);
    let is_said = minimum.is_some() || buffer.is_some() || weight.is_some();
    let default = Balance::default();
    let balance = Balance {
        is_on: is_on.unwrap_or(is_said),
        minimum_kib: minimum.as_ref().map(|(kib, _)| *kib),
        buffer: buffer.unwrap_or(default.buffer),
        weight: weight.unwrap_or(default.weight),
    };
    let all = MemorySettings { startup_kib, maximum_kib, balance };
    if let Err(invalid) = all.check(host_kib.unwrap_or(u64::MAX)) {
        let key = match invalid {
            Invalid::Settings(SettingsError::MaximumBeyondHost { .. })
                if settings.value("maxmem").is_some() =>
            {
                "maxmem"
            }
            Invalid::Settings(SettingsError::MaximumBeyondHost { .. }) => "memory",
            _ => "memory_min",
        };
        let span = settings.value(key).map(|value| value.span);
        settings.complain(Severity::Error, span.as_ref(), invalid.to_string());
    }
    balance
}

fn vcpus(settings: &mut Settings<'_>) -> (u32, u32) {
    let mut number = |key| {
        let (number, span) = settings.number(key, 1..=MAX_VCPUS)?;
        Some((u32::try_from(number).unwrap_or(1), span))
    };
    match (number("vcpus"), number("maxvcpus")) {
        (Some((vcpus, _)), Some((maxvcpus, span))) if maxvcpus < vcpus => {
            settings.error(&span, format!("'maxvcpus' ({maxvcpus}) is below 'vcpus' ({vcpus})"));
            (vcpus, vcpus)
        }
        (vcpus, maxvcpus) => {
            let vcpus = vcpus.map_or(1, |(vcpus, _)| vcpus);
            (vcpus, maxvcpus.map_or(vcpus, |(maxvcpus, _)| maxvcpus))
        }
    }
}

fn small(settings: &mut Settings<'_>, key: &str, least: u64) -> Option<u16> {
    let (number, _) = settings.number(key, least..=u64::from(u16::MAX))?;
    u16::try_from(number).ok()
}

fn count(settings: &mut Settings<'_>, key: &str) -> Option<u32> {
    let (number, _) = settings.number(key, 0..=INT_MAX)?;
    u32::try_from(number).ok()
}

fn action(settings: &mut Settings<'_>, key: &str, default: Action) -> Action {
    settings.choice(key, &Action::NAMES).unwrap_or(default)
}

fn gic_version(settings: &mut Settings<'_>) -> GicVersion {
    let words = [("default", GicVersion::Native), ("v2", GicVersion::V2), ("v3", GicVersion::V3)];
    settings.choice("gic_version", &words).unwrap_or_default()
}

fn affinity(settings: &mut Settings<'_>, key: &str) -> Affinity {
    let Some(value) = settings.value(key) else { return Affinity::Any };
    let is_list = matches!(value.content, Content::List(_));
    let lists = match is_list {
        true => settings.list(key),
        false => settings.text(key).into_iter().collect(),
    };
    for (list, span) in &lists {
        if list.split(',').any(|part| part.trim() == "^all") {
            settings.error(span, format!("'{key}': '^' and 'all' do not go together"));
        } else if let Err(error) = CpuSet::parse(list, 1) {
            settings.error(span, format!("'{key}': {error}"));
        }
    }
    let mut lists = lists.into_iter().map(|(list, _)| list);
    match is_list {
        true => Affinity::Each(lists.collect()),
        false => lists.next().map_or(Affinity::Any, Affinity::Same),
    }
}

fn devices<T>(
    settings: &mut Settings<'_>,
    key: &str,
    parse: impl Fn(&str) -> Result<T, InvalidDevice>,
) -> Vec<T> {
    let mut devices = Vec::new();
    for (text, span) in settings.list(key) {
        match parse(&text) {
            Ok(device) => devices.push(device),
            Err(error) => settings.error(&span, error.to_string()),
        }
    }
    devices
}

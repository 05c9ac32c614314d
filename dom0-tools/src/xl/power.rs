//! `xl shutdown`, `xl reboot`, `xl sysrq`, `xl trigger`: asking a guest, through XenStore.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pv_abi::domid::DomId;

use super::command_line::{Power, Trigger};
use super::host::{Domain, Host};
use super::state::{State, reason};
use crate::xenstore::{Client, Nodes};

/// How long a guest has for saying that it has heard, as libxl's.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(60);

/// What a guest can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    PowerOff,
    Reboot,
}

impl Request {
    /// As it is written into `control/shutdown`.
    fn word(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
        }
    }
}

/// `xl shutdown` and `xl reboot`.
pub(super) fn run(host: &Host, request: Request, options: &Power) -> Result<()> {
    let domains = match &options.domain {
        Some(given) => vec![host.find(given)?],
        None if options.all => {
            host.domains()?.into_iter().filter(|domain| domain.id() != DomId::DOM0).collect()
        }
        None => bail!("You must specify -a or a domain id.\n"),
    };
    let store = host.store()?;
    let token = "xl-power";
    if options.wait {
        store.watch("@releaseDomain", token)?;
    }
    let mut failures = Vec::new();
    let mut asked = Vec::new();
    for domain in domains {
        match ask(host, store, request, &domain) {
            Ok(()) => asked.push(domain),
            Err(error) => failures.push(error),
        }
    }
    // One guest that is deaf does not keep the others from hearing, nor from being waited for.
    for domain in &asked {
        if let Err(error) = acknowledged(host, store, request, domain) {
            failures.push(error);
        }
    }
    if options.wait {
        eprintln!("Waiting for {} domains", asked.len());
        wait(host, store, &asked)?;
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => {
            failures.for_each(|error| eprintln!("{error:#}"));
            Err(first)
        }
    }
}

fn ask(host: &Host, store: &Client, request: Request, domain: &Domain) -> Result<()> {
    let number = domain.id().raw();
    match request {
        Request::PowerOff => eprintln!("Shutting down domain {number}"),
        Request::Reboot => eprintln!("Rebooting domain {number}"),
    }
    if State::new(domain.info.flags).shutdown {
        bail!("{} is shut down already; xl destroy {number} takes it away", domain.shown());
    }
    let node = format!("{}/control/shutdown", domain.path());
    if !store.exists(&node)? && domain.id() != DomId::DOM0 {
        bail!(
            "{} has no {node} in XenStore: it cannot be asked; xl destroy {number} ends it",
            domain.shown()
        );
    }
    store.transaction(|transaction| domain.write(transaction, "control/shutdown", request.word()))?;
    if State::new(domain.info.flags).paused {
        eprintln!("{} is paused: it hears of it when it runs (xl unpause {number})", domain.shown());
    } else if host.text(&format!("{}/control/feature-{}", domain.path(), request.word())).is_none() {
        eprintln!(
            "{} has not said that it listens: it is still starting, or has no Xen drivers",
            domain.shown()
        );
    }
    Ok(())
}

/// Waits until the guest takes the request out of its node.
fn acknowledged(host: &Host, store: &Client, request: Request, domain: &Domain) -> Result<()> {
    let (node, token) = (format!("{}/control/shutdown", domain.path()), "xl-shutdown");
    // One of dom0 would outlive us; one that is paused hears of it later.
    if domain.id() == DomId::DOM0 || State::new(domain.info.flags).paused {
        return Ok(());
    }
    store.watch(&node, token)?;
    let end = Instant::now() + ACKNOWLEDGEMENT;
    let result = loop {
        let is_there =
            host.xen.domain(domain.id())?.filter(|info| !State::new(info.flags).shutdown).is_some();
        if !is_there || store.read_text(&node)?.is_none_or(|text| text != request.word()) {
            break Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let (name, number) = (domain.shown(), domain.id().raw());
            break Err(anyhow::anyhow!(
                "{name} did not react to '{}' within a minute; xl destroy {number} ends it",
                request.word()
            ));
        }
        store.next_event(Some(left.min(Duration::from_secs(1))))?;
    };
    store.unwatch(&node, token)?;
    result
}

/// Waits until each has shut down or is gone. The watch on `@releaseDomain` is there.
fn wait(host: &Host, store: &Client, domains: &[Domain]) -> Result<()> {
    let mut left: Vec<&Domain> = domains.iter().collect();
    loop {
        let mut error = None;
        left.retain(|domain| {
            let number = domain.id().raw();
            match host.xen.domain(domain.id()) {
                Ok(None) => eprintln!("Domain {number} has been destroyed"),
                // Another one of that number.
                Ok(Some(info)) if info.handle != domain.info.handle => {
                    eprintln!("Domain {number} has been destroyed");
                }
                Ok(Some(info)) if State::new(info.flags).shutdown => {
                    let reason = reason(info.flags);
                    eprintln!("Domain {number} has been shut down, reason code {reason}");
                }
                Ok(Some(_)) => return true,
                Err(found) => {
                    error = Some(found);
                    return true;
                }
            }
            false
        });
        if let Some(error) = error {
            return Err(error.into());
        }
        if left.is_empty() {
            return Ok(());
        }
        // Once a second all the same: a daemon that restarts could lose one.
        store.next_event(Some(Duration::from_secs(1)))?;
    }
}

/// `xl sysrq`.
pub(super) fn sysrq(host: &Host, given: &str, letter: &str) -> Result<()> {
    let mut letters = letter.chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else {
        bail!("Invalid sysrq.\n");
    };
    let domain = host.find(given)?;
    host.store()?.transaction(|transaction| domain.write(transaction, "control/sysrq", letter))
}

/// `xl trigger`: what a platform could send. Arm has none of them; Xen says the same.
pub(super) fn trigger(host: &Host, options: &Trigger) -> Result<()> {
    const TRIGGERS: [&str; 6] = ["nmi", "reset", "init", "power", "sleep", "s3resume"];
    let name = options.trigger.as_str();
    if !TRIGGERS.contains(&name) {
        bail!("Invalid trigger \"{name}\"{}", crate::config::suggestion(name, TRIGGERS));
    }
    let domain = host.find(&options.domain)?;
    let instead = match name {
        "power" => format!("; xl shutdown {} asks the guest", domain.shown()),
        "reset" => format!("; xl reboot {} asks the guest", domain.shown()),
        // Nothing does the same.
        _ => String::new(),
    };
    bail!("Send trigger '{name}' failed: a guest on Arm has nothing that receives it{instead}")
}

/// `xl vcpu-set`.
pub(super) fn set_vcpus(host: &Host, given: &str, wanted: u32, ignore_host: bool) -> Result<()> {
    let domain = host.find(given)?;
    let available = domain.info.max_vcpu_id.wrapping_add(1);
    if !ignore_host && wanted > domain.info.nr_online_vcpus {
        let cpus = host.xen.physinfo()?.max_cpu_id.saturating_add(1);
        if wanted > cpus {
            bail!(
                "You are overcommmitting! You have {cpus} physical CPUs and want {wanted} vCPUs! Aborting, use \
                    --ignore-host to continue"
            );
        }
    }
    if wanted == 0 {
        bail!("a domain cannot do without any vCPU; xl pause {} stops it", domain.shown());
    }
    if wanted > available {
        bail!(
            "{} has {available} vCPUs at most: that is decided by maxvcpus when it is created",
            domain.shown()
        );
    }
    let store = host.store()?;
    let written = store.transaction(|transaction| {
        for vcpu in 0..available {
            let state = if vcpu < wanted { "online" } else { "offline" };
            domain.write(transaction, &format!("cpu/{vcpu}/availability"), state)?;
        }
        anyhow::Ok(())
    });
    written.with_context(|| format!("cannot set the vCPUs of domain {}", domain.id().raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_protocols_words() {
        assert_eq!(Request::PowerOff.word(), "poweroff");
        assert_eq!(Request::Reboot.word(), "reboot");
    }
}

//! What happens when a domain ends: a process for each domain waits for that, and does what the configuration says.
//!
//! It is started before the domain is made and gets its word by a pipe: the configuration, then the domain's number when it is
//! complete. If the pipe ends without, whoever made the domain has given up or died, and it removes what is left. Then it waits, as
//! `xl create` in the background does: for XenStore's `@releaseDomain`, or, while there is no XenStore, by looking now and then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pv_abi::domctl::{
    GetDomainInfo, XEN_DOMINF_DYING, XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT,
};
use pv_abi::domid::DomId;
use pv_abi::sched::ShutdownReason;

use super::{Error, Options, clean_up, create, destroy, store};
use crate::config::{self, Action, DomainConfig};
use crate::privcmd::Privcmd;
use crate::userdata::{Kind, UserData};
use crate::uuid::Uuid;
use crate::xenstore::Client;

/// Set for the process that supervises.
const MARK: &str = "NACELLE_SUPERVISOR";
const LOGS: &str = "/var/log/xen";
/// Old logs of a domain that are kept, as libxl does.
const OLD_LOGS: u32 = 9;
/// Between looks while XenStore is there, and while it is not.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// A domain that lived less is made anew only after a pause.
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// A supervisor that waits for its domain's number.
#[derive(Debug)]
pub(super) struct Waiting {
    child: Child,
}

impl Waiting {
    /// Starts one.
    pub(super) fn start(config: &DomainConfig) -> Result<Self, Error> {
        let file = |error| Error::File { what: "start a process that waits for the domain's end", error };
        let log = log_file(&config.name).map_err(file)?;
        let mut child = Command::new(super::create::program().map_err(file)?)
            .arg0("xl")
            .args(["supervise", &config.name])
            .env(MARK, "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(file)?)
            .stderr(log)
            .spawn()
            .map_err(file)?;
        let mut line = serde_json::to_vec(config).unwrap_or_default();
        line.push(b'\n');
        child.stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(&line)).map_err(file)?;
        Ok(Self { child })
    }

    /// The domain is complete: from now on its end is the supervisor's.
    pub(super) fn supervise(mut self, domain: DomId) -> Result<(), Error> {
        let line = format!("{}\n", domain.raw());
        let told = self.child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(line.as_bytes()));
        told.map_err(|error| Error::File { what: "tell the process that waits for the domain's end", error })
    }
}

/// A new log; older ones move on by one.
fn log_file(name: &str) -> io::Result<File> {
    fs::create_dir_all(LOGS)?;
    let path = |age: u32| -> PathBuf {
        let tail = if age == 0 { String::new() } else { format!(".{age}") };
        Path::new(LOGS).join(format!("xl-{name}.log{tail}"))
    };
    for age in (0..OLD_LOGS).rev().filter(|age| path(*age).exists()) {
        // A log that cannot be kept is no reason not to have a new one.
        let _ = fs::rename(path(age), path(age + 1));
    }
    OpenOptions::new().append(true).create(true).open(path(0))
}

/// Whether this process was started to supervise.
pub fn is_asked() -> bool {
    std::env::var_os(MARK).is_some()
}

/// The process that supervises, from its start to its end.
pub fn main() -> ExitCode {
    // Fails only for the leader of a process group.
    let _ = rustix::process::setsid();
    let mut lines = io::stdin().lock().lines();
    let Some(config) = lines.next().and_then(Result::ok) else { return ExitCode::FAILURE };
    let config: DomainConfig = match serde_json::from_str(&config) {
        Ok(config) => config,
        Err(error) => {
            println!("The configuration that came makes no sense: {error}");
            return ExitCode::FAILURE;
        }
    };
    let number = lines.next().and_then(Result::ok).and_then(|line| line.parse().ok());
    match number.map(DomId::new) {
        Some(domain) => supervise(config, domain),
        None => {
            finish_for_who_died();
            ExitCode::SUCCESS
        }
    }
}

/// Our creator gave up or died. The lock of one who died may be free only a moment after its end of the pipe.
fn finish_for_who_died() {
    for _ in 0..20 {
        if let Err(error) = clean_up() {
            println!("Cannot remove what was left unfinished: {error}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Why a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is gone.
    Destroyed,
    /// It stopped; the number is the hypervisor's.
    Shutdown(u32),
}

fn end_of(info: Option<&GetDomainInfo>) -> Option<End> {
    match info {
        None => Some(End::Destroyed),
        Some(info) if info.flags & XEN_DOMINF_DYING != 0 => Some(End::Destroyed),
        Some(info) if info.flags & XEN_DOMINF_SHUTDOWN != 0 => {
            Some(End::Shutdown(info.flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK))
        }
        Some(_) => None,
    }
}

/// What is done after a shutdown with that reason; `None`: nothing, it is to be resumed.
fn action_for(config: &DomainConfig, reason: u32) -> Option<Action> {
    match ShutdownReason::try_from(reason) {
        Ok(ShutdownReason::Poweroff) => Some(config.on_poweroff),
        Ok(ShutdownReason::Reboot) => Some(config.on_reboot),
        Ok(ShutdownReason::Suspend) => None,
        Ok(ShutdownReason::Crash) => Some(config.on_crash),
        Ok(ShutdownReason::Watchdog) => Some(config.on_watchdog),
        Ok(ShutdownReason::SoftReset) => Some(config.on_soft_reset),
        // A number that no Xen has yet: the domain cannot go on.
        Err(_) => Some(Action::Destroy),
    }
}

/// Waits for a domain's end and acts, again and again as long as that makes it anew.
pub fn supervise(mut config: DomainConfig, mut domain: DomId) -> ExitCode {
    println!(
        "Waiting for domain {} (domid {}) to die [pid {}]",
        config.name,
        domain.raw(),
        std::process::id()
    );
    loop {
        let born = Instant::now();
        let end = match wait(domain) {
            Ok(end) => end,
            Err(error) => {
                println!("Cannot look after domain {} any more: {error}", domain.raw());
                return ExitCode::FAILURE;
            }
        };
        let End::Shutdown(reason) = end else {
            println!("Domain {} has been destroyed.", domain.raw());
            return ExitCode::SUCCESS;
        };
        println!("Domain {} has shut down, reason code {reason}", domain.raw());
        let Some(action) = action_for(&config, reason) else {
            println!("Domain {} has suspended.", domain.raw());
            return ExitCode::SUCCESS;
        };
        println!("Action for shutdown reason code {reason} is {}", action.name());
        match act(action, &mut config, domain, born.elapsed()) {
            Ok(Some(next)) => domain = next,
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// Waits until a domain has ended, whatever becomes of XenStore meanwhile.
fn wait(domain: DomId) -> Result<End, crate::privcmd::Error> {
    let xen = Privcmd::open()?;
    let mut watching: Option<Client> = None;
    loop {
        if let Some(end) = end_of(xen.domain(domain)?.as_ref()) {
            return Ok(end);
        }
        if watching.is_none() {
            let connect = || -> crate::xenstore::Result<Client> {
                let client = Client::connect()?;
                client.watch("@releaseDomain", "end")?;
                Ok(client)
            };
            watching = connect().ok();
        }
        match &watching {
            // Any answer means to look again; an error, that XenStore has gone.
            Some(client) => {
                if client.next_event(Some(LOOK)).is_err() {
                    watching = None;
                }
            }
            None => std::thread::sleep(LOOK_ALONE),
        }
    }
}

/// Does what is to be done; the domain that has taken its place, if any.
fn act(
    action: Action,
    config: &mut DomainConfig,
    domain: DomId,
    lived: Duration,
) -> Result<Option<DomId>, Error> {
    match action {
        Action::Preserve => {
            println!("Domain {} is preserved.", domain.raw());
            Ok(None)
        }
        Action::Destroy => destroy(domain).map(|()| None),
        Action::CoredumpDestroy => {
            println!(
                "The memory of domain {} cannot be written to a file: that is not offered.",
                domain.raw()
            );
            destroy(domain).map(|()| None)
        }
        Action::SoftReset => {
            println!("Domain {} cannot start over with what it has: that is not offered.", domain.raw());
            destroy(domain).map(|()| None)
        }
        Action::Restart | Action::CoredumpRestart | Action::RenameRestart => {
            if action == Action::CoredumpRestart {
                println!(
                    "The memory of domain {} cannot be written to a file: that is not offered.",
                    domain.raw()
                );
            }
            renew(config, domain);
            match action {
                Action::RenameRestart => preserve(config, domain)?,
                _ => destroy(domain)?,
            }
            if lived < SHORT_LIFE {
                std::thread::sleep(SHORT_LIFE - lived);
            }
            println!("Done. Rebooting now");
            let options = Options { unsupervised: true, ..Options::default() };
            create(config, &options, &mut |_| ()).map(Some)
        }
    }
}

/// What the domain is to be when it starts again: its name and what is set for its memory may have changed, and its
/// configuration by `xl config-update`.
fn renew(config: &mut DomainConfig, domain: DomId) {
    let Some(uuid) = config.uuid else { return };
    let client = Client::connect().ok();
    let kept = client.as_ref().and_then(|client| store::memory_settings(client, domain).ok().flatten());
    if let Some(settings) = kept.filter(|settings| settings.check(u64::MAX).is_ok()) {
        (config.memory_kib, config.balance) = (settings.startup_kib, settings.balance);
        config.maxmem_kib = settings.maximum_kib;
    }
    match UserData::new(domain, uuid).read(Kind::Xl) {
        Ok(Some(text)) => match config::parse(&text, "the configuration of xl config-update") {
            Ok(new) => *config = DomainConfig { uuid: Some(uuid), ..new },
            Err(errors) => println!("The new configuration is not used: {errors}"),
        },
        Ok(None) => {}
        Err(error) => println!("The new configuration is not used: {error}"),
    }
    if let Some(name) = client.and_then(|client| store::name(&client, domain).ok().flatten()) {
        config.name = name;
    }
}

/// Leaves a domain for a look, under a name and a UUID of its own.
fn preserve(config: &DomainConfig, domain: DomId) -> Result<(), Error> {
    let file = |error| Error::File { what: "make up a UUID", error };
    let uuid = Uuid::random().map_err(file)?;
    let xen = Privcmd::open().map_err(|error| Error::Hypervisor { step: "reach the hypervisor", error })?;
    xen.set_handle(domain, uuid.0).map_err(|error| Error::Hypervisor { step: "set its UUID", error })?;
    let client = Client::connect()?;
    let name = format!("{}-{}", config.name, domain.raw());
    store::set_identity(&client, domain, &name, uuid)?;
    if let Some(old) = config.uuid {
        let (from, to) = (UserData::new(domain, old), UserData::new(domain, uuid));
        let keep = || -> io::Result<()> {
            if let Some(text) = from.read(Kind::LibxlJson)? {
                to.write(Kind::LibxlJson, &text)?;
            }
            from.remove_all()
        };
        keep().map_err(|error| Error::File { what: "keep the domain's configuration", error })?;
    }
    println!("Domain {} is preserved under the name {name}.", domain.raw());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DomainConfig {
        let text = "name='g' kernel='/k' memory=64 on_crash='preserve' on_watchdog='rename-restart'";
        config::parse(&text.replace(' ', "\n"), "test").expect("it is complete")
    }

    #[test]
    fn each_reason_has_its_action() {
        let config = config();
        let expected = [
            (0, Some(Action::Destroy)),
            (1, Some(Action::Restart)),
            (2, None),
            (3, Some(Action::Preserve)),
            (4, Some(Action::RenameRestart)),
            (5, Some(Action::SoftReset)),
            (99, Some(Action::Destroy)),
        ];
        for (reason, action) in expected {
            assert_eq!(action_for(&config, reason), action, "{reason}");
        }
    }

    #[test]
    fn the_end_is_read_from_the_flags() {
        let info = |flags| GetDomainInfo { flags, ..GetDomainInfo::default() };
        assert_eq!(end_of(None), Some(End::Destroyed));
        assert_eq!(end_of(Some(&info(0x122))), None);
        assert_eq!(end_of(Some(&info(0x1_0106))), Some(End::Shutdown(1)));
        assert_eq!(end_of(Some(&info(0xff_010b))), Some(End::Destroyed));
    }

    #[test]
    fn the_configuration_reaches_the_supervisor() {
        let config = config();
        let line = serde_json::to_string(&config).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<DomainConfig>(&line).unwrap(), config);
    }
}

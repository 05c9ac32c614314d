//! What the daemons of dom0 share: they go to the background once they are ready, say that they are there, and hear of
//! signals as of any other event.
//!
//! No `fork`: the command starts its own program again as the daemon and waits for its word that it is ready. So whoever
//! started the command knows by its status whether the daemon runs, and sees its complaint if not.
#![forbid(unsafe_code)]

mod program;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{FlockOperation, Mode};

pub use program::{Common, Options, main};

/// Set for the process in the background.
const MARK: &str = "NACELLE_DAEMON";
/// The daemon's word that it is ready.
const READY: &[u8] = b"ready\n";

/// Who we are after [`begin`].
#[derive(Debug)]
pub enum Begun {
    /// The daemon: it sets up what it needs and then calls [`Daemon::ready`].
    Daemon(Daemon),
    /// The command that has started the daemon, or has not: it ends with this.
    Command(ExitCode),
}

/// A daemon that is not ready yet.
#[derive(Debug)]
pub struct Daemon {
    background: bool,
}

/// Starts the daemon: this process itself in the foreground, else another one.
///
/// # Errors
/// The program cannot be started again.
pub fn begin(foreground: bool) -> io::Result<Begun> {
    if foreground || std::env::var_os(MARK).is_some() {
        return Ok(Begun::Daemon(Daemon { background: !foreground }));
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut word = Vec::new();
    child.stdout.take().map(|mut from| from.read_to_end(&mut word)).transpose()?;
    // What it printed before it was ready is for whoever started it.
    if let Some(said) = word.strip_suffix(READY) {
        io::stdout().write_all(said)?;
        return Ok(Begun::Command(ExitCode::SUCCESS));
    }
    let status = child.wait()?.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Ok(Begun::Command(ExitCode::from(status.unwrap_or(1))))
}

impl Daemon {
    /// Everything is set up: lets go of the terminal and of the waiting command.
    ///
    /// # Errors
    /// There is no `/dev/null`.
    pub fn ready(self) -> io::Result<()> {
        if !self.background {
            return Ok(());
        }
        // Fails only for the leader of a process group, which has a session of its own then.
        let _ = rustix::process::setsid();
        let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        io::stdout().write_all(READY)?;
        io::stdout().flush()?;
        rustix::stdio::dup2_stdout(&nothing)?;
        rustix::stdio::dup2_stderr(&nothing)?;
        Ok(())
    }
}

/// Says which file an error is about.
fn naming(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn make_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(naming(path))
}

/// A file with the process's number, locked for as long as the process lives.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _file: File,
}

impl PidFile {
    /// Makes it.
    ///
    /// # Errors
    /// It cannot be written, or another process holds it.
    pub fn new(path: &Path) -> io::Result<Self> {
        make_directory_of(path)?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(naming(path))?;
        if rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let message = format!("runs already, as process {} ({})", holder.trim(), path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        file.set_len(0).map_err(naming(path))?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(naming(path))?;
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A Unix socket that only root may use, for a daemon that runs alone: one that is there was left by a daemon that was killed.
///
/// # Errors
/// It cannot be made.
pub fn private_socket(path: &Path) -> io::Result<UnixListener> {
    make_directory_of(path)?;
    let _ = std::fs::remove_file(path);
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    rustix::process::umask(mask);
    listener.map_err(naming(path))
}

/// Has epoll tell of `to`, as `data`.
///
/// # Errors
/// It cannot be listened to.
pub fn listen(poll: impl AsFd, to: impl AsFd, data: u64) -> io::Result<()> {
    Ok(epoll::add(poll, to, EventData::new_u64(data), EventFlags::IN)?)
}

/// From now on `signal` makes this readable, instead of what it does otherwise.
///
/// # Errors
/// The signal cannot be caught.
pub fn on_signal(signal: i32) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, theirs)?;
    Ok(ours)
}

/// Whether the signal has come since this was last asked.
pub fn has_come(signal: &mut UnixStream) -> bool {
    let mut word = [0; 64];
    let mut come = false;
    while signal.read(&mut word).is_ok_and(|count| count > 0) {
        come = true;
    }
    come
}

/// Says something that nobody asked for: on standard error, and to the system's log where there is one.
pub fn report(program: &str, what: &str) {
    eprintln!("{program}: {what}");
    // <27>: facility daemon, severity error (RFC 5424, section 6.2.1).
    let line = format!("<27>{program}[{}]: {what}", std::process::id());
    if let Ok(socket) = UnixDatagram::unbound() {
        // Without such a log there is nobody else to tell.
        let _ = socket.set_nonblocking(true).and_then(|()| socket.send_to(line.as_bytes(), "/dev/log"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_heard_once() {
        let mut signal = on_signal(signal_hook::consts::SIGUSR2).unwrap();
        assert!(!has_come(&mut signal));
        for _ in 0..3 {
            signal_hook::low_level::raise(signal_hook::consts::SIGUSR2).unwrap();
        }
        assert!(has_come(&mut signal));
        assert!(!has_come(&mut signal));
    }

    #[test]
    fn the_pid_file_tells_who_and_goes_with_it() {
        let path = std::env::temp_dir().join(format!("nacelle-pid-{}", std::process::id()));
        let file = PidFile::new(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }
}

//! `xenstore`: the store from the command line, as `xenstore ls` or, by a link of that name, `xenstore-ls`.
//!
//! Options and output are those of Xen's programs.

mod list;
mod options;
mod text;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use pv_abi::Errno;

use super::{Client, Error, Nodes, Permission};
use options::{Arguments, Command};

/// Why a command failed, in one line.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Said(String),
    /// That something does not exist is an answer, not a complaint.
    #[error("")]
    Quiet,
    #[error(transparent)]
    Store(#[from] Error),
}

type Result<T> = std::result::Result<T, Failure>;

/// What goes to standard output in the end: nothing of a transaction that had to be repeated.
#[derive(Debug, Default)]
struct Output(Vec<u8>);

impl Output {
    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// The program: its arguments, its status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    if let Some(command) = name.strip_prefix("xenstore-") {
        arguments.insert(1, command.into());
    }
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where it goes, the error itself knows.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match run(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Quiet) {
                eprintln!("{name}: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    let client = Client::connect()?;
    let mut output = Output::default();
    match command {
        Command::Ls(ls) => return list::run(&client, ls),
        Command::Watch { number, paths, .. } => return watch(&client, *number, paths),
        Command::Control { words } => {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let answer = client.control(if words.is_empty() { &["help"] } else { &words })?;
            output.text(answer.strip_suffix('\n').unwrap_or(&answer));
            output.text("\n");
        }
        Command::Read { paths, .. } if paths.len() == 1 => perform(&client, command, &mut output)?,
        Command::Write { words, .. } if words.len() == 2 => perform(&client, command, &mut output)?,
        _ => {
            client.transaction(|transaction| {
                output = Output::default();
                perform(transaction, command, &mut output)
            })?;
        }
    }
    // Whoever closed it does not want to read it.
    let _ = std::io::stdout().write_all(&output.0);
    Ok(())
}

/// Runs a command that is about nodes, in a transaction or not.
fn perform(nodes: &impl Nodes, command: &Command, output: &mut Output) -> Result<()> {
    match command {
        Command::Read { prefix, raw, paths, .. } => paths.iter().try_for_each(|path| {
            let value = nodes.read(path).map_err(|_| said("couldn't read path", path))?;
            if *prefix {
                output.text(&format!("{path}: "));
            }
            if *raw {
                output.0.extend_from_slice(&value);
            } else {
                output.text(&text::printable(&value));
                output.text("\n");
            }
            Ok(())
        }),
        Command::Write { raw, words, .. } => words.chunks_exact(2).try_for_each(|pair| {
            let (path, value) = (&pair[0], &pair[1]);
            let bytes = if *raw { value.as_bytes().to_vec() } else { text::meant(value) };
            nodes.write(path, bytes).map_err(|_| said("could not write path", path))
        }),
        Command::Rm { tidy, paths, .. } => paths.iter().try_for_each(|path| remove(nodes, path, *tidy)),
        Command::Exists { paths, .. } => {
            paths.iter().try_for_each(|path| nodes.read(path).map(drop).map_err(|_| Failure::Quiet))
        }
        Command::List { prefix, paths, .. } => paths.iter().try_for_each(|path| {
            for name in nodes.directory(path).map_err(|_| said("could not list path", path))? {
                let front = if *prefix { format!("{path}/") } else { String::new() };
                output.text(&format!("{front}{name}\n"));
            }
            Ok(())
        }),
        Command::Chmod { upto, recurse, path, permissions, .. } => {
            let permissions = permissions.iter().map(|text| permission(text)).collect::<Result<Vec<_>>>()?;
            change(nodes, path, &permissions, *upto, *recurse)
        }
        // They are not about nodes.
        Command::Ls(_) | Command::Watch { .. } | Command::Control { .. } => Ok(()),
    }
}

fn said(what: &str, path: &str) -> Failure {
    Failure::Said(format!("{what} {path}"))
}

fn permission(text: &str) -> Result<Permission> {
    text.parse()
        .map_err(|error| Failure::Said(format!("Invalid permission specification: '{text}': {error}")))
}

/// Removes a node; with `tidy`, also those above that are left without value and children.
fn remove(nodes: &impl Nodes, path: &str, tidy: bool) -> Result<()> {
    nodes.rm(path).map_err(|_| said("could not remove path", path))?;
    let mut path = path;
    while tidy && let Some((above, _)) = path.rsplit_once('/') {
        let empty = nodes.read(above).is_ok_and(|value| value.is_empty());
        if above.is_empty() || !empty || !nodes.directory(above).is_ok_and(|names| names.is_empty()) {
            break;
        }
        nodes.rm(above).map_err(|_| said("could not remove path", above))?;
        path = above;
    }
    Ok(())
}

/// Sets the permissions of a node, and of those above or below.
fn change(
    nodes: &impl Nodes,
    path: &str,
    permissions: &[Permission],
    upto: bool,
    recurse: bool,
) -> Result<()> {
    let failed = |error| Failure::Said(format!("Error occurred setting permissions on '{path}': {error}"));
    nodes.set_permissions(path, permissions).map_err(failed)?;
    if upto && let Some((above, _)) = path.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
        change(nodes, above, permissions, true, false)?;
    }
    if recurse {
        for name in nodes.directory(path).unwrap_or_default() {
            change(nodes, &format!("{}/{name}", path.trim_end_matches('/')), permissions, false, true)?;
        }
    }
    Ok(())
}

fn watch(client: &Client, number: Option<i64>, paths: &[String]) -> Result<()> {
    for path in paths {
        client.watch(path, path).map_err(|_| said("Unable to add watch on", path))?;
    }
    // None and negative numbers: for ever.
    let mut left = number.and_then(|number| u64::try_from(number).ok());
    while left != Some(0) {
        if let Some(event) = client.next_event(None)? {
            left = left.map(|left| left - 1);
            let mut output = std::io::stdout().lock();
            if writeln!(output, "{}", event.path).and_then(|()| output.flush()).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What `strerror` says of an answer.
fn reason(error: &Error) -> String {
    match error {
        Error::Refused { errno: Errno::ENOENT, .. } => "No such file or directory".to_owned(),
        Error::Refused { errno: Errno::EACCES, .. } => "Permission denied".to_owned(),
        Error::Refused { errno: Errno::EINVAL, .. } => "Invalid argument".to_owned(),
        other => other.to_string(),
    }
}

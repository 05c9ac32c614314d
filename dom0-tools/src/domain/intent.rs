//! Nothing is half: who makes or destroys a domain says so first, and whoever comes later finishes for one who died.
//!
//! A file of the domain's UUID in [`DIRECTORY`] is locked by who works on the domain, for as long as that process lives. The
//! hypervisor knows the domain by that UUID from its first moment. So a file that nobody holds means: a domain of that UUID, if
//! there is one, is to go, and its nodes in XenStore with it. The file is removed when the domain is complete, or gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pv_abi::domid::DomId;
use rustix::fs::{FlockOperation, flock};

use crate::uuid::Uuid;

/// Where the files are; it goes with a restart of dom0, as the domains do.
const DIRECTORY: &str = "/run/xen/unfinished";
/// Held while files are made and judged, briefly.
const GATE: &str = "gate";

/// A file of ours. Dropped without [`Intent::done`], it stays, and the domain goes.
#[derive(Debug)]
pub struct Intent {
    path: PathBuf,
    file: File,
    name: String,
}

/// What somebody left who died.
#[derive(Debug)]
pub struct Abandoned {
    /// The domain's UUID.
    pub uuid: Uuid,
    /// Its number, if that was known.
    pub domain: Option<DomId>,
    intent: Intent,
}

/// The directory; only one at a time makes and judges files.
#[derive(Debug)]
pub struct Gate {
    directory: PathBuf,
    _file: File,
}

/// Whether anything may be unfinished: quick, for every command.
pub fn is_any() -> bool {
    fs::read_dir(DIRECTORY).is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != GATE))
}

impl Gate {
    /// Waits until nobody else is in.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn enter() -> io::Result<Self> {
        Self::enter_in(Path::new(DIRECTORY))
    }

    fn enter_in(directory: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(named)?;
        let file = open(&directory.join(GATE)).map_err(named)?;
        while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
            if error != rustix::io::Errno::INTR {
                return Err(named(error.into()));
            }
        }
        Ok(Self { directory: directory.into(), _file: file })
    }

    /// Says that a domain will be made, or with its number that it will be destroyed. `None` if another process works on it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&self, uuid: Uuid, name: &str, domain: Option<DomId>) -> io::Result<Option<Intent>> {
        let path = self.directory.join(uuid.to_string());
        let file = loop {
            let file = open(&path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(None);
            }
            // Whoever was done with it may have removed it meanwhile.
            let there = fs::metadata(&path);
            if there.is_ok_and(|there| there.ino() == file.metadata().map_or(0, |ours| ours.ino())) {
                break file;
            }
        };
        let mut intent = Intent { path, file, name: name.to_owned() };
        intent.write(domain)?;
        Ok(Some(intent))
    }

    /// What was left by those who died; and the names of those domains that are being made right now.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn look(&self) -> io::Result<(Vec<Abandoned>, Vec<String>)> {
        let (mut abandoned, mut names) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(uuid) = entry.file_name().to_string_lossy().parse::<Uuid>() else { continue };
            let mut file = open(&entry.path())?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let (number, name) = text.split_once(' ').unwrap_or(("", text.as_str()));
            let name = name.trim_end_matches('\n').to_owned();
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                names.push(name);
                continue;
            }
            let domain = number.parse().ok().map(DomId::new);
            abandoned.push(Abandoned { uuid, domain, intent: Intent { path: entry.path(), file, name } });
        }
        Ok((abandoned, names))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

impl Intent {
    fn write(&mut self, domain: Option<DomId>) -> io::Result<()> {
        let number = domain.map_or_else(|| "-".to_owned(), |domain| domain.raw().to_string());
        self.file.rewind()?;
        self.file.set_len(0)?;
        // One write: whoever reads it after our death reads all of it or nothing.
        self.file.write_all(format!("{number} {}\n", self.name).as_bytes())
    }

    /// Adds the domain's number, once there is one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn number(&mut self, domain: DomId) -> io::Result<()> {
        self.write(Some(domain))
    }

    /// The domain is complete, or gone.
    pub fn done(self) {
        // It can only be that it is gone already. The lock goes after it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Abandoned {
    /// Everything of the domain is gone.
    pub fn done(self) {
        self.intent.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_died_is_found_and_who_lives_is_not() {
        let directory = std::env::temp_dir().join(format!("nacelle-intent-{}", std::process::id()));
        let gate = Gate::enter_in(&directory).unwrap();
        let (one, other) = (Uuid([1; 16]), Uuid([2; 16]));
        let mut intent = gate.announce(one, "first guest", None).unwrap().unwrap();
        assert!(gate.announce(one, "again", None).unwrap().is_none());
        intent.number(DomId::new(7)).unwrap();
        gate.announce(other, "second", Some(DomId::new(8))).unwrap().unwrap();

        let (abandoned, names) = gate.look().unwrap();
        assert_eq!(names, ["first guest"]);
        let [left] = abandoned.try_into().expect("one died");
        assert_eq!((left.uuid, left.domain), (other, Some(DomId::new(8))));
        left.done();

        drop(intent);
        let (abandoned, names) = gate.look().unwrap();
        assert!(names.is_empty());
        let [left] = abandoned.try_into().expect("the other died, too");
        assert_eq!((left.uuid, left.domain), (one, Some(DomId::new(7))));
        left.done();
        assert!(gate.look().unwrap().0.is_empty());
        fs::remove_dir_all(&directory).unwrap();
    }
}

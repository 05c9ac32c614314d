//! What the tools keep of a domain in files, where libxl keeps it: `/var/lib/xen/userdata-d.ID.UUID.KIND`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pv_abi::domid::DomId;
use rustix::fs::{FlockOperation, flock};

use crate::uuid::Uuid;

/// Where libxl keeps it.
const DIRECTORY: &str = "/var/lib/xen";
/// Held while a domain's data changes.
const LOCK: &str = "domain-userdata-lock";

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The configuration as libxl's JSON.
    LibxlJson,
    /// An `xl.cfg` that `xl config-update` left for the next start.
    Xl,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::LibxlJson => "libxl-json",
            Self::Xl => "xl",
        }
    }
}

/// One domain's files.
#[derive(Clone, Debug)]
pub struct UserData {
    directory: PathBuf,
    domain: DomId,
    uuid: Uuid,
}

/// As long as it lives, no other tool changes that domain's files.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl UserData {
    /// The files of a domain.
    pub fn new(domain: DomId, uuid: Uuid) -> Self {
        Self { directory: DIRECTORY.into(), domain, uuid }
    }

    /// `letter` is `d` for data, `n` for new data that is not complete, `l` for locks.
    fn path(&self, letter: char, name: &str) -> PathBuf {
        self.directory.join(format!("userdata-{letter}.{}.{}.{name}", self.domain.raw(), self.uuid))
    }

    /// Waits until no other tool changes the files.
    ///
    /// # Errors
    /// The lock's file cannot be made.
    pub fn lock(&self) -> io::Result<Lock> {
        let path = self.path('l', LOCK);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|error| named(&path, &error))?;
            while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
                if error != rustix::io::Errno::INTR {
                    return Err(error.into());
                }
            }
            // Whoever held it may have removed it, and another one have made a new one.
            let ours = file.metadata()?;
            let there = fs::metadata(&path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Lock { path, _file: file });
            }
        }
    }

    /// A file's text, or `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, kind: Kind) -> io::Result<Option<String>> {
        let path = self.path('d', kind.name());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    /// Writes a file, all of it or nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, kind: Kind, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.directory).map_err(|error| named(&self.directory, &error))?;
        let new = self.path('n', kind.name());
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            // libxl reads it as a string of C.
            if kind == Kind::LibxlJson && !text.ends_with('\0') {
                file.write_all(b"\0")?;
            }
            fs::rename(&new, self.path('d', kind.name()))
        };
        write().map_err(|error| named(&new, &error))
    }

    /// Removes a file, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, kind: Kind) -> io::Result<()> {
        let path = self.path('d', kind.name());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Removes all of the domain's files, whoever wrote them.
    ///
    /// # Errors
    /// One cannot be removed; the others are.
    pub fn remove_all(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(named(&self.directory, &error)),
        };
        let tail = format!(".{}.{}.", self.domain.raw(), self.uuid);
        let mut result = Ok(());
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            // "userdata-", a letter, the tail.
            let is_ours = name
                .strip_prefix("userdata-")
                .and_then(|rest| rest.get(1..))
                .is_some_and(|rest| rest.starts_with(&tail));
            if is_ours && !name.ends_with(LOCK) {
                let path = self.directory.join(&*name);
                if let Err(error) = fs::remove_file(&path) {
                    result = Err(named(&path, &error));
                }
            }
        }
        result
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the file is closed, so that nobody waits for a file that is gone without seeing that it is.
        let _ = fs::remove_file(&self.path);
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> UserData {
        let directory = std::env::temp_dir().join(format!("nacelle-userdata-{name}-{}", std::process::id()));
        UserData { directory, domain: DomId::new(7), uuid: Uuid([0xab; 16]) }
    }

    #[test]
    fn what_was_written_is_read_and_removed() {
        let data = data("files");
        assert_eq!(data.read(Kind::Xl).unwrap(), None);
        data.remove_all().unwrap();
        data.write(Kind::Xl, "one").unwrap();
        data.write(Kind::Xl, "two").unwrap();
        data.write(Kind::LibxlJson, "{}").unwrap();
        assert_eq!(data.read(Kind::Xl).unwrap().as_deref(), Some("two"));
        let name = "userdata-d.7.abababab-abab-abab-abab-abababababab.libxl-json";
        assert_eq!(fs::read_to_string(data.directory.join(name)).unwrap(), "{}\0");
        data.remove(Kind::Xl).unwrap();
        data.remove(Kind::Xl).unwrap();
        let other = UserData { domain: DomId::new(70), ..data.clone() };
        other.write(Kind::Xl, "other").unwrap();
        data.remove_all().unwrap();
        assert_eq!((data.read(Kind::LibxlJson).unwrap(), data.read(Kind::Xl).unwrap()), (None, None));
        assert_eq!(other.read(Kind::Xl).unwrap().as_deref(), Some("other"));
        fs::remove_dir_all(&data.directory).unwrap();
    }

    #[test]
    fn only_one_holds_the_lock() {
        let data = data("lock");
        fs::create_dir_all(&data.directory).unwrap();
        let count = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = data.lock().unwrap();
                        assert_eq!(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        assert_eq!(count.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 1);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&data.directory).unwrap().count(), 0);
        fs::remove_dir_all(&data.directory).unwrap();
    }
}

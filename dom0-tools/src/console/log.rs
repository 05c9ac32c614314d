//! A log file that does not grow without end: at its greatest size it is renamed, and the oldest of its kind goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::stamp::{Stamper, date_and_time};

/// How log files are turned over.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes of one file; 0 is no limit.
    pub size: u64,
    /// Older files that are kept.
    pub keep: u32,
}

impl Rotation {
    /// The renames that make room for a new `path`, in order: the oldest is overwritten. None if nothing older is kept.
    fn renames(self, path: &Path) -> Vec<(PathBuf, PathBuf)> {
        let numbered = |number: u32| match number {
            0 => path.to_owned(),
            _ => PathBuf::from(format!("{}.{number}", path.display())),
        };
        (0..self.keep).rev().map(|number| (numbered(number), numbered(number + 1))).collect()
    }
}

/// One log file.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
    stamper: Stamper,
}

impl Log {
    /// Opens it, and goes on at its end.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: PathBuf, rotation: Rotation, stamper: Stamper) -> io::Result<Self> {
        let file = append_to(&path)?;
        let size = file.metadata()?.len();
        let mut log = Self { path, file, size, rotation, stamper };
        log.mark("Opened")?;
        Ok(log)
    }

    /// Opens it anew, since somebody may have moved it away.
    ///
    /// # Errors
    /// Those of the file system; it then goes on as it was.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.mark("Closed")?;
        self.file = append_to(&self.path)?;
        self.size = self.file.metadata()?.len();
        self.mark("Opened")
    }

    /// As Xen's does: with timestamps, the log says when it was opened.
    fn mark(&mut self, what: &str) -> io::Result<()> {
        if !self.stamper.timestamps {
            return Ok(());
        }
        let line = format!("[{}] Logfile {what}\n", date_and_time(SystemTime::now()));
        self.append(line.as_bytes())
    }

    /// Writes what was printed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut text = Vec::with_capacity(bytes.len());
        self.stamper.write(bytes, SystemTime::now(), &mut text);
        self.append(&text)
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let length = text.len() as u64;
        if self.rotation.size > 0 && self.size > 0 && self.size + length > self.rotation.size {
            self.rotate()?;
        }
        self.file.write_all(text)?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for (from, to) in self.rotation.renames(&self.path) {
            match fs::rename(from, to) {
                // Not that many yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        if self.rotation.keep == 0 {
            self.file.set_len(0)?;
        } else {
            self.file = append_to(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A domain's name as part of a file's: names come from XenStore, and must not lead out of the directory.
pub fn safe_name(name: &str) -> String {
    let clean = |c: char| if c == '/' || c.is_control() { '_' } else { c };
    // A name of 255 bytes is the longest that Linux takes; there is a prefix, a suffix and a number.
    name.chars()
        .map(clean)
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= 200).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nacelle-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap_or_default()
        }
        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open(directory: &Directory, rotation: Rotation) -> Log {
        Log::open(directory.0.join("g.log"), rotation, Stamper::new(false, false)).unwrap()
    }

    #[test]
    fn the_oldest_file_goes() {
        let directory = Directory::new("rotate");
        let mut log = open(&directory, Rotation { size: 10, keep: 2 });
        for line in ["one 56789\n", "two\n", "2\n", "three 789\n", "four\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        assert_eq!(directory.names(), ["g.log", "g.log.1", "g.log.2"]);
        assert_eq!(directory.read("g.log"), "four\n");
        assert_eq!(directory.read("g.log.1"), "three 789\n");
        assert_eq!(directory.read("g.log.2"), "two\n2\n");
    }

    #[test]
    fn none_may_be_kept_and_no_size_is_no_limit() {
        let directory = Directory::new("keep");
        let mut log = open(&directory, Rotation { size: 10, keep: 0 });
        log.write(b"12345678\n").unwrap();
        log.write(b"again\n").unwrap();
        assert_eq!(directory.names(), ["g.log"]);
        assert_eq!(directory.read("g.log"), "again\n");
        let mut log = open(&directory, Rotation { size: 0, keep: 3 });
        log.write(&[b'x'; 1000]).unwrap();
        log.write(&[b'x'; 1000]).unwrap();
        assert_eq!(directory.read("g.log").len(), 2006);
    }

    #[test]
    fn a_log_goes_on_where_it_was_and_can_be_moved_away() {
        let directory = Directory::new("reopen");
        open(&directory, Rotation { size: 0, keep: 0 }).write(b"one\n").unwrap();
        let mut log = open(&directory, Rotation { size: 0, keep: 0 });
        log.write(b"two\n").unwrap();
        fs::rename(directory.0.join("g.log"), directory.0.join("old")).unwrap();
        log.write(b"three\n").unwrap();
        log.reopen().unwrap();
        log.write(b"four\n").unwrap();
        assert_eq!(directory.read("old"), "one\ntwo\nthree\n");
        assert_eq!(directory.read("g.log"), "four\n");
    }

    #[test]
    fn names_stay_in_their_directory() {
        assert_eq!(safe_name("../../etc/passwd\n"), ".._.._etc_passwd_");
        assert_eq!(safe_name("demo-1"), "demo-1");
        assert_eq!(safe_name(&"ü".repeat(300)).len(), 200);
    }
}

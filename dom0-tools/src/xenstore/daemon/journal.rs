//! The store on file: a snapshot, and after it each change as it happens, so that a daemon that was killed can start again
//! where it was.
//!
//! The file is in memory (`/run`): it lives as long as the domains do, and no disk is waited for. What is in it was written
//! before anybody was told of the change. A frame is its length, a sum over it, and records; one that was cut off ends the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::xenstore::store::record::Record;

const MAGIC: &str = "nacelle xenstored 1";
/// Names this boot of the machine: domains do not outlive it.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The file is made anew when it has grown by its size at the start and this.
const GROWTH: u64 = 1024 * 1024;

/// The file, and the right to write it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes in the file, and how many they were when it was made.
    size: u64,
    made: u64,
    buffer: Vec<u8>,
    _lock: File,
}

/// FNV-1a: enough to tell a whole frame from a torn one.
fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn header() -> String {
    let boot = fs::read_to_string(BOOT).unwrap_or_default();
    format!("{MAGIC}\n{}\n", boot.trim())
}

fn frame(records: &[Record], to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(&[0; 8]);
    for record in records {
        record.encode(to);
    }
    let length = (to.len() - start - 8) as u32;
    let check = sum(&to[start + 8..]);
    to[start..start + 4].copy_from_slice(&length.to_le_bytes());
    to[start + 4..start + 8].copy_from_slice(&check.to_le_bytes());
}

/// The records of a file, as far as it is whole. None if it is of another boot.
fn parse(bytes: &[u8], header: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(header.as_bytes()) else { return records };
    while let Some((length, after)) = rest.split_first_chunk()
        && let Some((check, after)) = after.split_first_chunk()
        && let Some((content, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize)
        && sum(content) == u32::from_le_bytes(*check)
        && let Some(found) = Record::decode_all(content)
    {
        records.extend(found);
        rest = after;
    }
    records
}

impl Journal {
    /// Opens the file at `path`, and gives its records out; none with `forget`.
    ///
    /// # Errors
    /// It cannot be made, or another daemon holds it ([`io::ErrorKind::AlreadyExists`]).
    pub fn open(path: &Path, forget: bool) -> io::Result<(Self, Vec<Record>)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(named)?;
        }
        let open =
            |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let lock = open(&path.with_extension("lock")).map_err(named)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another xenstored runs ({})", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let mut file = open(path).map_err(named)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(named)?;
        let records = if forget { Vec::new() } else { parse(&bytes, &header()) };
        let journal = Self { path: path.to_owned(), file, size: 0, made: 0, buffer: Vec::new(), _lock: lock };
        Ok((journal, records))
    }

    /// Makes the file anew, of a snapshot.
    ///
    /// # Errors
    /// Of writing; the old file is as it was then.
    pub fn rewrite(&mut self, snapshot: &[Record]) -> io::Result<()> {
        let mut bytes = header().into_bytes();
        // Frames of moderate size, each of which is whole or not.
        for records in snapshot.chunks(1000) {
            frame(records, &mut bytes);
        }
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        self.size = bytes.len() as u64;
        self.made = self.size;
        Ok(())
    }

    /// Appends changes, which all happened or none.
    ///
    /// # Errors
    /// Of writing.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.buffer.clear();
        frame(records, &mut self.buffer);
        self.file.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        Ok(())
    }

    /// Takes the file away: it would not be true any more.
    pub fn remove(self) {
        // If it cannot be removed, it is of no use either, and there is nobody to tell.
        let _ = fs::remove_file(&self.path);
    }

    /// Whether the file has grown so much that it is worth to make it anew.
    pub fn has_grown(&self) -> bool {
        self.size > 2 * self.made + GROWTH
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn removed(path: &str) -> Record {
        Record::Removed { path: path.into() }
    }

    #[test]
    fn a_journal_is_read_back_and_has_one_writer() {
        let path = std::env::temp_dir().join(format!("nacelle-journal-{}", std::process::id()));
        let (mut journal, records) = Journal::open(&path, false).unwrap();
        assert!(records.is_empty());
        journal.rewrite(&[removed("/a")]).unwrap();
        journal.append(&[removed("/b"), removed("/c")]).unwrap();
        assert_eq!(Journal::open(&path, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(journal);
        let (journal, records) = Journal::open(&path, false).unwrap();
        assert_eq!(records, [removed("/a"), removed("/b"), removed("/c")]);
        drop(journal);
        assert!(Journal::open(&path, true).unwrap().1.is_empty());
        for extension in ["lock", ""] {
            fs::remove_file(path.with_extension(extension)).unwrap();
        }
    }

    proptest! {
        /// Wherever the file is cut off, and whatever byte is wrong, what comes before is whole.
        #[test]
        fn a_torn_file_gives_whole_frames(cut: prop::sample::Index, wrong: prop::sample::Index, flip in 0u8..255) {
            let frames: Vec<Vec<Record>> =
                (0..5).map(|frame| (0..frame).map(|n| removed(&format!("/{frame}/{n}"))).collect()).collect();
            let mut bytes = b"head".to_vec();
            let mut ends = vec![(bytes.len(), Vec::new())];
            for records in &frames {
                frame(records, &mut bytes);
                let all = [ends.last().unwrap().1.clone(), records.clone()].concat();
                ends.push((bytes.len(), all));
            }
            let whole = |length: usize| ends.iter().rev().find(|(end, _)| *end <= length).map_or(&[][..], |(_, all)| all);
            let cut = cut.index(bytes.len() + 1);
            prop_assert_eq!(parse(&bytes[..cut], "head"), whole(cut));
            let wrong = wrong.index(bytes.len());
            bytes[wrong] ^= flip;
            let found = parse(&bytes, "head");
            prop_assert!(found.len() >= whole(wrong).len() || wrong < 4);
            prop_assert!(ends.last().unwrap().1.starts_with(&found));
        }
    }
}

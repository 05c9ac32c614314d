//! A run as it is recorded: a line of JSON for each moment, with what a picture of it needs.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::view::Status;

/// One moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since 1970.
    pub time: f64,
    /// KiB of the host.
    pub total_kib: u64,
    /// Of that, promised to nobody.
    pub available_kib: u64,
    /// The domains.
    pub domains: Vec<DomainSample>,
}

/// A domain at one moment. Amounts are in KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainSample {
    /// Its number.
    pub domid: u16,
    /// Its name.
    pub name: String,
    /// What it has.
    pub assigned_kib: u64,
    /// What it is to have.
    pub target_kib: u64,
    /// What it needs, if anybody says so.
    pub demand_kib: Option<u64>,
    /// Percent.
    pub pressure: Option<u64>,
    /// What it always has.
    pub minimum_kib: u64,
    /// What it can have.
    pub maximum_kib: u64,
    /// Tasks in it wait for memory.
    pub is_stalled: bool,
}

impl From<&Status> for Sample {
    fn from(status: &Status) -> Self {
        let domain = |domain: &super::view::DomainView| DomainSample {
            domid: domain.domid,
            name: domain.name.clone(),
            assigned_kib: domain.assigned_kib,
            target_kib: domain.target_kib,
            demand_kib: domain.demand_kib,
            pressure: domain.pressure,
            minimum_kib: domain.minimum_kib,
            maximum_kib: domain.maximum_kib,
            is_stalled: domain.is_stalled,
        };
        Self {
            time: status.time,
            total_kib: status.host.total_kib,
            available_kib: status.host.available_kib,
            domains: status.domains.iter().map(domain).collect(),
        }
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    file: File,
}

impl Recorder {
    /// Begins one.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        Ok(Self { file: File::create(path).map_err(named)? })
    }

    /// Adds a moment: one write, so that whoever ends the run leaves whole lines.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&mut self, status: &Status) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Sample::from(status))?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// Reads a recording. A last line that is cut off, as a kill leaves it, is left out.
///
/// # Errors
/// The file's, and a line that is none of a recording, by its number.
pub fn read(path: &Path) -> io::Result<Vec<Sample>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut samples = Vec::new();
    let mut lines = BufReader::new(File::open(path).map_err(named)?).lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_str(&line.map_err(named)?) {
            Ok(sample) => samples.push(sample),
            Err(_) if lines.peek().is_none() && !samples.is_empty() => {}
            Err(error) => {
                let message = format!("{}: line {}: {error}", path.display(), index + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memoryd::view::DomainView;

    #[test]
    fn a_recording_is_read_as_it_was_written_even_if_it_was_cut_off() {
        let path = std::env::temp_dir().join(format!("nacelle-recording-{}", std::process::id()));
        let domain = DomainView { domid: 2, name: "ä".into(), assigned_kib: 7, ..DomainView::default() };
        let status = Status { time: 1.5, domains: vec![domain], ..Status::default() };
        let mut recorder = Recorder::create(&path).unwrap();
        recorder.write(&status).unwrap();
        recorder.write(&status).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(read(&path).unwrap(), vec![Sample::from(&status); 2]);
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        std::fs::write(&path, "{}\nx\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
        std::fs::remove_file(&path).unwrap();
    }
}

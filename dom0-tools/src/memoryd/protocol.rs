//! What is said on the daemon's socket: a request a line, an answer a line, both JSON. And the side of it that asks.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::view::{Status, Told};

/// Where it is.
pub const SOCKET: &str = "/run/xen/xenmemd.sock";
/// A longer request is none.
pub const LONGEST_REQUEST: usize = 4096;
/// How long the daemon may take to answer what it knows.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// How it is.
    Status,
    /// A status now and after each change, every second at most, until the connection ends.
    Follow,
    /// Why a domain has what it has.
    Explain {
        /// Its number.
        domain: u16,
    },
    /// Memory for a domain that is to be made. It is kept for as long as the connection lives, or until the domain has it.
    Reserve {
        /// The domain's UUID.
        uuid: String,
        /// KiB.
        kib: u64,
        /// Milliseconds that it may take.
        deadline_ms: u64,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`] and [`Request::Follow`].
    Status(Box<Status>),
    /// To [`Request::Explain`], the oldest first.
    Decisions(Vec<Told>),
    /// To [`Request::Reserve`]: the memory is there.
    Reserved {
        /// Milliseconds that it took.
        after_ms: u64,
    },
    /// It cannot be done, and why.
    Refused(String),
}

/// Where the socket is: `XENMEMD_SOCKET`, or [`SOCKET`].
pub fn socket_path() -> PathBuf {
    std::env::var_os("XENMEMD_SOCKET").map_or(SOCKET.into(), PathBuf::from)
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects, if the daemon runs.
    pub fn open() -> Option<Self> {
        Self::open_at(&socket_path()).ok()
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open_at(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer; beyond the usual by `longer`.
    ///
    /// # Errors
    /// The daemon went away, or said what makes no sense.
    pub fn ask(&mut self, request: &Request, longer: Duration) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        self.stream.get_ref().set_read_timeout(Some(PATIENCE + longer))?;
        self.hear()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The next answer, after [`Request::Follow`]; `None`: the daemon ended.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn hear(&mut self) -> io::Result<Option<Answer>> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }

    /// Waits without end from now on.
    ///
    /// # Errors
    /// The connection broke.
    pub fn be_patient(&self) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(None)
    }
}

/// The status, if the daemon runs and answers.
pub fn status() -> Option<Status> {
    match Connection::open()?.ask(&Request::Status, Duration::ZERO) {
        Ok(Answer::Status(status)) => Some(*status),
        // Another daemon's answer, or one that is ending: as if there were none.
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_that_anybody_can_write() {
        let line = r#"{"ask":"reserve","uuid":"u","kib":1024,"deadline_ms":500}"#;
        let request = Request::Reserve { uuid: "u".into(), kib: 1024, deadline_ms: 500 };
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#"{"ask":"status"}"#);
        assert!(serde_json::from_str::<Request>(r#"{"ask":"nosuch"}"#).is_err());
    }

    #[test]
    fn a_question_is_answered() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let daemon = std::thread::spawn(move || {
            let mut stream = BufReader::new(theirs);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let answer = Answer::Refused("no".into());
            let stream = stream.get_mut();
            writeln!(stream, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
            line
        });
        let mut connection = Connection { stream: BufReader::new(ours) };
        let answer = connection.ask(&Request::Explain { domain: 3 }, Duration::ZERO).unwrap();
        assert_eq!(answer, Answer::Refused("no".into()));
        assert_eq!(daemon.join().unwrap(), "{\"ask\":\"explain\",\"domain\":3}\n");
        assert_eq!(connection.hear().unwrap(), None);
    }
}

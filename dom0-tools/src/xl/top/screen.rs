//! The terminal while `xl top` runs: keys without Enter, a screen of its own, and everything as it was afterwards.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::daemon;

/// SIGTERM and SIGINT, which come from elsewhere, as keys do not make signals here.
const SIGNALS: [i32; 2] = [15, 2];

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Letter(char),
}

/// The screen. Dropping it gives the terminal back.
pub(super) struct Screen {
    /// How the terminal was; `None`: the input is no terminal, and no key comes from it.
    before: Option<Termios>,
    signals: Vec<UnixStream>,
}

impl Screen {
    pub(super) fn open() -> Result<Self> {
        let before = tcgetattr(io::stdin()).ok();
        let signals = SIGNALS.iter().map(|signal| daemon::on_signal(*signal)).collect::<io::Result<_>>()?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        }
        let screen = Self { before, signals };
        // The other screen, without a cursor.
        print!("\x1b[?1049h\x1b[?25l");
        io::stdout().flush()?;
        Ok(screen)
    }

    /// Waits for a key.
    pub(super) fn wait(&self, time: Duration) -> Result<Option<Key>> {
        let stdin = io::stdin();
        let mut fds: Vec<PollFd<'_>> =
            self.signals.iter().map(|signal| PollFd::new(signal, PollFlags::IN)).collect();
        if self.before.is_some() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut fds, Some(&time)) {
            Ok(0) => return Ok(None),
            // The terminal has another size.
            Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[..self.signals.len()].iter().any(|fd| !fd.revents().is_empty()) {
            return Ok(Some(Key::Quit));
        }
        let mut byte = [0];
        Ok(Some(match io::stdin().read(&mut byte)? {
            0 => Key::Quit,
            _ => key(byte[0]),
        }))
    }

    /// Shows the lines, as many of them and as much of each as there is room for.
    pub(super) fn draw(&self, lines: &[String]) -> Result<()> {
        let (rows, columns) =
            tcgetwinsize(io::stdout()).map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()));
        let mut out = io::stdout().lock();
        write!(out, "{}", picture(lines, rows, columns))?;
        Ok(out.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print!("\x1b[?25h\x1b[?1049l");
        let _ = io::stdout().flush();
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn key(byte: u8) -> Key {
    match byte {
        // Ctrl-C and Ctrl-D, too.
        b'q' | b'Q' | 3 | 4 => Key::Quit,
        other => Key::Letter(char::from(other).to_ascii_lowercase()),
    }
}

/// What draws the lines: over what was there, and the rest of the screen empty.
fn picture(lines: &[String], rows: usize, columns: usize) -> String {
    const HELP: &str = "q: quit   sort by  i: number  n: name  c: CPU  m: memory";
    // A terminal without a size is one that does not tell it.
    let (rows, columns) = (if rows == 0 { 24 } else { rows }, if columns == 0 { 80 } else { columns });
    let cut = |line: &str| -> String {
        line.chars().map(|c| if c.is_control() { '?' } else { c }).take(columns).collect()
    };
    let mut text = "\x1b[H".to_owned();
    for line in lines.iter().take(rows.saturating_sub(1)) {
        text.push_str(&format!("{}\x1b[K\r\n", cut(line)));
    }
    text.push_str(&format!("{}\x1b[K\x1b[J", cut(HELP)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_the_screen() {
        let lines = vec!["abcdef".to_owned(), "two".to_owned(), "three".to_owned()];
        assert_eq!(picture(&lines, 3, 4), "\x1b[Habcd\x1b[K\r\ntwo\x1b[K\r\nq: q\x1b[K\x1b[J");
        assert!(picture(&["\x1b[2J".to_owned()], 24, 80).contains("?[2J"));
        assert!(picture(&lines, 0, 0).contains("three"));
    }

    #[test]
    fn keys() {
        assert_eq!((key(b'q'), key(3), key(b'M')), (Key::Quit, Key::Quit, Key::Letter('m')));
    }
}

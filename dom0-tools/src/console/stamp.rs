//! What is done to a guest's output on its way into a log: a time before each line, escape characters made harmless.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes lines.
#[derive(Debug)]
pub struct Stamper {
    /// A time before each line.
    pub timestamps: bool,
    /// A dot for each ESC, so that no terminal that shows the log can be driven by it.
    pub replace_escape: bool,
    in_line: bool,
}

impl Stamper {
    /// One that is at the beginning of a line.
    pub fn new(timestamps: bool, replace_escape: bool) -> Self {
        Self { timestamps, replace_escape, in_line: false }
    }

    /// Appends `bytes`, printed at `now`, to `out`.
    pub fn write(&mut self, bytes: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        let time = if self.timestamps { format!("[{}] ", date_and_time(now)) } else { String::new() };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.in_line {
                out.extend_from_slice(time.as_bytes());
            }
            let from = out.len();
            out.extend_from_slice(line);
            if self.replace_escape {
                out[from..].iter_mut().filter(|byte| **byte == 0x1b).for_each(|byte| *byte = b'.');
            }
            self.in_line = !line.ends_with(b"\n");
        }
    }
}

/// `2026-11-25 17:05:00`, in UTC.
pub fn date_and_time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= year_length(year) {
        days -= year_length(year);
        year += 1;
    }
    let mut month = 1;
    while days >= month_length(year, month) {
        days -= month_length(year, month);
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        // The other months, and no other number comes here.
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_the_calendars() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_795_626_300, "2026-11-25 17:05:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date_and_time(at(seconds)), text);
        }
    }

    #[test]
    fn each_line_has_one_time() {
        let mut stamper = Stamper::new(true, false);
        let mut out = Vec::new();
        stamper.write(b"one\ntw", at(0), &mut out);
        stamper.write(b"o\n", at(1), &mut out);
        stamper.write(b"", at(2), &mut out);
        stamper.write(b"\nthree", at(3), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "[1970-01-01 00:00:00] one\n[1970-01-01 00:00:00] two\n[1970-01-01 00:00:03] \n[1970-01-01 00:00:03] three"
        );
    }

    #[test]
    fn bytes_pass_unchanged_unless_asked() {
        let text = b"\x1b[1mbold\x1b[0m\r\nmore";
        let mut out = Vec::new();
        Stamper::new(false, false).write(text, at(0), &mut out);
        assert_eq!(out, text);
        out.clear();
        Stamper::new(false, true).write(text, at(0), &mut out);
        assert_eq!(out, b".[1mbold.[0m\r\nmore");
    }
}

//! `xenstore ls`: all nodes below one, with values, and permissions if they are asked for.

use std::fmt::Write as _;
use std::io::Write as _;

use pv_abi::Errno;

use super::options::Ls;
use super::{Failure, Result, reason, text};
use crate::xenstore::{Client, Nodes};

/// Columns of ` = "..."`, which are left over for a value that is cut off.
const TAG: usize = 8;
/// Where permissions begin, if the value is short.
const DESIRED: usize = 60;
/// The width where there is no terminal.
const USUAL: usize = 80;

/// How to print.
#[derive(Clone, Copy, Debug)]
struct Style {
    flat: bool,
    permissions: bool,
    /// Columns that a line may have.
    width: usize,
    desired: usize,
}

/// Runs the command.
pub fn run(client: &Client, ls: &Ls) -> Result<()> {
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    // A serial line does not know its width and says 0.
    let columns = terminal.map_or(0, |size| usize::from(size.ws_col));
    let width = if columns == 0 { USUAL } else { columns.saturating_sub(2) };
    let (width, desired) = if ls.flat { (usize::MAX / 2, 0) } else { (width, DESIRED) };
    let style = Style { flat: ls.flat, permissions: ls.permissions, width, desired };
    for path in &ls.paths {
        below(client, path, 0, style)?;
    }
    Ok(())
}

fn below(nodes: &Client, path: &str, depth: usize, style: Style) -> Result<()> {
    let names = match nodes.directory(path) {
        Ok(names) => names,
        // It went away meanwhile.
        Err(error) if depth > 0 && error.is(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(Failure::Said(format!("xs_directory ({path}): {}", reason(&error)))),
    };
    for name in names {
        let child = format!("{}/{name}", path.trim_end_matches('/'));
        let value = nodes.read(&child).ok();
        let mut line = line(if style.flat { &child } else { &name }, depth, value.as_deref(), style);
        if style.permissions {
            match nodes.permissions(&child) {
                Ok(entries) => {
                    let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
                    let _ = write!(line, "  ({})", entries.join(","));
                }
                Err(error) => eprintln!("could not access permissions for {name}: {}", reason(&error)),
            }
        }
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return Err(Failure::Quiet);
        }
        below(nodes, &child, depth + 1, style)?;
    }
    Ok(())
}

/// A node's line, but for its permissions.
fn line(name: &str, depth: usize, value: Option<&[u8]>, style: Style) -> String {
    let mut line = String::new();
    if !style.flat {
        line.extend(std::iter::repeat_n(' ', depth));
    }
    // In a narrow terminal a name is cut off, too.
    let room = if style.flat { usize::MAX } else { style.width.saturating_sub(TAG + line.len()) };
    line.extend(name.chars().take(room));
    // Xen's program counts no columns for the path of a flat list.
    let columns = if style.flat { 0 } else { line.len() };
    let Some(value) = value else {
        line.push_str(":\n");
        return line;
    };
    let shown = text::printable(value);
    if style.width < columns + value.len() + TAG {
        let room = style.width.saturating_sub(TAG + columns);
        let _ = write!(line, " = \"{}\\...\"", shown.get(..room).unwrap_or(&shown));
        return line;
    }
    let _ = write!(line, " = \"{shown}\"");
    if style.permissions {
        line.push(' ');
        let mut column = columns + shown.len() + 6;
        while column < style.desired.min(style.width) {
            line.push(if column % 2 == 1 { '.' } else { ' ' });
            column += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { flat: false, permissions: false, width: 30, desired: 20 };

    #[test]
    fn lines_are_those_of_xens_program() {
        assert_eq!(line("name", 2, Some(b"v\n"), STYLE), "  name = \"v\\n\"");
        assert_eq!(line("name", 0, Some(&[b'x'; 40]), STYLE), "name = \"xxxxxxxxxxxxxxxxxx\\...\"");
        assert_eq!(line("name", 1, None, STYLE), " name:\n");
        let with = Style { permissions: true, ..STYLE };
        assert_eq!(line("name", 0, Some(b"v"), with), "name = \"v\" . . . . .");
        let flat = Style { flat: true, width: 1 << 40, desired: 0, ..with };
        assert_eq!(line("/a/b", 2, Some(b"v"), flat), "/a/b = \"v\" ");
    }
}

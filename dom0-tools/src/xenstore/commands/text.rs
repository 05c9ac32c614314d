//! Values as text: what cannot be printed is written with a backslash.

use std::fmt::Write;

/// A value, printable.
pub fn printable(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for &byte in value {
        let _ = match byte {
            b'\\' => text.write_str("\\\\"),
            b' '..=b'~' => text.write_char(char::from(byte)),
            b'\t' => text.write_str("\\t"),
            b'\n' => text.write_str("\\n"),
            b'\r' => text.write_str("\\r"),
            0..=7 => write!(text, "\\{byte:03o}"),
            _ => write!(text, "\\x{byte:02x}"),
        };
    }
    text
}

/// The value that such a text means.
pub fn meant(text: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let (b'\\', Some((&escape, after))) = (byte, rest.split_first()) else {
            value.push(byte);
            continue;
        };
        // Digits of a number, at most so many of that base.
        let number = |digits: &[u8], most: usize, base: u32| {
            let count =
                digits.iter().take(most).take_while(|&&digit| char::from(digit).is_digit(base)).count();
            let number = std::str::from_utf8(&digits[..count]).ok();
            (number.and_then(|number| u32::from_str_radix(number, base).ok()).unwrap_or(0) as u8, count)
        };
        let (byte, taken) = match escape {
            b't' => (b'\t', 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b'x' => {
                let (byte, count) = number(after, 2, 16);
                (byte, 1 + count)
            }
            b'0'..=b'7' => number(rest, 3, 8),
            other => (other, 1),
        };
        value.push(byte);
        rest = &rest[taken..];
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_written_as_xens_programs_write_them() {
        assert_eq!(printable(b"a b\\\n\t\r\0\x07\x08\xff~"), "a b\\\\\\n\\t\\r\\000\\007\\x08\\xff~");
        assert_eq!(meant("a\\x41\\101\\q\\"), b"aAAq\\");
        assert_eq!(meant("\\xz"), b"\0z");
    }

    proptest! {
        #[test]
        fn values_are_read_as_they_are_written(value in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(meant(&printable(&value)), value);
        }
    }
}

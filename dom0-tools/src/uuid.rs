//! UUIDs, as domains carry them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A domain's identity; the bytes in the order they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

/// Text that is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: it has 32 hexadecimal digits, as in 6c5f2b0e-9f0d-4d3c-8a51-0f3f1a2b3c4d")]
pub struct InvalidUuid;

impl Uuid {
    /// A new one: version 4, from the kernel's generator.
    ///
    /// # Errors
    /// `/dev/urandom` cannot be read.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        // RFC 9562, 5.4: version 4, variant 10.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    /// Whether all its bits are 0, as dom0's.
    pub fn is_nil(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                out.write_str("-")?;
            }
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    /// Dashes may be anywhere between bytes, as libxl has it.
    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let mut bytes = [0; 16];
        let mut rest = text;
        for byte in &mut bytes {
            rest = rest.strip_prefix('-').unwrap_or(rest);
            let digits = rest.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(digits.ok_or(InvalidUuid)?, 16).map_err(|_| InvalidUuid)?;
            rest = &rest[2..];
        }
        if rest.is_empty() { Ok(Self(bytes)) } else { Err(InvalidUuid) }
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_carry_each_other() {
        let text = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!(uuid.0, core::array::from_fn(|index| index as u8));
        assert_eq!(uuid.to_string(), text);
        assert_eq!("000102030405060708090A0B0C0D0E0F".parse(), Ok(uuid));
        for bad in [
            "",
            "0",
            "00010203-0405-0607-0809-0a0b0c0d0e0",
            "00010203-0405-0607-0809-0a0b0c0d0e0f0",
            "+0010203-0405-0607-0809-0a0b0c0d0e0f",
            "0001020é-0405-0607-0809-0a0b0c0d0e0f",
        ] {
            assert_eq!(bad.parse::<Uuid>(), Err(InvalidUuid), "{bad}");
        }
    }

    #[test]
    fn random_ones_say_their_version_and_differ() {
        let (one, other) = (Uuid::random().unwrap(), Uuid::random().unwrap());
        assert_ne!(one, other);
        assert!(!one.is_nil());
        assert_eq!((one.0[6] >> 4, one.0[8] >> 6), (4, 2));
    }
}

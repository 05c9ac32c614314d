//! Who may do what to a node, as the protocol writes it: a letter and a domain, `r7`.

use std::fmt;
use std::str::FromStr;

use pv_abi::domid::DomId;

/// What a domain may do to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing.
    #[default]
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Read and write it.
    Both,
}

impl Access {
    /// Every access.
    pub const ALL: [Self; 4] = [Self::None, Self::Read, Self::Write, Self::Both];

    /// Whether reading is allowed.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether writing is allowed.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }

    /// Whether all that `wanted` names is allowed.
    pub const fn allows(self, wanted: Self) -> bool {
        (self.reads() || !wanted.reads()) && (self.writes() || !wanted.writes())
    }

    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Both => 'b',
        }
    }

    /// The access of a letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.letter() == letter)
    }
}

/// One entry of a node's permissions. The first entry's domain owns the node and may do all; its access is that of
/// every domain without an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// The domain.
    pub domain: DomId,
    /// What it may do.
    pub access: Access,
}

impl Permission {
    /// An entry.
    pub const fn new(domain: DomId, access: Access) -> Self {
        Self { domain, access }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access.letter(), self.domain.raw())
    }
}

/// A text that is no permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a permission is r, w, b or n and the number of a domain, as in r0")]
pub struct NoPermission;

impl FromStr for Permission {
    type Err = NoPermission;

    fn from_str(text: &str) -> Result<Self, NoPermission> {
        let mut rest = text.chars();
        let access = rest.next().and_then(Access::from_letter).ok_or(NoPermission)?;
        let number = rest.as_str();
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoPermission);
        }
        Ok(Self { domain: DomId::new(number.parse().map_err(|_| NoPermission)?), access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_they_are_written() {
        for access in Access::ALL {
            let permission = Permission::new(DomId::new(17), access);
            assert_eq!(permission.to_string().parse(), Ok(permission));
        }
        for wrong in ["", "r", "x1", "r-1", "r+1", "r70000", "1", "r 1"] {
            assert_eq!(wrong.parse::<Permission>(), Err(NoPermission), "{wrong}");
        }
    }

    #[test]
    fn an_access_allows_what_it_names() {
        assert!(Access::Both.allows(Access::Read) && Access::Both.allows(Access::Both));
        assert!(!Access::Read.allows(Access::Both) && !Access::Write.allows(Access::Read));
        assert!(Access::None.allows(Access::None) && !Access::None.allows(Access::Write));
    }
}

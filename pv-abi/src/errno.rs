//! Error numbers of the hypercall ABI (public header `errno.h`): Linux's numbers, fixed for every guest.

/// Defines [`Errno`] from one table, so that the number, the text and the conversion cannot disagree.
macro_rules! errno {
    ($( $(#[$meta:meta])* $name:ident = $value:literal, )*) => {
        /// Why a hypercall failed. The guest sees the negative number in x0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Errno {
            $( $(#[$meta])* $name = $value, )*
        }

        impl Errno {
            /// Every error, by number.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The error with the positive number `raw`; `None` where the header has none.
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $( $value => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// The header's name, without `XEN_`.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                }
            }
        }
    };
}

errno! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such entry.
    ENOENT = 2,
    /// No such domain.
    ESRCH = 3,
    /// Input or output error.
    EIO = 5,
    /// No such device or address.
    ENXIO = 6,
    /// Argument list too long.
    E2BIG = 7,
    /// Not in executable format.
    ENOEXEC = 8,
    /// Bad handle.
    EBADF = 9,
    /// No child.
    ECHILD = 10,
    /// Try again.
    EAGAIN = 11,
    /// Out of memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad guest address.
    EFAULT = 14,
    /// Busy.
    EBUSY = 16,
    /// Exists already.
    EEXIST = 17,
    /// Crosses from one owner to another.
    EXDEV = 18,
    /// No such device.
    ENODEV = 19,
    /// Not a directory.
    ENOTDIR = 20,
    /// Is a directory.
    EISDIR = 21,
    /// Invalid argument.
    EINVAL = 22,
    /// Table overflow.
    ENFILE = 23,
    /// Too many open.
    EMFILE = 24,
    /// No space left.
    ENOSPC = 28,
    /// Read-only.
    EROFS = 30,
    /// Too many links.
    EMLINK = 31,
    /// Argument out of domain.
    EDOM = 33,
    /// Result out of range.
    ERANGE = 34,
    /// Would deadlock.
    EDEADLK = 35,
    /// Name too long.
    ENAMETOOLONG = 36,
    /// No locks available.
    ENOLCK = 37,
    /// No such hypercall or operation.
    ENOSYS = 38,
    /// Not empty.
    ENOTEMPTY = 39,
    /// No data.
    ENODATA = 61,
    /// Timer expired.
    ETIME = 62,
    /// Bad message.
    EBADMSG = 74,
    /// Value too large.
    EOVERFLOW = 75,
    /// Illegal byte sequence.
    EILSEQ = 84,
    /// Not a socket.
    ENOTSOCK = 88,
    /// Message too long.
    EMSGSIZE = 90,
    /// Operation not supported.
    EOPNOTSUPP = 95,
    /// Address in use.
    EADDRINUSE = 98,
    /// Address not available.
    EADDRNOTAVAIL = 99,
    /// No buffer space.
    ENOBUFS = 105,
    /// Connected already.
    EISCONN = 106,
    /// Not connected.
    ENOTCONN = 107,
    /// Timed out.
    ETIMEDOUT = 110,
    /// Connection refused.
    ECONNREFUSED = 111,
}

impl Errno {
    /// The header's second name for [`Errno::EAGAIN`].
    pub const EWOULDBLOCK: Self = Self::EAGAIN;
    /// The header's second name for [`Errno::EDEADLK`].
    pub const EDEADLOCK: Self = Self::EDEADLK;

    /// The positive number.
    pub const fn raw(self) -> i32 {
        self as i32
    }

    /// Reads a hypercall's result: a negative value is an error where the header names it.
    pub fn from_result(result: i64) -> Option<Self> {
        result.checked_neg().and_then(|raw| i32::try_from(raw).ok()).and_then(Self::from_raw)
    }
}

/// The value of x0 for this error: negative.
impl From<Errno> for i64 {
    fn from(errno: Errno) -> Self {
        -Self::from(errno.raw())
    }
}

/// The value of an `int` field for this error (`XENMEM_add_to_physmap_batch`'s `errs`): negative.
impl From<Errno> for i32 {
    fn from(errno: Errno) -> Self {
        -errno.raw()
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_error_round_trips() {
        for &errno in Errno::ALL {
            assert_eq!(Errno::from_raw(errno.raw()), Some(errno));
            assert_eq!(Errno::from_result(i64::from(errno)), Some(errno));
            assert!(i64::from(errno) < 0);
            assert_eq!(i64::from(i32::from(errno)), i64::from(errno));
        }
        assert_eq!(i64::from(Errno::ENOSYS), -38);
        assert_eq!(Errno::EOPNOTSUPP.to_string(), "EOPNOTSUPP");
    }

    proptest! {
        #[test]
        fn any_number_is_an_error_or_none(result: i64) {
            match Errno::from_result(result) {
                Some(errno) => prop_assert_eq!(i64::from(errno), result),
                None => prop_assert!(!Errno::ALL.iter().any(|&errno| i64::from(errno) == result)),
            }
        }
    }
}

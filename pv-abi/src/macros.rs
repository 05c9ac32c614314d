//! What the modules share: how a number becomes an `enum`, and how a C union is read.

/// A number that the public header does not name. The caller chooses the errno, because Xen's own choice differs from
/// call to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownValue(pub u32);

impl core::fmt::Display for UnknownValue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "unknown value {}", self.0)
    }
}

impl core::error::Error for UnknownValue {}

/// Defines an `enum` over the numbers of a header, with `ALL`, `raw` and `TryFrom<u32>`.
macro_rules! number_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $value:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $value, )*
        }

        impl $name {
            /// Every named value, in the order of the header.
            pub const ALL: &[Self] = &[$( Self::$variant, )*];

            /// The number of the ABI.
            pub const fn raw(self) -> u32 {
                self as u32
            }
        }

        impl TryFrom<u32> for $name {
            type Error = $crate::UnknownValue;

            fn try_from(raw: u32) -> Result<Self, $crate::UnknownValue> {
                match raw {
                    $( $value => Ok(Self::$variant), )*
                    unknown => Err($crate::UnknownValue(unknown)),
                }
            }
        }
    };
}

/// Defines the storage of a C union as an array of its most aligned word, with `get` and `set` by member type.
macro_rules! abi_union {
    ($(#[$meta:meta])* pub struct $name:ident([$word:ty; $len:literal]);) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(transparent)]
        pub struct $name([$word; $len]);

        impl $name {
            /// A union that holds `member` and zeros after it.
            pub fn of<T: zerocopy::IntoBytes + zerocopy::Immutable>(member: &T) -> Self {
                let mut union = Self::default();
                union.set(member);
                union
            }

            /// Reads the union as `T`. A `T` larger than the union does not compile.
            pub fn get<T: zerocopy::FromBytes>(&self) -> T {
                const { assert!(size_of::<T>() <= size_of::<Self>()) };
                match T::read_from_prefix(zerocopy::IntoBytes::as_bytes(self)) {
                    Ok((member, _rest)) => member,
                    Err(_) => T::new_zeroed(),
                }
            }

            /// Writes `member` over the start of the union; what lies behind it stays. A `T` larger than the union does
            /// not compile.
            pub fn set<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, member: &T) {
                const { assert!(size_of::<T>() <= size_of::<Self>()) };
                let source = member.as_bytes();
                for (to, from) in zerocopy::IntoBytes::as_mut_bytes(self).iter_mut().zip(source) {
                    *to = *from;
                }
            }
        }
    };
}

/// Gives `Default` (all zeros) to structures whose arrays are too long for the derive.
macro_rules! zero_default {
    ($($name:ty),* $(,)?) => {
        $(impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        })*
    };
}

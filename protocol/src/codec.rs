//! The one codec of message bodies: little-endian integers, length-prefixed strings and arrays,
//! tagged extensions at the end.
//!
//! [`Reader`] never reads beyond its slice and never allocates more than the slice could hold, so
//! a hostile length costs nothing. [`wire_struct!`](crate::wire_struct) derives [`Wire`] field by field, in order.

use uuid::Uuid;

use crate::ids::{
    BrokerId, ClusterId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardId,
    TopicId, TopicPartition,
};

/// Why a body could not be read. The peer sent something that is not the message it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body ends inside a field.
    #[error("the body ends inside a field: {needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes the field takes.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A string is not UTF-8.
    #[error("a string is not valid UTF-8")]
    NotUtf8,
    /// A field has a value outside its range.
    #[error("a field has a value outside its range: {0}")]
    OutOfRange(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field")]
    TrailingBytes(usize),
}

/// A cursor over one body.
#[derive(Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `body`.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { left: body }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left.len()
    }

    /// Takes the next `size` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer.
    pub fn take(&mut self, size: usize) -> Result<&'a [u8], DecodeError> {
        match self.left.split_at_checked(size) {
            Some((head, tail)) => {
                self.left = tail;
                Ok(head)
            }
            None => Err(DecodeError::Truncated {
                needed: size,
                left: self.left.len(),
            }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// Succeeds at the end of the body only.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] if something is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }
}

/// A value with one binary form on the wire.
pub trait Wire: Sized {
    /// The fewest bytes that any value takes: bounds what an array's count may claim.
    const MIN_SIZE: usize;

    /// Appends the value's bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads one value.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not such a value.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

macro_rules! integer {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            const MIN_SIZE: usize = size_of::<$int>();

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self::from_le_bytes(reader.array()?))
            }
        }
    )*};
}

integer!(u8, u16, u32, u64, i16, i32, i64);

macro_rules! newtype {
    ($($name:ident($inner:ty)),*) => {$(
        impl Wire for $name {
            const MIN_SIZE: usize = <$inner as Wire>::MIN_SIZE;

            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }

            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(<$inner>::decode(reader)?))
            }
        }
    )*};
}

newtype!(
    Offset(i64),
    PartitionIndex(u32),
    LeaderEpoch(i32),
    ProducerId(i64),
    ProducerEpoch(i16),
    BrokerId(u32),
    ShardId(u32),
    TopicId(Uuid),
    ClusterId(Uuid)
);

impl Wire for Uuid {
    const MIN_SIZE: usize = 16;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(reader.array()?))
    }
}

impl Wire for TopicPartition {
    const MIN_SIZE: usize = 20;

    fn encode(&self, out: &mut Vec<u8>) {
        self.topic.encode(out);
        self.partition.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: Wire::decode(reader)?,
            partition: Wire::decode(reader)?,
        })
    }
}

/// One byte, 0 or 1.
impl Wire for bool {
    const MIN_SIZE: usize = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::decode(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::OutOfRange("a boolean is 0 or 1")),
        }
    }
}

/// A 16-bit count of bytes, then UTF-8. A longer string is cut at a character before 65,536 bytes;
/// every string that a user can choose is bounded far below.
impl Wire for String {
    const MIN_SIZE: usize = 2;

    fn encode(&self, out: &mut Vec<u8>) {
        let cut = self.floor_char_boundary(usize::from(u16::MAX));
        let size = u16::try_from(cut).unwrap_or(u16::MAX);
        size.encode(out);
        out.extend_from_slice(&self.as_bytes()[..cut]);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let size = u16::decode(reader)?;
        let bytes = reader.take(usize::from(size))?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)?;
        Ok(text.to_owned())
    }
}

/// A 32-bit count, then the elements. The count is checked against the bytes left before anything
/// is allocated. Bytes are `Vec<u8>`.
impl<T: Wire> Wire for Vec<T> {
    const MIN_SIZE: usize = 4;

    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len())
            .expect("an array of fewer than 2^32 elements")
            .encode(out);
        for element in self {
            element.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const { assert!(T::MIN_SIZE > 0, "elements without bytes have no bound") };
        let count = u32::decode(reader)? as usize;
        let needed = count.saturating_mul(T::MIN_SIZE);
        if needed > reader.remaining() {
            return Err(DecodeError::Truncated {
                needed,
                left: reader.remaining(),
            });
        }
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            elements.push(T::decode(reader)?);
        }
        Ok(elements)
    }
}

/// One byte, 0 for none or 1, then the value.
impl<T: Wire> Wire for Option<T> {
    const MIN_SIZE: usize = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::decode(reader)? {
            Ok(Some(T::decode(reader)?))
        } else {
            Ok(None)
        }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const MIN_SIZE: usize = A::MIN_SIZE + B::MIN_SIZE;

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(reader)?, B::decode(reader)?))
    }
}

/// What a body may carry behind its fields: `(tag, bytes)` pairs that a reader which does not know
/// them skips. A 16-bit count, then for each a 16-bit tag and a 32-bit size.
pub fn encode_no_extensions(out: &mut Vec<u8>) {
    0u16.encode(out);
}

/// Reads past the extensions of a body; none is known yet.
///
/// # Errors
/// [`DecodeError`] if they do not fit into the body.
pub fn skip_extensions(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..u16::decode(reader)? {
        let _tag = u16::decode(reader)?;
        let size = u32::decode(reader)?;
        reader.take(size as usize)?;
    }
    Ok(())
}

/// Defines a public struct whose wire form is its fields in order.
#[macro_export]
macro_rules! wire_struct {
    ($($(#[doc = $doc:literal])* pub struct $name:ident {
        $($(#[doc = $field_doc:literal])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl $crate::codec::Wire for $name {
            const MIN_SIZE: usize = 0 $(+ <$type as $crate::codec::Wire>::MIN_SIZE)*;

            #[allow(unused_variables, clippy::ptr_arg)]
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::codec::Wire::encode(&self.$field, out);)*
            }

            #[allow(unused_variables)]
            fn decode(
                reader: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                $(let $field = $crate::codec::Wire::decode(reader)?;)*
                Ok(Self { $($field),* })
            }
        }

        impl $crate::schema::Described for $name {
            const NAME: &'static str = stringify!($name);
            const DOC: &'static [&'static str] = &[$($doc),*];
            const FIELDS: &'static [$crate::schema::Field] = &[$($crate::schema::Field {
                name: stringify!($field),
                type_name: stringify!($type),
                doc: &[$($field_doc),*],
            }),*];
        }
    )*};
}

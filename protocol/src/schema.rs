//! What the messages look like, as data: the tables of `docs/protocol.md` are checked against it,
//! and tests make messages from it.

/// One field of a struct on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type in Rust, as written.
    pub type_name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
}

/// A struct whose wire form is its fields in order.
pub trait Described {
    /// Its name.
    const NAME: &'static str;
    /// Its documentation, line by line.
    const DOC: &'static [&'static str];
    /// Its fields in order.
    const FIELDS: &'static [Field];
}

/// A struct's description as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
    /// Its fields in order.
    pub fields: &'static [Field],
}

impl Layout {
    /// The layout of `T`.
    #[must_use]
    pub const fn of<T: Described>() -> Self {
        Self {
            name: T::NAME,
            doc: T::DOC,
            fields: T::FIELDS,
        }
    }
}

/// A numbered name with its meaning: an API, an error code or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its number or value.
    pub number: u64,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
}

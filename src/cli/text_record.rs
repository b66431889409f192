//! One record as one line of text: its value, with the key before it if wanted.
//!
//! A text whose last line has no line feed makes a last record with the header
//! [`NO_NEWLINE`], so that `consume` gives the text back byte for byte. Headers named `millstream.*`
//! are the system's own; this one concerns nothing but the two commands.

use bytes::Bytes;

use super::lines::Line;

/// Header, without a value, of a record whose line had no line feed.
pub const NO_NEWLINE: &str = "millstream.no-newline";

/// How a line becomes a record.
#[derive(Clone, Debug)]
pub enum LineForm {
    /// The line is the value.
    Value,
    /// Key, separator, value.
    KeyValue(Vec<u8>),
    /// The line is the key; there is no value.
    Tombstone,
}

/// Key and value of a line.
///
/// # Errors
/// If the line should have a separator and has none.
pub fn read(form: &LineForm, line: &Line) -> Result<(Option<Bytes>, Option<Bytes>), NoSeparator> {
    let bytes = &line.bytes;
    match form {
        LineForm::Value => Ok((None, Some(bytes.clone()))),
        LineForm::Tombstone => Ok((Some(bytes.clone()), None)),
        LineForm::KeyValue(separator) => {
            let at = bytes
                .windows(separator.len())
                .position(|window| window == separator)
                .ok_or(NoSeparator)?;
            let value = bytes.slice(at + separator.len()..);
            Ok((Some(bytes.slice(..at)), Some(value)))
        }
    }
}

/// The line has no key separator.
#[derive(Debug, thiserror::Error)]
#[error("there is no key separator in it")]
pub struct NoSeparator;

/// Writes records as lines.
#[derive(Debug, Default)]
pub struct TextWriter {
    separator: Option<Vec<u8>>,
    /// The last record had no line feed; one is due before the next record.
    owed: bool,
}

impl TextWriter {
    /// Writes keys too, before this separator, if one is given.
    #[must_use]
    pub fn new(separator: Option<Vec<u8>>) -> Self {
        Self {
            separator,
            owed: false,
        }
    }

    /// Appends a record as a line to `out`.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(String, Option<Bytes>)],
    ) {
        if std::mem::take(&mut self.owed) {
            out.push(b'\n');
        }
        if let Some(separator) = &self.separator {
            out.extend_from_slice(key.unwrap_or_default());
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value.unwrap_or_default());
        if headers.iter().any(|(name, _)| name == NO_NEWLINE) {
            self.owed = true;
        } else {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &'static str) -> Line {
        Line {
            bytes: text.into(),
            ended: true,
        }
    }

    #[test]
    fn forms() {
        let some = |text: &'static str| Some(Bytes::from(text));
        let read = |form, text| read(&form, &line(text)).ok();
        let tab = || LineForm::KeyValue(b"\t".to_vec());
        assert_eq!(read(LineForm::Value, "a\tb"), Some((None, some("a\tb"))));
        assert_eq!(read(LineForm::Tombstone, "a"), Some((some("a"), None)));
        assert_eq!(read(tab(), "a\tb\tc"), Some((some("a"), some("b\tc"))));
        assert_eq!(read(tab(), "\t"), Some((some(""), some(""))));
        assert_eq!(read(tab(), "ab"), None);
        assert_eq!(
            read(LineForm::KeyValue(b"::".to_vec()), "a:b::c"),
            Some((some("a:b"), some("c")))
        );
    }

    #[test]
    fn a_missing_newline_is_only_missing_at_the_end() {
        let marked = [(NO_NEWLINE.to_owned(), None)];
        let mut writer = TextWriter::new(None);
        let mut out = Vec::new();
        writer.write(&mut out, None, Some(b"a"), &[]);
        writer.write(&mut out, None, Some(b"b"), &marked);
        assert_eq!(out, b"a\nb");
        writer.write(&mut out, None, Some(b"c"), &marked);
        assert_eq!(out, b"a\nb\nc");
        let mut keyed = TextWriter::new(Some(b"=".to_vec()));
        out.clear();
        keyed.write(&mut out, Some(b"k"), None, &[]);
        assert_eq!(out, b"k=\n");
    }
}

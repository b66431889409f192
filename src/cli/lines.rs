//! Cuts a stream of bytes at line feeds, and at nothing else: a carriage return, an empty line or
//! broken UTF-8 is data.

use bytes::{Bytes, BytesMut};

/// A line, without its line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether a line feed ended it; only the last line of a stream can lack one.
    pub ended: bool,
}

/// Holds what was read and is not a whole line yet.
#[derive(Debug, Default)]
pub struct LineSplitter {
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line feed.
    searched: usize,
}

impl LineSplitter {
    /// More was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line.
    pub fn next_line(&mut self) -> Option<Line> {
        let fresh = &self.buffer[self.searched..];
        let Some(at) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.searched + at + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        Some(Line {
            bytes: line.freeze(),
            ended: true,
        })
    }

    /// How much is held that is not a whole line.
    #[must_use]
    pub fn pending_size(&self) -> usize {
        self.buffer.len()
    }

    /// The stream has ended: what is left is a line without a line feed, if it is anything.
    #[must_use]
    pub fn finish(self) -> Option<Line> {
        (!self.buffer.is_empty()).then(|| Line {
            bytes: self.buffer.freeze(),
            ended: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn lines_make_the_stream_again(
            parts in vec(vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..20), 0..20),
        ) {
            let mut splitter = LineSplitter::default();
            let mut lines = Vec::new();
            for part in &parts {
                splitter.push(part);
                while let Some(line) = splitter.next_line() {
                    prop_assert!(line.ended);
                    lines.push(line);
                }
            }
            lines.extend(splitter.finish());
            let mut again = Vec::new();
            for line in &lines {
                prop_assert!(!line.bytes.contains(&b'\n'));
                again.extend_from_slice(&line.bytes);
                if line.ended {
                    again.push(b'\n');
                }
            }
            prop_assert_eq!(again, parts.concat());
        }
    }

    #[test]
    fn nothing_is_no_line_and_an_empty_line_is_one() {
        assert_eq!(LineSplitter::default().finish(), None);
        let mut splitter = LineSplitter::default();
        splitter.push(b"\n");
        assert_eq!(splitter.next_line().map(|line| line.bytes.len()), Some(0));
        assert_eq!(splitter.finish(), None);
    }
}

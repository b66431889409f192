//! One record as one line of JSON, carrying every byte: `consume --format json` writes it,
//! `produce --format json` reads it. `docs/cli.md` describes it.
//!
//! A key, value or header value that is UTF-8 is a string under its name; other bytes are base64
//! under its name with `_base64` behind it; a missing one is null.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use millstream_client::ConsumerRecord;
use serde::{Deserialize, Deserializer, Serialize};

/// What a line holds, besides where the record was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The partition, if the line names one.
    pub partition: Option<u32>,
    /// Milliseconds since 1970, if the line says so.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none in a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum JsonRecordError {
    /// Nothing but blanks.
    #[error("the line is empty; a record is an object such as {{\"value\": \"hello\"}}")]
    Empty,
    /// Something that is no object.
    #[error("a record is an object such as {{\"value\": \"hello\"}}; this line is none")]
    NoObject,
    /// Not JSON, or not of this shape.
    #[error("{0}")]
    Shape(String),
    /// A field is there as text and as base64.
    #[error("both {0} and {0}_base64 are given")]
    Twice(&'static str),
    /// The base64 is damaged.
    #[error("{0}_base64: {1}")]
    Base64(&'static str, base64::DecodeError),
    /// Neither a value nor the statement that there is none.
    #[error("there is no value; write \"value\": null for a tombstone")]
    NoValue,
}

/// What is written: fields in this order.
#[derive(Serialize)]
struct Written<'a> {
    topic: &'a str,
    partition: u32,
    offset: i64,
    timestamp_ms: i64,
    #[serde(flatten)]
    key: Field<'a>,
    #[serde(flatten)]
    value: Field<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<WrittenHeader<'a>>,
}

#[derive(Serialize)]
struct WrittenHeader<'a> {
    name: &'a str,
    #[serde(flatten)]
    value: Field<'a>,
}

/// One entry of an object: its name says how its value is written.
struct Field<'a> {
    name: &'static str,
    base64_name: &'static str,
    bytes: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    fn key(bytes: Option<&'a Bytes>) -> Self {
        Self {
            name: "key",
            base64_name: "key_base64",
            bytes: bytes.map(AsRef::as_ref),
        }
    }

    fn value(bytes: Option<&'a Bytes>) -> Self {
        Self {
            name: "value",
            base64_name: "value_base64",
            bytes: bytes.map(AsRef::as_ref),
        }
    }
}

impl Serialize for Field<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(1))?;
        match self.bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
            None => map.serialize_entry(self.name, &None::<&str>)?,
            Some((_, Ok(text))) => map.serialize_entry(self.name, text)?,
            Some((bytes, Err(_))) => {
                map.serialize_entry(self.base64_name, &STANDARD.encode(bytes))?;
            }
        }
        map.end()
    }
}

/// Appends a record as one line to `out`.
///
/// # Errors
/// None that depends on the record: serialising into memory does not fail.
pub fn write(out: &mut Vec<u8>, record: &ConsumerRecord) -> Result<(), serde_json::Error> {
    let written = Written {
        topic: &record.topic,
        partition: record.partition.0,
        offset: record.offset.0,
        timestamp_ms: record.timestamp_ms,
        key: Field::key(record.key.as_ref()),
        value: Field::value(record.value.as_ref()),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| WrittenHeader {
                name,
                value: Field::value(value.as_ref()),
            })
            .collect(),
    };
    serde_json::to_writer(&mut *out, &written)?;
    out.push(b'\n');
    Ok(())
}

/// What is read. Where a record came from says nothing about where it goes: `topic` and `offset` are
/// allowed and not looked at.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = r#"an object such as {"value": "hello"}"#
)]
struct Line {
    #[serde(default, rename = "topic")]
    _topic: serde::de::IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: serde::de::IgnoredAny,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    timestamp_ms: Option<i64>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Option<String>>,
    #[serde(default)]
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<LineHeader>,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = r#"an object such as {"name": "n", "value": "v"}"#
)]
struct LineHeader {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    value_base64: Option<String>,
}

/// Tells a null from an absence.
fn present<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(source).map(Some)
}

/// Reads one line.
///
/// # Errors
/// [`JsonRecordError`] says what is wrong with it.
pub fn read(line: &[u8]) -> Result<Content, JsonRecordError> {
    // Of an array the parser would take the items for the fields.
    match line.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        None => return Err(JsonRecordError::Empty),
        Some(_) => return Err(JsonRecordError::NoObject),
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| shape(&error))?;
    if line.value.is_none() && line.value_base64.is_none() {
        return Err(JsonRecordError::NoValue);
    }
    let headers = line.headers.into_iter().map(|header| {
        let value = bytes_of("value", header.value, header.value_base64)?;
        Ok((header.name, value))
    });
    Ok(Content {
        partition: line.partition,
        timestamp_ms: line.timestamp_ms,
        headers: headers.collect::<Result<_, JsonRecordError>>()?,
        key: bytes_of("key", line.key, line.key_base64)?,
        value: bytes_of("value", line.value.flatten(), line.value_base64)?,
    })
}

/// Words of the parser, and what they are for whoever wrote the line.
const WORDS: [(&str, &str); 4] = [
    (
        "expected u32",
        "expected a whole number from 0 to 4294967295",
    ),
    (
        "expected i64",
        "expected a whole number (milliseconds since 1970)",
    ),
    ("expected a sequence", "expected an array"),
    ("EOF while parsing", "the line ends in the middle of"),
];

/// To the parser every line is the first one: of its place only the column means something.
fn shape(error: &serde_json::Error) -> JsonRecordError {
    let mut text = error.to_string();
    for (parsers, ours) in WORDS {
        text = text.replace(parsers, ours);
    }
    let (line, column) = (error.line(), error.column());
    let what = text.strip_suffix(&format!(" at line {line} column {column}"));
    JsonRecordError::Shape(match what {
        Some(what) => format!("{what} (column {column})"),
        None => text,
    })
}

fn bytes_of(
    name: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, JsonRecordError> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(JsonRecordError::Twice(name)),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(JsonRecordError::Base64(name, error)),
        },
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use millstream_client::{Offset, PartitionIndex};
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn line(content: &Content) -> Vec<u8> {
        let record = ConsumerRecord {
            topic: "t".into(),
            partition: PartitionIndex(content.partition.unwrap()),
            offset: Offset(7),
            timestamp_ms: content.timestamp_ms.unwrap(),
            key: content.key.clone(),
            value: content.value.clone(),
            headers: content.headers.clone(),
        };
        let mut out = Vec::new();
        write(&mut out, &record).unwrap();
        out
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            any::<String>().prop_map(Bytes::from),
            vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        ]
    }

    proptest! {
        #[test]
        fn every_record_comes_back(
            partition in any::<u32>(),
            timestamp_ms in any::<i64>(),
            key in option::of(bytes()),
            value in option::of(bytes()),
            headers in vec((any::<String>(), option::of(bytes())), 0..4),
        ) {
            let content = Content {
                partition: Some(partition),
                timestamp_ms: Some(timestamp_ms),
                key,
                value,
                headers,
            };
            let line = line(&content);
            prop_assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            prop_assert_eq!(read(&line).unwrap(), content);
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        let content = Content {
            partition: Some(0),
            timestamp_ms: Some(1_000),
            key: None,
            value: Some(Bytes::from_static(b"\xff")),
            headers: vec![
                ("a".into(), Some("x".into())),
                ("a".into(), None),
                ("b".into(), Some(Bytes::from_static(b"\x80"))),
            ],
        };
        assert_eq!(
            String::from_utf8(line(&content)).unwrap(),
            "{\"topic\":\"t\",\"partition\":0,\"offset\":7,\"timestamp_ms\":1000,\"key\":null,\
             \"value_base64\":\"/w==\",\"headers\":[{\"name\":\"a\",\"value\":\"x\"},\
             {\"name\":\"a\",\"value\":null},{\"name\":\"b\",\"value_base64\":\"gA==\"}]}\n"
        );
    }

    #[test]
    fn what_a_person_may_leave_out_or_get_wrong() {
        let written = read(br#"{"value":"hello"}"#).unwrap();
        assert_eq!(written.value, Some("hello".into()));
        assert_eq!(read(br#"{"value":null,"key":"k"}"#).unwrap().value, None);
        for bad in [
            "",
            "hello",
            r#"{"key":"k"}"#,
            r#"{"value":"a","valeu":"b"}"#,
            r#"{"value":"a","value_base64":"YQ=="}"#,
            r#"{"value_base64":"Y"}"#,
            r#"{"value":"a","partition":-1}"#,
            r#"["t",0,0,1000,"k",null,"v",null,[]]"#,
            r#"{"value":"a"} {"value":"b"}"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad} was taken");
        }
        let said = |line: &str| {
            use std::error::Error as _;
            let error = read(line.as_bytes()).unwrap_err();
            assert!(error.source().is_none(), "it would be told twice");
            error.to_string()
        };
        let object = r#"a record is an object such as {"value": "hello"}; this line is none"#;
        assert_eq!(said("null"), object);
        assert_eq!(said("[1]"), object);
        assert!(said("").starts_with("the line is empty"));
        assert!(said(" \r").starts_with("the line is empty"));
        assert_eq!(
            said(r#"{"value":"a","partition":-1}"#),
            "invalid value: integer `-1`, expected a whole number from 0 to 4294967295 (column 27)"
        );
        assert!(said(r#"{"value":"#).starts_with("the line ends in the middle of"));
        let unknown = said(r#"{"x":1}"#);
        assert!(unknown.starts_with("unknown field `x`, expected one of"));
        assert!(unknown.ends_with("(column 4)"), "{unknown}");
    }
}

//! Batches and keys that Kafka's own client library made: decoded to exactly what they hold,
//! encoded to exactly their bytes, refused when a bit flips.

use millstream_protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{
        Attributes, BATCH_HEADER_SIZE, BatchBuilder, BatchError, BatchHeader, Batches, Compression,
        DecodedBatch, Records, TimestampType, place, set_append_time,
    },
    partitioner::{murmur2, partition_for_key},
};
use serde_json::{Value, json};

use crate::hex::{hex, unhex};

const BATCHES: &str = include_str!("vectors/batches.jsonl");
const PARTITIONS: &str = include_str!("vectors/partitions.jsonl");

struct Vector {
    fields: Value,
    bytes: Vec<u8>,
}

impl Vector {
    fn name(&self) -> &str {
        self.fields["name"].as_str().expect("a name")
    }
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = BATCHES
        .lines()
        .map(|line| {
            let mut fields: Value = serde_json::from_str(line).expect("JSON");
            let hex = fields.as_object_mut().expect("an object").remove("bytes");
            let bytes = unhex(hex.expect("bytes").as_str().expect("hex"));
            Vector { fields, bytes }
        })
        .collect();
    assert_eq!(vectors.len(), 42);
    vectors
}

#[test]
fn every_batch_decodes_to_exactly_its_fields() {
    for vector in vectors() {
        let mut batches = Batches::checked(&vector.bytes);
        let (header, bytes) = batches.next().expect("a batch").expect("valid");
        assert_eq!(bytes.len(), vector.bytes.len());
        assert!(batches.next().is_none());
        assert_eq!(header.encode(), bytes[..BATCH_HEADER_SIZE]);
        let decoded = DecodedBatch::open(bytes).expect("opens");
        let mut actual = describe(vector.name(), &header, &decoded);
        if header.attributes.is_control() {
            // The vectors leave the marker out: version 0, then its type; the value is checked here.
            let kind = if vector.name() == "commit-marker" {
                1
            } else {
                0
            };
            assert_eq!(actual["records"][0]["key"], json!(format!("0000000{kind}")));
            assert_eq!(actual["records"].as_array().map(Vec::len), Some(1));
            actual["records"] = json!([]);
        }
        assert_eq!(actual, vector.fields, "{}", vector.name());
    }
}

#[test]
fn back_to_back_batches_split() {
    let vectors = vectors();
    let all: Vec<u8> = vectors.iter().flat_map(|v| v.bytes.clone()).collect();
    let sizes: Vec<usize> = Batches::checked(&all)
        .map(|batch| batch.expect("valid").1.len())
        .collect();
    let expected: Vec<usize> = vectors.iter().map(|v| v.bytes.len()).collect();
    assert_eq!(sizes, expected);
}

#[test]
fn uncompressed_batches_encode_to_the_byte() {
    let mut count = 0;
    for vector in vectors() {
        let decoded = DecodedBatch::open(&vector.bytes).expect("opens");
        if decoded.header().attributes.compression() == Compression::None {
            assert_eq!(
                rebuild(&decoded, Compression::None),
                vector.bytes,
                "{}",
                vector.name()
            );
            count += 1;
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn every_codec_carries_every_vector() {
    for vector in vectors() {
        let decoded = DecodedBatch::open(&vector.bytes).expect("opens");
        for compression in Compression::ALL {
            let bytes = rebuild(&decoded, compression);
            let (header, bytes) = Batches::checked(&bytes)
                .next()
                .expect("one")
                .expect("valid");
            let again = DecodedBatch::open(bytes).expect("opens");
            let mut expected = describe(vector.name(), decoded.header(), &decoded);
            expected["compression"] = json!(compression.name());
            expected["crc"] = json!(header.crc);
            assert_eq!(describe(vector.name(), &header, &again), expected);
        }
    }
}

#[test]
fn a_flipped_bit_is_refused() {
    for vector in vectors() {
        let mut bytes = vector.bytes;
        // Every byte of small batches; of large ones the header and a sample.
        let step = bytes.len() / 2000 + 1;
        for at in (0..bytes.len()).filter(|at| *at < 80 || at % step == 0) {
            bytes[at] ^= 1 << (at % 8);
            let refused = Batches::checked(&bytes).any(|batch| batch.is_err());
            // Base offset and leader epoch lie outside the CRC by design.
            let outside = at < 8 || (12..16).contains(&at);
            assert!(refused || outside, "byte {at}");
            bytes[at] ^= 1 << (at % 8);
        }
        // The timestamp type: valid in itself, so that only the checksum tells.
        bytes[22] ^= 8;
        assert!(matches!(
            Batches::checked(&bytes).next(),
            Some(Err(BatchError::ChecksumMismatch { .. }))
        ));
    }
}

#[test]
fn keys_go_to_the_partitions_of_the_java_client() {
    let mut count = 0;
    for line in PARTITIONS.lines() {
        let vector: Value = serde_json::from_str(line).expect("JSON");
        let key = unhex(vector["key"].as_str().expect("hex"));
        assert_eq!(json!(murmur2(&key)), vector["murmur2"], "{line}");
        for (partitions, expected) in vector["partition_of"].as_object().expect("an object") {
            let partitions = partitions.parse().expect("a count");
            assert_eq!(
                json!(partition_for_key(&key, partitions).0),
                *expected,
                "{line}"
            );
            count += 1;
        }
    }
    assert!(count > 1000, "only {count} cases");
}

fn rebuild(decoded: &DecodedBatch<'_>, compression: Compression) -> Vec<u8> {
    let header = decoded.header();
    let mut builder = BatchBuilder::new();
    // A batch with log append time still holds its producer's timestamps.
    let mut created = *header;
    created.attributes = created
        .attributes
        .with_timestamp_type(TimestampType::CreateTime);
    let (_, section) = decoded.clone().into_parts();
    for record in Records::new(&created, &section).expect("opened before") {
        let record = record.expect("valid");
        let headers: Vec<_> = record.headers.collect();
        builder
            .push(record.timestamp_ms, record.key, record.value, &headers)
            .expect("fits");
    }
    let mut attributes = Attributes::new(compression);
    if header.attributes.is_transactional() {
        attributes = attributes.with_transactional();
    }
    if header.attributes.is_control() {
        attributes = attributes.with_control();
    }
    let producer: Option<(ProducerId, ProducerEpoch, i32)> = header.has_producer().then_some((
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
    ));
    let mut bytes = builder.finish_with(producer, attributes);
    assert!(builder.is_empty());
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        set_append_time(&mut bytes, header.max_timestamp_ms).expect("a batch");
    }
    place(&mut bytes, header.base_offset, header.leader_epoch);
    bytes
}

/// The fields in the form of the vectors.
fn describe(name: &str, header: &BatchHeader, decoded: &DecodedBatch<'_>) -> Value {
    let LeaderEpoch(leader_epoch) = header.leader_epoch;
    let Offset(base_offset) = header.base_offset;
    let records: Vec<Value> = decoded
        .records()
        .map(|record| {
            let record = record.expect("valid");
            let headers: Vec<Value> = record
                .headers
                .map(|(key, value)| json!([String::from_utf8_lossy(key), value.map(hex)]))
                .collect();
            json!({
                "offset": record.offset.0,
                "timestamp": record.timestamp_ms,
                "key": record.key.map(hex),
                "value": record.value.map(hex),
                "headers": headers,
            })
        })
        .collect();
    json!({
        "name": name,
        "compression": header.attributes.compression().name(),
        "base_offset": base_offset,
        "partition_leader_epoch": leader_epoch,
        "crc": header.crc,
        "producer_id": header.producer_id.0,
        "producer_epoch": header.producer_epoch.0,
        "base_sequence": header.base_sequence,
        "last_sequence": header.last_sequence(),
        "max_timestamp": header.max_timestamp_ms,
        "timestamp_type": match header.attributes.timestamp_type() {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        },
        "transactional": header.attributes.is_transactional(),
        "control": header.attributes.is_control(),
        "records": records,
    })
}

//! Record batches: what a builder makes comes back, and what was forged with a valid checksum is
//! refused or harmless.

use millstream_protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{
        BATCH_HEADER_SIZE, BatchBuilder, BatchError, BatchHeader, Batches, Compression,
        DecodedBatch, crc32c, place, place_all, set_append_time, set_producer,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::Config};

use crate::memory::peak;

const MAX_BATCH_SIZE: u32 = 4 << 20;

type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Pairs,
}

fn small_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn record() -> impl Strategy<Value = Plain> {
    let headers = vec(
        (
            select(vec![b"a".to_vec(), b"b".to_vec(), Vec::new()]),
            option::of(small_bytes()),
        ),
        0..4,
    );
    (
        any::<i64>(),
        option::of(small_bytes()),
        option::of(vec(any::<u8>(), 0..300)),
        headers,
    )
        .prop_map(|(timestamp_ms, key, value, headers)| Plain {
            // Half of the range, so that no distance overflows.
            timestamp_ms: timestamp_ms / 4,
            key,
            value,
            headers,
        })
}

fn build(records: &[Plain], compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for record in records {
        let before = builder.size();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder
            .push(record.timestamp_ms, key, value, &record.headers)
            .expect("fits");
        let most = BatchBuilder::max_record_size(key, value, &record.headers);
        assert!(builder.size() - before <= most);
    }
    builder.finish(Some((ProducerId(5), ProducerEpoch(0), 17)), compression)
}

fn plain(batch: &[u8]) -> Vec<Plain> {
    let decoded = DecodedBatch::open(batch).expect("opens");
    let records = decoded.records().map(|record| record.expect("valid"));
    let owned = |bytes: &[u8]| bytes.to_vec();
    records
        .map(|record| Plain {
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(owned),
            value: record.value.map(owned),
            headers: record
                .headers
                .map(|(key, value)| (owned(key), value.map(owned)))
                .collect(),
        })
        .collect()
}

fn write_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Opens everything that can be opened; tells how many records came out.
fn consume(bytes: &[u8]) -> usize {
    let mut count = 0;
    for (header, batch) in Batches::checked(bytes).flatten() {
        assert_eq!(header.size as usize, batch.len());
        assert!(header.last_offset() < header.next_offset());
        assert!(header.last_sequence() >= -1);
        let Ok(decoded) = DecodedBatch::open(batch) else {
            continue;
        };
        let mut last = Offset(-1);
        for record in decoded.records().flatten() {
            assert!(record.offset > last && record.offset <= header.last_offset());
            last = record.offset;
            count += 1 + record.headers.filter(|(key, _)| key.len() > 1000).count();
        }
    }
    count
}

proptest! {
    #![proptest_config(Config { cases: 128, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_is_built_comes_back(
        records in vec(record(), 1..20), compression in select(&Compression::ALL[..]),
    ) {
        let batch = build(&records, compression);
        let mut batches = Batches::produced(&batch, MAX_BATCH_SIZE);
        let oldest = records.iter().any(|record| record.timestamp_ms < -1);
        let newest = records.iter().map(|record| record.timestamp_ms).max();
        match batches.next() {
            Some(Ok((header, bytes))) => {
                prop_assert_eq!(bytes, &batch[..]);
                prop_assert_eq!(Some(header.max_timestamp_ms), newest);
                prop_assert_eq!(header.record_count as usize, records.len());
                prop_assert_eq!(&header.encode()[..], &batch[..BATCH_HEADER_SIZE]);
            }
            Some(Err(error)) => {
                let expected = matches!(error, BatchError::InvalidMaxTimestamp(_)) && oldest;
                prop_assert!(expected, "{}", error);
            }
            None => prop_assert!(false, "no batch"),
        }
        prop_assert_eq!(plain(&batch), records);
    }

    #[test]
    fn batches_are_placed_one_after_the_other(
        first in vec(record(), 1..5), second in vec(record(), 1..5), at in 0i64..1 << 60,
    ) {
        let mut batches = [build(&first, Compression::None), build(&second, Compression::Lz4)].concat();
        let end = place_all(&mut batches, Offset(at), LeaderEpoch(3)).expect("batches");
        let headers: Vec<BatchHeader> =
            Batches::checked(&batches).map(|batch| batch.expect("the CRC holds").0).collect();
        prop_assert_eq!(headers[0].base_offset, Offset(at));
        prop_assert_eq!(headers[1].base_offset, headers[0].next_offset());
        prop_assert_eq!(headers[1].next_offset(), end);
        prop_assert!(headers.iter().all(|header| header.leader_epoch == LeaderEpoch(3)));
    }

    /// A header field anywhere gets any value, and the checksum is right.
    #[test]
    fn a_forged_header_is_refused_or_harmless(
        records in vec(record(), 1..5),
        compression in select(&Compression::ALL[..]),
        forged in vec((8usize..61, select(vec![0, 1, 0x7f, 0x80, 0xfe, 0xff])), 1..6),
    ) {
        let mut batch = build(&records, compression);
        for (at, byte) in forged {
            batch[at] = byte;
        }
        write_crc(&mut batch);
        let (_, bytes) = peak(|| consume(&batch));
        // Opening a compressed section takes its own buffers; the rest follows the input.
        prop_assert!(bytes <= 1 << 20, "{} bytes", bytes);
        for _ in Batches::produced(&batch, MAX_BATCH_SIZE).chain(Batches::trusted(&batch)) {}
    }

    /// The same inside the records.
    #[test]
    fn a_forged_record_is_refused_or_harmless(
        records in vec(record(), 1..5),
        compression in select(&Compression::ALL[..]),
        forged in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut batch = build(&records, compression);
        for (index, byte) in forged {
            let at = BATCH_HEADER_SIZE + index.index(batch.len() - BATCH_HEADER_SIZE);
            batch[at] = byte;
        }
        write_crc(&mut batch);
        let (_, bytes) = peak(|| consume(&batch));
        prop_assert!(bytes <= 1 << 20, "{} bytes", bytes);
    }

    #[test]
    fn any_bytes_are_refused_or_harmless(bytes in vec(any::<u8>(), 0..300)) {
        consume(&bytes);
        for _ in Batches::produced(&bytes, MAX_BATCH_SIZE).chain(Batches::trusted(&bytes)) {}
        let _ = BatchHeader::decode(&bytes);
        let _ = DecodedBatch::open(&bytes);
        let _ = place_all(&mut bytes.clone(), Offset::ZERO, LeaderEpoch(0));
        let _ = set_append_time(&mut bytes.clone(), 0);
    }
}

/// One record "k" to "v" at time 1000, with one field overwritten and the checksum right.
fn forged(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let headers: [(&str, Option<&[u8]>); 0] = [];
    builder
        .push(1000, Some(b"k"), Some(b"v"), &headers)
        .expect("fits");
    let mut batch = builder.finish(None, Compression::None);
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    write_crc(&mut batch);
    batch
}

fn refusal(batch: &[u8]) -> Option<BatchError> {
    Batches::produced(batch, MAX_BATCH_SIZE).find_map(Result::err)
}

#[test]
fn a_producer_is_told_which_rule_it_breaks() {
    assert_eq!(refusal(&forged(0, &[])), None);
    let max = i32::MAX.to_be_bytes();
    let size = forged(0, &[]).len();
    let cases: [(usize, &[u8], BatchError); 21] = [
        (
            0,
            &[0xff; 8],
            BatchError::InvalidOffsets {
                base_offset: -1,
                last_offset_delta: 0,
            },
        ),
        (
            0,
            &i64::MAX.to_be_bytes(),
            BatchError::InvalidOffsets {
                base_offset: i64::MAX,
                last_offset_delta: 0,
            },
        ),
        (8, &[0xff; 4], BatchError::InvalidLength(-1)),
        (8, &48i32.to_be_bytes(), BatchError::InvalidLength(48)),
        (
            8,
            &60i32.to_be_bytes(),
            BatchError::Truncated {
                needed: 72,
                left: size,
            },
        ),
        (
            8,
            &max,
            BatchError::TooLarge {
                size: 0x8000_000b,
                limit: MAX_BATCH_SIZE,
            },
        ),
        (16, &[1], BatchError::UnsupportedMagic(1)),
        (21, &[0, 5], BatchError::UnknownCompression(5)),
        (21, &[0x80, 0], BatchError::UnknownAttributes(0x8000)),
        (21, &[0, 0x40], BatchError::UnknownAttributes(0x40)),
        (21, &[0, 0x20], BatchError::ControlBatch),
        (21, &[0, 0x10], BatchError::TransactionalBatch),
        (21, &[0, 0x08], BatchError::AppendTimeFromProducer),
        (
            23,
            &max,
            BatchError::InvalidRecordCount {
                record_count: 1,
                last_offset_delta: i32::MAX,
            },
        ),
        (
            23,
            &[0xff; 4],
            BatchError::InvalidRecordCount {
                record_count: 1,
                last_offset_delta: -1,
            },
        ),
        (
            57,
            &max,
            BatchError::InvalidRecordCount {
                record_count: i32::MAX,
                last_offset_delta: 0,
            },
        ),
        (57, &[0; 4], BatchError::Empty),
        (
            57,
            &[0xff; 4],
            BatchError::InvalidRecordCount {
                record_count: -1,
                last_offset_delta: 0,
            },
        ),
        (
            35,
            &(-2i64).to_be_bytes(),
            BatchError::InvalidMaxTimestamp(-2),
        ),
        (
            43,
            &(-2i64).to_be_bytes(),
            BatchError::InvalidProducerState {
                producer_id: -2,
                producer_epoch: -1,
                base_sequence: -1,
            },
        ),
        (
            43,
            &[0; 8],
            BatchError::InvalidProducerState {
                producer_id: 0,
                producer_epoch: -1,
                base_sequence: -1,
            },
        ),
    ];
    for (at, bytes, expected) in cases {
        assert_eq!(
            refusal(&forged(at, bytes)),
            Some(expected),
            "{bytes:?} at {at}"
        );
    }
    let mut flipped = forged(0, &[]);
    flipped[size - 1] ^= 1;
    assert!(matches!(
        refusal(&flipped),
        Some(BatchError::ChecksumMismatch { .. })
    ));
    let small = Batches::produced(&forged(0, &[]), 60)
        .next()
        .map(|batch| batch.is_err());
    assert_eq!(small, Some(true));
}

#[test]
fn a_reader_takes_counts_and_deltas_at_their_extremes() {
    // A batch of 2^31 offsets of which compaction left one, the last.
    let mut sparse = forged(23, &i32::MAX.to_be_bytes());
    let (header, _) = Batches::checked(&sparse)
        .next()
        .expect("one")
        .expect("valid");
    assert_eq!(header.last_offset(), Offset(i64::from(i32::MAX)));
    assert_eq!(consume(&sparse), 1);
    place(
        &mut sparse,
        Offset(i64::MAX - (1 << 31)),
        LeaderEpoch(i32::MAX),
    );
    let (header, _) = Batches::checked(&sparse)
        .next()
        .expect("one")
        .expect("valid");
    assert_eq!(header.next_offset(), Offset(i64::MAX));
    // And 2^31 records in ten bytes are not believed, nor in any compressed section.
    let mut crowd = sparse;
    crowd[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    write_crc(&mut crowd);
    let expected = BatchError::TooManyRecords {
        record_count: i32::MAX.cast_unsigned(),
        size: u32::try_from(crowd.len()).expect("small"),
    };
    assert_eq!(BatchHeader::decode(&crowd), Err(expected));
    crowd[22] = Compression::Zstd as u8;
    write_crc(&mut crowd);
    let (opened, bytes) = peak(|| DecodedBatch::open(&crowd).err());
    assert_eq!((opened, bytes), (Some(expected), 0));
    // A count that a compressed section may have is checked again once it is open.
    let mut crowd = with_section(
        Compression::Lz4,
        &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0, 0, 0, 0, 0],
    );
    crowd[23..27].copy_from_slice(&999_999i32.to_be_bytes());
    crowd[57..61].copy_from_slice(&1_000_000i32.to_be_bytes());
    write_crc(&mut crowd);
    let (opened, bytes) = peak(|| DecodedBatch::open(&crowd).is_err());
    assert_eq!((opened, bytes), (true, 0));
}

#[test]
fn a_reader_refuses_more_records_than_offsets() {
    let batch = forged(57, &2i32.to_be_bytes());
    let expected = BatchError::InvalidRecordCount {
        record_count: 2,
        last_offset_delta: 0,
    };
    assert_eq!(Batches::trusted(&batch).next(), Some(Err(expected)));
    assert_eq!(BatchHeader::decode(&batch), Err(expected));
}

/// A batch of one record whose section is these bytes.
fn with_section(compression: Compression, section: &[u8]) -> Vec<u8> {
    let mut batch = forged(0, &[]);
    batch.truncate(BATCH_HEADER_SIZE);
    batch.extend_from_slice(section);
    let length = i32::try_from(batch.len() - 12).expect("small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = compression as u8;
    write_crc(&mut batch);
    batch
}

/// A section may claim to become 128 MiB, or to be made of blocks of 4 MiB: nothing is taken on
/// its word.
#[test]
fn a_section_that_claims_to_be_large_costs_little() {
    let snappy = [0x80, 0x80, 0x80, 0x40, 0, b'x'];
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    let mut lz4 = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0];
    for _ in 0..1000 {
        framed.extend_from_slice(&[0, 0, 0, 6]);
        framed.extend_from_slice(&snappy);
        lz4.extend_from_slice(&[2, 0, 0, 0, 0x10, b'x']);
    }
    lz4.extend_from_slice(&[0; 4]);
    for (compression, section) in [
        (Compression::Snappy, &snappy[..]),
        (Compression::Snappy, &framed),
        (Compression::Lz4, &lz4),
    ] {
        let batch = with_section(compression, section);
        assert!(Batches::checked(&batch).all(|batch| batch.is_ok()));
        let (records, bytes) = peak(|| consume(&batch));
        assert_eq!(records, 0);
        // The codecs' own tables, and the output as it grows.
        assert!(bytes <= 16 << 10, "{bytes} bytes for {compression}");
    }
}

#[test]
fn a_timestamp_that_overflows_is_an_error() {
    let mut builder = BatchBuilder::new();
    let headers: [(&str, Option<&[u8]>); 0] = [];
    builder.push(0, None, None, &headers).expect("fits");
    builder.push(5, None, None, &headers).expect("fits");
    assert!(builder.push(i64::MIN, None, None, &headers).is_ok());
    let mut batch = builder.finish(None, Compression::None);
    batch[27..35].copy_from_slice(&(i64::MAX - 4).to_be_bytes());
    write_crc(&mut batch);
    let decoded = DecodedBatch::open(&batch).expect("opens");
    let records: Vec<bool> = decoded.records().map(|record| record.is_ok()).collect();
    assert_eq!(records, [true, false]);

    builder.push(-2, None, None, &headers).expect("fits");
    assert!(builder.push(i64::MAX, None, None, &headers).is_err());
    assert_eq!(builder.record_count(), 1);
}

#[test]
fn sequences_wrap() {
    let mut batch = build(
        &vec![
            Plain {
                timestamp_ms: 0,
                key: None,
                value: None,
                headers: Vec::new()
            };
            3
        ],
        Compression::None,
    );
    let last = |batch: &[u8]| {
        Batches::checked(batch)
            .next()
            .expect("one")
            .expect("valid")
            .0
            .last_sequence()
    };
    assert_eq!(last(&batch), 19);
    for (base, expected) in [(i32::MAX, 1), (i32::MAX - 2, i32::MAX), (0, 2), (-1, -1)] {
        set_producer(&mut batch, ProducerId(5), ProducerEpoch(1), base);
        assert_eq!(last(&batch), expected);
    }
}

#[test]
fn append_time_reaches_every_record() {
    let record = Plain {
        timestamp_ms: 7,
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let mut batch = build(&[record.clone(), record], Compression::Zstd);
    set_append_time(&mut batch, 99).expect("a batch");
    assert_eq!(Batches::checked(&batch).filter(Result::is_ok).count(), 1);
    assert!(plain(&batch).iter().all(|record| record.timestamp_ms == 99));
}

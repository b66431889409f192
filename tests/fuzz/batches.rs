//! Record batches in every codec, changed here and there, with a checksum that holds: refused, or read within
//! bounds. What a codec may make of few bytes is bounded too.

use std::sync::OnceLock;

use millstream_protocol::{
    LeaderEpoch, Offset,
    batch::{
        BATCH_HEADER_SIZE, BatchBuilder, BatchHeader, Batches, Compression, DecodedBatch, crc32c,
        place,
    },
    limits::MAX_UNCOMPRESSED_BATCH_SIZE,
};

use crate::{Edits, TIME, Tally, cases};

static TALLY: Tally = Tally::new();

/// Where a batch has its checksum, and from where on it covers.
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

/// A valid batch of each codec.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let made = Compression::ALL.map(|codec| {
            let mut builder = BatchBuilder::new();
            for number in 0..40_u8 {
                let value = vec![number / 4; usize::from(number) * 7];
                let headers = [(b"name".to_vec(), Some(vec![number]))];
                let key = (number % 3 > 0).then_some(&value[..1.min(value.len())]);
                builder
                    .push(number.into(), key, Some(&value), &headers)
                    .expect("a small record");
            }
            let mut bytes = builder.finish(None, codec);
            place(&mut bytes, Offset(100), LeaderEpoch(3));
            bytes
        });
        made.to_vec()
    })
}

/// The batch that an input describes: a codec, how much of the sample is kept, and changes.
fn batch_of(input: &[u8]) -> Option<Vec<u8>> {
    let (chosen, rest) = input.split_first_chunk::<2>()?;
    let samples = samples();
    let mut bytes = samples[usize::from(chosen[0]) % samples.len()].clone();
    match chosen[1] % 8 {
        // The input itself is the section.
        0 => bytes
            .splice(BATCH_HEADER_SIZE.., rest.iter().copied())
            .for_each(drop),
        1 => bytes.truncate(BATCH_HEADER_SIZE + usize::from(chosen[1])),
        _ => {
            for (how, place, value) in Edits(rest).within(bytes.len()) {
                match how % 3 {
                    0 => bytes[place] ^= 1 << (value % 8),
                    1 => bytes[place] = value,
                    _ => bytes[place] = 0xff,
                }
            }
        }
    }
    let size = u32::try_from(bytes.len()).expect("small") - 12;
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    Some(bytes)
}

fn target(input: &[u8]) {
    TALLY.case();
    let Some(bytes) = batch_of(input) else {
        return;
    };
    for batch in Batches::checked(&bytes) {
        let Ok((header, bytes)) = batch else {
            break;
        };
        let Ok(opened) = DecodedBatch::open(bytes) else {
            continue;
        };
        TALLY.deep();
        let mut size = 0;
        let mut count = 0;
        for record in opened.records() {
            let Ok(record) = record else {
                break;
            };
            size += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            count += 1;
        }
        assert!(size <= MAX_UNCOMPRESSED_BATCH_SIZE);
        assert!(count <= header.record_count, "{count} records");
        let _ = opened.check_keys();
        let (_, section) = opened.into_parts();
        assert!(section.len() <= MAX_UNCOMPRESSED_BATCH_SIZE);
    }
}

#[test]
fn batches() {
    for sample in samples() {
        assert!(BatchHeader::decode(sample).is_ok());
    }
    let count = cases(40_000);
    bolero::check!(name = "batches")
        .with_iterations(count)
        .with_test_time(TIME)
        .with_max_len(256)
        .for_each(target);
    TALLY.finish("batches", count);
}

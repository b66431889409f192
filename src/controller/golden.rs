//! The log's format against golden bytes, damage and the future.

use std::collections::BTreeMap;

use millstream_protocol::BrokerId;
use uuid::Uuid;

use super::{
    format::{Entry, FormatError, decode_snapshot, encode_snapshot},
    tests::{apply, create, seat, started, topic},
    *,
};

fn golden_entries() -> Vec<(&'static str, Entry)> {
    let entry = |index, command| Entry {
        term: 3,
        index,
        command,
    };
    vec![
        (
            "BrokerStarted",
            entry(
                1,
                Command::BrokerStarted {
                    broker: BrokerId(1),
                    incarnation: Uuid::from_u128(0xA1),
                },
            ),
        ),
        (
            "CreateTopic",
            entry(
                2,
                Command::CreateTopic {
                    id: topic(0xB2),
                    name: "orders.eu".to_owned(),
                    configs: vec![("durability".to_owned(), "buffered".to_owned())],
                    assignments: vec![vec![BrokerId(1)], vec![BrokerId(1), BrokerId(2)]],
                },
            ),
        ),
        (
            "DeleteTopic",
            entry(3, Command::DeleteTopic { id: topic(0xB2) }),
        ),
        (
            "AlterTopic",
            entry(
                4,
                Command::AlterTopic {
                    id: topic(0xB2),
                    changes: vec![
                        ("segment.ms".to_owned(), None),
                        ("retention.ms".to_owned(), Some("5".to_owned())),
                    ],
                },
            ),
        ),
        (
            "CreatePartitions",
            entry(
                5,
                Command::CreatePartitions {
                    id: topic(0xB2),
                    present: 2,
                    assignments: vec![vec![BrokerId(1)]],
                },
            ),
        ),
        (
            "AllocateProducerIds",
            entry(
                6,
                Command::AllocateProducerIds {
                    broker: BrokerId(1),
                    count: 1000,
                },
            ),
        ),
        (
            "ForgetTopic",
            entry(7, Command::ForgetTopic { id: topic(0xB2) }),
        ),
    ]
}

fn golden_state() -> Controller {
    let mut controller = started();
    apply(&mut controller, &create(0xC3, "a", 2)).unwrap();
    apply(&mut controller, &create(0xC4, "b", 1)).unwrap();
    apply(&mut controller, &Command::DeleteTopic { id: topic(0xC3) }).unwrap();
    apply(
        &mut controller,
        &Command::AllocateProducerIds {
            broker: BrokerId(0),
            count: 1000,
        },
    )
    .unwrap();
    controller
}

/// Files written by the first version of each format. If this fails, a stored type was changed in
/// place: add a version beside it instead.
#[test]
fn golden_bytes_stay_readable_and_the_same() {
    let golden: BTreeMap<&str, &str> = include_str!("golden.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let unhex = |text: &str| -> Vec<u8> {
        let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    };
    let lookup = |name: &str, now: &[u8]| -> Vec<u8> {
        unhex(
            golden
                .get(name)
                .unwrap_or_else(|| panic!("golden.txt lacks: {name} {}", hex(now))),
        )
    };
    for (name, entry) in golden_entries() {
        let stored = lookup(name, &entry.encode());
        assert_eq!(Entry::decode(&stored).unwrap(), entry, "{name}");
        assert_eq!(hex(&entry.encode()), hex(&stored), "{name}");
    }
    let state = golden_state();
    let stored = lookup("Snapshot", &encode_snapshot(&state));
    assert_eq!(
        decode_snapshot(&stored, seat()).unwrap().image(),
        state.image()
    );
    assert_eq!(hex(&encode_snapshot(&state)), hex(&stored));
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = golden_entries()[1].1.encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::decode(&damaged).is_err(), "bit {bit}");
    }
    for size in 0..bytes.len() {
        assert!(Entry::decode(&bytes[..size]).is_err(), "{size} bytes");
    }
}

#[test]
fn an_entry_of_the_future_is_refused_by_name() {
    let mut bytes = golden_entries()[2].1.encode();
    bytes[6] = 2;
    let crc = crc_fast::checksum(
        crc_fast::CrcAlgorithm::Crc32Iscsi,
        &[&bytes[..28], &bytes[32..]].concat(),
    );
    bytes[28..32].copy_from_slice(&u32::try_from(crc).unwrap().to_le_bytes());
    let error = Entry::decode(&bytes).unwrap_err();
    assert!(
        matches!(&error, FormatError::Newer { version: 2, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("DeleteTopic command (kind 3) of version 2"),
        "{error}"
    );
}

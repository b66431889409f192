//! Every message, made from its layout.

use std::collections::BTreeMap;

use millstream_protocol::{
    DecodeError, ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, Wire, messages::*,
    schema::Layout,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use crate::{
    layouts::{self, Shape, shape},
    memory::peak,
};

/// The most memory that decoding may take for each byte of a body: an empty pair of strings takes
/// three bytes here and 48 in memory, and the vector that holds it nothing more.
const MEMORY_PER_BYTE: usize = 16;

type Bytes = BoxedStrategy<Vec<u8>>;

/// Bytes of a random value of a type.
fn value(type_name: &str, layouts: &BTreeMap<&str, Layout>) -> Bytes {
    let fixed = |size| vec(any::<u8>(), size).boxed();
    match shape(type_name) {
        Shape::Array(element) => vec(value(element, layouts), 0..4)
            .prop_map(|elements| {
                let count = u32::try_from(elements.len()).expect("few");
                [&count.to_le_bytes()[..], &elements.concat()].concat()
            })
            .boxed(),
        Shape::Optional(inner) => option::of(value(inner, layouts))
            .prop_map(|value| value.map_or_else(|| vec![0], |bytes| [&[1][..], &bytes].concat()))
            .boxed(),
        Shape::Pair(first, second) => (value(first, layouts), value(second, layouts))
            .prop_map(|(first, second)| [first, second].concat())
            .boxed(),
        Shape::Named("bool") => select(vec![vec![0], vec![1]]).boxed(),
        Shape::Named("String") => vec(any::<char>(), 0..8)
            .prop_map(|chars| {
                let mut bytes = Vec::new();
                chars.into_iter().collect::<String>().encode(&mut bytes);
                bytes
            })
            .boxed(),
        Shape::Named("ErrorCode") => select(ErrorCode::ALL)
            .prop_map(|code| (code as u16).to_le_bytes().to_vec())
            .boxed(),
        Shape::Named("u8") => fixed(1),
        Shape::Named("u16" | "i16" | "ProducerEpoch") => fixed(2),
        Shape::Named("u32" | "i32" | "PartitionIndex" | "LeaderEpoch" | "BrokerId" | "ShardId") => {
            fixed(4)
        }
        Shape::Named("u64" | "i64" | "Offset" | "ProducerId") => fixed(8),
        Shape::Named("Uuid" | "TopicId" | "ClusterId") => fixed(16),
        Shape::Named("TopicPartition") => fixed(20),
        Shape::Named(name) => {
            let layout = layouts
                .get(name)
                .unwrap_or_else(|| panic!("no layout of {name}"));
            fields(layout, layouts)
        }
    }
}

fn fields(layout: &Layout, layouts: &BTreeMap<&str, Layout>) -> Bytes {
    let fields: Vec<Bytes> = layout
        .fields
        .iter()
        .map(|field| value(field.type_name, layouts))
        .collect();
    fields.prop_map(|fields| fields.concat()).boxed()
}

/// Decodes a body and encodes it again, so that what was dropped or made up shows.
type Recode = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

fn recode<M: Wire>(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    decode_body::<M>(body).map(|message| encode_body(&message))
}

fn pair<R: Request>() -> (Recode, Recode) {
    (recode::<R>, recode::<R::Response>)
}

fn codecs(api: Api) -> (Recode, Recode) {
    match api {
        Api::Handshake => pair::<HandshakeRequest>(),
        Api::Metadata => pair::<MetadataRequest>(),
        Api::CreateTopics => pair::<CreateTopicsRequest>(),
        Api::DeleteTopics => pair::<DeleteTopicsRequest>(),
        Api::AlterTopic => pair::<AlterTopicRequest>(),
        Api::CreatePartitions => pair::<CreatePartitionsRequest>(),
        Api::Produce => pair::<ProduceRequest>(),
        Api::Fetch => pair::<FetchRequest>(),
        Api::ListOffsets => pair::<ListOffsetsRequest>(),
        Api::DeleteRecords => pair::<DeleteRecordsRequest>(),
        Api::InitProducerId => pair::<InitProducerIdRequest>(),
        Api::DescribeCluster => pair::<DescribeClusterRequest>(),
        Api::DescribePartitions => pair::<DescribePartitionsRequest>(),
        Api::GroupHeartbeat => pair::<GroupHeartbeatRequest>(),
        Api::OffsetCommit => pair::<OffsetCommitRequest>(),
        Api::OffsetFetch => pair::<OffsetFetchRequest>(),
        Api::ListGroups => pair::<ListGroupsRequest>(),
        Api::DescribeGroups => pair::<DescribeGroupsRequest>(),
        Api::DeleteGroups => pair::<DeleteGroupsRequest>(),
        Api::ProduceDelayed => pair::<ProduceDelayedRequest>(),
        Api::ListDelayed => pair::<ListDelayedRequest>(),
        Api::CancelDelayed => pair::<CancelDelayedRequest>(),
        Api::DescribeDelayed => pair::<DescribeDelayedRequest>(),
    }
}

/// Runs `check` on random bodies of every message, with extensions or without.
fn for_each_message(cases: u32, check: impl Fn(Recode, Vec<u8>, u64) -> Result<(), TestCaseError>) {
    let listed = layouts::all();
    let layouts: BTreeMap<&str, Layout> =
        listed.iter().map(|layout| (layout.name, *layout)).collect();
    let error_reply: (Layout, Recode) = (layouts["ErrorReply"], recode::<ErrorReply>);
    let messages = Api::ALL.iter().flat_map(|api| {
        let (request, response) = api.layouts();
        let (decode_request, decode_response) = codecs(*api);
        [(request, decode_request), (response, decode_response)]
    });
    let mut count = 0;
    for (layout, recode) in messages.chain([error_reply]) {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let strategy = (fields(&layout, &layouts), any::<u64>());
        TestRunner::new(config)
            .run(&strategy, |(mut body, random)| {
                body.extend_from_slice(&[0, 0]);
                check(recode, body, random)
            })
            .unwrap_or_else(|error| panic!("{}: {error}", layout.name));
        count += 1;
    }
    assert_eq!(count, 2 * Api::ALL.len() + 1);
}

#[test]
fn every_message_round_trips() {
    for_each_message(64, |recode, body, _| {
        prop_assert_eq!(recode(&body), Ok(body));
        Ok(())
    });
}

#[test]
fn unknown_extensions_are_skipped() {
    for_each_message(8, |recode, body, random| {
        let tag = random.to_le_bytes();
        let without = body.len() - 2;
        let extensions = [
            &[2, 0][..],
            &tag[..2],
            &[3, 0, 0, 0, 9, 9, 9],
            &tag[2..4],
            &[0; 4],
        ];
        let extended = [&body[..without], &extensions.concat()].concat();
        prop_assert_eq!(recode(&extended), Ok(body));
        for cut in without..extended.len() {
            prop_assert!(recode(&extended[..cut]).is_err());
        }
        Ok(())
    });
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    for_each_message(8, |recode, body, _| {
        for cut in 0..body.len() {
            let (decoded, bytes) = peak(|| recode(&body[..cut]).is_err());
            prop_assert!(decoded, "cut at {}", cut);
            prop_assert!(
                bytes <= cut * MEMORY_PER_BYTE,
                "{} bytes for {}",
                bytes,
                cut
            );
        }
        let longer = [&body[..], &[0]].concat();
        prop_assert_eq!(recode(&longer), Err(DecodeError::TrailingBytes(1)));
        Ok(())
    });
}

#[test]
fn a_flipped_body_costs_no_more_than_its_size() {
    for_each_message(256, |recode, mut body, random| {
        for flip in random.to_be_bytes().chunks(2) {
            let [high, low] = [usize::from(flip[0]), usize::from(flip[1])];
            let at = (high * 31 + low) % body.len();
            body[at] = if low % 3 == 0 {
                0xff
            } else {
                body[at] ^ 1 << (low % 8)
            };
            let limit = body.len() * MEMORY_PER_BYTE;
            // Encoding again is the test's own: it is bounded by what was decoded.
            let (_, bytes) = peak(|| recode(&body).is_ok());
            prop_assert!(
                bytes <= limit + body.len() + 64,
                "{} bytes for {}",
                bytes,
                body.len()
            );
        }
        Ok(())
    });
}

#[test]
fn a_count_that_the_body_cannot_hold_allocates_nothing() {
    let body = [1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0];
    let (decoded, bytes) = peak(|| decode_body::<MetadataRequest>(&body).is_err());
    assert!(decoded);
    assert_eq!(bytes, 0);
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn frame_headers_round_trip(
        api: u16, version: u16, flags: u16, correlation_id: u64,
        body_size in 0u32..1 << 30, records_size in 0u32..1 << 30,
    ) {
        let flags = FrameFlags(flags);
        let header = FrameHeader { api, version, flags, body_size, records_size, correlation_id };
        prop_assert_eq!(FrameHeader::decode(&header.encode(), u32::MAX), Ok(header));
    }

    #[test]
    fn any_frame_header_is_within_its_limit_or_refused(
        bytes: [u8; FRAME_HEADER_SIZE], small: bool, max_frame_size: u32,
    ) {
        let mut bytes = bytes;
        if small {
            // Lengths that may be believed, and no reserved bits.
            bytes[2..4].fill(0);
            bytes[10..12].fill(0);
            bytes[14..16].fill(0);
        }
        if let Ok(header) = FrameHeader::decode(&bytes, max_frame_size) {
            prop_assert!(FRAME_HEADER_SIZE + header.rest_size() <= max_frame_size as usize);
            prop_assert_eq!(header.encode(), bytes);
        }
    }
}

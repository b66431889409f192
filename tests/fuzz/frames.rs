//! Frames: any bytes as a header and a body of any API, asked and answered.

use millstream_protocol::{
    FRAME_HEADER_SIZE, FrameHeader, Reader, Wire,
    messages::{
        AlterTopicRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
        DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeGroupsRequest,
        DescribePartitionsRequest, ErrorReply, FetchRequest, GroupHeartbeatRequest,
        HandshakeRequest, InitProducerIdRequest, ListGroupsRequest, ListOffsetsRequest,
        MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceDelayedRequest,
        ProduceRequest, Request, decode_body, encode_body,
    },
};

use crate::{TIME, Tally, cases};

static TALLY: Tally = Tally::new();

/// What can be decoded comes out the same when it is encoded and decoded again.
fn check<M: Wire + PartialEq + std::fmt::Debug>(body: &[u8]) -> bool {
    let whole = decode_body::<M>(body);
    // What follows is left out of it, so that more of them get deep.
    let Ok(message) = M::decode(&mut Reader::new(body)) else {
        assert!(whole.is_err());
        return false;
    };
    let again = decode_body::<M>(&encode_body(&message));
    assert_eq!(again.as_ref(), Ok(&message));
    true
}

fn both<R>(body: &[u8]) -> bool
where
    R: Request + PartialEq + std::fmt::Debug,
    R::Response: PartialEq + std::fmt::Debug,
{
    check::<R>(body) | check::<R::Response>(body)
}

const MESSAGES: [fn(&[u8]) -> bool; 21] = [
    both::<HandshakeRequest>,
    both::<MetadataRequest>,
    both::<CreateTopicsRequest>,
    both::<DeleteTopicsRequest>,
    both::<AlterTopicRequest>,
    both::<CreatePartitionsRequest>,
    both::<ProduceRequest>,
    both::<FetchRequest>,
    both::<ListOffsetsRequest>,
    both::<DeleteRecordsRequest>,
    both::<InitProducerIdRequest>,
    both::<DescribeClusterRequest>,
    both::<DescribePartitionsRequest>,
    both::<GroupHeartbeatRequest>,
    both::<OffsetCommitRequest>,
    both::<OffsetFetchRequest>,
    both::<ListGroupsRequest>,
    both::<DescribeGroupsRequest>,
    both::<DeleteGroupsRequest>,
    both::<ProduceDelayedRequest>,
    check::<ErrorReply>,
];

fn target(input: &[u8]) {
    TALLY.case();
    if let Some(header) = input.first_chunk::<FRAME_HEADER_SIZE>()
        && let Ok(header) = FrameHeader::decode(header, 64 << 20)
    {
        let again = header.encode();
        assert_eq!(FrameHeader::decode(&again, 64 << 20), Ok(header));
        assert!(header.rest_size() <= 64 << 20);
    }
    // The first byte chooses the message, so that short inputs reach each.
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    if MESSAGES[usize::from(*kind) % MESSAGES.len()](body) {
        TALLY.deep();
    }
}

#[test]
fn frames() {
    let count = cases(200_000);
    bolero::check!(name = "frames")
        .with_iterations(count)
        .with_test_time(TIME)
        .with_max_len(512)
        .for_each(target);
    TALLY.finish("frames", count);
}

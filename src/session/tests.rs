use millstream_protocol::{
    FrameHeader, limits,
    messages::{
        ANY_SHARD, FetchRequest, MetadataRequest, ProducePartition, ProduceRequest, encode_body,
    },
};

use super::*;

type Testee = Session<&'static str>;

fn header(api: Api, correlation_id: u64) -> FrameHeader {
    FrameHeader {
        api: api as u16,
        correlation_id,
        ..FrameHeader::default()
    }
}

fn handshake(ordered_replies: bool) -> HandshakeRequest {
    HandshakeRequest {
        wanted_shard: ANY_SHARD,
        ordered_replies,
        ..HandshakeRequest::default()
    }
}

fn ready(ordered: bool) -> Testee {
    let mut session = Testee::new(Monotonic(0));
    let body = encode_body(&handshake(ordered));
    let Action::Welcome { ticket, .. } = session.frame(&header(Api::Handshake, 1), &body) else {
        panic!("a handshake is welcome");
    };
    session.answered(ticket, "welcome", |_| ());
    session
}

fn serve(session: &mut Testee, correlation_id: u64) -> Ticket {
    let body = encode_body(&MetadataRequest::default());
    match session.frame(&header(Api::Metadata, correlation_id), &body) {
        Action::Serve { ticket, .. } => ticket,
        other => panic!("{other:?}"),
    }
}

fn refusal(action: Action) -> (ErrorCode, bool) {
    match action {
        Action::Refuse { error, close, .. } => (error, close),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_served_before_the_handshake() {
    let mut session = Testee::new(Monotonic(0));
    assert_eq!(session.deadline(), Some(Monotonic(0) + HANDSHAKE_TIMEOUT));
    assert_eq!(
        session.max_frame_size(),
        limits::MAX_FRAME_SIZE_BEFORE_HANDSHAKE
    );
    let body = encode_body(&MetadataRequest::default());
    let refused = refusal(session.frame(&header(Api::Metadata, 1), &body));
    assert_eq!(refused, (ErrorCode::HandshakeRequired, true));
    assert!(session.is_closing());
    assert!(!session.may_read());
}

#[test]
fn what_is_unknown_is_answered_and_the_session_goes_on() {
    let mut session = ready(false);
    assert_eq!(session.deadline(), None);
    let unknown = FrameHeader {
        api: 999,
        ..FrameHeader::default()
    };
    assert_eq!(
        refusal(session.frame(&unknown, &[])),
        (ErrorCode::UnknownApi, false)
    );
    let newer = FrameHeader {
        version: 7,
        ..header(Api::Fetch, 2)
    };
    assert_eq!(
        refusal(session.frame(&newer, &[])),
        (ErrorCode::UnsupportedVersion, false)
    );
    let broken = refusal(session.frame(&header(Api::Fetch, 3), &[1, 2, 3]));
    assert_eq!(broken, (ErrorCode::MalformedRequest, false));
    let again = encode_body(&handshake(false));
    let refused = refusal(session.frame(&header(Api::Handshake, 4), &again));
    assert_eq!(refused, (ErrorCode::InvalidRequest, false));
    assert!(session.may_read());
}

#[test]
fn a_reply_from_a_client_ends_the_session() {
    let mut session = ready(false);
    let reply = FrameHeader {
        flags: FrameFlags::RESPONSE,
        ..header(Api::Fetch, 2)
    };
    assert_eq!(
        refusal(session.frame(&reply, &[])),
        (ErrorCode::MalformedRequest, true)
    );
}

#[test]
fn produce_sizes_must_cover_the_records() {
    let mut session = ready(false);
    let partition = ProducePartition {
        records_size: 10,
        ..ProducePartition::default()
    };
    let request = ProduceRequest {
        timeout_ms: 0,
        partitions: vec![partition],
    };
    let body = encode_body(&request);
    let frame = |records_size| FrameHeader {
        records_size,
        ..header(Api::Produce, 5)
    };
    assert!(matches!(
        session.frame(&frame(10), &body),
        Action::Serve { .. }
    ));
    for wrong in [0, 9, 11] {
        let refused = refusal(session.frame(&frame(wrong), &body));
        assert_eq!(refused, (ErrorCode::MalformedRequest, false));
    }
    let fetch = FrameHeader {
        records_size: 1,
        ..header(Api::Fetch, 6)
    };
    let body = encode_body(&FetchRequest::default());
    assert_eq!(
        refusal(session.frame(&fetch, &body)),
        (ErrorCode::MalformedRequest, false)
    );
}

#[test]
fn replies_go_as_they_come_unless_order_is_asked_for() {
    let mut session = ready(false);
    let (first, second) = (serve(&mut session, 1), serve(&mut session, 2));
    let mut sent = Vec::new();
    session.answered(second, "second", |reply| sent.push(reply));
    session.answered(first, "first", |reply| sent.push(reply));
    assert_eq!(sent, ["second", "first"]);

    let mut session = ready(true);
    let (first, second) = (serve(&mut session, 1), serve(&mut session, 2));
    let third = serve(&mut session, 3);
    let mut sent = Vec::new();
    session.answered(second, "second", |reply| sent.push(reply));
    assert_eq!(sent, Vec::<&str>::new());
    session.answered(first, "first", |reply| sent.push(reply));
    assert_eq!(sent, ["first", "second"]);
    session.answered(third, "third", |reply| sent.push(reply));
    assert_eq!(sent, ["first", "second", "third"]);
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn reading_stops_while_too_much_is_unanswered() {
    let mut session = ready(false);
    let tickets: Vec<Ticket> = (0..limits::MAX_REQUESTS_IN_FLIGHT as u64)
        .map(|id| serve(&mut session, id))
        .collect();
    assert!(!session.may_read());
    session.answered(tickets[500], "reply", |_| ());
    assert!(session.may_read());
}

#[test]
fn an_adopted_session_is_past_its_handshake() {
    let (mut session, ticket) = Testee::adopt(Monotonic(5), 77, &handshake(true));
    assert_eq!(
        (ticket.api, ticket.correlation_id),
        (Api::Handshake as u16, 77)
    );
    assert_eq!(session.deadline(), None);
    session.answered(ticket, "welcome", |_| ());
    serve(&mut session, 78);
}

/// Found by simulation: a fetch behind another held its reply's memory, the other waited for it.
#[test]
fn an_ordered_reply_has_its_turn_when_those_before_it_are_answered() {
    for ordered in [true, false] {
        let mut session = ready(ordered);
        let first = serve(&mut session, 1);
        let second = serve(&mut session, 2);
        assert!(session.is_next(first));
        assert_eq!(session.is_next(second), !ordered);
        session.answered(first, "first", |_| ());
        assert!(session.is_next(second));
    }
}

//! The producer machine, event by event: each test asserts the exact list of actions.

use std::time::Duration;

use millstream_protocol::{ErrorCode, LeaderEpoch, ShardId};

use super::{
    Event, Refusal,
    bench::{Bench, answer, config, topic},
};
use crate::error::RequestError;

fn big(letter: &str) -> String {
    letter.repeat(700)
}

#[test]
fn the_first_record_goes_at_once_and_what_gathers_goes_together() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.append(0, "a"), Err(Refusal::UnknownTopic));
    assert_eq!(bench.apply(Event::TopicLearned(topic(&[0, 0], 1))), [""; 0]);
    bench.make_known();
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["init"]);
    assert_eq!(bench.append(0, "b"), Ok(false));
    assert_eq!(bench.identity(7), ["send 1 to 0: p0 e1 7@0 [a b]"]);
    assert_eq!(bench.append(0, "c"), Ok(true));
    assert_eq!(bench.append(1, "d"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p0 e1 7@2 [c] p1 e1 7@0 [d]"]);
    // Two requests are in flight: the rest waits, and gathers.
    assert_eq!(bench.append(0, "e"), Ok(true));
    assert_eq!(bench.append(0, "f"), Ok(false));
    assert_eq!(bench.tick(0), [""; 0]);
    let results = [answer(0, ErrorCode::None, 100)];
    assert_eq!(
        bench.replied(1, &results),
        ["settle #0 at 100", "send 3 to 0: p0 e1 7@3 [e f]"]
    );
    assert_eq!(bench.machine.unsettled_records(), 4);
}

#[test]
fn a_full_batch_is_sealed_and_linger_holds_the_others_back() {
    let mut settings = config();
    settings.linger = Duration::from_millis(20).into();
    let mut bench = Bench::ready(settings);
    assert_eq!(bench.append(0, "small"), Ok(true));
    assert_eq!(bench.tick(0), [""; 0]);
    assert_eq!(
        bench.machine.deadline(bench.now),
        Some(Duration::from_millis(20))
    );
    bench.now += Duration::from_millis(10);
    assert_eq!(bench.append(1, &big("x")), Ok(true));
    assert_eq!(
        bench.append(1, "does-not-fit".repeat(30).as_str()),
        Ok(true)
    );
    let full = format!("send 1 to 0: p1 e1 7@0 [{}]", big("x"));
    assert_eq!(bench.tick(0), [full]);
    assert_eq!(bench.tick(10), ["send 2 to 0: p0 e1 7@0 [small]"]);
    assert_eq!(bench.apply(Event::FlushWanted), [""; 0]);
    let flushed = format!("send 3 to 0: p1 e1 7@1 [{}]", "does-not-fit".repeat(30));
    let results = [answer(1, ErrorCode::None, 0)];
    assert_eq!(
        bench.replied(1, &results),
        ["settle #1 at 0".to_owned(), flushed]
    );
}

#[test]
fn a_lost_request_is_repeated_with_its_sequence_and_never_overtaken() {
    let mut bench = Bench::known(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p0 e1 7@1 [b]"]);
    assert_eq!(bench.append(0, "c"), Ok(true));
    // The first is lost while the second is out: nothing goes before both are back.
    assert_eq!(bench.lost(1), ["refresh t"]);
    assert_eq!(bench.tick(500), [""; 0]);
    // The second was refused for the hole that the first left.
    let results = [answer(0, ErrorCode::OutOfOrderSequence, -1)];
    let sent = bench.replied(2, &results);
    assert_eq!(
        sent,
        ["send 3 to 0: p0 e1 7@0 [a] p0 e1 7@1 [b] p0 e1 7@2 [c]"],
        "small batches share a request, in order"
    );
    let results = [0, 1, 2].map(|offset| answer(0, ErrorCode::None, offset));
    assert_eq!(
        bench.replied(3, &results),
        ["settle #0 at 0", "settle #1 at 1", "settle #2 at 2"]
    );
}

#[test]
fn beyond_a_few_requests_in_flight_small_batches_wait_for_each_other() {
    let mut settings = config();
    settings.max_in_flight = super::MAX_IDEMPOTENT_IN_FLIGHT;
    let mut bench = Bench::known(settings);
    for number in 0..super::drain::SMALL_REQUESTS_IN_FLIGHT {
        assert_eq!(bench.append(0, "a"), Ok(true));
        assert_eq!(bench.tick(0).len(), 1, "{number}");
    }
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), [""; 0]);
    assert_eq!(bench.append(0, "c"), Ok(false), "it joins what waits");
    assert_eq!(bench.tick(0), [""; 0]);
    let said = bench.replied(1, &[answer(0, ErrorCode::None, 0)]);
    let together = "send 17 to 0: p0 e1 7@16 [b c]";
    assert_eq!(said, ["settle #0 at 0", together]);
}

/// Found by the model: batches behind one that stays unanswered settled, others followed, and by the
/// time it was repeated the broker remembered only those.
#[test]
fn a_batch_that_is_not_settled_is_never_pushed_out_of_the_brokers_memory() {
    let mut settings = config();
    settings.max_in_flight = super::MAX_IDEMPOTENT_IN_FLIGHT;
    settings.buffer_memory = 16 << 20;
    let mut bench = Bench::known(settings);
    // Small ones would share requests.
    let large = "a".repeat(40 << 10);
    for number in 0..super::MAX_IDEMPOTENT_IN_FLIGHT {
        assert_eq!(bench.append(0, &large), Ok(true));
        assert_eq!(bench.tick(0).len(), 1, "{number}");
    }
    assert_eq!(bench.append(0, "b"), Ok(true));
    for number in 2..=i64::try_from(super::MAX_IDEMPOTENT_IN_FLIGHT).expect("few") {
        let results = [answer(0, ErrorCode::None, number - 1)];
        let settled = format!("settle #{} at {}", number - 1, number - 1);
        assert_eq!(bench.replied(number.cast_unsigned(), &results), [settled]);
    }
    assert_eq!(
        bench.tick(1000),
        [""; 0],
        "all but one request are free, and none may be used"
    );
    let results = [answer(0, ErrorCode::None, 0)];
    let said = bench.replied(1, &results);
    assert_eq!(said, ["settle #0 at 0", "send 65 to 0: p0 e1 7@64 [b]"]);
}

#[test]
fn a_broker_that_may_not_know_the_producer_gets_one_batch_first() {
    let mut bench = Bench::ready(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(
        bench.tick(0),
        [""; 0],
        "taken while the first is refused, it would be in front of it"
    );
    let results = [answer(0, ErrorCode::None, 0)];
    assert_eq!(
        bench.replied(1, &results),
        ["settle #0 at 0", "send 2 to 0: p0 e1 7@1 [b]"]
    );
    assert_eq!(bench.append(0, "c"), Ok(true));
    assert_eq!(bench.tick(0), ["send 3 to 0: p0 e1 7@2 [c]"]);
    bench.replied(2, &[answer(0, ErrorCode::None, 1)]);
    bench.replied(3, &[answer(0, ErrorCode::None, 2)]);
    // Silent for so long, it may have been forgotten.
    assert_eq!(bench.tick(2 * 3600 * 1000), [""; 0]);
    assert_eq!(bench.append(0, "d"), Ok(true));
    assert_eq!(bench.tick(0), ["send 4 to 0: p0 e1 7@3 [d]"]);
    assert_eq!(bench.append(0, "e"), Ok(true));
    assert_eq!(bench.tick(0), [""; 0]);
}

#[test]
fn the_hint_of_a_new_leader_is_followed_at_once() {
    let mut bench = Bench::known(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p0 e1 7@1 [b]"]);
    let mut moved = answer(0, ErrorCode::NotLeader, -1);
    moved.leader_epoch = LeaderEpoch(2);
    moved.shard = ShardId(3);
    assert_eq!(
        bench.replied(1, &[moved.clone()]),
        [""; 0],
        "one is still out"
    );
    assert_eq!(
        bench.replied(2, &[moved]),
        ["refresh t"],
        "the second hint is old news"
    );
    assert_eq!(
        bench.tick(100),
        ["send 3 to 3: p0 e2 7@0 [a] p0 e2 7@1 [b]"]
    );
}

#[test]
fn without_idempotence_one_batch_of_a_partition_is_out_at_a_time() {
    let mut settings = config();
    settings.idempotent = false;
    let mut bench = Bench::ready(settings);
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 -1@-1 [a]"]);
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), [""; 0]);
    assert_eq!(bench.lost(1), ["refresh t"]);
    assert_eq!(bench.tick(100), ["send 2 to 0: p0 e1 -1@-1 [a]"]);
}

#[test]
fn a_refusal_frees_its_sequence_if_nothing_followed() {
    let mut bench = Bench::ready(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    let results = [answer(0, ErrorCode::BatchTooLarge, -1)];
    assert_eq!(bench.replied(1, &results), ["settle #0 BatchTooLarge"]);
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p0 e1 7@0 [b]"]);
}

#[test]
fn a_gap_is_closed_by_a_new_identity_that_other_partitions_do_not_need() {
    let mut bench = Bench::known(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.append(1, "x"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a] p1 e1 7@0 [x]"]);
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p0 e1 7@1 [b]"]);
    let results = [
        answer(0, ErrorCode::InvalidBatch, -1),
        answer(1, ErrorCode::None, 4),
    ];
    assert_eq!(
        bench.replied(1, &results),
        ["settle #0 InvalidBatch", "settle #1 at 4"]
    );
    let results = [answer(0, ErrorCode::OutOfOrderSequence, -1)];
    assert_eq!(bench.replied(2, &results), [""; 0]);
    assert_eq!(bench.tick(100), ["init"]);
    assert_eq!(bench.append(1, "y"), Ok(true));
    assert_eq!(bench.tick(0), ["send 3 to 0: p1 e1 7@1 [y]"]);
    assert_eq!(bench.identity(8), ["send 4 to 0: p0 e1 8@0 [b]"]);
}

#[test]
fn a_broker_that_forgot_the_producer_gets_a_new_one_unless_that_may_repeat() {
    let mut bench = Bench::ready(config());
    for (request, refused) in [(1, false), (2, true)] {
        assert_eq!(bench.append(0, "a"), Ok(true));
        assert_eq!(bench.tick(0).len(), 1);
        if !refused {
            bench.replied(request, &[answer(0, ErrorCode::None, 0)]);
        }
    }
    // Refused at its first attempt: certainly not written.
    let forgot = [answer(0, ErrorCode::OutOfOrderSequence, -1)];
    assert_eq!(bench.replied(2, &forgot), [""; 0]);
    assert_eq!(bench.tick(100), ["init"]);
    assert_eq!(bench.identity(8), ["send 3 to 0: p0 e1 8@0 [a]"]);
    // Lost, then refused: it may have been written before the broker forgot.
    assert_eq!(bench.lost(3), ["refresh t"]);
    assert_eq!(bench.tick(100), ["send 4 to 0: p0 e1 8@0 [a]"]);
    assert_eq!(bench.replied(4, &forgot), ["settle #1 OutOfOrderSequence"]);
}

#[test]
fn what_takes_too_long_fails_and_says_whether_it_may_be_written() {
    let mut bench = Bench::ready(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    assert_eq!(bench.append(1, "b"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p1 e1 7@0 [b]"]);
    let refused = [answer(1, ErrorCode::Overloaded, -1)];
    assert_eq!(bench.lost(1), ["refresh t"]);
    assert_eq!(bench.replied(2, &refused), [""; 0]);
    bench.now += Duration::from_secs(10);
    let mut said = bench.apply(Event::Ticked);
    said.sort_unstable();
    assert_eq!(
        said,
        [
            "settle #0 timed out, maybe written: true",
            "settle #1 timed out, maybe written: false"
        ]
    );
    assert!(bench.machine.is_settled_before(bench.machine.flush_mark()));
}

#[test]
fn the_buffer_is_bounded_and_a_wait_for_room_ends_lingering() {
    let mut settings = config();
    settings.linger = Duration::from_secs(1).into();
    settings.buffer_memory = 1600;
    let mut bench = Bench::ready(settings);
    assert_eq!(bench.append(0, &big("x")), Ok(true));
    assert_eq!(bench.append(1, &big("y")), Ok(true));
    assert_eq!(bench.tick(0), [""; 0]);
    assert_eq!(bench.append(0, &big("z")), Err(Refusal::Full));
    assert_eq!(bench.tick(0).len(), 1, "both partitions in one request");
    let results = [answer(0, ErrorCode::None, 0), answer(1, ErrorCode::None, 0)];
    assert_eq!(
        bench.replied(1, &results),
        ["settle #0 at 0", "settle #1 at 0"]
    );
    assert_eq!(bench.append(0, &big("z")), Ok(true));
    let huge = "h".repeat(1600);
    assert!(matches!(
        bench.append(0, &huge),
        Err(Refusal::TooLarge { .. })
    ));
}

#[test]
fn a_topic_that_is_gone_fails_all_that_was_meant_for_it() {
    let mut bench = Bench::ready(config());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    assert_eq!(bench.append(1, "b"), Ok(true));
    let gone = [answer(0, ErrorCode::UnknownTopic, -1)];
    let said = bench.replied(1, &gone);
    assert_eq!(said[0], "settle #0 UnknownTopic");
    assert!(
        said[1].starts_with("settle #1 no topic \"t\""),
        "{}",
        said[1]
    );
    assert_eq!(said[2..], ["forget"]);
    assert_eq!(bench.append(0, "c"), Err(Refusal::UnknownTopic));
}

#[test]
fn nothing_is_taken_after_close_and_what_is_there_goes() {
    let mut settings = config();
    settings.linger = Duration::from_secs(1).into();
    let mut bench = Bench::ready(settings);
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.apply(Event::Closed), ["send 1 to 0: p0 e1 7@0 [a]"]);
    assert_eq!(bench.append(0, "b"), Err(Refusal::Closed));
}

#[test]
fn identity_failures_are_retried_or_fail_the_batches() {
    let mut bench = Bench::new(config());
    bench.apply(Event::TopicLearned(topic(&[0], 1)));
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["init"]);
    let refuse = |code| RequestError::Broker {
        code,
        message: "no".into(),
    };
    let said = bench.apply(Event::IdentityFailed(refuse(ErrorCode::Overloaded)));
    assert_eq!(said, [""; 0]);
    assert_eq!(bench.tick(100), ["init"]);
    let said = bench.apply(Event::IdentityFailed(refuse(ErrorCode::UnknownApi)));
    assert_eq!(said, ["settle #0 no (UnknownApi)"]);
}

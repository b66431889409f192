use std::{collections::BTreeSet, rc::Rc, time::Duration};

use millstream_protocol::{ErrorCode, LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const LEADER: LeaderEpoch = LeaderEpoch(3);

fn at(seconds: u64) -> Moment {
    Moment {
        monotonic: Monotonic(0) + Duration::from_secs(seconds),
        wall_ms: 1_000_000 + i64::try_from(seconds).unwrap() * 1000,
    }
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition {
        topic: TopicId(Uuid::from_u128(1)),
        partition: PartitionIndex(number),
    }
}

fn topics(count: u32) -> Rc<Topics> {
    let orders = ("orders".to_owned(), TopicId(Uuid::from_u128(1)), count);
    Rc::new(Topics::new([orders]))
}

fn wants(instance: Option<&str>) -> Wants {
    Wants {
        instance_id: instance.map(str::to_owned),
        topics: BTreeSet::from(["orders".to_owned()]),
        session_timeout: SESSION,
        rebalance_timeout: SESSION,
        ..Wants::default()
    }
}

fn beat(id: &str, epoch: i64, max_wait: u64, wants: Option<Wants>) -> Event<&'static str> {
    Event::Heartbeat {
        token: "token",
        heartbeat: Box::new(Heartbeat {
            member_id: id.to_owned(),
            epoch: Epoch(epoch),
            max_wait: Duration::from_secs(max_wait),
            wants,
            speaker: Speaker::default(),
        }),
    }
}

fn group() -> Group<&'static str> {
    Group::new(
        "g".into(),
        Epoch::before_first(LEADER),
        topics(4),
        GroupRecord::default(),
    )
}

fn apply(
    group: &mut Group<&'static str>,
    now: Moment,
    event: Event<&'static str>,
) -> Vec<Action<&'static str>> {
    let mut actions = Vec::new();
    group.apply(now, event, &mut actions);
    group.check();
    actions
}

fn replies(actions: &[Action<&'static str>]) -> Vec<(i64, Option<Vec<u32>>)> {
    let of = |action: &Action<&'static str>| match action {
        Action::Answer {
            result: Ok(reply), ..
        } => Some((
            reply.epoch.0 & 0xffff,
            reply.assignment.as_ref().map(|it| {
                let numbers = it.iter();
                numbers.map(|it| it.partition.partition.0).collect()
            }),
        )),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn refusals(actions: &[Action<&'static str>]) -> Vec<ErrorCode> {
    let of = |action: &Action<&'static str>| match action {
        Action::Answer {
            result: Err(refusal),
            ..
        } => Some(refusal.error),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

const BASE: i64 = 3 << 32;

#[test]
fn a_partition_moves_only_after_it_was_let_go() {
    let mut group = group();
    let joined = apply(&mut group, at(0), beat("a", 0, 3, Some(wants(None))));
    assert_eq!(replies(&joined), [(2, Some(vec![0, 1, 2, 3]))]);
    let keep = Action::KeepMember(
        "a".to_owned(),
        Some(MemberRecord {
            instance_id: None,
            session_timeout_ms: 10_000,
        }),
    );
    assert_eq!(joined[0], keep);
    assert!(matches!(&joined[2], Action::KeepGroup(it) if it.seen.values().eq(&[4])));
    // It waits for news ...
    assert_eq!(apply(&mut group, at(1), beat("a", BASE + 2, 3, None)), []);
    // ... which come when another joins: first something is taken, and only that.
    let joined = apply(&mut group, at(2), beat("b", 0, 3, Some(wants(None))));
    assert_eq!(replies(&joined), [(4, Some(vec![0, 1])), (3, Some(vec![]))]);
    assert_eq!(group.state(), State::Reconciling);
    assert_eq!(group.may_commit("a", Epoch(BASE + 2), partition(3)), Ok(()));
    assert_eq!(apply(&mut group, at(3), beat("b", BASE + 3, 3, None)), []);
    let gone = apply(&mut group, at(3), beat("a", BASE + 4, 3, None));
    assert_eq!(replies(&gone), [(5, Some(vec![2, 3]))]);
    let refused = group.may_commit("a", Epoch(BASE + 4), partition(3));
    assert_eq!(refused.unwrap_err().error, ErrorCode::StaleMemberEpoch);
    assert_eq!(group.may_commit("a", Epoch(BASE + 2), partition(1)), Ok(()));
    let early = group.may_commit("b", Epoch(BASE + 3), partition(3));
    assert_eq!(early.unwrap_err().error, ErrorCode::StaleMemberEpoch);
    assert_eq!(group.may_commit("b", Epoch(BASE + 5), partition(3)), Ok(()));
    assert_eq!(group.state(), State::Stable);
}

#[test]
fn who_does_not_let_go_is_removed_and_who_is_silent_too() {
    let mut group = group();
    apply(&mut group, at(0), beat("a", 0, 0, Some(wants(None))));
    apply(&mut group, at(0), beat("a", BASE + 2, 0, None));
    apply(&mut group, at(1), beat("b", 0, 0, Some(wants(None))));
    // Both are heard of, and "a" does not let go.
    apply(&mut group, at(9), beat("a", BASE + 2, 0, None));
    apply(&mut group, at(9), beat("b", BASE + 3, 0, None));
    assert_eq!(group.deadline(), Some(at(11).monotonic));
    let actions = apply(&mut group, at(11), Event::Ticked);
    assert!(matches!(&actions[0], Action::Say(it) if it.contains("did not let go")));
    assert_eq!(actions[1], Action::KeepMember("a".to_owned(), None));
    let refused = apply(&mut group, at(12), beat("a", BASE + 4, 0, None));
    assert_eq!(refusals(&refused), [ErrorCode::UnknownMemberId]);
    let all = apply(&mut group, at(13), beat("b", BASE + 3, 0, None));
    assert_eq!(replies(&all), [(5, Some(vec![0, 1, 2, 3]))]);
    let actions = apply(&mut group, at(23), Event::Ticked);
    assert_eq!(group.member_count(), 0);
    let Some(Action::KeepGroup(record)) = actions.last() else {
        panic!("{actions:?}");
    };
    assert_eq!(record.empty_since_ms, Some(1_023_000));
}

/// Cut off right after it joined, it has taken nothing on, and says its first epoch still.
#[test]
fn who_is_given_up_before_it_took_anything_on_is_told_to_join_anew() {
    let mut group = group();
    apply(&mut group, at(0), beat("a", 0, 0, Some(wants(None))));
    apply(&mut group, at(11), Event::Ticked);
    let late = apply(&mut group, at(12), beat("a", 0, 3, None));
    assert_eq!(refusals(&late), [ErrorCode::UnknownMemberId]);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut group = group();
    apply(&mut group, at(0), beat("a1", 0, 0, Some(wants(Some("a")))));
    apply(&mut group, at(0), beat("b1", 0, 0, Some(wants(Some("b")))));
    apply(&mut group, at(0), beat("a1", BASE + 4, 0, None));
    apply(&mut group, at(0), beat("a1", BASE + 4, 9, None));
    apply(&mut group, at(0), beat("b1", BASE + 5, 9, None));
    let actions = apply(&mut group, at(1), beat("a2", 0, 0, Some(wants(Some("a")))));
    assert_eq!(refusals(&actions), [ErrorCode::FencedInstanceId]);
    assert_eq!(
        replies(&actions),
        [(6, Some(vec![0, 1]))],
        "and nothing else moves"
    );
    let old = group.may_commit("a1", Epoch(BASE + 4), partition(0));
    assert_eq!(old.unwrap_err().error, ErrorCode::UnknownMemberId);
    let before_it = group.may_commit("a2", Epoch(BASE + 5), partition(0));
    assert_eq!(before_it.unwrap_err().error, ErrorCode::StaleMemberEpoch);
}

#[test]
fn after_a_restart_nothing_moves_until_all_are_back_or_given_up() {
    let mut group: Group<&'static str> = Group::new(
        "g".into(),
        Epoch::before_first(LeaderEpoch(4)),
        topics(4),
        GroupRecord::default(),
    );
    let record = MemberRecord {
        instance_id: None,
        session_timeout_ms: 10_000,
    };
    group.remember("a".to_owned(), record.clone(), at(0).monotonic);
    group.remember("b".to_owned(), record, at(0).monotonic);
    let briefly = apply(&mut group, at(1), beat("a", BASE + 4, 0, None));
    assert_eq!(refusals(&briefly), [ErrorCode::CoordinatorLoading]);
    let commit = group.may_commit("a", Epoch(BASE + 4), partition(0));
    assert_eq!(commit.unwrap_err().error, ErrorCode::CoordinatorLoading);
    let new = apply(&mut group, at(1), beat("c", 0, 0, Some(wants(None))));
    assert_eq!(replies(&new), [(1, Some(vec![]))]);
    let whole = Wants {
        owned: vec![partition(2), partition(3)],
        ..wants(None)
    };
    let back = apply(
        &mut group,
        at(2),
        beat("a", BASE + 4, 0, Some(whole.clone())),
    );
    assert_eq!(replies(&back), [(2, Some(vec![2, 3]))]);
    let without_news = group.may_commit("a", Epoch(BASE + 4), partition(2));
    assert_eq!(without_news, Ok(()), "it never let go");
    let stranger = apply(&mut group, at(2), beat("x", BASE + 4, 0, Some(whole)));
    assert_eq!(refusals(&stranger), [ErrorCode::UnknownMemberId]);
    assert_eq!(group.state(), State::Recovering);
    apply(&mut group, at(9), beat("a", (4 << 32) + 2, 0, None));
    apply(&mut group, at(9), beat("c", (4 << 32) + 1, 0, None));
    apply(&mut group, at(10), Event::Ticked);
    let given = apply(&mut group, at(10), beat("c", (4 << 32) + 1, 0, None));
    assert_eq!(replies(&given), [(3, Some(vec![0, 1]))]);
    let kept = apply(&mut group, at(10), beat("a", (4 << 32) + 2, 0, None));
    assert_eq!(replies(&kept), [(2, None)], "and \"a\" is not disturbed");
}

#[test]
fn partitions_and_topics_younger_than_the_group_are_marked() {
    let mut group = group();
    let pattern = Wants {
        pattern: Some(Pattern::new("pay.*").unwrap()),
        ..wants(None)
    };
    apply(&mut group, at(0), beat("a", 0, 0, Some(pattern)));
    apply(&mut group, at(0), beat("a", BASE + 2, 9, None));
    let payments = TopicId(Uuid::from_u128(2));
    let more = Rc::new(Topics::new([
        ("orders".to_owned(), partition(0).topic, 5),
        ("payments".to_owned(), payments, 1),
    ]));
    let change = Rc::new(topics(4).changes(&more));
    let actions = apply(&mut group, at(1), Event::Topics(more, change));
    let Action::Answer {
        result: Ok(reply), ..
    } = &actions[0]
    else {
        panic!("{actions:?}");
    };
    let assignment = reply.assignment.as_ref().unwrap();
    let new: Vec<bool> = assignment.iter().map(|it| it.is_new).collect();
    assert_eq!(new, [false, false, false, false, true, true]);
}

#[test]
fn a_group_with_members_names_whom_to_stop() {
    let mut group = group();
    assert_eq!(group.may_commit_from_outside(), Ok(()));
    let mut event = beat("a", 0, 0, Some(wants(None)));
    if let Event::Heartbeat { heartbeat, .. } = &mut event {
        heartbeat.speaker = Speaker {
            client: "shop".to_owned(),
            host: "10.0.0.7:1".to_owned(),
        };
    }
    apply(&mut group, at(0), event);
    let refused = group.may_commit_from_outside().unwrap_err();
    assert_eq!(refused.error, ErrorCode::GroupNotEmpty);
    assert_eq!(
        refused.message,
        "group g has members: stop a (shop at 10.0.0.7:1) first"
    );
}

#[test]
fn a_coordinator_that_has_used_up_its_epochs_takes_nobody_in_and_goes_on() {
    let last = Epoch((3 << 32) + i64::from(u32::MAX));
    assert_eq!((last.left(), last.next(), last.leader()), (0, last, LEADER));
    let start = Epoch(last.0 - 1);
    let record = MemberRecord {
        instance_id: None,
        session_timeout_ms: 10_000,
    };
    let mut group = Group::new("g".into(), start, topics(4), GroupRecord::default());
    for id in ["a", "b", "c"] {
        group.remember(id.to_owned(), record.clone(), at(0).monotonic);
    }
    let refused = apply(&mut group, at(1), beat("d", 0, 0, Some(wants(None))));
    assert_eq!(refusals(&refused), [ErrorCode::GroupLimitReached]);
    for id in ["a", "b"] {
        apply(&mut group, at(2), beat(id, start.0, 0, Some(wants(None))));
    }
    apply(&mut group, at(10), Event::Ticked);
    apply(&mut group, at(11), beat("a", Epoch::LEAVE.0, 0, None));
    assert_eq!((group.member_count(), group.epoch()), (1, last));
}

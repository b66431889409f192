//! Groups that are asked for, or made, to fill the broker's memory.

use std::thread;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition,
    limits::{MAX_GROUPS_PER_REQUEST, MAX_OFFSET_METADATA, MAX_PARTITIONS_PER_REQUEST},
    messages::{
        DescribeGroupsRequest, GroupHeartbeatRequest, GroupHeartbeatResponse, JOIN_EPOCH,
        MemberState, NO_EPOCH, OffsetCommitPartition, OffsetCommitRequest, OffsetFetchRequest,
    },
};

use crate::{
    broker::Broker,
    bystander::Bystander,
    memory::Watch,
    peer::{Outcome, Peer},
    topics,
};

fn join(member: usize, state: MemberState) -> GroupHeartbeatRequest {
    GroupHeartbeatRequest {
        group: format!("g{}", member / 900),
        member_id: format!("m{member}"),
        member_epoch: JOIN_EPOCH,
        max_wait_ms: 0,
        state: Some(state),
    }
}

fn state(topics: Vec<String>) -> MemberState {
    MemberState {
        topics,
        session_timeout_ms: 600_000,
        rebalance_timeout_ms: 600_000,
        ..MemberState::default()
    }
}

/// Joins, as soon as groups are served.
fn joined(peer: &mut Peer, request: &GroupHeartbeatRequest) -> GroupHeartbeatResponse {
    loop {
        let answer = peer.ask(request).expect("an answer");
        if answer.error != ErrorCode::CoordinatorLoading {
            return answer;
        }
    }
}

fn at(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition {
        topic,
        partition: PartitionIndex(partition),
    }
}

#[test]
fn a_group_asked_for_a_thousand_times_is_described_once() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    topics::create(address, "t", 1000);
    let mut peer = Peer::ready(address);
    let wants = (0..900).map(|number| format!("{number:0200}"));
    let wants: Vec<String> = wants.chain(["t".to_owned()]).collect();
    for member in 0..10 {
        let answer = joined(&mut peer, &join(member, state(wants.clone())));
        assert_eq!(answer.error, ErrorCode::None, "{}", answer.message);
    }
    let watch = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let request = DescribeGroupsRequest {
        groups: vec!["g0".to_owned(); MAX_GROUPS_PER_REQUEST],
    };
    // Each alone is about two mebibytes; none of them is read before all are asked for.
    let asked = 64;
    for _ in 0..asked {
        peer.post(&request, &[]);
    }
    for _ in 0..asked {
        let Outcome::Answered(frame) = peer.receive() else {
            panic!("an answer");
        };
        let answer: millstream_protocol::messages::DescribeGroupsResponse =
            millstream_protocol::messages::decode_body(&frame.body).expect("a description");
        assert_eq!(answer.groups.len(), MAX_GROUPS_PER_REQUEST);
        assert_eq!(answer.groups[0].members.len(), 10);
        let others = answer.groups[1..].iter();
        assert!(
            others
                .clone()
                .all(|it| it.error == ErrorCode::InvalidRequest)
        );
    }
    bystander.finish("descriptions");
    println!("descriptions: memory at most {} MiB", watch.check() >> 20);
    assert!(broker.is_alive());
}

#[test]
fn committed_offsets_asked_for_by_many_fit_the_budget() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let topic = topics::create(address, "t", 1000).id;
    let mut peer = Peer::ready(address);
    for from in (0..1000).step_by(200) {
        let commit = OffsetCommitRequest {
            group: "g".to_owned(),
            member_id: String::new(),
            member_epoch: NO_EPOCH,
            partitions: (from..from + 200)
                .map(|partition| OffsetCommitPartition {
                    topic,
                    partition: PartitionIndex(partition),
                    offset: Offset(1),
                    leader_epoch: LeaderEpoch::UNKNOWN,
                    metadata: "m".repeat(MAX_OFFSET_METADATA),
                })
                .collect(),
        };
        loop {
            let answer = peer.ask(&commit).expect("an answer");
            let errors = answer.partitions.iter().map(|it| it.error);
            let first = errors.clone().find(|it| *it != ErrorCode::None);
            match first {
                None => break,
                Some(error) => assert!(error.is_retriable(), "{error:?}"),
            }
        }
    }
    let twice = OffsetFetchRequest {
        group: "g".to_owned(),
        partitions: Some(vec![at(topic, 0); MAX_PARTITIONS_PER_REQUEST]),
    };
    let refused = peer.ask(&twice).expect("an answer");
    assert_eq!(
        refused.error,
        ErrorCode::InvalidRequest,
        "{}",
        refused.message
    );
    let watch = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let all = OffsetFetchRequest {
        group: "g".to_owned(),
        partitions: None,
    };
    // Four mebibytes each.
    let ask_often = || {
        let mut peer = Peer::ready(address);
        let asked = 16;
        for _ in 0..asked {
            peer.post(&all, &[]);
        }
        for _ in 0..asked {
            let Outcome::Answered(frame) = peer.receive() else {
                panic!("an answer");
            };
            assert!(frame.body.len() > 4_000_000, "{}", frame.body.len());
        }
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(ask_often);
        }
    });
    bystander.finish("committed offsets");
    println!(
        "committed offsets: memory at most {} MiB",
        watch.check() >> 20
    );
    assert!(broker.is_alive());
}

#[test]
fn members_that_want_much_are_refused_before_memory_is_gone() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let watch = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let mut peer = Peer::ready(address);
    let wants: Vec<String> = (0..1000).map(|number| format!("{number:0240}")).collect();
    let too_long = joined(&mut peer, &join(0, state(vec!["x".repeat(250)])));
    assert_eq!(too_long.error, ErrorCode::InvalidRequest);
    let mut taken = 0;
    let mut refused = 0;
    for member in 0..800 {
        let answer = joined(&mut peer, &join(member, state(wants.clone())));
        match answer.error {
            ErrorCode::None => taken += 1,
            error => {
                assert_eq!(error, ErrorCode::GroupLimitReached, "{}", answer.message);
                refused += 1;
            }
        }
    }
    // A quarter of a mebibyte each.
    assert!(
        taken > 10 && refused > 100,
        "{taken} taken, {refused} refused"
    );
    bystander.finish("members that want much");
    println!(
        "{taken} members: memory at most {} MiB",
        watch.check() >> 20
    );
    assert!(broker.is_alive());
}

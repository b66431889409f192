use millstream_protocol::{PartitionIndex, TopicId, messages::AssignedPartition};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    machine: Machine,
    now: Duration,
    sent: Vec<(HeartbeatId, GroupHeartbeatRequest)>,
}

impl Bench {
    fn new(instance: Option<&str>) -> Self {
        let config = Config {
            group: "g".into(),
            member_id: "m".to_owned(),
            instance_id: instance.map(str::to_owned),
            topics: vec!["t".to_owned()],
            pattern: None,
            assignor: String::new(),
            session_timeout: 15 * SECOND,
            heartbeat_interval: 3 * SECOND,
            max_poll_interval: 60 * SECOND,
            seed: 7,
        };
        Self {
            machine: Machine::new(config),
            now: SECOND,
            sent: Vec::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        for action in actions {
            if let Action::Heartbeat(id, request) = action {
                self.sent.push((id, request));
            }
        }
    }

    /// What was sent since the last look: epoch, wait, whether all was said, what is held.
    fn sent(&mut self) -> Vec<(i64, u32, Option<Vec<u32>>)> {
        let sent = self.sent.iter().map(|(_, it)| {
            let owned = it.state.as_ref().map(|state| {
                let owned = state.owned.iter();
                owned.map(|at| at.partition.0).collect()
            });
            (it.member_epoch, it.max_wait_ms, owned)
        });
        let sent = sent.collect();
        self.sent.drain(..self.sent.len().saturating_sub(1));
        sent
    }

    fn answer(&mut self, epoch: i64, partitions: Option<&[u32]>) {
        let id = self.sent.last().expect("something was asked").0;
        let response = GroupHeartbeatResponse {
            member_epoch: epoch,
            assignment: partitions.map(assignment),
            ..GroupHeartbeatResponse::default()
        };
        self.apply(Event::Answered(id, Ok(response)));
    }

    fn refuse(&mut self, error: ErrorCode) {
        let id = self.sent.last().expect("something was asked").0;
        let response = GroupHeartbeatResponse {
            error,
            ..GroupHeartbeatResponse::default()
        };
        self.apply(Event::Answered(id, Ok(response)));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.apply(Event::Ticked);
    }
}

fn assignment(partitions: &[u32]) -> Vec<AssignedTopic> {
    let partitions = partitions.iter().map(|number| AssignedPartition {
        partition: PartitionIndex(*number),
        is_new: false,
    });
    vec![AssignedTopic {
        topic: TopicId::default(),
        name: "t".to_owned(),
        partitions: partitions.collect(),
    }]
}

fn at(number: u32) -> TopicPartition {
    TopicPartition {
        topic: TopicId::default(),
        partition: PartitionIndex(number),
    }
}

/// A member of epoch 5 that holds 0 and 1.
fn member() -> Bench {
    let mut bench = Bench::new(None);
    bench.apply(Event::Polled);
    assert_eq!(bench.sent(), [(0, 3000, Some(vec![]))]);
    bench.answer(5, Some(&[0, 1]));
    let work = bench.machine.work();
    assert!(matches!(work, Ok(Work::TakeOn(5, it)) if it == assignment(&[0, 1])));
    bench.apply(Event::TakenOn(5, vec![at(0), at(1)]));
    bench.apply(Event::PollEnded);
    assert_eq!(bench.sent()[1..], [(5, 3000, None)]);
    bench
}

#[test]
fn nothing_is_sent_before_the_first_poll() {
    let mut bench = Bench::new(None);
    bench.pass(100 * SECOND);
    assert!(bench.sent.is_empty());
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn an_epoch_is_named_only_once_it_is_taken_on() {
    let mut bench = member();
    bench.answer(6, Some(&[0]));
    assert_eq!(bench.machine.leaving(), [at(1)]);
    // Still working: it lives, and does not wait for more.
    bench.pass(3 * SECOND);
    assert_eq!(bench.sent()[1..], [(5, 0, None)]);
    bench.answer(6, Some(&[0]));
    bench.pass(SECOND);
    assert_eq!(bench.sent().len(), 1, "at its own pace");
    bench.apply(Event::Polled);
    bench.apply(Event::Released(vec![at(1)]));
    bench.apply(Event::TakenOn(6, vec![at(0)]));
    assert_eq!(bench.sent()[1..], [(6, 3000, None)]);
}

#[test]
fn after_a_failure_all_is_said_and_what_was_told_is_void() {
    let mut bench = member();
    bench.answer(6, Some(&[0, 2]));
    bench.pass(3 * SECOND);
    bench.refuse(ErrorCode::CoordinatorLoading);
    bench.pass(SECOND);
    let sent = bench.sent();
    assert_eq!(sent.last(), Some(&(5, 3000, Some(vec![0, 1]))));
    assert!(matches!(bench.machine.work(), Ok(Work::Nothing)));
}

#[test]
fn who_is_given_up_drops_all_and_joins_under_another_name() {
    let mut bench = member();
    let before = bench.machine.identity().0;
    bench.refuse(ErrorCode::UnknownMemberId);
    assert!(matches!(bench.machine.work(), Ok(Work::DropAll(None))));
    bench.pass(10 * SECOND);
    assert_eq!(bench.sent().len(), 1, "not before all is let go");
    bench.apply(Event::Dropped);
    assert_eq!(bench.sent()[1..], [(0, 3000, Some(vec![]))]);
    assert_ne!(bench.machine.identity().0, before);
}

#[test]
fn a_caller_that_does_not_poll_leaves_and_is_told_why() {
    let mut bench = member();
    bench.pass(59 * SECOND);
    assert!(bench.sent.iter().all(|it| it.1.member_epoch != LEAVE_EPOCH));
    assert_eq!(bench.machine.deadline(), Some(61 * SECOND));
    bench.pass(SECOND);
    assert_eq!(bench.sent.last().unwrap().1.member_epoch, LEAVE_EPOCH);
    let Ok(Work::DropAll(Some(error))) = bench.machine.work() else {
        panic!("the caller is told");
    };
    assert!(error.to_string().contains("max_poll_interval"), "{error}");
    // A poll that waits long for records is none that is stuck.
    let mut bench = member();
    bench.apply(Event::Polled);
    bench.pass(100 * SECOND);
    assert!(matches!(bench.machine.work(), Ok(Work::Nothing)));
}

#[test]
fn closing_leaves_at_once_but_a_static_member_stays() {
    let mut bench = member();
    bench.apply(Event::Closed);
    assert_eq!(bench.sent.last().unwrap().1.member_epoch, LEAVE_EPOCH);
    assert!(!bench.machine.has_ended());
    bench.answer(LEAVE_EPOCH, None);
    assert!(bench.machine.has_ended());
    let mut bench = Bench::new(Some("i"));
    bench.apply(Event::Polled);
    bench.answer(5, Some(&[0]));
    bench.apply(Event::Closed);
    assert!(bench.machine.has_ended());
    assert!(bench.sent.iter().all(|it| it.1.member_epoch != LEAVE_EPOCH));
}

#[test]
fn what_no_retry_can_heal_is_said_on_every_poll() {
    let mut bench = member();
    bench.refuse(ErrorCode::FencedInstanceId);
    assert!(matches!(bench.machine.work(), Ok(Work::DropAll(None))));
    bench.apply(Event::Dropped);
    for _ in 0..2 {
        let error = bench.machine.work().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::FencedInstanceId));
    }
}

/// What it does not say that it holds may be given to others.
#[test]
fn who_holds_more_than_can_be_said_drops_it_where_all_must_be_said() {
    let mut bench = member();
    let many: Vec<TopicPartition> = (0..50_001).map(at).collect();
    bench.answer(6, Some(&[0]));
    bench.apply(Event::TakenOn(6, many));
    bench.refuse(ErrorCode::CoordinatorLoading);
    bench.pass(3 * SECOND);
    assert!(matches!(bench.machine.work(), Ok(Work::DropAll(None))));
    bench.apply(Event::Dropped);
    assert_eq!(bench.sent().last(), Some(&(0, 3000, Some(vec![]))));
}

use std::time::Duration;

use super::*;

fn coordinator() -> Coordinator {
    Coordinator::new(TopicPartition::default(), LeaderEpoch(1))
}

/// A token, and what it was answered with.
fn token() -> (Token, Rc<RefCell<Option<GroupHeartbeatResponse>>>) {
    let answer = Rc::new(RefCell::new(None));
    let told = Rc::clone(&answer);
    let token = Token(Box::new(move |response| {
        *told.borrow_mut() = Some(response)
    }));
    (token, answer)
}

fn has_left() -> GroupHeartbeatResponse {
    GroupHeartbeatResponse {
        member_epoch: Epoch::LEAVE.0,
        ..GroupHeartbeatResponse::default()
    }
}

#[test]
fn who_left_hears_of_it_when_that_is_durable() {
    let coordinator = coordinator();
    let leave = coordinator.appends.borrow_mut().begin();
    let (asked, answer) = token();
    coordinator.answer(asked, has_left());
    assert_eq!(*answer.borrow(), None, "a crash now would bring it back");
    coordinator.end(leave, None);
    assert_eq!(*answer.borrow(), Some(has_left()));
    let (again, at_once) = token();
    coordinator.answer(again, has_left());
    assert_eq!(*at_once.borrow(), Some(has_left()));
}

#[test]
fn an_append_that_is_refused_lets_no_answer_out_that_waits_for_an_earlier_one() {
    let coordinator = coordinator();
    let assignment = || GroupHeartbeatResponse {
        member_epoch: 5,
        assignment: Some(Vec::new()),
        ..GroupHeartbeatResponse::default()
    };
    let first = coordinator.appends.borrow_mut().begin();
    let (asked, answer) = token();
    coordinator.answer(asked, assignment());
    let commit = coordinator.appends.borrow_mut().begin();
    coordinator.end(commit, None);
    assert_eq!(*answer.borrow(), None, "the first is not durable");
    let trouble = Refusal {
        error: ErrorCode::DiskFull,
        message: String::new(),
    };
    coordinator.end(first, Some(trouble));
    let answered = answer.borrow().as_ref().map(|it| it.error);
    assert_eq!(answered, Some(ErrorCode::CoordinatorLoading));
}

#[test]
fn only_groups_with_something_due_are_looked_at() {
    let used = Rc::default();
    let coordinator = coordinator();
    let at = |seconds| Monotonic(0) + Duration::from_secs(seconds);
    for (name, timeout_ms) in [("late", 9_000), ("soon", 3_000), ("never", 0)] {
        let name: Rc<str> = name.into();
        let mut group = Group::new(
            Rc::clone(&name),
            Epoch(0),
            Rc::default(),
            GroupRecord::default(),
        );
        if timeout_ms > 0 {
            let record = crate::group::MemberRecord {
                instance_id: None,
                session_timeout_ms: timeout_ms,
            };
            group.remember("m".to_owned(), record, at(0));
        }
        let entry = Entry::new(group, Offsets::default(), coordinator.next_life(), &used);
        coordinator.insert(name, entry);
    }
    assert!(coordinator.due_by(at(2)).is_empty() && coordinator.is_alive());
    assert_eq!(coordinator.due_by(at(3)), ["soon".into()]);
    coordinator.drop_group("soon");
    assert!(coordinator.due_by(at(8)).is_empty());
    assert_eq!(coordinator.due_by(at(9)), ["late".into()]);
    coordinator.drop_group("late");
    assert!(!coordinator.is_alive());
}

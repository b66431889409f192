//! The control plane over real files, and over disks that lose what was not flushed.

use std::{fs, sync::mpsc as std_mpsc, time::Duration};

use millstream_protocol::{
    ErrorCode, LeaderEpoch, ProducerId, TopicId,
    messages::{
        AlterTopicRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
        NewTopic, TopicResult,
    },
};

use super::{worker::SNAPSHOT_EVERY_ENTRIES, *};

fn open(dir: &std::path::Path) -> (DataDir, Control, ControlThreads) {
    let dir = DataDir::open(dir).unwrap();
    let (control, threads) = start(&dir, TopicConfig::default()).unwrap();
    (dir, control, threads)
}

pub(super) fn ask(control: &Control, request: ControlRequest) -> ControlReply {
    let (reply, answer) = std_mpsc::channel();
    control
        .submit(request, move |it| reply.send(it).unwrap())
        .unwrap();
    answer
        .recv_timeout(Duration::from_secs(30))
        .expect("an answer")
}

pub(super) fn create_request(name: &str, partitions: u32) -> ControlRequest {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions,
        ..NewTopic::default()
    };
    ControlRequest::CreateTopics(CreateTopicsRequest {
        topics: vec![topic],
        validate_only: false,
    })
}

fn create(control: &Control, name: &str, partitions: u32) -> TopicResult {
    match ask(control, create_request(name, partitions)).unwrap() {
        ControlAnswer::CreateTopics(response) => response.topics[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn producer_id(control: &Control) -> ProducerId {
    match ask(control, ControlRequest::InitProducerId).unwrap() {
        ControlAnswer::InitProducerId(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn metadata_survives_restarts_and_epochs_rise() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, control, threads) = open(temp.path());
    let cluster = control.image().cluster_id;
    assert_eq!(control.image().term, 1);
    let created = create(&control, "orders", 3);
    assert_eq!(created.error, ErrorCode::None);
    let change = AlterTopicRequest {
        name: "orders".to_owned(),
        configs: vec![("durability".to_owned(), Some("buffered".to_owned()))],
        force: false,
    };
    ask(&control, ControlRequest::AlterTopic(change)).unwrap();
    let more = CreatePartitionsRequest {
        name: "orders".to_owned(),
        total: 5,
    };
    ask(&control, ControlRequest::CreatePartitions(more)).unwrap();
    let before = control.image();
    threads.stop();
    drop(dir);

    let (_dir, control, threads) = open(temp.path());
    let image = control.image();
    assert_eq!(
        (image.cluster_id, image.term, image.index),
        (cluster, 2, before.index + 1)
    );
    let topic = image.topic_named("orders").unwrap();
    assert_eq!((topic.id, topic.partitions.len()), (created.id, 5));
    assert!(
        topic
            .partitions
            .iter()
            .all(|partition| partition.leader_epoch == LeaderEpoch(1))
    );
    assert_eq!(topic.config, before.topic_named("orders").unwrap().config);
    threads.stop();
}

#[test]
fn the_image_shows_a_change_before_its_answer_comes() {
    let temp = tempfile::tempdir().unwrap();
    let (_dir, control, threads) = open(temp.path());
    let (seen, images) = std_mpsc::channel();
    control.on_image(Box::new(move |image| seen.send(image.index).unwrap()));
    let (reply, answer) = std_mpsc::channel();
    let view = control.clone();
    let look = move |_| {
        let listener_came_first = images.try_recv();
        reply
            .send((view.image().topic_named("t").is_some(), listener_came_first))
            .unwrap();
    };
    control.submit(create_request("t", 1), look).unwrap();
    let (shown, listened) = answer.recv().unwrap();
    assert!(shown);
    assert_eq!(listened, Ok(control.image_index()));
    threads.stop();
}

#[test]
fn many_requests_at_once_are_each_answered_once() {
    let temp = tempfile::tempdir().unwrap();
    let (_dir, control, threads) = open(temp.path());
    let (reply, answers) = std_mpsc::channel();
    let mut sent = 0;
    for number in 0..400 {
        // Each name twice: one of the two must lose.
        let reply = reply.clone();
        let request = create_request(&format!("t{}", number / 2), 1);
        control
            .submit(request, move |it| reply.send(it).unwrap())
            .unwrap();
        sent += 1;
    }
    drop(reply);
    let mut codes = Vec::new();
    for answer in answers {
        match answer.unwrap() {
            ControlAnswer::CreateTopics(response) => codes.push(response.topics[0].error),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(codes.len(), sent);
    assert_eq!(
        codes
            .iter()
            .filter(|code| **code == ErrorCode::None)
            .count(),
        200
    );
    assert_eq!(
        codes
            .iter()
            .filter(|code| **code == ErrorCode::TopicExists)
            .count(),
        200
    );
    assert_eq!(control.image().topic_count(), 200);
    threads.stop();
}

#[test]
fn one_topic_may_fail_while_others_succeed_and_validation_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (_dir, control, threads) = open(temp.path());
    let named = |name: &str| NewTopic {
        name: name.to_owned(),
        ..NewTopic::default()
    };
    let mut request = CreateTopicsRequest {
        topics: vec![named("good"), named("__bad"), named("also good")],
        validate_only: true,
    };
    for validate_only in [true, false] {
        request.validate_only = validate_only;
        let answer = ask(&control, ControlRequest::CreateTopics(request.clone())).unwrap();
        let ControlAnswer::CreateTopics(response) = answer else {
            panic!("{answer:?}")
        };
        let codes: Vec<_> = response.topics.iter().map(|topic| topic.error).collect();
        let refused = [
            ErrorCode::None,
            ErrorCode::NotAuthorized,
            ErrorCode::InvalidTopicName,
        ];
        assert_eq!(codes, refused);
        assert_eq!(control.image().topic_count(), usize::from(!validate_only));
    }
    threads.stop();
}

#[test]
fn a_deleted_topic_waits_to_be_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, control, threads) = open(temp.path());
    let id = create(&control, "t", 1).id;
    let delete = DeleteTopicsRequest {
        names: vec!["t".to_owned(), "nope".to_owned()],
    };
    let answer = ask(&control, ControlRequest::DeleteTopics(delete)).unwrap();
    let ControlAnswer::DeleteTopics(response) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(response.topics[0].error, ErrorCode::None);
    assert_eq!(response.topics[1].error, ErrorCode::UnknownTopic);
    let again = create(&control, "t", 1).id;
    assert_ne!(again, id);
    threads.stop();
    drop(dir);
    let (_dir, control, threads) = open(temp.path());
    assert_eq!(control.image().deleted().collect::<Vec<_>>(), [id]);
    let forget = ControlRequest::ForgetTopic(id);
    assert_eq!(
        ask(&control, forget.clone()),
        Ok(ControlAnswer::ForgetTopic)
    );
    assert!(matches!(
        ask(&control, forget),
        Err(ControlError::Refused(_))
    ));
    assert_eq!(control.image().deleted().count(), 0);
    threads.stop();
}

#[test]
fn producer_ids_are_never_handed_out_twice() {
    let temp = tempfile::tempdir().unwrap();
    let mut last = -1;
    for _ in 0..3 {
        let (_dir, control, threads) = open(temp.path());
        let index = control.image_index();
        for _ in 0..batch::PRODUCER_ID_BLOCK + 5 {
            let ProducerId(id) = producer_id(&control);
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert_eq!(control.image_index(), index + 2, "one entry a block");
        threads.stop();
    }
}

#[test]
fn snapshots_keep_the_log_short() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, control, threads) = open(temp.path());
    let rounds = usize::try_from(SNAPSHOT_EVERY_ENTRIES).unwrap() / 2 + 10;
    create(&control, "kept", 2);
    for round in 0..rounds {
        let change = AlterTopicRequest {
            name: "kept".to_owned(),
            configs: vec![("segment.ms".to_owned(), Some(format!("{}s", round + 1)))],
            force: false,
        };
        let again = change.clone();
        control
            .submit(ControlRequest::AlterTopic(change), |_| {})
            .unwrap();
        ask(&control, ControlRequest::AlterTopic(again)).unwrap();
    }
    let before = control.image();
    threads.stop();
    let mut log = RedbLog::open(&dir, fresh_identity()).unwrap();
    let stored = log.load().unwrap();
    assert!(stored.snapshot.is_some());
    assert!(stored.entries.len() < usize::try_from(SNAPSHOT_EVERY_ENTRIES).unwrap());
    assert_eq!(
        stored.entries.last().map(|entry| entry.index),
        Some(before.index)
    );
    drop(log);
    drop(dir);
    let (_dir, control, threads) = open(temp.path());
    let (image, topic) = (control.image(), before.topic_named("kept").unwrap());
    assert_eq!(image.topic_named("kept").unwrap().config, topic.config);
    assert_eq!(image.index, before.index + 1);
    threads.stop();
}

#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, control, threads) = open(temp.path());
    create(&control, "t", 1);
    threads.stop();
    let path = dir.metadata();
    let good = fs::read(&path).unwrap();
    let mut noise = good.clone();
    for byte in noise.iter_mut().skip(64).step_by(97) {
        *byte ^= 0x5a;
    }
    let cases = [
        ("truncated", good[..100].to_vec()),
        ("text", vec![b'x'; 8192]),
        ("noise", noise),
    ];
    for (what, damaged) in cases {
        fs::write(&path, &damaged).unwrap();
        let error = start(&dir, TopicConfig::default()).unwrap_err();
        assert!(
            matches!(&error, StartError::Log(MetadataLogError::Damaged { .. })),
            "{what}: {error}"
        );
        assert!(
            error.to_string().contains("metadata.redb is damaged"),
            "{what}: {error}"
        );
        assert!(fs::metadata(&path).unwrap().len() > 0, "{what}");
    }
    fs::write(&path, &good).unwrap();
    let (control, threads) = start(&dir, TopicConfig::default()).unwrap();
    assert!(control.image().topic_named("t").is_some());
    threads.stop();
}

#[test]
fn a_first_start_that_was_cut_short_begins_again() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap());
    fs::write(temp.path().join("metadata.redb.new"), b"half a file").unwrap();
    let (_dir, control, threads) = open(temp.path());
    assert_eq!(create(&control, "t", 1).error, ErrorCode::None);
    threads.stop();
}

#[test]
fn a_newer_feature_level_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let newer = Identity {
        feature_level: FEATURE_LEVEL + 1,
        ..fresh_identity()
    };
    drop(RedbLog::open(&dir, newer).unwrap());
    let error = start(&dir, TopicConfig::default()).unwrap_err().to_string();
    assert!(error.contains("feature level 2"), "{error}");
}

#[test]
fn after_the_stop_requests_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (_dir, control, threads) = open(temp.path());
    threads.stop();
    let refused = control.submit(create_request("t", 1), |_| panic!("no answer is due"));
    assert_eq!(refused, Err(Overloaded));
}

/// A log whose disk fails from some write on, or is full for a while.
struct FailingLog {
    inner: RedbLog,
    appends_left: u32,
    full_for: u32,
}

impl MetadataLog for FailingLog {
    fn load(&mut self) -> Result<Stored, MetadataLogError> {
        self.inner.load()
    }

    fn save_vote(&mut self, vote: Vote) -> Result<(), MetadataLogError> {
        self.inner.save_vote(vote)
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), MetadataLogError> {
        if self.full_for > 0 && !entries.iter().all(|entry| entry.command.may_use_reserve()) {
            self.full_for -= 1;
            return Err(MetadataLogError::Full { path: "m".into() });
        }
        if self.appends_left == 0 {
            let reason = "input/output error".to_owned();
            return Err(MetadataLogError::Disk {
                path: "m".into(),
                reason,
            });
        }
        self.appends_left -= 1;
        self.inner.append(entries)
    }

    fn save_snapshot(&mut self, index: u64, snapshot: &[u8]) -> Result<(), MetadataLogError> {
        self.inner.save_snapshot(index, snapshot)
    }
}

#[test]
fn a_failed_write_latches_and_acknowledges_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let inner = RedbLog::open(&dir, fresh_identity()).unwrap();
    let log = FailingLog {
        inner,
        appends_left: 2,
        full_for: 0,
    };
    let (control, threads) = start_over(log, TopicConfig::default()).unwrap();
    assert_eq!(create(&control, "a", 1).error, ErrorCode::None);
    let index = control.image_index();
    for _ in 0..2 {
        let error = ask(&control, create_request("b", 1)).unwrap_err();
        assert_eq!(ErrorCode::from(&error), ErrorCode::StorageError);
        assert!(error.to_string().contains("input/output error"), "{error}");
    }
    assert!(!control.is_healthy());
    assert_eq!(control.image_index(), index);
    assert!(control.image().topic_named("b").is_none());
    threads.stop();
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let inner = RedbLog::open(&dir, fresh_identity()).unwrap();
    let log = FailingLog {
        inner,
        appends_left: u32::MAX,
        full_for: 1,
    };
    let (control, threads) = start_over(log, TopicConfig::default()).unwrap();
    let error = ask(&control, create_request("a", 1)).unwrap_err();
    assert_eq!(ErrorCode::from(&error), ErrorCode::DiskFull);
    assert!(control.is_healthy());
    assert_eq!(create(&control, "a", 1).error, ErrorCode::None);
    threads.stop();
}

#[test]
fn a_refused_entry_in_the_log_is_refused_at_every_replay() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = RedbLog::open(&dir, fresh_identity()).unwrap();
    log.save_vote(Vote {
        term: 1,
        voted_for: BrokerId(0),
    })
    .unwrap();
    let command = Command::ForgetTopic {
        id: TopicId::default(),
    };
    log.append(&[Entry {
        term: 1,
        index: 1,
        command,
    }])
    .unwrap();
    let (control, threads) = start_over(log, TopicConfig::default()).unwrap();
    assert_eq!((control.image().index, control.image().term), (2, 2));
    threads.stop();
}

//! What clients may make the broker hold.

use super::*;

/// Replies that wait for an earlier one take memory as those do that wait to be sent.
#[test]
fn replies_held_for_their_order_are_bounded() {
    const COUNT: usize = 100;
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let hello = HandshakeRequest {
            ordered_replies: true,
            ..HandshakeRequest::default()
        };
        send(&stream, &frame(&hello)).await;
        receive(&stream).await;
        send(&stream, &frame(&DescribeClusterRequest {})).await;
        send(&stream, &frame(&MetadataRequest::default()).repeat(COUNT)).await;
        io.sleep(Duration::from_secs(5)).await;
        let refused = stub.refused.get();
        assert!(refused < 30, "{refused} replies of 60 KB are held");
        let (_, first) = stub.asked.borrow_mut().pop().expect("it was asked first");
        first.refuse(ErrorCode::NotLeader, "the first");
        assert!(receive(&stream).await.1.len() < 1_000);
        for _ in 0..COUNT {
            assert!(receive(&stream).await.1.len() > 60_000);
        }
        assert_eq!(stub.buffers.heads.used(), 0);
    });
}

/// A little for each, and a limit for all together.
#[test]
fn replies_that_nobody_reads_are_bounded() {
    const CONNECTIONS: usize = 30;
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = connected(&io, &stub).await;
            let asked = frame(&MetadataRequest::default()).repeat(100);
            send(
                &stream,
                &[frame(&HandshakeRequest::default()), asked].concat(),
            )
            .await;
            streams.push(stream);
        }
        io.sleep(Duration::from_millis(500)).await;
        let used = stub.buffers.heads.used();
        let most = stub.buffers.heads.total() + CONNECTIONS * (60_000 + (16 << 10));
        assert!(used <= most, "{used} bytes of replies, not {most}");
        // Nobody reads: those who hold more than a little are cut off, as all of them hold too much.
        io.sleep(Duration::from_secs(10)).await;
        assert!(!stub.buffers.heads.is_over());
    });
}

/// Greets and asks so often that the broker stops reading in the middle, with a medium buffer full.
async fn ask_too_much(io: &SimIo, stub: &Rc<Stub>, asked: &[u8]) -> Rc<SimStream> {
    let stream = Rc::new(connected(io, stub).await);
    let bytes = [frame(&HandshakeRequest::default()), asked.to_vec()].concat();
    let sending = Rc::clone(&stream);
    io.spawn(TaskClass::Foreground, async move {
        // It may be cut off meanwhile.
        let mut bytes = &bytes[..];
        while let Ok(sent) = sending.send(&[IoSlice::new(bytes)]).await
            && sent < bytes.len()
        {
            bytes = &bytes[sent..];
        }
    });
    io.sleep(Duration::from_millis(100)).await;
    stream
}

/// Answers after an hour, or when it should be answered at once.
async fn wait_long(io: SimIo, reply_to: ReplyTo<SimIo>) {
    {
        let gone = pin!(reply_to.gone());
        select(gone, pin!(io.sleep(Duration::from_secs(3600)))).await;
    }
    reply_to.refuse(ErrorCode::NotLeader, "no more waiting");
}

/// More requests than one connection may have unanswered.
const MANY: usize = 12_000;
/// More connections than there are medium buffers.
const HOLDERS: usize = 8;

/// Clients that wait for records with more requests behind: what they hold is given back when others
/// wait for it, however long they wanted to wait.
#[test]
fn requests_that_wait_give_way_to_who_needs_their_memory() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let asked = frame(&ProduceRequest::default()).repeat(MANY);
        for _ in 0..HOLDERS {
            let stream = ask_too_much(&io, &stub, &asked).await;
            io.spawn(TaskClass::Foreground, async move {
                receive_all(&stream, usize::MAX).await;
            });
        }
        let (own, waiting) = (io.clone(), Rc::clone(&stub));
        io.spawn(TaskClass::Foreground, async move {
            loop {
                let asked = || !waiting.asked.borrow().is_empty();
                waiting.served.wait_until(asked).await;
                for (request, reply_to) in waiting.asked.take() {
                    if matches!(request, Request::DescribePartitions(_)) {
                        waiting.large.set(true);
                    }
                    own.spawn(TaskClass::Foreground, wait_long(own.clone(), reply_to));
                }
            }
        });
        let large = DescribePartitionsRequest {
            partitions: vec![TopicPartition::default(); 2_000],
        };
        let begun = io.now();
        let _stream = ask_too_much(&io, &stub, &frame(&large)).await;
        while !stub.large.get() {
            io.sleep(Duration::from_millis(100)).await;
        }
        let passed = io.now().since(begun);
        assert!(passed < Duration::from_secs(30), "{passed:?}");
    });
}

/// Clients that do not read their replies hold what was received behind their requests.
#[test]
fn clients_that_do_not_read_give_way_to_who_needs_their_memory() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let asked = frame(&MetadataRequest::default()).repeat(MANY);
        for _ in 0..HOLDERS {
            let stream = ask_too_much(&io, &stub, &asked).await;
            // Never read, never closed.
            std::mem::forget(stream);
        }
        let begun = io.now();
        let stream = ask_too_much(&io, &stub, &asked).await;
        receive_all(&stream, 1000).await;
        let passed = io.now().since(begun);
        assert!(passed < Duration::from_secs(20), "{passed:?}");
    });
}

/// Large requests that wait for their answer take memory from all connections together.
#[test]
fn large_requests_without_answer_are_bounded() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let request = DescribePartitionsRequest {
            partitions: vec![TopicPartition::default(); 5_000],
        };
        let mut streams = Vec::new();
        for _ in 0..20 {
            let stream = connected(&io, &stub).await;
            let bytes = [frame(&HandshakeRequest::default()), frame(&request)].concat();
            send(&stream, &bytes).await;
            streams.push(stream);
        }
        io.sleep(Duration::from_secs(1)).await;
        let size = frame(&request).len();
        let served = stub.asked.borrow().len();
        let most = stub.buffers.asked.total() / size;
        assert!((1..=most).contains(&served), "{served} of {size} bytes");
        for stream in &streams[served..] {
            receive(stream).await;
            let error: ErrorReply = decode_body(&receive(stream).await.1).expect("an error");
            assert_eq!(error.error, ErrorCode::Overloaded);
        }
        stub.asked.take();
        assert_eq!(stub.buffers.asked.used(), 0);
    });
}

const PRODUCE_SIZE: u32 = 50_000;

/// While the disk is full only produces wait, in their order, and no more of them than fit.
#[test]
fn what_follows_a_produce_does_not_wait_with_it() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        stub.full.set(true);
        let stream = Rc::new(connected(&io, &stub).await);
        let metadata = frame(&MetadataRequest::default());
        send(&stream, &frame(&HandshakeRequest::default())).await;
        receive(&stream).await;
        for number in 0..3 {
            send(&stream, &produce(number, PRODUCE_SIZE)).await;
        }
        send(&stream, &metadata).await;
        assert!(receive(&stream).await.1.len() > 60_000);
        assert!(stub.asked.borrow().is_empty());
        // More than may be set aside: the rest stays where it is, and so does what follows.
        let sending = Rc::clone(&stream);
        io.spawn(TaskClass::Foreground, async move {
            for number in 3..40 {
                send(&sending, &produce(number, PRODUCE_SIZE)).await;
            }
            send(&sending, &frame(&MetadataRequest::default())).await;
        });
        io.sleep(Duration::from_secs(10)).await;
        let aside = stub.buffers.aside.used();
        assert!((1..=stub.buffers.aside.total()).contains(&aside), "{aside}");
        assert_eq!(stub.refused.get(), 1);
        stub.full.set(false);
        stub.changed.raise();
        assert!(receive(&stream).await.1.len() > 60_000);
        let served: Vec<u32> = stub
            .asked
            .take()
            .into_iter()
            .map(|(request, _)| match request {
                Request::Produce(request) => request.partitions[0].partition.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(served, (0..40).collect::<Vec<u32>>());
        assert_eq!(stub.buffers.aside.used(), 0);
    });
}

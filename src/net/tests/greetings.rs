//! How connections begin, and move.

use super::*;

fn greeting(wanted_shard: u32) -> Vec<u8> {
    frame(&HandshakeRequest {
        wanted_shard,
        auth_data: vec![7; 50_000],
        ..HandshakeRequest::default()
    })
}

/// What lies behind a greeting would need memory on its way to another shard and there, without
/// limit: it stays in the socket.
#[test]
fn a_connection_moves_with_nothing_but_its_greeting() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let behind: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        send(&stream, &[greeting(1), behind.clone()].concat()).await;
        stub.served
            .wait_until(|| !stub.moved.borrow().is_empty())
            .await;
        let adopted = stub.moved.borrow_mut().pop().expect("it moved");
        assert_eq!(adopted.request.auth_data.len(), 0);
        let there = io.attach(adopted.connection).expect("it goes on");
        assert_eq!(receive_exactly(&there, behind.len()).await, behind);
        assert_eq!(stub.buffers.used(), 0);
    });
}

/// Requests behind a greeting are served where the connection goes on.
#[test]
fn what_lies_behind_a_greeting_is_served_after_it() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let asked = frame(&DescribeClusterRequest {});
        send(&stream, &[greeting(1), asked.repeat(3)].concat()).await;
        stub.served
            .wait_until(|| !stub.moved.borrow().is_empty())
            .await;
        let adopted = stub.moved.borrow_mut().pop().expect("it moved");
        let (own, there) = (io.clone(), Rc::clone(&stub));
        io.spawn(TaskClass::Foreground, async move {
            let served = serve_adopted(own, there, adopted).await;
            served.expect("it can be used");
        });
        stub.served
            .wait_until(|| stub.asked.borrow().len() == 3)
            .await;
        assert_eq!(receive(&stream).await.0.api, HandshakeRequest::API as u16);
        for (_, reply_to) in stub.asked.take() {
            reply_to.refuse(ErrorCode::NotLeader, "as the test wants it");
        }
        for _ in 0..3 {
            let (header, body) = receive(&stream).await;
            assert!(header.flags.contains(FrameFlags::ERROR));
            let error: ErrorReply = decode_body(&body).expect("an error reply");
            assert_eq!(error.error, ErrorCode::NotLeader);
        }
        drop(stream);
        stub.served.wait_until(|| stub.open.get() == 0).await;
        io.sleep(Duration::from_secs(1)).await;
        assert_eq!(stub.buffers.used(), 0);
    });
}

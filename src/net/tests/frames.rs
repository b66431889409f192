//! Frames as they come, and connections as they wait and end.

use super::*;

/// Ten thousand of them wait at once, and most of them for ever.
#[test]
fn a_connection_that_waits_is_small() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let size = size_of_val(&serve(io, stub, stream));
        assert!(size <= 2_560, "{size} bytes");
    });
}

/// Whoever has done and does not take what is owed still has a socket here: it counts, or descriptors
/// that are left for the logs would go to such clients.
#[test]
fn a_connection_counts_until_everything_is_sent() {
    const COUNT: usize = 4;
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let mut bad = frame(&MetadataRequest::default());
        bad[..4].fill(0);
        let asked = frame(&MetadataRequest::default()).repeat(COUNT);
        send(
            &stream,
            &[frame(&HandshakeRequest::default()), asked, bad].concat(),
        )
        .await;
        io.sleep(Duration::from_millis(200)).await;
        assert!(stub.buffers.heads.used() > 100_000);
        assert_eq!(stub.open.get(), 1);
        receive_all(&stream, 1 + COUNT).await;
        assert_eq!(stream.receive(&mut [0]).await.expect("an end"), 0);
        stub.served.wait_until(|| stub.open.get() == 0).await;
    });
}

/// Frames of any size, in pieces of any size, from more clients than there is memory for at once.
#[test]
fn frames_arrive_whole_however_they_are_cut() {
    const CLIENTS: u32 = 12;
    const FRAMES: u32 = 15;
    for seed in 0..4 {
        Sim::new(seed).run(|io| async move {
            let stub = Stub::new();
            for client in 0..CLIENTS {
                let stream = connected(&io, &stub).await;
                let own = io.clone();
                let mut random = Random::new(seed * 100 + u64::from(client));
                io.spawn(TaskClass::Foreground, async move {
                    send(&stream, &frame(&HandshakeRequest::default())).await;
                    for number in 0..FRAMES {
                        let most = [100, 20_000, 300_000, 900_000][random.index(4)];
                        let size = u32::try_from(random.index(most)).expect("small");
                        let bytes = produce(number, size);
                        let mut rest = &bytes[..];
                        while !rest.is_empty() {
                            let most = [1, 30, 5_000, 500_000][random.index(4)];
                            let (piece, tail) =
                                rest.split_at(rest.len().min(1 + random.index(most)));
                            send(&stream, piece).await;
                            rest = tail;
                            if random.chance(10) {
                                own.sleep(Duration::from_micros(300)).await;
                            }
                        }
                    }
                    receive(&stream).await;
                });
            }
            let all = (CLIENTS * FRAMES) as usize;
            let begun = io.now();
            while stub.asked.borrow().len() < all {
                io.sleep(Duration::from_millis(10)).await;
                let passed = io.now().since(begun);
                let served = stub.asked.borrow().len();
                assert!(
                    passed < Duration::from_secs(60),
                    "{served} of {all}: {:?}",
                    stub.reasons.borrow()
                );
            }
        });
    }
}

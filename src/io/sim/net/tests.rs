//! The simulated network: what only a simulation can do to connections.

use std::{
    io::{ErrorKind, IoSlice},
    time::Duration,
};

use crate::io::{
    Clock, Listener, Net, Stream, TaskClass, Tasks,
    sim::{Sim, SimDisk, SimIo, SimStream},
};

/// A connection from node 1 to a listener of node 0.
async fn across(io: &SimIo, other: &SimIo) -> (SimStream, SimStream) {
    let listener = io.listen("10.0.0.1:7400".parse().unwrap()).await.unwrap();
    let client = other
        .connect("10.0.0.1:7400".parse().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

#[test]
fn a_blocked_link_delays_and_a_reset_ends() {
    Sim::new(1).run(|io| async move {
        let other = io.node(1, &SimDisk::new());
        let (client, server) = across(&io, &other).await;
        io.sim_net().block(0, 1);
        client.send(&[IoSlice::new(b"x")]).await.unwrap();
        io.sleep(Duration::from_secs(10)).await;
        assert_eq!(server.try_receive(&mut [0; 4]).unwrap(), None);
        let _listener = io.listen("10.0.0.1:1".parse().unwrap()).await.unwrap();
        let error = other
            .connect("10.0.0.1:1".parse().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        io.sim_net().unblock_all();
        assert_eq!(server.receive(&mut [0; 4]).await.unwrap(), 1);
        io.sim_net().reset_connections(1);
        let error = server.receive(&mut [0; 4]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(client.send(&[IoSlice::new(b"x")]).await.is_err());
        drop((client, server));
        assert_eq!(io.sim_net().connection_count(), 0);
    });
}

#[test]
fn a_killed_node_ends_its_connections() {
    Sim::new(1).run(|io| async move {
        let other = io.node(1, &SimDisk::new());
        let (client, server) = across(&io, &other).await;
        other.spawn(TaskClass::Foreground, async move {
            let _ = client.receive(&mut [0; 4]).await;
        });
        io.sleep(Duration::from_secs(1)).await;
        other.kill();
        assert_eq!(server.receive(&mut [0; 4]).await.unwrap(), 0);
    });
}

#[test]
fn the_network_follows_the_seed() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        let pieces = sim.run(|io| async move {
            let other = io.node(1, &SimDisk::new());
            let (client, server) = across(&io, &other).await;
            other.spawn(TaskClass::Foreground, async move {
                let mut left = 10_000;
                while left > 0 {
                    left -= client
                        .send(&[IoSlice::new(&[7; 10_000][..left])])
                        .await
                        .unwrap();
                }
            });
            let mut pieces = Vec::new();
            while pieces.iter().sum::<usize>() < 10_000 {
                pieces.push(server.receive(&mut [0; 4_000]).await.unwrap());
            }
            pieces
        });
        (pieces, sim.trace_hash())
    };
    assert_eq!(run(3), run(3));
    let different: std::collections::BTreeSet<_> = (0..20).map(run).collect();
    assert_eq!(different.len(), 20);
    assert!(
        different.iter().any(|(pieces, _)| pieces.len() > 5),
        "bytes come in pieces"
    );
}

//! Rules of the network.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{ErrorKind, IoSlice},
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use crate::io::{Io, Listener, Stream, TaskClass};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Two ends of one connection.
async fn pair<I: Io>(io: &I) -> (I::Stream, I::Stream) {
    let listener = io.listen(loopback()).await.unwrap();
    let client = io.connect(listener.local_address().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

async fn send_all(stream: &impl Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = stream.send(&[IoSlice::new(bytes)]).await.unwrap();
        assert!(count > 0);
        bytes = &bytes[count..];
    }
}

async fn receive_exactly(stream: &impl Stream, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        let count = stream.receive(&mut bytes[filled..]).await.unwrap();
        assert!(count > 0, "the stream ended after {filled} of {size} bytes");
        filled += count;
    }
    bytes
}

fn pattern(size: usize, salt: usize) -> Vec<u8> {
    (0..size)
        .map(|index| u8::try_from((index * 31 + salt) % 251).unwrap())
        .collect()
}

pub async fn bytes_cross_in_order_both_ways_at_once<I: Io>(io: I, _directory: PathBuf) {
    const SIZE: usize = 3_000_000;
    let (client, server) = pair(&io).await;
    let (client, server) = (Rc::new(client), Rc::new(server));
    for (stream, salt) in [(Rc::clone(&client), 1), (Rc::clone(&server), 2)] {
        io.spawn(TaskClass::Foreground, async move {
            send_all(&*stream, &pattern(SIZE, salt)).await;
        });
    }
    assert!(receive_exactly(&*client, SIZE).await == pattern(SIZE, 2));
    assert!(receive_exactly(&*server, SIZE).await == pattern(SIZE, 1));
    assert!(client.peer_address().unwrap().ip().is_loopback());
}

pub async fn slices_are_sent_in_order<I: Io>(io: I, _directory: PathBuf) {
    let (client, server) = pair(&io).await;
    let all = pattern(10_000, 0);
    let mut sent = 0;
    while sent < all.len() {
        let rest = &all[sent..];
        let third = rest.len().div_ceil(3);
        let slices: Vec<IoSlice<'_>> = rest.chunks(third).map(IoSlice::new).collect();
        sent += client.send(&slices).await.unwrap();
    }
    assert!(receive_exactly(&server, all.len()).await == all);
}

pub async fn shutdown_ends_both_sides<I: Io>(io: I, _directory: PathBuf) {
    let (client, server) = pair(&io).await;
    let client = Rc::new(client);
    let (ended, reader) = (Rc::new(RefCell::new(None)), Rc::clone(&client));
    let result = Rc::clone(&ended);
    io.spawn(TaskClass::Foreground, async move {
        let count = reader.receive(&mut [0; 16]).await.unwrap();
        *result.borrow_mut() = Some(count);
    });
    send_all(&*client, b"last words").await;
    io.sleep(Duration::from_millis(5)).await;
    client.shutdown();
    assert_eq!(receive_exactly(&server, 10).await, b"last words");
    server.readable().await.unwrap();
    assert_eq!(server.receive(&mut [0; 16]).await.unwrap(), 0);
    // The reader that was already waiting is told as well.
    while ended.borrow().is_none() {
        io.sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*ended.borrow(), Some(0));
    assert!(client.send(&[IoSlice::new(b"more")]).await.is_err());
}

pub async fn dropping_a_stream_ends_the_other_side<I: Io>(io: I, _directory: PathBuf) {
    let (client, server) = pair(&io).await;
    send_all(&client, b"bye").await;
    drop(client);
    assert_eq!(receive_exactly(&server, 3).await, b"bye");
    assert_eq!(server.receive(&mut [0; 16]).await.unwrap(), 0);
    // Sooner or later sending is refused too, and never kills the process.
    loop {
        if server.send(&[IoSlice::new(&[0; 4096])]).await.is_err() {
            break;
        }
        io.sleep(Duration::from_millis(1)).await;
    }
}

pub async fn nobody_listening_refuses<I: Io>(io: I, _directory: PathBuf) {
    let listener = io.listen(loopback()).await.unwrap();
    let address = listener.local_address().unwrap();
    assert_ne!(address.port(), 0);
    drop(listener);
    let error = io.connect(address).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // The address is free again at once.
    let listener = io.listen(address).await.unwrap();
    assert_eq!(listener.local_address().unwrap(), address);
}

pub async fn a_dropped_receive_loses_nothing<I: Io>(io: I, _directory: PathBuf) {
    let (client, server) = pair(&io).await;
    let sent = pattern(5_000, 3);
    let mut received = Vec::new();
    for piece in sent.chunks(100) {
        {
            // Polled once, with nothing there yet, and dropped.
            let mut small = [0; 7];
            let mut receive = pin!(server.receive(&mut small));
            let polled = poll_fn(|context| Poll::Ready(receive.as_mut().poll(context))).await;
            assert!(polled.is_pending());
        }
        send_all(&client, piece).await;
        received.extend(receive_exactly(&server, piece.len()).await);
    }
    assert!(received == sent);
}

pub async fn trying_to_receive_does_not_wait<I: Io>(io: I, _directory: PathBuf) {
    let (client, server) = pair(&io).await;
    let mut buffer = [0; 16];
    assert_eq!(server.try_receive(&mut buffer).unwrap(), None);
    send_all(&client, b"x").await;
    server.readable().await.unwrap();
    assert_eq!(server.try_receive(&mut buffer).unwrap(), Some(1));
    assert_eq!(server.try_receive(&mut buffer).unwrap(), None);
    client.shutdown();
    server.readable().await.unwrap();
    assert_eq!(server.try_receive(&mut buffer).unwrap(), Some(0));
}

pub async fn a_detached_connection_goes_on<I: Io>(io: I, _directory: PathBuf) {
    let (client, server) = pair(&io).await;
    send_all(&client, b"before").await;
    let peer = server.peer_address().unwrap();
    let detached = server.detach();
    send_all(&client, b"during").await;
    let server = io.attach(detached).unwrap();
    assert_eq!(server.peer_address().unwrap(), peer);
    send_all(&client, b"after!").await;
    assert_eq!(receive_exactly(&server, 18).await, b"beforeduringafter!");
    // Dropped on the way, it closes.
    drop(server.detach());
    assert_eq!(client.receive(&mut [0; 4]).await.unwrap(), 0);
}

pub async fn many_connections_are_accepted_and_dropped<I: Io>(io: I, _directory: PathBuf) {
    const COUNT: usize = 200;
    let listener = io.listen(loopback()).await.unwrap();
    let address = listener.local_address().unwrap();
    let accepted = Rc::new(RefCell::new(Vec::new()));
    let streams = Rc::clone(&accepted);
    io.spawn(TaskClass::Foreground, async move {
        for _ in 0..COUNT {
            let (stream, _) = listener.accept().await.unwrap();
            streams.borrow_mut().push(stream);
        }
    });
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        clients.push(io.connect(address).await.unwrap());
    }
    while accepted.borrow().len() < COUNT {
        io.sleep(Duration::from_millis(1)).await;
    }
    drop(clients);
    let streams = accepted.take();
    for stream in &streams {
        assert_eq!(stream.receive(&mut [0; 4]).await.unwrap(), 0);
    }
}

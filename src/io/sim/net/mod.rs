//! A network in memory: bytes take time, arrive in pieces of any size, and connections can be cut.

mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{SimIo, executor::Executor};
use crate::io::{Listener, Net, Stream};
use state::{Connection, ListenerState, Pipe};

pub use state::SimNet;

/// Connections that nobody has accepted yet, per listener.
const BACKLOG_COUNT: usize = 1024;
/// How long a connection attempt over a blocked link takes to fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes on their way or unread in one direction; more must wait.
const WINDOW_SIZE: usize = 128 * 1024;

impl Net for SimIo {
    type Listener = SimListener;
    type Stream = SimStream;
    type Detached = SimDetached;

    async fn listen(&self, mut address: SocketAddr) -> io::Result<SimListener> {
        let mut state = self.net.lock();
        if address.port() == 0 {
            address.set_port(state.port());
        }
        let id = state.id();
        let listener = ListenerState {
            node: self.node,
            address,
            backlog: VecDeque::new(),
            waiting: Vec::new(),
        };
        state.listeners.insert(id, listener);
        Ok(SimListener {
            executor: Rc::clone(&self.executor),
            net: self.net.clone(),
            id,
            address,
        })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SimStream> {
        let (low, high) = self.net.lock().latency;
        self.executor.sleep(self.executor.between(low, high)).await;
        let reachable = self.net.lock().reachable(address);
        if reachable.is_empty() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let chosen = reachable[self.executor.random(|random| random.index(reachable.len()))];
        let server = self.net.lock().listeners[&chosen].node;
        if self.net.lock().is_blocked([self.node, server]) {
            self.executor.sleep(CONNECT_TIMEOUT).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut state = self.net.lock();
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), state.port());
        let id = state.id();
        let Some(listener) = state.listeners.get_mut(&chosen) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        if listener.backlog.len() >= BACKLOG_COUNT {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        listener.backlog.push_back((id, local));
        listener.waiting.drain(..).for_each(Waker::wake);
        let connection = Connection {
            nodes: [self.node, server],
            addresses: [local, address],
            pipes: [Pipe::default(), Pipe::default()],
            reset: false,
            held: [true, true],
        };
        state.connections.insert(id, connection);
        drop(state);
        let end = SimDetached {
            net: self.net.clone(),
            id,
            side: 0,
        };
        self.attach(end)
    }

    fn attach(&self, connection: SimDetached) -> io::Result<SimStream> {
        Ok(SimStream {
            executor: Rc::clone(&self.executor),
            end: connection,
        })
    }
}

/// A listener of the simulated network.
pub struct SimListener {
    executor: Rc<Executor>,
    net: SimNet,
    id: u64,
    address: SocketAddr,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let (id, peer) = poll_fn(|context| {
            let mut state = self.net.lock();
            let listener = state
                .listeners
                .get_mut(&self.id)
                .expect("listens until it is dropped");
            if let Some(next) = listener.backlog.pop_front() {
                return Poll::Ready(next);
            }
            listener.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
        let end = SimDetached {
            net: self.net.clone(),
            id,
            side: 1,
        };
        Ok((
            SimStream {
                executor: Rc::clone(&self.executor),
                end,
            },
            peer,
        ))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        let listener = state.listeners.remove(&self.id);
        for (id, _) in listener.into_iter().flat_map(|listener| listener.backlog) {
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.reset();
            }
            state.release(id, 1);
        }
    }
}

/// One end of a connection, owned; dropping it closes.
pub struct SimDetached {
    net: SimNet,
    id: u64,
    side: usize,
}

impl Drop for SimDetached {
    fn drop(&mut self) {
        self.net.lock().release(self.id, self.side);
    }
}

impl SimDetached {
    fn with<T>(&self, act: impl FnOnce(&mut Connection, bool) -> T) -> T {
        let mut state = self.net.lock();
        let nodes = state.connections[&self.id].nodes;
        let blocked = state.is_blocked(nodes);
        act(
            state
                .connections
                .get_mut(&self.id)
                .expect("held by this end"),
            blocked,
        )
    }
}

/// A connection of the simulated network.
pub struct SimStream {
    executor: Rc<Executor>,
    end: SimDetached,
}

/// What a reader finds.
enum Incoming {
    /// So many bytes, or the end if none.
    Ready(usize),
    /// Nothing yet; the next piece arrives then, if one is on its way.
    Later(Option<u64>),
}

impl SimStream {
    /// Looks at what has arrived, and leaves a waker if nothing has.
    fn look(&self, context: &mut Context<'_>) -> io::Result<Incoming> {
        let now_ns = self.executor.now_ns();
        let side = self.end.side;
        self.end.with(|connection, blocked| {
            if connection.reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let pipe = &mut connection.pipes[1 - side];
            if !blocked {
                pipe.deliver(now_ns);
            }
            if !pipe.arrived.is_empty() {
                return Ok(Incoming::Ready(pipe.arrived.len()));
            }
            if pipe.deaf || (pipe.finished && pipe.transit.is_empty() && !blocked) {
                return Ok(Incoming::Ready(0));
            }
            pipe.readers.push(context.waker().clone());
            let arrival = pipe.transit.front().map(|(arrival_ns, _)| *arrival_ns);
            Ok(Incoming::Later(arrival.filter(|_| !blocked)))
        })
    }

    /// Waits for bytes or the end; how many bytes there are.
    async fn incoming(&self) -> io::Result<usize> {
        loop {
            let mut arrival_ns = None;
            let found = poll_fn(|context| match self.look(context) {
                Ok(Incoming::Ready(count)) => Poll::Ready(Ok(Some(count))),
                Ok(Incoming::Later(Some(at))) => {
                    arrival_ns = Some(at);
                    Poll::Ready(Ok(None))
                }
                Ok(Incoming::Later(None)) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            })
            .await?;
            if let Some(count) = found {
                return Ok(count);
            }
            let wait_ns = arrival_ns
                .unwrap_or(0)
                .saturating_sub(self.executor.now_ns());
            let mut sleep = pin!(self.executor.sleep(Duration::from_nanos(wait_ns)));
            poll_fn(|context| {
                // Whichever comes first: the time, or a reset, a shutdown, another piece.
                if sleep.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                match self.look(context) {
                    Ok(Incoming::Later(_)) => Poll::Pending,
                    Ok(Incoming::Ready(_)) | Err(_) => Poll::Ready(()),
                }
            })
            .await;
        }
    }

    /// Takes some of the bytes that have arrived: all that fit, or fewer as the seed has it.
    fn take(&self, buffer: &mut [u8], available: usize) -> usize {
        let most = available.min(buffer.len());
        if most == 0 {
            return 0;
        }
        let some = 1 + self.executor.random(|random| random.index(most));
        let count = if self.executor.random(|random| random.chance(50)) {
            most
        } else {
            some
        };
        let side = self.end.side;
        self.end.with(|connection, _| {
            let pipe = &mut connection.pipes[1 - side];
            for (slot, byte) in buffer.iter_mut().zip(pipe.arrived.drain(..count)) {
                *slot = byte;
            }
            pipe.size -= count;
            pipe.writers.drain(..).for_each(Waker::wake);
        });
        self.executor.note(self.end.id ^ ((count as u64) << 32));
        count
    }

    /// Puts some bytes on their way; `None` while the window is full.
    fn put(&self, slices: &[IoSlice<'_>], context: &mut Context<'_>) -> io::Result<Option<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let (low, high) = self.end.net.lock().latency;
        let latency = self.executor.between(low, high);
        let side = self.end.side;
        self.end.with(|connection, _| {
            if connection.reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let pipe = &mut connection.pipes[side];
            if pipe.finished {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if pipe.deaf {
                connection.reset();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if total == 0 {
                return Ok(Some(0));
            }
            let room = WINDOW_SIZE - pipe.size;
            if room == 0 {
                pipe.writers.push(context.waker().clone());
                return Ok(None);
            }
            let most = total.min(room);
            let count = 1 + self.executor.random(|random| random.index(most));
            let count = if self.executor.random(|random| random.chance(50)) {
                most
            } else {
                count
            };
            let bytes: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .take(count)
                .collect();
            let soonest_ns = pipe.transit.back().map_or(0, |(arrival_ns, _)| *arrival_ns);
            let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX / 2);
            let arrival_ns = soonest_ns.max(self.executor.now_ns() + latency_ns);
            pipe.size += count;
            pipe.transit.push_back((arrival_ns, bytes));
            pipe.readers.drain(..).for_each(Waker::wake);
            Ok(Some(count))
        })
    }
}

impl Stream for SimStream {
    type Detached = SimDetached;

    async fn readable(&self) -> io::Result<()> {
        self.incoming().await.map(|_| ())
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.incoming().await?;
        Ok(self.take(buffer, available))
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // Whatever waker it leaves behind wakes nobody.
        match self.look(&mut Context::from_waker(Waker::noop()))? {
            Incoming::Ready(available) => Ok(Some(self.take(buffer, available))),
            Incoming::Later(_) => Ok(None),
        }
    }

    async fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|context| match self.put(slices, context) {
            Ok(Some(count)) => Poll::Ready(Ok(count)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    fn shutdown(&self) {
        let side = self.end.side;
        self.end.with(|connection, _| connection.shutdown(side));
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        let side = self.end.side;
        Ok(self
            .end
            .with(|connection, _| connection.addresses[1 - side]))
    }

    fn detach(self) -> SimDetached {
        self.end
    }
}

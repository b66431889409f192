//! What the network knows: listeners, connections, and bytes on their way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

/// First of the ports that the system chooses.
const PORT_FIRST: u16 = 40_000;

/// The network of a simulation; clones are the same one.
#[derive(Clone)]
pub struct SimNet {
    state: Arc<Mutex<NetState>>,
}

pub(super) struct NetState {
    pub(super) latency: (Duration, Duration),
    pub(super) listeners: BTreeMap<u64, ListenerState>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) blocked: BTreeSet<(u32, u32)>,
    pub(super) port_next: u16,
    pub(super) id_next: u64,
}

pub(super) struct ListenerState {
    pub(super) node: u32,
    pub(super) address: SocketAddr,
    pub(super) backlog: VecDeque<(u64, SocketAddr)>,
    pub(super) waiting: Vec<Waker>,
}

pub(super) struct Connection {
    pub(super) nodes: [u32; 2],
    pub(super) addresses: [SocketAddr; 2],
    /// `pipes[side]` carries what `side` sends.
    pub(super) pipes: [Pipe; 2],
    pub(super) reset: bool,
    /// Sides whose owner still holds them.
    pub(super) held: [bool; 2],
}

#[derive(Default)]
pub(super) struct Pipe {
    /// Pieces with the time at which they arrive.
    pub(super) transit: VecDeque<(u64, Vec<u8>)>,
    pub(super) arrived: VecDeque<u8>,
    pub(super) size: usize,
    /// Nothing more is sent.
    pub(super) finished: bool,
    /// Nothing more is read: the reader has shut down.
    pub(super) deaf: bool,
    pub(super) readers: Vec<Waker>,
    pub(super) writers: Vec<Waker>,
}

impl Pipe {
    pub(super) fn wake(&mut self) {
        self.readers
            .drain(..)
            .chain(self.writers.drain(..))
            .for_each(Waker::wake);
    }

    pub(super) fn deliver(&mut self, now_ns: u64) {
        while self
            .transit
            .front()
            .is_some_and(|(arrival_ns, _)| *arrival_ns <= now_ns)
        {
            if let Some((_, bytes)) = self.transit.pop_front() {
                self.arrived.extend(bytes);
            }
        }
    }
}

impl Default for SimNet {
    fn default() -> Self {
        let state = NetState {
            latency: (Duration::from_micros(20), Duration::from_micros(200)),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            blocked: BTreeSet::new(),
            port_next: PORT_FIRST,
            id_next: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl SimNet {
    pub(super) fn lock(&self) -> MutexGuard<'_, NetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the range from which each piece's travel time is drawn.
    pub fn set_latency(&self, low: Duration, high: Duration) {
        self.lock().latency = (low, high);
    }

    /// Lets nothing through between two nodes, without telling them.
    pub fn block(&self, one: u32, other: u32) {
        self.lock().blocked.insert((one.min(other), one.max(other)));
    }

    /// Unblocks all links.
    pub fn unblock_all(&self) {
        let mut state = self.lock();
        state.blocked.clear();
        state
            .connections
            .values_mut()
            .flat_map(|c| &mut c.pipes)
            .for_each(Pipe::wake);
    }

    /// Resets every connection that a node is part of.
    pub fn reset_connections(&self, node: u32) {
        let mut state = self.lock();
        let mine = state
            .connections
            .values_mut()
            .filter(|c| c.nodes.contains(&node));
        mine.for_each(Connection::reset);
    }

    /// How many connections are open.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.lock().connections.len()
    }
}

impl NetState {
    pub(super) fn id(&mut self) -> u64 {
        self.id_next += 1;
        self.id_next
    }

    pub(super) fn port(&mut self) -> u16 {
        let port = self.port_next;
        self.port_next = port.checked_add(1).unwrap_or(PORT_FIRST);
        port
    }

    pub(super) fn is_blocked(&self, nodes: [u32; 2]) -> bool {
        let [one, other] = nodes;
        self.blocked.contains(&(one.min(other), one.max(other)))
    }

    /// The listeners that a connection to `address` may reach.
    pub(super) fn reachable(&self, address: SocketAddr) -> Vec<u64> {
        let hears = |listener: &ListenerState| {
            listener.address.port() == address.port()
                && (listener.address.ip() == address.ip() || listener.address.ip().is_unspecified())
        };
        self.listeners
            .iter()
            .filter(|(_, l)| hears(l))
            .map(|(id, _)| *id)
            .collect()
    }

    /// One side's owner is gone; with both gone the connection is forgotten.
    pub(super) fn release(&mut self, id: u64, side: usize) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let incoming = &connection.pipes[1 - side];
        if incoming.size > 0 && !connection.reset {
            // Unread bytes: TCP answers with a reset.
            connection.reset();
        }
        connection.shutdown(side);
        connection.held[side] = false;
        if connection.held == [false, false] {
            self.connections.remove(&id);
        }
    }
}

impl Connection {
    pub(super) fn reset(&mut self) {
        self.reset = true;
        self.pipes.iter_mut().for_each(Pipe::wake);
    }

    pub(super) fn shutdown(&mut self, side: usize) {
        self.pipes[side].finished = true;
        self.pipes[1 - side].deaf = true;
        self.pipes.iter_mut().for_each(Pipe::wake);
    }
}

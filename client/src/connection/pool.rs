//! The connections of a client: one per broker address, shard and purpose, opened on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_protocol::ClusterId;

use super::{Connection, Identity};

/// First pause before connecting again to an address that refused; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What a connection is for. Apart, so that a large fetch reply never delays an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Metadata, admin, producer ids.
    Control,
    Produce,
    Fetch,
}

#[derive(Debug)]
pub(crate) struct Pool {
    client_name: Arc<str>,
    connect_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Learned from the first metadata; an address that belongs to another cluster is refused.
    cluster_id: Option<ClusterId>,
    entries: BTreeMap<(Arc<str>, u32, Purpose), Entry>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    /// Attempts in a row that never got through the handshake.
    failures: u32,
}

impl Pool {
    pub(crate) fn new(client_name: Arc<str>, connect_timeout: Duration) -> Self {
        Self {
            client_name,
            connect_timeout,
            state: Mutex::default(),
        }
    }

    pub(crate) fn set_cluster_id(&self, cluster_id: ClusterId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.cluster_id.get_or_insert(cluster_id);
    }

    /// The connection, opened (again) if need be. Never waits: a connection queues requests while it
    /// connects.
    pub(crate) fn connection(
        &self,
        address: &Arc<str>,
        shard: u32,
        purpose: Purpose,
    ) -> Connection {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(address), shard, purpose);
        let failures = match state.entries.get(&key) {
            Some(entry) if !entry.connection.is_failed() => return entry.connection.clone(),
            Some(entry) if entry.connection.is_established() => 0,
            Some(entry) => entry.failures + 1,
            None => 0,
        };
        let identity = Identity {
            client_name: Arc::clone(&self.client_name),
            wanted_shard: shard,
            cluster_id: state.cluster_id,
            timeout: self.connect_timeout,
        };
        let connection = Connection::open(Arc::clone(address), identity, pause_after(failures));
        let entry = Entry {
            connection: connection.clone(),
            failures,
        };
        state.entries.insert(key, entry);
        connection
    }
}

fn pause_after(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => (MIN_PAUSE * 2u32.saturating_pow(failures.min(16) - 1)).min(MAX_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let pauses: Vec<u128> = (0..8).map(|n| pause_after(n).as_millis()).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pause_after(u32::MAX), MAX_PAUSE);
    }
}

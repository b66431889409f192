//! What the broker is and what its data lies on: a figure without these says little.

use std::{
    net::{IpAddr, ToSocketAddrs},
    path::Path,
};

use millstream_client::Admin;
use serde::{Deserialize, Serialize};

use super::mounts;

/// The broker under load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerFacts {
    /// Whether it was started for this run.
    pub spawned: bool,
    /// Its software version.
    pub version: String,
    /// How many shards it has.
    pub shards: u32,
    /// Its memory budget in bytes.
    pub memory_budget: u64,
    /// Where its data is.
    pub data_dir: String,
    /// The file system there, where this host can tell.
    pub file_system: Option<String>,
    /// The device below it, where this host can tell.
    pub device: Option<String>,
    /// How it is mounted, where this host can tell.
    pub mount_options: Option<String>,
    /// Whether that is memory.
    pub in_memory: bool,
    /// Whether it goes around the page cache.
    pub direct_io: bool,
    /// Free bytes of the file system.
    pub disk_free: u64,
    /// All bytes of the file system.
    pub disk_total: u64,
}

impl BrokerFacts {
    /// Asks the broker; what it can't tell stays empty, as the load itself shows what is wrong.
    pub async fn ask(admin: &Admin, server: &str, spawned: bool) -> Self {
        let cluster = admin.describe_cluster().await.ok();
        let Some(broker) = cluster.and_then(|it| it.brokers.into_iter().next()) else {
            return Self::default();
        };
        // Only of this host's directories can anything be said.
        let data_dir = Path::new(&broker.data_dir);
        let is_here = spawned || (is_this_host(server) && data_dir.is_dir());
        let mount = data_dir.canonicalize().ok().filter(|_| is_here);
        let mount = mount.and_then(|path| mounts::of(&path));
        Self {
            spawned,
            version: broker.version,
            shards: broker.shard_count,
            memory_budget: broker.memory_budget,
            direct_io: broker.direct_io,
            disk_free: broker.disk_free,
            disk_total: broker.disk_total,
            in_memory: mount.as_ref().is_some_and(mounts::Mount::is_memory),
            file_system: mount.as_ref().map(|mount| mount.file_system.clone()),
            device: mount.as_ref().map(|mount| mount.source.clone()),
            mount_options: mount.map(|mount| mount.options),
            data_dir: broker.data_dir,
        }
    }

    /// `ext4 on /dev/vda, direct I/O`.
    #[must_use]
    pub fn disk(&self) -> String {
        let file_system = self.file_system.as_deref().unwrap_or("file system unknown");
        let device = match &self.device {
            Some(device) if !self.in_memory => format!(" on {device}"),
            _ => String::new(),
        };
        let io = if self.direct_io {
            "direct I/O"
        } else {
            "buffered I/O"
        };
        format!("{file_system}{device}, {io}")
    }
}

/// Whether a server is reached over loopback.
fn is_this_host(server: &str) -> bool {
    let addresses = server.to_socket_addrs();
    addresses.is_ok_and(|mut it| it.next().is_some_and(|it| IpAddr::is_loopback(&it.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_in_words() {
        let mut facts = BrokerFacts {
            direct_io: true,
            file_system: Some("ext4".into()),
            device: Some("/dev/vda".into()),
            ..BrokerFacts::default()
        };
        assert_eq!(facts.disk(), "ext4 on /dev/vda, direct I/O");
        facts.file_system = None;
        facts.device = None;
        facts.direct_io = false;
        assert_eq!(facts.disk(), "file system unknown, buffered I/O");
        assert!(is_this_host("127.0.0.1:7400") && !is_this_host("203.0.113.1:7400"));
    }
}

//! What people see when the broker is ready, and what they may type next.

use std::{
    fmt,
    io::Write,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::plan::Plan;
use crate::{host::DiskFacts, types::quantity::show_size};

/// Where clients look when nobody tells them.
const DEFAULT_SERVER: &str = "127.0.0.1:7400";

pub(super) struct Banner<'a> {
    pub(super) plan: &'a Plan,
    pub(super) disk: &'a DiskFacts,
    /// Where clients are served, with the port that was chosen.
    pub(super) address: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) time_to_ready: Duration,
}

impl Banner<'_> {
    /// On standard output. A reader that has gone does not matter.
    pub(super) fn print(&self) {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "{self}").and_then(|()| out.flush());
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (broker, disk) = (&self.plan.broker, self.disk);
        let version = env!("CARGO_PKG_VERSION");
        let ready = self.time_to_ready.as_secs_f64();
        writeln!(f, "Millstream {version}, ready after {ready:.2} s\n")?;
        writeln!(f, "  shards   {}", shards(&broker.shard_cpus))?;
        writeln!(f, "  memory   {}", show_size(broker.memory))?;
        let (free, total) = (show_size(disk.free_bytes), show_size(disk.total_bytes));
        writeln!(f, "  data     {}", broker.data_dir.display())?;
        writeln!(f, "           {}, {free} free of {total}", disk.file_system)?;
        let io = if broker.direct_io {
            "direct I/O"
        } else {
            "buffered I/O"
        };
        let flush_ms = disk.flush.as_secs_f64() * 1e3;
        writeln!(
            f,
            "           {io}, a write and its flush take {flush_ms:.2} ms"
        )?;
        writeln!(f, "  clients  {}", self.address)?;
        match self.admin {
            Some(admin) => writeln!(f, "  admin    http://{admin}/metrics")?,
            None => writeln!(f, "  admin    off")?,
        }
        let server = server_flag(self.address);
        writeln!(f, "\nNext, in another terminal:\n")?;
        writeln!(f, "  millstream topic create greetings{server}")?;
        writeln!(f, "  echo hello | millstream produce greetings{server}")?;
        writeln!(f, "  millstream consume greetings{server}\n")
    }
}

fn shards(cpus: &[Option<usize>]) -> String {
    let pinned: Option<Vec<String>> = cpus
        .iter()
        .map(|cpu| cpu.map(|cpu| cpu.to_string()))
        .collect();
    match pinned {
        Some(cpus) if cpus.len() == 1 => format!("1, on core {}", cpus[0]),
        Some(cpus) => format!("{}, on cores {}", cpus.len(), cpus.join(" ")),
        None => format!("{}, not pinned", cpus.len()),
    }
}

/// What the commands need to find this broker.
fn server_flag(address: SocketAddr) -> String {
    let mut server = address;
    if server.ip().is_unspecified() {
        server.set_ip(IpAddr::from([127, 0, 0, 1]));
    }
    match server.to_string() {
        server if server == DEFAULT_SERVER => String::new(),
        server => format!(" --server {server}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerSettings;

    #[test]
    fn the_whole_banner() {
        let plan = Plan {
            broker: BrokerSettings {
                data_dir: "/var/lib/millstream".into(),
                first_life: 1,
                listeners: Vec::new(),
                shard_cpus: vec![Some(0), Some(1)],
                memory: 1 << 30,
                prepared_space: 0,
                direct_io: true,
                spin: None,
                open_files: 1000,
                max_connections: 1000,
                group_offsets_retention_ms: 1,
            },
        };
        let disk = DiskFacts {
            file_system: "ext4".to_owned(),
            free_bytes: 20 << 30,
            total_bytes: 30 << 30,
            direct: true,
            flush: Duration::from_micros(140),
        };
        let banner = Banner {
            plan: &plan,
            disk: &disk,
            address: ([0, 0, 0, 0], 7500).into(),
            admin: Some(([127, 0, 0, 1], 7401).into()),
            time_to_ready: Duration::from_millis(120),
        };
        let expected = concat!(
            "Millstream ",
            env!("CARGO_PKG_VERSION"),
            ", ready after 0.12 s

  shards   2, on cores 0 1
  memory   1 GiB
  data     /var/lib/millstream
           ext4, 20 GiB free of 30 GiB
           direct I/O, a write and its flush take 0.14 ms
  clients  0.0.0.0:7500
  admin    http://127.0.0.1:7401/metrics

Next, in another terminal:

  millstream topic create greetings --server 127.0.0.1:7500
  echo hello | millstream produce greetings --server 127.0.0.1:7500
  millstream consume greetings --server 127.0.0.1:7500

"
        );
        assert_eq!(banner.to_string(), expected);
    }

    #[test]
    fn shards_and_servers() {
        assert_eq!(shards(&[None, None]), "2, not pinned");
        assert_eq!(shards(&[Some(3)]), "1, on core 3");
        assert_eq!(server_flag("127.0.0.1:7400".parse().unwrap()), "");
        assert_eq!(server_flag("[::1]:9".parse().unwrap()), " --server [::1]:9");
    }
}

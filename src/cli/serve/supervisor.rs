//! What a service manager is told: ready, stopping, and that the broker is still alive.
//!
//! The protocol is systemd's `sd_notify(3)`: datagrams of `NAME=VALUE` lines to the socket that
//! `NOTIFY_SOCKET` names; with `WATCHDOG_USEC`, one must come so often. Without them nothing is sent.
//! Nothing here can fail a broker: a manager that cannot be told will draw its own conclusions.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// Whoever started this process and waits for word of it, if anybody does.
pub(super) struct Supervisor {
    channel: Option<Arc<Channel>>,
    /// How often it wants a sign of life.
    watchdog: Option<Duration>,
}

struct Channel {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// Gives signs of life until it is dropped.
pub(super) struct Watchdog {
    _end: Option<mpsc::Sender<()>>,
}

impl Supervisor {
    /// As the environment says.
    pub(super) fn of_process() -> Self {
        Self::of(&|name| std::env::var_os(name), std::process::id())
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>, process: u32) -> Self {
        let channel = variable("NOTIFY_SOCKET").and_then(|name| {
            let channel = Channel::to(&name);
            channel
                .inspect_err(|error| {
                    tracing::warn!("NOTIFY_SOCKET={}: {error}", name.display());
                })
                .ok()
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // The variables are inherited: they may be meant for the parent.
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process));
        let interval = number("WATCHDOG_USEC").map(Duration::from_micros);
        Self {
            channel: channel.map(Arc::new),
            watchdog: interval.filter(|interval| meant && !interval.is_zero()),
        }
    }

    /// Clients are served at `address`.
    pub(super) fn ready(&self, address: std::net::SocketAddr) {
        self.tell(&format!("READY=1\nSTATUS=Serving clients at {address}"));
    }

    /// A clean stop has begun.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping");
    }

    fn tell(&self, text: &str) {
        if let Some(channel) = &self.channel {
            channel.tell(text);
        }
    }

    /// Gives signs of life, twice as often as wanted, while the broker is alive. What is not gets none,
    /// so the manager ends it and starts another.
    pub(super) fn watch(
        &self,
        alive: impl Fn() -> Result<(), String> + Send + 'static,
    ) -> io::Result<Watchdog> {
        let (Some(channel), Some(interval)) = (self.channel.clone(), self.watchdog) else {
            return Ok(Watchdog { _end: None });
        };
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("watchdog".to_owned());
        thread.spawn(move || {
            loop {
                match alive() {
                    Ok(()) => channel.tell("WATCHDOG=1"),
                    Err(reason) => tracing::error!("{reason}: the watchdog gets no sign of life"),
                }
                if ended.recv_timeout(interval / 2) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Watchdog { _end: Some(end) })
    }
}

impl Channel {
    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            // A name without a file.
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop the broker.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    fn tell(&self, text: &str) {
        let sent = self.socket.send_to_addr(text.as_bytes(), &self.address);
        if let Err(error) = sent {
            tracing::warn!("the service manager cannot be told {text:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn supervisor(variables: &[(&str, &str)]) -> Supervisor {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Supervisor::of(&|name| variables.get(name).map(OsString::from), 7)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut memory = [0; 256];
        let size = socket.recv(&mut memory).expect("a datagram comes");
        String::from_utf8(memory[..size].to_vec()).unwrap()
    }

    #[test]
    fn names_with_and_without_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor_at_path = supervisor(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        supervisor_at_path.ready(([127, 0, 0, 1], 7400).into());
        assert_eq!(
            heard(&socket),
            "READY=1\nSTATUS=Serving clients at 127.0.0.1:7400"
        );

        let name = format!("millstream-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        supervisor(&[("NOTIFY_SOCKET", &format!("@{name}"))]).stopping();
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=Stopping");
    }

    #[test]
    fn nobody_to_tell() {
        supervisor(&[]).stopping();
        supervisor(&[("NOTIFY_SOCKET", "/nowhere/at/all")]).stopping();
        let watchdog = supervisor(&[("WATCHDOG_USEC", "1000")]).watch(|| panic!("nobody asks"));
        assert!(watchdog.unwrap()._end.is_none());
    }

    #[test]
    fn the_watchdog_is_for_whom_it_is_meant() {
        let interval = |variables: &[_]| supervisor(variables).watchdog;
        let minute = Some(Duration::from_secs(60));
        assert_eq!(interval(&[("WATCHDOG_USEC", "60000000")]), minute);
        assert_eq!(
            interval(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "7")]),
            minute
        );
        assert_eq!(
            interval(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "8")]),
            None
        );
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "soon")]), None);
    }

    #[test]
    fn signs_of_life_come_only_while_there_is_life() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor = supervisor(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "2000"),
        ]);
        let alive = Arc::new(AtomicBool::new(true));
        let (asked, dead) = mpsc::channel();
        let state = Arc::clone(&alive);
        let watchdog = supervisor.watch(move || match state.load(Ordering::SeqCst) {
            true => Ok(()),
            false => {
                let _ = asked.send(());
                Err("shard 0 makes no progress".to_owned())
            }
        });
        let watchdog = watchdog.unwrap();
        assert_eq!(heard(&socket), "WATCHDOG=1");
        assert_eq!(heard(&socket), "WATCHDOG=1");
        alive.store(false, Ordering::SeqCst);
        dead.recv().unwrap();
        // What was sent before is taken out; from here on there is nothing, however often it asks.
        socket.set_nonblocking(true).unwrap();
        while socket.recv(&mut [0; 64]).is_ok() {}
        for _ in 0..3 {
            dead.recv().unwrap();
        }
        let more = socket.recv(&mut [0; 64]);
        assert_eq!(more.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(watchdog);
        // Its end lets go of what it asked.
        while dead.recv().is_ok() {}
    }
}

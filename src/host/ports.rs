//! Is a port free? Asked without `SO_REUSEPORT`, which every shard's listener sets: with it a second
//! broker would share the port in silence.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

/// How often, and with what pause, a port that is taken is asked for again. A broker that was killed
/// holds its ports a moment longer than its process lives: the kernel takes io_uring apart later.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody has it.
    #[error(
        "{address} is in use by another process (`ss -ltnp 'sport = :{}'` shows which): stop it, or \
         choose another address with --{setting}", address.port()
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// Not an address of this host.
    #[error("{address} is not an address of this host: choose another with --{setting}")]
    NotLocal {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// Below 1024, most likely.
    #[error(
        "this user may not listen on {address}: choose a port of 1024 or above with --{setting}, or \
         grant CAP_NET_BIND_SERVICE"
    )]
    NotAllowed {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// Something else.
    #[error("cannot listen on {address} (--{setting})")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Binds the address and lets it go again. Port 0 is always free. Takes up to a second for a port that
/// is not, since it may be about to be.
///
/// # Errors
/// Why it cannot be had.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing runs yet that a pause could block"
)]
pub fn check_port(address: SocketAddr, setting: &'static str) -> Result<(), PortError> {
    for _ in 1..ATTEMPTS {
        match try_port(address, setting) {
            Err(PortError::Taken { .. }) => thread::sleep(PAUSE),
            other => return other,
        }
    }
    try_port(address, setting)
}

fn try_port(address: SocketAddr, setting: &'static str) -> Result<(), PortError> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(match source.kind() {
            io::ErrorKind::AddrInUse => PortError::Taken { address, setting },
            io::ErrorKind::AddrNotAvailable => PortError::NotLocal { address, setting },
            io::ErrorKind::PermissionDenied => PortError::NotAllowed { address, setting },
            _ => PortError::Other {
                address,
                setting,
                source,
            },
        }),
    }
}

/// Whether only this host can connect to the address.
#[must_use]
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_even_when_its_owner_would_share() {
        use rustix::net::{
            AddressFamily, SocketType, bind, listen, socket,
            sockopt::{set_socket_reuseaddr, set_socket_reuseport},
        };
        let owner = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        set_socket_reuseaddr(&owner, true).unwrap();
        set_socket_reuseport(&owner, true).unwrap();
        bind(&owner, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&owner, 1).unwrap();
        let owner = TcpListener::from(owner);
        let error = check_port(owner.local_addr().unwrap(), "listen").unwrap_err();
        assert!(matches!(error, PortError::Taken { .. }), "{error}");
        assert!(error.to_string().contains("--listen"), "{error}");
    }

    #[test]
    fn a_free_port_and_a_strange_address() {
        check_port(([127, 0, 0, 1], 0).into(), "listen").unwrap();
        let error = check_port(([192, 0, 2, 1], 0).into(), "admin-listen").unwrap_err();
        assert!(matches!(error, PortError::NotLocal { .. }), "{error}");
    }

    #[test]
    fn loopback() {
        let is = |text: &str| is_loopback(&text.parse().unwrap());
        assert!(is("127.0.0.1:1") && is("127.9.9.9:1") && is("[::1]:1"));
        assert!(is("[::ffff:127.0.0.1]:1"));
        assert!(!is("0.0.0.0:1") && !is("[::]:1") && !is("10.0.0.1:1"));
    }
}

//! TCP: system calls that never block, and `readiness` where they would.
//!
//! A socket that goes is shut down before its requests are cancelled: the other end learns of it at once,
//! and the descriptor closes when the kernel has let go of it.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
        SocketFlags, SocketType, ipproto, sockopt,
    },
};

use super::{
    Shard, UringIo,
    readiness::{Direction, Interest},
};
use crate::io::{Listener, Net, Stream};

/// Connections that wait to be accepted; the system caps it at `net.core.somaxconn`.
pub const BACKLOG_COUNT: i32 = 4096;
/// The system takes no more slices in one call.
const SLICE_COUNT_MAX: usize = 1024;

fn socket_for(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        flags,
        Some(ipproto::TCP),
    )?)
}

fn internet_address(address: SocketAddrAny) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(address)?)
}

/// A socket and what waits on it.
struct Socket {
    read: Interest,
    write: Interest,
    descriptor: Arc<OwnedFd>,
    shard: Rc<Shard>,
    /// It goes on elsewhere.
    moved: bool,
}

impl Socket {
    fn new(descriptor: Arc<OwnedFd>, shard: &Rc<Shard>) -> Self {
        Self {
            read: Interest::new(Direction::Read),
            write: Interest::new(Direction::Write),
            descriptor,
            shard: Rc::clone(shard),
            moved: false,
        }
    }

    async fn readable(&self) {
        self.read.ready(&self.shard.ring, &self.descriptor).await;
    }

    async fn writable(&self) {
        self.write.ready(&self.shard.ring, &self.descriptor).await;
    }

    fn shutdown(&self) {
        // It fails when there is no connection any more, which is what is wanted.
        let _ = rustix::net::shutdown(&self.descriptor, Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.moved && (self.read.is_pending() || self.write.is_pending()) {
            self.shutdown();
        }
    }
}

impl UringIo {
    fn stream(&self, descriptor: Arc<OwnedFd>, peer: SocketAddr) -> UringStream {
        UringStream {
            socket: Socket::new(descriptor, &self.shard),
            peer,
        }
    }
}

impl Net for UringIo {
    type Listener = UringListener;
    type Stream = UringStream;
    type Detached = UringDetached;

    async fn listen(&self, address: SocketAddr) -> io::Result<UringListener> {
        let descriptor = socket_for(address)?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        sockopt::set_socket_reuseport(&descriptor, true)?;
        rustix::net::bind(&descriptor, &address)?;
        rustix::net::listen(&descriptor, BACKLOG_COUNT)?;
        Ok(UringListener {
            socket: Socket::new(Arc::new(descriptor), &self.shard),
            io: self.clone(),
        })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<UringStream> {
        let descriptor = socket_for(address)?;
        sockopt::set_tcp_nodelay(&descriptor, true)?;
        let mut waits = match rustix::net::connect(&descriptor, &address) {
            Ok(()) => false,
            // Interrupted, it goes on in the background, as if it were in progress.
            Err(Errno::INPROGRESS | Errno::INTR) => true,
            Err(error) => return Err(error.into()),
        };
        let stream = self.stream(Arc::new(descriptor), address);
        while waits {
            stream.socket.writable().await;
            sockopt::socket_error(&stream.socket.descriptor)??;
            // It may be told to be ready and have neither a connection nor an error yet.
            let peer = rustix::net::getpeername(&stream.socket.descriptor);
            waits = peer.err() == Some(Errno::NOTCONN);
        }
        Ok(stream)
    }

    fn attach(&self, connection: UringDetached) -> io::Result<UringStream> {
        Ok(self.stream(connection.descriptor, connection.peer))
    }
}

/// A listening socket.
pub struct UringListener {
    socket: Socket,
    io: UringIo,
}

impl Drop for UringListener {
    fn drop(&mut self) {
        // Its port is free at once, whatever still waits for connections.
        self.socket.shutdown();
    }
}

impl Listener for UringListener {
    type Stream = UringStream;

    async fn accept(&self) -> io::Result<(UringStream, SocketAddr)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::acceptfrom_with(&self.socket.descriptor, flags) {
                Ok((descriptor, peer)) => {
                    // One that is gone already is not the listener's trouble either.
                    let Some(Ok(peer)) = peer.map(internet_address) else {
                        continue;
                    };
                    if sockopt::set_tcp_nodelay(&descriptor, true).is_ok() {
                        return Ok((self.io.stream(Arc::new(descriptor), peer), peer));
                    }
                }
                Err(Errno::AGAIN) => self.socket.readable().await,
                // The client gave up before it was accepted: not the listener's trouble.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        internet_address(rustix::net::getsockname(&self.socket.descriptor)?)
    }
}

/// A connection on its way between shards; dropping it closes.
pub struct UringDetached {
    descriptor: Arc<OwnedFd>,
    peer: SocketAddr,
}

/// A connection.
pub struct UringStream {
    socket: Socket,
    peer: SocketAddr,
}

impl Stream for UringStream {
    type Detached = UringDetached;

    async fn readable(&self) -> io::Result<()> {
        loop {
            if self.socket.read.is_exhausted() {
                self.socket.readable().await;
                return Ok(());
            }
            // Looked at, not taken: whoever receives next finds it.
            let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
            match rustix::net::recv(&self.socket.descriptor, &mut [0_u8; 1][..], flags) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => self.socket.read.set_exhausted(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.socket.read.is_exhausted() {
                self.socket.readable().await;
            }
            if let Some(count) = self.try_receive(buffer)? {
                return Ok(count);
            }
        }
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let descriptor = &self.socket.descriptor;
            return match rustix::net::recv(descriptor, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    let exhausted = count > 0 && count < buffer.len();
                    self.socket.read.set_exhausted(exhausted);
                    Ok(Some(count))
                }
                Err(Errno::AGAIN) => {
                    self.socket.read.set_exhausted(true);
                    Ok(None)
                }
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    async fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(SLICE_COUNT_MAX)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let mut control = SendAncillaryBuffer::default();
            let descriptor = &self.socket.descriptor;
            match rustix::net::sendmsg(descriptor, slices, &mut control, flags) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => self.socket.writable().await,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn shutdown(&self) {
        self.socket.shutdown();
        // What waits is told by the kernel; what comes next must see it too.
        self.socket.read.set_exhausted(false);
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    fn detach(mut self) -> UringDetached {
        self.socket.moved = true;
        UringDetached {
            descriptor: Arc::clone(&self.socket.descriptor),
            peer: self.peer,
        }
    }
}

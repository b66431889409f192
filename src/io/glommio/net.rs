//! TCP: system calls that never block, and `readiness` where they would.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags,
        SocketType, ipproto, sockopt,
    },
};

use super::{GlommioIo, Shard, closing::Socket};
use crate::io::{Listener, Net, Stream};

/// Connections that wait to be accepted; the system caps it at `net.core.somaxconn`.
const BACKLOG_COUNT: i32 = 4096;
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

impl GlommioIo {
    fn stream(&self, descriptor: OwnedFd, peer: SocketAddr) -> io::Result<GlommioStream> {
        let socket = Some(Socket::new(descriptor)?);
        Ok(GlommioStream {
            socket,
            peer,
            shard: Rc::clone(&self.shard),
        })
    }
}

impl Net for GlommioIo {
    type Listener = GlommioListener;
    type Stream = GlommioStream;
    type Detached = GlommioDetached;

    async fn listen(&self, address: SocketAddr) -> io::Result<GlommioListener> {
        let descriptor = socket_for(address)?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        sockopt::set_socket_reuseport(&descriptor, true)?;
        rustix::net::bind(&descriptor, &address)?;
        rustix::net::listen(&descriptor, BACKLOG_COUNT)?;
        let socket = Some(Socket::new(descriptor)?);
        Ok(GlommioListener {
            socket,
            io: self.clone(),
        })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<GlommioStream> {
        let descriptor = socket_for(address)?;
        sockopt::set_tcp_nodelay(&descriptor, true)?;
        let waits = match rustix::net::connect(&descriptor, &address) {
            Ok(()) => false,
            // Interrupted, it goes on in the background, as if it were in progress.
            Err(Errno::INPROGRESS | Errno::INTR) => true,
            Err(error) => return Err(error.into()),
        };
        let stream = self.stream(descriptor, address)?;
        if waits {
            let socket = stream.socket();
            socket.write.ready(&socket.descriptor).await?;
            sockopt::socket_error(socket.descriptor.get_ref())??;
        }
        Ok(stream)
    }

    fn attach(&self, connection: GlommioDetached) -> io::Result<GlommioStream> {
        self.stream(connection.descriptor, connection.peer)
    }
}

/// A listening socket.
pub struct GlommioListener {
    /// Present until it is dropped.
    socket: Option<Socket>,
    io: GlommioIo,
}

impl GlommioListener {
    fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("listens until it is dropped")
    }
}

impl Drop for GlommioListener {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Its port is free at once, whatever still waits for connections.
            socket.shutdown();
            self.io.shard.close(socket);
        }
    }
}

impl Listener for GlommioListener {
    type Stream = GlommioStream;

    async fn accept(&self) -> io::Result<(GlommioStream, SocketAddr)> {
        let socket = self.socket();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::acceptfrom_with(socket.descriptor.get_ref(), flags) {
                Ok((descriptor, peer)) => {
                    let peer = internet_address(peer.ok_or(io::ErrorKind::NotConnected)?)?;
                    sockopt::set_tcp_nodelay(&descriptor, true)?;
                    return Ok((self.io.stream(descriptor, peer)?, peer));
                }
                Err(Errno::AGAIN) => socket.read.ready(&socket.descriptor).await?,
                // The client gave up before it was accepted: not the listener's trouble.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        internet_address(rustix::net::getsockname(
            self.socket().descriptor.get_ref(),
        )?)
    }
}

/// A connection on its way between shards; dropping it closes.
pub struct GlommioDetached {
    descriptor: OwnedFd,
    peer: SocketAddr,
}

/// A connection.
pub struct GlommioStream {
    /// Present until it is dropped or detached.
    socket: Option<Socket>,
    peer: SocketAddr,
    shard: Rc<Shard>,
}

impl GlommioStream {
    fn socket(&self) -> &Socket {
        self.socket
            .as_ref()
            .expect("a connection until it is dropped")
    }
}

impl Drop for GlommioStream {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.shard.close(socket);
        }
    }
}

impl Stream for GlommioStream {
    type Detached = GlommioDetached;

    async fn readable(&self) -> io::Result<()> {
        let socket = self.socket();
        loop {
            // Looked at, not taken: whoever receives next finds it.
            let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
            match rustix::net::recv(socket.descriptor.get_ref(), &mut [0_u8; 1][..], flags) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => socket.read.ready(&socket.descriptor).await?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket();
        loop {
            if let Some(count) = self.try_receive(buffer)? {
                return Ok(count);
            }
            socket.read.ready(&socket.descriptor).await?;
        }
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let descriptor = self.socket().descriptor.get_ref();
            return match rustix::net::recv(descriptor, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((count, _)) => Ok(Some(count)),
                Err(Errno::AGAIN) => Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    async fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.socket();
        let slices = &slices[..slices.len().min(SLICE_COUNT_MAX)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let mut control = SendAncillaryBuffer::default();
            let descriptor = socket.descriptor.get_ref();
            match rustix::net::sendmsg(descriptor, slices, &mut control, flags) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => socket.write.ready(&socket.descriptor).await?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn shutdown(&self) {
        self.socket().shutdown();
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    fn detach(mut self) -> GlommioDetached {
        let socket = self
            .socket
            .take()
            .expect("a connection until it is dropped");
        let Socket {
            read,
            write,
            descriptor,
        } = socket;
        drop((read, write));
        GlommioDetached {
            descriptor: descriptor.into_inner(),
            peer: self.peer,
        }
    }
}

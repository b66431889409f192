//! Network: TCP streams without buffers of their own. One task reads and another writes, sharing
//! the stream by reference.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
};

/// A network.
pub trait Net {
    /// Accepts connections.
    type Listener: Listener<Stream = Self::Stream>;
    /// A connection.
    type Stream: Stream<Detached = Self::Detached>;
    /// A connection on its way to another shard.
    type Detached: Send + 'static;

    /// Listens. Every shard may listen on the same address; the system spreads connections.
    async fn listen(&self, address: SocketAddr) -> io::Result<Self::Listener>;

    /// Connects.
    async fn connect(&self, address: SocketAddr) -> io::Result<Self::Stream>;

    /// Adopts a connection that another shard let go.
    fn attach(&self, connection: Self::Detached) -> io::Result<Self::Stream>;
}

/// A listening socket.
pub trait Listener: 'static {
    /// A connection.
    type Stream;

    /// Waits for a connection. The future must not be dropped half-way.
    ///
    /// # Errors
    /// Running out of descriptors comes back to the caller, who must wait before trying again.
    async fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)>;

    /// The address it listens on, with the port the system chose.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// A connection. No delay on small writes, closed on exec.
pub trait Stream: 'static {
    /// The connection on its way to another shard.
    type Detached: Send + 'static;

    /// Waits until there is something to receive (or the end), holding no buffer.
    async fn readable(&self) -> io::Result<()>;

    /// Receives what is there without waiting: `None` if nothing is, 0 at the end.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Receives at least one byte into `buffer`; 0 is the end. Dropping the future loses nothing.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends some of the slices, in order, and tells how many bytes went.
    async fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends both directions: pending and later calls return. Dropping the last owner closes.
    fn shutdown(&self);

    /// The other end's address.
    fn peer_address(&self) -> io::Result<SocketAddr>;

    /// Takes the connection off this shard. Nothing may be waiting on it.
    fn detach(self) -> Self::Detached;
}

//! Connections: from the listener to a session and back. Shells; the session machine decides.

mod aside;
mod buffers;
mod connection;
mod listener;
mod outbox;
mod receive;
mod reply;
#[cfg(test)]
mod tests;

pub use buffers::Buffers;
pub use connection::{Adopted, Service, Welcome, serve, serve_adopted};
pub use listener::accept_loop;
pub use outbox::Charge;
pub use receive::ReceiveError;
pub use reply::ReplyTo;

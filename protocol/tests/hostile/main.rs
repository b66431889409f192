//! What a peer may send: messages and batches made at random, cut short, flipped and forged. They
//! decode to themselves or to an error, never to a panic, and never cost more memory than their
//! own size justifies.

mod batches;
#[path = "../layouts/mod.rs"]
mod layouts;
mod memory;
mod messages;

//! Bad input, bad clients, bad moments, against the real broker: each gets an error or a closed
//! connection within the stated limits, while a second client goes about its business.
//!
//! `MILLSTREAM_HOSTILE_ROUNDS` (default 1) multiplies the random part of every test. A random case
//! that fails prints its seed; `MILLSTREAM_HOSTILE_SEED` replays it.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "these tests time a real process from outside"
)]

#[path = "../support/broker.rs"]
mod broker;
mod bystander;
mod cold;
mod crowd;
mod fetches;
mod forwarded;
mod frames;
mod groups;
mod memory;
mod mutate;
mod peer;
mod real_text;
mod refused;
mod slow;
mod topics;

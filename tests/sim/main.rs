//! The whole broker in one process, from one seed: shards, lanes, network, disk and clients on the
//! simulated world, under power cuts, cut connections, failing and slow disks, topics that come and
//! go. A client oracle notes every acknowledgement and every read and judges them.
//!
//! One file per invariant; each runs a few seeds. `MILLSTREAM_SEEDS=500 cargo test --test sim` runs
//! more of them. A failure prints its seed and the command that replays it:
//! `MILLSTREAM_SEED=17 cargo test --test sim acknowledged`.

mod broker;
mod consumer;
mod control;
mod faults;
mod oracle;
mod producer;
mod scenario;
mod seeds;
mod small;
mod wire;

mod acknowledged;
mod budgets;
mod buffered;
mod deleted;
mod determinism;
mod disk_failures;
mod expiry;
mod full_disk;
mod idempotent;
mod resharded;

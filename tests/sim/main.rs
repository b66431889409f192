//! The whole broker in one process, from one seed: shards, lanes, network, disk and clients on the
//! simulated world, under power cuts, cut connections, failing, slow and lying disks, clocks that are
//! set, topics that come and go.
//!
//! | part | what it does |
//! |---|---|
//! | `world`, `broker`, `control`, `wire` | the broker with its disk and its metadata, and what an administrator does |
//! | `producer` and `delayed`, `consumer`, `member` | the client's own machines in small shells |
//! | `asker` | asks for commits all the time |
//! | `faults` | what may go wrong |
//! | `history` | what clients were told and read, in order; no judgement |
//! | `invariants` | one file each, a pure function of the same history |
//! | `scenario` | plays a history, reads everything at its end, has it judged |
//! | `verdict`, `seeds` | which seeds run, and what is said of one that fails |
//! | the others | tests: a mix of topics and faults, or a small history written by hand |
//!
//! `MILLSTREAM_SEEDS=10000 cargo test --test sim` runs more seeds of every test, `MILLSTREAM_SEEDS=500..600`
//! others. A failure names the broken invariant, the end of what happened there, a file with all of
//! it, and the command that replays it:
//! `MILLSTREAM_SEED=17 cargo test --test sim whole_histories_break_no_invariant`.
//!
//! **To add a client or a feature**: a shell beside `producer` that speaks through `wire::Connections` and
//! notes what it is told with `Recorder::note`, as variants of `history::What` of its own (with a line in
//! `history::trace`); an invariant in `invariants/`, added to `invariants::ALL`; faults in `faults`; and a
//! place in `World::start_clients`, or a test of its own that starts it on a `World`. Nothing may come from
//! outside the seed: no clock but `io`'s, no map with a hasher of its own. Then add a mutation of the product
//! that the invariant must catch (`tests/mutations`).

mod asker;
mod broker;
mod consumer;
mod control;
mod delayed;
mod faults;
mod history;
mod invariants;
mod member;
mod producer;
mod scenario;
mod seeds;
mod small;
mod verdict;
mod wire;
mod world;

mod acknowledged;
mod budgets;
mod buffered;
mod commits;
mod delays;
mod deleted;
mod determinism;
mod disk_failures;
mod expiry;
mod full_disk;
mod groups;
mod idempotent;
mod overrun;
mod reordered;
mod resharded;
mod ttl;
mod whole;

//! Micro benchmarks, by hand: `cargo bench --bench micro`, or `… -- chunk` for those with a name like it.
//!
//! One binary with a module for each subject, for linking is what takes the time. `docs/performance.md` measures a
//! whole broker; these are for asking whether a change to one part made that part faster.

mod mailbox;
mod pool;
mod protocol;
mod record_batch;
mod storage;

use criterion::Criterion;

/// The broker's own: what allocates is measured as it is there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    record_batch::benchmarks(&mut criterion);
    storage::benchmarks(&mut criterion);
    protocol::benchmarks(&mut criterion);
    mailbox::benchmarks(&mut criterion);
    pool::benchmarks(&mut criterion);
    criterion.final_summary();
}

//! Against models in memory: lists of operations from proptest, the same done to the real thing and
//! to a plain value, and the two compared after each.

mod cold;
mod compaction;
mod log;
#[path = "../crash/oracle.rs"]
#[expect(dead_code, reason = "made for the crash tests, which use all of it")]
mod oracle;
mod removed;

//! The command line, tested from outside: the real binary against a real broker on a free port.
//!
//! Each test starts a broker of its own in a temporary directory and stops it by its process id.

mod broker;
mod compacted;
mod damage;
mod delayed;
mod disk_check;
mod errors;
mod examples;
mod groups;
mod help;
mod json;
mod load;
mod logs;
mod partitioners;
mod pipes;
mod readme;
mod repair;
mod repair_refused;
mod serve;
mod spawned;
mod text;
mod topics;
mod tune;

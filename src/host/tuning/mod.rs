//! How a host could serve a broker better: what to look at, what to set, and how to take it back.
//!
//! [`items::ITEMS`] is the table, one row for each item, with a check that only reads. What a check
//! would change it says as values for files of `/proc` and `/sys` ([`Change`]), so that a plan can be
//! shown as a script ([`script`]), done and undone ([`apply`], [`undo`]) without knowing the item. Every
//! path is below a root ([`Tree`]): tests have hosts of their own.

mod block;
mod change;
mod cpu;
mod file_system;
mod files;
mod interrupts;
mod item;
mod items;
mod kernel;
mod limits;
mod record;
mod script;

#[cfg(test)]
mod tests;

pub use change::{Refused, Restored, Undone, apply, undo};
pub use files::{HostFiles, Tree};
pub use item::{Change, Finding, Host, Importance, Item, Outcome};
pub use items::ITEMS;
pub use record::{Entry, Record, RecordError};
pub use script::script;

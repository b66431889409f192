//! Modes that run many loads: a sweep over a grid, a search for the highest rate within a bound.

mod knee;
mod points;
mod saturate;
mod search;
mod sweep;

pub use points::show_size;
pub use saturate::Saturate;
pub use sweep::{Sweep, curves, throughput, wanted};

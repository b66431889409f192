//! What must never change by accident: batches as Kafka makes them, frames as they were, and the
//! document that tells others how to write them.

mod documents;
mod golden;
mod group_samples;
mod hex;
#[path = "../layouts/mod.rs"]
mod layouts;
mod samples;
mod vectors;

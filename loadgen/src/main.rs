//! The load generator, as a program of its own.

fn main() {}

//! The producer machine against a lossy broker that deduplicates: a model of the whole exchange.

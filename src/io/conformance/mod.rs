//! What every implementation of `io` must do, as tests that each of them runs.
//!
//! The simulation is only worth what it has in common with the real thing: a rule that storage or
//! network code leans on belongs here.

mod disk;
mod net;
mod tasks;

pub use self::{disk::*, net::*, tasks::*};

/// Turns each check into a test: `$run` takes a closure from (io, an empty directory) to a future.
macro_rules! conformance_tests {
    ($run:path: $($check:ident),* $(,)?) => {
        $(
            #[test]
            fn $check() {
                $run(|io, directory| $crate::io::conformance::$check(io, directory));
            }
        )*
    };
    ($run:path) => {
        $crate::io::conformance::conformance_tests!($run:
            writes_are_read_back,
            open_modes_are_kept,
            the_last_partial_block_is_zero_filled,
            allocated_space_reads_as_zeros_and_never_shrinks,
            truncated_bytes_do_not_come_back,
            holes_read_as_zeros,
            a_shortened_buffer_writes_what_is_left,
            names_move_and_go,
            a_file_outlives_its_name,
            many_writes_in_flight_all_arrive,
            a_disk_tells_its_kind_and_space,
            bytes_cross_in_order_both_ways_at_once,
            slices_are_sent_in_order,
            shutdown_ends_both_sides,
            dropping_a_stream_ends_the_other_side,
            nobody_listening_refuses,
            a_dropped_receive_loses_nothing,
            trying_to_receive_does_not_wait,
            a_detached_connection_goes_on,
            many_connections_are_accepted_and_dropped,
            sleep_keeps_order,
            tasks_of_every_class_run,
        );
    };
}
pub(crate) use conformance_tests;

//! What every engine must do: one list, run against each of them.
//!
//! `cargo test -p mesh-node --test conformance uring::` runs one engine's column. What needs a virtual interface runs in a user
//! and network namespace of its own; where these are refused the test fails and says what to do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

#[cfg(target_os = "linux")]
mod address;
#[cfg(target_os = "linux")]
mod allocations;
#[cfg(target_os = "linux")]
mod counting;
mod echo;
#[cfg(target_os = "linux")]
mod inside;
#[cfg(target_os = "linux")]
mod namespace;
mod overload;
mod slab;
mod sockets;
mod support;
mod trains;
mod waits;

use mesh_node::engine::portable::Portable;
#[cfg(target_os = "linux")]
use mesh_node::engine::{mmsg::Mmsg, uring::Uring};
use support::Conforms;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

impl Conforms for Portable {
    const NAME: &'static str = "portable";
    const WHOLE_TOS: bool = false;

    fn made() -> Self {
        Self::new().expect("a runtime needs two file descriptors")
    }
}

#[cfg(target_os = "linux")]
impl Conforms for Mmsg {
    const NAME: &'static str = "mmsg";
    const WHOLE_TOS: bool = true;

    fn made() -> Self {
        Self::new().expect("an epoll needs two file descriptors")
    }
}

#[cfg(target_os = "linux")]
impl Conforms for Uring {
    const NAME: &'static str = "uring";
    const WHOLE_TOS: bool = true;

    fn made() -> Self {
        Self::new().expect(
            "io_uring is refused here: `sysctl kernel.io_uring_disabled=0`, and in a container allow its system calls",
        )
    }
}

/// The tests of the list, as functions of one engine.
macro_rules! conformance {
    ($engine:ident: $made:ty) => {
        mod $engine {
            use super::*;

            conformance!(@ $made, echo:
                echoes_one_datagram, echoes_a_burst, hears_both_families_on_one_socket,
                keeps_the_order_of_each_destination, an_empty_datagram_changes_nothing, carries_the_longest_datagram);
            conformance!(@ $made, trains:
                a_train_leaves_as_a_train, a_short_tail_stays_the_tail, a_train_is_cut_between_destinations,
                singles_to_one_destination_leave_in_order, mixed_sizes_keep_their_boundaries);
            conformance!(@ $made, overload:
                survives_a_burst_without_reading, an_oversize_datagram_is_counted, an_unreachable_destination_is_no_error,
                an_impossible_destination_is_counted);
            conformance!(@ $made, waits:
                a_wait_ends_in_time, a_wait_of_no_time_sees_what_is_there, another_thread_ends_a_wait,
                a_wake_before_the_wait_is_not_lost, a_wake_ends_one_wait_only,
                a_wait_sends_first_and_then_sleeps, another_thread_ends_a_wait_that_sends);
            conformance!(@ $made, sockets:
                sockets_come_and_go, a_removed_socket_frees_its_port, a_dropped_engine_frees_its_ports,
                a_number_outlives_its_socket_until_the_flush, a_thousand_sockets_with_a_trickle_each,
                a_busy_socket_starves_no_other);
            conformance!(@ $made, slab:
                sends_what_was_composed, a_composed_train_leaves_as_one, room_is_left_at_every_split,
                what_is_kept_stays_until_the_flush);
            conformance!(@linux $made, overload: a_full_send_buffer_loses_nothing_silently);
            conformance!(@linux $made, sockets: a_thousand_idle_sockets_cost_nothing, offloads_are_those_of_the_sockets);
            conformance!(@linux $made, address:
                ecn_travels_with_what_is_forwarded, dscp_travels_where_the_engine_reports_it,
                answers_leave_from_the_address_that_was_asked);
            conformance!(@linux $made, inside:
                reads_and_writes_the_interface, an_interface_has_its_addresses_and_vanishes,
                a_second_interface_takes_the_next_name);
            conformance!(@linux $made, allocations: forwarding_allocates_nothing);
        }
    };
    // What the test asks of the system, or promises, is Linux's own.
    (@linux $made:ty, $topic:ident: $($test:ident),* $(,)?) => {
        $(#[cfg(target_os = "linux")]
        #[test]
        fn $test() {
            $topic::$test::<$made>();
        })*
    };
    (@ $made:ty, $topic:ident: $($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            $topic::$test::<$made>();
        })*
    };
}

conformance!(portable: Portable);
#[cfg(target_os = "linux")]
conformance!(mmsg: Mmsg);
#[cfg(target_os = "linux")]
conformance!(uring: Uring);

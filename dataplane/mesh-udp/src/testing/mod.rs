//! What an engine of Linux must do, shown with real sockets: tests that are written once and run against each engine.
//!
//! A test file of an engine makes it known by [`tested_engine!`](crate::tested_engine) and takes the lists
//! [`loopback_tests!`](crate::loopback_tests) and [`private_network_tests!`](crate::private_network_tests). What is true of one engine
//! alone is tested beside it, with the helpers of this module. What a caller sees through the trait of `mesh-node` is in the
//! conformance tests there; here is what lies below it: how much goes into one send, what is counted, what is held.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]
#![expect(missing_docs, reason = "the name of a test says what it shows")]

pub mod buffers;
pub mod inside;
pub mod private;
pub mod refused;
pub mod sockets;
pub mod sys;
pub mod tokens;
pub mod trains;
pub mod waits;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::socket::SocketBuffers;
use crate::{Counters, Endpoint, Origin, Scratch, SocketId, Train, Waker};

pub use sys::set_int;

/// Longer than anything here takes on a slow machine; a test that waits for it fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An engine small enough to be filled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Trains that can be the caller's at one time.
    pub trains: Option<u16>,
    /// Receive buffer of each socket, in bytes.
    pub receive_bytes: Option<u32>,
    /// Send buffer of each socket, in bytes.
    pub send_bytes: Option<u32>,
    /// Every datagram is received and sent alone.
    pub alone: bool,
}

/// An engine under test; its functions are those of both engines.
pub trait Engine: Sized {
    /// System calls of a turn that receives one train and sends it on, at most.
    const CALLS_OF_A_TURN: u64;

    fn make(limits: Limits) -> Self;
    fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId>;
    fn remove_socket(&mut self, socket: SocketId) -> io::Result<()>;
    fn socket_buffers(&self, socket: SocketId) -> Option<SocketBuffers>;
    fn offloads(&self) -> (bool, bool);
    fn add_inside(&mut self, device: OwnedFd) -> io::Result<()>;
    fn waker(&self) -> Waker;
    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()>;
    fn split<'a>(&'a mut self, train: &'a mut Train) -> (&'a mut [u8], Scratch<'a>);
    fn slab(&mut self) -> Scratch<'_>;
    fn keep_slab(&mut self, used: usize);
    fn forward(&mut self, train: &Train, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8);
    fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8);
    fn deliver(&mut self, train: &Train, bytes: Range<usize>);
    fn deliver_more(&mut self, train: &Train, bytes: Range<usize>);
    fn deliver_slab(&mut self, slab: Range<usize>);
    fn release(&mut self, train: Train);
    fn flush(&mut self);
    fn counters(&self) -> Counters;
}

/// Wraps an engine for the tests: `tested_engine!(Tested(mesh_x::Engine), calls: 2, make: function of Limits, flush: function)`.
#[macro_export]
macro_rules! tested_engine {
    ($name:ident($engine:ty), calls: $calls:literal, make: $make:expr, flush: $flush:expr) => {
        pub(crate) struct $name(pub(crate) $engine);

        impl $crate::testing::Engine for $name {
            const CALLS_OF_A_TURN: u64 = $calls;

            fn make(limits: $crate::testing::Limits) -> Self {
                Self($make(limits))
            }

            fn add_socket(
                &mut self,
                socket: std::net::UdpSocket,
                local_address: bool,
            ) -> std::io::Result<$crate::SocketId> {
                self.0.add_socket(socket, local_address)
            }

            fn remove_socket(&mut self, socket: $crate::SocketId) -> std::io::Result<()> {
                self.0.remove_socket(socket)
            }

            fn socket_buffers(&self, socket: $crate::SocketId) -> Option<$crate::socket::SocketBuffers> {
                self.0.socket_buffers(socket)
            }

            fn offloads(&self) -> (bool, bool) {
                self.0.offloads()
            }

            fn add_inside(&mut self, device: std::os::fd::OwnedFd) -> std::io::Result<()> {
                self.0.add_inside(device)
            }

            fn waker(&self) -> $crate::Waker {
                self.0.waker()
            }

            fn wait(
                &mut self,
                timeout: Option<std::time::Duration>,
                batch: &mut Vec<$crate::Train>,
            ) -> std::io::Result<()> {
                self.0.wait(timeout, batch)
            }

            fn split<'a>(&'a mut self, train: &'a mut $crate::Train) -> (&'a mut [u8], $crate::Scratch<'a>) {
                self.0.split(train)
            }

            fn slab(&mut self) -> $crate::Scratch<'_> {
                self.0.slab()
            }

            fn keep_slab(&mut self, used: usize) {
                self.0.keep_slab(used);
            }

            fn forward(
                &mut self,
                train: &$crate::Train,
                bytes: std::ops::Range<usize>,
                segment_bytes: usize,
                to: &$crate::Endpoint,
                tos: u8,
            ) {
                self.0.forward(train, bytes, segment_bytes, to, tos);
            }

            fn send(&mut self, slab: std::ops::Range<usize>, segment_bytes: usize, to: &$crate::Endpoint, tos: u8) {
                self.0.send(slab, segment_bytes, to, tos);
            }

            fn deliver(&mut self, train: &$crate::Train, bytes: std::ops::Range<usize>) {
                self.0.deliver(train, bytes);
            }

            fn deliver_more(&mut self, train: &$crate::Train, bytes: std::ops::Range<usize>) {
                self.0.deliver_more(train, bytes);
            }

            fn deliver_slab(&mut self, slab: std::ops::Range<usize>) {
                self.0.deliver_slab(slab);
            }

            fn release(&mut self, train: $crate::Train) {
                self.0.release(train);
            }

            fn flush(&mut self) {
                $flush(&mut self.0);
            }

            fn counters(&self) -> $crate::Counters {
                self.0.counters()
            }
        }
    };
}

/// The tests that need no more than the loopback, as functions of one engine.
#[macro_export]
macro_rules! loopback_tests {
    ($engine:ty) => {
        $crate::loopback_tests!(@ $engine, trains:
            a_datagram_comes_back, a_train_comes_and_goes_whole, single_datagrams_are_gathered_into_one_send_in_order,
            a_train_is_cut_where_its_destination_changes, a_send_ends_where_length_tos_or_source_change,
            without_offload_every_datagram_is_a_send, bytes_leave_as_they_were_at_the_flush,
            the_slab_never_runs_out_within_a_turn, an_empty_datagram_is_a_train_and_does_not_end_the_receive,
            the_longest_datagram_and_the_longest_train_pass, more_than_one_send_carries_is_several,
            many_destinations_in_one_batch_all_get_theirs, histograms_tell_what_was_received_and_sent);
        $crate::loopback_tests!(@ $engine, refused:
            what_is_too_long_is_counted_and_harms_nothing_else, what_cannot_be_reached_is_counted,
            one_refused_send_of_many_takes_no_other_with_it, an_icmp_error_ends_neither_receive_nor_send,
            what_the_kernel_cut_is_counted_and_its_buffer_comes_back);
        $crate::loopback_tests!(@ $engine, buffers:
            with_all_buffers_out_nothing_spins_and_nothing_is_lost, trains_may_come_back_in_any_order,
            a_batch_has_its_bound_and_what_is_beyond_comes_next, a_train_is_kept_over_many_turns,
            a_flooded_socket_leaves_others_buffers_and_short_turns, flooded_sockets_take_turns,
            what_the_kernel_drops_is_counted_and_not_forgotten_with_its_socket);
        $crate::loopback_tests!(@ $engine, sockets:
            tos_and_the_address_that_was_asked_travel_on_every_family,
            a_source_that_the_system_would_choose_is_kept_as_well_as_another,
            thousands_of_sockets_are_added_fast_and_all_receive,
            a_removed_socket_frees_its_port_and_its_number_comes_back_after_the_flush,
            what_is_for_a_removed_socket_is_counted, dropping_the_engine_frees_its_ports_at_once,
            an_engine_says_what_buffers_its_sockets_got);
        $crate::loopback_tests!(@ $engine, waits:
            the_waker_ends_the_wait_at_hand_or_the_next_one, a_wait_without_news_lasts_as_long_as_it_was_told,
            a_turn_under_load_costs_few_calls, waiting_for_nothing_costs_one_call, a_flush_of_nothing_costs_no_call,
            what_was_queued_leaves_by_the_next_wait);
        $crate::loopback_tests!(@ $engine, tokens:
            a_train_of_another_engine_is_refused, a_range_beyond_its_train_is_refused,
            a_range_beyond_the_slab_is_refused, a_train_that_is_forgotten_is_noticed);
    };
    (@ $engine:ty, $topic:ident: $($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            $crate::testing::$topic::$test::<$engine>();
        })*
    };
}

/// The tests that need interfaces of their own, as functions of one engine. Each runs itself again under `unshare` (util-linux), which
/// needs no root where user namespaces are allowed. To be used in the root of a test program.
#[macro_export]
macro_rules! private_network_tests {
    ($engine:ty) => {
        $crate::private_network_tests!(@ $engine, inside:
            packets_of_many_pieces_arrive_whole_and_in_order_among_others,
            a_packet_goes_on_after_more_sends_than_one_round_takes,
            a_packet_of_too_many_pieces_is_refused_and_one_of_a_dropped_beginning_counts_once,
            packets_that_the_interface_refuses_are_counted_once_each,
            a_tcp_superpacket_of_many_pieces_arrives_bit_exact, a_udp_superpacket_is_one_train_behind_its_header,
            the_longest_packet_comes_and_goes_with_its_header);
        $crate::private_network_tests!(@ $engine, private:
            packets_come_from_the_interface_and_go_back_to_it,
            a_full_send_buffer_holds_a_few_and_drops_the_rest_in_bounded_time,
            held_sends_are_given_up_in_the_middle_of_a_wait, held_sends_leave_in_order_when_there_is_room_again,
            held_sends_leave_as_far_as_there_is_room, a_stuck_socket_delays_no_other,
            a_stuck_socket_can_be_removed_and_an_engine_with_one_dropped,
            segments_longer_than_the_link_takes_are_counted_and_a_short_tail_passes,
            a_socket_that_may_not_cut_falls_back_to_single_datagrams);
    };
    (@ $engine:ty, $topic:ident: $($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            if $crate::testing::private::entered(stringify!($test)) {
                $crate::testing::$topic::$test::<$engine>();
            }
        })*
    };
}

/// An engine as large as the default.
pub fn engine<E: Engine>() -> E {
    E::make(Limits::default())
}

/// Adds a socket on the loopback and returns its number and address.
pub fn add<E: Engine>(engine: &mut E) -> (SocketId, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (engine.add_socket(socket, false).unwrap(), address)
}

/// A plain socket on the loopback that gives up after a while.
pub fn peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The endpoint of a plain socket, seen from one of the engine's.
pub fn endpoint(socket: SocketId, peer: &UdpSocket) -> Endpoint {
    Endpoint { socket, remote: peer.local_addr().unwrap(), local: None }
}

/// The endpoint that a train came from.
pub fn origin(train: &Train) -> Endpoint {
    match train.origin() {
        Origin::Outside(from) => from,
        Origin::Inside => panic!("a train from the network"),
    }
}

/// Sends `bytes` from a plain socket cut every `segment` by the kernel: they arrive as one train.
pub fn send_train(socket: &UdpSocket, bytes: &[u8], segment: u16, to: SocketAddr) {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(segment));
    assert_eq!(socket.send_to(bytes, to).unwrap(), bytes.len());
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0);
}

/// Writes into the slab behind what is used, and keeps it; where it lies.
pub fn compose<E: Engine>(engine: &mut E, bytes: &[u8]) -> Range<usize> {
    let scratch = engine.slab();
    let range = scratch.used..scratch.used + bytes.len();
    scratch.memory[range.clone()].copy_from_slice(bytes);
    engine.keep_slab(range.end);
    range
}

/// The next datagram that a plain socket receives.
pub fn receive(peer: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let length = peer.recv(&mut buffer).expect("a datagram that was sent arrives");
    buffer.truncate(length);
    buffer
}

/// Whether nothing has arrived at a plain socket.
pub fn is_quiet(peer: &UdpSocket) -> bool {
    peer.set_nonblocking(true).unwrap();
    let nothing = peer.recv(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    peer.set_nonblocking(false).unwrap();
    nothing
}

/// Runs turns until `done` of the engine; `each` sees every train.
pub fn turns_until<E: Engine>(
    engine: &mut E,
    mut each: impl FnMut(&mut E, &mut Train),
    mut done: impl FnMut(&E) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    let mut batch = Vec::new();
    while !done(engine) {
        assert!(Instant::now() < end, "waited in vain: {:?}", engine.counters());
        engine.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
        for mut train in batch.drain(..) {
            each(engine, &mut train);
            engine.release(train);
        }
        engine.flush();
    }
}

/// Waits until so many trains are the caller's.
pub fn take<E: Engine>(engine: &mut E, trains: usize) -> Vec<Train> {
    let end = Instant::now() + PATIENCE;
    let mut batch = Vec::new();
    while batch.len() < trains {
        assert!(Instant::now() < end, "waited in vain: {:?}", engine.counters());
        engine.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
    }
    batch
}

/// Sends every train back to where it came from.
pub fn echo<E: Engine>(engine: &mut E, train: &mut Train) {
    let from = origin(train);
    engine.forward(train, 0..train.len(), train.segment_bytes(), &from, train.tos());
}

/// Turns that echo until `datagrams` went out.
pub fn echo_until<E: Engine>(engine: &mut E, datagrams: u64) {
    turns_until(engine, echo, |engine| engine.counters().datagrams_out >= datagrams);
}

/// Forwards whole trains to one place until `datagrams` went out.
pub fn forward_until<E: Engine>(engine: &mut E, to: &Endpoint, datagrams: u64) {
    turns_until(
        engine,
        |engine, train| engine.forward(train, 0..train.len(), train.segment_bytes(), to, 0),
        |engine| engine.counters().datagrams_out >= datagrams,
    );
    assert_eq!(engine.counters().datagrams_out, datagrams);
}

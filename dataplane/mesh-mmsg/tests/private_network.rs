//! The engine against a real TUN interface and a link that takes nothing, in a network namespace of the test's own.
#![cfg(target_os = "linux")]

mod common;

use common::Tested;

mesh_udp::private_network_tests!(Tested);

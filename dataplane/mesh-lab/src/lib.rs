//! A laboratory of hosts, links, routers and captures in network namespaces private to the run.
//!
//! Tests, the demo and the bench run real programs on real packets in it, without touching the machine's network and
//! without any program but those under test: no `ip`, no `ping`; only NAT and firewalls need `nft`.
//!
//! ```no_run
//! use mesh_lab::{Lab, Ping};
//!
//! #[test]
//! fn router_forwards() {
//!     mesh_lab::isolated(|| {
//!         let lab = Lab::new("router_forwards")?;
//!         let (a, r, b) = (lab.host("a")?, lab.router("r")?, lab.host("b")?);
//!         let left = lab.link(&a, &r, &["10.1.0.0/24"])?; // a has 10.1.0.1, r has 10.1.0.2
//!         let right = lab.link(&b, &r, &["10.2.0.0/24"])?;
//!         a.default_route(left.b().addresses()[0].address())?;
//!         b.default_route(right.b().addresses()[0].address())?;
//!         assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
//!         Ok(())
//!     });
//! }
//! ```
//!
//! # The private world
//! Everything lives in namespaces of one process: [`isolated`] puts the body of a test there, [`enter`] a program.
//! It is made of a user namespace (unless root runs it), a network, a mount and a process-id namespace, with an empty
//! `/run`. Inside, the process is root over them and over nothing else.
//!
//! # A host
//! A [`Host`] is a network namespace and a mount namespace, held by two file descriptors. The laboratory runs
//! closures ([`Host::run`]) and programs ([`Host::command`], [`Host::spawn`]) in it, and connects it by cables
//! ([`Lab::link`]) and switches ([`Lab::lan`]).
//!
//! # A link like a real one
//! A veth pair passes trains of packets uncut, which few networks do. [`Link::set_mode`] makes it like a bare wire or
//! like a common card, [`Interface::steer_receive`] chooses the CPUs that take what arrives.
//!
//! [`Lab::emulated_link`] makes a link with delay, jitter, loss and rate ([`Emulation`]), which can be changed while
//! it runs. A namespace between the hosts holds an emulator: a thread for each direction forwards frames from one
//! packet socket to another, trains and unfinished checksums as they come. It needs no module of the kernel
//! (`sch_netem`), takes no CPU while nothing passes, and holds at most 256 MiB of frames for each direction.
//!
//! # What lies between
//! [`Internet`] builds the usual scene of NAT traversal: servers, and sites behind routers, near and far. A router
//! translates addresses ([`Interface::set_nat`], [`Nat`]) or lets in answers only ([`Interface::set_firewall`]),
//! forgets its mappings ([`Host::forget_flows`], [`Host::set_udp_timeout`]), and drops datagrams ([`Host::drop_udp`],
//! [`Udp`]) until told otherwise.
//!
//! # The end
//! Nothing has to be cleaned up, so nothing can be left behind. Namespaces hang on descriptors, and these on the
//! process: the kernel frees them however it ends. Programs are killed when their [`Process`] is dropped, and all
//! processes of the world when its first one ends, `SIGKILL` included. Where a process-id namespace is refused, a
//! program is killed when the laboratory's process dies, but its own children are not.
//!
//! # What it needs
//! - As root: `CAP_SYS_ADMIN` (a container must be given it).
//! - Else user namespaces: `user.max_user_namespaces` above 0, `kernel.unprivileged_userns_clone` = 1 and
//!   `kernel.apparmor_restrict_unprivileged_userns` = 0 where these exist. `MESH_LAB_USER_NS=1` makes root take this
//!   way too.
//! - For programs with a TUN interface: `/dev/net/tun` readable and writable ([`Host::check_tun`]).
//! - The kernel's `veth` and `bridge`, built in or as loaded modules.
//! - For NAT, firewalls and rules that drop: the program `nft` (Debian package `nftables`), and the kernel's
//!   `nf_tables`, `nf_nat` and `nf_conntrack_netlink` with what `nft` loads of them.
//! - Root of the machine, in no user namespace, for [`LinkMode::Nic`] and [`Interface::steer_receive`]: the kernel
//!   refuses `gro_flush_timeout` and `rps_cpus` to everybody else.
//! - Linux 6.2 for UDP trains through an emulated link; older kernels have them refused there ([`LinkMode::Wire`] cuts
//!   them before).
//!
//! What is refused is reported with the knob that allows it.
#![cfg(target_os = "linux")]

mod capture;
mod conntrack;
mod copy;
mod emulation;
mod emulator;
mod ethtool;
mod firewall;
mod host;
mod internet;
mod interrupts;
mod lab;
mod link;
mod listing;
mod mode;
mod netlink;
mod nft;
mod packets;
mod pause;
mod ping;
mod process;
mod random;
mod sys;
mod world;

pub use nix::errno::Errno;
pub use nix::sys::signal::Signal;

pub use capture::{Capture, Frame, Injector, Recording};
pub use copy::{CopyReport, tcp_copy};
pub use emulation::Emulation;
pub use emulator::{EmulatedLink, EmulationCounters};
pub use firewall::{DropRule, Nat, Udp};
pub use host::Host;
pub use internet::{Carrier, Internet, Server, Site, SitePlan, Uplink};
pub use interrupts::pass_interrupts_on;
pub use lab::Lab;
pub use link::{Interface, Lan, Link, Net};
pub use listing::InterfaceInfo;
pub use mode::LinkMode;
pub use pause::pause;
pub use ping::{Ping, PingFailure, PingReport};
pub use process::Process;
pub use world::{enter, inside, isolated};

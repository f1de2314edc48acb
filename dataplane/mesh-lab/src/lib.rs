//! A laboratory of hosts, links, routers and captures in network namespaces private to the run.
//!
//! Tests, the demo and the bench run real programs on real packets in it, without touching the machine's network and
//! without any program but those under test: no `ip`, no `ping`.
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
//!
//! What is refused is reported with the knob that allows it.
#![cfg(target_os = "linux")]

mod capture;
mod copy;
mod host;
mod lab;
mod link;
mod listing;
mod netlink;
mod ping;
mod process;
mod sys;
mod world;

pub use nix::errno::Errno;
pub use nix::sys::signal::Signal;

pub use capture::{Capture, Frame, Injector, Recording};
pub use copy::{CopyReport, tcp_copy};
pub use host::Host;
pub use lab::Lab;
pub use link::{Interface, Lan, Link, Net};
pub use listing::InterfaceInfo;
pub use ping::{Ping, PingFailure, PingReport};
pub use process::Process;
pub use world::{enter, inside, isolated};

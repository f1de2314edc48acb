//! The systems: ours, rivals written here, the kernel, and programs of others.
//!
//! Every one gets the ports of its number, one processor for all its programs and threads, and ten seconds to start.

mod coturn;
mod kernel;
mod nginx;
mod ours;
mod program;
mod quilkin;
mod rivals;
mod socat;
mod turn;
mod turn_server;

pub use ours::{Ours, Transfer};

use super::System;
use crate::rivals::Rival;

/// Stands for every system that is `uring` without one of its techniques.
pub const ABLATIONS: &str = "ablations";

/// Whether a system is ours without one of its techniques.
pub fn is_ablation(name: &str) -> bool {
    ours::ABLATIONS.contains(&name)
}

/// Whether a system is measured only if it is asked for by name: the check of a rival, ours on other processors, other builds of ours,
/// and ours without one of its techniques.
pub fn is_on_request(name: &str) -> bool {
    [rivals::RECVMMSG_C, ours::SPREAD, ours::BESIDE].contains(&name)
        || ours::OTHER_NAMES.contains(&name)
        || is_ablation(name)
}

/// Every system there is, in the order to show.
pub fn all() -> Vec<Box<dyn System>> {
    let ours_without = (0..ours::ABLATIONS.len()).map(|number| Box::new(Ours::Without(number)) as Box<dyn System>);
    let mut systems: Vec<Box<dyn System>> = vec![
        Box::new(Ours::Uring),
        Box::new(Ours::Mmsg),
        Box::new(Ours::Portable),
        Box::new(Ours::Spread),
        Box::new(Ours::Beside),
        Box::new(Ours::Other(0)),
        Box::new(Ours::Other(1)),
        Box::new(Ours::Other(2)),
        Box::new(rivals::Written(Rival::Recvmmsg)),
        Box::new(rivals::RecvmmsgC),
        Box::new(rivals::Written(Rival::Recvfrom)),
        Box::new(rivals::Written(Rival::Epoll)),
        Box::new(rivals::Written(Rival::Tokio)),
        Box::new(rivals::Written(Rival::TokioUring)),
        Box::new(kernel::Kernel::Nat),
        Box::new(kernel::Kernel::Stateless),
        Box::new(coturn::Coturn),
        Box::new(turn_server::TurnServer),
        Box::new(nginx::Nginx),
        Box::new(socat::Socat),
        Box::new(quilkin::Quilkin),
    ];
    systems.extend(ours_without);
    systems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Cell;

    #[test]
    fn names_are_distinct_and_fit_a_command_line() {
        let mut names: Vec<_> = all().iter().map(|system| system.name()).collect();
        for name in &names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name:?}");
        }
        let on_request = names.iter().filter(|name| is_on_request(name)).count();
        assert_eq!(on_request, 3 + ours::OTHER_NAMES.len() + ours::ABLATIONS.len());
        assert!(!names.contains(&ABLATIONS), "that is none of them");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn who_cannot_do_a_cell_says_why() {
        let able = |cell: &str| -> Vec<_> {
            let cell: Cell = cell.parse().unwrap();
            let able = all().into_iter().filter(|system| system.unable(&cell).is_none());
            able.map(|system| system.name()).filter(|name| !is_ablation(name)).collect()
        };
        let one: Vec<_> = all().iter().map(|system| system.name()).filter(|name| !is_ablation(name)).collect();
        assert_eq!(able("wire-1200-b1-f1-n1"), one);
        let many_ports = [
            "uring",
            "mmsg",
            "portable",
            "uring-spread",
            "uring-beside",
            "other",
            "other-two",
            "other-three",
            "epoll",
            "tokio",
            "tokio-uring",
            "nft",
            "nft-stateless",
        ];
        assert_eq!(able("wire-64-b1-f1000-n1000"), many_ports);
        assert_eq!(able("wire-64-b1-f32-n32"), [&many_ports[..], &["nginx"]].concat());
        let mut many_flows = one;
        many_flows.retain(|name| !["nginx", "socat", "quilkin"].contains(name));
        assert_eq!(able("wire-64-b1-f1000-n1"), many_flows);
    }
}

//! How long a box remembers.

use std::time::Duration;

use mesh_core::seam::Moment;

/// How long a NAT or firewall remembers what passed. What goes out always starts the time anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// While nothing has come back.
    pub unanswered: Duration,
    /// Once something has.
    pub answered: Duration,
    /// Whether what comes in starts the time anew too.
    pub inbound_refreshes: bool,
}

impl Timeouts {
    /// As Linux has them: 30 s, and 120 s for a flow seen in both directions, either of which refreshes it.
    pub const LINUX: Self =
        Self { unanswered: Duration::from_secs(30), answered: Duration::from_secs(120), inbound_refreshes: true };

    /// The same time for all, which only what goes out refreshes.
    pub const fn outbound_only(time: Duration) -> Self {
        Self { unanswered: time, answered: time, inbound_refreshes: false }
    }

    /// When something that is used at `now` is forgotten.
    pub(super) fn end(&self, now: Moment, answered: bool) -> Moment {
        now + if answered { self.answered } else { self.unanswered }
    }
}

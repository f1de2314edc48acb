//! Going without a technique, to see what it is worth.
//!
//! A build with the feature `ablation` can be told to leave techniques out, one by one. No other build can: there [`Without`] holds
//! nothing, every question is answered with `false` by the compiler, and the branches are not in the program.

/// What makes an engine fast, and can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Technique {
    /// `UDP_GRO`: a train is received whole.
    Gro,
    /// `UDP_SEGMENT`: several datagrams are sent at once, those of a train and those that are gathered.
    Gso,
    /// Datagrams that came one by one leave together (`gather.rs`). Trains still leave as they came.
    Gather,
    /// Waits let trains gather for a while (`pace.rs` of the ring).
    Pace,
    /// The call that waits submits what the turn before queued.
    FlushWithWait,
    /// A datagram alone is sent by `SEND`, not `SENDMSG`.
    OpSend,
    /// The buffer given back last is the next to be used, not the one given back first.
    Lifo,
    /// As many buffers are in rotation as the cache holds trains (`working_set.rs`), not all there are.
    Shallow,
    /// A send tells its source address only where the system would choose another (`sources.rs`).
    Sources,
    /// Quiet sockets first (`fair.rs`).
    Fair,
    /// Completions run when the engine waits for them (`IORING_SETUP_DEFER_TASKRUN`).
    DeferTaskrun,
    /// The ring is found without its descriptor (`IORING_REGISTER_RING_FDS`).
    RingFd,
}

impl Technique {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::Gro,
        Self::Gso,
        Self::Gather,
        Self::Pace,
        Self::FlushWithWait,
        Self::OpSend,
        Self::Lifo,
        Self::Shallow,
        Self::Sources,
        Self::Fair,
        Self::DeferTaskrun,
        Self::RingFd,
    ];

    /// What it is called: lower case and hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gro => "gro",
            Self::Gso => "gso",
            Self::Gather => "gather",
            Self::Pace => "pace",
            Self::FlushWithWait => "flush-with-wait",
            Self::OpSend => "op-send",
            Self::Lifo => "lifo",
            Self::Shallow => "shallow",
            Self::Sources => "sources",
            Self::Fair => "fair",
            Self::DeferTaskrun => "defer-taskrun",
            Self::RingFd => "ring-fd",
        }
    }
}

/// The techniques that are left out: none, unless the feature `ablation` is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// A bit for each.
    #[cfg(feature = "ablation")]
    techniques: u32,
}

impl Without {
    /// Whether this one is left out.
    #[inline(always)]
    pub const fn technique(self, technique: Technique) -> bool {
        #[cfg(feature = "ablation")]
        let left_out = self.techniques >> technique as u32 & 1 != 0;
        #[cfg(not(feature = "ablation"))]
        let left_out = {
            _ = technique;
            false
        };
        left_out
    }
}

#[cfg(feature = "ablation")]
impl Without {
    /// Leaves one more out.
    #[must_use]
    pub fn and(self, technique: Technique) -> Self {
        Self { techniques: self.techniques | 1 << technique as u32 }
    }

    /// Reads names that are joined by commas; no names are none.
    ///
    /// # Errors
    /// A name that there is not, and those there are.
    pub fn parse(names: &str) -> Result<Self, String> {
        let mut without = Self::default();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let technique = Technique::ALL.into_iter().find(|technique| technique.name() == name).ok_or_else(|| {
                let known: Vec<_> = Technique::ALL.iter().map(|technique| technique.name()).collect();
                format!("no technique {name:?}; there are {}", known.join(", "))
            })?;
            without = without.and(technique);
        }
        Ok(without)
    }
}

#[cfg(test)]
mod tests {
    use super::{Technique, Without};

    #[test]
    fn nothing_is_left_out_of_what_is_not_told_so() {
        assert!(Technique::ALL.iter().all(|technique| !Without::default().technique(*technique)));
        // Builds that are shipped hold not even the place for it.
        assert_eq!(size_of::<Without>() == 0, !cfg!(feature = "ablation"));
    }

    #[cfg(feature = "ablation")]
    #[test]
    fn names_are_read_and_wrong_ones_refused() {
        for technique in Technique::ALL {
            let without = Without::parse(technique.name()).unwrap();
            let left_out = Technique::ALL.into_iter().filter(|other| without.technique(*other));
            assert!(left_out.eq([technique]), "{}", technique.name());
        }
        let two = Without::parse("gro,pace").unwrap();
        assert_eq!(two, Without::default().and(Technique::Pace).and(Technique::Gro));
        assert_eq!(Without::parse(""), Ok(Without::default()));
        assert!(Without::parse("gro,grow").unwrap_err().contains("no technique \"grow\"; there are gro, gso, gather"));
    }
}

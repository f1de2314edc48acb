//! What processors and the kernel spent: processor time of programs, busy time of cores, and counts of kernel events.
//!
//! Two costs are told apart and never mixed. The *process cost* is the processor time of a relay's own threads, exact to
//! microseconds; the softirqs that receive for it run on the sender's core and are not in it. The *core cost* is the busy time of the
//! relay's core with all receive work steered there; it is read from `/proc/stat`, in ticks of 10 ms.

pub mod events;
pub mod processor;
pub mod program;

pub use events::Events;
pub use processor::{Busy, busy};
pub use program::processor_time;

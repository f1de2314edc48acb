//! The only place of the data plane that reads a clock.

use mesh_core::seam::Moment;

/// The time since boot, suspend included (`CLOCK_BOOTTIME`; through the vDSO, so no system call).
pub fn now() -> Moment {
    Moment::from_nanos(crate::imp::boot_nanos())
}

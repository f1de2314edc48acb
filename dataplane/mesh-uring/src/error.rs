//! Why an engine could not be made, and what to turn so that it can.

use std::{fmt, io};

/// The reason why this machine gives no ring. Its text is one line that names the cause and the remedy.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// The administrator switched io_uring off: `kernel.io_uring_disabled` holds this value (1: for all but its group, 2: for all).
    Disabled(u8),
    /// The kernel answered "not permitted" although io_uring is on: a seccomp filter (containers) or a security module.
    Refused,
    /// There is no such system call: a kernel older than 5.1, built without it, or a seccomp filter that says so.
    Missing,
    /// The kernel lacks what the engine cannot do without.
    TooOld(&'static str),
    /// Memory for the rings was refused, as a rule by the limit of locked memory (`RLIMIT_MEMLOCK`).
    Memory(io::Error),
    /// The limit of open files (`RLIMIT_NOFILE`) leaves no room.
    Files(io::Error),
    /// Anything else, with the step that failed.
    Other(&'static str, io::Error),
}

impl SetupError {
    /// Sorts the failure of `io_uring_setup` or of a registration.
    pub(crate) fn from_setup(step: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
                Some(value @ 1..) => Self::Disabled(value),
                Some(0) | None => Self::Refused,
            },
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::ENOMEM) => Self::Memory(error),
            Some(libc::EMFILE | libc::ENFILE) => Self::Files(error),
            Some(libc::EINVAL) => Self::TooOld(step),
            _ => Self::Other(step, error),
        }
    }
}

/// The value of `kernel.io_uring_disabled`; `None` where the kernel has no such knob.
fn disabled_by_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(value) => {
                write!(f, "io_uring is disabled (kernel.io_uring_disabled={value}); set it to 0")
            }
            Self::Refused => write!(
                f,
                "io_uring is not permitted here (a seccomp filter or security module refuses io_uring_setup); \
                 allow the io_uring system calls in the container's profile"
            ),
            Self::Missing => write!(
                f,
                "io_uring is missing (kernel without CONFIG_IO_URING, or hidden by a seccomp filter); use Linux 6.0 or later"
            ),
            Self::TooOld(what) => write!(f, "the kernel is too old for io_uring with {what}; use Linux 6.0 or later"),
            Self::Memory(error) => {
                write!(
                    f,
                    "io_uring got no memory for its rings ({error}); raise the limit of locked memory (ulimit -l)"
                )
            }
            Self::Files(error) => {
                write!(f, "io_uring got no file table ({error}); raise the limit of open files (ulimit -n)")
            }
            Self::Other(step, error) => write!(f, "io_uring: {step}: {error}"),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Memory(error) | Self::Files(error) | Self::Other(_, error) => Some(error),
            Self::Disabled(_) | Self::Refused | Self::Missing | Self::TooOld(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::SetupError;

    #[test]
    fn each_cause_names_its_knob() {
        let text = |code| SetupError::from_setup("a step", io::Error::from_raw_os_error(code)).to_string();
        assert!(text(libc::ENOSYS).contains("Linux 6.0"));
        assert!(text(libc::EINVAL).contains("a step") && text(libc::EINVAL).contains("Linux 6.0"));
        assert!(text(libc::ENOMEM).contains("ulimit -l"));
        assert!(text(libc::EMFILE).contains("ulimit -n"));
        assert!(text(libc::EIO).contains("a step"));
        // Which of the two is the cause depends on the machine's own knob.
        let refused = text(libc::EPERM);
        assert!(refused.contains("seccomp") || refused.contains("kernel.io_uring_disabled"), "{refused}");
        assert!(SetupError::Disabled(2).to_string().contains("kernel.io_uring_disabled=2"));
    }
}

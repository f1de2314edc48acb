//! What the shell asks of Linux: clock, limits, affinity, names, places.

#[path = "linux/privileges.rs"]
mod privileges;

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, geteuid};
use socket2::Socket;

pub(crate) use privileges::give_up as give_up_privileges;

/// Nanoseconds on the boot clock.
pub(crate) fn boot_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had this clock since 2.6.39");
    let nanos = Duration::from(time).as_nanos();
    u64::try_from(nanos).expect("584 years are not over")
}

/// The host's name; empty where it has none.
pub(crate) fn host_name() -> String {
    uname().map(|system| system.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether the program runs as root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Raises the limit of open files to `wanted` or as far as it goes, and says where it ended.
pub(crate) fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted {
        return Ok(soft);
    }
    // Root may lift the hard limit too; anyone else gets what it leaves.
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    let reachable = wanted.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, reachable, hard)?;
    Ok(reachable)
}

/// The processors this process may run on, in their order.
pub(crate) fn processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    let processors: Vec<usize> = (0..CpuSet::count()).filter(|&index| set.is_set(index).unwrap_or(false)).collect();
    if processors.is_empty() { vec![0] } else { processors }
}

/// Ties the calling thread to one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Ties a fresh socket to the interface of this number.
pub(crate) fn tie(socket: &Socket, v6: bool, interface: u32) -> io::Result<()> {
    mesh_udp::device::tie(socket.as_fd(), v6, interface).map(drop)
}

/// Where keys are kept unless someone says otherwise: root has one place for the machine, everyone else one of their own.
pub(crate) fn state_directory() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/var/lib/easymesh"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("easymesh"))
}

/// Where the sockets of running programs may lie, best first.
pub(crate) fn runtime_directories() -> Vec<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // systemd may name several directories, separated by colons.
    let given = std::env::var("RUNTIME_DIRECTORY").ok();
    let given =
        given.as_deref().and_then(|all| all.split(':').next()).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_root = is_root().then(|| PathBuf::from("/run/easymesh"));
    let of_user = absolute("XDG_RUNTIME_DIR").map(|path| path.join("easymesh"));
    let of_state = state_directory().map(|path| path.join("run"));
    [given, of_root, of_user, of_state].into_iter().flatten().collect()
}

//! Every call of this crate that the compiler cannot check.
//!
//! Two kinds: what a child process does between `fork` and `exec` (new namespaces, entering a host), and the
//! options of packet sockets that `nix` has no safe call for. The functions are safe for every argument; the
//! blocks say why.
#![expect(unsafe_code, reason = "code between fork and exec, and packet socket options without a safe wrapper")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlink};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, getcwd, getppid, pipe2};

/// Where the private world notes that it is one; see [`crate::inside`].
pub(crate) const WORLD_MARK: &str = "/run/mesh-lab-world";

const NO_DATA: Option<&str> = None;

/// What a child was doing when the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Unshare = 1,
    MapUser,
    Fork,
    PrivateMounts,
    RunTmpfs,
    Proc,
    Exec,
}

impl Step {
    pub(crate) fn from_byte(byte: u8) -> Option<Step> {
        [Step::Unshare, Step::MapUser, Step::Fork, Step::PrivateMounts, Step::RunTmpfs, Step::Proc, Step::Exec]
            .into_iter()
            .find(|step| *step as u8 == byte)
    }
}

/// The namespaces a child gets before it executes its program.
pub(crate) struct Isolation {
    /// `uid_map` and `gid_map` lines of a new user namespace; `None` keeps the present one (root only).
    pub(crate) user_maps: Option<(String, String)>,
    /// A new process-id namespace with an init of its own, so that no process outlives the child.
    pub(crate) pid_namespace: bool,
    /// The process that waits for the child.
    pub(crate) parent: u32,
    /// Receives a byte before every step, so that the parent can name the one that failed.
    pub(crate) progress: OwnedFd,
}

impl Isolation {
    /// Makes `command` start in the namespaces described here.
    pub(crate) fn apply(self, command: &mut Command) {
        let mut progress = File::from(self.progress);
        let (user_maps, pid_namespace, parent) = (self.user_maps, self.pid_namespace, self.parent);
        let setup = move || {
            let mut step = |step: Step| progress.write_all(&[step as u8]);
            step(Step::Unshare)?;
            let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
            flags.set(CloneFlags::CLONE_NEWUSER, user_maps.is_some());
            flags.set(CloneFlags::CLONE_NEWPID, pid_namespace);
            unshare(flags)?;
            if let Some((uid_map, gid_map)) = &user_maps {
                step(Step::MapUser)?;
                std::fs::write("/proc/self/setgroups", "deny")?;
                std::fs::write("/proc/self/uid_map", uid_map)?;
                std::fs::write("/proc/self/gid_map", gid_map)?;
            }
            // After the change of credentials, which clears the setting.
            die_with_parent(parent)?;
            if pid_namespace {
                step(Step::Fork)?;
                fork_under_init()?;
            }
            step(Step::PrivateMounts)?;
            mount(NO_DATA, "/", NO_DATA, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_DATA)?;
            // Still the outer /proc: its number for this process is what a person outside can use.
            let outer_pid = readlink("/proc/self")?;
            step(Step::RunTmpfs)?;
            mount(Some("mesh-lab"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))?;
            if pid_namespace {
                step(Step::Proc)?;
                let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some("proc"), "/proc", Some("proc"), hardened, NO_DATA)?;
            }
            let mounts = readlink("/proc/self/ns/mnt")?;
            std::fs::write(WORLD_MARK, format!("{}\n{}\n", outer_pid.display(), mounts.display()))?;
            step(Step::Exec)
        };
        // SAFETY: the closure runs in the single thread of a child between fork and exec. It makes system calls and
        // allocates a little, which the C libraries of Linux allow there (they repair malloc in fork).
        unsafe { command.pre_exec(setup) };
    }
}

/// Makes `command` start in the given network and mount namespaces, keep the working directory by its path, and
/// be killed when the thread that starts it ends.
pub(crate) fn start_inside(command: &mut Command, net: Arc<OwnedFd>, mounts: Arc<OwnedFd>) {
    let parent = std::process::id();
    let setup = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid().as_raw() != raw_pid(parent) {
            return Err(Errno::ESRCH.into());
        }
        setns(net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let directory = getcwd();
        setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
        // setns leaves the process in the root directory.
        if let Ok(directory) = directory {
            chdir(&directory)?;
        }
        Ok(())
    };
    // SAFETY: as in `Isolation::apply`: single-threaded child, system calls and a little allocation.
    unsafe { command.pre_exec(setup) };
}

fn raw_pid(pid: u32) -> i32 {
    i32::try_from(pid).expect("process ids are below 2^22")
}

fn die_with_parent(parent: u32) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above took effect.
    if getppid().as_raw() == raw_pid(parent) { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Forks twice: the caller becomes a waiter outside the new process-id namespace, its child the init of that
/// namespace, and the grandchild returns from here to execute the program. Each exits with the status of the next,
/// and dies with the one before, so that killing any of them ends the namespace and all processes in it.
fn fork_under_init() -> io::Result<()> {
    let (alive, waiter) = pipe2(OFlag::O_CLOEXEC)?;
    if let ForkResult::Parent { child } = fork_child()? {
        drop(alive);
        close_all_but_stdio(Some(waiter));
        wait_and_exit(child);
    }
    set_pdeathsig(Signal::SIGKILL)?;
    drop(waiter);
    // The parent has no number in this namespace, so getppid cannot tell whether it still lives; its pipe can.
    let mut ends = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ends, PollTimeout::ZERO)? != 0 {
        return Err(Errno::ESRCH.into());
    }
    if let ForkResult::Parent { child } = fork_child()? {
        close_all_but_stdio(None);
        wait_and_exit(child);
    }
    Ok(())
}

fn fork_child() -> nix::Result<ForkResult> {
    // SAFETY: the process has one thread: it is itself the child of a fork that has not executed a program.
    unsafe { fork() }
}

/// Closes all descriptors but the standard ones and, if given, one more, which is moved to number 3: an open copy
/// of a pipe in a process that never executes a program would hide the end of that pipe from its reader.
fn close_all_but_stdio(kept: Option<OwnedFd>) {
    let mut first = 3;
    if let Some(kept) = kept {
        // SAFETY: replaces descriptor 3, whatever it is; this process uses none of its descriptors again.
        let moved = unsafe { libc::dup3(kept.as_raw_fd(), first, libc::O_CLOEXEC) };
        if moved == first || kept.as_raw_fd() == first {
            first += 1;
        }
        std::mem::forget(kept);
    }
    // SAFETY: closes descriptors only; this process uses none of its descriptors again.
    unsafe { libc::syscall(libc::SYS_close_range, first, RawFd::MAX, 0) };
}

/// Reaps children until `child` has ended, then ends with its status, as a shell would give it.
fn wait_and_exit(child: Pid) -> ! {
    // A Ctrl-C of the terminal is for the program that is waited for.
    // SAFETY: ignoring a signal runs no code.
    let _ = unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) };
    let status = loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => break code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => break 128 + signal as i32,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break 125,
        }
    };
    // SAFETY: ends the process at once; nothing of the forked parent's state is to be run here.
    unsafe { libc::_exit(status) }
}

/// Binds a packet socket to one interface. Until then such a socket, opened with protocol 0, receives nothing.
pub(crate) fn bind_packet_socket(socket: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `address`, a complete sockaddr_ll that outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result)?;
    Ok(())
}

/// Frames that a packet socket had no room for since the last call.
pub(crate) fn packet_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `statistics`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(u64::from(statistics.tp_drops))
}

/// Makes a TUN interface; the kernel chooses its name, and removes it when `device` (/dev/net/tun) is closed.
pub(crate) fn make_tun(device: &File) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_TUN as i16 },
    };
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, and the pointer is to one that outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    Errno::result(result)?;
    Ok(())
}

/// Sets a socket option whose value is an `int`.
pub(crate) fn set_int_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    Errno::result(result)?;
    Ok(())
}

/// Gives up this thread's shared root and working directory, then moves it into a host's namespaces.
pub(crate) fn enter_thread(net: &OwnedFd, mounts: &OwnedFd) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_FS)?;
    setns(net, CloneFlags::CLONE_NEWNET)?;
    setns(mounts, CloneFlags::CLONE_NEWNS)
}

/// Shows `source` in the place of `target` in this thread's mount namespace. Processes that open `target` after
/// this see the new file; none ever sees a half-written one.
pub(crate) fn cover(source: &Path, target: &Path) -> nix::Result<()> {
    mount(Some(source), target, NO_DATA, MsFlags::MS_BIND, NO_DATA)
}

/// Mounts an empty file system in memory on `target` in this thread's mount namespace.
pub(crate) fn mount_tmpfs(target: &str) -> nix::Result<()> {
    mount(Some("mesh-lab"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
}

/// Shows this thread, and it alone, a `/sys` of the network namespace the thread is in.
pub(crate) fn cover_sysfs() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), hardened, NO_DATA)
}

/// Moves this thread into new, empty network and mount namespaces.
pub(crate) fn new_namespaces() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
}

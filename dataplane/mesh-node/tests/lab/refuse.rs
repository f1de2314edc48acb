//! A seccomp filter that refuses `io_uring_setup`.
#![expect(unsafe_code, reason = "the filter is installed between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The program is started with `io_uring_setup` answering EPERM.
pub(crate) fn without_io_uring(command: &mut Command) {
    let install = || {
        let number = u32::try_from(libc::SYS_io_uring_setup).expect("a system call number");
        // seccomp(2): load the number; equal: errno EPERM; else allow.
        let program = [
            libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | 1 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        ];
        let filter = libc::sock_fprog { len: 4, filter: program.as_ptr().cast_mut() };
        // SAFETY: plain arguments; async-signal-safe.
        let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: `filter` and the program it points to outlive the call, which copies them.
        let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
        if privileges == 0 && installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

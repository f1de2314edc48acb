//! What the shell asks of Windows: clock, names, places.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use socket2::Socket;

/// Nanoseconds since the program first asked. The performance counter behind it runs on while the machine sleeps.
pub(crate) fn boot_nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).expect("584 years are not over")
}

/// The host's name; empty where it has none.
pub(crate) fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// Windows has no capabilities of processes: a service is given the account it needs.
pub(crate) fn give_up_privileges(_folders: &[&Path]) -> anyhow::Result<()> {
    Ok(())
}

/// Windows has no such limit for sockets.
pub(crate) fn raise_open_files(wanted: u64) -> io::Result<u64> {
    Ok(wanted)
}

/// One number for each processor.
pub(crate) fn processors() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

/// The portable engine's threads are not pinned.
pub(crate) fn pin(_processor: usize) -> io::Result<()> {
    Ok(())
}

/// Lets a socket send by the interface of this number only.
pub(crate) fn tie(socket: &Socket, v6: bool, interface: u32) -> io::Result<()> {
    compat_win::device::send_by(socket, v6, interface)
}

/// Where keys are kept unless someone says otherwise.
pub(crate) fn state_directory() -> Option<PathBuf> {
    std::env::var_os("ProgramData").map(|path| PathBuf::from(path).join("easymesh"))
}

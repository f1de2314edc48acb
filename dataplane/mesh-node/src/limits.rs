//! Limits of the process that the program raises by itself, and the rights it gives up.

use std::path::Path;

use crate::config::CommonOptions;
use crate::imp;
use crate::state::StateDirectory;

/// Descriptors beside the sockets of namespaces: rings, logs, status, helper pipes, and what libraries open.
const FILES_BESIDE: u64 = 512;

/// Makes room for the open sockets of `ports` ports, and `more` beside one for each. The error is one line that names the limit and
/// the remedy.
pub fn make_room(ports: u16, more: usize) -> anyhow::Result<()> {
    let sockets = u64::from(ports) + more as u64;
    // Every socket twice: the engine may hold a copy of each while it registers them.
    let wanted = 2 * sockets + FILES_BESIDE;
    let reached = imp::raise_open_files(wanted)?;
    let least = sockets + FILES_BESIDE / 4;
    if reached < least {
        let fewer = if more == 0 { "a smaller -nums" } else { "a smaller -nums or fewer ports in -spread" };
        anyhow::bail!(
            "the limit of open files is {reached} and {ports} ports need {least}: raise it (ulimit -n {wanted}) or give {fewer}"
        );
    }
    Ok(())
}

/// Gives up what root may do and the programs never need. To be called while the process has one thread.
///
/// # Errors
/// The system refuses: the program has more rights than it needs and works all the same.
pub fn give_up_privileges(options: &CommonOptions) -> anyhow::Result<()> {
    let state = StateDirectory::place(options.state.as_deref());
    let folders: Vec<&Path> = [Some(options.log.as_path()), state.as_deref()].into_iter().flatten().collect();
    imp::give_up_privileges(&folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_ports_have_room() {
        make_room(1000, 0).unwrap();
        assert!(imp::raise_open_files(0).unwrap() >= 1128);
    }
}

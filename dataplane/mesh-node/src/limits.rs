//! Limits of the process that the program raises by itself, and the rights it gives up.

use std::path::Path;

use crate::config::CommonOptions;
use crate::imp;
use crate::state::StateDirectory;
use crate::stream::listen::FILES_EACH;

/// Descriptors beside the sockets of namespaces: rings, logs, status, helper pipes, and what libraries open.
const FILES_BESIDE: u64 = 512;

/// Makes room for the open sockets of `ports` ports, and `more` beside one for each; and, as far as there is any, for
/// TCP on each port and `connections` by that. Returns for how many there is; the fallback is all that lacks where it
/// is none. The error is one line that names the limit and the remedy.
pub fn make_room(ports: u16, more: usize, connections: usize) -> anyhow::Result<usize> {
    let sockets = u64::from(ports) + more as u64;
    // Every socket twice: the engine may hold a copy of each while it registers them.
    let without = 2 * sockets + FILES_BESIDE;
    let listening = if connections == 0 { 0 } else { u64::from(ports) };
    let wanted = without + listening + (connections * FILES_EACH) as u64;
    let reached = imp::raise_open_files(wanted)?;
    let least = sockets + FILES_BESIDE / 4;
    if reached < least {
        let fewer = if more == 0 { "a smaller -nums" } else { "a smaller -nums or fewer ports in -spread" };
        anyhow::bail!(
            "the limit of open files is {reached} and {ports} ports need {least}: raise it (ulimit -n {wanted}) or give {fewer}"
        );
    }
    let left = usize::try_from(reached.saturating_sub(without + listening)).unwrap_or(usize::MAX);
    Ok((left / FILES_EACH).min(connections))
}

/// Makes room for `more` sockets beside those of [`make_room`], as far as the system allows: what needs them does without.
pub fn make_more_room(ports: u16, more: usize) {
    let wanted = 2 * (u64::from(ports) + more as u64) + FILES_BESIDE;
    match imp::raise_open_files(wanted) {
        Ok(reached) if reached >= wanted => {}
        Ok(reached) => {
            tracing::info!(reached, wanted, "the limit of open files is low: some sockets may not be opened")
        }
        Err(error) => tracing::info!(%error, "the limit of open files stays as it is"),
    }
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
    use crate::stream::listen::CONNECTIONS_MAX;

    #[test]
    fn a_thousand_ports_have_room() {
        let connections = make_room(1000, 0, CONNECTIONS_MAX).unwrap();
        let reached = imp::raise_open_files(0).unwrap();
        assert!(reached >= 1128);
        assert!(reached < 2000 + 512 + 1000 + 2048 || connections == CONNECTIONS_MAX, "{connections} of {reached}");
        assert_eq!(make_room(2, 0, 0).unwrap(), 0);
    }
}

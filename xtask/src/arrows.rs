//! Which package may need which: the arrows of `dataplane/ARCHITECTURE.md`, checked against `cargo metadata`.

use crate::workspace::{Dependency, Package, Workspace};

/// The arrows between top folders, as ARCHITECTURE.md has to spell them.
pub(crate) const CHAIN: &str = "bench -> dataplane -> compat-win";
/// The same as pairs.
const ARROWS: [(&str, &str); 2] = [("bench", "dataplane"), ("dataplane", "compat-win")];

/// Packages that depend on no package of the workspace: blind to what is carried, or this program.
const ALONE: [&str; 4] = ["mesh-wire", "mesh-udp", "compat-win", "xtask"];

/// Engines, as blind: of the workspace they need what both of them share, and no more.
const ENGINES: [&str; 2] = ["mesh-mmsg", "mesh-uring"];
const SHARED: &str = "mesh-udp";

/// Packages that are told the time and handed the bytes...
const PURE: [&str; 2] = ["mesh-wire", "mesh-core"];
/// ... and so have no use for anything that opens a socket, asks the system or waits.
const SYSTEM: [&str; 14] = [
    "async-io",
    "async-std",
    "getrandom",
    "io-uring",
    "libc",
    "mio",
    "nix",
    "quinn-udp",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tokio-uring",
    "tun",
];

/// Every dependency that breaks a rule, as a sentence.
pub(crate) fn broken(workspace: &Workspace) -> Vec<String> {
    let pairs = workspace.packages.iter().flat_map(|from| from.dependencies.iter().map(move |to| (from, to)));
    pairs.filter_map(|(from, to)| mistake(workspace, from, to)).collect()
}

fn mistake(workspace: &Workspace, from: &Package, to: &Dependency) -> Option<String> {
    let (needing, needed) = (from.name.as_str(), to.name.as_str());
    if PURE.contains(&needing) && SYSTEM.contains(&needed) {
        return Some(format!("{needing} depends on {needed}, but reads no clock, socket or system"));
    }
    let path = to.path.as_deref()?;
    if ALONE.contains(&needing) {
        return Some(format!("{needing} depends on {needed}, but stands alone"));
    }
    if ENGINES.contains(&needing) && needed != SHARED {
        return Some(format!("{needing} depends on {needed}, but an engine needs {SHARED} alone"));
    }
    if ["bench", "xtask"].contains(&needed) {
        return Some(format!("{needing} depends on {needed}, on which nothing may depend"));
    }
    match (workspace.top_folder(&from.manifest), workspace.top_folder(path)) {
        (Some(tail), Some(head)) if tail == head || ARROWS.contains(&(tail, head)) => None,
        (Some(tail), Some(head)) => Some(format!("{needing} depends on {needed}: {tail} -> {head} is against {CHAIN}")),
        _ => Some(format!("{needing} depends on {needed}, which is outside the workspace: {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mistakes of a workspace in `/w` where the package in folder `from` depends on `to`: a folder if it begins
    /// with `/`, else a package of the registry.
    fn broken_by(from: &str, to: &str) -> Vec<String> {
        let name = |folder: &str| folder.rsplit('/').next().map(str::to_owned).expect("split yields at least one");
        let path = to.starts_with('/').then_some(to);
        let json = serde_json::json!({
            "workspace_root": "/w",
            "target_directory": "/w/target",
            "packages": [{
                "name": name(from),
                "manifest_path": format!("{from}/Cargo.toml"),
                "dependencies": [
                    { "name": "anyhow", "kind": null },
                    { "name": name(to), "kind": "dev", "path": path },
                ],
            }],
        });
        broken(&Workspace::parse(&json.to_string()).expect("metadata"))
    }

    #[test]
    fn arrows_of_the_design_are_allowed() {
        for (from, to) in [
            ("/w/bench", "/w/dataplane/mesh-node"),
            ("/w/dataplane/mesh-node", "/w/compat-win"),
            ("/w/dataplane/mesh-node", "/w/dataplane/mesh-uring"),
            ("/w/dataplane/mesh-core", "/w/dataplane/mesh-wire"),
            ("/w/compat-win", "tokio"),
        ] {
            assert_eq!(broken_by(from, to), Vec::<String>::new(), "{from} -> {to}");
        }
    }

    #[test]
    fn arrows_against_the_design_are_named() {
        for (from, to, reason) in [
            ("/w/bench", "/w/compat-win", "bench -> compat-win is against"),
            ("/w/compat-win", "/w/dataplane/mesh-wire", "compat-win depends on mesh-wire, but stands alone"),
            (
                "/w/dataplane/mesh-uring",
                "/w/dataplane/mesh-wire",
                "mesh-uring depends on mesh-wire, but an engine needs mesh-udp alone",
            ),
            ("/w/dataplane/mesh-wire", "/w/dataplane/mesh-core", "mesh-wire depends on mesh-core, but stands alone"),
            ("/w/xtask", "/w/dataplane/mesh-lab", "xtask depends on mesh-lab, but stands alone"),
            ("/w/dataplane/mesh-node", "/w/bench", "mesh-node depends on bench, on which nothing"),
            ("/w/dataplane/mesh-core", "tokio", "mesh-core depends on tokio, but reads no clock"),
            ("/w/dataplane/mesh-wire", "socket2", "mesh-wire depends on socket2, but reads no clock"),
            ("/w/dataplane/mesh-node", "/elsewhere/tools", "outside the workspace"),
        ] {
            let broken = broken_by(from, to);
            assert!(broken.len() == 1 && broken[0].contains(reason), "{from} -> {to}: {broken:?}");
        }
    }
}

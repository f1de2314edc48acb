//! Rules about the repository itself that neither the compiler nor clippy knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::arrows;
use crate::report::Outcome;
use crate::workspace::{Package, Workspace};

/// What a reader sees in the root, besides what a build leaves there.
const TOP: [&str; 8] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "bench", "compat-win", "dataplane", "xtask"];
/// The commands a newcomer has to find in the README.
const COMMANDS: [&str; 2] = ["cargo xtask demo", "cargo xtask test"];
/// A longer file is two ideas.
const LINES_MAX: usize = 600;
/// What must not be in a source file, and why. (Taken apart, so that this file does not hold it either.)
const UNWANTED: [(&str, &str); 4] = [
    (concat!("todo", "!("), "is unfinished"),
    (concat!("unimplemented", "!("), "is unfinished"),
    (concat!("#[", "ignore"), "skips a test: name it long_ if it takes long"),
    (concat!("deny", "(warnings"), "denies warnings in a source file: only `cargo xtask test` does that"),
];
/// Packages without clock, socket, file or global randomness: each has the same `.clippy.toml`, which forbids them.
const PURE: [&str; 3] = ["mesh-core", "mesh-sim", "mesh-wire"];

/// Checks every rule; prints and fails on what breaks one.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let mut broken = arrows::broken(workspace);
    broken.extend(top_entries(&workspace.root)?);
    for package in &workspace.packages {
        broken.extend(lints(package)?);
    }
    broken.extend(documents(workspace)?);
    broken.extend(pure_clippy_files(workspace)?);
    for file in source_files(&workspace.root)? {
        let text = read(&file)?;
        let name = file.strip_prefix(&workspace.root).unwrap_or(&file).display().to_string();
        broken.extend(source(&name, &text));
    }
    for mistake in &broken {
        println!("{mistake}");
    }
    if broken.is_empty() { Ok(Outcome::one()) } else { bail!("{} rules broken, see above", broken.len()) }
}

fn top_entries(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(compare_top(&names))
}

fn compare_top(names: &[String]) -> Vec<String> {
    let visible = |name: &&String| !name.starts_with('.') && *name != "target";
    let surplus = names.iter().filter(visible).filter(|name| !TOP.contains(&name.as_str()));
    let missing = TOP.iter().filter(|name| names.iter().all(|other| other != *name));
    let surplus = surplus.map(|name| format!("{name}: the root holds only {}", TOP.join(" ")));
    surplus.chain(missing.map(|name| format!("{name} is missing in the root"))).collect()
}

fn lints(package: &Package) -> Result<Option<String>> {
    let text = read(&package.manifest)?;
    let shared = text.split("[lints]").nth(1).is_some_and(|rest| rest.trim_start().starts_with("workspace = true"));
    Ok((!shared).then(|| format!("{}: its Cargo.toml lacks `[lints]` with `workspace = true`", package.name)))
}

fn documents(workspace: &Workspace) -> Result<Vec<String>> {
    let readme = read(&workspace.root.join("README.md")).unwrap_or_default();
    let missing = COMMANDS.iter().filter(|command| !readme.contains(*command));
    let mut broken: Vec<_> = missing.map(|command| format!("README.md does not mention `{command}`")).collect();
    let architecture = read(&workspace.root.join("dataplane/ARCHITECTURE.md")).unwrap_or_default();
    if !architecture.contains(arrows::CHAIN) {
        broken.push(format!("dataplane/ARCHITECTURE.md does not say `{}`", arrows::CHAIN));
    }
    Ok(broken)
}

fn pure_clippy_files(workspace: &Workspace) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let mut first: Option<String> = None;
    for name in PURE {
        let file = workspace.root.join("dataplane").join(name).join(".clippy.toml");
        let text = read(&file)?;
        if first.get_or_insert_with(|| text.clone()) != &text {
            broken.push(format!("{} differs from that of {}", file.display(), PURE[0]));
        }
    }
    Ok(broken)
}

fn source(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        broken.push(format!("{name}: {lines} lines, at most {LINES_MAX}"));
    }
    if text.trim().is_empty() {
        broken.push(format!("{name}: empty"));
    }
    for (number, line) in text.lines().enumerate() {
        for (unwanted, reason) in UNWANTED {
            if line.contains(unwanted) {
                broken.push(format!("{name}:{}: `{unwanted}` {reason}", number + 1));
            }
        }
    }
    broken
}

/// All `.rs` files below `folder`, in one order, without those in `target` and hidden folders.
fn source_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(entry.path());
                }
            } else if name.ends_with(".rs") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_what_it_should_and_no_more() {
        let exact: Vec<_> = TOP.iter().chain([".git", ".ci", "target"].iter()).map(|name| (*name).to_owned()).collect();
        assert_eq!(compare_top(&exact), Vec::<String>::new());
        let mut wrong = exact;
        wrong.retain(|name| name != "LICENSE");
        wrong.push("notes.txt".into());
        let broken = compare_top(&wrong);
        assert!(broken[0].starts_with("notes.txt: ") && broken[1].starts_with("LICENSE is missing"), "{broken:?}");
    }

    #[test]
    fn a_source_file_is_finished_and_short() {
        assert_eq!(source("a.rs", "fn main() {}\n"), Vec::<String>::new());
        assert_eq!(source("a.rs", &"//\n".repeat(LINES_MAX)), Vec::<String>::new());
        assert_eq!(source("a.rs", &"//\n".repeat(LINES_MAX + 1)), ["a.rs: 601 lines, at most 600"]);
        assert_eq!(source("a.rs", "\n"), ["a.rs: empty"]);
        for (unwanted, reason) in UNWANTED {
            assert_eq!(source("a.rs", &format!("\n  {unwanted}\n")), [format!("a.rs:2: `{unwanted}` {reason}")]);
        }
    }
}

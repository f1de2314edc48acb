//! The workspace as `cargo metadata` tells it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// Where things are and which package needs which.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its `Cargo.toml`.
    pub(crate) manifest: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]` table, of whatever target.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// The folder it is in, if it comes from this machine and not from a registry.
    pub(crate) path: Option<PathBuf>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let json = command::output(command::cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
        Self::parse(&json).context("read what `cargo metadata` printed")
    }

    /// Reads what `cargo metadata --no-deps` printed.
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(json)?;
        Ok(Self {
            root: text(&metadata, "workspace_root")?.into(),
            target: text(&metadata, "target_directory")?.into(),
            packages: list(&metadata, "packages")?.iter().map(Package::parse).collect::<Result<_>>()?,
        })
    }

    /// The visible entry of the root that `path` is in: `dataplane` for `dataplane/mesh-core`. `None` outside the root.
    pub(crate) fn top_folder<'path>(&self, path: &'path Path) -> Option<&'path str> {
        path.strip_prefix(&self.root).ok()?.components().next()?.as_os_str().to_str()
    }
}

impl Package {
    fn parse(package: &Value) -> Result<Self> {
        let dependencies = list(package, "dependencies")?.iter().map(Dependency::parse).collect::<Result<_>>()?;
        Ok(Self { name: text(package, "name")?.into(), manifest: text(package, "manifest_path")?.into(), dependencies })
    }
}

impl Dependency {
    fn parse(dependency: &Value) -> Result<Self> {
        let path = dependency.get("path").and_then(Value::as_str).map(PathBuf::from);
        Ok(Self { name: text(dependency, "name")?.into(), path })
    }
}

fn text<'json>(object: &'json Value, key: &str) -> Result<&'json str> {
    object.get(key).and_then(Value::as_str).with_context(|| format!("no text `{key}`"))
}

fn list<'json>(object: &'json Value, key: &str) -> Result<&'json Vec<Value>> {
    object.get(key).and_then(Value::as_array).with_context(|| format!("no list `{key}`"))
}

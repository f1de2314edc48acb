//! Windows: the verb says that there is no pipe to ask.

use std::io;
use std::path::PathBuf;

/// Would answer `status`; there is nothing to ask it by.
#[derive(Debug)]
pub struct StatusServer(());

impl StatusServer {
    /// Says that status is not served.
    pub fn start(_name: &str, _report: impl Fn() -> String + Send + 'static) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing is to be ended.
    pub fn end(self) {}

    /// Nothing stays.
    pub fn remnant(&self) -> Option<PathBuf> {
        None
    }
}

pub(super) fn ask_all(_program: &str) -> anyhow::Result<Vec<String>> {
    anyhow::bail!("the status verb works on Linux only: look into the log directory instead")
}

//! The switch of test builds that makes the relay slow. Only with the feature `slow`, which no shipped program has.

use anyhow::{Context as _, anyhow};

/// Turns of an empty loop for each datagram.
const VARIABLE: &str = "EASYMESH_SLOW_RELAY";

/// What the environment asks for; 0 where it asks for nothing.
///
/// # Errors
/// The variable holds anything but a number below 2^32.
pub(crate) fn steps() -> anyhow::Result<u32> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(0) };
    let text = text.into_string().map_err(|_| anyhow!("{VARIABLE} is not text"))?;
    text.parse().with_context(|| format!("{VARIABLE}={text}: not a number of steps for each datagram"))
}

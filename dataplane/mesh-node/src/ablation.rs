//! The switch of the bench's builds that leaves techniques of the engines out. Only with the feature `ablation`, which no shipped
//! program has.

use std::sync::OnceLock;

use anyhow::anyhow;
use mesh_udp::Without;

/// Names of techniques, joined by commas.
const VARIABLE: &str = "EASYMESH_WITHOUT";

static CHOSEN: OnceLock<Without> = OnceLock::new();

/// Reads what the environment asks for, once, before the first engine is made.
///
/// # Errors
/// The variable names what is no technique.
pub(crate) fn read() -> anyhow::Result<()> {
    let Some(names) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let names = names.into_string().map_err(|_| anyhow!("{VARIABLE} is not text"))?;
    let without = Without::parse(&names).map_err(|why| anyhow!("{VARIABLE}={names}: {why}"))?;
    tracing::warn!("this build goes without: {}", if names.is_empty() { "nothing" } else { &names });
    CHOSEN.get_or_init(|| without);
    Ok(())
}

/// What was read; nothing is left out before.
pub(crate) fn chosen() -> Without {
    CHOSEN.get().copied().unwrap_or_default()
}

//! Pings beside TCP streams that take all they can get: what bulk data costs those who wait for answers.

use anyhow::Result;

use super::Ends;
use super::ping::{self, PINGS, PingOutcome};
use super::tcp::{TcpLoad, TcpOutcome, tcp_during};

/// What came of it.
#[derive(Clone, Debug)]
pub struct BulkOutcome {
    /// The pings.
    pub ping: PingOutcome,
    /// The streams, from the first ping to the last answer.
    pub tcp: TcpOutcome,
}

/// Runs the streams, and once they are warm [`PINGS`] pings beside them, evenly spread over the time of the load.
///
/// # Errors
/// As those of the streams and of the pings alone.
pub fn bulk(ends: &Ends<'_>, load: &TcpLoad) -> Result<BulkOutcome> {
    let (tcp, ping) = tcp_during(ends, load, || ping::evenly(ends, PINGS, load.time / u32::from(PINGS)))?;
    Ok(BulkOutcome { ping, tcp })
}

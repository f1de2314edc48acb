//! Forty gateways on forty hosts.

use std::time::{Duration, Instant};

use mesh_lab::isolated;

use crate::fixture::{ONE, START, Site};

const COUNT: usize = 40;

#[test]
fn first_ping_of_each_of_1560_pairs_is_answered_within_a_second() {
    isolated(|| {
        let site = Site::new("many", COUNT)?;
        let _transfer = site.transfer("1", &[])?;
        let mut gateways = (0..COUNT).map(|number| site.start_gateway(number, &[])).collect::<Result<Vec<_>, _>>()?;
        for gateway in &mut gateways {
            gateway.wait_for_line("registered", START)?;
        }
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        for from in 0..COUNT {
            for to in (0..COUNT).filter(|to| *to != from) {
                let report = site.ping(from, to, ONE)?;
                assert!(report.perfect(), "{from} to {to}: {report}");
                slowest = slowest.max(report.rtts.iter().copied().max().unwrap_or_default());
            }
        }
        println!("1560 first pings in {:?}, the slowest {slowest:?}", start.elapsed());
        Ok(())
    });
}

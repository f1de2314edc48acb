//! Forty gateways on forty hosts.

use std::time::{Duration, Instant};

use mesh_lab::isolated;

use crate::fixture::{ONE, START, Site, status};

const COUNT: usize = 40;

#[test]
fn first_ping_of_each_of_1560_pairs_is_answered_within_a_second() {
    isolated(|| first_pings("many", &[]).map(|(_, cores)| assert_eq!(cores.len(), 1, "one port, one data thread")));
}

/// The same where all data threads serve the one namespace: whoever hears a gateway first, all of them know it.
#[test]
fn a_namespace_that_is_spread_is_one_namespace() {
    isolated(|| {
        let (forwarded, cores) = first_pings("spread", &["-spread", "all"])?;
        let processors = std::thread::available_parallelism()?.get();
        assert_eq!(cores.len(), processors);
        // Of forty senders several threads hear some: 2^-39 is the chance that one of two hears none.
        let hearing = cores.iter().filter(|&&datagrams| datagrams > 0).count();
        assert!(hearing >= processors.min(2), "{cores:?}");
        // A request, an answer, and a handshake of each pair at least.
        assert!(forwarded >= 1560 * 2, "the shares of all threads are counted: {forwarded}");
        Ok(())
    });
}

/// Forty gateways, and a ping between any two; what the transfer forwarded, and what each of its threads received.
fn first_pings(name: &str, more: &[&str]) -> anyhow::Result<(u64, Vec<u64>)> {
    let site = Site::new(name, COUNT)?;
    let _transfer = site.transfer("1", more)?;
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
    let status = status(&site.cloud, "transfer")?;
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    let cores = status["cores"].as_array().into_iter().flatten().map(|core| number(&core["datagrams_in"])).collect();
    Ok((number(&status["namespaces"][0]["datagrams_forwarded"]), cores))
}

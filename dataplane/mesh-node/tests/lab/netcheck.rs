//! `gateway netcheck` in front of networks of every kind: what can be known is said, what cannot is `unknown`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Host, Internet, Lab, Nat, Process, Server, Site, SitePlan, Udp, isolated};
use serde_json::Value;

use crate::fixture::{NAME, ONE, START, TOKEN, ip, program, start, start_gateway, status_until};

/// How long it may take until what can be known is known.
const KNOWN: Duration = Duration::from_secs(10);
/// What is not known by then is not going to be: twice the time that any of the scenes with an answer takes.
const UNKNOWN: Duration = Duration::from_secs(4);

const NOTHING: &str = "unknown: too few have seen this gateway";
const BY_PORT: &str = "the same outside port for two ports of the transfer; of other addresses nothing is known";
const SAME: &str = "the same outside port for every destination (or no NAT)";
const ANOTHER: &str = "another outside port for each destination";

/// A transfer on the internet.
struct Scene<'lab> {
    internet: Internet<'lab>,
    cloud: Server,
    programs: Vec<Process>,
}

impl<'lab> Scene<'lab> {
    fn new(lab: &'lab Lab, nums: &str) -> Result<Self> {
        let mut internet = Internet::new(lab)?;
        let cloud = internet.server("cloud", None)?;
        internet.set_name(NAME, cloud.host().ipv4()?)?;
        let line = ["-public", NAME, "-bind", "8000", "-nums", nums, "-token", TOKEN];
        let mut transfer = start(cloud.host(), "transfer", &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        Ok(Self { internet, cloud, programs: vec![transfer] })
    }

    fn gateway(&mut self, host: &Host, number: usize) -> Result<()> {
        let mut gateway = start_gateway(host, number, &[])?;
        gateway.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
        self.programs.push(gateway);
        Ok(())
    }
}

/// What a person reads.
fn netcheck(host: &Host) -> Result<String> {
    let output = host.command(program("gateway")).arg("netcheck").env_remove("EASYMESH_PROGRAMS").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What stands behind a heading.
fn line<'text>(text: &'text str, heading: &str) -> Result<&'text str> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(heading));
    Ok(line.with_context(|| format!("a line {heading}:\n{text}"))?.trim())
}

/// Waits until a gateway knows that much of how its NAT maps; what netcheck says then.
fn maps(host: &Host, mapping: &str, words: &str) -> Result<String> {
    if mapping == "unknown" {
        mesh_lab::pause(UNKNOWN);
    }
    status_until(host, "gateway", KNOWN, |status| status["transfer"]["mapping"] == mapping)?;
    let text = netcheck(host)?;
    ensure!(line(&text, "NAT mapping")? == words, "{words} is expected:\n{text}");
    Ok(text)
}

/// A gateway alone behind such a NAT, and a transfer with so many ports.
fn alone(name: &str, nat: Nat, nums: &str, mapping: &str, words: &str) -> Result<()> {
    let lab = Lab::new(name)?;
    let mut scene = Scene::new(&lab, nums)?;
    let site = scene.internet.site("site", &SitePlan { nat: Some(nat), ..SitePlan::default() })?;
    let host = &site.hosts()[0];
    scene.gateway(host, 0)?;
    let text = maps(host, mapping, words)?;
    println!("{name}:\n{text}");
    seen_at(&site, &text)
}

/// The outside address is shown: as what the transfer sees, and as a place to be reached at; and the inside one as one's own.
fn seen_at(site: &Site, text: &str) -> Result<()> {
    let (outside, inside) = (site.uplink().ipv4()?, site.hosts()[0].ipv4()?);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_observed = |line: &str| {
        let words = words(line);
        words.len() == 2 && words[0].starts_with(&format!("{outside}:")) && words[1] == "observed"
    };
    ensure!(text.lines().any(is_observed), "{outside} is a place:\n{text}");
    ensure!(line(text, "addresses")?.contains(&inside.to_string()), "{inside} is its own:\n{text}");
    Ok(())
}

#[test]
fn one_transfer_tells_of_a_nat_what_two_of_its_ports_tell() {
    isolated(|| {
        alone("check-restricted", Nat::PortRestricted, "2", "port_independent", BY_PORT)?;
        alone("check-cone", Nat::FullCone, "2", "port_independent", BY_PORT)?;
        alone("check-symmetric", Nat::Symmetric, "2", "endpoint_dependent", ANOTHER)
    });
}

#[test]
fn one_port_of_one_transfer_tells_nothing_of_any_nat() {
    isolated(|| {
        for (name, nat) in
            [("check-one-r", Nat::PortRestricted), ("check-one-c", Nat::FullCone), ("check-one-s", Nat::Symmetric)]
        {
            alone(name, nat, "1", "unknown", NOTHING)?;
        }
        Ok(())
    });
}

#[test]
fn peers_elsewhere_tell_how_a_nat_maps() {
    isolated(|| {
        for (name, nat, mapping, words) in [
            ("check-peer-r", Nat::PortRestricted, "endpoint_independent", SAME),
            ("check-peer-c", Nat::FullCone, "endpoint_independent", SAME),
            ("check-peer-s", Nat::Symmetric, "endpoint_dependent", ANOTHER),
        ] {
            // The transfer has one port only: what is known is known from the peer.
            let lab = Lab::new(name)?;
            let mut scene = Scene::new(&lab, "1")?;
            let site = scene.internet.site("site", &SitePlan { nat: Some(nat), ..SitePlan::default() })?;
            let other = scene.internet.server("other", None)?;
            scene.gateway(&site.hosts()[0], 0)?;
            scene.gateway(other.host(), 1)?;
            ensure!(site.hosts()[0].ping(IpAddr::V4(ip(1)), ONE)?.perfect());
            let text = maps(&site.hosts()[0], mapping, words)?;
            seen_at(&site, &text)?;
            // Who has a public address of its own needs nobody to know it.
            maps(other.host(), "endpoint_independent", SAME)?;
        }
        Ok(())
    });
}

#[test]
fn the_outer_one_of_two_nats_is_what_others_see() {
    isolated(|| {
        for (name, nat, mapping, words) in [
            ("check-cgn-r", Nat::PortRestricted, "port_independent", BY_PORT),
            ("check-cgn-s", Nat::Symmetric, "endpoint_dependent", ANOTHER),
        ] {
            let lab = Lab::new(name)?;
            let mut scene = Scene::new(&lab, "2")?;
            let mut carrier = scene.internet.carrier("carrier", nat, None)?;
            let site = scene.internet.site_behind(&mut carrier, "site", &SitePlan::default())?;
            scene.gateway(&site.hosts()[0], 0)?;
            let text = maps(&site.hosts()[0], mapping, words)?;
            let (outer, between) = (carrier.uplink().ipv4()?.to_string(), site.uplink().ipv4()?.to_string());
            ensure!(text.contains(&outer) && !text.contains(&between), "{outer}, not {between}:\n{text}");
        }
        Ok(())
    });
}

/// What netcheck has to say where no UDP passes.
fn knows_nothing(site: &Site, cloud: &Host) -> Result<()> {
    let host = &site.hosts()[0];
    let text = maps(host, "unknown", NOTHING)?;
    println!("without UDP:\n{text}");
    let row = text.lines().find(|line| line.trim_start().starts_with("you.domain.com:8000")).context("the transfer")?;
    let words: Vec<&str> = row.split_whitespace().collect();
    ensure!(words.contains(&"TCP") && words.last() == Some(&"-"), "TCP, and seen nowhere:\n{text}");
    ensure!(words.contains(&format!("{}:8000", cloud.ipv4()?).as_str()), "{text}");
    let outside = site.uplink().ipv4()?.to_string();
    ensure!(!text.contains(&outside) && !text.contains("127."), "nobody has seen it by UDP:\n{text}");
    let places = status_until(host, "gateway", KNOWN, |status| status["transfer"]["over_tcp"] == true)?;
    let places = places["network"]["candidates"].as_array().cloned().context("places")?;
    ensure!(places.iter().all(|place: &Value| place["kind"] == "host"), "{places:?}");
    Ok(())
}

#[test]
fn without_udp_nothing_is_known_of_a_nat() {
    isolated(|| {
        let lab = Lab::new("check-blocked")?;
        let mut scene = Scene::new(&lab, "2")?;
        let site = scene.internet.site("site", &SitePlan::default())?;
        let _rule = site.router().drop_udp(Udp::all().both_ways())?;
        scene.gateway(&site.hosts()[0], 0)?;
        knows_nothing(&site, scene.cloud.host())
    });
}

/// What was known before is of a network that is no more.
#[test]
fn what_was_known_is_forgotten_where_udp_ends() {
    isolated(|| {
        let lab = Lab::new("check-ended")?;
        let mut scene = Scene::new(&lab, "2")?;
        let site = scene.internet.site("site", &SitePlan::default())?;
        scene.gateway(&site.hosts()[0], 0)?;
        maps(&site.hosts()[0], "port_independent", BY_PORT)?;
        let rule = site.router().drop_udp(Udp::all().both_ways())?;
        // One that nobody uses asks for a sign of life every 20 s.
        status_until(&site.hosts()[0], "gateway", START * 2, |status| status["transfer"]["over_tcp"] == true)?;
        knows_nothing(&site, scene.cloud.host())?;
        rule.lift()?;
        status_until(&site.hosts()[0], "gateway", START * 3, |status| status["transfer"]["over_tcp"] == false)?;
        let text = maps(&site.hosts()[0], "port_independent", BY_PORT)?;
        seen_at(&site, &text)
    });
}

//! A port of the router, asked of a real one (miniupnpd of Debian) in each language it speaks.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Host, Lab, Lan, Nat, Process, Signal, isolated};
use serde_json::Value;

use crate::fixture::{NAME, START, TOKEN, ip, start, start_gateway, status, status_until};

/// How long a mapping may take: two languages that are not understood come first, 1.75 s each.
const MAPPED: Duration = Duration::from_secs(8);

/// How long it may take to notice that a router has lost a mapping, or has another address: five seconds lie between two questions.
const NOTICED: Duration = Duration::from_secs(12);

/// The outside address of the router: not one of those for documentation, which miniupnpd takes for private ones.
const OUTSIDE: &str = "44.1.1.2";

/// The rules that miniupnpd adds its own to.
const RULES: &str = "table inet miniupnpd {
    chain forward { type filter hook forward priority filter; policy accept; jump miniupnpd; }
    chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority srcnat; policy accept; jump postrouting_miniupnpd; }
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}";

/// An office behind a router with NAT; a transfer and a stranger on the other side.
pub(crate) struct Home {
    pub(crate) lab: Lab,
    pub(crate) router: Host,
    pub(crate) office: Host,
    pub(crate) wan: Lan,
    pub(crate) stranger: Host,
    pub(crate) lan: Lan,
    _transfer: Process,
}

impl Home {
    pub(crate) fn new(name: &str, nat: Nat) -> Result<Self> {
        let lab = Lab::new(name)?;
        let (cloud, stranger, office) = (lab.host("cloud")?, lab.host("stranger")?, lab.host("office")?);
        let router = lab.router("router")?;
        let wan = lab.lan(&[&cloud, &router, &stranger], &["44.1.1.0/24"])?;
        let lan = lab.lan(&[&router, &office], &["10.9.0.0/24"])?;
        wan.ports()[1].set_nat(Some(nat))?;
        office.default_route("10.9.0.1".parse()?)?;
        for host in [&cloud, &office, &stranger] {
            host.set_name(NAME, cloud.ipv4()?)?;
        }
        let line = ["-public", NAME, "-bind", "8000", "-nums", "1", "-token", TOKEN];
        let mut transfer = start(&cloud, "transfer", &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        Ok(Self { lab, router, office, wan, stranger, lan, _transfer: transfer })
    }

    /// The office's address with a port.
    pub(crate) fn office_address(&self, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.office.ipv4()?, port))
    }

    /// Loads rules in the router.
    fn nft(&self, rules: &str) -> Result<String> {
        let rules = rules.to_owned();
        self.router.run(move || std::fs::write("/run/rules", rules).context("write rules"))?;
        let output = self.router.command("/usr/sbin/nft").args(["--file", "/run/rules"]).output()?;
        ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts miniupnpd in the router, with PCP and NAT-PMP, or UPnP, or both; and with no mapping.
    pub(crate) fn daemon(&self, natpmp: bool, upnp: bool) -> Result<Process> {
        self.nft(&format!("table inet miniupnpd\ndelete table inet miniupnpd\n{RULES}"))?;
        let yes = |on| if on { "yes" } else { "no" };
        let config = format!(
            "ext_ifname=eth0\nlistening_ip=eth1\nenable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\nipv6_disable=yes\n\
             upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nupnp_forward_chain=miniupnpd\n\
             upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             uuid=5d8a0a10-7ac4-4b0e-9d2c-0123456789ab\nallow 1024-65535 10.9.0.0/24 1024-65535\n",
            yes(natpmp),
            yes(upnp)
        );
        self.router.run(move || std::fs::write("/run/miniupnpd.conf", config).context("write the configuration"))?;
        let mut command = self.router.command("/usr/sbin/miniupnpd");
        command.args(["-d", "-f", "/run/miniupnpd.conf", "-P", "/run/miniupnpd.pid"]);
        let mut daemon = self.router.spawn(command).context("as root, run apt-get install miniupnpd-nftables")?;
        let last_word = if upnp { "HTTP listening on" } else { "Listening for NAT-PMP/PCP" };
        daemon.wait_for_line(last_word, START).context("miniupnpd did not start")?;
        Ok(daemon)
    }

    /// Starts the gateway of the office, which has only the relay to go by.
    pub(crate) fn gateway(&self, more: &[&str]) -> Result<Process> {
        let mut gateway = start_gateway(&self.office, 0, more)?;
        gateway.wait_for_line("registered", START).context("the gateway did not register")?;
        Ok(gateway)
    }

    /// Waits until the mapping is in this state.
    pub(crate) fn mapping(&self, state: &str, limit: Duration) -> Result<Value> {
        let status = status_until(&self.office, "gateway", limit, |status| status["mapping"]["state"] == state)?;
        Ok(status["mapping"].clone())
    }

    /// Waits until the mapping leads here.
    fn leads(&self, to: &str, limit: Duration) -> Result<()> {
        status_until(&self.office, "gateway", limit, |status| {
            status["mapping"]["outside"].as_str().is_some_and(|outside| outside.starts_with(to))
        })?;
        Ok(())
    }

    /// Whether what a stranger sends to the mapping reaches the gateway: a datagram of the first edition, which is counted.
    fn is_reached(&self, outside: &str) -> Result<bool> {
        let to: SocketAddr = outside.parse()?;
        let count =
            || -> Result<u64> { Ok(status(&self.office, "gateway")?["drops"]["first-edition"].as_u64().unwrap_or(0)) };
        let before = count()?;
        let socket = self.stranger.udp(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            socket.send_to(&[1; 32], to)?;
            if count()? > before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The rules that miniupnpd has made.
    fn rules(&self) -> Result<String> {
        self.nft("list table inet miniupnpd\n")
    }
}

/// The port behind the address.
fn port(mapping: &Value) -> Result<String> {
    let outside = mapping["outside"].as_str().context("an address")?;
    Ok(outside.rsplit(':').next().unwrap_or_default().to_owned())
}

/// A router that speaks `protocol` gives a port, strangers reach the gateway by it, and it is given back at the end.
fn is_given_and_given_back(protocol: &str, natpmp: bool, upnp: bool, rules: &str) -> Result<()> {
    let home = Home::new(protocol, Nat::PortRestricted)?;
    let mut daemon = home.daemon(natpmp, upnp)?;
    home.nft(rules)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut gateway = home.gateway(&[])?;
        let begin = Instant::now();
        let mapping = home.mapping("mapped", MAPPED)?;
        println!("{protocol}: {mapping} after {:?}", begin.elapsed());
        assert_eq!(mapping["protocol"], protocol);
        let outside = mapping["outside"].as_str().context("an address")?.to_owned();
        assert!(outside.starts_with(OUTSIDE), "{outside}");
        let own = status(&home.office, "gateway")?["outside"][0].as_str().context("a socket")?.to_owned();
        assert_eq!(own.rsplit(':').next(), outside.rsplit(':').next(), "the port of the socket, if it is free");
        assert!(home.is_reached(&outside)?, "what a stranger sends to {outside} arrives");
        assert!(home.rules()?.contains(&port(&mapping)?), "the router maps it: {}", home.rules()?);

        let begin = Instant::now();
        gateway.signal(signal)?;
        assert_eq!(gateway.wait(START)?.code(), Some(0), "{}", gateway.output());
        assert!(begin.elapsed() < Duration::from_millis(1500), "the end took {:?}", begin.elapsed());
        assert!(!home.rules()?.contains(&port(&mapping)?), "given back: {}", home.rules()?);
    }
    assert!(daemon.try_wait()?.is_none(), "{}", daemon.output());
    Ok(())
}

#[test]
fn port_is_given_by_pcp() {
    isolated(|| is_given_and_given_back("pcp", true, true, ""));
}

#[test]
fn port_is_given_by_natpmp_where_the_router_knows_no_other_version() {
    // What begins with a 2 is PCP: a router of old drops it.
    let rules = "table inet old {
        chain input { type filter hook input priority filter; udp dport 5351 @th,64,8 2 drop; }
    }";
    isolated(|| is_given_and_given_back("nat-pmp", true, false, rules));
}

#[test]
fn port_is_given_by_upnp() {
    isolated(|| is_given_and_given_back("upnp-igd", false, true, ""));
}

#[test]
fn gateway_that_was_killed_gets_its_port_again() {
    isolated(|| {
        let home = Home::new("killed", Nat::PortRestricted)?;
        let _daemon = home.daemon(true, true)?;
        let mut ports = Vec::new();
        for _ in 0..3 {
            let mut gateway = home.gateway(&[])?;
            let mapping = home.mapping("mapped", MAPPED)?;
            // A PCP server refuses whoever is not known to have asked before.
            assert_eq!(mapping["protocol"], "pcp");
            ports.push(port(&mapping)?);
            gateway.signal(Signal::SIGKILL)?;
            gateway.wait(START)?;
            assert!(home.rules()?.contains(&ports[0]), "it lives on for a while");
        }
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        Ok(())
    });
}

#[test]
fn router_that_forgets_or_has_another_address_is_noticed() {
    isolated(|| {
        let home = Home::new("forgets", Nat::PortRestricted)?;
        let mut daemon = home.daemon(true, true)?;
        let _gateway = home.gateway(&[])?;
        let mapping = home.mapping("mapped", MAPPED)?;
        let outside = mapping["outside"].as_str().context("an address")?.to_owned();
        daemon.kill()?;
        daemon = home.daemon(true, true)?;
        assert!(!home.rules()?.contains(&port(&mapping)?), "the router has forgotten");
        let begin = Instant::now();
        while !home.rules()?.contains(&port(&mapping)?) {
            ensure!(begin.elapsed() < NOTICED, "not asked for again: {}", daemon.output());
        }
        println!("asked for again {:?} after the restart", begin.elapsed());
        assert!(home.is_reached(&outside)?);

        let begin = Instant::now();
        home.wan.ports()[1].set_addresses(&["44.1.1.77/24"])?;
        home.leads("44.1.1.77:", NOTICED)?;
        println!("the new address is known {:?} later", begin.elapsed());
        assert!(home.is_reached(&format!("44.1.1.77:{}", port(&mapping)?))?);
        Ok(())
    });
}

#[test]
fn network_that_changes_is_asked_anew() {
    isolated(|| {
        let home = Home::new("moves", Nat::PortRestricted)?;
        let _daemon = home.daemon(true, true)?;
        let _gateway = home.gateway(&[])?;
        let mapping = home.mapping("mapped", MAPPED)?;
        let office = &home.office.interfaces()[0];
        office.set_addresses(&["10.9.0.99/24"])?;
        let begin = Instant::now();
        while !home.rules()?.contains("10.9.0.99") {
            ensure!(begin.elapsed() < MAPPED, "the new address gets no port: {}", home.rules()?);
        }
        // The old one may hold the port outside until it ends.
        home.mapping("mapped", MAPPED)?;
        office.down()?;
        assert_eq!(home.mapping("none", MAPPED)?["why"], "no way leads out by IPv4");
        office.up()?;
        let again = home.mapping("mapped", MAPPED)?;
        println!("{mapping}, then {again}");
        assert!(home.is_reached(again["outside"].as_str().context("an address")?)?);
        Ok(())
    });
}

/// Datagrams that the office has sent to where routers listen.
fn questions(frames: &[mesh_lab::Frame]) -> usize {
    let to_router = |frame: &&mesh_lab::Frame| {
        let port = frame.bytes.get(36..38).map(|port| u16::from_be_bytes([port[0], port[1]]));
        frame.outgoing && frame.bytes.get(23) == Some(&17) && matches!(port, Some(5351 | 1900))
    };
    frames.iter().filter(to_router).count()
}

#[test]
fn router_that_does_not_answer_costs_a_few_datagrams_and_no_time() {
    isolated(|| {
        let home = Home::new("silent", Nat::PortRestricted)?;
        // It does not even say that nobody listens.
        home.nft(
            "table inet silent {
                chain input { type filter hook input priority filter; udp dport { 5351, 1900 } drop; }
            }",
        )?;
        let capture = home.office.capture("eth0")?;
        let begin = Instant::now();
        let mut gateway = home.gateway(&[])?;
        let registered = begin.elapsed();
        assert_eq!(home.mapping("searching", Duration::ZERO)?["why"], "", "nobody waits for it");
        let mapping = home.mapping("none", Duration::from_secs(15))?;
        assert_eq!(mapping["why"], "the router answers none of PCP, NAT-PMP and UPnP");
        println!("registered after {registered:?}, given up after {:?}", begin.elapsed());
        let begin = Instant::now();
        gateway.signal(Signal::SIGTERM)?;
        gateway.wait(START)?;
        assert!(begin.elapsed() < Duration::from_millis(1500));
        let asked = questions(&capture.stop()?.frames);
        assert!((3..=20).contains(&asked), "{asked} datagrams");
        println!("{asked} datagrams");
        Ok(())
    });
}

#[test]
fn nobody_is_asked_when_that_is_switched_off_or_there_is_no_nat() {
    isolated(|| {
        let home = Home::new("off", Nat::PortRestricted)?;
        let _daemon = home.daemon(true, true)?;
        let capture = home.office.capture("eth0")?;
        let mut gateway = home.gateway(&["-mapping", "off"])?;
        assert_eq!(status(&home.office, "gateway")?["mapping"]["state"], "off");
        gateway.terminate(START)?;
        // The stranger's address is public, and a router is there.
        home.stranger.default_route(home.router.ipv4()?)?;
        let line = ["-ip", &ip(1).to_string(), "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
        let mut public = start(&home.stranger, "gateway", &line)?;
        public.wait_for_line("registered", START)?;
        let status = status_until(&home.stranger, "gateway", MAPPED, |status| status["mapping"]["state"] == "none")?;
        assert!(status["mapping"]["why"].as_str().is_some_and(|why| why.contains("is public")), "{status:#}");
        assert_eq!(questions(&capture.stop()?.frames), 0);
        Ok(())
    });
}

#[test]
fn gateways_behind_symmetric_nats_go_direct_by_the_port_of_one_router() {
    isolated(|| {
        let home = Home::new("direct", Nat::Symmetric)?;
        let _daemon = home.daemon(true, true)?;
        let (other, far) = (home.lab.router("far")?, home.lab.host("home")?);
        let mut wan = home.wan;
        wan.attach(&other, &["44.1.1.9/24"])?.set_nat(Some(Nat::Symmetric))?;
        let _lan = home.lab.lan(&[&other, &far], &["10.8.0.0/24"])?;
        far.default_route("10.8.0.1".parse()?)?;
        far.set_name(NAME, "44.1.1.1".parse()?)?;
        let mut gateways = [start_gateway(&home.office, 0, &[])?, start_gateway(&far, 1, &[])?];
        for gateway in &mut gateways {
            gateway.wait_for_line("registered", START)?;
        }
        let mapped = |status: &Value| status["mapping"]["state"] == "mapped";
        let mapping = status_until(&home.office, "gateway", MAPPED, mapped)?["mapping"].clone();
        let begin = Instant::now();
        let path = |host: &Host| -> Result<Value> { Ok(status(host, "gateway")?["peers"][0]["path"].clone()) };
        while path(&home.office)? != "direct" || path(&far)? != "direct" {
            far.ping(IpAddr::V4(ip(0)), crate::fixture::ONE)?;
            ensure!(begin.elapsed() < Duration::from_secs(20), "{} and {}", path(&home.office)?, path(&far)?);
        }
        println!("direct after {:?}", begin.elapsed());
        let seen = status(&far, "gateway")?["peers"][0]["endpoint"].clone();
        assert_eq!(seen, mapping["outside"], "by the port of the router: neither NAT lets the other in");
        Ok(())
    });
}

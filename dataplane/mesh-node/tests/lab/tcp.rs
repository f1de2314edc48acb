//! Offices whose routers let no UDP pass: the same mesh over TCP, and back.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{
    DropRule, Emulation, Host, Internet, Lab, Ping, Process, Server, Signal, SitePlan, Udp, isolated, tcp_copy,
};
use mesh_node::stream::listen::Listening;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::fixture::{NAME, ONE, START, TOKEN, assert_quiet, ip, start, status, status_until};

/// Without UDP a gateway is up over TCP within this time.
const UP: Duration = Duration::from_secs(5);
/// And on UDP again this long after it is back, at the latest.
const BACK: Duration = Duration::from_secs(60);
/// A transfer that was restarted is found within this time.
const RESTARTED: Duration = Duration::from_secs(3);

/// An internet with a cloud host, and offices of one host behind a NAT each.
struct Scene {
    _lab: Lab,
    cloud: Server,
    offices: Vec<mesh_lab::Site>,
}

impl Scene {
    fn new(name: &str, offices: usize) -> Result<Self> {
        Self::with(name, &vec![None; offices])
    }

    /// The same with something on the cables of the offices.
    fn with(name: &str, paths: &[Option<Emulation>]) -> Result<Self> {
        let lab = Lab::new(name)?;
        let mut internet = Internet::new(&lab)?;
        let cloud = internet.server("cloud", None)?;
        let site = |(number, path): (usize, &Option<Emulation>)| {
            internet.site(&format!("office{number}"), &SitePlan { path: *path, ..SitePlan::default() })
        };
        let offices = paths.iter().enumerate().map(site).collect::<Result<_>>()?;
        internet.set_name(NAME, cloud.host().ipv4()?)?;
        drop(internet);
        Ok(Self { _lab: lab, cloud, offices })
    }

    fn office(&self, number: usize) -> &Host {
        &self.offices[number].hosts()[0]
    }

    /// Has the router of an office drop UDP, both ways.
    fn block(&self, number: usize) -> Result<DropRule> {
        self.offices[number].router().drop_udp(Udp::all().both_ways())
    }

    fn start_transfer(&self, nums: &str, more: &[&str]) -> Result<Process> {
        let line = ["-public", NAME, "-bind", "8000", "-nums", nums, "-token", TOKEN];
        start(self.cloud.host(), "transfer", &[&line, more].concat())
    }

    fn transfer(&self, nums: &str, more: &[&str]) -> Result<Process> {
        let mut process = self.start_transfer(nums, more)?;
        process.wait_for_line("join with", START).context("the transfer did not start")?;
        Ok(process)
    }

    /// The relay alone is to carry: it is what the tests are about.
    fn start_gateway(&self, number: usize, more: &[&str]) -> Result<Process> {
        let ip = ip(number).to_string();
        let line =
            ["-ip", ip.as_str(), "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN, "-path", "relay"];
        start(self.office(number), "gateway", &[&line, more].concat())
    }

    fn gateway(&self, number: usize, more: &[&str]) -> Result<Process> {
        let mut process = self.start_gateway(number, more)?;
        process.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
        Ok(process)
    }

    fn ping(&self, from: usize, to: usize, ping: Ping) -> Result<mesh_lab::PingReport> {
        self.office(from).ping(IpAddr::V4(ip(to)), ping)
    }

    /// Pings until one is answered; how long that took.
    fn ping_until_answered(&self, from: usize, to: usize, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let quick = Ping { timeout: Duration::from_millis(100), ..ONE };
        while start.elapsed() < limit {
            if self.ping(from, to, quick)?.perfect() {
                return Ok(start.elapsed());
            }
        }
        anyhow::bail!("no answer within {limit:?}: {:#}", self.status(from)?)
    }

    fn status(&self, number: usize) -> Result<Value> {
        status(self.office(number), "gateway")
    }

    fn is_over_tcp(&self, number: usize) -> Result<bool> {
        self.status(number)?["transfer"]["over_tcp"].as_bool().context("a status says which")
    }

    /// Waits until a gateway is on UDP; how long that took.
    fn is_over_tcp_for(&self, number: usize, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        while self.is_over_tcp(number)? {
            ensure!(start.elapsed() < limit, "still over TCP: {:#}", self.status(number)?);
        }
        Ok(start.elapsed())
    }

    /// Pings every ten milliseconds, none of which may be lost; how many.
    fn pings_until(&self, from: usize, to: usize, done: &AtomicBool) -> Result<u32> {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let second = Ping { count: 100, interval: Duration::from_millis(10), ..ONE };
            let report = self.ping(from, to, second)?;
            ensure!(report.perfect(), "after {count} pings from {from} to {to}: {report}");
            count += report.sent;
        }
        Ok(count)
    }

    /// Copies both ways, bit by bit.
    fn copy(&self, name: &str, bytes: u64) -> Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            let report = tcp_copy(self.office(from), self.office(to), IpAddr::V4(ip(to)), bytes, 42)?;
            println!("{name}, {from} to {to}: {report}");
        }
        Ok(())
    }

    /// What the transfer knows of its members, by their virtual addresses.
    fn members(&self) -> Result<Vec<Value>> {
        let status = status(self.cloud.host(), "transfer")?;
        let mut members = status["namespaces"][0]["members"].as_array().context("members")?.clone();
        members.sort_by_key(|member| member["ip4"].to_string());
        Ok(members)
    }
}

/// The whole way: UDP goes, the registration goes to TCP; UDP comes back, and the registration with it, and nobody
/// loses a ping.
fn there_and_back(name: &str, transfer: &[&str], gateway: &[&str]) -> Result<()> {
    let scene = Scene::new(name, 2)?;
    let transfer = scene.transfer("10", transfer)?;
    let mut gateways = [scene.gateway(0, gateway)?, scene.gateway(1, gateway)?];
    assert!(scene.ping(0, 1, ONE)?.perfect());
    let before = scene.members()?;
    ensure!(before.iter().all(|member| member["over_tcp"] == false), "{before:?}");

    let rule = scene.block(0)?;
    let took = scene.ping_until_answered(0, 1, UP)?;
    println!("{name}: traffic over TCP {took:?} after the router began to drop UDP");
    gateways[0].wait_for_line("gets no answer: going over TCP to 203.0.113", START)?;
    assert!(scene.is_over_tcp(0)? && !scene.is_over_tcp(1)?);
    let during = scene.members()?;
    assert_eq!(during[0]["over_tcp"], true);
    let seen: SocketAddr = during[0]["endpoint"].as_str().context("an endpoint")?.parse()?;
    assert_eq!(seen.ip(), scene.offices[0].uplink().ipv4()?, "the transfer shows where the office is");
    assert_eq!([&before[0]["slot"], &before[1]["slot"]], [&during[0]["slot"], &during[1]["slot"]]);
    let shown = text(scene.office(0), "gateway")?;
    assert!(shown.contains("registered at 203.0.113.2:8000 over TCP"), "{shown}");
    let many = Ping { count: 200, interval: Duration::from_millis(5), ..ONE };
    for (from, to) in [(0, 1), (1, 0)] {
        let report = scene.ping(from, to, many)?;
        assert!(report.perfect(), "{name}: {report}");
    }
    scene.copy(name, 50_000_000)?;

    // Pings go on both ways while the registration moves back, and until the bridge is gone.
    rule.lift()?;
    let (start, moved) = (Instant::now(), AtomicBool::new(false));
    let (back, pings) = thread::scope(|scope| -> Result<(Duration, u32)> {
        let pings = [(0, 1), (1, 0)].map(|(from, to)| {
            let (scene, moved) = (&scene, &moved);
            scope.spawn(move || scene.pings_until(from, to, moved))
        });
        let back = scene.is_over_tcp_for(0, BACK);
        let gone = status_until(scene.cloud.host(), "transfer", START, |status| status["tcp"]["connections"] == 0);
        moved.store(true, Ordering::Relaxed);
        let mut count = 0;
        for ping in pings {
            count += ping.join().expect("no panic")?;
        }
        gone?;
        Ok((back?, count))
    })?;
    println!("{name}: on UDP again {back:?} after it was back, {pings} pings {:?} long without loss", start.elapsed());
    gateways[0].wait_for_line("works: TCP is left", START)?;
    let after = scene.members()?;
    assert_eq!([&before[0]["slot"], &before[1]["slot"]], [&after[0]["slot"], &after[1]["slot"]]);
    assert_eq!(after[0]["over_tcp"], false);
    for process in gateways.iter().chain([&transfer]) {
        assert_quiet(process);
    }
    Ok(())
}

/// `status` as people read it.
fn text(host: &Host, name: &str) -> Result<String> {
    let mut command = host.command(crate::fixture::program(name));
    let output = command.arg("status").env_remove("EASYMESH_PROGRAMS").output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn udp_dropped_at_the_router_and_back() {
    isolated(|| there_and_back("tcp_uring", &["-engine", "uring"], &["-engine", "uring"]));
}

#[test]
fn udp_dropped_at_the_router_and_back_mmsg() {
    isolated(|| there_and_back("tcp_mmsg", &["-engine", "mmsg"], &["-engine", "mmsg"]));
}

/// A namespace that all data threads share, where a gateway's two endpoints are different threads'; and the portable
/// engine.
#[test]
fn udp_dropped_at_the_router_and_back_spread() {
    isolated(|| there_and_back("tcp_spread", &["-spread", "all"], &["-engine", "portable"]));
}

#[test]
fn gateways_that_never_had_udp_meet_those_that_have_it() {
    isolated(|| {
        let scene = Scene::new("never", 3)?;
        let transfer = scene.transfer("10", &[])?;
        let rules = [scene.block(0)?, scene.block(1)?];
        let mut gateways = Vec::new();
        for number in 0..3 {
            let start = Instant::now();
            gateways.push(scene.gateway(number, &[])?);
            let took = start.elapsed();
            println!("gateway {number} is registered after {took:?}");
            assert!(took < UP, "gateway {number}: {took:?}");
            assert_eq!(scene.is_over_tcp(number)?, number < 2);
        }
        let many = Ping { count: 100, interval: Duration::from_millis(5), ..ONE };
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                let report = scene.ping(from, to, many)?;
                assert!(report.perfect(), "{from} to {to}: {report}");
            }
        }
        scene.copy("both over TCP", 50_000_000)?;
        let report = tcp_copy(scene.office(2), scene.office(0), IpAddr::V4(ip(0)), 50_000_000, 7)?;
        println!("from UDP to TCP: {report}");
        assert!(rules[0].dropped()? > 0, "nothing passed by UDP");
        for process in gateways.iter().chain([&transfer]) {
            assert_quiet(process);
        }
        // Who ends says so over TCP.
        gateways[0].terminate(START)?;
        let members = scene.members()?;
        assert_eq!(members.len(), 2, "{members:?}");
        Ok(())
    });
}

#[test]
fn transfer_restarted_while_gateways_are_on_tcp() {
    isolated(|| {
        let scene = Scene::new("restarted", 2)?;
        let mut transfer = scene.transfer("10", &[])?;
        let _rule = scene.block(0)?;
        let mut gateways = [scene.gateway(0, &[])?, scene.gateway(1, &[])?];
        assert!(scene.ping(0, 1, ONE)?.perfect());
        for round in 0..3 {
            transfer.signal(Signal::SIGKILL)?;
            transfer.wait(START)?;
            for _ in 0..(10 * round + 1) {
                assert!(!scene.ping(0, 1, Ping { timeout: Duration::from_millis(100), ..ONE })?.perfect());
            }
            transfer = scene.start_transfer("10", &[])?;
            let took = scene.ping_until_answered(0, 1, RESTARTED)?;
            println!("round {round}: traffic {took:?} after the restart, with one end on TCP");
            assert!(scene.is_over_tcp(0)?);
        }
        assert!(gateways.iter_mut().all(|gateway| matches!(gateway.try_wait(), Ok(None))), "gateways never exit");
        Ok(())
    });
}

/// The transfer is away for a while, and UDP works: TCP, which is tried too, is not what comes of it.
#[test]
fn transfer_that_was_away_is_found_by_udp() {
    isolated(|| {
        let scene = Scene::new("away", 2)?;
        let mut transfer = scene.transfer("10", &[])?;
        let _gateways = [scene.gateway(0, &[])?, scene.gateway(1, &[])?];
        assert!(scene.ping(0, 1, ONE)?.perfect());
        for _ in 0..3 {
            transfer.signal(Signal::SIGKILL)?;
            transfer.wait(START)?;
            for _ in 0..50 {
                assert!(!scene.ping(0, 1, Ping { timeout: Duration::from_millis(100), ..ONE })?.perfect());
            }
            transfer = scene.start_transfer("10", &[])?;
            let took = scene.ping_until_answered(0, 1, RESTARTED)?;
            println!("traffic {took:?} after five seconds without a transfer");
            for office in 0..2 {
                status_until(scene.office(office), "gateway", UP, |status| status["transfer"]["over_tcp"] == false)?;
            }
        }
        Ok(())
    });
}

/// TCP ports that something else holds cost the fallback on them, one line, and nothing else.
#[test]
fn busy_tcp_ports_are_told_once_and_taken_when_free() {
    isolated(|| {
        let scene = Scene::new("busy", 2)?;
        let cloud = scene.cloud.host();
        let mut held = Vec::new();
        for port in [8000, 8003, 8004, 8005] {
            held.push(cloud.tcp_listen(SocketAddr::from(([0, 0, 0, 0], port)))?);
        }
        let mut transfer = scene.transfer("10", &[])?;
        let line = transfer.wait_for_line("TCP ports are skipped", START)?;
        assert!(line.contains(": 8000, 8003-8005; gateways without UDP"), "{line}");
        let _gateway = scene.gateway(1, &[])?;
        let tcp = status(cloud, "transfer")?["tcp"].clone();
        assert_eq!((tcp["ports_bound"].as_u64(), tcp["ports_busy"][1].as_str()), (Some(6), Some("8003-8005")));

        let _rule = scene.block(0)?;
        let mut blocked = scene.start_gateway(0, &[])?;
        blocked.wait_for_line("no answer from you.domain.com:8000", START)?;
        // Whoever listens there takes connections and says nothing; then it goes.
        held.clear();
        blocked.wait_for_line("registered", Duration::from_secs(15))?;
        assert!(scene.ping(0, 1, ONE)?.perfect());
        status_until(cloud, "transfer", START, |status| status["tcp"]["ports_bound"] == 10)?;
        let told = transfer.output().lines().filter(|line| line.contains("TCP ports")).count();
        assert_eq!(told, 1, "{}", transfer.output());
        Ok(())
    });
}

#[test]
fn killed_transfer_listens_on_all_its_ports_again_at_once() {
    isolated(|| {
        let scene = Scene::new("listens", 1)?;
        let cloud = scene.cloud.host();
        let mut transfer = scene.transfer("1000", &[])?;
        let all = |status: &Value| status["tcp"]["ports_bound"] == 1000 && status["ports_bound"] == 1000;
        status_until(cloud, "transfer", START, all)?;
        // A connection of the one before is no hindrance to the next.
        let _rule = scene.block(0)?;
        let _gateway = scene.gateway(0, &[])?;
        transfer.signal(Signal::SIGKILL)?;
        transfer.wait(START)?;
        let start = Instant::now();
        let mut transfer = scene.transfer("1000", &[])?;
        status_until(cloud, "transfer", START, all)?;
        println!("1000 ports are listened on again after {:?}", start.elapsed());
        status_until(scene.office(0), "gateway", UP, |status| status["transfer"]["state"] == "registered")?;
        // An idle program wakes for nothing.
        let (from, begun) = (transfer.cpu_time()?, Instant::now());
        mesh_lab::pause(Duration::from_secs(5));
        let used = transfer.cpu_time()? - from;
        println!("{used:?} of processor time in {:?}, {} kB resident", begun.elapsed(), transfer.rss()? / 1024);
        assert!(used < Duration::from_millis(30), "{used:?} in five idle seconds with one gateway");
        assert!(matches!(transfer.try_wait(), Ok(None)));
        Ok(())
    });
}

/// The process has no descriptor left: connections wait, and are taken when there is one.
#[test]
fn listening_without_descriptors_goes_on_later() {
    isolated(|| Lab::new("full")?.host("a")?.run(take_without_descriptors));
}

fn take_without_descriptors() -> Result<()> {
    let holder = std::net::UdpSocket::bind("[::]:0")?;
    let port = holder.local_addr()?.port();
    let listening = Listening::start(100)?;
    listening.open(vec![port]);
    let report = || listening.shown().report();
    until(|| report().ports_bound == 1)?;
    let lowest_free = std::fs::File::open("/dev/null")?;
    let used = u64::from(std::os::fd::AsRawFd::as_raw_fd(&lowest_free).unsigned_abs());
    drop(lowest_free);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Three clients of this very process, and one connection of two descriptors.
    setrlimit(Resource::RLIMIT_NOFILE, used + 5, hard)?;
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
    let clients: Vec<_> = (0..3).map(|_| connect()).collect::<std::io::Result<_>>()?;
    until(|| report().streams.accepted == 1)?;
    mesh_lab::pause(Duration::from_millis(300));
    assert_eq!(report().streams.accepted, 1, "there is no room for another");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    // The second was taken and had no way on, the third waited.
    until(|| report().streams.accepted >= 2)?;
    drop(clients);
    until(|| report().streams.connections == 0)?;
    Ok(())
}

fn until(is_so: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_so() {
        ensure!(start.elapsed() < START, "it is not so");
        mesh_lab::pause(Duration::from_millis(2));
    }
    Ok(())
}

/// A copy fills the connection: what else goes over it waits for its queues and no longer, 400 KB at 20 Mbit/s.
#[test]
fn pings_beside_a_copy_wait_for_a_queue_and_no_longer() {
    isolated(|| {
        let (delay, rate) = (Duration::from_millis(20), Some(20_000_000));
        let slow = Emulation { delay, rate, queue_bytes: 128 * 1024, ..Emulation::default() };
        let scene = Scene::with("slow", &[Some(slow), None])?;
        let _transfer = scene.transfer("10", &[])?;
        let _rule = scene.block(0)?;
        let _gateways = [scene.gateway(0, &[])?, scene.gateway(1, &[])?];
        assert!(scene.ping(0, 1, ONE)?.perfect() && scene.is_over_tcp(0)?);
        for (from, to) in [(0, 1), (1, 0)] {
            let report = thread::scope(|scope| -> Result<mesh_lab::PingReport> {
                let (sender, receiver) = (scene.office(from), scene.office(to));
                let copy = scope.spawn(move || tcp_copy(sender, receiver, IpAddr::V4(ip(to)), 10_000_000, 3));
                let timeout = Duration::from_secs(5);
                let report = scene.ping(from, to, Ping { count: 40, interval: delay * 5, timeout, ..ONE })?;
                println!("{from} to {to}: {}, beside it {report}", copy.join().expect("no panic")?);
                Ok(report)
            })?;
            let slowest = report.rtts.iter().max().context("answers")?;
            assert!(report.received >= 36 && *slowest < Duration::from_secs(1), "{from} to {to}: {report}");
        }
        Ok(())
    });
}

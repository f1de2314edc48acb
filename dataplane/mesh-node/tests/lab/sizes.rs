//! How long packets may be, by the programs on real packets: links of several MTUs, routers that tell nobody what is too long, and
//! marks of congestion.

use std::io::{IoSliceMut, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Host, Internet, Lab, Nat, Ping, Process, Server, SitePlan, isolated, tcp_copy};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;
use socket2::SockRef;

use crate::fixture::{NAME, ONE, START, TOKEN, assert_quiet, ip, start, start_gateway, status, status_until};

/// A size is known so soon after the first packet.
const FOUND: Duration = Duration::from_secs(5);
/// And left so soon when it does not pass any more.
const LEFT: Duration = Duration::from_secs(3);

/// An internet with a cloud host, and two offices of one host behind a NAT each.
struct Scene {
    _lab: Lab,
    _cloud: Server,
    offices: Vec<mesh_lab::Site>,
    transfer: Process,
    gateways: Vec<Process>,
}

impl Scene {
    /// Gateways on `path`, registered, that have not talked yet.
    fn new(name: &str, path: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let mut internet = Internet::new(&lab)?;
        let cloud = internet.server("cloud", None)?;
        let plan = SitePlan { nat: Some(Nat::PortRestricted), ..SitePlan::default() };
        let site = |number: usize| internet.site(&format!("office{number}"), &plan);
        let offices: Vec<mesh_lab::Site> = (0..2).map(site).collect::<Result<_>>()?;
        internet.set_name(NAME, cloud.host().ipv4()?)?;
        drop(internet);
        let line = ["-public", NAME, "-bind", "8000", "-nums", "2", "-token", TOKEN];
        let mut transfer = start(cloud.host(), "transfer", &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        let mut gateways = Vec::new();
        for (number, office) in offices.iter().enumerate() {
            let mut gateway = start_gateway(&office.hosts()[0], number, &["-path", path])?;
            gateway.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
            gateways.push(gateway);
        }
        Ok(Self { _lab: lab, _cloud: cloud, offices, transfer, gateways })
    }

    fn office(&self, number: usize) -> &Host {
        &self.offices[number].hosts()[0]
    }

    /// Makes the cable between an office and the internet narrower; the office's own network stays as it is.
    fn set_mtu(&self, number: usize, bytes: u32) -> Result<()> {
        let uplink = self.offices[number].uplink();
        uplink.outside().set_mtu(bytes)?;
        uplink.upstream().set_mtu(bytes)
    }

    /// Has the routers of both offices say nothing by ICMP, neither themselves nor for others.
    fn silence(&self) -> Result<()> {
        for office in &self.offices {
            nft(
                office.router(),
                "table inet silent {
                    chain output { type filter hook output priority 0; meta l4proto { icmp, ipv6-icmp } drop; }
                    chain forward { type filter hook forward priority 0; meta l4proto { icmp, ipv6-icmp } drop; }
                }",
            )?;
        }
        Ok(())
    }

    /// Copies both ways, bit by bit; `limit`: for each.
    fn copy(&self, bytes: u64, limit: Duration) -> Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            let report = tcp_copy(self.office(from), self.office(to), IpAddr::V4(ip(to)), bytes, 42)?;
            println!("{from} to {to}: {report}");
            ensure!(report.elapsed <= limit, "{from} to {to}: {report}");
        }
        Ok(())
    }

    /// Waits until the path that carries, of this kind, shows this size at both ends, and the interface this MTU. Pings keep it in use.
    fn wait_for(&self, kind: &str, mtu_bytes: u32, inside: u32) -> Result<()> {
        let begin = Instant::now();
        for number in [0, 1] {
            loop {
                self.ping(1 - number)?;
                let status = status(self.office(number), "gateway")?;
                let path = active(&status);
                let shown = path.is_some_and(|path| path["kind"] == kind && path["mtu_bytes"] == mtu_bytes);
                if shown && status["inside_mtu"] == inside && self.interface_mtu(number)? == inside {
                    break;
                }
                ensure!(begin.elapsed() < FOUND, "not {mtu_bytes} bytes by {kind} and {inside} inside: {status:#}");
            }
        }
        println!("{mtu_bytes} bytes by {kind} after {:?}", begin.elapsed());
        Ok(())
    }

    /// What the system has for the virtual interface.
    fn interface_mtu(&self, number: usize) -> Result<u32> {
        let interfaces = self.office(number).list_interfaces()?;
        interfaces.iter().find(|interface| interface.name == "mesh0").map(|mesh| mesh.mtu).context("there is mesh0")
    }

    fn ping(&self, to: usize) -> Result<()> {
        let report =
            self.office(1 - to).ping(IpAddr::V4(ip(to)), Ping { interval: Duration::from_millis(20), ..ONE })?;
        ensure!(report.perfect(), "to {to}: {report}");
        Ok(())
    }

    fn assert_quiet(&self) {
        self.gateways.iter().chain([&self.transfer]).for_each(assert_quiet);
    }
}

/// The path that carries to the one peer.
fn active(status: &Value) -> Option<&Value> {
    status["peers"][0]["paths"].as_array()?.iter().find(|path| path["active"] == true)
}

/// Has `nft` load rules into a host.
fn nft(host: &Host, rules: &str) -> Result<()> {
    let folders = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
    let program = folders.iter().find(|program| std::path::Path::new(program).is_file()).context("no program nft")?;
    let mut command = host.command(program);
    let mut child = command.args(["--file", "-"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "nft refuses {rules}");
    Ok(())
}

/// A copy from the first second on, with a size that is found meanwhile; then one with that size.
fn found(name: &str, path: &str, mtu: u32, inside: u32) -> Result<()> {
    let scene = Scene::new(name, path)?;
    scene.silence()?;
    if mtu != 1500 {
        scene.set_mtu(0, mtu)?;
    }
    scene.copy(3_000_000, Duration::from_secs(10))?;
    let kind = if path == "relay" { "relay" } else { "direct" };
    scene.wait_for(kind, mtu, inside)?;
    scene.copy(20_000_000, Duration::from_secs(10))?;
    // The longest packet that the interface takes, in one piece by one's own word, and a byte more.
    let whole = Ping { size: usize::try_from(inside)? - 28, dont_fragment: true, ..ONE };
    ensure!(scene.office(0).ping(IpAddr::V4(ip(1)), whole)?.perfect(), "{inside} bytes pass");
    scene.assert_quiet();
    Ok(())
}

#[test]
fn an_ethernet_carries_1408_bytes_inside() {
    isolated(|| found("size1500", "auto", 1500, 1408));
}

#[test]
fn a_link_of_1400_bytes_is_found() {
    isolated(|| found("size1400", "auto", 1400, 1308));
}

#[test]
fn a_link_of_1280_bytes_is_found() {
    isolated(|| found("size1280", "auto", 1280, 1280));
}

#[test]
fn a_relayed_path_is_as_wide_as_its_narrower_leg() {
    isolated(|| found("sizeleg", "relay", 1400, 1308));
}

#[test]
fn a_relayed_path_over_ethernet_is_found() {
    isolated(|| found("sizerelay", "relay", 1500, 1408));
}

/// A link that gets narrower while a copy runs, and routers that do not say so.
fn black_hole(name: &str, path: &str) -> Result<()> {
    let scene = Scene::new(name, path)?;
    scene.silence()?;
    scene.copy(3_000_000, Duration::from_secs(10))?;
    let kind = if path == "relay" { "relay" } else { "direct" };
    scene.wait_for(kind, 1500, 1408)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let copies = scope.spawn(|| -> Result<Duration> {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let report = tcp_copy(scene.office(0), scene.office(1), IpAddr::V4(ip(1)), 5_000_000, 7)?;
                longest = longest.max(report.elapsed);
            }
            Ok(longest)
        });
        // Ends the copies also where it fails.
        let looked = (|| -> Result<Duration> {
            scene.set_mtu(1, 1400)?;
            let hole = Instant::now();
            let left = |status: &Value| active(status).is_some_and(|path| path["mtu_bytes"] != 1500);
            status_until(scene.office(0), "gateway", LEFT, left)?;
            let took = hole.elapsed();
            let found =
                |status: &Value| active(status).is_some_and(|path| path["kind"] == kind && path["mtu_bytes"] == 1400);
            status_until(scene.office(0), "gateway", LEFT, found)?;
            Ok(took)
        })();
        done.store(true, Ordering::Relaxed);
        let longest = copies.join().expect("no panic")?;
        println!("{name}: left after {:?}, the longest copy took {longest:?}", looked?);
        ensure!(longest < Duration::from_secs(10), "a copy took {longest:?}");
        Ok(())
    })?;
    scene.copy(20_000_000, Duration::from_secs(10))?;
    scene.assert_quiet();
    Ok(())
}

#[test]
fn a_black_hole_on_a_direct_path_is_left() {
    isolated(|| black_hole("hole", "auto"));
}

#[test]
fn a_black_hole_on_a_relayed_path_is_left() {
    isolated(|| black_hole("holerelay", "relay"));
}

/// Receives a datagram, and tells its TOS byte.
fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, u8)> {
    let mut bytes = [0; 100];
    let mut space = cmsg_space!(u8);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let tos = message.cmsgs()?.find_map(|message| {
        let ControlMessageOwned::Ipv4Tos(tos) = message else { return None };
        Some(tos)
    });
    let (length, tos) = (message.bytes, tos.context("the TOS byte is told")?);
    Ok((bytes[..length].to_vec(), tos))
}

#[test]
fn congestion_outside_is_told_inside_and_dscp_crosses() {
    isolated(|| {
        for path in ["auto", "relay"] {
            let scene = Scene::new(&format!("ecn{path}"), path)?;
            scene.ping(1)?;
            scene.wait_for(if path == "relay" { "relay" } else { "direct" }, 1500, 1408)?;
            let to = scene.office(1).udp(SocketAddr::new(IpAddr::V4(ip(1)), 5000))?;
            SockRef::from(&to).set_recv_tos_v4(true)?;
            to.set_read_timeout(Some(Duration::from_secs(1)))?;
            let from = scene.office(0).udp(SocketAddr::new(IpAddr::V4(ip(0)), 0))?;
            let send = |tos: u8, text: &[u8]| -> Result<()> {
                SockRef::from(&from).set_tos_v4(tos.into())?;
                from.send_to(text, SocketAddr::new(IpAddr::V4(ip(1)), 5000))?;
                Ok(())
            };
            for tos in [0, 0xb8, 0xb8 | 0b10, 0b01] {
                send(tos, b"plain")?;
                ensure!(receive(&to)? == (b"plain".to_vec(), tos), "{path}: {tos:#x} crosses");
            }
            // What the outer packets say on the way: the rule marks those of the class that was copied to them, and no others.
            nft(
                scene.offices[0].router(),
                "table ip congested {
                    chain forward {
                        type filter hook forward priority mangle;
                        meta l4proto udp ip dscp ef ip ecn set ce
                    }
                }",
            )?;
            send(0xb8 | 0b10, b"marked")?;
            ensure!(receive(&to)? == (b"marked".to_vec(), 0xb8 | 0b11), "{path}: congestion is told");
            send(0xb8, b"dropped")?;
            send(0, b"after")?;
            ensure!(
                receive(&to)? == (b"after".to_vec(), 0),
                "{path}: what cannot be marked is dropped, and nothing else"
            );
            let status = status(scene.office(1), "gateway")?;
            ensure!(status["drops"]["congestion"] == 1, "{path}: it is counted: {:#}", status["drops"]);
            scene.assert_quiet();
        }
        Ok(())
    });
}

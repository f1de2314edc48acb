//! Routers that translate addresses, firewalls, and rules that drop: what lies between hosts that look for each other.
//!
//! Rules are loaded by the program `nft` (Debian package `nftables`), one table for each NAT, firewall or rule, so
//! that each goes as it came.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::host::Host;
use crate::link::Interface;
use crate::nft;

/// The finest share of datagrams a rule can drop: one of so many.
const SHARES: f64 = 10_000.0;

/// How a router translates the IPv4 addresses of those behind it: see [`Interface::set_nat`].
///
/// In all kinds a datagram from outside that no mapping lets in vanishes without an answer, and so does one from
/// inside to the router's outside address: there is no hairpin. TCP and ICMP pass from inside, with their answers.
/// IPv6 is routed as without NAT: see [`Interface::set_firewall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// What a Linux router does by itself (`masquerade`). A source port stays as it is unless that would clash, so the
    /// mapping is the same towards every destination; who was not sent to may not send.
    ///
    /// Two hosts inside clash when both use the same source port towards the same destination, or one uses the port
    /// that the other was given. The second then gets another port at random, and also towards the destinations it
    /// turns to afterwards. One it had sent to before keeps the port it was given there.
    PortRestricted,
    /// Each destination (address and port) gets a mapping of its own, with a port drawn at random
    /// (`masquerade fully-random`); who was not sent to may not send.
    Symmetric,
    /// As [`Nat::PortRestricted`], but from the first datagram of UDP on that left from a port, everybody may send to
    /// that port; until [`Host::forget_flows`]. Hosts inside must use different source ports: the first one has it.
    FullCone,
}

impl Nat {
    fn rules(self, outside: &str) -> String {
        let (random, note, cone) = match self {
            Nat::PortRestricted => ("", "", ""),
            Nat::Symmetric => (" fully-random", "", ""),
            Nat::FullCone => (
                "",
                "meta l4proto udp add @cone { udp sport : ip saddr }",
                "map cone { type inet_service : ipv4_addr; flags dynamic; size 65535; }
                chain prerouting {
                    type nat hook prerouting priority dstnat; policy accept;
                    iifname OUTSIDE dnat to udp dport map @cone
                }",
            ),
        };
        // Dropped in `input`, a datagram nobody asked for leaves no flow behind: one that the kernel kept would hold
        // the port, and the mapping that is made later towards that sender would get another one.
        let rules = format!(
            "{cone}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname OUTSIDE {note}
                oifname OUTSIDE masquerade{random}
            }}
            chain input {{
                type filter hook input priority filter; policy accept;
                iifname OUTSIDE meta l4proto {{ tcp, udp }} ct state new,invalid drop
                iifname != lo meta l4proto {{ tcp, udp }} fib daddr . iif type unicast drop
            }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                ct status dnat accept
                iifname OUTSIDE ct state new,invalid drop
            }}"
        );
        rules.replace("OUTSIDE", outside)
    }
}

impl Interface {
    /// Makes the interface the outside of a NAT: what the host forwards out of it gets its first IPv4 address as
    /// source. `None`: no longer. The flows there are stay as they are until [`Host::forget_flows`]; the kernel forgets
    /// them a moment after the interface has lost the address or was switched off. The host must forward
    /// ([`crate::Lab::router`]).
    ///
    /// # Errors
    /// The program `nft` is missing, or the kernel lacks NAT.
    pub fn set_nat(&self, nat: Option<Nat>) -> Result<()> {
        let rules = nat.map(|nat| nat.rules(self.name()));
        self.set_table("ip", "nat", rules).with_context(|| format!("make {self:?} the outside of a NAT"))?;
        self.set_cone(nat == Some(Nat::FullCone));
        Ok(())
    }

    /// Makes the interface the outside of a stateful firewall, as routers have one for IPv6: what comes in by it is
    /// dropped unless it belongs to a flow from inside. IPv4 too; the neighbours still find the host by ICMPv6.
    ///
    /// # Errors
    /// The program `nft` is missing, or the kernel lacks connection tracking.
    pub fn set_firewall(&self, on: bool) -> Result<()> {
        let rules = "
            chain input {
                type filter hook input priority filter; policy accept;
                iifname OUTSIDE meta l4proto { tcp, udp } ct state new,invalid drop
            }
            chain forward {
                type filter hook forward priority filter; policy accept;
                ct status dnat accept
                iifname OUTSIDE ct state new,invalid drop
            }";
        let rules = on.then(|| rules.replace("OUTSIDE", self.name()));
        self.set_table("inet", "firewall", rules).with_context(|| format!("make {self:?} the outside of a firewall"))
    }

    /// Replaces or deletes a table of the interface, in one step.
    fn set_table(&self, family: &str, kind: &str, rules: Option<String>) -> Result<()> {
        let table = format!("{family} {kind}_{}", self.name());
        // Declared first, because what is not there cannot be deleted.
        let mut script = format!("table {table}\ndelete table {table}\n");
        if let Some(rules) = rules {
            let _ = writeln!(script, "table {table} {{\n{rules}\n}}");
        }
        nft::execute(self.host(), &script).map(drop)
    }
}

/// Empties the mappings that a [`Nat::FullCone`] keeps beside the flows.
pub(crate) fn forget_cones(host: &Host) -> Result<()> {
    let cones = host.interfaces().into_iter().filter(Interface::has_cone);
    let script = cones.fold(String::new(), |script, cone| script + &format!("flush map ip nat_{} cone\n", cone.name()));
    if script.is_empty() { Ok(()) } else { nft::execute(host, &script).map(drop) }
}

/// Which datagrams of UDP a rule is about: see [`Host::drop_udp`].
///
/// ```no_run
/// # use mesh_lab::{Lab, Udp};
/// # fn doc() -> anyhow::Result<()> {
/// # let lab = Lab::new("doc")?;
/// # let (router, a, b) = (lab.router("r")?, lab.host("a")?, lab.host("b")?);
/// let blocked = router.drop_udp(Udp::all().but_dns())?;
/// blocked.lift()?;
/// let one_way = router.drop_udp(Udp::all().from(a.ipv4()?).to(b.ipv4()?).to_port(11010))?;
/// let lossy = router.drop_udp(Udp::between(a.ipv4()?, b.ipv4()?).share(0.3))?;
/// # drop((one_way, lossy));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Udp {
    from: Side,
    to: Side,
    both_ways: bool,
    but_dns: bool,
    share: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Side {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Udp {
    /// Every datagram.
    #[must_use]
    pub fn all() -> Udp {
        Udp { from: Side::default(), to: Side::default(), both_ways: false, but_dns: false, share: 1.0 }
    }

    /// Those from one address to the other, both ways.
    #[must_use]
    pub fn between(one: IpAddr, other: IpAddr) -> Udp {
        Udp::all().from(one).to(other).both_ways()
    }

    /// Only those from this address.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Udp {
        Udp { from: Side { address: Some(address), ..self.from }, ..self }
    }

    /// Only those from this port.
    #[must_use]
    pub fn from_port(self, port: u16) -> Udp {
        Udp { from: Side { port: Some(port), ..self.from }, ..self }
    }

    /// Only those to this address.
    #[must_use]
    pub fn to(self, address: IpAddr) -> Udp {
        Udp { to: Side { address: Some(address), ..self.to }, ..self }
    }

    /// Only those to this port.
    #[must_use]
    pub fn to_port(self, port: u16) -> Udp {
        Udp { to: Side { port: Some(port), ..self.to }, ..self }
    }

    /// Also those of the opposite direction, from what was to be their receiver.
    #[must_use]
    pub fn both_ways(self) -> Udp {
        Udp { both_ways: true, ..self }
    }

    /// Not those from or to port 53.
    #[must_use]
    pub fn but_dns(self) -> Udp {
        Udp { but_dns: true, ..self }
    }

    /// Only this share of them, chosen at random: 0.0001 to 1. A train that is not cut
    /// ([`crate::LinkMode`]) counts as one.
    #[must_use]
    pub fn share(self, share: f64) -> Udp {
        Udp { share, ..self }
    }

    /// The rules of a chain that drops these and returns for others.
    fn rules(&self) -> Result<Vec<String>> {
        if !(1.0 / SHARES..=1.0).contains(&self.share) {
            bail!("{} is no share of datagrams: 0.0001 to 1", self.share);
        }
        if let (Some(from), Some(to)) = (self.from.address, self.to.address)
            && from.is_ipv4() != to.is_ipv4()
        {
            bail!("no datagram goes from {from} to {to}: one is an IPv4 address, the other is not");
        }
        let mut lines = Vec::new();
        if self.but_dns {
            // Two inequalities in one line nft 1.0.6 would make one: not both.
            lines.extend(["udp sport 53 return".to_owned(), "udp dport 53 return".to_owned()]);
        }
        lines.push(self.line(self.from, self.to));
        if self.both_ways {
            lines.push(self.line(self.to, self.from));
        }
        Ok(lines)
    }

    fn line(&self, from: Side, to: Side) -> String {
        let mut line = "meta l4proto udp".to_owned();
        for (side, address, port) in [(from, "saddr", "sport"), (to, "daddr", "dport")] {
            if let Some(ip) = side.address {
                let _ = write!(line, " {} {address} {ip}", if ip.is_ipv4() { "ip" } else { "ip6" });
            }
            if let Some(number) = side.port {
                let _ = write!(line, " udp {port} {number}");
            }
        }
        if self.share < 1.0 {
            let _ = write!(line, " numgen random mod {SHARES} < {}", (self.share * SHARES).round());
        }
        line + " counter name dropped drop"
    }
}

impl Host {
    /// Drops these datagrams of UDP when the host is to forward or to receive them, until the result is dropped or
    /// lifted. What the host itself sends is not touched (its programs would see an error that no network gives):
    /// drop it at the receiver.
    ///
    /// Where the host is a NAT, addresses are those of the inside: the sender's own on the way out, the receiver's own
    /// on the way in.
    ///
    /// # Errors
    /// `udp` fits nothing, the program `nft` is missing, or the kernel refuses the rule.
    pub fn drop_udp(&self, udp: Udp) -> Result<DropRule> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let table = format!("drop_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let drops = udp.rules()?.join("\n");
        // Before the tables of NAT and firewall, whose drops are not counted here.
        let script = format!(
            "table inet {table} {{
            counter dropped {{ }}
            chain drops {{
                {drops}
            }}
            chain input {{
                type filter hook input priority filter - 1; policy accept;
                iifname != lo jump drops
            }}
            chain forward {{
                type filter hook forward priority filter - 1; policy accept;
                jump drops
            }}
            }}\n"
        );
        nft::execute(self, &script)?;
        Ok(DropRule { host: self.clone(), table, lifted: false })
    }
}

/// A rule of [`Host::drop_udp`], in force until it is dropped.
#[derive(Debug)]
#[must_use = "the rule is in force until this is dropped"]
pub struct DropRule {
    host: Host,
    table: String,
    lifted: bool,
}

impl DropRule {
    /// How many packets it has dropped.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn dropped(&self) -> Result<u64> {
        let text = nft::execute(&self.host, &format!("list counter inet {} dropped\n", self.table))?;
        let number = text.split_once("packets ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("nft tells no number of packets: {text}"))
    }

    /// Lifts the rule, as dropping it does, and tells whether that went well.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn lift(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        self.lifted = true;
        nft::execute(&self.host, &format!("delete table inet {}\n", self.table)).map(drop)
    }
}

impl Drop for DropRule {
    fn drop(&mut self) {
        if !self.lifted
            && let Err(error) = self.remove()
        {
            eprintln!("a rule stays in force: {error:#}");
        }
    }
}

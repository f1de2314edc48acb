//! The usual scene of NAT traversal: an internet, servers on it, and sites behind routers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, bail};

use crate::emulation::Emulation;
use crate::emulator::EmulatedLink;
use crate::firewall::Nat;
use crate::host::Host;
use crate::lab::Lab;
use crate::link::{Interface, Lan, Net};

/// Cables that fit in the addresses of one pool, eight for each: the upper end, the lower end, and four to change to.
const CABLES_MAX: u8 = 32;

/// The lower end's addresses on its cable.
const LOWER_ADDRESSES: RangeInclusive<u32> = 2..=6;

/// Hosts on the LAN of a site: its router and they fit in 256 addresses.
const SITE_HOSTS_MAX: u8 = 200;

/// An internet: a router with a cable to everybody, which knows the way to public addresses only.
///
/// Servers have addresses of 203.0.113.0/24, the outsides of carriers and sites of 198.51.100.0/24, sites behind a
/// carrier of 100.64.C.0/24. The LAN of the N-th site, counted from 1, is 10.N.0.0/24, its router number 1 and its
/// hosts number 2 and up. All cables have IPv6 too (2001:db8::/32), hosts of sites
/// where [`SitePlan::ipv6`] asks for it.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mesh_lab::{Emulation, Internet, Lab, Nat, SitePlan};
/// # fn doc() -> anyhow::Result<()> {
/// let lab = Lab::new("two-offices")?;
/// let mut internet = Internet::new(&lab)?;
/// let ms = |delay| Some(Emulation { delay: Duration::from_millis(delay), ..Emulation::default() });
/// let cloud = internet.server("cloud", ms(40))?;
/// let left = internet.site("left", &SitePlan { hosts: 2, path: ms(5), ..SitePlan::default() })?;
/// let right = internet.site("right", &SitePlan { nat: Some(Nat::Symmetric), path: ms(5), ..SitePlan::default() })?;
/// internet.set_name("relay.example", cloud.host().ipv4()?)?;
/// let (a, b) = (&left.hosts()[0], &right.hosts()[0]); // left-1 with 10.1.0.2 and right-1 with 10.2.0.2
/// # let _ = (a, b);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Internet<'lab> {
    lab: &'lab Lab,
    router: Host,
    servers: Pool,
    customers: Pool,
    carriers: u8,
    sites: u8,
    /// Servers and hosts of sites, which know the names.
    hosts: Vec<Host>,
    names: Vec<(String, IpAddr)>,
}

/// What a site is to be: see [`Internet::site`].
#[derive(Clone, Debug)]
pub struct SitePlan {
    /// How its router translates IPv4 addresses. `None`: not at all, and nobody outside knows the way to its LAN.
    pub nat: Option<Nat>,
    /// Hosts on its LAN, 1 to 200.
    pub hosts: u8,
    /// What its cable does to what passes, in each direction. `None`: nothing, without a thread that looks at it.
    pub path: Option<Emulation>,
    /// The IPv4 network of its LAN if not `10.N.0.0/24`: two sites may have the same. At most 24 bits of prefix.
    pub lan: Option<String>,
    /// Public IPv6 addresses for its hosts, behind a stateful firewall in its router.
    pub ipv6: bool,
}

impl Default for SitePlan {
    /// One host behind [`Nat::PortRestricted`], no delay, no IPv6.
    fn default() -> SitePlan {
        SitePlan { nat: Some(Nat::PortRestricted), hosts: 1, path: None, lan: None, ipv6: false }
    }
}

impl<'lab> Internet<'lab> {
    /// An internet that nobody is connected to: a router named `internet`.
    ///
    /// # Errors
    /// As [`Lab::router`].
    pub fn new(lab: &'lab Lab) -> Result<Internet<'lab>> {
        let (router, hosts, names) = (lab.router("internet")?, Vec::new(), Vec::new());
        let (servers, customers) = (Pool::new("203.0.113", "2001:db8:1"), Pool::new("198.51.100", "2001:db8:2"));
        Ok(Internet { lab, router, servers, customers, carriers: 0, sites: 0, hosts, names })
    }

    /// The router in the middle, which sees everything that goes from one site to another or to a server, after NAT.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// A host of that name with a public address; `path` as in [`SitePlan`].
    ///
    /// # Errors
    /// The name is taken or malformed, there are 32 servers, or the kernel refuses the interfaces.
    pub fn server(&mut self, name: &str, path: Option<Emulation>) -> Result<Server> {
        let host = self.lab.host(name)?;
        let uplink = Uplink::new(self.lab, &self.router, &host, &mut self.servers, path)?;
        self.admit(&host)?;
        Ok(Server { host, uplink })
    }

    /// A carrier: a router of that name whose customers share its public address (CGN); `path` as in [`SitePlan`]. It
    /// forwards between its customers without translation.
    ///
    /// # Errors
    /// The name is taken or malformed, there are 32 carriers and sites, or the kernel refuses the interfaces.
    pub fn carrier(&mut self, name: &str, nat: Nat, path: Option<Emulation>) -> Result<Carrier> {
        let router = self.lab.router(name)?;
        let uplink = Uplink::new(self.lab, &self.router, &router, &mut self.customers, path)?;
        uplink.outside.set_nat(Some(nat))?;
        self.carriers += 1;
        let number = self.carriers;
        let ipv6 = format!("2001:db8:{:x}", 0x1000 + u16::from(number));
        self.router.route(&format!("{ipv6}::/48"), uplink.ipv6()?)?;
        let customers = Pool::new(&format!("100.64.{number}"), &ipv6);
        Ok(Carrier { router, uplink, customers })
    }

    /// A site: a router named `NAME-router` and on its LAN the hosts `NAME-1`, `NAME-2` and so on.
    ///
    /// # Errors
    /// A name is taken or malformed, a value of the plan is out of its range, there are 32 carriers and sites, or the
    /// kernel refuses something.
    pub fn site(&mut self, name: &str, plan: &SitePlan) -> Result<Site> {
        let router = self.site_router(name, plan)?;
        let uplink = Uplink::new(self.lab, &self.router, &router, &mut self.customers, plan.path)?;
        self.finish_site(name, plan, router, uplink, None)
    }

    /// A site like that of [`Internet::site`], connected to a carrier: two routers in a row translate.
    ///
    /// # Errors
    /// As [`Internet::site`]; a carrier has at most 32 sites.
    pub fn site_behind(&mut self, carrier: &mut Carrier, name: &str, plan: &SitePlan) -> Result<Site> {
        let router = self.site_router(name, plan)?;
        let uplink = Uplink::new(self.lab, &carrier.router, &router, &mut carrier.customers, plan.path)?;
        self.finish_site(name, plan, router, uplink, Some(carrier))
    }

    /// Lets `name` resolve to `address` on all servers and hosts of sites, those to come too.
    ///
    /// # Errors
    /// As [`Host::set_name`].
    pub fn set_name(&mut self, name: &str, address: IpAddr) -> Result<()> {
        self.names.push((name.to_owned(), address));
        self.hosts.iter().try_for_each(|host| host.set_name(name, address))
    }

    fn site_router(&mut self, name: &str, plan: &SitePlan) -> Result<Host> {
        if !(1..=SITE_HOSTS_MAX).contains(&plan.hosts) {
            bail!("a site of {} hosts: 1 to {SITE_HOSTS_MAX} are possible", plan.hosts);
        }
        self.sites = self.sites.checked_add(1).context("there is no number left for a site")?;
        self.lab.router(&format!("{name}-router"))
    }

    fn finish_site(
        &mut self,
        name: &str,
        plan: &SitePlan,
        router: Host,
        uplink: Uplink,
        carrier: Option<&Carrier>,
    ) -> Result<Site> {
        let number = self.sites;
        let hosts =
            (1..=plan.hosts).map(|host| self.lab.host(&format!("{name}-{host}"))).collect::<Result<Vec<_>>>()?;
        let mut nets = vec![plan.lan.clone().unwrap_or_else(|| format!("10.{number}.0.0/24"))];
        if plan.ipv6 {
            nets.push(format!("2001:db8:ffff:{number:x}::/64"));
        }
        let members: Vec<_> = [&router].into_iter().chain(&hosts).collect();
        let lan = self.lab.lan(&members, &nets.iter().map(String::as_str).collect::<Vec<_>>())?;
        for gateway in lan.ports()[0].addresses() {
            hosts.iter().try_for_each(|host| host.default_route(gateway.address()))?;
        }
        uplink.outside.set_nat(plan.nat)?;
        if plan.ipv6 {
            uplink.outside.set_firewall(true)?;
            // The way back, hop by hop; IPv4 needs none, for NAT hides the LAN.
            let last = carrier.map_or(&self.router, |carrier| &carrier.router);
            last.route(&nets[1], uplink.ipv6()?)?;
            if let Some(carrier) = carrier {
                self.router.route(&nets[1], carrier.uplink.ipv6()?)?;
            }
        }
        hosts.iter().try_for_each(|host| self.admit(host))?;
        Ok(Site { router, uplink, lan, hosts })
    }

    /// Tells a new host the names.
    fn admit(&mut self, host: &Host) -> Result<()> {
        self.hosts.push(host.clone());
        self.names.iter().try_for_each(|(name, address)| host.set_name(name, *address))
    }
}

/// A host of [`Internet::server`].
#[derive(Debug)]
pub struct Server {
    host: Host,
    uplink: Uplink,
}

impl Server {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its cable to the internet.
    #[must_use]
    pub fn uplink(&self) -> &Uplink {
        &self.uplink
    }
}

/// A router of [`Internet::carrier`].
#[derive(Debug)]
pub struct Carrier {
    router: Host,
    uplink: Uplink,
    customers: Pool,
}

impl Carrier {
    /// The router.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// Its cable to the internet.
    #[must_use]
    pub fn uplink(&self) -> &Uplink {
        &self.uplink
    }
}

/// A router and the hosts on its LAN: see [`Internet::site`].
#[derive(Debug)]
pub struct Site {
    router: Host,
    uplink: Uplink,
    lan: Lan,
    hosts: Vec<Host>,
}

impl Site {
    /// The router.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The hosts on the LAN, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The LAN: port 0 is the router's, port 1 that of the first host.
    #[must_use]
    pub fn lan(&mut self) -> &mut Lan {
        &mut self.lan
    }

    /// Its cable to the internet, or to its carrier.
    #[must_use]
    pub fn uplink(&self) -> &Uplink {
        &self.uplink
    }
}

/// A cable towards the internet. It stays when this goes.
#[derive(Debug)]
pub struct Uplink {
    outside: Interface,
    /// The other end.
    upstream: Interface,
    /// The IPv4 network of both.
    net: Net,
    path: Option<EmulatedLink>,
}

impl Uplink {
    fn new(lab: &Lab, upstream: &Host, host: &Host, pool: &mut Pool, path: Option<Emulation>) -> Result<Uplink> {
        let nets = pool.next()?;
        let nets = nets.each_ref().map(String::as_str);
        let (upstream, outside, path) = match path {
            Some(emulation) => {
                let link = lab.emulated_link(upstream, host, &nets, emulation)?;
                (link.a().clone(), link.b().clone(), Some(link))
            }
            None => {
                let link = lab.link(upstream, host, &nets)?;
                (link.a().clone(), link.b().clone(), None)
            }
        };
        upstream.addresses().into_iter().try_for_each(|gateway| host.default_route(gateway.address()))?;
        Ok(Uplink { outside, upstream, net: nets[0].parse()?, path })
    }

    /// The outer interface of the host or router: where [`Interface::set_nat`] belongs, and whose address changes when
    /// a site gets a new one.
    #[must_use]
    pub fn outside(&self) -> &Interface {
        &self.outside
    }

    /// The other end, in the router of the internet or of the carrier. Switched off, it takes the carrier from an
    /// unemulated cable, which keeps its addresses and routes here.
    #[must_use]
    pub fn upstream(&self) -> &Interface {
        &self.upstream
    }

    /// What delays and loses, with the internet as its first host (`a`); none where the plan asked for no path.
    ///
    /// # Errors
    /// It is a plain cable.
    pub fn path(&self) -> Result<&EmulatedLink> {
        self.path.as_ref().with_context(|| format!("{:?} is on a plain cable", self.outside))
    }

    /// Gives the outer interface another IPv4 address of its network in place of its own, as a provider does when a
    /// line was interrupted, and returns it. There are five, which take turns. The host forgets its flows, with IPv6.
    ///
    /// # Errors
    /// The kernel refuses the change.
    pub fn renew_ipv4(&self) -> Result<IpAddr> {
        let own = self.ipv4()?;
        let lower = LOWER_ADDRESSES.map(|number| self.net.nth(number)).collect::<Result<Vec<_>>>()?;
        let place = lower.iter().position(|net| net.address() == own).unwrap_or_default();
        let next = lower[(place + 1) % lower.len()];
        let kept = self.outside.addresses().into_iter().filter(|net| net.address() != own);
        let addresses: Vec<_> = [next].into_iter().chain(kept).map(|net| net.to_string()).collect();
        self.outside.set_addresses(&addresses.iter().map(String::as_str).collect::<Vec<_>>())?;
        // The kernel would forget those of the old address by itself, a moment later.
        self.outside.host().forget_flows()?;
        Ok(next.address())
    }

    /// The first IPv4 address of the outer interface: of a server or site on the internet, the public one.
    ///
    /// # Errors
    /// It has none.
    pub fn ipv4(&self) -> Result<IpAddr> {
        self.first(IpAddr::is_ipv4)
    }

    /// The first IPv6 address of the outer interface.
    ///
    /// # Errors
    /// It has none.
    pub fn ipv6(&self) -> Result<IpAddr> {
        self.first(IpAddr::is_ipv6)
    }

    fn first(&self, wanted: impl Fn(&IpAddr) -> bool) -> Result<IpAddr> {
        let addresses = self.outside.addresses().into_iter().map(|net| net.address());
        addresses.into_iter().find(wanted).with_context(|| format!("{:?} has no such address", self.outside))
    }
}

/// Networks for cables.
#[derive(Debug)]
struct Pool {
    ipv4: String,
    ipv6: String,
    taken: u8,
}

impl Pool {
    fn new(ipv4: &str, ipv6: &str) -> Pool {
        Pool { ipv4: ipv4.to_owned(), ipv6: ipv6.to_owned(), taken: 0 }
    }

    /// The networks of the next cable.
    fn next(&mut self) -> Result<[String; 2]> {
        let Pool { ipv4, ipv6, taken } = self;
        if *taken == CABLES_MAX {
            bail!("{ipv4}.0/24 is used up: it has addresses for {CABLES_MAX} cables");
        }
        *taken += 1;
        Ok([format!("{ipv4}.{}/29", (*taken - 1) * 8), format!("{ipv6}:{taken:x}::/64")])
    }
}

//! A host: a network namespace and a mount namespace, held open by two file descriptors.
//!
//! Nothing runs to hold a host, so nothing has to be stopped: when the last handle is gone, or the process that made
//! it has died, the kernel frees the namespaces with every interface, route and mount in them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::link::{Interface, Kept, Net, Record};
use crate::process::Process;
use crate::{netlink, sys, world};

/// The directory a program in a host finds in `STATE_DIRECTORY`: private to the host, gone with it.
const STATE_DIRECTORY: &str = "/run/state";

/// Settings of every new host: addresses are usable at once, and nothing is sent that nobody asked for.
const SYSCTLS: [(&str, &str); 11] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.ip_forward", "0"),
    // Of several addresses of one network each can be taken away alone, as distributions set it.
    ("net.ipv4.conf.all.promote_secondaries", "1"),
    ("net.ipv4.conf.default.promote_secondaries", "1"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    // Addresses survive a link that goes down, as IPv4 ones do.
    ("net.ipv6.conf.all.keep_addr_on_down", "1"),
    ("net.ipv6.conf.default.keep_addr_on_down", "1"),
];

/// A machine of the laboratory, with its own interfaces, addresses, routes and sockets, its own `/etc/hosts`,
/// `/etc/resolv.conf` and `/run`. The rest of the file system is the machine's own, and so are the processes: a host
/// is a place to run them in. A handle is cheap to clone; the host lives as long as the longest-lived one.
///
/// Programs see `/sys` as outside; its `class/net` does not follow the host. What there is to set in it for an
/// interface, [`Interface`] sets ([`Interface::steer_receive`], [`Interface::set_gro_flush_timeout`]).
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    net: Arc<OwnedFd>,
    mounts: Arc<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, IpAddr>,
    names_written: u64,
    interfaces: Vec<Arc<Record>>,
    routes: Vec<(Net, IpAddr)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Host({})", self.inner.name)
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Host) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Host {
    pub(crate) fn new(name: &str) -> Result<Host> {
        let build = || -> Result<(OwnedFd, OwnedFd)> {
            sys::new_namespaces().context(
                "create network and mount namespaces (user.max_net_namespaces and user.max_mnt_namespaces limit them)",
            )?;
            sys::mount_tmpfs("/run").context("mount a private /run")?;
            fs::create_dir(STATE_DIRECTORY).with_context(|| format!("make {STATE_DIRECTORY}"))?;
            replace_file("/etc/hosts", "/run/hosts.0", &hosts_file(&BTreeMap::new()))?;
            replace_file("/etc/resolv.conf", "/run/resolv.conf", "# no name server: unknown names fail at once\n")?;
            for (knob, value) in SYSCTLS {
                write_sysctl(knob, value)?;
            }
            let open = |kind| File::open(format!("/proc/thread-self/ns/{kind}")).map(OwnedFd::from);
            Ok((open("net").context("open /proc/thread-self/ns/net")?, open("mnt").context("open .../ns/mnt")?))
        };
        let (net, mounts) = in_thread(name, build).with_context(|| format!("make the host {name}"))?;
        let state = Mutex::new(State::default());
        let inner = Inner { name: name.to_owned(), net: Arc::new(net), mounts: Arc::new(mounts), state };
        let host = Host { inner: Arc::new(inner) };
        netlink::loopback_up(&host)?;
        Ok(host)
    }

    /// The name given when the host was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs a closure inside the host, on a thread of its own. Sockets and files opened there stay in the host
    /// wherever they are used afterwards; a panic is passed on.
    ///
    /// # Errors
    /// Those of the closure, and a thread that cannot be started.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(self.name(), || {
            sys::enter_thread(&self.inner.net, &self.inner.mounts)
                .with_context(|| format!("enter the host {}", self.name()))?;
            work()
        })
    }

    /// Prepares a program that starts inside the host, to be changed like any other command and given to
    /// [`Host::spawn`]. Its `STATE_DIRECTORY` is an empty directory of the host.
    ///
    /// The program is killed when the thread that started it ends: start with [`Host::spawn`] what is to live
    /// longer. The environment is that of this process without the variables `MESH_LAB_*`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("STATE_DIRECTORY", STATE_DIRECTORY);
        let own = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_LAB_"));
        own.for_each(|(name, _)| {
            command.env_remove(name);
        });
        sys::start_inside(&mut command, Arc::clone(&self.inner.net), Arc::clone(&self.inner.mounts));
        command
    }

    /// Starts a program made by [`Host::command`] and collects its output. Dropping the result kills it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::start(self.name(), command)
    }

    /// Lets `name` resolve to `address` in this host, from now on and for running programs too.
    ///
    /// The new `/etc/hosts` is mounted over the old one, so nobody reads half of it. Every change is one more mount
    /// until the host ends; the kernel allows 100,000.
    ///
    /// # Errors
    /// `name` is not a host name, or the file cannot be replaced.
    pub fn set_name(&self, name: &str, address: IpAddr) -> Result<()> {
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(usable) {
            bail!("{name:?} is not a host name");
        }
        let mut state = self.state();
        state.names.insert(name.to_owned(), address);
        self.write_names(&mut state)
    }

    /// Forgets a name given by [`Host::set_name`]; it then fails to resolve.
    ///
    /// # Errors
    /// The file cannot be replaced.
    pub fn remove_name(&self, name: &str) -> Result<()> {
        let mut state = self.state();
        state.names.remove(name);
        self.write_names(&mut state)
    }

    fn write_names(&self, state: &mut State) -> Result<()> {
        state.names_written += 1;
        let (text, staged) = (hosts_file(&state.names), format!("/run/hosts.{}", state.names_written));
        self.run(|| replace_file("/etc/hosts", &staged, &text))
    }

    /// Sets a kernel parameter of the host's network, named as `sysctl` does: `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// There is no such parameter, or the value is refused.
    pub fn sysctl(&self, knob: &str, value: &str) -> Result<()> {
        if !knob.starts_with("net.") {
            bail!("{knob} is not a parameter of a network: only net.* belongs to a host");
        }
        self.run(|| write_sysctl(knob, value))
    }

    /// Sends what is for `destination` (as `10.2.0.0/16`) through the neighbour `gateway`.
    ///
    /// # Errors
    /// `destination` is not a network, or no interface reaches `gateway`.
    pub fn route(&self, destination: &str, gateway: IpAddr) -> Result<()> {
        let destination: Net = destination.parse()?;
        netlink::set_route(self, destination, gateway)?;
        let mut state = self.state();
        state.routes.retain(|(net, _)| *net != destination);
        state.routes.push((destination, gateway));
        Ok(())
    }

    /// Sends what has no other route through the neighbour `gateway`.
    ///
    /// # Errors
    /// No interface reaches `gateway`.
    pub fn default_route(&self, gateway: IpAddr) -> Result<()> {
        self.route(if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, gateway)
    }

    /// Puts back the routes that the kernel dropped with a link.
    pub(crate) fn restore_routes(&self) -> Result<()> {
        let routes = self.state().routes.clone();
        for (destination, gateway) in routes {
            // A route through a link that is still down comes back with that link.
            if self.interfaces().iter().any(|interface| interface.is_up() && interface.reaches(gateway)) {
                netlink::set_route(self, destination, gateway)?;
            }
        }
        Ok(())
    }

    /// The interfaces the laboratory gave the host, in order: `eth0`, `eth1` and so on.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        self.state().interfaces.iter().map(|record| Interface::new(self, record)).collect()
    }

    /// The interface of that name among those the laboratory gave.
    ///
    /// # Errors
    /// There is none.
    pub fn interface(&self, name: &str) -> Result<Interface> {
        let state = self.state();
        let found = state.interfaces.iter().find(|record| record.name() == name);
        found
            .map(|record| Interface::new(self, record))
            .with_context(|| format!("the host {} has no interface {name}", self.name()))
    }

    /// The first IPv4 address given to the host.
    ///
    /// # Errors
    /// It has none.
    pub fn ipv4(&self) -> Result<IpAddr> {
        self.first_address(IpAddr::is_ipv4).with_context(|| format!("the host {} has no IPv4 address", self.name()))
    }

    /// The first IPv6 address given to the host; link-local ones do not count.
    ///
    /// # Errors
    /// It has none.
    pub fn ipv6(&self) -> Result<IpAddr> {
        self.first_address(IpAddr::is_ipv6).with_context(|| format!("the host {} has no IPv6 address", self.name()))
    }

    fn first_address(&self, wanted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        self.interfaces().iter().flat_map(Interface::addresses).map(|net| net.address()).find(wanted)
    }

    /// A UDP socket of the host, bound to `address` (port 0: any).
    ///
    /// # Errors
    /// Those of `bind`.
    pub fn udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        self.run(|| UdpSocket::bind(address).with_context(|| format!("bind UDP {address} in {}", self.name())))
    }

    /// A TCP socket of the host that listens on `address` (port 0: any).
    ///
    /// # Errors
    /// Those of `bind`.
    pub fn tcp_listen(&self, address: SocketAddr) -> Result<TcpListener> {
        self.run(|| TcpListener::bind(address).with_context(|| format!("listen on TCP {address} in {}", self.name())))
    }

    /// A TCP connection from the host to `address`.
    ///
    /// # Errors
    /// Those of `connect`, or no answer within `timeout`.
    pub fn tcp_connect(&self, address: SocketAddr, timeout: Duration) -> Result<TcpStream> {
        let connect = || TcpStream::connect_timeout(&address, timeout);
        self.run(|| connect().with_context(|| format!("connect to TCP {address} from {}", self.name())))
    }

    /// Checks that programs in the host can make TUN interfaces.
    ///
    /// # Errors
    /// They cannot: the message names the remedy.
    pub fn check_tun(&self) -> Result<()> {
        self.run(|| {
            let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
            let device = opened.map_err(|error| anyhow!("open /dev/net/tun: {error}; {}", tun_remedy(&error)))?;
            sys::make_tun(&device).context("make a TUN interface (needs CAP_NET_ADMIN over the host's network)")
        })
    }

    /// A shell command by which a person outside steps into the host while it lives.
    ///
    /// # Errors
    /// The process is in no private world.
    pub fn step_in(&self) -> Result<String> {
        let pid = world::outer_pid()?;
        let (net, mounts) = (self.inner.net.as_raw_fd(), self.inner.mounts.as_raw_fd());
        let root = if world::has_user_namespace() { " --user --preserve-credentials" } else { "" };
        let fds = format!("/proc/{pid}/fd");
        Ok(format!("nsenter --target {pid}{root} --pid --net={fds}/{net} --mount={fds}/{mounts}"))
    }

    /// The network namespace, for netlink messages that name it by number.
    pub(crate) fn net_fd(&self) -> &OwnedFd {
        &self.inner.net
    }

    /// Takes the next free interface name: `eth0`, `eth1` and so on.
    pub(crate) fn next_interface(&self, keeps: Option<Kept>) -> Interface {
        let mut state = self.state();
        let record = Record::new(format!("eth{}", state.interfaces.len()), keeps);
        state.interfaces.push(Arc::clone(&record));
        Interface::new(self, &record)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` on a fresh thread, whose namespaces nobody else shares, and waits for it.
fn in_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(format!("host {name}")).spawn_scoped(scope, work);
        thread.context("start a thread")?.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn hosts_file(names: &BTreeMap<String, IpAddr>) -> String {
    let own = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    names.iter().fold(own, |file, (name, address)| file + &format!("{address} {name}\n"))
}

/// Puts a file with `text` in the place of `target` in this thread's mount namespace.
fn replace_file(target: &str, staged: &str, text: &str) -> Result<()> {
    fs::write(staged, text).with_context(|| format!("write {staged}"))?;
    // Where the file is a link into /run, as resolv.conf often is, the private /run has no such file.
    if let Ok(link) = fs::read_link(target)
        && !Path::new(target).exists()
    {
        let end = Path::new(target).parent().unwrap_or(Path::new("/")).join(link);
        end.parent().map_or(Ok(()), fs::create_dir_all).with_context(|| format!("make the folder of {end:?}"))?;
        fs::write(&end, "").with_context(|| format!("make {end:?}, which {target} points to"))?;
    }
    match sys::cover(Path::new(staged), Path::new(target)) {
        // Without the file there is nothing to hide; names then need one to be there.
        Err(nix::errno::Errno::ENOENT) if target == "/etc/resolv.conf" => Ok(()),
        covered => covered.with_context(|| format!("mount {staged} on {target}")),
    }
}

/// Writes a parameter of this thread's network namespace; one of an IPv6 that the kernel lacks is passed over.
fn write_sysctl(knob: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", knob.replace('.', "/"));
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && knob.starts_with("net.ipv6.") => Ok(()),
        written => written.with_context(|| format!("set {knob} to {value:?}")),
    }
}

fn tun_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "make it: `mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200` as root",
        Some(libc::ENXIO | libc::ENODEV) => "the kernel lacks the TUN driver: `modprobe tun` as root",
        _ => "/dev/net/tun must be readable and writable: `chmod 666 /dev/net/tun` as root, or run as root",
    }
}

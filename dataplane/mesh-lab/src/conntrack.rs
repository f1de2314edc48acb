//! The flows that a NAT or a stateful firewall remembers: the kernel's connection tracking of a host.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use crate::firewall;
use crate::host::Host;

/// How many flows the namespace of the calling thread has.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`: without a flow to look for, it deletes them all.
const DELETE_FLOWS: u16 = 1 << 8 | 2;

/// A netlink header, and that of netfilter: family, version, resource.
const REQUEST_BYTES: usize = 16 + 4;

/// An answer: a netlink header and the number of an error, 0 if there was none.
const ANSWER_BYTES_MIN: usize = 16 + 4;

impl Host {
    /// How many flows the host remembers; one it tracks needs rules that ask for it ([`crate::Interface::set_nat`],
    /// [`crate::Interface::set_firewall`]). A flow whose time is over counts until the kernel sweeps it up, which may
    /// take a minute.
    ///
    /// # Errors
    /// The kernel has no connection tracking.
    pub fn flows(&self) -> Result<u32> {
        self.run(|| {
            let text = fs::read_to_string(COUNT).with_context(|| format!("read {COUNT} (module nf_conntrack)"))?;
            text.trim().parse().with_context(|| format!("{COUNT} holds {text:?}"))
        })
    }

    /// Has the host forget all flows and with them the mappings of its NAT, as a router does that was switched off and
    /// on.
    ///
    /// The next datagram from inside makes a new mapping. That of [`crate::Nat::PortRestricted`] is the old one again
    /// if nobody else has taken the port.
    ///
    /// # Errors
    /// The kernel has no netlink interface to connection tracking.
    pub fn forget_flows(&self) -> Result<()> {
        firewall::forget_cones(self)?;
        self.run(|| delete_flows().with_context(|| format!("delete the flows of {}", self.name())))
    }

    /// Sets how long the host remembers a flow of UDP after its last datagram, in whole seconds of at least 1; the
    /// kernel's own values are 30 s, and 120 s for a flow that went both ways for more than 2 s. A flow there is
    /// takes the new time with its next datagram.
    ///
    /// # Errors
    /// The time is below a second, or the kernel refuses it.
    pub fn set_udp_timeout(&self, timeout: Duration) -> Result<()> {
        let seconds = timeout.as_secs();
        if seconds == 0 || timeout.subsec_nanos() != 0 {
            bail!("{timeout:?} is no time of whole seconds, of which a flow is given at least one");
        }
        for knob in ["net.netfilter.nf_conntrack_udp_timeout", "net.netfilter.nf_conntrack_udp_timeout_stream"] {
            self.sysctl(knob, &seconds.to_string())?;
        }
        Ok(())
    }
}

fn delete_flows() -> Result<()> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    let socket = socket.context("open a netlink socket")?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    request.extend((REQUEST_BYTES as u32).to_ne_bytes());
    request.extend(DELETE_FLOWS.to_ne_bytes());
    request.extend((flags as u16).to_ne_bytes());
    // Sequence and sender are free; family, version and resource 0 mean the flows of every family.
    request.extend([0; 12]);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty()).context("send the request")?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context("receive the answer")?;
    let error = answer[..length].get(16..ANSWER_BYTES_MIN).and_then(|bytes| bytes.try_into().ok());
    match i32::from_ne_bytes(error.context("the answer is too short")?) {
        0 => Ok(()),
        error => Err(Errno::from_raw(-error)).context("the kernel refuses (module nf_conntrack_netlink)"),
    }
}

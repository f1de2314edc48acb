//! Interfaces that tunnels make and leave to others to set up: what `ip address add` and `ip link set up mtu` would do.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use mesh_lab::Host;
use rtnetlink::LinkUnspec;

/// How often it is looked whether an interface is there.
const POLL: Duration = Duration::from_millis(5);

/// Waits until a program has made the interface `name`.
#[expect(clippy::disallowed_methods, reason = "programs of others tell nobody when they have made an interface")]
pub(crate) fn wait_for(host: &Host, name: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !host.list_interfaces()?.iter().any(|interface| interface.name == name) {
        if Instant::now() > deadline {
            bail!("no interface {name} in {} within {limit:?}", host.name());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Gives an interface an address and a largest packet size, and switches it on.
pub(crate) fn set_up(host: &Host, name: &str, address: Ipv4Addr, prefix: u8, mtu: u16) -> Result<()> {
    let done = host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
        runtime.block_on(async {
            let (connection, netlink, _) = rtnetlink::new_connection().context("open a netlink socket")?;
            let connection = tokio::spawn(connection);
            let found = netlink.link().get().match_name(name.to_owned()).execute().next().await;
            let index = found.context("the kernel answers nothing")?.context("look for it")?.header.index;
            let size = LinkUnspec::new_with_index(index).mtu(mtu.into()).build();
            netlink.link().set(size).execute().await.with_context(|| format!("set its MTU to {mtu}"))?;
            // A program may set its own address meanwhile.
            let added = netlink.address().add(index, address.into(), prefix).replace().execute().await;
            added.with_context(|| format!("add {address}/{prefix}"))?;
            let on = LinkUnspec::new_with_index(index).up().build();
            netlink.link().set(on).execute().await.context("switch it on")?;
            connection.abort();
            Ok(())
        })
    });
    done.with_context(|| format!("set up {name} of {}", host.name()))
}

//! No tunnel: the load goes over the links as it is, in packets no larger than a tunnel's inner ones.

use anyhow::Result;

use crate::report::SystemInfo;
use crate::tunnel::cell::TunnelCell;
use crate::tunnel::rig::Rig;
use crate::tunnel::system::{Found, Tunnel, TunnelSystem};

/// The links themselves.
pub(super) struct Raw;

impl TunnelSystem for Raw {
    fn name(&self) -> &'static str {
        super::CONTROL
    }

    fn find(&self) -> Result<Found> {
        let version = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let about = "No tunnel and no encryption: the kernel routes packets through the middle host, on links with the MTU \
                     that is the tunnels' inner MTU. What could be had at most by trains; single datagrams have one core only.";
        Ok(Ok(SystemInfo { name: self.name().into(), version, ours: false, about: about.into() }))
    }

    fn unable(&self, _cell: &TunnelCell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        rig.set_mtu(cell.inner_mtu.into())?;
        rig.route()?;
        Ok(Tunnel { left: Rig::LEFT, right: Rig::RIGHT, processes: Vec::new(), relay: None })
    }
}

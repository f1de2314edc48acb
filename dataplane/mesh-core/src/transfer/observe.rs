//! "Where do you see me?", asked of a port by whoever knows its token: answered at once, by home and mirror alike, and forgotten.

use mesh_wire::observe::{Observe, Observed, mac_input};

use super::{Reply, Transfer};
use crate::drops::DropReason;
use crate::seam::{Endpoint, SocketId};
use crate::session::mac::ObserverKey;

impl Transfer {
    /// Names another port of this transfer, which the members of the namespace of `socket` may ask where it sees them; it has to be served
    /// by the same token. `None`: there is none.
    pub fn set_other_port(&mut self, socket: SocketId, port: Option<u16>) {
        if let Some(space) = self.spaces.get_mut(socket) {
            space.other_port = port;
        }
    }

    /// Answers a member at home.
    pub(super) fn receive_observe(
        &self,
        from: Endpoint,
        datagram: &[u8],
        reply: &mut Reply<'_, '_>,
    ) -> Result<(), DropReason> {
        let space = self.spaces.get(from.socket).ok_or(DropReason::UnknownSocket)?;
        answer(&ObserverKey::of(&space.keys), from, datagram, reply)
    }
}

/// Answers a question that was asked under `key`; others not.
pub(super) fn answer(
    key: &ObserverKey,
    from: Endpoint,
    datagram: &[u8],
    reply: &mut Reply<'_, '_>,
) -> Result<(), DropReason> {
    let asked = Observe::parse(datagram).map_err(super::too_short_or_malformed)?;
    if !key.verify(mac_input(datagram), &asked.mac) {
        return Err(DropReason::WrongToken);
    }
    reply.send(from, &Observed::emit(&asked.nonce, &from.remote, |bytes| key.mac(bytes)))
}

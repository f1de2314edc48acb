//! Tickets: what a member can show for its lease when the transfer has been restarted and has forgotten it.
//!
//! ```text
//! +-----------+-----------+-------------------------------------------------+
//! | edition 1 | salt (16) | sealed: key (32), address (4), age (8); tag (16) |
//! +-----------+-----------+-------------------------------------------------+
//! ```
//!
//! Each is sealed under a key of its own, derived from the transfer's ticket key and the salt, so that no nonce can occur twice
//! however often the transfer is restarted. The namespace is authenticated with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::TAG_BYTES;
use ring::hmac;
use zeroize::Zeroizing;

use crate::session::PublicKey;
use crate::session::aead::{OpeningKey, SealingKey};
use crate::session::cipher::Cipher;

const EDITION: u8 = 1;
const SALT_BYTES: usize = 16;
const BODY_AT: usize = 1 + SALT_BYTES;
const BODY_BYTES: usize = 32 + 4 + 8;
const TICKET_BYTES: usize = BODY_AT + BODY_BYTES + TAG_BYTES;
const _: () = assert!(TICKET_BYTES <= mesh_wire::message::TICKET_BYTES_MAX);

/// Separates these keys from any other use of the ticket key.
const LABEL: &[u8] = b"EasyMesh/2 ticket";

/// Seals and opens tickets.
pub(super) struct TicketOffice {
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for TicketOffice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketOffice").finish_non_exhaustive()
    }
}

impl TicketOffice {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key) }
    }

    /// A ticket for `holder`, who has held `ip4` for `age`. `salt` is random.
    pub(super) fn seal(
        &self,
        salt: [u8; SALT_BYTES],
        namespace: u16,
        holder: &PublicKey,
        ip4: Ipv4Addr,
        age: Duration,
    ) -> Vec<u8> {
        let mut ticket = Vec::with_capacity(TICKET_BYTES);
        ticket.push(EDITION);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(holder);
        ticket.extend_from_slice(&ip4.octets());
        ticket.extend_from_slice(&age.as_secs().to_be_bytes());
        let key = self.derive(&salt);
        let tag = SealingKey::new(Cipher::ChaCha20Poly1305, &key).seal(0, &header(namespace), &mut ticket[BODY_AT..]);
        ticket.extend_from_slice(&tag);
        ticket
    }

    /// How long `holder` had held `ip4` by this ticket, or `None` when it is none of ours for them.
    pub(super) fn open(&self, ticket: &[u8], namespace: u16, holder: &PublicKey, ip4: Ipv4Addr) -> Option<Duration> {
        let ticket: &[u8; TICKET_BYTES] = ticket.try_into().ok()?;
        if ticket[0] != EDITION {
            return None;
        }
        let key = self.derive(&ticket[1..BODY_AT]);
        let mut body = [0; BODY_BYTES + TAG_BYTES];
        body.copy_from_slice(&ticket[BODY_AT..]);
        OpeningKey::new(Cipher::ChaCha20Poly1305, &key).open(0, &header(namespace), &mut body).ok()?;
        let (age, theirs) = (&body[36..44], body[..32] == holder[..] && body[32..36] == ip4.octets());
        let seconds = u64::from_be_bytes(age.try_into().ok()?);
        // What is beyond a century is an age all the same, and can be added to without care.
        theirs.then(|| Duration::from_secs(seconds.min(100 * 365 * 24 * 3600)))
    }

    fn derive(&self, salt: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_slice()));
        context.update(LABEL);
        context.update(salt);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(context.sign().as_ref());
        key
    }
}

fn header(namespace: u16) -> [u8; 3] {
    let [high, low] = namespace.to_be_bytes();
    [EDITION, high, low]
}

//! The handshake: Noise `XXpsk0` over X25519, ChaCha20-Poly1305 and BLAKE2s (the Noise Protocol Framework, revision 34).
//!
//! Three messages, and both sides know each other's static key afterwards, with the token's key mixed in from the first byte.
//! The types follow the pattern: an [`Initiator`] waits for message 2, a [`Responder`] for message 3, and each is used up by
//! it. All of this is slow (each step multiplies points on the curve), so it is run as [`super::jobs`].

mod resolver;

use snow::HandshakeState;
use snow::resolvers::CryptoResolver;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::PublicKey;
use super::aead::RawKeys;
use super::cipher::{Cipher, Ciphers};
use super::token::{self, NamespaceKeys};
use super::wipe::Wiped;

/// The Noise protocol's name; it is hashed into every handshake.
const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";

/// What starts the prologue: the protocol and its version.
const PROLOGUE: &[u8; 10] = b"EasyMesh/2";

/// Longest payload of message 1, in bytes: a HandshakeInit has room for 264 bytes of Noise, of which 48 are key and tag.
pub const HELLO_BYTES_MAX: usize = 264 - 48;
/// Longest payload of message 2: a HandshakeResponse of 320 bytes has room for 276, of which 96 are keys and tags.
pub const WELCOME_BYTES_MAX: usize = 276 - 96;
/// Longest payload of message 3: a HandshakeFinal of 1200 bytes has room for 1160, of which 64 are key and tags.
pub const FINAL_BYTES_MAX: usize = 1160 - 64;

/// Longest Noise message of all.
const MESSAGE_BYTES_MAX: usize = FINAL_BYTES_MAX + 64;

/// Who talks to whom. It is part of the prologue, and each kind has its own pre-shared key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A gateway calls a transfer.
    GatewayToTransfer,
    /// A gateway calls a gateway.
    GatewayToGateway,
}

impl Kind {
    /// As it stands in the frames.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::GatewayToTransfer => 1,
            Self::GatewayToGateway => 2,
        }
    }

    /// From a frame.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::GatewayToTransfer),
            2 => Some(Self::GatewayToGateway),
            _ => None,
        }
    }

    fn psk(self, keys: &NamespaceKeys) -> &[u8; 32] {
        match self {
            Self::GatewayToTransfer => keys.psk_transfer(),
            Self::GatewayToGateway => keys.psk_gateway(),
        }
    }
}

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeError {
    /// The message is malformed, was changed, or was made with another token, secret, namespace or kind.
    BadMessage,
    /// The other side is not the one that was expected.
    WrongKey,
    /// The other side sent a point of low order: the shared secret would be no secret.
    WeakKey,
    /// The responder has no cipher that was offered, or did not understand the Hello.
    NoCommonCipher,
    /// A payload of ours is longer than its message has room for.
    PayloadTooLong,
    /// No thread had time for it: the step was not run.
    Overloaded,
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BadMessage => "bad handshake message, or another token, secret or namespace",
            Self::WrongKey => "the other side has another key than expected",
            Self::WeakKey => "the other side sent a key of low order",
            Self::NoCommonCipher => "no cipher in common",
            Self::PayloadTooLong => "handshake payload too long",
            Self::Overloaded => "too many handshakes at once",
        })
    }
}

impl std::error::Error for HandshakeError {}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        if matches!(error, snow::Error::Dh) { Self::WeakKey } else { Self::BadMessage }
    }
}

/// The static key of an identity. The secret half is wiped when dropped.
#[derive(Clone)]
pub struct StaticKey {
    secret: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl StaticKey {
    /// The key of this secret: 32 random bytes, or what [`StaticKey::to_bytes`] gave. All seeds are good (RFC 7748 section 5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let public = x25519_dalek::PublicKey::from(&StaticSecret::from(*seed)).to_bytes();
        Self { secret: seed, public }
    }

    /// The secret, for the state file.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Bytes that follow from the key and `usage`, and that nobody else can know; at most 8160.
    pub fn derive<const N: usize>(&self, usage: &str) -> [u8; N] {
        token::derive_from_key(&self.secret, usage)
    }
}

/// Shows the public half.
impl std::fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What one side brings to a handshake.
#[derive(Clone)]
pub struct Params {
    kind: Kind,
    namespace: u16,
    psk: Zeroizing<[u8; 32]>,
    local: StaticKey,
    seed: Zeroizing<[u8; 32]>,
}

impl Params {
    /// A handshake of `kind` in the namespace of `keys`, by the identity `local`.
    ///
    /// `seed` is 32 bytes of fresh randomness: the ephemeral key follows from it, so the same seed must never serve twice.
    pub fn new(kind: Kind, keys: &NamespaceKeys, local: &StaticKey, seed: impl Into<Zeroizing<[u8; 32]>>) -> Self {
        Self {
            kind,
            namespace: keys.namespace(),
            psk: Zeroizing::new(*kind.psk(keys)),
            local: local.clone(),
            seed: seed.into(),
        }
    }

    fn state(&self, initiator: bool) -> Wiped<HandshakeState> {
        let resolver = Box::new(resolver::Resolver::new(&self.seed));
        state(self.kind, self.namespace, &self.psk, &self.local.secret, resolver, initiator)
    }
}

fn state(
    kind: Kind,
    namespace: u16,
    psk: &[u8; 32],
    local: &[u8; 32],
    resolver: Box<dyn CryptoResolver + Send>,
    initiator: bool,
) -> Wiped<HandshakeState> {
    let mut prologue = [0; PROLOGUE.len() + 3];
    prologue[..PROLOGUE.len()].copy_from_slice(PROLOGUE);
    prologue[PROLOGUE.len()] = kind.to_byte();
    prologue[PROLOGUE.len() + 1..].copy_from_slice(&namespace.to_be_bytes());
    let pattern = PATTERN.parse().expect("the pattern is one that snow knows");
    let builder = snow::Builder::with_resolver(pattern, resolver)
        .local_private_key(local)
        .and_then(|builder| builder.psk(0, psk))
        .and_then(|builder| builder.prologue(&prologue))
        .expect("each is set once");
    let state = if initiator { builder.build_initiator() } else { builder.build_responder() };
    Wiped::new(state.expect("key, pre-shared key and resolver are all there"))
}

/// Reads the payload of message 1, `noise`, and nothing else: some microseconds, as no point is multiplied. So far it needs no
/// more than the pre-shared key; and it is proven no further: whoever has that key can have written it, or have kept an old one.
///
/// # Errors
/// [`HandshakeError::BadMessage`] when it was made with another key, or changed.
pub fn read_hello(kind: Kind, keys: &NamespaceKeys, noise: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let resolver = Box::new(resolver::WithoutCurve);
    let mut state = state(kind, keys.namespace(), kind.psk(keys), &[0; 32], resolver, false);
    read(&mut state, noise)
}

/// The two secrets of a finished handshake. Wiped when dropped.
pub struct Split {
    sealing: Zeroizing<[u8; 32]>,
    opening: Zeroizing<[u8; 32]>,
    initiator: bool,
}

impl Split {
    fn of(state: &mut HandshakeState, initiator: bool) -> Self {
        let (forth, back) = state.dangerously_get_raw_split();
        let (forth, back) = (Zeroizing::new(forth), Zeroizing::new(back));
        let (sealing, opening) = if initiator { (forth, back) } else { (back, forth) };
        Self { sealing, opening, initiator }
    }

    /// The packet keys for the cipher that the Welcome named.
    pub fn keys(&self, cipher: Cipher) -> RawKeys {
        RawKeys::derive(cipher, &self.sealing, &self.opening)
    }

    /// Whether we were the initiator.
    pub fn initiator(&self) -> bool {
        self.initiator
    }
}

/// Answers a Hello: the Welcome and the cipher it names, without one if it says that there is none in common, or `None` to stay
/// silent. A plain function, as it runs elsewhere.
pub type Choose = fn(hello: &[u8], ours: Ciphers) -> Option<(Vec<u8>, Option<Cipher>)>;

/// The initiator's side, waiting for message 2.
pub struct Initiator {
    state: Wiped<HandshakeState>,
}

/// What the initiator has at the end.
pub struct InitiatorFinished {
    /// Payload 2.
    pub welcome: Vec<u8>,
    /// Who answered.
    pub remote: PublicKey,
    /// Message 3, to be sent.
    pub noise: Vec<u8>,
    /// The secrets.
    pub split: Split,
}

impl Initiator {
    /// Writes message 1 with the payload `hello`.
    pub fn start(params: &Params, hello: &[u8]) -> Result<(Self, Vec<u8>), HandshakeError> {
        if hello.len() > HELLO_BYTES_MAX {
            return Err(HandshakeError::PayloadTooLong);
        }
        let mut state = params.state(true);
        let noise = write(&mut state, hello)?;
        Ok((Self { state }, noise))
    }

    /// Reads message 2 and writes message 3 with the payload `last`. `expected` is whom we want to talk to, where we know.
    ///
    /// After [`HandshakeError::BadMessage`] or [`HandshakeError::WeakKey`] the initiator is given back: whoever put in a false
    /// message must not be able to end the handshake with the true one still on its way.
    pub fn finish(
        mut self,
        noise: &[u8],
        last: &[u8],
        expected: Option<&PublicKey>,
    ) -> Result<InitiatorFinished, (HandshakeError, Option<Self>)> {
        if last.len() > FINAL_BYTES_MAX {
            return Err((HandshakeError::PayloadTooLong, Some(self)));
        }
        let welcome = match read(&mut self.state, noise) {
            Ok(welcome) => welcome,
            Err(error) => return Err((error, Some(self))),
        };
        let remote = remote(&self.state);
        if expected.is_some_and(|expected| *expected != remote) {
            return Err((HandshakeError::WrongKey, None));
        }
        let noise = write(&mut self.state, last).map_err(|error| (error, None))?;
        Ok(InitiatorFinished { welcome, remote, noise, split: Split::of(&mut self.state, true) })
    }
}

/// The responder's side, waiting for message 3.
pub struct Responder {
    state: Wiped<HandshakeState>,
    cipher: Cipher,
    /// What the state was made from: one that has read a false message 3 is of no more use.
    origin: Box<Origin>,
}

/// What a responder's state follows from.
struct Origin {
    params: Params,
    hello_noise: Vec<u8>,
    welcome: Vec<u8>,
}

impl Origin {
    /// The state after message 2. The seed serves again for the very same bytes, and for no others.
    fn state(&self) -> Result<Wiped<HandshakeState>, HandshakeError> {
        let mut state = self.params.state(false);
        read(&mut state, &self.hello_noise)?;
        write(&mut state, &self.welcome)?;
        Ok(state)
    }
}

/// What the responder has after its answer.
pub struct ResponderAnswered {
    /// Payload 1.
    pub hello: Vec<u8>,
    /// Message 2, to be sent.
    pub noise: Vec<u8>,
    /// Waits for message 3; `None`: there is no cipher in common, message 2 says so, and nothing follows.
    pub responder: Option<Responder>,
}

/// What the responder has at the end.
pub struct ResponderFinished {
    /// Payload 3.
    pub payload: Vec<u8>,
    /// Who called.
    pub remote: PublicKey,
    /// The cipher that was chosen.
    pub cipher: Cipher,
    /// The secrets.
    pub split: Split,
}

impl Responder {
    /// Reads message 1, lets `choose` answer its payload, and writes message 2.
    pub fn answer(
        params: &Params,
        noise: &[u8],
        ours: Ciphers,
        choose: Choose,
    ) -> Result<ResponderAnswered, HandshakeError> {
        let mut state = params.state(false);
        let hello = read(&mut state, noise)?;
        let (welcome, cipher) = choose(&hello, ours).ok_or(HandshakeError::NoCommonCipher)?;
        if welcome.len() > WELCOME_BYTES_MAX {
            return Err(HandshakeError::PayloadTooLong);
        }
        let answered = write(&mut state, &welcome)?;
        let responder = cipher.map(|cipher| {
            let origin = Box::new(Origin { params: params.clone(), hello_noise: noise.to_vec(), welcome });
            Self { state, cipher, origin }
        });
        Ok(ResponderAnswered { hello, noise: answered, responder })
    }

    /// Reads message 3. After an error the responder is given back, as it was: a false message 3 must not be able to end the
    /// handshake with the true one still on its way.
    pub fn finish(mut self, noise: &[u8]) -> Result<ResponderFinished, (HandshakeError, Self)> {
        let payload = match read(&mut self.state, noise) {
            Ok(payload) => payload,
            Err(error) => {
                // snow takes back its hashes, but not the key of a cipher that has moved on.
                self.state = self.origin.state().expect("it was made so before, from the same bytes");
                return Err((error, self));
            }
        };
        let remote = remote(&self.state);
        Ok(ResponderFinished { payload, remote, cipher: self.cipher, split: Split::of(&mut self.state, false) })
    }
}

opaque_debug!(Params, Split, Initiator, InitiatorFinished, Responder, ResponderAnswered, ResponderFinished);

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; MESSAGE_BYTES_MAX];
    let length = state.write_message(payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(HandshakeError::BadMessage);
    }
    let mut payload = vec![0; message.len()];
    let length = state.read_message(message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

/// The other side's static key, once its message was read.
fn remote(state: &HandshakeState) -> PublicKey {
    let key = state.get_remote_static().expect("the message just read carried it");
    key.try_into().expect("X25519 keys have 32 bytes")
}

#[cfg(test)]
mod tests;

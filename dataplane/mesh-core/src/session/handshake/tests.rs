use super::super::cipher::CipherSet;
use super::super::jobs::{Done, Job, Outcome};
use super::super::token::StretchedToken;
use super::super::token::tests::hex;
use super::*;

const HELLO: &[u8] = b"hello";
const WELCOME: &[u8] = b"welcome";
const LAST: &[u8] = b"register";

fn keys(token: u8, namespace: u16, secret: Option<u8>) -> NamespaceKeys {
    let stretched = |byte| StretchedToken::from_bytes([byte; 32]);
    NamespaceKeys::derive(&stretched(token), namespace, secret.map(stretched).as_ref())
}

fn params(kind: Kind, keys: &NamespaceKeys, who: u8) -> Params {
    Params::new(kind, keys, &StaticKey::from_seed([who; 32]), [who + 100; 32])
}

fn gateway(who: u8) -> Params {
    params(Kind::GatewayToGateway, &keys(1, 8000, None), who)
}

/// Says which cipher it chose, behind the Welcome.
fn choose(hello: &[u8], ours: Ciphers) -> Option<(Vec<u8>, Option<Cipher>)> {
    (hello == HELLO).then_some(())?;
    ours.choose(CipherSet::only(Cipher::ChaCha20Poly1305)).map(|cipher| (WELCOME.to_vec(), Some(cipher)))
}

fn start(params: Params) -> (Vec<u8>, Initiator) {
    match Job::initiator_start(1, params, HELLO.to_vec()).run() {
        Done { id: 1, outcome: Outcome::InitiatorStarted { noise, initiator } } => (noise, initiator),
        done => panic!("{done:?}"),
    }
}

fn answer(params: Params, noise: &[u8]) -> Result<ResponderAnswered, HandshakeError> {
    match Job::responder_answer(2, params, noise.to_vec(), Ciphers::all(Cipher::Aes256Gcm), choose).run() {
        Done { id: 2, outcome: Outcome::ResponderAnswered(answered) } => Ok(answered),
        Done { id: 2, outcome: Outcome::Failed { error, initiator: None, responder: None } } => Err(error),
        done => panic!("{done:?}"),
    }
}

fn finish(
    initiator: Initiator,
    noise: &[u8],
    expected: Option<PublicKey>,
) -> Result<InitiatorFinished, (HandshakeError, Option<Initiator>)> {
    match Job::initiator_finish(3, initiator, noise.to_vec(), LAST.to_vec(), expected).run() {
        Done { id: 3, outcome: Outcome::InitiatorFinished(finished) } => Ok(finished),
        Done { id: 3, outcome: Outcome::Failed { error, initiator, responder: None } } => Err((error, initiator)),
        done => panic!("{done:?}"),
    }
}

fn end(responder: Responder, noise: &[u8]) -> Result<ResponderFinished, (HandshakeError, Responder)> {
    match Job::responder_finish(4, responder, noise.to_vec()).run() {
        Done { id: 4, outcome: Outcome::ResponderFinished(finished) } => Ok(finished),
        Done { id: 4, outcome: Outcome::Failed { error, initiator: None, responder: Some(responder) } } => {
            Err((error, responder))
        }
        done => panic!("{done:?}"),
    }
}

fn public(who: u8) -> PublicKey {
    *StaticKey::from_seed([who; 32]).public()
}

#[test]
fn both_sides_learn_payloads_keys_and_each_other() {
    let (noise1, initiator) = start(gateway(1));
    assert_eq!(noise1.len(), HELLO.len() + 48);
    let answered = answer(gateway(2), &noise1).unwrap();
    assert_eq!(answered.hello, HELLO);
    assert_eq!(answered.noise.len(), WELCOME.len() + 96);
    let here = finish(initiator, &answered.noise, Some(public(2))).unwrap();
    assert_eq!((here.welcome.as_slice(), here.remote), (WELCOME, public(2)));
    assert_eq!(here.noise.len(), LAST.len() + 64);
    let there = end(answered.responder.unwrap(), &here.noise).unwrap();
    assert_eq!((there.payload.as_slice(), there.remote), (LAST, public(1)));
    assert_eq!(there.cipher, Cipher::ChaCha20Poly1305);
    assert!(here.split.initiator() && !there.split.initiator());

    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let (here, there) = (here.split.keys(cipher), there.split.keys(cipher));
        for (from, to) in [(&here, &there), (&there, &here)] {
            let mut packet = b"packet".to_vec();
            let tag = from.seal(0, b"", &mut packet);
            packet.extend(tag);
            assert_eq!(to.open(0, b"", &mut packet), Ok(6));
        }
    }
}

#[test]
fn same_seeds_give_the_same_bytes() {
    let run = |seed| {
        let local = StaticKey::from_seed([1; 32]);
        let params = Params::new(Kind::GatewayToGateway, &keys(1, 8000, None), &local, [seed; 32]);
        let (noise1, initiator) = start(params);
        let answered = answer(gateway(2), &noise1).unwrap();
        let here = finish(initiator, &answered.noise, None).unwrap();
        (noise1, answered.noise, here.noise.clone(), *here.split.sealing)
    };
    assert_eq!(run(7), run(7));
    let (one, other) = (run(7), run(8));
    assert_ne!(one.0[..32], other.0[..32]);
    assert_ne!(one.3, other.3);
}

/// Both ends of the exchange with another program: message 1 of fixed seeds.
#[test]
fn ephemeral_key_is_the_start_of_message_one() {
    let seed = [101; 32];
    let mut rng = <rand_chacha::ChaCha20Rng as rand_chacha::rand_core::SeedableRng>::from_seed(seed);
    let mut ephemeral = [0; 32];
    rand_chacha::rand_core::Rng::fill_bytes(&mut rng, &mut ephemeral);
    let (noise1, _) = start(gateway(1));
    assert_eq!(noise1[..32], StaticKey::from_seed(ephemeral).public()[..]);
}

/// Our primitives against snow's own: the same protocol on the wire.
#[test]
fn other_implementations_understand_us() {
    let keys = keys(1, 8000, None);
    let (noise1, initiator) = start(gateway(1));
    let mut other = snow::Builder::new(PATTERN.parse().unwrap())
        .local_private_key(&[2; 32])
        .unwrap()
        .psk(0, keys.psk_gateway())
        .unwrap()
        .prologue(b"EasyMesh/2\x02\x1f\x40")
        .unwrap()
        .build_responder()
        .unwrap();
    let mut buffer = [0; 2000];
    let length = other.read_message(&noise1, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], HELLO);
    let length = other.write_message(WELCOME, &mut buffer).unwrap();
    let here = finish(initiator, &buffer[..length], Some(public(2))).unwrap();
    let length = other.read_message(&here.noise, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], LAST);
    let (forth, back) = other.dangerously_get_raw_split();
    assert_eq!((*here.split.sealing, *here.split.opening), (forth, back));
}

#[test]
fn other_token_secret_namespace_or_kind_is_refused() {
    let transfer = Kind::GatewayToTransfer;
    let refused = |from: Params, to: Params| {
        let (noise1, _) = start(from);
        assert_eq!(answer(to, &noise1).err(), Some(HandshakeError::BadMessage));
    };
    refused(gateway(1), params(Kind::GatewayToGateway, &keys(9, 8000, None), 2));
    refused(gateway(1), params(Kind::GatewayToGateway, &keys(1, 8000, Some(5)), 2));
    refused(gateway(1), params(Kind::GatewayToGateway, &keys(1, 8001, None), 2));
    refused(gateway(1), params(transfer, &keys(1, 8000, None), 2));
    // With a secret of its own a gateway still talks to a transfer, which does not know it.
    let (noise1, _) = start(params(transfer, &keys(1, 8000, Some(5)), 1));
    assert!(answer(params(transfer, &keys(1, 8000, None), 2), &noise1).is_ok());
}

/// Were the keys of two namespaces the same by mistake, the prologue would still keep them apart.
#[test]
fn namespace_is_in_the_prologue() {
    let (noise1, _) = start(gateway(1));
    let mut other = gateway(2);
    other.namespace = 8001;
    assert_eq!(answer(other, &noise1).err(), Some(HandshakeError::BadMessage));
    let mut other = gateway(2);
    other.kind = Kind::GatewayToTransfer;
    assert_eq!(answer(other, &noise1).err(), Some(HandshakeError::BadMessage));
}

#[test]
fn changed_message_one_is_refused() {
    let (noise1, _) = start(gateway(1));
    for at in 0..noise1.len() {
        let mut changed = noise1.clone();
        changed[at] ^= 1;
        assert!(answer(gateway(2), &changed).is_err(), "byte {at}");
    }
    for length in 0..noise1.len() {
        assert!(answer(gateway(2), &noise1[..length]).is_err(), "{length} bytes");
    }
    assert_eq!(answer(gateway(2), &[0; 70_000]).err(), Some(HandshakeError::BadMessage));
}

#[test]
fn hello_is_read_without_the_curve_and_by_members_only() {
    let ours = keys(1, 8000, None);
    let (noise1, _) = start(gateway(1));
    // What reads it has no curve: had it to multiply a point, it would fail.
    assert_eq!(read_hello(Kind::GatewayToGateway, &ours, &noise1).as_deref(), Ok(HELLO));
    for (kind, other) in [
        (Kind::GatewayToTransfer, ours),
        (Kind::GatewayToGateway, keys(9, 8000, None)),
        (Kind::GatewayToGateway, keys(1, 8001, None)),
        (Kind::GatewayToGateway, keys(1, 8000, Some(5))),
    ] {
        assert_eq!(read_hello(kind, &other, &noise1), Err(HandshakeError::BadMessage));
    }
    for at in 0..noise1.len() {
        let mut changed = noise1.clone();
        changed[at] ^= 1;
        assert!(read_hello(Kind::GatewayToGateway, &keys(1, 8000, None), &changed).is_err(), "byte {at}");
        assert!(read_hello(Kind::GatewayToGateway, &keys(1, 8000, None), &noise1[..at]).is_err(), "{at} bytes");
    }
}

#[test]
fn refused_job_gives_back_what_it_was_given() {
    let overloaded = |done: Done| {
        let Outcome::Failed { error: HandshakeError::Overloaded, initiator, responder } = done.outcome else {
            panic!("{done:?}")
        };
        (done.id, initiator, responder)
    };
    let (noise1, initiator) = start(gateway(1));
    let answered = answer(gateway(2), &noise1).unwrap();
    let job = Job::initiator_start(1, gateway(1), HELLO.to_vec());
    let (1, None, None) = overloaded(job.refuse()) else { panic!("nothing was given") };
    let job = Job::initiator_finish(2, initiator, answered.noise.clone(), LAST.to_vec(), None);
    let (2, Some(initiator), None) = overloaded(job.refuse()) else { panic!("the initiator") };
    let here = finish(initiator, &answered.noise, None).unwrap();
    let job = Job::responder_finish(3, answered.responder.unwrap(), here.noise.clone());
    let (3, None, Some(responder)) = overloaded(job.refuse()) else { panic!("the responder") };
    assert_eq!(end(responder, &here.noise).unwrap().payload, LAST);
}

#[test]
fn false_message_two_does_not_end_the_handshake() {
    let (noise1, mut initiator) = start(gateway(1));
    let answered = answer(gateway(2), &noise1).unwrap();
    for at in 0..=answered.noise.len() {
        let mut changed = answered.noise.clone();
        if at < changed.len() {
            changed[at] ^= 1
        } else {
            changed.truncate(40)
        }
        let (error, again) = finish(initiator, &changed, None).unwrap_err();
        assert_eq!(error, HandshakeError::BadMessage, "byte {at}");
        initiator = again.expect("the handshake goes on");
    }
    let here = finish(initiator, &answered.noise, Some(public(2))).unwrap();
    assert!(end(answered.responder.unwrap(), &here.noise).is_ok());
}

#[test]
fn changed_message_three_is_refused_and_the_true_one_still_works() {
    let (noise1, initiator) = start(gateway(1));
    let answered = answer(gateway(2), &noise1).unwrap();
    let noise3 = finish(initiator, &answered.noise, None).unwrap().noise;
    let mut responder = answered.responder.unwrap();
    for at in 0..=noise3.len() {
        let mut changed = noise3.clone();
        match changed.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => changed.clear(),
        }
        let (error, again) = end(responder, &changed).unwrap_err();
        assert_eq!(error, HandshakeError::BadMessage, "byte {at}");
        responder = again;
    }
    let finished = end(responder, &noise3).unwrap();
    assert_eq!((finished.payload.as_slice(), finished.remote), (LAST, public(1)));
}

#[test]
fn unexpected_key_gets_no_third_message() {
    let (noise1, initiator) = start(gateway(1));
    let answered = answer(gateway(2), &noise1).unwrap();
    let (error, again) = finish(initiator, &answered.noise, Some(public(3))).unwrap_err();
    assert_eq!(error, HandshakeError::WrongKey);
    assert!(again.is_none());
}

/// RFC 7748 section 6.1: the point zero, the point one and the prime plus one all give a shared secret of zero.
#[test]
fn points_of_low_order_are_refused() {
    let mut prime_plus_one = [0xff; 32];
    (prime_plus_one[0], prime_plus_one[31]) = (0xee, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one, prime_plus_one] {
        let psk = *keys(1, 8000, None).psk_gateway();
        let mut state = snow::Builder::with_resolver(PATTERN.parse().unwrap(), Box::new(Fixed(point)))
            .local_private_key(&[1; 32])
            .unwrap()
            .psk(0, &psk)
            .unwrap()
            .prologue(b"EasyMesh/2\x02\x1f\x40")
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut noise1 = vec![0; 200];
        let length = state.write_message(HELLO, &mut noise1).unwrap();
        assert_eq!(noise1[..32], point);
        assert_eq!(answer(gateway(2), &noise1[..length]).err(), Some(HandshakeError::WeakKey));
    }
}

/// A dishonest member: its ephemeral key is always the same point.
struct Fixed([u8; 32]);

impl CryptoResolver for Fixed {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        snow::resolvers::DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, _: &snow::params::DHChoice) -> Option<Box<dyn snow::types::Dh>> {
        Some(Box::new(Self(self.0)))
    }

    fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn snow::types::Hash>> {
        snow::resolvers::DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn snow::types::Cipher>> {
        snow::resolvers::DefaultResolver.resolve_cipher(choice)
    }
}

impl snow::types::Dh for Fixed {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn snow::types::Random) -> Result<(), snow::Error> {
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.0
    }

    fn privkey(&self) -> &[u8] {
        &self.0
    }

    fn dh(&self, _: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        out.fill(0);
        Ok(())
    }
}

#[test]
fn no_common_cipher_is_no_answer() {
    let (noise1, _) = start(gateway(1));
    let ours = Ciphers::only(Cipher::Aes256Gcm);
    let done = Job::responder_answer(2, gateway(2), noise1, ours, choose).run();
    assert!(matches!(
        done.outcome,
        Outcome::Failed { error: HandshakeError::NoCommonCipher, initiator: None, responder: None }
    ));
}

#[test]
fn an_answer_without_a_cipher_is_the_last_word() {
    let (initiator, noise1) = Initiator::start(&gateway(1), HELLO).unwrap();
    let none = |_: &[u8], _| Some((WELCOME.to_vec(), None));
    let answered = Responder::answer(&gateway(2), &noise1, Ciphers::all(Cipher::Aes256Gcm), none).unwrap();
    assert!(answered.responder.is_none());
    let here = initiator.finish(&answered.noise, LAST, Some(&public(2))).unwrap();
    assert_eq!((here.welcome.as_slice(), here.remote), (WELCOME, public(2)), "and is as authentic as any");
}

#[test]
fn payloads_fit_their_messages_exactly() {
    let (initiator, noise1) = Initiator::start(&gateway(1), &[1; HELLO_BYTES_MAX]).unwrap();
    assert_eq!(noise1.len(), 264);
    let longest = |_: &[u8], _| Some((vec![2; WELCOME_BYTES_MAX], Some(Cipher::Aes256Gcm)));
    let answered = Responder::answer(&gateway(2), &noise1, Ciphers::all(Cipher::Aes256Gcm), longest).unwrap();
    assert_eq!(answered.noise.len(), 276);
    let here = initiator.finish(&answered.noise, &[3; FINAL_BYTES_MAX], None).unwrap();
    assert_eq!(here.noise.len(), 1160);
    assert_eq!(answered.responder.unwrap().finish(&here.noise).unwrap().payload, [3; FINAL_BYTES_MAX]);

    let too_long = HandshakeError::PayloadTooLong;
    assert_eq!(Initiator::start(&gateway(1), &[1; HELLO_BYTES_MAX + 1]).err(), Some(too_long));
    let longer = |_: &[u8], _| Some((vec![2; WELCOME_BYTES_MAX + 1], Some(Cipher::Aes256Gcm)));
    assert_eq!(Responder::answer(&gateway(2), &noise1, Ciphers::all(Cipher::Aes256Gcm), longer).err(), Some(too_long));
    let (_, initiator) = start(gateway(1));
    let (error, again) = initiator.finish(&answered.noise, &[3; FINAL_BYTES_MAX + 1], None).unwrap_err();
    assert_eq!((error, again.is_some()), (too_long, true));
}

#[test]
fn static_key_survives_the_state_file() {
    let key = StaticKey::from_seed([5; 32]);
    assert_eq!(StaticKey::from_seed(*key.to_bytes()).public(), key.public());
    assert!(!format!("{key:?}").contains("secret"));
}

/// Computed with OpenSSL: `openssl kdf -keylen 12 -kdfopt digest:SHA256 -kdfopt hexkey:05… -kdfopt salt:… -kdfopt info:…
/// HKDF`.
#[test]
fn bytes_for_a_use_follow_from_the_key() {
    let key = StaticKey::from_seed([5; 32]);
    assert_eq!(hex(&key.derive::<12>("pcp")), "e9f269f666c5f0a170880506");
    assert_ne!(key.derive::<12>("pcp"), key.derive::<12>("other"));
    assert_ne!(key.derive::<12>("pcp"), StaticKey::from_seed([6; 32]).derive::<12>("pcp"));
}

/// Computed with OpenSSL.
#[test]
fn public_half_is_that_of_x25519() {
    let public = "50a61409b1ddd0325e9b16b700e719e9772c07000b1bd7786e907c653d20495d";
    assert_eq!(hex(StaticKey::from_seed([5; 32]).public()), public);
}

#[test]
fn jobs_can_go_to_another_thread() {
    fn send<T: Send>() {}
    send::<Job>();
    send::<Done>();
    assert!(std::mem::needs_drop::<Params>() && std::mem::needs_drop::<Split>() && std::mem::needs_drop::<StaticKey>());
}

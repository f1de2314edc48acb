//! The golden values were computed with other implementations (Python's hmac and OpenSSL's Argon2id). A change to one of them
//! parts the programs that have it from those that do not: it takes a new version of the protocol.

use super::*;

fn token() -> StretchedToken {
    StretchedToken::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn secret() -> StretchedToken {
    StretchedToken::from_bytes(std::array::from_fn(|at| u8::try_from(at + 32).unwrap()))
}

pub(in crate::session) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn stretching_is_argon2id_at_the_agreed_cost() {
    let stretched = StretchedToken::stretch(b"correct horse");
    assert_eq!(hex(&*stretched.to_bytes()), "9dcb0cc20f34b5db108522562e0b5e8f0a6222dab1e6bdbdc4e1d477fcc19456");
    assert!(stretched == StretchedToken::from_bytes(*stretched.to_bytes()));
    assert!(stretched != token());
}

#[test]
fn empty_token_can_be_stretched() {
    assert!(StretchedToken::stretch(b"") != StretchedToken::stretch(b"\0"));
}

#[test]
fn keys_are_those_of_the_protocol() {
    let keys = NamespaceKeys::derive(&token(), 8000, None);
    assert_eq!(hex(&token().fingerprint()), "7720cc");
    assert_eq!(hex(keys.mac()), "43daac5beff26e7a89a2d915ea9bc37e0b71e6c098b1f8c8845b5a3b2380a7a9");
    assert_eq!(hex(keys.cookie()), "50998c339f416c463722b997355f20b613dd53a46e2421c90df891da11d96e45");
    assert_eq!(hex(keys.psk_transfer()), "d18bb72a7c145a02569de74cfc8c85bc9ddc7500ea55f827b39dbd9ce4d44ef7");
    assert_eq!(hex(keys.psk_gateway()), "7640ee70161c90f8b548a0e33b822d896bbeb3f63c335d42970e758bbe3e1969");
    assert_eq!(hex(&*keys.beacon(&[7; 16])), "83e45b8bbdb6137a65cf12a43a1e48149346f9c100e55cc04eb72084d7e2eb05");
    assert_eq!(keys.ula_prefix(), ("fd14:2699:5572::".parse().unwrap(), 64));
}

#[test]
fn secret_changes_the_key_among_gateways_and_no_other() {
    let plain = NamespaceKeys::derive(&token(), 8000, None);
    let keys = NamespaceKeys::derive(&token(), 8000, Some(&secret()));
    assert_eq!(hex(keys.psk_gateway()), "0b03c8a8d5a13e7a706f65179d7187c9af1f8fe88b4cb57cc1b7a4a2f5342bad");
    assert_eq!(keys.psk_transfer(), plain.psk_transfer());
    assert_eq!(keys.mac(), plain.mac());
    assert_eq!(keys.cookie(), plain.cookie());
    assert_eq!(keys.ula_prefix(), plain.ula_prefix());
}

#[test]
fn namespaces_share_no_key() {
    let (one, other) = (NamespaceKeys::derive(&token(), 8000, None), NamespaceKeys::derive(&token(), 8001, None));
    assert_ne!(one.mac(), other.mac());
    assert_ne!(one.cookie(), other.cookie());
    assert_ne!(one.psk_transfer(), other.psk_transfer());
    assert_ne!(one.psk_gateway(), other.psk_gateway());
    assert_ne!(one.ula_prefix(), other.ula_prefix());
}

#[test]
fn keys_of_a_namespace_are_small() {
    assert!(size_of::<NamespaceKeys>() <= 300, "{} bytes", size_of::<NamespaceKeys>());
}

#[test]
fn ipv6_address_holds_the_virtual_address() {
    let keys = NamespaceKeys::derive(&token(), 8000, None);
    let ip4 = Ipv4Addr::new(10, 1, 2, 3);
    let ip6 = keys.ula(ip4);
    assert_eq!(ip6, "fd14:2699:5572::a01:203".parse::<Ipv6Addr>().unwrap());
    assert_eq!(keys.ip4_of(ip6), Some(ip4));
    for other in
        ["fd14:2699:5573::a01:203", "fd14:2699:5572:1::a01:203", "fd14:2699:5572::1:a01:203", "fd14:2699:5572::", "::1"]
    {
        assert_eq!(keys.ip4_of(other.parse().unwrap()), None, "{other}");
    }
}

#[test]
fn weak_tokens_are_told() {
    for token in [
        "",
        "a",
        "easymesh",
        "12345678901234567890123456",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "abababababababababababababababababababababab",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "hunter2hunter2hunter2hunter2hunter2",
        "9f86d081884c7d65",
        "84719203847561029384",
        "Tr0ub4dor&3",
    ] {
        assert!(weak(token), "{token}");
    }
}

#[test]
fn strong_tokens_pass() {
    for token in [
        "9f86d081884c7d659a2feaa0c55ad015",
        "k2vR9xQ0tLw7ZbN4",
        "u8Yd-Qe2!vT6#pLx",
        "\u{4f60}\u{53e3}\u{5929}\u{6c34}\u{706b}\u{5c71}\u{7530}\u{6728}\u{91d1}\u{571f}\u{98a8}\u{96e8}\u{96ea}",
    ] {
        assert!(!weak(token), "{token}");
    }
}

#[test]
fn random_tokens_are_strong_and_harmless_to_shells() {
    let token = random_token(std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap()));
    assert_eq!(token.len(), 32);
    assert!(token.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{}", *token);
    assert!(!weak(&token));
    assert_eq!(&*random_token([0; 32]), &"a".repeat(32), "it follows from the randomness alone");
    let distinct: BTreeSet<_> = TOKEN_ALPHABET.iter().collect();
    assert_eq!(distinct.len(), 32, "each byte must give five bits");
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", token()), "StretchedToken { .. }");
    assert_eq!(format!("{:?}", NamespaceKeys::derive(&token(), 1, None)), "NamespaceKeys { .. }");
}

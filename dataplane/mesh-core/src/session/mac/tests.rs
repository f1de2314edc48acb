use std::net::SocketAddr;

use super::*;
use crate::seam::SocketId;
use crate::session::token::StretchedToken;

fn keys() -> NamespaceKeys {
    NamespaceKeys::derive(&StretchedToken::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap())), 8000, None)
}

/// Computed with Python's hmac.
#[test]
fn macs_and_cookies_are_those_of_the_protocol() {
    assert_eq!(mac1(&keys(), b"EasyMesh"), 0x08f5_8025_c78a_a05e_6ea9_7a9c_f563_836e_u128.to_be_bytes());
    let cookie = CookieJar::new([9; 32], Moment::default()).cookie(b"endpoint");
    assert_eq!(*cookie.0, 0x56eb_bf49_6268_4b02_85bf_1663_648b_bffa_u128.to_be_bytes());
    assert_eq!(mac2(&cookie, b"EasyMesh"), 0xe1df_0666_19fd_d25a_cea7_55ef_1bab_832e_u128.to_be_bytes());
}

#[test]
fn first_mac_vouches_for_every_bit() {
    let keys = keys();
    let mut bytes = *b"handshake";
    let mut mac = mac1(&keys, &bytes);
    assert!(verify_mac1(&keys, &bytes, &mac));
    assert!(!verify_mac1(&keys, &bytes, &mac[..15]));
    assert!(!verify_mac1(&keys, &bytes, &[]));
    bytes[4] ^= 1;
    assert!(!verify_mac1(&keys, &bytes, &mac));
    bytes[4] ^= 1;
    mac[15] ^= 0x80;
    assert!(!verify_mac1(&keys, &bytes, &mac));
}

#[test]
fn sealed_cookie_opens_for_its_question_alone() {
    let (keys, jar) = (keys(), CookieJar::new([1; 32], Moment::default()));
    let cookie = jar.cookie(b"endpoint");
    let sealed = cookie.seal(&keys, [2; 12], &[3; 16]);
    let opened = Cookie::open(&keys, [2; 12], &[3; 16], &sealed).unwrap();
    assert!(jar.verify(b"endpoint", b"bytes", &mac2(&opened, b"bytes")));

    assert!(Cookie::open(&keys, [2; 12], &[4; 16], &sealed).is_none(), "another question");
    assert!(Cookie::open(&keys, [5; 12], &[3; 16], &sealed).is_none(), "another nonce");
    let mut changed = sealed;
    changed[0] ^= 1;
    assert!(Cookie::open(&keys, [2; 12], &[3; 16], &changed).is_none(), "changed");
    let other = NamespaceKeys::derive(&StretchedToken::from_bytes([7; 32]), 8000, None);
    assert!(Cookie::open(&other, [2; 12], &[3; 16], &sealed).is_none(), "another token");
}

#[test]
fn cookie_is_good_for_its_endpoint_and_bytes_alone() {
    let jar = CookieJar::new([1; 32], Moment::default());
    let mac = mac2(&jar.cookie(b"here"), b"bytes");
    assert!(jar.verify(b"here", b"bytes", &mac));
    assert!(!jar.verify(b"there", b"bytes", &mac));
    assert!(!jar.verify(b"here", b"other", &mac));
    assert!(!jar.verify(b"here", b"bytes", &[0; 16]));
}

#[test]
fn cookies_live_two_terms_of_the_secret() {
    let at = |seconds| Moment::default() + Duration::from_secs(seconds);
    let mut jar = CookieJar::new([1; 32], at(0));
    let mac = mac2(&jar.cookie(b"here"), b"bytes");
    jar.refresh(at(119), || unreachable!("too early"));
    assert!(jar.verify(b"here", b"bytes", &mac));
    jar.refresh(at(120), || [2; 32]);
    assert!(jar.verify(b"here", b"bytes", &mac), "the previous secret counts");
    assert_ne!(*jar.cookie(b"here").0, *CookieJar::new([1; 32], at(0)).cookie(b"here").0, "but makes no new cookies");
    jar.refresh(at(240), || [3; 32]);
    assert!(!jar.verify(b"here", b"bytes", &mac));
}

#[test]
fn secret_of_a_jar_that_rested_is_not_accepted() {
    let mut jar = CookieJar::new([1; 32], Moment::default());
    let mac = mac2(&jar.cookie(b"here"), b"bytes");
    jar.refresh(Moment::default() + Duration::from_secs(3600), || [2; 32]);
    assert!(!jar.verify(b"here", b"bytes", &mac));
}

#[test]
fn endpoints_differ_by_socket_address_and_port() {
    let endpoint = |socket, remote: &str| {
        endpoint_bytes(&Endpoint {
            socket: SocketId(socket),
            remote: remote.parse::<SocketAddr>().unwrap(),
            local: None,
        })
    };
    let first = endpoint(1, "192.0.2.1:500");
    assert_ne!(first, endpoint(2, "192.0.2.1:500"));
    assert_ne!(first, endpoint(1, "192.0.2.2:500"));
    assert_ne!(first, endpoint(1, "192.0.2.1:501"));
    assert_ne!(first, endpoint(1, "[2001:db8::1]:500"));
    assert_eq!(first, *b"\0\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01\x01\xf4");
}

use super::super::token::tests::hex;
use super::*;

const BOTH: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Seals and opens, and compares with what a standard says.
fn check(cipher: Cipher, key: &str, counter: u64, header: &str, plaintext: &[u8], ciphertext: &str, tag: &str) {
    let key: [u8; 32] = unhex(key).try_into().unwrap();
    let header = unhex(header);
    let mut packet = plaintext.to_vec();
    let made = SealingKey::new(cipher, &key).seal(counter, &header, &mut packet);
    assert_eq!((hex(&packet), hex(&made)), (ciphertext.to_owned(), tag.to_owned()));
    packet.extend(made);
    let length = OpeningKey::new(cipher, &key).open(counter, &header, &mut packet);
    assert_eq!(length, Ok(plaintext.len()));
    assert_eq!(&packet[..plaintext.len()], plaintext);
}

/// RFC 8439 appendix A.5, whose nonce happens to begin with four zero bytes.
#[test]
fn chacha20_poly1305_is_that_of_rfc_8439() {
    check(
        Cipher::ChaCha20Poly1305,
        "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
        0x0102_0304_0506_0708,
        "f33388860000000000004e91",
        "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or \
         obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference material or \
         to cite them other than as /\u{201c}work in progress./\u{201d}"
            .as_bytes(),
        "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0bdb7\
         b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c8559797a06e\
         f4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e99040c5a40433\
         225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a0bb2316053fa7699\
         1955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130305beaba2eda04df997b\
         714d6c6f2c29a6ad5cb4022b02709b",
        "eead9d67890cbb22392336fea1851f38",
    );
}

/// Test cases 13 and 14 of the GCM specification by McGrew and Viega.
#[test]
fn aes_256_gcm_is_that_of_its_authors() {
    let key = "00".repeat(32);
    check(Cipher::Aes256Gcm, &key, 0, "", &[], "", "530f8afbc74536b9a963b4f1c4cb738b");
    check(
        Cipher::Aes256Gcm,
        &key,
        0,
        "",
        &[0; 16],
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    );
}

/// Computed with OpenSSL: a counter and a header, as packets have them.
#[test]
fn counter_is_the_end_of_the_nonce() {
    check(
        Cipher::Aes256Gcm,
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        0x0102_0304_0506_0708,
        &hex(b"header"),
        b"inner packet",
        "6d3f0b6bafc179ff60f4989b",
        "94893d5e5ddade0057fd629f6d31a0d7",
    );
}

#[test]
fn changed_packets_do_not_open() {
    for cipher in BOTH {
        let (sealing, opening) = (SealingKey::new(cipher, &[1; 32]), OpeningKey::new(cipher, &[1; 32]));
        let mut packet = b"inner packet".to_vec();
        let tag = sealing.seal(7, b"header", &mut packet);
        packet.extend(tag);
        assert_eq!(opening.open(8, b"header", &mut packet.clone()), Err(OpenError::Forged), "another counter");
        assert_eq!(opening.open(7, b"Header", &mut packet.clone()), Err(OpenError::Forged), "another header");
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opening.open(7, b"header", &mut changed), Err(OpenError::Forged), "bit {bit}");
        }
        for length in 0..packet.len() {
            let error = if length < TAG_BYTES { OpenError::TooShort } else { OpenError::Forged };
            assert_eq!(opening.open(7, b"header", &mut packet[..length].to_vec()), Err(error), "{length} bytes");
        }
        assert_eq!(opening.open(7, b"header", &mut packet), Ok(12));
    }
}

/// Computed with Python's hmac: HKDF with the salt "EasyMesh/2 packet key" and the cipher's name.
#[test]
fn packet_keys_are_those_of_the_protocol() {
    let key = |cipher| hex(&*packet_key(cipher, &[7; 32]));
    assert_eq!(key(Cipher::Aes256Gcm), "25a841dd34b60bb580adf7449cebe4c2d4264487a6080a506c174b05c35d2bec");
    assert_eq!(key(Cipher::ChaCha20Poly1305), "2b7ee835c223e4f204ddd0e6cee0902c548d4e565625a22ac829782e8532aaad");
}

#[test]
fn raw_keys_open_what_the_other_side_sealed() {
    for cipher in BOTH {
        let (here, there) = (RawKeys::derive(cipher, &[1; 32], &[2; 32]), RawKeys::derive(cipher, &[2; 32], &[1; 32]));
        let mut packet = b"control".to_vec();
        let tag = here.seal(3, b"header", &mut packet);
        packet.extend(tag);
        assert_eq!(here.open(3, b"header", &mut packet.clone()), Err(OpenError::Forged), "not for ourselves");
        assert_eq!(there.open(3, b"header", &mut packet), Ok(7));
        assert_eq!(&packet[..7], b"control");
    }
}

#[test]
fn expanded_keys_are_wiped_and_quiet_ones_small() {
    assert!(
        !std::mem::needs_drop::<ring::aead::LessSafeKey>(),
        "a key of ring's keeps nothing on the heap, so wiping its bytes wipes it all"
    );
    assert!(std::mem::needs_drop::<SealingKey>() && std::mem::needs_drop::<OpeningKey>());
    assert!(std::mem::needs_drop::<RawKeys>());
    assert!(size_of::<RawKeys>() <= 72);
    assert_eq!(format!("{:?}", RawKeys::derive(Cipher::Aes256Gcm, &[1; 32], &[2; 32])), "RawKeys { .. }");
}

/// Whichever serves here, both are there and make the same bytes.
#[cfg(all(feature = "aws-lc", target_os = "linux"))]
#[test]
fn both_libraries_seal_and_open_alike() {
    for cipher in BOTH {
        let keys = [Key::by_ring(cipher, &[7; 32]), Key::by_aws_lc(cipher, &[7; 32])];
        for bytes in [0, 1, 15, 16, 64, 1380, 9000] {
            let nonce = nonce(bytes as u64);
            let sealed = keys.each_ref().map(|key| {
                let mut body = vec![0x5a; bytes];
                let tag = key.seal(nonce, b"header", &mut body);
                [body, tag.to_vec()].concat()
            });
            assert_eq!(sealed[0], sealed[1], "{} of {bytes} bytes", cipher.name());
            for key in &keys {
                assert_eq!(key.open(nonce, b"header", &mut sealed[0].clone()), Some(bytes));
                assert_eq!(key.open(nonce, b"Header", &mut sealed[0].clone()), None);
            }
        }
    }
}

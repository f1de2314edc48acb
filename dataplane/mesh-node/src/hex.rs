//! Keys as people copy them: 64 hexadecimal digits.

use std::fmt::Write as _;

/// Lower-case digits of any bytes.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 bytes of exactly 64 digits of either case.
pub fn decode(text: &str) -> Option<[u8; 32]> {
    let digits: [u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |index: usize| char::from(pair[index]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).expect("two digits of four bits");
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_nothing_else_does() {
        let key: [u8; 32] = std::array::from_fn(|i| (i * 37) as u8);
        let text = encode(&key);
        assert_eq!(decode(&text), Some(key));
        assert_eq!(decode(&text.to_uppercase()), Some(key));
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('2', "g"), &text.replacen("00", "+0", 1)] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}

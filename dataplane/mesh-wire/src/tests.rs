//! Golden vectors pin the bytes: a change to one is a new protocol version, never a new vector. Properties hold for all input.

mod golden;
mod properties;

/// Bytes from hex with spaces and line ends.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of hex digits");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

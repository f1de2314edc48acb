//! Text that must not be shown: tokens and `-secret`.

use std::fmt;

use mesh_core::session::token;
use zeroize::Zeroizing;

/// A string that is wiped when dropped and shows nothing of itself in `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Wraps `text`.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// A token of at least 128 bits from the system's source of randomness, printable and safe to paste.
    pub fn random() -> Self {
        Self(token::random_token(rand::random()))
    }

    /// The text itself. Its callers stretch it, or print it once on purpose.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it could be guessed by whoever recorded one handshake.
    pub fn is_weak(&self) -> bool {
        token::weak(&self.0)
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "SecretString(empty)" } else { "SecretString(…)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SecretString::new("hunter2".into())), "SecretString(…)");
    }

    #[test]
    fn random_tokens_differ_are_strong_and_survive_a_shell() {
        let (one, two) = (SecretString::random(), SecretString::random());
        assert_ne!(one, two);
        assert!(!one.is_weak());
        assert!(one.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{}", one.expose());
    }
}

//! A password or passphrase: erased when dropped, never printed.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Secret text; `Debug` prints nothing of it.
#[derive(Clone, Eq)]
pub struct SecretText(Zeroizing<String>);

impl PartialEq for SecretText {
    /// Takes the same time wherever two texts of one length differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl SecretText {
    /// Takes ownership of secret text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself; it must not reach a log, an error or a report.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(..)")
    }
}

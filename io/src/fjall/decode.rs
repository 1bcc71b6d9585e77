//! What reads the store's own files, as checks: what fuzzers and property tests drive.
//!
//! Whoever can write the files is not trusted, so reading must not panic, whatever is in them. Most of it is sealed, and
//! no fuzzer guesses a seal: these get what a seal has let through.

use zeroize::Zeroizing;

use super::{
    beside,
    envelope::{self, PasswordCost},
    integrity, keytable,
    seal::{self, Keys},
};

/// A decoder: its name, and the check, which says whether the bytes were understood.
pub type Decoder = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const DECODERS: &[Decoder] = &[
    ("store_envelope", envelope::reads),
    ("store_integrity", integrity::reads),
    ("store_integrity_slot", |bytes| beside::reads(&keys(), bytes)),
    ("store_key_table", keytable::reads),
    ("store_row", |bytes| seal::header(bytes).is_ok()),
];

/// What each of them understands.
///
/// # Errors
/// If the machine has no entropy.
pub fn samples() -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let password = mpcium_core::Secret::new(b"password".to_vec());
    let mut envelope = envelope::seal_envelope(&Zeroizing::new([5; 32]), &password, PasswordCost::TRIVIAL)?;
    envelope.truncate(envelope.len() - 32);
    let row = [&[1, 0], &[7; 24 + 40][..]].concat();
    Ok(vec![
        ("store_envelope", envelope),
        ("store_integrity", integrity::sample()?),
        ("store_integrity_slot", beside::sample(&keys())?),
        ("store_key_table", keytable::sample()),
        ("store_row", row),
    ])
}

fn keys() -> Keys {
    Keys::derive(&Zeroizing::new([7; 32]))
}

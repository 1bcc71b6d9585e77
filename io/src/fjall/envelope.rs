//! The data key, sealed under a key from the password.
//!
//! ```text
//! magic "mpcstore" (8) || version (1) || Argon2id memory KiB, passes, lanes (4 each, big-endian) || salt (16)
//!   || nonce (24) || data key (32) || tag (16) || SHA-256 of all before (32)
//! ```
//! The checksum tells a damaged file from a wrong password. Changing the password replaces this one file.

use argon2::{Algorithm, Argon2, Params, Version};
use mpcium_core::Secret;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::seal::{self, Key32, Reason};

const MAGIC: &[u8; 8] = b"mpcstore";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const PARAMETERS_END: usize = 8 + 1 + 12 + SALT_BYTES;
const SEALED_BYTES: usize = 24 + 32 + 16;
/// Bytes of the file.
pub(super) const ENVELOPE_BYTES: usize = PARAMETERS_END + SEALED_BYTES + 32;

/// How costly it is to try a password (Argon2id). Stored with the store, so that it can be raised later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PasswordCost {
    /// 64 MiB and three passes: a fraction of a second per try.
    pub const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// Next to nothing. For tests and demonstrations, where the password protects nothing.
    pub const TRIVIAL: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };
    /// Above this a file is not believed: 4 GiB.
    const MEMORY_KIB_MAX: u32 = 4 * 1024 * 1024;
    const PASSES_MAX: u32 = 64;
    const LANES_MAX: u32 = 64;

    fn password_key(self, password: &Secret, salt: &[u8]) -> Result<Key32, Reason> {
        let within =
            self.memory_kib <= Self::MEMORY_KIB_MAX && self.passes <= Self::PASSES_MAX && self.lanes <= Self::LANES_MAX;
        if !within {
            return Err(format!(
                "its password parameters are beyond reason: {} KiB, {} passes, {} lanes",
                self.memory_kib, self.passes, self.lanes
            ));
        }
        let parameters = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|error| format!("its password parameters are invalid: {error}"))?;
        let mut key = Key32::default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into(password.expose(), salt, key.as_mut_slice())
            .map_err(|error| format!("the password cannot be used: {error}"))?;
        Ok(key)
    }
}

/// Why an envelope gives no data key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EnvelopeError {
    /// The file is intact, the password is another.
    WrongPassword,
    /// The file is not what it should be.
    Damaged(Reason),
}

/// A fresh data key.
pub(super) fn fresh_data_key() -> Result<Key32, Reason> {
    seal::fresh_key()
}

/// The file that holds `data_key` under `password`.
pub(super) fn seal_envelope(data_key: &Key32, password: &Secret, cost: PasswordCost) -> Result<Vec<u8>, Reason> {
    let mut file = Vec::with_capacity(ENVELOPE_BYTES);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    for parameter in [cost.memory_kib, cost.passes, cost.lanes] {
        file.extend_from_slice(&parameter.to_be_bytes());
    }
    let salt: [u8; SALT_BYTES] = seal::fresh()?;
    file.extend_from_slice(&salt);
    let password_key = cost.password_key(password, &salt)?;
    let sealed = seal::seal_under(&password_key, &associated_data(&file), data_key.as_slice())?;
    file.extend_from_slice(&sealed);
    let checksum = Sha256::digest(&file);
    file.extend_from_slice(&checksum);
    Ok(file)
}

/// The data key.
pub(super) fn open_envelope(file: &[u8], password: &Secret) -> Result<Key32, EnvelopeError> {
    let Parts { header, cost, salt, sealed } = parts(file).map_err(EnvelopeError::Damaged)?;
    let password_key = cost.password_key(password, salt).map_err(EnvelopeError::Damaged)?;
    let plain = seal::unseal_under(&password_key, &associated_data(header), sealed)
        .map_err(|_| EnvelopeError::WrongPassword)?;
    let key = <[u8; 32]>::try_from(plain.as_slice())
        .map_err(|_| EnvelopeError::Damaged("its data key has a wrong length".to_owned()))?;
    Ok(Zeroizing::new(key))
}

/// What is in the file.
struct Parts<'a> {
    /// All before the sealed key.
    header: &'a [u8],
    cost: PasswordCost,
    salt: &'a [u8],
    sealed: &'a [u8],
}

fn parts(file: &[u8]) -> Result<Parts<'_>, Reason> {
    let short = || "it is too short".to_owned();
    if file.len() != ENVELOPE_BYTES {
        return Err(format!("it holds {} bytes, expected {ENVELOPE_BYTES}", file.len()));
    }
    let (content, checksum) = file.split_last_chunk::<32>().ok_or_else(short)?;
    if Sha256::digest(content).as_slice() != checksum {
        return Err("its checksum does not fit".to_owned());
    }
    let (header, sealed) = content.split_at_checked(PARAMETERS_END).ok_or_else(short)?;
    let (magic, rest) = header.split_first_chunk::<8>().ok_or_else(short)?;
    if magic != MAGIC {
        return Err("it does not begin with \"mpcstore\"".to_owned());
    }
    let (version, rest) = rest.split_first().ok_or_else(short)?;
    if *version != VERSION {
        return Err(format!("its version is {version}, this program reads up to {VERSION}"));
    }
    let (parameters, salt) = rest.split_first_chunk::<12>().ok_or_else(short)?;
    let parameter = |index: usize| {
        parameters
            .chunks_exact(4)
            .nth(index)
            .map_or(0, |chunk| chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)))
    };
    let cost = PasswordCost { memory_kib: parameter(0), passes: parameter(1), lanes: parameter(2) };
    Ok(Parts { header, cost, salt, sealed })
}

/// Reads a file without its checksum, which no fuzzer guesses; `false`: it is none. See [`super::decode`].
pub(super) fn reads(content: &[u8]) -> bool {
    let file = [content, &Sha256::digest(content)].concat();
    let cost = parts(&file).map(|parts| parts.cost);
    // Whoever can write the file can have the node work for a minute before it is refused; a fuzzer shall not.
    if cost == Ok(PasswordCost::TRIVIAL) {
        drop(open_envelope(&file, &Secret::new(b"password".to_vec())));
    }
    cost.is_ok()
}

fn associated_data(header: &[u8]) -> Vec<u8> {
    [seal::LABEL_ENVELOPE, &[0], header].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_file_is_damage_and_another_password_is_not() {
        let password = Secret::new(b"right".to_vec());
        let file = seal_envelope(&Zeroizing::new([5; 32]), &password, PasswordCost::TRIVIAL).expect("sealed");
        assert_eq!(file.len(), ENVELOPE_BYTES);
        assert_eq!(*open_envelope(&file, &password).expect("opened"), [5; 32]);
        let other = Secret::new(b"wrong".to_vec());
        assert_eq!(open_envelope(&file, &other).expect_err("refused"), EnvelopeError::WrongPassword);
        for place in 0..file.len() {
            let mut altered = file.clone();
            altered[place] ^= 1;
            let error = open_envelope(&altered, &password).expect_err("altered");
            assert!(matches!(error, EnvelopeError::Damaged(_)), "byte {place}: {error:?}");
        }
    }
}

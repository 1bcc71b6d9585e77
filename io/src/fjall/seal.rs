//! The keys of a store and the form of a sealed record.
//!
//! Everything is derived from the data key. A record is sealed with XChaCha20-Poly1305 under a random nonce; its
//! associated data names schema version, keyspace and hashed name, so a row that is moved does not open. The name
//! under which the engine keeps it is a keyed hash, the real name is inside the seal.
//!
//! ```text
//! row name    keyspace number (1) || HMAC-SHA256(names key, keyspace number || name) (32)
//! row, v1     1 || kind (1) || [key id (16), if kind = 1] || nonce (24) || ciphertext || tag (16)
//! plaintext   name length (2, big-endian) || name || value
//! ```
//! Kind 0 is sealed under the store's key, kind 1 under a key of its own from the key table.

use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{AeadInOut as _, KeyInit as _},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use mpcium_core::{Secret, limits, store::Keyspace};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

// Every label of the store, so that no two uses share a key or a preimage.
const LABEL_RECORDS: &[u8] = b"mpcium/1 store records";
const LABEL_NAMES: &[u8] = b"mpcium/1 store record names";
const LABEL_SUMS: &[u8] = b"mpcium/1 store set hash";
const LABEL_STATE: &[u8] = b"mpcium/1 store integrity record";
const LABEL_TABLE: &[u8] = b"mpcium/1 store key table";
/// Label of the seal around the data key.
pub(super) const LABEL_ENVELOPE: &[u8] = b"mpcium/1 store envelope";

/// The newest form of a row.
const ROW_VERSION: u8 = 1;
const KIND_STORE_KEY: u8 = 0;
const KIND_OWN_KEY: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Bytes of a row's name in the engine.
pub(super) const ROW_NAME_BYTES: usize = 33;
/// Bytes of one record's value.
pub(super) const VALUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Names a key in the key table.
pub(super) type KeyId = [u8; 16];
/// A key that is erased from memory when dropped.
pub(super) type Key32 = Zeroizing<[u8; 32]>;
/// A row's name in the engine.
pub(super) type RowName = [u8; ROW_NAME_BYTES];

/// Why something sealed does not open, in words.
pub(super) type Reason = String;

/// Fills an array from the machine's generator.
pub(super) fn fresh<const N: usize>() -> Result<[u8; N], Reason> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("the machine gives no randomness: {error}"))?;
    Ok(bytes)
}

/// A keyspace's number on disk: never changes.
pub(super) fn number(keyspace: Keyspace) -> u8 {
    match keyspace {
        Keyspace::Meta => 1,
        Keyspace::Peers => 2,
        Keyspace::Pending => 3,
        Keyspace::Decisions => 4,
        Keyspace::Certificates => 5,
        Keyspace::Shares => 6,
        Keyspace::Ledger => 7,
        Keyspace::Auxiliary => 8,
        Keyspace::Ingredients => 9,
    }
}

/// The keyspace of a number.
pub(super) fn keyspace(number_on_disk: u8) -> Option<Keyspace> {
    Keyspace::ALL.into_iter().find(|keyspace| number(*keyspace) == number_on_disk)
}

/// Seals bytes as `nonce || ciphertext || tag`.
fn seal(cipher: &XChaCha20Poly1305, associated: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let nonce: [u8; NONCE_BYTES] = fresh()?;
    out.reserve_exact(NONCE_BYTES + plain.len() + TAG_BYTES);
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = cipher
        .encrypt_inout_detached(&XNonce::from(nonce), associated, (&mut out[start..]).into())
        .map_err(|_| "a record is too long to be sealed".to_owned())?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// Opens `nonce || ciphertext || tag`.
fn unseal(cipher: &XChaCha20Poly1305, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let too_short = || format!("it holds {} bytes, too few for a seal", sealed.len());
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(too_short)?;
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(too_short)?;
    let mut plain = Zeroizing::new(body.to_vec());
    cipher
        .decrypt_inout_detached(&XNonce::from(*nonce), associated, plain.as_mut_slice().into(), &(*tag).into())
        .map_err(|_| "its seal does not fit: altered, moved, or of another store".to_owned())?;
    Ok(plain)
}

/// A cipher under `key`.
fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key))
}

/// Seals bytes under a key that seals nothing else by the same label.
pub(super) fn seal_under(key: &[u8; 32], associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut out = Vec::new();
    seal(&cipher(key), associated, plain, &mut out)?;
    Ok(out)
}

/// Opens what [`seal_under`] sealed.
pub(super) fn unseal_under(key: &[u8; 32], associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Reason> {
    unseal(&cipher(key), associated, sealed)
}

/// What a row says without being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// The key that it is sealed under, if it has one of its own.
    pub(super) own_key: Option<KeyId>,
    /// What differs between any two seals: nonce and tag.
    pub(super) stamp: [u8; NONCE_BYTES + TAG_BYTES],
    sealed: &'a [u8],
}

/// Reads a row's header.
pub(super) fn header(row: &[u8]) -> Result<Header<'_>, Reason> {
    let [version, kind, rest @ ..] = row else { return Err(format!("it holds {} bytes, too few", row.len())) };
    if *version != ROW_VERSION {
        return Err(format!("its version is {version}, this program reads up to {ROW_VERSION}"));
    }
    let (own_key, sealed) = match *kind {
        KIND_STORE_KEY => (None, rest),
        KIND_OWN_KEY => {
            let (id, sealed) = rest.split_first_chunk().ok_or("it ends within the id of its key")?;
            (Some(*id), sealed)
        }
        other => return Err(format!("its kind is {other}, expected 0 or 1")),
    };
    let mut stamp = [0; NONCE_BYTES + TAG_BYTES];
    let ends = sealed.split_first_chunk::<NONCE_BYTES>().zip(sealed.split_last_chunk::<TAG_BYTES>());
    let ((nonce, _), (_, tag)) = ends.ok_or_else(|| format!("it holds {} bytes, too few", row.len()))?;
    stamp[..NONCE_BYTES].copy_from_slice(nonce);
    stamp[NONCE_BYTES..].copy_from_slice(tag);
    Ok(Header { own_key, stamp, sealed })
}

/// Everything that is derived from a store's data key.
pub(super) struct Keys {
    records: Key32,
    names: Hmac<Sha256>,
    sums: Hmac<Sha256>,
    state: Key32,
    table: Key32,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Derives all keys.
    pub(super) fn derive(data_key: &Key32) -> Self {
        let derivation = Hkdf::<Sha256>::new(None, data_key.as_slice());
        let derive = |label: &[u8]| -> Key32 {
            let mut key = Key32::default();
            derivation.expand(label, key.as_mut_slice()).expect("32 bytes are far below HKDF's limit");
            key
        };
        let keyed_hash = |label: &[u8]| {
            <Hmac<Sha256> as hmac::Mac>::new_from_slice(derive(label).as_slice())
                .expect("HMAC takes keys of any length")
        };
        Self {
            records: derive(LABEL_RECORDS),
            names: keyed_hash(LABEL_NAMES),
            sums: keyed_hash(LABEL_SUMS),
            state: derive(LABEL_STATE),
            table: derive(LABEL_TABLE),
        }
    }

    /// The name under which the engine keeps a record.
    pub(super) fn row_name(&self, keyspace: Keyspace, name: &[u8]) -> RowName {
        let number = number(keyspace);
        let hash = self.names.clone().chain_update([number]).chain_update(name).finalize().into_bytes();
        let mut row_name = [number; ROW_NAME_BYTES];
        row_name[1..].copy_from_slice(&hash);
        row_name
    }

    /// What a row adds to its keyspace's set hash.
    pub(super) fn element(&self, row_name: &RowName, header: &Header<'_>) -> [u8; 32] {
        self.sums.clone().chain_update(row_name).chain_update(header.stamp).finalize().into_bytes().into()
    }

    /// Seals a record, under a key of its own if one is given.
    pub(super) fn seal_record(
        &self,
        row_name: &RowName,
        name: &[u8],
        value: &[u8],
        own_key: Option<(&KeyId, &Key32)>,
    ) -> Result<Vec<u8>, Reason> {
        let name_length = u16::try_from(name.len()).ok().filter(|_| name.len() <= limits::RECORD_KEY_BYTES_MAX);
        let Some(name_length) = name_length else {
            let most = limits::RECORD_KEY_BYTES_MAX;
            return Err(format!("a record's name has {} bytes, at most {most} are allowed", name.len()));
        };
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("a record has {} bytes, at most {VALUE_BYTES_MAX} are allowed", value.len()));
        }
        let mut plain = Zeroizing::new(Vec::with_capacity(2 + name.len() + value.len()));
        plain.extend_from_slice(&name_length.to_be_bytes());
        plain.extend_from_slice(name);
        plain.extend_from_slice(value);
        let own = own_key.map(|(id, key)| (id, cipher(key)));
        let mut row = Vec::with_capacity(2 + 16 + NONCE_BYTES + plain.len() + TAG_BYTES);
        row.extend_from_slice(&[ROW_VERSION, if own.is_some() { KIND_OWN_KEY } else { KIND_STORE_KEY }]);
        let associated = associated_data(row_name, own.as_ref().map(|(id, _)| *id));
        match &own {
            Some((id, cipher)) => {
                row.extend_from_slice(*id);
                seal(cipher, &associated, &plain, &mut row)?;
            }
            None => seal(&cipher(&self.records), &associated, &plain, &mut row)?,
        }
        Ok(row)
    }

    /// Opens a record: its name and value. `own_key` is the key that its header asks for.
    pub(super) fn open_record(
        &self,
        row_name: &RowName,
        header: &Header<'_>,
        own_key: Option<&Key32>,
    ) -> Result<(Vec<u8>, Secret), Reason> {
        let associated = associated_data(row_name, header.own_key.as_ref());
        let plain = match (header.own_key, own_key) {
            (None, _) => unseal(&cipher(&self.records), &associated, header.sealed)?,
            (Some(_), Some(key)) => unseal(&cipher(key), &associated, header.sealed)?,
            (Some(_), None) => return Err("its key is not in the key table".to_owned()),
        };
        let malformed = || "its seal fits but its content is malformed".to_owned();
        let (length, rest) = plain.split_first_chunk().ok_or_else(malformed)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (name, value) = rest.split_at_checked(length).ok_or_else(malformed)?;
        Ok((name.to_vec(), Secret::new(value.to_vec())))
    }

    /// Seals the integrity record.
    pub(super) fn seal_state(&self, plain: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut out = vec![ROW_VERSION];
        seal(&cipher(&self.state), &[LABEL_STATE, &[ROW_VERSION]].concat(), plain, &mut out)?;
        Ok(out)
    }

    /// Opens the integrity record.
    pub(super) fn open_state(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let sealed = without_version(sealed)?;
        unseal(&cipher(&self.state), &[LABEL_STATE, &[ROW_VERSION]].concat(), sealed)
    }

    /// Seals a bucket of the key table.
    pub(super) fn seal_bucket(&self, bucket: &str, plain: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut out = vec![ROW_VERSION];
        seal(&cipher(&self.table), &[LABEL_TABLE, &[ROW_VERSION], bucket.as_bytes()].concat(), plain, &mut out)?;
        Ok(out)
    }

    /// Opens a bucket of the key table.
    pub(super) fn open_bucket(&self, bucket: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let sealed = without_version(sealed)?;
        unseal(&cipher(&self.table), &[LABEL_TABLE, &[ROW_VERSION], bucket.as_bytes()].concat(), sealed)
    }
}

/// Checks and removes the leading version.
fn without_version(sealed: &[u8]) -> Result<&[u8], Reason> {
    match sealed.split_first() {
        None => Err("it is empty".to_owned()),
        Some((&ROW_VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(format!("its version is {version}, this program reads up to {ROW_VERSION}")),
    }
}

/// What a record's seal is bound to.
fn associated_data(row_name: &RowName, own_key: Option<&KeyId>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LABEL_RECORDS.len() + 2 + ROW_NAME_BYTES + 16);
    bytes.extend_from_slice(LABEL_RECORDS);
    bytes.extend_from_slice(&[0, ROW_VERSION]);
    bytes.extend_from_slice(row_name);
    bytes.extend_from_slice(own_key.map_or(&[], |id| id.as_slice()));
    bytes
}

/// Makes a fresh key for one record.
pub(super) fn fresh_key() -> Result<Key32, Reason> {
    let mut bytes: [u8; 32] = fresh()?;
    let key = Zeroizing::new(bytes);
    bytes.zeroize();
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&Zeroizing::new([7; 32]))
    }

    #[test]
    fn a_record_opens_only_under_its_own_row_name() {
        let keys = keys();
        let here = keys.row_name(Keyspace::Meta, b"a");
        let row = keys.seal_record(&here, b"a", b"value", None).expect("sealed");
        let opened = keys.open_record(&here, &header(&row).expect("header"), None).expect("opened");
        assert_eq!(opened, (b"a".to_vec(), Secret::new(b"value".to_vec())));
        for elsewhere in [keys.row_name(Keyspace::Meta, b"b"), keys.row_name(Keyspace::Peers, b"a")] {
            keys.open_record(&elsewhere, &header(&row).expect("header"), None).expect_err("moved");
        }
    }

    #[test]
    fn every_flipped_byte_of_a_row_is_refused() {
        let keys = keys();
        let name = keys.row_name(Keyspace::Shares, b"a");
        let (id, key) = ([3; 16], Zeroizing::new([9; 32]));
        let row = keys.seal_record(&name, b"a", b"value", Some((&id, &key))).expect("sealed");
        for place in 0..row.len() {
            let mut altered = row.clone();
            altered[place] ^= 0x10;
            let opened = header(&altered).and_then(|header| keys.open_record(&name, &header, Some(&key)));
            assert!(opened.is_err(), "byte {place} was altered unnoticed");
        }
        for length in 0..row.len() {
            let opened = header(&row[..length]).and_then(|header| keys.open_record(&name, &header, Some(&key)));
            assert!(opened.is_err(), "cut to {length} bytes unnoticed");
        }
    }

    #[test]
    fn keyspace_numbers_are_distinct_and_go_back() {
        for one in Keyspace::ALL {
            assert_eq!(keyspace(number(one)), Some(one));
        }
    }
}

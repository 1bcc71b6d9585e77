//! The files that operators and clients share: peers, identities, initiators, authorizers.
//!
//! Formats are byte for byte those of the Go system (client-facing documentation calls them "key files"): JSON
//! indented by two spaces without a final newline, keys as hexadecimal text, files 0600, folders 0750. Nothing is
//! overwritten unless asked for. A private key is read strictly, except that a final newline is tolerated.

use std::{
    collections::BTreeMap,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::{SigningKey, VerifyingKey};
use mpcium_core::{Identity, NodeId, PeerInfo};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{keys, secret_text::SecretText};

/// Bytes of any file read here; all are far smaller.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// `identity/<node>_identity.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityFile {
    /// The name in `peers.json`.
    pub node_name: String,
    /// The id in `peers.json`.
    pub node_id: String,
    /// Ed25519, 64 hexadecimal digits.
    pub public_key: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// `<name>.identity.json` of an initiator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitiatorFile {
    /// The file's base name.
    pub node_name: String,
    /// `ed25519` or `p256`.
    pub algorithm: String,
    /// Ed25519: 64 hexadecimal digits; P-256: hexadecimal SubjectPublicKeyInfo.
    pub public_key: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The user who made it.
    pub created_by: String,
    /// The operating system it was made on.
    pub machine_os: String,
    /// The host it was made on.
    pub machine_name: String,
}

/// `<name>.authorizer.identity.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizerFile {
    /// The authorizer's id.
    pub name: String,
    /// `ed25519` or `p256`.
    pub algorithm: String,
    /// As in [`InitiatorFile`].
    pub public_key: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The user who made it.
    pub created_by: String,
    /// The operating system it was made on.
    pub machine_os: String,
    /// The host it was made on.
    pub machine_name: String,
}

/// Whether an existing file may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It may not: an error.
    Refuse,
    /// It may.
    Allow,
}

/// A JSON document as the files hold it.
fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec_pretty(value).map_err(|error| error.to_string())
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// If it exists and may not be replaced, or cannot be written.
pub fn write(path: &Path, bytes: &[u8], overwrite: Overwrite) -> Result<(), String> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    match overwrite {
        Overwrite::Refuse => options.create_new(true),
        Overwrite::Allow => {
            // Opening an existing file would keep its permissions, which may be wider.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", path.display()));
                }
                _ => options.create_new(true),
            }
        }
    };
    let mut file = options.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => format!("{} exists already and is not overwritten", path.display()),
        _ => format!("{}: {error}", path.display()),
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads a file of bounded size.
///
/// # Errors
/// If it is missing, unreadable or far too large to be what it should be.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{}: {size} bytes, expected at most {FILE_BYTES_MAX}", path.display()));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(|error| format!("{}: {error}", path.display()))
}

/// That others than its owner may use a file or folder, in words; `None` if they may not, or it does not exist.
#[must_use]
pub fn open_to_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let open = mode & 0o077 != 0;
    open.then(|| format!("{} can be used by others than its owner (mode {mode:o})", path.display()))
}

/// `peers.json` for `node0..`, with fresh ids.
#[must_use]
pub fn new_peers(number: u16) -> BTreeMap<String, String> {
    (0..number).map(|at| (format!("node{at}"), uuid::Uuid::new_v4().to_string())).collect()
}

/// Writes `peers.json`, sorted by name.
///
/// # Errors
/// As [`write`].
pub fn write_peers(path: &Path, peers: &BTreeMap<String, String>) -> Result<(), String> {
    write(path, &json(peers)?, Overwrite::Refuse)
}

/// Reads `peers.json`.
///
/// # Errors
/// If it is not an object of names and different UUIDs.
pub fn read_peers(path: &Path) -> Result<BTreeMap<String, NodeId>, String> {
    let text: BTreeMap<String, String> = serde_json::from_slice(&read(path)?)
        .map_err(|error| format!("{}: expected an object of node names and UUIDs: {error}", path.display()))?;
    let mut peers = BTreeMap::new();
    for (name, id) in text {
        let id = NodeId::parse(&id).ok_or_else(|| format!("{}: {name}: {id:?} is not a UUID", path.display()))?;
        if let Some((other, _)) = peers.iter().find(|(_, known)| **known == id) {
            return Err(format!("{}: {other} and {name} have the same id {id}", path.display()));
        }
        peers.insert(name, id);
    }
    if peers.is_empty() {
        return Err(format!("{}: names no node", path.display()));
    }
    Ok(peers)
}

/// Where a node's public identity is.
#[must_use]
pub fn identity_path(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("{node}_identity.json"))
}

/// Where a node's private key is; `.age` is added when it is encrypted.
#[must_use]
pub fn private_key_path(folder: &Path, node: &str, encrypted: bool) -> PathBuf {
    folder.join(format!("{node}_private.key{}", if encrypted { ".age" } else { "" }))
}

/// A node's files: the public one, and the one with the private key.
#[must_use]
pub fn identity_files(folder: &Path, node: &str, encrypted: bool) -> [PathBuf; 2] {
    [identity_path(folder, node), private_key_path(folder, node, encrypted)]
}

/// Makes a node's identity and writes both files.
///
/// # Errors
/// As [`write`]; also if the passphrase cannot be used. Neither file is touched if either may not be written.
pub fn write_identity(
    folder: &Path,
    node: &str,
    id: &str,
    passphrase: Option<&SecretText>,
    overwrite: Overwrite,
) -> Result<(), String> {
    let seed = Zeroizing::new(keys::random_bytes::<32>()?);
    let key = SigningKey::from_bytes(&seed);
    let files = identity_files(folder, node, passphrase.is_some());
    refuse_existing(&files, overwrite)?;
    let [public, private] = files;
    let text = Zeroizing::new(hex::encode(Zeroizing::new(key.to_keypair_bytes()).as_slice()));
    write_key(&private, &text, passphrase, overwrite)?;
    let file = IdentityFile {
        node_name: node.to_owned(),
        node_id: id.to_owned(),
        public_key: hex::encode(key.verifying_key().as_bytes()),
        created_at: keys::timestamp(std::time::SystemTime::now()),
    };
    write(&public, &json(&file)?, overwrite)
}

/// What every node knows of every peer: `peers.json` and one identity file each.
///
/// # Errors
/// Every file that is missing or does not fit, together.
pub fn read_identities(folder: &Path, peers: &BTreeMap<String, NodeId>) -> Result<Vec<PeerInfo>, String> {
    let mut known = Vec::new();
    let mut problems = Vec::new();
    for (name, id) in peers {
        match read_public_identity(&identity_path(folder, name), name, *id) {
            Ok(peer) => known.push(peer),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(known) } else { Err(problems.join("\n")) }
}

fn read_public_identity(path: &Path, name: &str, id: NodeId) -> Result<PeerInfo, String> {
    let at = path.display();
    let file: IdentityFile = serde_json::from_slice(&read(path)?).map_err(|error| format!("{at}: {error}"))?;
    if file.node_name != name {
        return Err(format!("{at}: node_name is {:?}, expected {name:?}", file.node_name));
    }
    if NodeId::parse(&file.node_id) != Some(id) {
        return Err(format!("{at}: node_id is {:?}, but peers.json says {id}", file.node_id));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(&file.public_key, &mut bytes)
        .map_err(|_| format!("{at}: public_key: expected 64 hexadecimal digits"))?;
    let key = VerifyingKey::from_bytes(&bytes)
        .ok()
        .filter(|key| !key.is_weak())
        .ok_or_else(|| format!("{at}: public_key is not a usable Ed25519 key"))?;
    Ok(PeerInfo { id, name: name.to_owned(), key })
}

/// Why a private key cannot be used, with the words for it. Only where there is no key may one think of a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// There is no file.
    Missing(String),
    /// The file is there and holds no key.
    NoKey(String),
    /// The passphrase does not open it.
    WrongPassphrase(String),
    /// It cannot be read or opened, or is another node's.
    Unusable(String),
}

impl std::fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Missing(text) | Self::NoKey(text) | Self::WrongPassphrase(text) | Self::Unusable(text)) = self;
        f.write_str(text)
    }
}

/// Reads this node's private key and checks that it belongs to its public identity.
///
/// # Errors
/// If the file is missing, malformed, not decryptable, or another key's.
pub fn read_identity(folder: &Path, me: &PeerInfo, passphrase: Option<&SecretText>) -> Result<Identity, KeyProblem> {
    let path = private_key_path(folder, &me.name, passphrase.is_some());
    let at = path.display();
    let other = private_key_path(folder, &me.name, passphrase.is_none());
    if !path.exists() && other.exists() {
        let advice = if passphrase.is_none() { "use" } else { "leave out" };
        let other = other.display();
        return Err(KeyProblem::Unusable(format!(
            "{at} does not exist, but {other} does: {advice} --decrypt-private-key"
        )));
    }
    if matches!(path.try_exists(), Ok(false)) {
        return Err(KeyProblem::Missing(format!("{at} does not exist")));
    }
    let bytes = read_key(&path, passphrase)?;
    let text = bytes.strip_suffix(b"\n").map_or(bytes.as_slice(), |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
    let mut pair = Zeroizing::new([0; 64]);
    hex::decode_to_slice(text, pair.as_mut_slice()).map_err(|_| {
        let got = text.len();
        KeyProblem::NoKey(format!("{at}: expected 128 hexadecimal digits and nothing else, got {got} characters"))
    })?;
    let key = SigningKey::from_keypair_bytes(&pair)
        .map_err(|_| KeyProblem::NoKey(format!("{at}: the public half does not belong to the private half")))?;
    if key.verifying_key() != me.key {
        let public = identity_path(folder, &me.name);
        return Err(KeyProblem::Unusable(format!("{at}: is not the private key of {}", public.display())));
    }
    Ok(Identity::new(me.id, key.as_bytes()))
}

/// Which kind of key an initiator or authorizer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    P256,
}

impl Algorithm {
    /// Its name in files and configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
        }
    }
}

/// Makes an initiator's key and writes `<name>.identity.json` and `<name>.key[.age]`. Returns the public key's text.
///
/// # Errors
/// As [`write_identity`].
pub fn write_initiator(
    folder: &Path,
    name: &str,
    algorithm: Algorithm,
    passphrase: Option<&SecretText>,
    overwrite: Overwrite,
) -> Result<String, String> {
    write_client(folder, name, algorithm, passphrase, overwrite, |public_key| {
        json(&InitiatorFile {
            node_name: name.to_owned(),
            algorithm: algorithm.name().to_owned(),
            public_key: public_key.to_owned(),
            created_at: keys::timestamp(std::time::SystemTime::now()),
            created_by: keys::user_name(),
            machine_os: std::env::consts::OS.to_owned(),
            machine_name: keys::host_name(),
        })
    })
}

/// Makes an authorizer's key and writes `<name>.authorizer.identity.json` and `<name>.authorizer.key[.age]`.
///
/// # Errors
/// As [`write_identity`].
pub fn write_authorizer(
    folder: &Path,
    name: &str,
    algorithm: Algorithm,
    passphrase: Option<&SecretText>,
    overwrite: Overwrite,
) -> Result<String, String> {
    write_client(folder, &authorizer_base(name), algorithm, passphrase, overwrite, |public_key| {
        json(&AuthorizerFile {
            name: name.to_owned(),
            algorithm: algorithm.name().to_owned(),
            public_key: public_key.to_owned(),
            created_at: keys::timestamp(std::time::SystemTime::now()),
            created_by: keys::user_name(),
            machine_os: std::env::consts::OS.to_owned(),
            machine_name: keys::host_name(),
        })
    })
}

fn write_client(
    folder: &Path,
    base: &str,
    algorithm: Algorithm,
    passphrase: Option<&SecretText>,
    overwrite: Overwrite,
    document: impl FnOnce(&str) -> Result<Vec<u8>, String>,
) -> Result<String, String> {
    let files = client_files(folder, base, passphrase.is_some());
    refuse_existing(&files, overwrite)?;
    let [public, private] = files;
    let (secret, public_key) = keys::new_client_key(algorithm)?;
    write_key(&private, &secret, passphrase, overwrite)?;
    write(&public, &document(&public_key)?, overwrite)?;
    Ok(public_key)
}

/// The files of an initiator or authorizer: the public one, and the one with the private key.
#[must_use]
pub fn client_files(folder: &Path, base: &str, encrypted: bool) -> [PathBuf; 2] {
    let private = format!("{base}.key{}", if encrypted { ".age" } else { "" });
    [folder.join(format!("{base}.identity.json")), folder.join(private)]
}

/// What the names of an authorizer's files begin with.
#[must_use]
pub fn authorizer_base(name: &str) -> String {
    format!("{name}.authorizer")
}

/// Refuses if one of these files exists and may not be replaced. Whoever asks for a passphrase first asks this.
///
/// # Errors
/// The first that exists.
pub fn refuse_existing(paths: &[PathBuf], overwrite: Overwrite) -> Result<(), String> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) if overwrite == Overwrite::Refuse => {
            Err(format!("{} exists already; --overwrite replaces it", path.display()))
        }
        _ => Ok(()),
    }
}

fn write_key(path: &Path, text: &str, passphrase: Option<&SecretText>, overwrite: Overwrite) -> Result<(), String> {
    match passphrase {
        None => write(path, text.as_bytes(), overwrite),
        Some(passphrase) => {
            let recipient = age::scrypt::Recipient::new(passphrase.expose().to_owned().into());
            let sealed = age::encrypt(&recipient, text.as_bytes()).map_err(|error| error.to_string())?;
            write(path, &sealed, overwrite)
        }
    }
}

fn read_key(path: &Path, passphrase: Option<&SecretText>) -> Result<Zeroizing<Vec<u8>>, KeyProblem> {
    let bytes = read(path).map_err(KeyProblem::Unusable)?;
    match passphrase {
        None => Ok(bytes),
        Some(passphrase) => {
            let identity = age::scrypt::Identity::new(passphrase.expose().to_owned().into());
            let at = path.display();
            age::decrypt(&identity, &bytes).map(Zeroizing::new).map_err(|error| match error {
                age::DecryptError::DecryptionFailed
                | age::DecryptError::KeyDecryptionFailed
                | age::DecryptError::NoMatchingKeys => KeyProblem::WrongPassphrase(format!(
                    "{at}: cannot be decrypted: wrong passphrase (--identity-password-file, or the credential \
                     identity_passphrase)"
                )),
                age::DecryptError::InvalidHeader | age::DecryptError::UnknownFormat => {
                    KeyProblem::NoKey(format!("{at}: is no encrypted key: {error}"))
                }
                _ => KeyProblem::Unusable(format!("{at}: cannot be decrypted: {error}")),
            })
        }
    }
}

#[cfg(test)]
mod tests;

//! Files that people write and copy: configuration, peers, identities, keys. Read from a real file, as the node does.
//!
//! What they hold may be secret, so no refusal may repeat it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use mpcium_client::{
    auth::{Algorithm, InitiatorKey},
    signer::LocalSigner,
};
use mpcium_core::{NodeId, PeerInfo};
use mpcium_node::{
    config::{self, Reader},
    files, passwords, primes as primes_file,
    secret_text::SecretText,
};

/// Bytes of which a refusal repeats none that were in a row in a secret file.
const TELLING: usize = 12;

/// A folder of this thread with one file in it; gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, bytes: &[u8]) -> Self {
        let number = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let number: String = number.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let folder = std::env::temp_dir().join(format!("mpcium-fuzz-{number}"));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join(name), bytes).expect("a temporary file");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A refusal of a secret file names the file and what was expected, and repeats nothing of it.
fn tells_nothing(refusal: &str, secret: &[u8]) {
    let told = refusal.as_bytes();
    let secret = secret.trim_ascii();
    if secret.len() < TELLING {
        return;
    }
    // What the messages say anyway, and the digits of lengths, are no secrets.
    let repeated = secret.windows(TELLING).any(|window| {
        window.iter().any(|byte| byte.is_ascii_digit())
            && window.iter().filter(|byte| byte.is_ascii_alphanumeric()).count() == TELLING
            && told.windows(TELLING).any(|other| other == window)
    });
    assert!(!repeated, "a refusal repeats what is in a secret file: {refusal}");
}

pub fn config(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let Ok(mut reader) = Reader::new(Path::new("config.yaml"), source, &|_| None) else { return };
    // Accepted or refused with reasons.
    let _ = config::settings(&mut reader);
}

pub fn peers(bytes: &[u8]) {
    let folder = Folder::with("peers.json", bytes);
    if let Ok(peers) = files::read_peers(&folder.0.join("peers.json")) {
        let again = folder.0.join("again.json");
        let texts: BTreeMap<String, String> = peers.iter().map(|(name, id)| (name.clone(), id.to_string())).collect();
        files::write_peers(&again, &texts).expect("what was read can be written");
        assert_eq!(files::read_peers(&again).as_ref(), Ok(&peers), "what was written is read");
    }
}

fn node0() -> BTreeMap<String, NodeId> {
    BTreeMap::from([("node0".to_owned(), NodeId::from_bytes([1; 16]))])
}

pub fn identity(bytes: &[u8]) {
    let folder = Folder::with("node0_identity.json", bytes);
    if let Ok(peers) = files::read_identities(&folder.0, &node0()) {
        assert!(peers.len() == 1 && !peers.iter().any(|peer| peer.key.is_weak()), "a key that signs anything");
    }
}

fn somebody() -> PeerInfo {
    let id = NodeId::from_bytes([1; 16]);
    PeerInfo { id, name: "node0".to_owned(), key: mpcium_core::Identity::new(id, &[7; 32]).public() }
}

pub fn identity_key(bytes: &[u8]) {
    let folder = Folder::with("node0_private.key", bytes);
    if let Err(refusal) = files::read_identity(&folder.0, &somebody(), None) {
        let refusal = refusal.to_string();
        tells_nothing(&refusal, bytes);
    }
}

pub fn age_key(bytes: &[u8]) {
    let folder = Folder::with("node0_private.key.age", bytes);
    let passphrase = SecretText::new("correct horse battery staple".to_owned());
    if let Err(refusal) = files::read_identity(&folder.0, &somebody(), Some(&passphrase)) {
        let refusal = refusal.to_string();
        tells_nothing(&refusal, passphrase.expose().as_bytes());
        assert!(!refusal.contains(passphrase.expose()), "a refusal repeats the passphrase");
    }
}

pub fn initiator_key(bytes: &[u8]) {
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        match LocalSigner::parse(algorithm, bytes) {
            Ok(signer) => {
                let known = InitiatorKey::parse(
                    match algorithm {
                        Algorithm::Ed25519 => "ed25519",
                        Algorithm::P256 => "p256",
                    },
                    &signer.public_key_text(),
                )
                .expect("a public key as configurations spell it");
                let signature = signer.sign_now(b"message").expect("a signature");
                assert!(known.0.verifies(b"message", &signature), "its own signature does not verify");
            }
            Err(error) => {
                tells_nothing(&error.to_string(), bytes);
                tells_nothing(&format!("{error:?}"), bytes);
            }
        }
    }
}

pub fn initiator_public_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for algorithm in ["ed25519", "p256"] {
        // Accepted or refused with a reason.
        if let Ok(key) = InitiatorKey::parse(algorithm, text) {
            assert!(!key.0.verifies(b"message", &[0; 64]), "a key under which anything verifies");
        }
    }
}

pub fn password(bytes: &[u8]) {
    let folder = Folder::with("password", bytes);
    match passwords::from_file(&folder.0.join("password")) {
        Ok(password) => {
            assert!(!password.expose().is_empty() && password.expose().trim() == password.expose());
        }
        Err(refusal) => tells_nothing(&refusal, bytes),
    }
}

pub fn primes(bytes: &[u8]) {
    let folder = Folder::with("primes", bytes);
    match primes_file::read(&folder.0.join("primes")) {
        Ok(read) => assert!(read.primes.iter().all(|prime| prime.expose().len() == 192), "a prime of another size"),
        Err(refusal) => tells_nothing(&refusal, bytes),
    }
}

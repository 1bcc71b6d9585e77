//! What must hold whatever the nodes are given.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use mpcium_client::{query::WalletReply, result::ResultType};
use mpcium_core::{
    limits,
    node::Status,
    output::Publication,
    report::Report,
    store::{Batch, Keyspace},
    wallet::{CertificateRecord, record::Stored as _},
};
use serde_json::Value;

use crate::cluster::{Disk, NODES, THRESHOLD};

/// What was seen so far.
#[derive(Default)]
pub struct Checks {
    /// Whether a liar has ever been among the nodes: it may say that it holds what it does not hold.
    pub lied: bool,
    /// What was asked for honestly: wallet and transaction, with every message.
    pub asked: BTreeMap<(String, String), Vec<Vec<u8>>>,
    answers: BTreeMap<String, Vec<u8>>,
    signatures: BTreeMap<(String, String), Vec<u8>>,
    keys: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
}

impl Checks {
    pub fn datagram(&self, bytes: &[u8]) {
        assert!(bytes.len() <= limits::DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
    }

    pub fn batch(&self, batch: &Batch) {
        for write in &batch.writes {
            assert!(write.key.len() <= limits::RECORD_KEY_BYTES_MAX, "a name of {} bytes", write.key.len());
        }
    }

    pub fn report(&self, report: &Report) {
        // Reports end up in logs, a line each.
        let text = report.to_string();
        assert!(!text.contains(['\n', '\r', '\u{1b}']), "a report with control characters: {text:?}");
    }

    /// Checks the reply to a query, and says what kind it is.
    pub fn reply(&mut self, body: &[u8]) -> &'static str {
        let reply = WalletReply::from_json(body).expect("a reply can be read");
        if reply.result_type != ResultType::Success {
            assert!(!reply.error_code.is_empty() && !reply.error_reason.is_empty(), "{reply:?} does not say why");
            return "a query was refused";
        }
        let (name, keys) = (reply.wallet_id, (reply.ecdsa_pub_key, reply.eddsa_pub_key));
        let keys = (keys.0.unwrap_or_default(), keys.1.unwrap_or_default());
        assert!(self.asked.contains_key(&(name.clone(), String::new())), "{name} exists, and nobody asked for it");
        assert!(keys.0.len() == 64 && keys.1.len() == 32, "{name} has no keys");
        let known = self.keys.entry(name.clone()).or_insert_with(|| keys.clone());
        assert_eq!(*known, keys, "{name} has two sets of keys");
        "a query was answered with a wallet"
    }

    pub fn status(&self, status: &Status, coordinated: usize) {
        assert!(status.sessions.len() <= limits::SESSIONS_MAX, "{} sessions", status.sessions.len());
        assert!(coordinated <= limits::REQUESTS_MAX, "{coordinated} requests");
        for table in &status.tables {
            let full = table.limit.is_some_and(|limit| table.entries > limit);
            assert!(!full, "{} {}, at most {:?} are allowed", table.entries, table.name, table.limit);
        }
        assert!(!status.ready || status.peers.iter().filter(|peer| peer.up).count() + 1 >= THRESHOLD);
    }

    /// Checks an answer, and says what kind it is.
    pub fn published(&mut self, publication: &Publication, disks: &[&Disk]) -> &'static str {
        assert!(
            !publication.subject.contains([' ', '\t', '\r', '\n', '*', '>']) && !publication.subject.contains(".."),
            "the subject {:?}",
            publication.subject
        );
        let body: Value = serde_json::from_slice(&publication.body).expect("an answer is JSON");
        let known = self.answers.entry(publication.dedup.clone()).or_insert_with(|| publication.body.clone());
        if !self.lied {
            assert_eq!(
                String::from_utf8_lossy(known),
                String::from_utf8_lossy(&publication.body),
                "two answers under {}",
                publication.dedup
            );
        }
        if body["result_type"] != "success" {
            return "an error was published";
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let bytes = |name: &str| STANDARD.decode(text(name)).unwrap_or_default();
        let name = (text("wallet_id"), text("tx_id"));
        assert!(self.asked.contains_key(&name), "{name:?} succeeded, and no initiator asked for it");
        if name.1.is_empty() {
            let certified = |disk: &&Disk| {
                disk.iter().filter(|((keyspace, _), _)| *keyspace == Keyspace::Certificates).any(|(_, value)| {
                    CertificateRecord::decode(value.expose()).is_ok_and(|r| r.certificate.facts().wallet == name.0)
                })
            };
            assert!(disks.iter().any(certified), "{} was published before any certificate was durable", name.0);
            let keys = (bytes("ecdsa_pub_key"), bytes("eddsa_pub_key"));
            let known = self.keys.entry(name.0.clone()).or_insert_with(|| keys.clone());
            assert_eq!(*known, keys, "{} has two sets of keys", name.0);
            return "a wallet was published";
        }
        let ed25519 = bytes("signature");
        let ecdsa = ed25519.is_empty();
        let signature = if ecdsa { [bytes("r"), bytes("s")].concat() } else { ed25519 };
        assert_eq!(signature.len(), 64, "{name:?}: no signature in {body}");
        self.is_durable(&name, &signature, disks);
        self.verify(&name, ecdsa, &signature);
        let known = self.signatures.entry(name.clone()).or_insert_with(|| signature.clone());
        if !self.lied {
            assert_eq!(*known, signature, "{name:?} has two signatures");
        }
        if ecdsa { "a secp256k1 signature was published" } else { "an Ed25519 signature was published" }
    }

    /// A signature that clients can see is durable at so many members that no later attempt can miss it.
    fn is_durable(&self, name: &(String, String), signature: &[u8], disks: &[&Disk]) {
        let holds = |disk: &&&Disk| {
            disk.iter().any(|((keyspace, _), value)| {
                *keyspace == Keyspace::Ledger && value.expose().windows(64).any(|window| window == signature)
            })
        };
        let holders = disks.iter().filter(holds).count() + usize::from(self.lied);
        let quorum = NODES - THRESHOLD + 1;
        assert!(holders >= quorum, "{name:?} was published while {holders} of {quorum} members held it");
    }

    fn verify(&self, name: &(String, String), ecdsa: bool, signature: &[u8]) {
        let Some((secp256k1, ed25519)) = self.keys.get(&name.0) else { return };
        let messages = self.asked.get(name).map(Vec::as_slice).unwrap_or_default();
        let good = messages.iter().any(|message| {
            if ecdsa {
                let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&[&[4], secp256k1.as_slice()].concat());
                let signature = k256::ecdsa::Signature::from_slice(signature);
                key.is_ok_and(|key| signature.is_ok_and(|s| key.verify_prehash(message, &s).is_ok()))
            } else {
                let key: Option<[u8; 32]> = ed25519.as_slice().try_into().ok();
                let key = key.and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(&key).ok());
                let signature = ed25519_dalek::Signature::from_slice(signature);
                key.is_some_and(|key| signature.is_ok_and(|s| key.verify_strict(message, &s).is_ok()))
            }
        });
        assert!(good, "{name:?}: the published signature is over nothing that was asked for");
    }
}

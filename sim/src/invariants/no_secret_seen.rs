//! No share, piece or nonce appears in a report, in a result, or in clear in a datagram.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use mpcium_core::{
    store::Keyspace,
    wallet::{ShareRecord, record::Stored},
};

use super::{Fact, Invariant};
use crate::world::World;

/// Leading bytes of a secret by which it is recognised.
const PREFIX: usize = 8;
/// One datagram of this many is searched: each byte costs a look-up.
const SAMPLE: u64 = 16;

#[derive(Default)]
pub(super) struct NoSecretSeen {
    raw: BTreeSet<[u8; PREFIX]>,
    hex: BTreeSet<[u8; 2 * PREFIX]>,
    base64: Vec<String>,
    datagrams: u64,
}

impl NoSecretSeen {
    fn add(&mut self, secret: &[u8]) {
        let Some(prefix) = secret.first_chunk::<PREFIX>() else { return };
        if !self.raw.insert(*prefix) {
            return;
        }
        if let Some(text) = hex::encode(prefix).as_bytes().first_chunk() {
            self.hex.insert(*text);
        }
        // Nine bytes are twelve characters, whatever follows.
        if let Some(nine) = secret.first_chunk::<9>() {
            self.base64.push(STANDARD_NO_PAD.encode(nine));
        }
    }

    fn in_bytes(&self, bytes: &[u8]) -> bool {
        bytes.windows(PREFIX).any(|w| w.first_chunk().is_some_and(|w: &[u8; PREFIX]| self.raw.contains(w)))
    }

    fn in_text(&self, text: &str) -> bool {
        let hex = text
            .to_ascii_lowercase()
            .as_bytes()
            .windows(2 * PREFIX)
            .any(|w| w.first_chunk().is_some_and(|w: &[u8; 2 * PREFIX]| self.hex.contains(w)));
        hex || self.base64.iter().any(|secret| text.contains(secret.as_str()))
    }
}

impl Invariant for NoSecretSeen {
    fn name(&self) -> &'static str {
        "no_secret_seen"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Secret { bytes } => self.add(bytes),
            Fact::Durable { batch, .. } => {
                for write in batch.writes.iter().filter(|w| w.keyspace == Keyspace::Shares) {
                    if let Some(record) = write.value.as_ref().and_then(|v| ShareRecord::decode(v.expose()).ok()) {
                        self.add(record.share.secret.expose());
                    }
                }
            }
            Fact::Report { node, text, .. } if self.in_text(text) => {
                return Err(format!("node{node} reported a secret: {text}"));
            }
            Fact::Answer { node, answer } if self.in_text(&String::from_utf8_lossy(&answer.raw)) => {
                return Err(format!("node{node} published a secret"));
            }
            Fact::Datagram { from, bytes } => {
                self.datagrams += 1;
                if self.datagrams.is_multiple_of(SAMPLE) && self.in_bytes(bytes) {
                    return Err(format!("node{from} sent a secret in clear"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

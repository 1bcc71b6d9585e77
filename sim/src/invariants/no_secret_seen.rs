//! No share, piece, nonce or auxiliary secret appears in a report, in a result, or in clear in a datagram.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use mpcium_core::{NodeId, protocol::AuxiliarySet, store::Keyspace, wallet::ShareRecord};
use serde::Deserialize;

use super::{Fact, Invariant};
use crate::{records, world::World};

/// Leading bytes of a secret by which it is recognised.
const PREFIX: usize = 8;
/// Characters of these bytes in base64: nine bytes are twelve characters, whatever follows.
const BASE64: usize = 12;

/// Bytes of a secret of many parts that its middle must have.
const LONG: usize = 32;

/// How a record of auxiliary data begins; core does not hand it out.
#[derive(Deserialize)]
enum StoredSet {
    V1 { _members: Vec<NodeId>, _index: u16, data: AuxiliarySet },
}

/// Leading bytes of secrets, found quickly: every byte of every datagram is looked at.
struct Prefixes {
    known: BTreeSet<[u8; PREFIX]>,
    /// One bit for each pair of bytes with which one of them begins.
    begins: Vec<u64>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { known: BTreeSet::new(), begins: vec![0; (1 << 16) / 64] }
    }
}

impl Prefixes {
    fn pair(bytes: &[u8; PREFIX]) -> (usize, u64) {
        let pair = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        (pair / 64, 1 << (pair % 64))
    }

    /// Whether it was not known before.
    fn insert(&mut self, prefix: [u8; PREFIX]) -> bool {
        let (word, bit) = Self::pair(&prefix);
        self.begins[word] |= bit;
        self.known.insert(prefix)
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(PREFIX).filter_map(|window| window.first_chunk()).any(|window| {
            let (word, bit) = Self::pair(window);
            self.begins[word] & bit != 0 && self.known.contains(window)
        })
    }
}

#[derive(Default)]
pub(super) struct NoSecretSeen {
    raw: Prefixes,
    hex: BTreeSet<[u8; 2 * PREFIX]>,
    base64: BTreeSet<[u8; BASE64]>,
    /// Whether it was looked at what the disks held before the run.
    looked: bool,
}

/// Whether a run of characters of some alphabet has one of the words in it.
fn spelled<const N: usize>(text: &[u8], alphabet: impl Fn(u8) -> bool, words: &BTreeSet<[u8; N]>) -> bool {
    text.split(|character| !alphabet(*character)).any(|run| {
        run.windows(N).filter_map(|window| window.first_chunk()).any(|window: &[u8; N]| words.contains(window))
    })
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
        if let Some(text) = secret.first_chunk::<9>().map(|nine| STANDARD_NO_PAD.encode(nine)) {
            self.base64.extend(text.as_bytes().first_chunk::<BASE64>());
        }
    }

    /// A secret of many parts, which may begin with what is none: what stands in its middle.
    fn add_long(&mut self, secret: &[u8]) {
        self.add(secret.get(secret.len() / 2..).filter(|middle| middle.len() >= LONG).unwrap_or(secret));
    }

    /// The secrets of a record.
    fn stored(&mut self, keyspace: Keyspace, value: &[u8]) {
        match keyspace {
            Keyspace::Shares => {
                if let Ok(record) = records::read::<ShareRecord>(value) {
                    self.add(record.share.secret.expose());
                }
            }
            Keyspace::Ingredients => self.add_long(value),
            Keyspace::Auxiliary => {
                if let Ok((StoredSet::V1 { data, .. }, _)) = postcard::take_from_bytes(value) {
                    self.add_long(data.secret.expose());
                }
            }
            _ => {}
        }
    }

    /// Lists of numbers, as JSON and people's formats have bytes that nobody thought of.
    fn in_lists(&self, text: &[u8]) -> bool {
        let listed = |character: &u8| character.is_ascii_digit() || b", ".contains(character);
        text.split(|character| !listed(character)).filter(|list| list.len() >= 2 * PREFIX).any(|list| {
            let numbers = list.split(|character| b", ".contains(character)).filter(|number| !number.is_empty());
            // What is no byte stands between two lists.
            let bytes: Vec<Option<u8>> = numbers.map(|number| std::str::from_utf8(number).ok()?.parse().ok()).collect();
            bytes.split(Option::is_none).any(|list| {
                let list: Vec<u8> = list.iter().copied().flatten().collect();
                self.raw.are_in(&list)
            })
        })
    }

    fn in_text(&self, text: &[u8]) -> bool {
        let lower = text.to_ascii_lowercase();
        spelled(&lower, |character| character.is_ascii_hexdigit(), &self.hex)
            || spelled(text, |character| character.is_ascii_alphanumeric() || b"+/".contains(&character), &self.base64)
            || self.in_lists(text)
    }
}

impl Invariant for NoSecretSeen {
    fn name(&self) -> &'static str {
        "no_secret_seen"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        if !std::mem::replace(&mut self.looked, true) {
            for machine in &world.machines {
                for keyspace in [Keyspace::Shares, Keyspace::Ingredients, Keyspace::Auxiliary] {
                    machine.disk.records(keyspace).for_each(|(_, value)| self.stored(keyspace, value.expose()));
                }
            }
        }
        match fact {
            Fact::Secret { bytes } => self.add(bytes),
            Fact::Durable { batch, .. } => {
                for write in &batch.writes {
                    if let Some(value) = &write.value {
                        self.stored(write.keyspace, value.expose());
                    }
                }
            }
            // As JSON, and as the sentence that the node's log would hold.
            Fact::Report { node, report, text }
                if self.in_text(text.as_bytes()) || self.in_text(report.to_string().as_bytes()) =>
            {
                return Err(format!("node{node} reported a secret: {text}"));
            }
            Fact::Answer { node, answer } if self.in_text(&answer.raw) => {
                return Err(format!("node{node} published a secret"));
            }
            Fact::Datagram { from, bytes } if self.raw.are_in(bytes) => {
                return Err(format!("node{from} sent a secret in clear"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_every_form_and_at_any_place() {
        let mut seen = NoSecretSeen::default();
        let secret: Vec<u8> = (100..132).collect();
        seen.add(&secret);
        assert!(seen.raw.are_in(&[&[0; 77], secret.as_slice(), &[1]].concat()));
        assert!(!seen.raw.are_in(&secret[1..]));
        for text in [
            format!("a share {} of it", hex::encode(&secret)),
            format!("0{}", hex::encode_upper(&secret)),
            format!("{{\"share\":\"{}\"}}", STANDARD_NO_PAD.encode(&secret)),
            format!("{secret:?}"),
            serde_json::json!({"numbers": [7, 300], "share": secret}).to_string(),
        ] {
            assert!(seen.in_text(text.as_bytes()), "{text}");
        }
        assert!(!seen.in_text(b"session 5e05d2a5 of node1 ended after 12 ms"));
    }
}

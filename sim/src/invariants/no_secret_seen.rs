//! No share, piece or nonce appears in a report, in a result, or in clear in a datagram.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use mpcium_core::{store::Keyspace, wallet::ShareRecord};

use super::{Fact, Invariant};
use crate::{records, world::World};

/// Leading bytes of a secret by which it is recognised.
const PREFIX: usize = 8;
/// Characters of these bytes in base64: nine bytes are twelve characters, whatever follows.
const BASE64: usize = 12;

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

    fn in_text(&self, text: &[u8]) -> bool {
        let lower = text.to_ascii_lowercase();
        spelled(&lower, |character| character.is_ascii_hexdigit(), &self.hex)
            || spelled(text, |character| character.is_ascii_alphanumeric() || b"+/".contains(&character), &self.base64)
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
                    if let Some(record) =
                        write.value.as_ref().and_then(|v| records::read::<ShareRecord>(v.expose()).ok())
                    {
                        self.add(record.share.secret.expose());
                    }
                }
            }
            Fact::Report { node, text, .. } if self.in_text(text.as_bytes()) => {
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
        ] {
            assert!(seen.in_text(text.as_bytes()), "{text}");
        }
        assert!(!seen.in_text(b"session 5e05d2a5 of node1 ended after 12 ms"));
    }
}

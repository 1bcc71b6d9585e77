//! Looks for secrets where none may be: in logs, in what programs print, in what passes on the bus.
//!
//! A secret is cut into short pieces, so that a part of it is found too, and every piece is looked for in all usual
//! spellings. A long text with millions of places is compared with all of them in one pass.

use std::collections::{HashMap, HashSet};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Bytes of a piece. Whoever tells 31 bytes of a secret in a row tells a whole piece.
const PIECE: usize = 16;
/// Different bytes below which a piece is padding or a length, and is found anywhere.
const DIFFERENT_MIN: usize = 8;
/// Bytes by which spellings are found; all have more.
const BEGINNING: usize = 8;

/// What is looked for: names, and the spellings of what they name.
#[derive(Default)]
pub struct Secrets {
    names: Vec<String>,
    /// By their beginnings: the rest, and which secret it is.
    spellings: HashMap<[u8; BEGINNING], Vec<(Vec<u8>, usize)>>,
    known: HashSet<Vec<u8>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} of them)", self.names.len())
    }
}

impl Secrets {
    /// Adds a secret; its text is one too if it is hexadecimal.
    ///
    /// # Errors
    /// If nothing of it is long and various enough to be looked for.
    pub fn add(&mut self, name: &str, secret: &[u8]) -> Result<(), String> {
        self.names.push(name.to_owned());
        let before = self.known.len();
        let read = std::str::from_utf8(secret).ok().and_then(|text| hex::decode(text.trim()).ok());
        for bytes in [Some(secret.to_vec()), read].into_iter().flatten() {
            // Numbers are written from their other end too.
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            for bytes in [bytes, reversed] {
                bytes.chunks_exact(PIECE).for_each(|piece| self.add_piece(piece));
            }
        }
        if self.known.len() == before {
            return Err(format!("{name} is too short to be looked for, or known by another name"));
        }
        Ok(())
    }

    fn add_piece(&mut self, piece: &[u8]) {
        if piece.iter().collect::<HashSet<_>>().len() < DIFFERENT_MIN {
            return;
        }
        let list = format!("{piece:?}");
        let list = list.trim_matches(['[', ']']).to_owned();
        let mut spellings = vec![piece.to_vec(), hex::encode(piece).into(), hex::encode_upper(piece).into()];
        spellings.extend([list.replace(' ', "").into(), list.replace(' ', "\n    ").into(), list.into()]);
        // Base64 of a piece depends on what stands before it, and its ends on their neighbours.
        for before in 0..3 {
            let shifted = [&[0; 3][..before], piece].concat();
            let whole = shifted.len() / 3 * 4;
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                spellings.push(text.as_bytes()[[0, 2, 3][before]..whole].to_vec());
            }
        }
        for spelling in spellings {
            if self.known.insert(spelling.clone()) {
                let (beginning, rest) = spelling.split_first_chunk().expect("a piece has more bytes than a beginning");
                self.spellings.entry(*beginning).or_default().push((rest.to_vec(), self.names.len() - 1));
            }
        }
    }

    /// The name of a secret that stands in these bytes.
    #[must_use]
    pub fn told_by(&self, bytes: &[u8]) -> Option<&str> {
        bytes.windows(BEGINNING).enumerate().find_map(|(at, beginning)| {
            let possible = self.spellings.get(beginning)?;
            let tail = &bytes[at + BEGINNING..];
            let (_, which) = possible.iter().find(|(rest, _)| tail.starts_with(rest))?;
            self.names.get(*which).map(String::as_str)
        })
    }

    /// How many secrets there are.
    #[must_use]
    pub fn number(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    /// Bytes of which base64 uses all its letters.
    fn secret() -> Vec<u8> {
        (0..48_u8).map(|i| i.wrapping_mul(91) ^ 0xfb).collect()
    }

    #[test]
    fn a_secret_is_found_in_every_spelling_and_wherever_it_stands() {
        let mut secrets = Secrets::default();
        secrets.add("a share", &secret()).expect("a secret");
        let bytes = secret();
        let lengthened = |before: usize| [&vec![7; before][..], &bytes, b"after"].concat();
        for text in [
            bytes.clone(),
            bytes[9..9 + 2 * PIECE - 1].to_vec(),
            bytes.iter().rev().copied().collect(),
            hex::encode(&bytes).into(),
            hex::encode_upper(&bytes).into(),
            format!("{bytes:?}").into(),
            format!("{bytes:#?}").into(),
            serde_json::to_vec(&bytes).expect("JSON"),
            STANDARD.encode(lengthened(0)).into(),
            STANDARD.encode(lengthened(1)).into(),
            URL_SAFE.encode(lengthened(2)).into(),
        ] {
            let told = [b"2026 INFO said ", &text[..], b" and went on"].concat();
            assert_eq!(secrets.told_by(&told), Some("a share"), "{}", String::from_utf8_lossy(&told));
        }
        assert_eq!(secrets.told_by(&bytes[..PIECE - 1]), None);
        assert_eq!(secrets.told_by(b"nothing of the kind, in a line that is long enough"), None);
    }

    #[test]
    fn what_a_secret_in_hexadecimal_stands_for_is_found_too() {
        let mut secrets = Secrets::default();
        secrets.add("a key", hex::encode(secret()).as_bytes()).expect("a secret");
        assert_eq!(secrets.told_by(&secret()), Some("a key"));
        assert_eq!(secrets.told_by(hex::encode(secret()).as_bytes()), Some("a key"));
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused() {
        assert!(Secrets::default().add("a password", b"short").is_err());
        assert!(Secrets::default().add("zeros", &[0; 64]).is_err());
    }
}

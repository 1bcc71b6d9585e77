//! Who answered: the nodes' signatures over a result, and how many of them a client wants to see.
//!
//! A node signs the result document without its `attestations`, under a domain tag, with its identity key. Invariant:
//! what [`Attesters`] let pass was signed by as many *different* nodes of their list as their owner demands.
//!
//! How many? Fewer than `t` nodes together can neither sign nor learn a key, so whoever controls fewer than `t` can make
//! fewer than `t` attestations: **`t` of them hold at least one honest node's**, under exactly the assumption on which
//! the keys rest. A signature carries those of its `t` signers, a new wallet those of all `n` members. An error carries
//! that of the node which gave up, and errors that follow from the request alone carry none.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signature, VerifyingKey};

use crate::{
    gojson::{self, Value},
    memory::{Scheme, or_remembered},
    result::{Attestation, KeygenResult, ReshareResult, SigningResult},
};

/// Begins what a node signs; a zero byte and the document follow.
pub const RESULT_TAG: &str = "mpcium/1 result";
/// Bytes of a peers or identity file that are read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What nodes sign for a document: the tag, a zero byte, the document.
#[must_use]
pub fn signed_bytes(document: &[u8]) -> Vec<u8> {
    [RESULT_TAG.as_bytes(), &[0], document].concat()
}

/// The nodes of a cluster, and how many must have signed an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attesters {
    keys: BTreeMap<String, VerifyingKey>,
    for_success: usize,
    for_error: usize,
}

/// Why the nodes of a cluster cannot be read, or a demand cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttestersError {
    /// A file cannot be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A file does not hold what it should.
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// More signatures are demanded than there are nodes, or none.
    Count {
        /// How many are demanded.
        demanded: usize,
        /// How many nodes there are.
        nodes: usize,
    },
}

impl std::fmt::Display for AttestersError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, problem } => write!(f, "{} cannot be read: {problem}", path.display()),
            Self::Content { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Count { demanded, nodes } => {
                write!(f, "{demanded} attestations are demanded of {nodes} nodes, expected 1 to {nodes}")
            }
        }
    }
}

impl std::error::Error for AttestersError {}

/// An answer that too few nodes have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAttested {
    /// Different nodes of the list whose signature is good.
    pub good: usize,
    /// How many are demanded.
    pub demanded: usize,
    /// Ids in the answer that are not on the list, appear twice, or have not signed this.
    pub refused: Vec<String>,
}

impl std::fmt::Display for NotAttested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer is signed by {} nodes, expected {}", self.good, self.demanded)?;
        if !self.refused.is_empty() {
            write!(f, "; not by {}", self.refused.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for NotAttested {}

impl Attesters {
    /// From the nodes' UUIDs and identity keys. `for_success` should be the number of nodes that sign together, `t`.
    ///
    /// # Errors
    /// If `for_success` is 0 or more than there are nodes.
    pub fn new(
        keys: impl IntoIterator<Item = (String, VerifyingKey)>,
        for_success: usize,
    ) -> Result<Self, AttestersError> {
        let keys: BTreeMap<_, _> = keys.into_iter().map(|(id, key)| (id.to_lowercase(), key)).collect();
        let nodes = keys.len();
        if for_success == 0 || for_success > nodes {
            return Err(AttestersError::Count { demanded: for_success, nodes });
        }
        Ok(Self { keys, for_success, for_error: 1 })
    }

    /// From the files that operators have: `peers.json` and the folder with the identity files of all nodes in it.
    ///
    /// # Errors
    /// If a file cannot be read or does not fit, or as [`Attesters::new`].
    pub fn read(peers: &Path, identities: &Path, for_success: usize) -> Result<Self, AttestersError> {
        let content = |path: &Path, problem: String| AttestersError::Content { path: path.to_owned(), problem };
        let mut keys = Vec::new();
        for (name, id) in texts(peers)? {
            let path = identities.join(format!("{name}_identity.json"));
            let members = texts(&path)?;
            let member = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
            match member("node_id") {
                Some(text) if text == id => {}
                Some(other) => return Err(content(&path, format!("node_id is {other}, expected {id}"))),
                None => return Err(content(&path, format!("node_id is missing, expected {id}"))),
            }
            let mut bytes = [0; 32];
            let key = hex::decode_to_slice(member("public_key").unwrap_or_default(), &mut bytes)
                .ok()
                .and_then(|()| VerifyingKey::from_bytes(&bytes).ok())
                .ok_or_else(|| content(&path, "public_key is no Ed25519 key of 64 hexadecimal digits".to_owned()))?;
            keys.push((id, key));
        }
        Self::new(keys, for_success)
    }

    /// Takes errors that so many nodes signed, instead of one. No error carries more than one today.
    #[must_use]
    pub fn errors_need(mut self, count: usize) -> Self {
        self.for_error = count;
        self
    }

    /// The nodes' UUIDs, in lower case.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// How many must have signed a success.
    #[must_use]
    pub const fn for_success(&self) -> usize {
        self.for_success
    }

    /// Checks a result.
    ///
    /// # Errors
    /// If too few nodes have signed it.
    pub fn check(&self, result: &impl Attested) -> Result<(), NotAttested> {
        let demanded = if result.succeeded() { self.for_success } else { self.for_error };
        self.check_document(&result.attested_document(), result.attestations(), demanded)
    }

    /// Checks that `demanded` different nodes have signed a document.
    ///
    /// # Errors
    /// If too few have.
    pub fn check_document(
        &self,
        document: &[u8],
        attestations: &[Attestation],
        demanded: usize,
    ) -> Result<(), NotAttested> {
        let message = signed_bytes(document);
        let (mut good, mut refused) = (BTreeSet::new(), Vec::new());
        // A forger could make the check as long as he likes.
        for item in attestations.iter().take(2 * self.keys.len()) {
            let id = item.node_id.to_lowercase();
            let signed = self.keys.get(&id).is_some_and(|key| {
                or_remembered(Scheme::Node, key.as_bytes(), &message, &item.signature, || {
                    Signature::from_slice(&item.signature).is_ok_and(|s| key.verify_strict(&message, &s).is_ok())
                })
            });
            if !signed || !good.insert(id) {
                refused.push(item.node_id.chars().take(64).collect());
            }
        }
        if good.len() < demanded { Err(NotAttested { good: good.len(), demanded, refused }) } else { Ok(()) }
    }
}

/// A result that nodes sign.
pub trait Attested {
    /// Whether the request succeeded.
    fn succeeded(&self) -> bool;
    /// The document that is signed.
    fn attested_document(&self) -> Vec<u8>;
    /// The signatures.
    fn attestations(&self) -> &[Attestation];
}

macro_rules! attested {
    ($($result:ident),*) => {$(
        impl Attested for $result {
            fn succeeded(&self) -> bool {
                self.is_success()
            }

            fn attested_document(&self) -> Vec<u8> {
                self.attested_bytes()
            }

            fn attestations(&self) -> &[Attestation] {
                self.attestations.as_deref().unwrap_or_default()
            }
        }
    )*};
}

attested!(KeygenResult, SigningResult, ReshareResult);

/// The text members of a JSON object in a file.
fn texts(path: &Path) -> Result<Vec<(String, String)>, AttestersError> {
    use std::io::Read as _;
    let file = |error: std::io::Error| AttestersError::File { path: path.to_owned(), problem: error.to_string() };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(file)?;
    match gojson::parse(&bytes) {
        Ok(Value::Object(members)) => Ok(members
            .into_iter()
            .filter_map(|(name, value)| match value {
                Value::String(text) => Some((name, text)),
                _ => None,
            })
            .collect()),
        Ok(other) => Err(AttestersError::Content {
            path: path.to_owned(),
            problem: format!("expected an object, got {}", other.kind()),
        }),
        Err(error) => Err(AttestersError::Content { path: path.to_owned(), problem: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::ErrorCode;

    fn node(n: u8) -> (String, SigningKey) {
        (format!("000000{n:02x}-0000-4000-8000-0000000000ab"), SigningKey::from_bytes(&[n; 32]))
    }

    fn cluster(for_success: usize) -> Attesters {
        let keys = (1..=3).map(node).map(|(id, key)| (id, key.verifying_key()));
        Attesters::new(keys, for_success).unwrap()
    }

    fn result(by: &[u8]) -> SigningResult {
        let mut result = SigningResult::success_eddsa("net", "w", "t", &[7; 64]);
        let message = signed_bytes(&result.attested_bytes());
        let sign = |n: &u8| {
            let (node_id, key) = node(*n);
            Attestation { node_id, signature: key.sign(&message).to_bytes().to_vec() }
        };
        result.attestations = Some(by.iter().map(sign).collect());
        result
    }

    #[test]
    fn as_many_different_nodes_as_demanded_must_have_signed() {
        assert_eq!(cluster(2).check(&result(&[1, 3])), Ok(()));
        assert_eq!(cluster(2).check(&result(&[1, 2, 3])), Ok(()));
        let mut upper = result(&[1, 2]);
        upper.attestations.as_mut().unwrap()[0].node_id.make_ascii_uppercase();
        assert_eq!(cluster(2).check(&upper), Ok(()));
        for (by, good) in [(&[][..], 0), (&[1], 1), (&[1, 1], 1), (&[1, 9], 1), (&[8, 9], 0)] {
            let error = cluster(2).check(&result(by)).unwrap_err();
            assert_eq!((error.good, error.demanded), (good, 2), "{by:?}");
        }
        let mut none = result(&[1, 2]);
        none.attestations = None;
        assert!(cluster(1).check(&none).is_err());
    }

    #[test]
    fn a_changed_document_or_signature_is_refused() {
        let mut changed = result(&[1, 2]);
        changed.wallet_id.push('x');
        assert_eq!(cluster(2).check(&changed).unwrap_err().good, 0);
        let mut changed = result(&[1, 2]);
        changed.attestations.as_mut().unwrap()[1].signature[3] ^= 1;
        let error = cluster(2).check(&changed).unwrap_err();
        assert_eq!((error.good, error.refused), (1, vec![node(2).0]));
        let mut swapped = result(&[1, 2]);
        let items = swapped.attestations.as_mut().unwrap();
        let first = items[0].signature.clone();
        items[0].signature = std::mem::replace(&mut items[1].signature, first);
        assert_eq!(cluster(2).check(&swapped).unwrap_err().good, 0);
    }

    #[test]
    fn an_error_needs_one_node_and_is_no_success_by_that() {
        let mut error = SigningResult::error("net", "w", "t", ErrorCode::KeyNotFound, "none");
        assert!(cluster(2).check(&error).is_err());
        let (node_id, key) = node(2);
        let signature = key.sign(&signed_bytes(&error.attested_bytes())).to_bytes().to_vec();
        error.attestations = Some(vec![Attestation { node_id, signature }]);
        assert_eq!(cluster(2).check(&error), Ok(()));
        assert!(cluster(2).errors_need(2).check(&error).is_err());
        error.result_type = crate::result::ResultType::Success;
        assert!(cluster(2).check(&error).is_err());
    }

    #[test]
    fn demands_that_no_answer_can_meet_are_refused() {
        for demanded in [0, 4] {
            let keys = (1..=3).map(node).map(|(id, key)| (id, key.verifying_key()));
            assert_eq!(Attesters::new(keys, demanded), Err(AttestersError::Count { demanded, nodes: 3 }));
        }
    }

    #[test]
    fn nodes_are_read_from_the_operators_files() {
        let folder = tempfile::tempdir().unwrap();
        let peers = folder.path().join("peers.json");
        let mut names = Vec::new();
        for n in 1..=3 {
            let (id, key) = node(n);
            let public = hex::encode(key.verifying_key().as_bytes());
            let text =
                format!(r#"{{"node_name":"node{n}","node_id":"{id}","public_key":"{public}","created_at":"x"}}"#);
            std::fs::write(folder.path().join(format!("node{n}_identity.json")), text).unwrap();
            names.push(format!(r#""node{n}":"{id}""#));
        }
        std::fs::write(&peers, format!("{{{}}}", names.join(","))).unwrap();
        assert_eq!(Attesters::read(&peers, folder.path(), 2), Ok(cluster(2)));
        std::fs::write(folder.path().join("node2_identity.json"), r#"{"node_id":"other"}"#).unwrap();
        assert!(matches!(Attesters::read(&peers, folder.path(), 2), Err(AttestersError::Content { .. })));
        std::fs::remove_file(folder.path().join("node2_identity.json")).unwrap();
        assert!(matches!(Attesters::read(&peers, folder.path(), 2), Err(AttestersError::File { .. })));
    }
}

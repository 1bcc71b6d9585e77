//! Every decoder of bytes that a peer, a bus or a disk hands to core, as a check: what fuzzers and property tests drive.
//!
//! Messages travel inside links and records inside a sealed store, so most of these decoders are private. Here each is a
//! function that reads bytes and says whether they were understood; it has no other effect. Reading must not panic
//! whatever the bytes are.
//!
//! Everything that core encodes with postcard it reads with [`exact`]: stored records and what peers say.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Secret, auxiliary, link, message,
    node::records,
    request::{ledger, signing},
    wallet::{Activated, Certificate, Prepared, Promised, Refused, Value, Vote, activation},
};

/// A decoder: its name, and the check.
pub type Decoder = (&'static str, fn(&[u8]) -> bool);

/// All of them. Records and links, which can be read in public, are in [`wallet`](crate::wallet) and
/// [`link`](crate::link) besides.
pub const DECODERS: &[Decoder] = &[
    ("handshake", link::reads_handshake),
    ("frame", link::reads_frames),
    ("message", message),
    ("proposal", proposal),
    ("statement", statement),
    ("certificate", certificate),
    ("auxiliary_record", auxiliary::reads_stored),
    ("ledger_record", ledger::reads_result),
    ("verdict_record", ledger::reads_verdict),
    ("commits_record", records::reads_commits),
    ("start_record", records::reads_start),
    ("mark_record", records::reads_mark),
];

/// Reads bytes that are exactly one value, in its one encoding: nothing follows it, and no number is longer than it must
/// be. So two different messages or records never mean the same.
pub(crate) fn exact<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = postcard::from_bytes(bytes).ok()?;
    // The second encoding may hold a share, so it is erased like one.
    (Secret::new(encode(&value)).expose() == bytes).then_some(value)
}

/// Encodes into exactly enough memory, so that a growing buffer leaves no copies of secrets behind.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let size = postcard::experimental::serialized_size(value).expect("plain data always has a size");
    postcard::to_extend(value, Vec::with_capacity(size)).expect("plain data always encodes into memory")
}

fn reads<T: Serialize + DeserializeOwned>(bytes: &[u8], use_it: impl FnOnce(&T)) -> bool {
    exact(bytes).as_ref().map(use_it).is_some()
}

fn message(bytes: &[u8]) -> bool {
    message::Message::decode(bytes).is_some()
}

fn proposal(bytes: &[u8]) -> bool {
    let signing = reads(bytes, |proposal: &signing::Proposal| {
        let _ = (proposal.session(), proposal.execution_id("suite", &[2; 33], &[]));
    });
    let wallet = reads(bytes, |proposal: &activation::Proposal| {
        let _ = proposal.session();
    });
    let presigning = reads::<signing::presignatures::Proposal>(bytes, |_| {});
    reads::<auxiliary::Proposal>(bytes, |_| {}) || wallet || signing || presigning
}

/// Whose signatures are worth something is the business of `fuzz`, which knows the keys.
fn statement(bytes: &[u8]) -> bool {
    reads::<Prepared>(bytes, |_| {})
        || reads::<Promised>(bytes, |_| {})
        || reads::<Vote>(bytes, |_| {})
        || reads::<Refused>(bytes, |_| {})
        || reads::<Activated>(bytes, |_| {})
}

fn certificate(bytes: &[u8]) -> bool {
    let certificate = reads(bytes, |certificate: &Certificate| {
        let _ = (certificate.check(), certificate.hash());
    });
    let value = reads(bytes, |value: &Value| {
        let _ = (value.check(), value.hash());
    });
    certificate || value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_have_different_names() {
        let names: std::collections::BTreeSet<&str> = DECODERS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), DECODERS.len());
    }

    #[test]
    fn what_nodes_write_is_understood_and_nothing_is_understood_of_nothing() {
        let state = auxiliary::Message::State {
            has_ingredient: true,
            sets: vec![[7; 32]],
            agreed: Vec::new(),
            pairs: Vec::new(),
            banned: Vec::new(),
        };
        let message = message::Message::Auxiliary(state).encode();
        assert!(super::message(&message));
        assert!(!super::message(&[&message[..], &[0]].concat()), "something follows the message");
        for (name, decoder) in DECODERS {
            // A packet without frames is empty.
            assert_eq!(decoder(&[]), *name == "frame", "{name}");
        }
    }
}

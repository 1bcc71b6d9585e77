//! Every decoder of bytes that a peer, a bus or a disk hands to core, as a check: what fuzzers and property tests drive.
//!
//! Messages travel inside links and records inside a sealed store, so most of these decoders are private. Here each is a
//! function that reads bytes and says whether they were understood; it has no other effect. Reading must not panic
//! whatever the bytes are, and what was read must be written and read again as the same; a decoder that breaks that
//! panics here.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    NodeId, Secret, auxiliary, link, message,
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
];

/// Whether a value is written and read again as the same bytes.
pub(crate) fn same_again<T: Serialize + DeserializeOwned>(value: &T) -> bool {
    // May hold a share.
    let bytes = Secret::new(postcard::to_stdvec(value).expect("what was read is plain data"));
    let again: T = postcard::from_bytes(bytes.expose()).expect("what was written is read");
    let twice = Secret::new(postcard::to_stdvec(&again).expect("what was read is plain data"));
    assert!(bytes == twice, "a value changes when it is written and read");
    true
}

fn reads<T: Serialize + DeserializeOwned>(bytes: &[u8], use_it: impl FnOnce(&T)) -> bool {
    postcard::from_bytes(bytes).is_ok_and(|value: T| {
        use_it(&value);
        same_again(&value)
    })
}

fn message(bytes: &[u8]) -> bool {
    message::Message::decode(bytes).is_some_and(|message| same_again(&message))
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

/// Nobody's signature is known, so every statement must be refused, and none may be believed.
fn statement(bytes: &[u8]) -> bool {
    let nobody = |_: NodeId| None;
    let known = [
        reads(bytes, |statement: &Prepared| assert!(statement.verify(&nobody).is_err())),
        reads(bytes, |statement: &Promised| assert!(statement.verify(&nobody).is_err())),
        reads(bytes, |statement: &Vote| assert!(statement.verify(&nobody).is_err())),
        reads(bytes, |statement: &Refused| assert!(statement.verify(&nobody).is_err())),
        reads(bytes, |statement: &Activated| assert!(statement.verify(&nobody).is_err())),
    ];
    known.contains(&true)
}

fn certificate(bytes: &[u8]) -> bool {
    let nobody = |_: NodeId| None;
    let certificate = reads(bytes, |certificate: &Certificate| {
        let _ = (certificate.check(), certificate.hash());
        assert!(certificate.verify(None, &nobody).is_err(), "a certificate that nobody signed");
    });
    let value = reads(bytes, |value: &Value| {
        let _ = (value.check(), value.hash());
        assert!(value.verify(None, &nobody).is_err(), "a value that nobody prepared");
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

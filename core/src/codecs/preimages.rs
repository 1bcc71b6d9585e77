//! No two kinds of what a node's identity signs or seals share a preimage.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::{
    query::WalletReply,
    result::{KeygenResult, ReshareResult, ResultType, SigningResult},
};

use super::drawn;
use crate::{
    Identity, Incarnation, NodeId, auxiliary,
    identity::SIGNED,
    link::{self, Mark},
    tags,
    wallet::{Activated, Prepared, Promised, Refused, Vote},
};

/// Whatever is signed or sealed meanwhile.
fn signed<T>(what: impl FnOnce() -> T) -> Vec<Vec<u8>> {
    SIGNED.take();
    what();
    SIGNED.take()
}

/// What cannot be the same of two preimages that are the same: the tag, and what differs within it from kind to kind.
fn domain(preimage: &[u8]) -> String {
    let end = preimage.iter().position(|byte| *byte == 0).expect("a tag ends with a zero byte");
    let (tag, body) = (String::from_utf8_lossy(&preimage[..end]).into_owned(), &preimage[end + 1..]);
    if tag == tags::HANDSHAKE.text() {
        // Who speaks.
        format!("{tag} {}", char::from(body[0]))
    } else if tag == tags::RESULT.text() {
        let document: BTreeMap<String, serde_json::Value> = serde_json::from_slice(body).expect("a document");
        format!("{tag} {:?}", document.keys().collect::<Vec<_>>())
    } else {
        tag
    }
}

/// Documents that are signed as results, with everything in them or only what must be.
fn results(identity: &Identity, full: bool) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let some = |length| full.then(|| vec![7; length]);
    let result_type = if full { ResultType::Success } else { ResultType::Error };
    let text = || if full { "same".to_owned() } else { String::new() };
    let sign = |document: Vec<u8>| signed(|| identity.sign(tags::RESULT, &document));
    let keygen = KeygenResult {
        wallet_id: text(),
        ecdsa_pub_key: some(64),
        eddsa_pub_key: some(32),
        result_type,
        error_reason: text(),
        error_code: text(),
        attestations: None,
    };
    let signing = SigningResult {
        result_type,
        wallet_id: text(),
        tx_id: text(),
        r: some(32),
        s: some(32),
        signature: some(64),
        ..SigningResult::default()
    };
    let reshare = ReshareResult {
        wallet_id: text(),
        pub_key: some(64),
        key_type: text(),
        result_type,
        ..ReshareResult::default()
    };
    let reply = WalletReply {
        wallet_id: text(),
        request_id: text(),
        ecdsa_pub_key: some(64),
        eddsa_pub_key: some(32),
        result_type,
        ..WalletReply::default()
    };
    vec![
        ("the answer to a key generation", sign(keygen.attested_bytes())),
        ("a signature", sign(signing.attested_bytes())),
        ("the answer to a resharing", sign(reshare.attested_bytes())),
        ("the reply to a query", sign(reply.attested_bytes())),
    ]
}

#[test]
fn no_two_kinds_of_what_nodes_sign_share_a_preimage() {
    let identity = Identity::new(NodeId::from_bytes([1; 16]), &[1; 32]);
    let mut kinds: Vec<(&str, Vec<Vec<u8>>)> = Vec::new();
    for seed in 0..50 {
        let prepared = signed(|| Prepared::sign(drawn(seed), &identity));
        kinds.push(("prepared", prepared[..1].to_vec()));
        kinds.push(("the answer to a key generation", prepared[1..].to_vec()));
        let promise: Promised = drawn(seed);
        kinds.push(("promised", signed(|| Promised::sign(promise.slot, promise.ballot, promise.votes, &identity))));
        let vote: Vote = drawn(seed);
        let sign = || Vote::sign(&vote.wallet, vote.epoch, vote.ballot, vote.value_hash, &identity);
        kinds.push(("vote", signed(sign)));
        let refused: Refused = drawn(seed);
        let Refused { wallet, epoch, session, incarnation, .. } = refused;
        kinds.push(("refused", signed(|| Refused::sign(&wallet, epoch, session, incarnation, &identity))));
        kinds.push(("activated", signed(|| Activated::sign(drawn(seed), &identity))));
        kinds.push(("an auxiliary set", signed(|| auxiliary::agree(&identity, &drawn(seed)))));
        kinds.push(("a mark", signed(|| Mark::of(&identity, Incarnation(drawn(seed)), seed))));
    }
    kinds.extend([true, false].into_iter().flat_map(|full| results(&identity, full)));
    // Marks are sealed on the way; of the rest every side signs what it says.
    let handshake = signed(link::golden);
    let spoken = handshake.into_iter().filter(|preimage| preimage.starts_with(tags::HANDSHAKE.text().as_bytes()));
    for (number, preimage) in (0..).zip(spoken) {
        kinds.push((["hello", "reply", "confirmation"][number], vec![preimage]));
    }

    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (kind, preimages) in &kinds {
        for preimage in preimages {
            let domain = domain(preimage);
            let owner = owners.entry(domain.clone()).or_insert(kind);
            assert_eq!(owner, kind, "both are signed as {domain}");
        }
    }
    let seen: BTreeSet<&str> = owners.into_values().collect();
    let all: BTreeSet<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(seen, all, "nothing was signed of some");
    assert_eq!(seen.len(), 14, "{seen:?}");
}

//! Every decoder of bytes that come from outside, as a function from bytes to nothing.
//!
//! A target may reject its input, but must not panic, and what it accepts must survive being written and read again.
//! `tests/corpus.rs` replays the seeds in `corpus/` and random bytes and mutations on the stable toolchain; `libfuzzer/`
//! drives the same functions by coverage (`make fuzz`).
#![forbid(unsafe_code)]

mod files;
pub mod rounds;
pub mod statements;

use mpcium_client::{
    Prefix, gojson,
    query::{QUERY_BYTES_MAX, WalletQuery, WalletReply},
    request::{Kind, Request},
    result::{KeygenResult, ReshareResult, SigningResult},
    subjects,
};
use mpcium_core::{
    Identity, Incarnation, NodeId, PeerInfo, Time,
    decode::{self, Decoder},
    link::{LinkConfig, Links},
    wallet::{AcceptorRecord, CertificateRecord, PendingRecord, ShareRecord, record::Stored},
};

/// A target: its name, which is its corpus folder, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("json", json),
    ("keygen_request", |bytes| request(Kind::Keygen, bytes)),
    ("sign_request", |bytes| request(Kind::Sign, bytes)),
    ("reshare_request", |bytes| request(Kind::Reshare, bytes)),
    ("result", result),
    ("wallet_query", wallet_query),
    ("wallet_reply", wallet_reply),
    ("header", header),
    ("subject_token", subject_token),
    ("prefix", prefix),
    ("datagram", datagram),
    ("handshake", |bytes| decoder("handshake", bytes)),
    ("frame", |bytes| decoder("frame", bytes)),
    ("message", |bytes| decoder("message", bytes)),
    ("proposal", |bytes| decoder("proposal", bytes)),
    ("keygen_rounds", rounds::keygen_rounds),
    ("frost_rounds", rounds::frost_rounds),
    ("dkls_setup_rounds", rounds::dkls_setup_rounds),
    ("dkls_signing_rounds", rounds::dkls_signing_rounds),
    ("statement", statements::statement),
    ("certificate", statements::certificate),
    ("auxiliary_record", |bytes| decoder("auxiliary_record", bytes)),
    ("ledger_record", |bytes| decoder("ledger_record", bytes)),
    ("verdict_record", |bytes| decoder("verdict_record", bytes)),
    ("commits_record", |bytes| decoder("commits_record", bytes)),
    ("start_record", |bytes| decoder("start_record", bytes)),
    ("mark_record", |bytes| decoder("mark_record", bytes)),
    ("pending_record", record::<PendingRecord>),
    ("acceptor_record", record::<AcceptorRecord>),
    ("certificate_record", record::<CertificateRecord>),
    ("share_record", record::<ShareRecord>),
    ("store_envelope", |bytes| decoder("store_envelope", bytes)),
    ("store_integrity", |bytes| decoder("store_integrity", bytes)),
    ("store_integrity_slot", |bytes| decoder("store_integrity_slot", bytes)),
    ("store_key_table", |bytes| decoder("store_key_table", bytes)),
    ("store_row", |bytes| decoder("store_row", bytes)),
    ("config", files::config),
    ("peers", files::peers),
    ("identity", files::identity),
    ("identity_key", files::identity_key),
    ("age_key", files::age_key),
    ("initiator_key", files::initiator_key),
    ("initiator_public_key", files::initiator_public_key),
    ("password", files::password),
    ("primes", files::primes),
];

/// What reads the records that nodes keep and whose formats are public; for the others see [`decode::DECODERS`].
static RECORDS: [Decoder; 4] = [
    ("pending_record", |bytes| PendingRecord::decode(bytes).is_ok()),
    ("acceptor_record", |bytes| AcceptorRecord::decode(bytes).is_ok()),
    ("certificate_record", |bytes| CertificateRecord::decode(bytes).is_ok()),
    ("share_record", |bytes| ShareRecord::decode(bytes).is_ok()),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Everything that can say whether it understands bytes: of core, of the store, and of the records above.
pub fn decoders() -> impl Iterator<Item = &'static Decoder> {
    decode::DECODERS.iter().chain(mpcium_io::fjall::decode::DECODERS).chain(&RECORDS)
}

/// A private decoder of core or of the store.
fn decoder(name: &str, bytes: &[u8]) {
    match decoders().find(|(known, _)| *known == name) {
        // Understood or not; nothing else.
        Some((_, decoder)) => drop(decoder(bytes)),
        None => panic!("there is no decoder called {name}"),
    }
}

fn wallet_query(bytes: &[u8]) {
    let Ok(query) = WalletQuery::from_json(bytes) else { return };
    let document = query.to_json();
    // Escapes may make it longer than it came.
    if document.len() <= QUERY_BYTES_MAX {
        let again = WalletQuery::from_json(&document);
        assert_eq!(again.as_ref(), Ok(&query), "what was written is read");
        assert_eq!(
            again.map(|again| again.signed_bytes()),
            Ok(query.signed_bytes()),
            "the signed bytes change on the way"
        );
    }
    // May refuse, must not panic.
    let _ = query.validate();
}

fn wallet_reply(bytes: &[u8]) {
    let Ok(reply) = WalletReply::from_json(bytes) else { return };
    let again = WalletReply::from_json(&reply.to_json());
    assert_eq!(
        again.map(|again| again.attested_bytes()),
        Ok(reply.attested_bytes()),
        "the signed bytes change on the way"
    );
    let _ = reply.wallet_document();
}

/// Names stay names with a prefix before them, and two clusters never share one.
fn prefix(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(prefix) = Prefix::parse(text) else { return };
    assert_eq!(prefix.as_str(), text);
    let (subject, stream) = (prefix.subject("mpc.wallet_query"), prefix.stream("mpc"));
    assert!(subject.split('.').all(|token| !token.is_empty()), "{subject:?} has an empty token");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    assert!(subject.chars().all(plain) && stream.chars().all(plain) && !stream.contains('.'), "{subject:?} {stream:?}");
    assert_eq!(stream.strip_suffix("-mpc").map_or_else(String::new, |name| name.replace("--", ".")), text);
}

/// Whatever a client claims to be, subjects stay subjects and two clients never share one.
fn header(bytes: &[u8]) {
    let Ok(client) = std::str::from_utf8(bytes) else { return };
    for kind in [Kind::Keygen, Kind::Sign, Kind::Reshare] {
        let subject = subjects::result_subject(kind, Some(client), "id");
        let tokens: Vec<&str> = subject.split('.').collect();
        assert!(tokens.iter().all(|token| !token.is_empty()), "{subject:?} has an empty token");
        assert!(!subject.contains(['*', '>', ' ', '\t', '\r', '\n', '\0']), "{subject:?}");
        let durable = subjects::result_durable(kind, Some(client));
        assert!(!durable.contains(['.', '*', '>', ' ']), "{durable:?}");
        let dedup = subjects::dedup_id(kind, "id", Some(client), "stream", 1, 2);
        assert!(!dedup.contains(['\r', '\n', '\0']), "{dedup:?} ends a header early");
        if subjects::check_client_id(client).is_ok() {
            assert_ne!(subject, subjects::result_subject(kind, None, "id"), "the subject of those without a name");
            assert!(!durable.contains(['\t', '\r', '\n', '\0']), "{durable:?}");
        }
    }
}

fn json(bytes: &[u8]) {
    // Accepted or refused with a reason; nothing else.
    let _ = gojson::parse(bytes);
}

/// What is accepted has a canonical form that is stable under sending and receiving.
fn request(kind: Kind, bytes: &[u8]) {
    let Ok(request) = Request::decode(kind, bytes) else { return };
    let again = Request::decode(kind, &request.to_json()).expect("what was written is read");
    assert_eq!(again.canonical(), request.canonical(), "the signed bytes change on the way");
    assert_eq!(again.payload_bytes(), request.payload_bytes());
    // May refuse, must not panic.
    let _ = request.validate();
}

fn result(bytes: &[u8]) {
    if let Ok(result) = KeygenResult::from_json(bytes) {
        assert_eq!(KeygenResult::from_json(&result.to_json()).as_ref(), Ok(&result));
    }
    if let Ok(result) = SigningResult::from_json(bytes) {
        assert_eq!(SigningResult::from_json(&result.to_json()).as_ref(), Ok(&result));
    }
    if let Ok(result) = ReshareResult::from_json(bytes) {
        assert_eq!(ReshareResult::from_json(&result.to_json()).as_ref(), Ok(&result));
    }
}

/// Escaping is injective and leaves no character that a subject cannot hold.
fn subject_token(bytes: &[u8]) {
    let Ok(id) = std::str::from_utf8(bytes) else { return };
    let token = subjects::escape_token(id);
    assert!(!token.contains(['.', '*', '>', ' ', '\t', '\r', '\n']), "{token:?}");
    assert_eq!(subjects::unescape_token(&token).as_deref(), Some(id));
}

/// The links of one of two nodes; target *datagram* drives those of the first.
#[must_use]
pub fn links(at: usize) -> Links {
    let ids = [NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16])];
    let (seed, incarnation) = ([[1; 32], [2; 32]], [[7; 16], [8; 16]]);
    let peers: Vec<PeerInfo> = ids
        .iter()
        .zip(&seed)
        .map(|(id, seed)| PeerInfo { id: *id, name: id.to_string(), key: Identity::new(*id, seed).public() })
        .collect();
    Links::new(
        LinkConfig {
            identity: Identity::new(ids[at], &seed[at]),
            peers,
            facets: vec![("threshold".to_owned(), "2".to_owned())],
            incarnation: Incarnation(incarnation[at]),
            found: 0,
            commits: 1,
            history: Default::default(),
            remembered: Default::default(),
            seed: [3; 32],
        },
        Time(0),
    )
}

/// Links take any bytes, in any state that a handful of them can bring about.
fn datagram(bytes: &[u8]) {
    let mut links = links(0);
    // One datagram after another, cut where the input says.
    let mut rest = bytes;
    let mut now = 0;
    while let Some((&length, tail)) = rest.split_first() {
        let (datagram, tail) = tail.split_at(usize::from(length).min(tail.len()));
        now += 1000;
        links.handle_datagram(Time(now), datagram);
        while links.poll().is_some() {}
        rest = tail;
    }
    links.handle_datagram(Time(now + 1000), bytes);
    while links.poll().is_some() {}
}

/// A record that is read is written to the same bytes, or to those of a newer schema version, which begin with its
/// number.
fn record<R: Stored>(bytes: &[u8]) {
    let Ok(record) = R::decode(bytes) else { return };
    let newest = record.encode();
    if newest.first() == bytes.first() {
        assert_eq!(newest, bytes, "{} has two encodings", R::WHAT);
    }
    let again = R::decode(&newest).map(|record| record.encode());
    assert_eq!(again.as_ref(), Ok(&newest), "{} does not come back", R::WHAT);
}

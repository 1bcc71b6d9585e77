//! Every decoder of bytes that come from outside, as a function from bytes to nothing.
//!
//! A target may reject its input, but must not panic, and what it accepts must survive being written and read again.
//! `tests/corpus.rs` replays the seeds in `corpus/` and random bytes and mutations on the stable toolchain; a
//! coverage-guided fuzzer can drive the same functions.
#![forbid(unsafe_code)]

use mpcium_client::{
    gojson,
    request::{Kind, Request},
    result::{KeygenResult, ReshareResult, SigningResult},
    subjects,
};
use mpcium_core::{
    Identity, Incarnation, NodeId, PeerInfo, Time,
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
    ("subject_token", subject_token),
    ("datagram", datagram),
    ("pending_record", record::<PendingRecord>),
    ("acceptor_record", record::<AcceptorRecord>),
    ("certificate_record", record::<CertificateRecord>),
    ("share_record", record::<ShareRecord>),
];

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

/// Links take any bytes, in any state that a handful of them can bring about.
fn datagram(bytes: &[u8]) {
    let ids = [NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16])];
    let peers: Vec<PeerInfo> = ids
        .iter()
        .zip([[1; 32], [2; 32]])
        .map(|(id, seed)| PeerInfo { id: *id, name: id.to_string(), key: Identity::new(*id, &seed).public() })
        .collect();
    let mut links = Links::new(
        LinkConfig {
            identity: Identity::new(ids[0], &[1; 32]),
            peers,
            facets: vec![("threshold".to_owned(), "2".to_owned())],
            incarnation: Incarnation([7; 16]),
            history: Default::default(),
            remembered: Default::default(),
            seed: [3; 32],
        },
        Time(0),
    );
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

/// A record that is read is written to the same bytes.
fn record<R: Stored>(bytes: &[u8]) {
    if let Ok(record) = R::decode(bytes) {
        assert_eq!(record.encode(), bytes, "{} has two encodings", R::WHAT);
    }
}

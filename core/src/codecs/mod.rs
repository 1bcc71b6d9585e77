//! What holds for every encoding of what peers say and nodes keep: values come back as they were, there is one encoding
//! of each, and the bytes stay what they are (`golden.txt`).

mod draw;
mod preimages;

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use draw::drawn;

use crate::{
    Identity, Incarnation, NodeId, PeerInfo, WallTime, auxiliary,
    committee::Committee,
    decode::{encode, exact},
    link::{self, Mark, Start},
    message::{Message, SessionMessage},
    node::records,
    request::{
        answers::Attempt,
        ledger,
        signing::{self, presignatures},
    },
    session::{Participant, SessionId},
    store::Batch,
    wallet::{
        Activated, Certificate, Prepared, Promised, Refused, Value, Vote,
        activation::{self, Message as WalletMessage},
    },
};

/// An encoding: its name, a drawn value's bytes, and what is read of bytes and written again.
pub(crate) type Codec = (&'static str, fn(u64) -> Vec<u8>, fn(&[u8]) -> Option<Vec<u8>>);

/// The encoding of a type that is read with [`exact`].
pub(crate) const fn codec<T: Serialize + DeserializeOwned>(name: &'static str) -> Codec {
    (name, |seed| encode(&drawn::<T>(seed)), |bytes| exact::<T>(bytes).as_ref().map(encode))
}

fn codecs() -> Vec<Codec> {
    let message: Codec =
        ("message", |seed| drawn::<Message>(seed).encode(), |bytes| Message::decode(bytes).map(|read| read.encode()));
    let mut codecs = vec![
        message,
        codec::<signing::Proposal>("signing proposal"),
        codec::<activation::Proposal>("wallet proposal"),
        codec::<presignatures::Proposal>("presigning proposal"),
        codec::<auxiliary::Proposal>("auxiliary proposal"),
        codec::<Prepared>("prepared"),
        codec::<Promised>("promised"),
        codec::<Vote>("vote"),
        codec::<Refused>("refused"),
        codec::<Activated>("activated"),
        codec::<Value>("value"),
        codec::<Certificate>("certificate"),
    ];
    codecs.extend(ledger::codecs());
    codecs.push(auxiliary::codec());
    codecs
}

#[test]
fn every_value_has_one_encoding() {
    for (name, draw, again) in codecs() {
        let strategy = (any::<u64>(), any::<Index>(), any::<u8>());
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        TestRunner::new(config)
            .run(&strategy, |(seed, at, more)| {
                let bytes = draw(seed);
                prop_assert_eq!(again(&bytes), Some(bytes.clone()), "a value does not come back");
                let longer = [&bytes[..], &[more]].concat();
                prop_assert_eq!(again(&longer), None, "something may follow");
                let at = at.index(bytes.len());
                prop_assert_eq!(again(&bytes[..at]), None, "the end may be missing");
                // A number with a digit more than it needs, if it is one.
                if bytes[at] < 0x80 {
                    let padded = [&bytes[..at], &[bytes[at] | 0x80, 0], &bytes[at + 1..]].concat();
                    let read = again(&padded);
                    prop_assert!(read.is_none_or(|read| read == padded), "a number may be longer than it must be");
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn participants() -> Vec<Participant> {
    (1..=2).map(|n| (NodeId::from_bytes([n; 16]), Incarnation([n + 8; 16]))).collect()
}

fn attempt() -> Attempt {
    let (coordinator, incarnation) = (NodeId::from_bytes([1; 16]), Incarnation([9; 16]));
    Attempt { number: 1_800_000_000_000, coordinator, incarnation, serial: 3 }
}

fn signing_proposal() -> signing::Proposal {
    signing::Proposal {
        request: b"{\"wallet_id\":\"w\"}".to_vec(),
        deadline: WallTime(1_800_000_030_000),
        attempt: attempt(),
        tries: 1,
        participants: participants(),
        certificate: [4; 32],
        auxiliary: vec![[5; 32]],
        deliveries: vec![[6; 32]],
        presignature: Some(SessionId([7; 32])),
        nonce: [8; 16],
    }
}

fn wallet_proposal() -> activation::Proposal {
    activation::Proposal {
        request: b"{\"wallet_id\":\"w\"}".to_vec(),
        deadline: WallTime(1_800_000_030_000),
        attempt: attempt(),
        slot: 2,
        participants: participants(),
        nonce: [8; 16],
    }
}

fn presigning_proposal() -> presignatures::Proposal {
    presignatures::Proposal {
        wallet: "w".to_owned(),
        certificate: [4; 32],
        participants: participants(),
        auxiliary: vec![[5; 32]],
        kept: vec![SessionId([7; 32])],
        nonce: [8; 16],
    }
}

/// What must stay as it is, by name.
fn golden() -> Vec<(&'static str, Vec<u8>)> {
    let (signing, wallet, presigning) = (signing_proposal(), wallet_proposal(), presigning_proposal());
    let committee = Committee { members: (1..=3).map(|n| NodeId::from_bytes([n; 16])).collect(), threshold: 2 };
    let facts = wallet.facts("w", [3; 32], committee);
    let round = SessionMessage::Round { session: SessionId([1; 32]), broadcast: true, bytes: vec![7; 200] };
    let mut batch = Batch::default();
    records::put_commits(&mut batch, 300);
    records::put_start(&mut batch, Incarnation([3; 16]), Start { found: Some(299), conceded: true });
    let identity = Identity::new(NodeId::from_bytes([1; 16]), &[1; 32]);
    let peer = PeerInfo { id: identity.id(), name: "peer".to_owned(), key: identity.public() };
    records::put_mark(&mut batch, &peer, &Mark::of(&identity, Incarnation([3; 16]), 9));
    let small = ["record of commits", "record of a start", "record of a mark"];
    let small =
        small.into_iter().zip(batch.writes).filter_map(|(name, write)| Some((name, write.value?.expose().to_vec())));
    let mut golden = vec![
        ("session of a signing", signing.session().0.to_vec()),
        ("session of a wallet", wallet.session().0.to_vec()),
        ("session of a presigning", presigning.session().0.to_vec()),
        ("execution of a signing", signing.execution_id("suite", &[2; 33], b"all fields").to_vec()),
        ("execution of a wallet", wallet.execution_id("suite", &facts).to_vec()),
        ("execution of a presigning", presigning.execution_id("suite", &[2; 33]).to_vec()),
        ("proposal of a signing", encode(&signing)),
        ("proposal of a wallet", encode(&wallet)),
        ("proposal of a presigning", encode(&presigning)),
        ("message of a round", Message::Session(round).encode()),
        ("message of a signing", Message::Signing(signing::Message::Propose(Box::new(signing))).encode()),
        ("message of a wallet", Message::Wallet(WalletMessage::Propose(Box::new(wallet))).encode()),
        ("message of a presigning", Message::Presigning(presigning).encode()),
    ];
    golden.extend(small);
    golden.extend(link::golden());
    // Drawn: another field, or one of another type, draws something else.
    golden.extend(
        codecs().into_iter().filter(|(name, ..)| name.ends_with("record")).map(|(name, draw, _)| (name, draw(2))),
    );
    golden
}

/// A change of these bytes is a change of what nodes of different versions say to each other, or find in their stores.
/// `GOLDEN=write cargo test -p mpcium-core --lib the_bytes_stay` takes the new ones.
#[test]
#[expect(clippy::disallowed_methods, reason = "whoever changes a format on purpose tells this test, and no node")]
fn the_bytes_stay_what_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/codecs/golden.txt");
    let lines: Vec<String> = golden().iter().map(|(name, bytes)| format!("{name}: {}\n", hex::encode(bytes))).collect();
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path, lines.concat()).expect("the file can be written");
    }
    let known = std::fs::read_to_string(path).expect("the file of golden bytes");
    let known: Vec<&str> = known.split_inclusive('\n').collect();
    for line in &lines {
        assert!(known.contains(&line.as_str()), "other bytes than in golden.txt:\n{line}");
    }
    assert_eq!(known.len(), lines.len(), "golden.txt holds something that is no more");
}

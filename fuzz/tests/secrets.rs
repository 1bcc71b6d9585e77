//! No secret is shown by `Debug` of anything that holds one, nor repeated by the refusal of a file that holds one.
//! What runs is watched elsewhere: `sim` looks at reports, answers and datagrams, `e2e` at the logs of real processes.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use mpcium_client::{auth::Algorithm, signer::LocalSigner};
use mpcium_core::{
    Identity, Incarnation, Input, NodeId, Output, Secret, Time,
    link::{LinkConfig, Links},
    output::{LoadId, PersistId},
    protocol::{
        AuxiliarySet, AuxiliaryView, Computed, Curve, Done, Incoming, Job, JobId, KeyShare, Outcome, Outgoing,
        Priority, Run, Signing, Status, Step,
    },
    session::SessionId,
    store::{Batch, BootRecord, Keyspace},
    wallet::ShareRecord,
};
use mpcium_node::{
    config::{self, Reader},
    files, passwords,
    secret_text::SecretText,
};

/// Letters, so that it is recognised in text, in hexadecimal, in base64 and as a list of numbers.
const SECRET: &[u8; 32] = b"Zq7RkX2mWv9TbN4cLs8YhJ6pDf3GtQ1E";

/// The secret in every usual spelling, and its beginning, which would be too much already.
fn spellings() -> Vec<String> {
    [&SECRET[..], &SECRET[..12]]
        .into_iter()
        .flat_map(|bytes| {
            let list = format!("{bytes:?}");
            [
                String::from_utf8_lossy(bytes).into_owned(),
                hex::encode(bytes),
                hex::encode_upper(bytes),
                STANDARD_NO_PAD.encode(bytes),
                list.trim_matches(['[', ']']).to_owned(),
            ]
        })
        .collect()
}

fn tells(text: &str) -> bool {
    // As `{:#?}` writes lists, too.
    let together = text.replace(['\n', ' '], "").replace(",", ", ");
    spellings().iter().any(|spelling| text.contains(spelling) || together.contains(spelling))
}

fn share() -> KeyShare {
    KeyShare {
        curve: Curve::Ed25519,
        threshold: 2,
        index: 0,
        secret: Secret::new(SECRET.to_vec()),
        public_key: vec![1; 32],
        public_shares: vec![vec![1; 32]; 3],
        checked: mpcium_core::protocol::Checked::default(),
    }
}

fn batch() -> Batch {
    let mut batch = Batch::default();
    batch.put(Keyspace::Shares, b"name".to_vec(), SECRET.to_vec());
    batch
}

#[test]
fn what_holds_a_secret_shows_nothing_of_it() {
    let secret = || Secret::new(SECRET.to_vec());
    let id = NodeId::from_bytes([1; 16]);
    let identity = Identity::new(id, SECRET);
    let set = AuxiliarySet { secret: secret(), rows: vec![vec![1]] };
    let view = AuxiliaryView { secret: secret(), rows: vec![vec![1]], opened: None };
    let link_config = || LinkConfig {
        identity: identity.clone(),
        peers: Vec::new(),
        facets: Vec::new(),
        incarnation: Incarnation([7; 16]),
        found: 0,
        commits: 1,
        history: BTreeMap::new(),
        remembered: BTreeMap::new(),
        seed: *SECRET,
    };
    let outgoing = || Outgoing { to: Some(1), bytes: SECRET.to_vec() };
    let step = |status| Step { messages: vec![outgoing()], status };
    let job = Job {
        id: JobId(1),
        priority: Priority::Signing,
        label: "signing step",
        heavy: false,
        work: Box::new(|_| Done::Piece(Secret::new(SECRET.to_vec()))),
    };
    let signing =
        Signing { key: Arc::new(share()), signers: vec![0, 1], message: vec![1], auxiliary: vec![view.clone()] };
    let boot = BootRecord { records: vec![(Keyspace::Shares, vec![1], secret())], damage: Vec::new() };
    let done = |status| Computed { id: JobId(1), done: Done::Party(None, step(status)) };
    let shown: Vec<(&str, String)> = [
        ("Secret", format!("{0:?} {0:#?}", secret())),
        ("Identity", format!("{identity:?} {identity:#?}")),
        ("KeyShare", format!("{0:?} {0:#?}", share())),
        ("ShareRecord", format!("{:?}", ShareRecord { session: SessionId([1; 32]), share: share() })),
        ("AuxiliarySet", format!("{set:?}")),
        ("AuxiliaryView", format!("{view:?}")),
        ("Signing", format!("{signing:?}")),
        ("Run", format!("{:?}", Run { execution_id: [1; 32], index: 0, parties: 2, seed: *SECRET })),
        ("Incoming", format!("{:?}", Incoming { from: 1, broadcast: false, bytes: SECRET.to_vec() })),
        ("Outgoing", format!("{:?}", outgoing())),
        ("Outcome::Keys", format!("{:?}", Outcome::Keys(vec![share()]))),
        ("Outcome::Auxiliary", format!("{:?}", Outcome::Auxiliary(set.clone()))),
        ("Step", format!("{:?}", step(Status::Done(Outcome::Keys(vec![share()]))))),
        ("Job", format!("{job:?}")),
        ("Computed with a party's step", format!("{:?}", done(Status::Done(Outcome::Keys(vec![share()]))))),
        ("Computed with a piece", format!("{:?}", Computed { id: JobId(1), done: Done::Piece(secret()) })),
        ("Batch", format!("{0:?} {0:#?}", batch())),
        ("BootRecord", format!("{boot:?}")),
        ("Input::Loaded", format!("{:?}", Input::Loaded(LoadId(1), Some(secret())))),
        ("Input::Scanned", format!("{:?}", Input::Scanned(LoadId(1), vec![(vec![1], secret())]))),
        ("Output::Persist", format!("{:?}", Output::Persist { id: PersistId(1), batch: batch() })),
        ("LinkConfig", format!("{:?}", link_config())),
        ("Links", format!("{:?}", Links::new(link_config(), Time(0)))),
        ("LocalSigner", format!("{:?}", LocalSigner::from_seed(SECRET))),
        ("SecretText", format!("{:?}", SecretText::new(String::from_utf8_lossy(SECRET).into_owned()))),
    ]
    .into();
    for (what, text) in shown {
        assert!(!tells(&text), "`Debug` of {what} shows a secret: {text}");
    }
    // Otherwise nothing would be found in any spelling.
    for telling in [format!("{SECRET:?}"), format!("{SECRET:#?}"), hex::encode(SECRET), STANDARD_NO_PAD.encode(SECRET)]
    {
        assert!(tells(&telling), "{telling}");
    }
}

fn secret_text() -> String {
    String::from_utf8_lossy(SECRET).into_owned()
}

/// A configuration that is as it should be, but for the given lines.
fn configured(lines: &str) -> String {
    format!(
        "environment: development\nmpc_threshold: 2\nevent_initiator_algorithm: ed25519\nevent_initiator_pubkey: {}\n{lines}",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
}

#[test]
fn no_configuration_is_refused_with_a_secret_in_the_words() {
    let secret = secret_text();
    let keys = ["store_password", "badger_password", "nats.password", "consul.password", "consul.token", "chain_code"];
    let mut refused = 0;
    for key in keys {
        let (open, name) =
            key.split_once('.').map_or((String::new(), key), |(outer, name)| (format!("{outer}:\n  "), name));
        let broken = [
            format!("{open}{name}: [{secret}]"),
            format!("{open}{name}: {{a: {secret}}}"),
            format!("{open}{name}: \"{secret}"),
            format!("{open}{name}: '{secret}' more"),
            format!("{open}{name}: {secret}: more"),
            format!("{open}{name}: *{secret}"),
            format!("{open}{name}: &{secret} [a"),
            format!("{open}{name}: !{secret} a"),
            format!("{open}{name}: {secret}\n{open}{name}: {secret}2"),
            format!("{open}{name}: {secret}\nunknown_key: 1\nmpc_threshold: x"),
            format!("{open}{name}: |\n{secret}\n\t- a"),
            format!("badger_password: {secret}\nstore_password: {secret}2"),
        ];
        for lines in broken {
            let source = configured(&lines);
            let mut told = Vec::new();
            match Reader::new(Path::new("config.yaml"), &source, &|_| None) {
                Err(error) => told.push(error),
                Ok(mut reader) => {
                    told.push(format!("{reader:?} {reader:#?}"));
                    match config::settings(&mut reader) {
                        Err(errors) => {
                            refused += 1;
                            told.push(format!("{errors} {errors:?}"));
                        }
                        Ok(settings) => told.push(format!("{settings:?}")),
                    }
                    told.extend(reader.warnings().iter().map(ToString::to_string));
                }
            }
            for text in told {
                assert!(!tells(&text), "{source}\n\nis answered with\n\n{text}");
            }
        }
    }
    assert!(refused > 5, "only {refused} configurations were refused");
}

#[test]
fn no_secret_from_the_environment_is_shown() {
    let secret = secret_text();
    let variable = |name: &str| (name.contains("PASSWORD") || name.contains("TOKEN")).then(|| secret.clone());
    let mut reader = Reader::new(Path::new("config.yaml"), &configured(""), &variable).expect("YAML");
    assert!(!tells(&format!("{reader:?}")), "{reader:?}");
    match config::settings(&mut reader) {
        Ok(settings) => assert!(!tells(&format!("{settings:#?}"))),
        Err(errors) => assert!(!tells(&errors.to_string()), "{errors}"),
    }
}

#[test]
fn no_key_or_password_file_is_refused_with_its_content_in_the_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let id = NodeId::from_bytes([1; 16]);
    let me = mpcium_core::PeerInfo { id, name: "node0".to_owned(), key: Identity::new(id, &[3; 32]).public() };
    let secret = secret_text();
    let contents = [
        secret.clone().into_bytes(),
        hex::encode(SECRET).into_bytes(),
        // A whole pair, but another node's, and one whose halves do not belong together.
        hex::encode([&SECRET[..], Identity::new(id, SECRET).public().as_bytes()].concat()).into_bytes(),
        hex::encode([&SECRET[..], &SECRET[..]].concat()).into_bytes(),
        [SECRET.as_slice(), &[0xff, 0xfe]].concat(),
    ];
    for content in contents {
        std::fs::write(folder.path().join("node0_private.key"), &content).expect("a file");
        let refusal = files::read_identity(folder.path(), &me, None).expect_err("not this node's key").to_string();
        assert!(!tells(&refusal), "{refusal}");

        let password = SecretText::new(secret.clone());
        std::fs::write(folder.path().join("node0_private.key.age"), &content).expect("a file");
        let refusal =
            files::read_identity(folder.path(), &me, Some(&password)).expect_err("nothing encrypted").to_string();
        assert!(!tells(&refusal), "{refusal}");

        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            if let Err(error) = LocalSigner::parse(algorithm, &content) {
                assert!(!tells(&format!("{error} {error:?}")), "{error}");
            }
            let error = LocalSigner::parse_encrypted(algorithm, &content, &secret).expect_err("nothing encrypted");
            assert!(!tells(&format!("{error} {error:?}")), "{error}");
        }
        let path = folder.path().join("password");
        std::fs::write(&path, [content.as_slice(), &[0xff]].concat()).expect("a file");
        let refusal = passwords::from_file(&path).expect_err("no text");
        assert!(!tells(&refusal), "{refusal}");
    }
    for short in [&secret[..5], &secret[..11]] {
        let refusal = passwords::check_passphrase(short).expect_err("too short");
        assert!(!refusal.contains(short), "{refusal}");
    }
}

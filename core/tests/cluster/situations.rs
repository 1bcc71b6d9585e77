//! What clients are told, situation by situation: those in which the Go system of the same name gives an error or no
//! answer at all, with the code and the reason that this cluster gives instead. The table in `docs/client-protocol.md`
//! is made of these rows; `WRITE_DOCS=1` writes it.

use std::{fmt::Write as _, path::Path, sync::Arc};

use ed25519_dalek::SigningKey;
use mpcium_client::{
    auth::{AuthorizerKey, InitiatorKey},
    request::{AuthorizerSignature, Request, ReshareRequest},
};
use mpcium_core::{
    Config, Duration, Input, NodeId,
    input::RequestKind,
    protocol::{
        Abort, AuxiliarySuite, Curve, Incoming, KeyGeneration, Pace, Party, Run, Signing, SigningSuite, Step, Suites,
        cggmp::Cggmp, frost::Frost, keygen::DistributedKeyGeneration,
    },
    store::Keyspace,
};
use serde_json::Value;

use crate::world::{Toy, World, in_full, keygen, sign, signed};

/// A P-256 key that signs nothing here.
const P256_SPKI: &str = concat!(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515a",
    "d0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
);
const SUCCESS: &str = "";
const BEGIN: &str = "<!-- situations: written by core/tests/cluster/situations.rs -->\n";
const END: &str = "<!-- end of situations -->\n";

/// A situation, and what the client is told in it. In reasons `…` stands for any text.
struct Row {
    situation: &'static str,
    code: &'static str,
    reason: &'static str,
    run: fn() -> Value,
}

const fn row(situation: &'static str, code: &'static str, reason: &'static str, run: fn() -> Value) -> Row {
    Row { situation, code, reason, run }
}

const KEYGEN: &[Row] = &[
    row("the document is not JSON", "ERROR_UNMARSHAL_FAILURE", "invalid JSON…", || {
        garbage(RequestKind::Keygen, "{\"wallet_id\":")
    }),
    row("a member has the wrong type", "ERROR_UNMARSHAL_FAILURE", "wallet_id: …", || {
        garbage(RequestKind::Keygen, "{\"wallet_id\":7}")
    }),
    row("the wallet id is empty, too long or begins with `{`", "ERROR_MSG_VALIDATION", "wallet_id: …", || {
        first(&mut World::new(3, 2), &keygen("{w"))
    }),
    row(
        "wrong initiator signature, Ed25519",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: invalid signature from initiator",
        || first(&mut World::new(3, 2), &resigned(keygen("w"), vec![1; 64])),
    ),
    row(
        "wrong initiator signature, P-256",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: invalid signature",
        || first(&mut p256(), &keygen("w")),
    ),
    row(
        "no initiator signature",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: signature is empty",
        || first(&mut World::new(3, 2), &resigned(keygen("w"), Vec::new())),
    ),
    row(
        "an authorizer has not signed",
        "ERROR_MISSING_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: missing required authorizer signature: Alice",
        || first(&mut authorized(), &keygen("w")),
    ),
    row(
        "wrong authorizer signature",
        "ERROR_INVALID_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: authorizer Alice verification failed: …",
        || first(&mut authorized(), &approved(keygen("w"), "Alice")),
    ),
    row(
        "signature of an authorizer that is not configured",
        "ERROR_INVALID_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: authorizer eve verification failed: authorizer eve not found in cache",
        || first(&mut authorized(), &approved(approved(keygen("w"), "Alice"), "eve")),
    ),
    row("the same wallet is being created: both requests get its keys", SUCCESS, "", || {
        let mut world = World::new(3, 2);
        world.request(&keygen("w"));
        world.request(&keygen("w"));
        assert!(world.run_until(Duration::from_secs(60), |w| w.results.len() == 2), "two requests, two answers");
        assert_eq!(world.results[0].2, world.results[1].2);
        world.results[1].2.clone()
    }),
    row("the wallet exists: its keys again", SUCCESS, "", || {
        let (mut world, keys) = with_wallet();
        world.results.clear();
        let again = first(&mut world, &keygen("w"));
        assert_eq!(again, keys);
        again
    }),
    row(
        "the wallet exists, with another committee or threshold",
        "ERROR_KEY_ALREADY_EXISTS",
        "Key already exists: the wallet has another committee or threshold",
        || {
            let (mut world, _) = with_wallet();
            restart_with(&mut world, |config| config.threshold = 3);
            world.results.clear();
            first(&mut world, &keygen("w"))
        },
    ),
    row(
        "Consul's `threshold_keyinfo` knows the wallet, the store does not",
        "ERROR_KEY_ALREADY_EXISTS",
        "Key already exists: Consul's threshold_keyinfo knows the wallet … has to be migrated …",
        || {
            let mut world = World::new(3, 2);
            for node in 0..3 {
                world.give(node, Input::WalletsElsewhere(["w".to_owned()].into()));
            }
            first(&mut world, &keygen("w"))
        },
    ),
    row("a node is missing and comes before the deadline: the request waits", SUCCESS, "", || {
        let mut world = World::new(3, 2);
        world.kill(2);
        world.request(&keygen("w"));
        world.run_for(Duration::from_secs(300));
        assert!(world.results.is_empty());
        world.start(2);
        world.result("w", None)
    }),
    row(
        "a node is missing until the deadline",
        "ERROR_NETWORK_TIMEOUT",
        "the request's deadline has passed; missing: node2",
        || {
            let mut world = World::new(3, 2);
            world.kill(2);
            first(&mut world, &keygen("w"))
        },
    ),
    row(
        "two nodes do not reach each other until the deadline",
        "ERROR_NETWORK_TIMEOUT",
        "the request's deadline has passed…node…",
        || {
            let mut world = World::new(3, 2);
            world.cut.extend([(1, 2), (2, 1)]);
            first(&mut world, &keygen("w"))
        },
    ),
    row(
        "a protocol message is wrong in every attempt",
        "ERROR_NETWORK_TIMEOUT",
        "the request's deadline has passed; last attempt: …",
        || {
            let mut suites = vec![honest(), honest(), honest()];
            suites[1].keygen = Arc::new(Cheat(DistributedKeyGeneration));
            first(&mut World::with_suites(2, suites, |_| {}), &keygen("w"))
        },
    ),
    row("a node is killed in the middle and comes back: another attempt", SUCCESS, "", || {
        let mut world = World::new(3, 2);
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        world.run_for(Duration::from_millis(6));
        world.kill(2);
        world.run_for(Duration::from_secs(60));
        world.start(2);
        world.result("w", None)
    }),
    row("the request is delivered for the hundredth time", SUCCESS, "", || {
        let mut world = World::new(3, 2);
        world.request_delivered(RequestKind::Keygen, keygen("w").to_json(), 100);
        world.result("w", None)
    }),
    row(
        "the request's own expiry has passed",
        "ERROR_SESSION_STALE",
        "the request expired before it could be carried out: full_signature.expires_at is …; sign it anew",
        || first(&mut World::new(3, 2), &in_full(keygen("w"), -3_600_000, None)),
    ),
];

const SIGN: &[Row] = &[
    row("the document is not JSON", "ERROR_UNMARSHAL_FAILURE", "invalid JSON…", || garbage(RequestKind::Sign, "{")),
    row(
        "wrong initiator signature, Ed25519",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: invalid signature from initiator",
        || first(&mut World::new(3, 2), &resigned(message("t"), vec![1; 64])),
    ),
    row(
        "wrong initiator signature, P-256",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: invalid signature",
        || first(&mut p256(), &message("t")),
    ),
    row(
        "no initiator signature",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: signature is empty",
        || first(&mut World::new(3, 2), &resigned(message("t"), Vec::new())),
    ),
    row(
        "an authorizer has not signed",
        "ERROR_MISSING_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: missing required authorizer signature: Alice",
        || first(&mut authorized(), &message("t")),
    ),
    row(
        "wrong authorizer signature",
        "ERROR_INVALID_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: authorizer Alice verification failed: …",
        || first(&mut authorized(), &approved(message("t"), "Alice")),
    ),
    row("the same request again: its signature again", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        let signature = first(&mut world, &message("t"));
        world.results.clear();
        let again = first(&mut world, &message("t"));
        assert_eq!(again, signature);
        again
    }),
    row(
        "the id was used with another payload",
        "ERROR_SESSION_DUPLICATE",
        "Duplicate session: tx_id t of wallet w was used before with another payload",
        || {
            let (mut world, _) = with_wallet();
            first(&mut world, &message("t"));
            world.results.clear();
            first(&mut world, &sign("w", "ed25519", "t", b"another", &[]))
        },
    ),
    row("unknown wallet", "ERROR_KEY_NOT_FOUND", "wallet nobody does not exist", || {
        first(&mut World::new(3, 2), &sign("nobody", "ed25519", "t", b"m", &[]))
    }),
    row("unknown key type", "ERROR_MSG_VALIDATION", "key_type: unsupported key type: \"rsa\", expected …", || {
        first(&mut World::new(3, 2), &sign("w", "rsa", "t", b"m", &[]))
    }),
    row("hardened index in the path", "ERROR_MSG_VALIDATION", "derivation_path: the index 2147483648 …", || {
        first(&mut World::new(3, 2), &sign("w", "ed25519", "t", b"m", &[1 << 31]))
    }),
    row("a path, and the cluster has no chain code", "ERROR_MSG_VALIDATION", "…chain_code…", || {
        let mut world = World::with(3, 2, |config| config.chain_code = None);
        first(&mut world, &keygen("w"));
        world.results.clear();
        first(&mut world, &sign("w", "ed25519", "t", b"m", &[7]))
    }),
    row(
        "a secp256k1 digest that is not below the group order",
        "ERROR_MSG_VALIDATION",
        "tx: …below the order…",
        || first(&mut World::new(3, 2), &sign("w", "secp256k1", "t", &[0xff; 32], &[])),
    ),
    row(
        "a secp256k1 digest of more than 32 bytes",
        "ERROR_MSG_VALIDATION",
        "tx: …at most 32 bytes, got 33…",
        || first(&mut World::new(3, 2), &sign("w", "secp256k1", "t", &[1; 33], &[])),
    ),
    row("a node is missing that is not needed: the others sign", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        world.kill(1);
        first(&mut world, &message("t"))
    }),
    row("two nodes do not reach each other, and a third reaches both", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        world.cut.extend([(1, 2), (2, 1)]);
        first(&mut world, &message("t"))
    }),
    row("too few nodes can be reached, and enough come before the deadline: the request waits", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        world.kill(0);
        world.kill(1);
        world.run_for(Duration::from_secs(10));
        world.request(&message("t"));
        world.run_for(Duration::from_secs(100));
        assert!(world.results.is_empty());
        world.start(0);
        world.result("w", Some("t"))
    }),
    row(
        "too few nodes can be reached until the deadline (answered as soon as enough are there to be heard)",
        "ERROR_NETWORK_TIMEOUT",
        "the request's deadline has passed…",
        || {
            let (mut world, _) = with_wallet();
            world.kill(0);
            world.kill(1);
            world.request(&message("t"));
            world.run_for(Duration::from_secs(400));
            assert!(world.results.is_empty());
            world.start(0);
            world.result("w", Some("t"))
        },
    ),
    row("a node has lost its share: the others sign", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        world.kill(0);
        world.disk(0).retain(|(keyspace, _), _| *keyspace != Keyspace::Shares);
        world.start(0);
        world.run_for(Duration::from_secs(5));
        first(&mut world, &message("t"))
    }),
    row(
        "too few nodes have their shares",
        "ERROR_NETWORK_TIMEOUT",
        "the request's deadline has passed; last attempt: …its share of the wallet is not in its store…",
        || {
            let (mut world, _) = with_wallet();
            for node in [0, 1] {
                world.kill(node);
                world.disk(node).retain(|(keyspace, _), _| *keyspace != Keyspace::Shares);
                world.start(node);
            }
            world.run_for(Duration::from_secs(5));
            first(&mut world, &message("t"))
        },
    ),
    row("a signer's messages are wrong: others sign", SUCCESS, "", || {
        let mut suites = vec![honest(), honest(), honest()];
        suites[1].ed25519 = Arc::new(Cheat(Frost));
        let mut world = World::with_suites(2, suites, |_| {});
        first(&mut world, &keygen("w"));
        world.results.clear();
        first(&mut world, &message("t"))
    }),
    row(
        "a protocol message is wrong in every attempt",
        "ERROR_NETWORK_TIMEOUT",
        "the request's deadline has passed; last attempt: …",
        || {
            let cheating = || Suites { ed25519: Arc::new(Cheat(Frost)), ..honest() };
            let mut world = World::with_suites(2, vec![cheating(), cheating(), cheating()], |_| {});
            first(&mut world, &keygen("w"));
            world.results.clear();
            first(&mut world, &message("t"))
        },
    ),
    row("the coordinator is killed in the middle: another node takes over", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        world.run_for(Duration::from_secs(2));
        world.request(&message("t"));
        let coordinates = |w: &mut World| (0..3).any(|i| w.node(i).coordinated() > 0);
        assert!(world.run_until(Duration::from_secs(5), coordinates));
        let coordinator = (0..3).find(|i| world.node(*i).coordinated() > 0).expect("just seen");
        world.kill(coordinator);
        world.result("w", Some("t"))
    }),
    row("the request is delivered for the hundredth time", SUCCESS, "", || {
        let (mut world, _) = with_wallet();
        world.request_delivered(RequestKind::Sign, message("t").to_json(), 100);
        world.result("w", Some("t"))
    }),
    row(
        "the request's own expiry has passed",
        "ERROR_SESSION_STALE",
        "the request expired before it could be carried out: full_signature.expires_at is …; sign it anew",
        || first(&mut with_wallet().0, &in_full(message("t"), -3_600_000, None)),
    ),
];

const RESHARE: &[Row] = &[
    row("the document is not JSON", "ERROR_UNMARSHAL_FAILURE", "invalid JSON…", || {
        garbage(RequestKind::Reshare, "{")
    }),
    row("a member has the wrong type", "ERROR_UNMARSHAL_FAILURE", "new_threshold: …", || {
        let mut world = World::new(3, 2);
        world.raw_request(RequestKind::Reshare, br#"{"session_id":"s","new_threshold":"two"}"#.to_vec());
        let result = any(&mut world);
        assert_eq!(world.results[0].0, "mpc.mpc_reshare_result.s", "what could be read says where");
        result
    }),
    row(
        "the session id is empty (answered on `mpc.mpc_reshare_result.%`)",
        "ERROR_MSG_VALIDATION",
        "session_id: …",
        || {
            let mut world = World::new(3, 2);
            let result = first(&mut world, &reshare(|r| r.session_id.clear()));
            assert_eq!(world.results[0].0, "mpc.mpc_reshare_result.%");
            result
        },
    ),
    row(
        "wrong initiator signature, Ed25519",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: invalid signature from initiator",
        || first(&mut World::new(3, 2), &resigned(reshare(|_| {}), vec![1; 64])),
    ),
    row(
        "wrong initiator signature, P-256",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: invalid signature",
        || first(&mut p256(), &reshare(|_| {})),
    ),
    row(
        "no initiator signature",
        "ERROR_INVALID_INITIATOR_SIGNATURE",
        "Failed to verify initiator message: signature is empty",
        || first(&mut World::new(3, 2), &resigned(reshare(|_| {}), Vec::new())),
    ),
    row(
        "an authorizer has not signed",
        "ERROR_MISSING_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: missing required authorizer signature: Alice",
        || first(&mut authorized(), &reshare(|_| {})),
    ),
    row(
        "wrong authorizer signature",
        "ERROR_INVALID_AUTHORIZER_SIGNATURE",
        "Failed to authorize initiator message: authorizer Alice verification failed: …",
        || first(&mut authorized(), &approved(reshare(|_| {}), "Alice")),
    ),
    row("unknown key type", "ERROR_MSG_VALIDATION", "key_type: unsupported key type: \"rsa\", expected …", || {
        first(&mut World::new(3, 2), &reshare(|r| r.key_type = "rsa".to_owned()))
    }),
    row("the new committee is empty", "ERROR_MSG_VALIDATION", "node_ids: a committee has 1 to …", || {
        first(&mut World::new(3, 2), &reshare(|r| r.node_ids = None))
    }),
    row("the new committee names a node twice", "ERROR_MSG_VALIDATION", "node_ids: … twice", || {
        first(
            &mut World::new(3, 2),
            &reshare(|r| {
                let ids = r.node_ids.as_mut().expect("given");
                ids.push(ids[0].clone());
            }),
        )
    }),
    row(
        "the new committee is smaller than the new threshold",
        "ERROR_MSG_VALIDATION",
        "new_threshold: 4 is not possible with 3 members",
        || first(&mut World::new(3, 2), &reshare(|r| r.new_threshold = 4)),
    ),
    row("anything else", "ERROR_RESHARE_FAILURE", "resharing is not available in this version", || {
        first(&mut World::new(3, 2), &reshare(|_| {}))
    }),
];

#[test]
fn key_generation_is_answered_in_every_situation() {
    run(KEYGEN);
}

#[test]
fn signing_is_answered_in_every_situation() {
    run(SIGN);
}

#[test]
fn resharing_is_answered_in_every_situation() {
    run(RESHARE);
}

#[test]
fn the_documented_table_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/client-protocol.md");
    let text = std::fs::read_to_string(&path).expect("the document");
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the table");
    let (found, after) = rest.split_once(END).expect("the end of the table");
    let expected = table();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).expect("written");
    } else {
        assert!(found == expected, "run this test with WRITE_DOCS=1; expected:\n{expected}");
    }
}

fn table() -> String {
    let mut table = "\n| request | situation | code | reason |\n| --- | --- | --- | --- |\n".to_owned();
    for (kind, rows) in [("key generation", KEYGEN), ("signing", SIGN), ("resharing", RESHARE)] {
        for Row { situation, code, reason, .. } in rows {
            let (code, reason) =
                if *code == SUCCESS { ("success".to_owned(), String::new()) } else { (tick(code), tick(reason)) };
            writeln!(table, "| {kind} | {situation} | {code} | {reason} |").expect("memory");
        }
    }
    table.push('\n');
    table
}

fn tick(text: &str) -> String {
    format!("`{text}`")
}

fn run(rows: &[Row]) {
    let mut wrong = Vec::new();
    for row in rows {
        let result = (row.run)();
        let (code, reason) = (result["error_code"].as_str(), result["error_reason"].as_str().unwrap_or_default());
        let success = row.code == SUCCESS;
        let named = result["result_type"] == if success { "success" } else { "error" };
        let timeout = result.get("is_timeout").is_none_or(|t| *t == (row.code == "ERROR_NETWORK_TIMEOUT"));
        if code != Some(row.code) || !named || !timeout || !fits(row.reason, reason) {
            wrong.push(format!("{}:\n  expected {} {:?}\n  got {result}", row.situation, row.code, row.reason));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a text is what the pattern says, `…` being anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    rest.is_empty() || open
}

/// The first answer, whatever it is about.
fn any(world: &mut World) -> Value {
    let answered = world.run_until(Duration::from_secs(1200), |w| !w.results.is_empty());
    assert!(answered, "no answer; reports: {:#?}", world.last_reports());
    world.results[0].2.clone()
}

fn first(world: &mut World, request: &Request) -> Value {
    world.results.clear();
    world.request(request);
    any(world)
}

fn garbage(kind: RequestKind, body: &str) -> Value {
    let mut world = World::new(3, 2);
    world.raw_request(kind, body.as_bytes().to_vec());
    any(&mut world)
}

fn with_wallet() -> (World, Value) {
    let mut world = World::new(3, 2);
    let keys = first(&mut world, &keygen("w"));
    assert_eq!(keys["error_code"], "", "{keys}");
    // Its delivery is acknowledged.
    world.run_for(Duration::from_secs(1));
    world.results.clear();
    (world, keys)
}

fn restart_with(world: &mut World, change: impl Fn(&mut Config)) {
    (0..3).for_each(|node| world.kill(node));
    world.reconfigure(change);
    (0..3).for_each(|node| world.start(node));
}

fn p256() -> World {
    World::with(3, 2, |config| config.initiator = InitiatorKey::parse("p256", P256_SPKI).expect("a key"))
}

/// Alice must approve.
fn authorized() -> World {
    let key = hex::encode(SigningKey::from_bytes(&[8; 32]).verifying_key().as_bytes());
    World::with(3, 2, |config| {
        config.authorization.enabled = true;
        config.authorization.required = vec!["Alice".to_owned()];
        config.authorization.keys =
            [("Alice".to_owned(), AuthorizerKey::parse("ed25519", &key).expect("a key"))].into();
    })
}

fn message(tx: &str) -> Request {
    sign("w", "ed25519", tx, b"m", &[])
}

fn reshare(change: fn(&mut ReshareRequest)) -> Request {
    let mut request = ReshareRequest {
        session_id: "s".to_owned(),
        node_ids: Some((1..=3).map(|n| NodeId::from_bytes([n; 16]).to_string()).collect()),
        new_threshold: 2,
        key_type: "ed25519".to_owned(),
        wallet_id: "w".to_owned(),
        ..ReshareRequest::default()
    };
    change(&mut request);
    signed(Request::Reshare(request))
}

fn resigned(mut request: Request, signature: Vec<u8>) -> Request {
    request.set_signature(signature);
    request
}

/// With a signature of nobody's in this authorizer's name, before the others.
fn approved(mut request: Request, by: &str) -> Request {
    let signature = AuthorizerSignature { authorizer_id: by.to_owned(), signature: Some(vec![1; 64]) };
    let all = match &mut request {
        Request::Keygen(r) => &mut r.authorizer_signatures,
        Request::Sign(r) => &mut r.authorizer_signatures,
        Request::Reshare(r) => &mut r.authorizer_signatures,
    };
    all.insert(0, signature);
    request
}

fn honest() -> Suites {
    Suites {
        keygen: Arc::new(DistributedKeyGeneration),
        secp256k1: Arc::new(Cggmp::<Toy>::new()),
        ed25519: Arc::new(Frost),
    }
}

/// A protocol whose every message has a wrong last byte.
struct Cheat<P>(P);

struct CheatingParty(Box<dyn Party>);

impl Party for CheatingParty {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let mut step = self.0.advance(inbox);
        for last in step.messages.iter_mut().filter_map(|outgoing| outgoing.bytes.last_mut()) {
            *last ^= 1;
        }
        step
    }
}

impl<P: KeyGeneration> KeyGeneration for Cheat<P> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn pace(&self, parties: u16) -> Pace {
        self.0.pace(parties)
    }
    fn start(&self, run: Run, threshold: u16) -> Result<Box<dyn Party>, Abort> {
        Ok(Box::new(CheatingParty(self.0.start(run, threshold)?)))
    }
}

impl<P: SigningSuite> SigningSuite for Cheat<P> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn curve(&self) -> Curve {
        self.0.curve()
    }
    fn pace(&self, parties: u16) -> Pace {
        self.0.pace(parties)
    }
    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        self.0.auxiliary()
    }
    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        self.0.verify(public_key, message, signature)
    }
    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        Ok(Box::new(CheatingParty(self.0.start(run, signing)?)))
    }
}

//! The clients: what they asked for and what they may conclude. A request without an answer is unknown, never absent.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::Signer as _;
use mpcium_client::{
    AuthorizerSignature, FullSignature, KeygenRequest, MessageHash, Request as Document, SignRequest,
    auth::{Authorization, AuthorizerKey, InitiatorKey, PublicKey},
    memory::{Scheme, made},
};
use mpcium_core::{input::RequestKind, protocol::Curve};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use sha2::{Digest as _, Sha256};

use super::{Answer, Event, Verdict, World};
use crate::{
    dice::Dice,
    frozen::OldRequest,
    invariants::Fact,
    scenario::{Action, At, MILLISECOND, Manners, Remains, SECOND, Step},
};

/// Wallets that are asked for after healing have numbers from here on.
const FRESH: usize = 10_000;
/// When requests with a full signature expire, in milliseconds since 1970: after every run.
const NEVER: u64 = 1 << 52;
/// Time for links to come up again after healing before fresh work is asked for.
const SETTLING: u64 = 12 * SECOND;
/// Time for auxiliary data to be made for a core that has none: the nodes wait five minutes for the missing ones to
/// come back, and repeat failed runs after a minute at most.
const AUXILIARY: u64 = 480 * SECOND;

/// One request as a client sent it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which queue.
    pub kind: RequestKind,
    /// The wallet's id.
    pub wallet: String,
    /// The transaction's id; empty for key generation.
    pub transaction: String,
    /// The curve; `None` for key generation.
    pub curve: Option<Curve>,
    /// What is to be signed: for secp256k1 the digest.
    pub message: Vec<u8>,
    /// Child key indices.
    pub path: Vec<u32>,
    /// Whether the initiator really signed it, and whoever has to approve it.
    pub honest: bool,
    /// The client's name in the header.
    pub client: Option<String>,
    /// The document.
    pub body: Vec<u8>,
    /// Sequence number in the stream.
    pub sequence: u64,
    /// When it was sent.
    pub at: At,
    /// The same by the queue's clock, in milliseconds.
    pub wall_ms: u64,
    /// Must succeed: asked after healing.
    pub must_succeed: bool,
}

/// A wallet's keys as its client learned them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// `X || Y`.
    pub secp256k1: Vec<u8>,
    /// RFC 8032 encoding.
    pub ed25519: Vec<u8>,
}

impl From<OldRequest> for Request {
    fn from(old: OldRequest) -> Self {
        let OldRequest { kind, wallet, transaction, curve, message, path, honest, body, sequence, wall_ms } = old;
        Self {
            kind,
            wallet,
            transaction,
            curve,
            message,
            path,
            honest,
            client: None,
            body,
            sequence,
            at: 0,
            wall_ms,
            must_succeed: false,
        }
    }
}

impl From<&Request> for OldRequest {
    fn from(request: &Request) -> Self {
        let Request { kind, wallet, transaction, curve, message, path, honest, body, sequence, wall_ms, .. } =
            request.clone();
        Self { kind, wallet, transaction, curve, message, path, honest, body, sequence, wall_ms }
    }
}

/// A key that signs requests.
enum Key {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    P256(Box<p256::ecdsa::SigningKey>),
}

impl Key {
    fn draw(dice: &mut Dice, p256: bool) -> Self {
        if !p256 {
            return Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&dice.bytes32())));
        }
        loop {
            // All but a vanishing part of all numbers are keys.
            if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&dice.bytes32()) {
                return Self::P256(Box::new(key));
            }
        }
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Ed25519(key) => PublicKey::Ed25519(key.verifying_key()),
            Self::P256(key) => PublicKey::P256(*key.verifying_key()),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => {
                let signature = key.sign(message).to_bytes().to_vec();
                made(Scheme::Ed25519, key.verifying_key().as_bytes(), message, &signature);
                signature
            }
            Self::P256(key) => {
                let signed: Result<p256::ecdsa::Signature, _> = key.sign_prehash(&Sha256::digest(message));
                let Ok(signature) = signed else { return Vec::new() };
                let signature = signature.to_der().as_bytes().to_vec();
                made(Scheme::P256, key.verifying_key().to_sec1_bytes().as_ref(), message, &signature);
                signature
            }
        }
    }
}

/// All clients, who share one initiator.
pub struct Clients {
    initiator: Key,
    stranger: Key,
    authorizers: Vec<Key>,
    dice: Dice,
    /// Everything that was sent, in order.
    pub requests: Vec<Request>,
    /// What was sent and answered before the run began.
    pub old: Vec<Request>,
    /// Per action of the scenario, the request that it sent.
    by_action: BTreeMap<usize, usize>,
    /// Wallets that exist for certain.
    pub wallets: BTreeMap<String, Keys>,
    /// Since when clients know that they do.
    pub known_since: BTreeMap<String, At>,
    /// Whether requests may leave it to the nodes to hash a message.
    whole_messages: bool,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clients({} requests, {} wallets)", self.requests.len(), self.wallets.len())
    }
}

/// How a request is signed and sent.
#[derive(Clone, Copy)]
struct Sent<'a> {
    honest: bool,
    approved: bool,
    client: Option<&'a str>,
    path: &'a [u32],
}

/// As a careful client sends it.
const PLAIN: Sent<'static> = Sent { honest: true, approved: true, client: None, path: &[] };

impl<'a> Sent<'a> {
    fn of(step: &'a Step, honest: bool) -> Self {
        Self { honest, approved: step.approved, client: step.client.as_deref(), path: &step.path }
    }
}

impl Clients {
    /// Clients who have asked for nothing yet.
    #[must_use]
    pub fn new(people: u64, seed: u64, manners: Manners, whole_messages: bool) -> Self {
        let mut dice = Dice::new(seed, "clients");
        let mut keys = Dice::new(people, "clients' keys");
        Self {
            initiator: Key::draw(&mut keys, manners.p256),
            stranger: Key::draw(&mut keys, manners.p256),
            // Authorizers may use either kind.
            authorizers: (0..manners.authorizers).map(|number| Key::draw(&mut keys, number % 2 == 1)).collect(),
            dice: Dice::new(dice.any(), "messages"),
            requests: Vec::new(),
            old: Vec::new(),
            by_action: BTreeMap::new(),
            wallets: BTreeMap::new(),
            known_since: BTreeMap::new(),
            whole_messages,
        }
    }

    /// The initiator's public key.
    #[must_use]
    pub fn initiator(&self) -> InitiatorKey {
        InitiatorKey(self.initiator.public())
    }

    /// The public key of somebody whom nodes must not trust.
    #[must_use]
    pub fn stranger(&self) -> InitiatorKey {
        InitiatorKey(self.stranger.public())
    }

    /// Whose approval nodes ask for.
    #[must_use]
    pub fn authorization(&self) -> Authorization {
        let ids = (0..self.authorizers.len()).map(|number| format!("authorizer{number}"));
        let keys = self.authorizers.iter().map(|key| AuthorizerKey(key.public()));
        Authorization {
            enabled: !self.authorizers.is_empty(),
            required: ids.clone().collect(),
            keys: ids.zip(keys).collect(),
            ..Authorization::default()
        }
    }

    /// Signs a document and puts it into an envelope.
    fn seal(&self, mut document: Document, sent: Sent<'_>) -> (Vec<u8>, bool) {
        let key = if sent.honest { &self.initiator } else { &self.stranger };
        if document.needs_full_signature() {
            let request_id = document.request_id().to_owned();
            let full = FullSignature { request_id, expires_at: NEVER, ..FullSignature::default() };
            *document.full_signature_mut() = Some(full);
            let signature = key.sign(&document.full_bytes().unwrap_or_default());
            if let Some(full) = document.full_signature_mut() {
                full.signature = Some(signature);
            }
        }
        document.set_signature(key.sign(&document.canonical()));
        if sent.approved {
            let bytes = document.authorizer_bytes();
            let approve = |(number, key): (usize, &Key)| AuthorizerSignature {
                authorizer_id: format!("authorizer{number}"),
                signature: Some(key.sign(&bytes)),
            };
            let approvals = self.authorizers.iter().enumerate().map(approve).collect();
            match &mut document {
                Document::Keygen(request) => request.authorizer_signatures = approvals,
                Document::Sign(request) => request.authorizer_signatures = approvals,
                Document::Reshare(request) => request.authorizer_signatures = approvals,
            }
        }
        (document.to_json(), sent.honest && (sent.approved || self.authorizers.is_empty()))
    }

    fn keygen(&self, wallet: usize, sent: Sent<'_>) -> Request {
        let wallet = format!("wallet-{wallet}");
        let document = KeygenRequest { wallet_id: wallet.clone(), ..KeygenRequest::default() };
        let (body, honest) = self.seal(document.into(), sent);
        Request {
            kind: RequestKind::Keygen,
            wallet,
            transaction: String::new(),
            curve: None,
            message: Vec::new(),
            path: Vec::new(),
            honest,
            client: sent.client.map(str::to_owned),
            body,
            sequence: 0,
            at: 0,
            wall_ms: 0,
            must_succeed: false,
        }
    }

    fn sign(&self, wallet: usize, curve: Curve, transaction: String, message: Vec<u8>, sent: Sent<'_>) -> Request {
        let wallet = format!("wallet-{wallet}");
        let key_type = match curve {
            Curve::Secp256k1 => "secp256k1",
            Curve::Ed25519 => "ed25519",
        };
        let mut document = SignRequest {
            key_type: key_type.into(),
            wallet_id: wallet.clone(),
            network_internal_code: "net".into(),
            tx_id: transaction.clone(),
            tx: Some(message.clone()),
            derivation_path: sent.path.to_vec(),
            ..SignRequest::default()
        };
        let mut message = message;
        if let Some(hash) = self.hash_for(curve, &transaction) {
            document = document.with_message(hash, message.clone());
            message = hash.digest(&message).to_vec();
        }
        let (body, honest) = self.seal(document.into(), sent);
        Request {
            kind: RequestKind::Sign,
            wallet,
            transaction,
            curve: Some(curve),
            message,
            path: sent.path.to_vec(),
            honest,
            client: sent.client.map(str::to_owned),
            body,
            sequence: 0,
            at: 0,
            wall_ms: 0,
            must_succeed: false,
        }
    }

    /// How the nodes are to hash the message of this transaction, if they are: most ECDSA requests leave it to them where
    /// anybody's do.
    fn hash_for(&self, curve: Curve, transaction: &str) -> Option<MessageHash> {
        let drawn = usize::from(Sha256::digest(transaction)[0]);
        let wanted = self.whole_messages && curve == Curve::Secp256k1 && drawn % 8 != 0;
        wanted.then(|| MessageHash::ALL[drawn / 8 % MessageHash::ALL.len()])
    }

    /// The request that stands at this place of a stream.
    #[must_use]
    pub fn request(&self, kind: RequestKind, sequence: u64) -> Option<&Request> {
        self.requests.iter().find(|request| request.kind == kind && request.sequence == sequence)
    }

    /// A client reads an answer.
    pub(super) fn learn(&mut self, now: At, answer: &Answer) {
        if !answer.success || !answer.transaction.is_empty() {
            return;
        }
        let bytes = |name: &str| {
            answer.body.get(name).and_then(|v| v.as_str()).and_then(|v| STANDARD.decode(v).ok()).unwrap_or_default()
        };
        let keys = Keys { secp256k1: bytes("ecdsa_pub_key"), ed25519: bytes("eddsa_pub_key") };
        self.wallets.entry(answer.wallet.clone()).or_insert(keys);
        self.known_since.entry(answer.wallet.clone()).or_insert(now);
    }
}

fn curve(ecdsa: bool) -> Curve {
    if ecdsa { Curve::Secp256k1 } else { Curve::Ed25519 }
}

impl World {
    fn send(&mut self, action: Option<usize>, mut request: Request) {
        self.counters.operations += 1;
        request.at = self.now();
        request.wall_ms = self.wall_ms();
        request.sequence = self.enqueue(request.kind, request.body.clone(), request.client.clone());
        self.observe(&Fact::Sent { request: &request });
        if let Some(action) = action {
            self.clients.by_action.insert(action, self.clients.requests.len());
        }
        self.clients.requests.push(request);
    }

    /// A client acts.
    pub(super) fn step(&mut self, at: usize) {
        let step = self.scenario.steps[at].clone();
        let action = step.action.clone();
        let earlier = |world: &Self, action: usize| {
            world.clients.by_action.get(&action).and_then(|index| world.clients.requests.get(*index)).cloned()
        };
        match action {
            Action::Keygen { wallet } => {
                let request = self.clients.keygen(wallet, Sent::of(&step, true));
                self.send(Some(at), request);
            }
            Action::Sign { wallet, ecdsa, transaction, length } => {
                let length = if ecdsa { 32 } else { length };
                let message = self.clients.dice.bytes(length);
                let request = self.clients.sign(
                    wallet,
                    curve(ecdsa),
                    format!("tx-{transaction}"),
                    message,
                    Sent::of(&step, true),
                );
                self.send(Some(at), request);
            }
            Action::Again { action } => {
                if let Some(request) = earlier(self, action) {
                    self.counters.sometimes("the same request again");
                    self.send(None, request);
                }
            }
            Action::OtherPayload { action } => {
                if let Some(old) = earlier(self, action)
                    && let Some(curve) = old.curve
                {
                    let wallet = old.wallet.trim_start_matches("wallet-").parse().unwrap_or_default();
                    let message = self.clients.dice.bytes(32);
                    let request = self.clients.sign(wallet, curve, old.transaction, message, Sent::of(&step, true));
                    self.counters.sometimes("the same id with another payload");
                    self.send(None, request);
                }
            }
            Action::ForgedKeygen { wallet } => {
                let request = self.clients.keygen(wallet, Sent::of(&step, false));
                self.send(None, request);
            }
            Action::ForgedSign { wallet, ecdsa, transaction } => {
                let message = self.clients.dice.bytes(32);
                let request = self.clients.sign(
                    wallet,
                    curve(ecdsa),
                    format!("tx-{transaction}"),
                    message,
                    Sent::of(&step, false),
                );
                self.send(None, request);
            }
            Action::Old { number } => {
                let at = number.checked_rem(self.clients.old.len());
                if let Some(request) = at.and_then(|at| self.clients.old.get(at)).cloned() {
                    self.counters.sometimes("a request that an earlier version answered");
                    self.send(None, request);
                }
            }
            Action::Garbage => {
                let count = usize::try_from(self.clients.dice.below(200)).unwrap_or(0);
                let body = self.clients.dice.bytes(count);
                let kind = if self.clients.dice.chance(0.5) { RequestKind::Keygen } else { RequestKind::Sign };
                self.enqueue(kind, body, None);
            }
        }
    }

    /// The core has had time to find itself: what is asked of it now must succeed.
    pub(super) fn ask_fresh(&mut self, ecdsa: bool) {
        self.fresh_since.get_or_insert(self.now());
        if ecdsa {
            self.fresh = true;
        }
        let wallets: Vec<String> = self.clients.wallets.keys().take(2).cloned().collect();
        for (number, wallet) in wallets.into_iter().enumerate() {
            let Ok(wallet) = wallet.trim_start_matches("wallet-").parse() else { continue };
            let message = self.clients.dice.bytes(32);
            let transaction = format!("fresh-{number}-{ecdsa}");
            let mut request = self.clients.sign(wallet, curve(ecdsa), transaction, message, PLAIN);
            // Auxiliary data and new wallets need those that cheat.
            request.must_succeed = !ecdsa || !self.scenario.cheated_core();
            self.send(None, request);
        }
        if !ecdsa && self.scenario.core.len() == self.scenario.nodes && !self.scenario.cheated_core() {
            let mut request = self.clients.keygen(FRESH, PLAIN);
            request.must_succeed = true;
            self.send(None, request);
        }
    }

    /// A node outside the core goes on, of no use to anybody.
    fn leave(&mut self, node: usize, how: Remains) {
        self.counters.sometimes(how.name());
        self.pause(node, how == Remains::Paused);
        self.machines[node].cut = u32::from(how == Remains::Paused);
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            match how {
                Remains::Mute => self.network.block(node, other, true),
                Remains::Deaf => self.network.block(other, node, true),
                Remains::Paused => {}
            }
        }
    }

    /// The first phase ends.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.log.event(self.now(), None, "heal", &[], || serde_json::json!({"core": self.scenario.core}));
        self.network.heal();
        self.mute.clear();
        self.queues.stalled = 0;
        for node in 0..self.machines.len() {
            if self.scenario.in_core(node) {
                self.pause(node, false);
                let machine = &mut self.machines[node];
                machine.down = 0;
                machine.cut = 0;
                machine.crash_armed = None;
                machine.error_armed = false;
                machine.disk_full = 0;
                machine.disk_slow = 0;
                machine.slow = 0;
                machine.blind = 0;
                (machine.deaf_armed, machine.deaf) = (0, 0);
                self.boot(node);
            } else {
                match self.scenario.remains.get(&node).copied() {
                    Some(how) if self.machines[node].alive => self.leave(node, how),
                    _ => self.kill(node),
                }
                self.machines[node].gone = true;
            }
        }
        self.later(0, Event::Offer(RequestKind::Keygen));
        self.later(0, Event::Offer(RequestKind::Sign));
        // Whoever was put back is of use once no request from before can be answered any more.
        let put_back = self.scenario.core.iter().any(|node| self.machines[*node].rolled_back);
        let settling = if put_back { self.catching_up() } else { SETTLING };
        self.later(settling, Event::Fresh { ecdsa: false });
        let has = |nodes: &[usize]| {
            let named = |set: &Vec<String>| nodes.iter().all(|node| set.contains(&format!("node{node}")));
            self.auxiliary_sets.iter().any(named)
        };
        let core = &self.scenario.core;
        let covered = match self.scenario.pairs {
            false => has(core),
            true => core.iter().all(|one| core.iter().all(|other| one == other || has(&[*one, *other]))),
        };
        // A set that was lost with a disk is made anew.
        let covered = covered && !put_back;
        if !covered {
            self.counters.sometimes("healed core without auxiliary data");
        }
        let soon = covered || self.scenario.cheated_core();
        self.later(if soon { settling } else { AUXILIARY }, Event::Fresh { ecdsa: true });
        self.later(SETTLING + SECOND, Event::Review);
    }

    /// How long a healed core may take to bring a node up to date: it waits until no request of earlier times can be
    /// answered any more, and asks the others meanwhile.
    fn catching_up(&self) -> u64 {
        self.scenario.signing_deadline_s * SECOND + self.scenario.clock_skew_ms * MILLISECOND + 30 * SECOND
    }

    /// How long a request may take that must be answered within so many seconds.
    fn patience(&self, deadline: u64) -> u64 {
        // An acknowledgement wait may pass before a living node sees what a dead one took, and then the queue may
        // have been told to wait a little more.
        let mut patience = deadline * SECOND + 2 * self.scenario.clock_skew_ms * MILLISECOND + 90 * SECOND;
        if self.scenario.cheated_core() {
            // Whoever cheats may take a request several times before somebody honest does.
            patience += 4 * (deadline + 60) * SECOND;
        }
        patience
    }

    /// What else is not as it must be in the end, in words, and by when it must.
    fn unsettled(&self) -> Vec<(At, String)> {
        let mut unsettled = Vec::new();
        let open = self.queues.open();
        if open > 0 {
            // Whoever answered may have died before the queue heard of it.
            let last = self.clients.requests.iter().map(|request| request.at).max().unwrap_or(0);
            let patience = self.patience(self.scenario.signing_deadline_s.max(self.scenario.keygen_deadline_s));
            let due = last.max(self.scenario.healed_at) + patience;
            unsettled.push((due, format!("{open} requests are still in the queues")));
        }
        for node in self.scenario.core.iter().filter(|node| self.machines[**node].behind) {
            let due = self.scenario.healed_at + self.catching_up();
            unsettled.push((due, format!("node{node} was put back and has not been brought up to date")));
        }
        unsettled
    }

    /// What still lacks an answer, in words, and by when it must have one.
    fn unanswered(&self) -> Vec<(At, String)> {
        let mut sent: BTreeMap<(&str, &str), (usize, bool, At)> = BTreeMap::new();
        for request in self.clients.requests.iter().filter(|r| !self.queues.has_lost(r.kind, r.sequence)) {
            let deadline = match request.kind {
                RequestKind::Keygen => self.scenario.keygen_deadline_s,
                _ => self.scenario.signing_deadline_s,
            };
            let due = request.at.max(self.scenario.healed_at) + self.patience(deadline);
            let entry = sent.entry((&request.wallet, &request.transaction)).or_default();
            entry.0 += 1;
            entry.1 |= request.must_succeed;
            entry.2 = entry.2.max(due);
        }
        sent.into_iter()
            .filter_map(|((wallet, transaction), (count, must_succeed, due))| {
                let answers = self.results.answers(wallet, transaction);
                if answers < count {
                    Some((due, format!("{wallet} {transaction}: {answers} answers to {count} requests")))
                } else if must_succeed
                    && !self.results.succeeded(wallet, transaction)
                    && !self.results.by_cheater(wallet, transaction)
                {
                    Some((0, format!("{wallet} {transaction}: asked of a healed core, but failed")))
                } else {
                    None
                }
            })
            .collect()
    }

    /// Ends the run when everything is answered, or when something took too long.
    pub(super) fn review(&mut self) {
        let mut unanswered = self.unanswered();
        unanswered.extend(self.unsettled());
        let now = self.now();
        if unanswered.is_empty() && self.fresh {
            self.observe(&Fact::End);
            self.counters.simulated_us = now;
            if self.verdict.is_none() {
                self.verdict = Some(Verdict::Passed);
            }
            return;
        }
        let late: Vec<String> = unanswered.into_iter().filter(|(due, _)| *due < now).map(|(_, what)| what).collect();
        if !late.is_empty() {
            self.violated("liveness", format!("a healed core left open: {}", late.join("; ")));
            return;
        }
        self.later(SECOND, Event::Review);
    }
}

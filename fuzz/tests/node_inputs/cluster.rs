//! Three nodes, and everything that is on its way to them: the inputs may be given in any order, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ed25519_dalek::{Signer as _, SigningKey};
use mpcium_client::{
    FullSignature, MessageHash,
    auth::{Authorization, InitiatorKey, PublicKey},
    query::WalletQuery,
    request::{KeygenRequest, Request, SignRequest},
};
use mpcium_core::{
    Config, Duration, Identity, Incarnation, Input, NodeId, Now, Output, PeerInfo, Secret, Time, WallTime,
    input::{Delivery, DeliveryId, QueryId, RequestKind},
    link::Start,
    node::Node,
    output::{PersistId, Settlement},
    protocol::Suites,
    report::Report,
    store::{Batch, BootRecord, Keyspace},
};
use sha2::{Digest as _, Sha256};
use sim::ideal::{self, Witness};

use crate::{checks::Checks, liar::Liar};

/// Nodes of the cluster, two of which sign.
pub const NODES: usize = 3;
/// Signers.
pub const THRESHOLD: usize = 2;
/// Whom the liar replaces.
pub const LIAR: usize = 2;
/// Old datagrams that are kept to come back.
const OLD_MAX: usize = 256;
/// Events within one stretch of time after which something runs in circles.
const EVENTS_MAX: u64 = 200_000;
const START: u64 = 1_800_000_000_000;
const INITIATOR: [u8; 32] = [7; 32];

/// Records by keyspace and name.
pub type Disk = BTreeMap<(Keyspace, Vec<u8>), Secret>;

/// Something on its way to a node.
pub struct Flying {
    pub due: Time,
    pub input: Input,
}

/// A node's machine.
#[derive(Default)]
pub struct Host {
    pub node: Option<Node>,
    pub starts: u8,
    /// What a crash leaves.
    pub durable: Disk,
    /// What the process reads.
    live: Disk,
    /// Ordered batches that are not confirmed, in order.
    pending: BTreeMap<PersistId, Batch>,
    intake: BTreeSet<RequestKind>,
    pub flying: Vec<Flying>,
    /// Deliveries that this process was given and has not settled for good.
    given: BTreeSet<DeliveryId>,
    published: u64,
    acknowledged: u64,
}

#[derive(Clone)]
enum State {
    Ready,
    Out(Time),
    Done,
}

struct Message {
    delivery: Delivery,
    state: State,
}

pub struct Cluster {
    pub hosts: Vec<Host>,
    pub ids: Vec<NodeId>,
    configs: Vec<Config>,
    suites: Suites,
    pub witness: Arc<Witness>,
    pub now: Time,
    /// Milliseconds by which each wall clock is off.
    pub wall_offset: [i64; NODES],
    pub cut: BTreeSet<(usize, usize)>,
    pub liar: Option<Liar>,
    pub old: Vec<Vec<u8>>,
    /// Everything that nodes wrote, if somebody wants to know.
    pub written: Option<Vec<(Keyspace, Vec<u8>)>>,
    queue: Vec<Message>,
    deliveries: u64,
    entropy: u64,
    transcript: Sha256,
    pub checks: Checks,
    counters: BTreeMap<&'static str, u64>,
}

impl Cluster {
    /// One whose nodes keep so many presignatures.
    pub fn new(presignatures: usize) -> Self {
        let ids: Vec<NodeId> = (0..NODES).map(|i| NodeId::from_bytes([i as u8 + 1; 16])).collect();
        let peers: Vec<PeerInfo> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| PeerInfo { id: *id, name: format!("node{i}"), key: identity(*id, i).public() })
            .collect();
        let configs = ids
            .iter()
            .map(|me| {
                let config = Config {
                    me: *me,
                    peers: peers.clone(),
                    threshold: THRESHOLD as u16,
                    chain_code: Some([9; 32]),
                    initiator: InitiatorKey(PublicKey::Ed25519(SigningKey::from_bytes(&INITIATOR).verifying_key())),
                    authorization: Authorization::default(),
                    max_concurrent_keygen: 2,
                    max_concurrent_signing: 4,
                    presignatures,
                    signing_deadline: Duration::from_secs(30),
                    keygen_deadline: Duration::from_secs(60),
                    clock_skew: Duration::from_secs(2),
                    workers: 2,
                    ingredients_reserve: 1,
                };
                config.checked().expect("a configuration")
            })
            .collect();
        let witness = Arc::new(Witness::default());
        let mut cluster = Self {
            hosts: (0..NODES).map(|_| Host::default()).collect(),
            ids,
            configs,
            suites: ideal::suites(&witness, None),
            witness,
            now: Time(1_000_000),
            wall_offset: [0; NODES],
            cut: BTreeSet::new(),
            liar: None,
            old: Vec::new(),
            written: None,
            queue: Vec::new(),
            deliveries: 0,
            entropy: 0,
            transcript: Sha256::new(),
            checks: Checks::default(),
            counters: BTreeMap::new(),
        };
        for i in 0..NODES {
            cluster.start(i);
        }
        cluster
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }

    /// The hash over everything that nodes did, and what was reached.
    pub fn end(self) -> (String, BTreeMap<&'static str, u64>) {
        (hex::encode(self.transcript.finalize()), self.counters)
    }

    pub fn clock(&self, i: usize) -> Now {
        let wall = START + self.now.0 / 1_000;
        Now { time: self.now, wall: WallTime(wall.saturating_add_signed(self.wall_offset[i])) }
    }

    /// Starts a node from its disk, in the liar's place if need be.
    pub fn start(&mut self, i: usize) {
        if self.hosts[i].node.is_some() {
            return;
        }
        if i == LIAR && self.liar.take().is_some() {
            self.count("a node was rolled back behind its peers' backs");
        }
        let now = self.clock(i);
        let host = &mut self.hosts[i];
        host.starts = host.starts.wrapping_add(1);
        if host.starts > 1 {
            *self.counters.entry("a node was restarted").or_default() += 1;
        }
        host.live = host.durable.clone();
        let records = host
            .durable
            .iter()
            .filter(|((keyspace, _), _)| keyspace.loaded_at_boot())
            .map(|((keyspace, key), value)| (*keyspace, key.clone(), value.clone()))
            .collect();
        let mut seed = [i as u8 + 1; 32];
        seed[0] = host.starts;
        let boot = BootRecord { records, damage: Vec::new() };
        let node = Node::new(self.configs[i].clone(), identity(self.ids[i], i), self.suites.clone(), boot, seed, now);
        host.node = Some(node);
        self.drain(i);
    }

    /// Kills a process: only what is durable is left, and the queue takes back what it had.
    pub fn kill(&mut self, i: usize) {
        let host = &mut self.hosts[i];
        if host.node.take().is_none() {
            return;
        }
        host.pending.clear();
        host.intake.clear();
        host.flying.retain(|flying| matches!(flying.input, Input::Datagram(_)));
        (host.published, host.acknowledged) = (0, 0);
        let given = std::mem::take(&mut host.given);
        for message in self.queue.iter_mut().filter(|message| given.contains(&message.delivery.id)) {
            if let State::Out(_) = message.state {
                message.state = State::Ready;
            }
        }
    }

    /// A process tells its peers that it ends, and ends.
    pub fn leave(&mut self, i: usize) {
        if self.hosts[i].node.is_some() {
            self.count("a node left");
            self.give(i, Input::Leave);
            self.kill(i);
        }
    }

    /// The initiator asks a node for a wallet.
    pub fn query(&mut self, i: usize, number: usize) {
        self.entropy += 1;
        let mut query = WalletQuery {
            wallet_id: wallet(number),
            request_id: format!("query {}", self.entropy),
            // Whatever the clocks are.
            expires_at: START * 2,
            signature: None,
        };
        let signature = SigningKey::from_bytes(&INITIATOR).sign(&query.signed_bytes());
        query.signature = Some(signature.to_bytes().to_vec());
        self.give(i, Input::Query { query: QueryId(self.entropy), body: query.to_json() });
    }

    /// Puts a liar in the place of the last node.
    pub fn replace_by_liar(&mut self) {
        if self.liar.is_some() {
            return;
        }
        self.kill(LIAR);
        let records = &self.hosts[LIAR].durable;
        let meta = |name: &[u8]| records.get(&(Keyspace::Meta, name.to_vec()));
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).expect("a number");
        let commits = meta(b"commits").map_or(0, |record| number(&record.expose()[1..]));
        let history = records
            .iter()
            .filter_map(|((_, key), record)| {
                let incarnation = Incarnation(key.strip_prefix(b"start ")?.try_into().ok()?);
                Some((incarnation, Start { found: Some(number(&record.expose()[3..])), conceded: false }))
            })
            .collect();
        self.entropy += 1;
        let facets = mpcium_core::node::facets(&self.configs[LIAR], &self.suites);
        let identity = identity(self.ids[LIAR], LIAR);
        let peers = self.configs[LIAR].peers.clone();
        self.liar = Some(Liar::new(identity, peers, facets, (commits, history), self.entropy, self.now));
        self.checks.lied = true;
        self.drain(LIAR);
    }

    /// A client's request enters the queue.
    pub fn request(&mut self, kind: RequestKind, body: Vec<u8>, client: Option<String>) {
        self.deliveries += 1;
        let sequence = self.deliveries;
        let delivery = Delivery {
            id: DeliveryId(sequence << 16),
            kind,
            body,
            client,
            stream: "requests".to_owned(),
            sequence,
            timestamp: WallTime(START + self.now.0 / 1_000),
            deliveries: 0,
        };
        self.queue.push(Message { delivery, state: State::Ready });
    }

    /// A delivery that breaks what queues promise: any time, any count, any stream.
    pub fn odd_delivery(&mut self, i: usize, mut delivery: Delivery) {
        self.deliveries += 1;
        delivery.id = DeliveryId(self.deliveries << 16);
        delivery.sequence = self.deliveries;
        self.hosts[i].given.insert(delivery.id);
        self.give(i, Input::Request(delivery));
    }

    /// A message is delivered once more, to anybody, whoever has it now.
    pub fn redeliver(&mut self, which: usize, i: usize) {
        let Some(at) = which.checked_rem(self.queue.len()) else { return };
        if self.hosts[i].node.is_some() && !matches!(self.queue[at].state, State::Done) {
            self.count("a delivery was taken back by the queue");
            self.deliver(at, i);
        }
    }

    fn deliver(&mut self, at: usize, i: usize) {
        let message = &mut self.queue[at];
        message.delivery.deliveries += 1;
        message.delivery.id.0 += 1;
        message.state = State::Out(self.now.after(Duration::from_secs(30)));
        let delivery = message.delivery.clone();
        self.hosts[i].given.insert(delivery.id);
        self.fly(i, 500, Input::Request(delivery));
    }

    /// The queue gives what is ready to nodes that take it.
    fn offer(&mut self) {
        for at in 0..self.queue.len() {
            if let State::Out(until) = self.queue[at].state
                && until <= self.now
            {
                self.queue[at].state = State::Ready;
            }
            if matches!(self.queue[at].state, State::Ready) {
                let kind = self.queue[at].delivery.kind;
                let open: Vec<usize> = (0..NODES).filter(|i| self.hosts[*i].intake.contains(&kind)).collect();
                let turn = usize::try_from(self.queue[at].delivery.sequence).unwrap_or(0);
                if let Some(i) = turn.checked_rem(open.len()).and_then(|turn| open.get(turn)) {
                    self.deliver(at, *i);
                }
            }
        }
    }

    fn fly(&mut self, i: usize, micros: u64, input: Input) {
        let due = Time(self.now.0 + micros);
        let flying = &mut self.hosts[i].flying;
        let at = flying.partition_point(|other| other.due <= due);
        flying.insert(at, Flying { due, input });
    }

    /// Lets everything happen in its order for a while.
    pub fn run_for(&mut self, millis: u64) {
        let end = Time(self.now.0 + millis * 1_000);
        for _ in 0..EVENTS_MAX {
            self.offer();
            let flying = (0..NODES).filter_map(|i| Some((self.hosts[i].flying.first()?.due, i, true)));
            let wakes = (0..NODES).filter_map(|i| {
                let wake = match (&self.hosts[i].node, &self.liar) {
                    (Some(node), _) => node.wake_at(),
                    (None, Some(liar)) if i == LIAR => liar.wake_at(),
                    _ => None,
                };
                Some((wake?, i, false))
            });
            let Some((at, i, flies)) = flying.chain(wakes).min().filter(|(at, _, _)| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            if flies {
                let input = self.hosts[i].flying.remove(0).input;
                self.give(i, input);
            } else {
                self.give(i, Input::Wake);
                let again = self.hosts[i].node.as_ref().and_then(Node::wake_at);
                assert!(again.is_none_or(|again| again > self.now), "node{i} wants to wake at once for ever");
            }
        }
        panic!("more than {EVENTS_MAX} events within {millis} ms");
    }

    /// Gives a node an input, now.
    pub fn give(&mut self, i: usize, input: Input) {
        let now = self.clock(i);
        self.give_at(i, now, input);
    }

    /// Gives a node an input with whatever clocks.
    pub fn give_at(&mut self, i: usize, now: Now, input: Input) {
        match &input {
            Input::Persisted(id) => {
                // Batches become durable in order.
                let host = &mut self.hosts[i];
                let later = host.pending.split_off(&PersistId(id.0.saturating_add(1)));
                for batch in std::mem::replace(&mut host.pending, later).into_values() {
                    apply(&mut host.durable, &batch);
                    *self.counters.entry("a batch became durable").or_default() += 1;
                }
            }
            Input::Published(_) => self.hosts[i].published += 1,
            _ => {}
        }
        if let Some(node) = self.hosts[i].node.as_mut() {
            node.handle(now, input);
        } else if i == LIAR
            && let Some(liar) = self.liar.as_mut()
        {
            match input {
                Input::Datagram(bytes) => liar.datagram(now.time, &bytes),
                _ => liar.wake(now.time),
            }
        }
        self.drain(i);
    }

    /// Gives a node an input that tells of something which never happened.
    pub fn give_false(&mut self, i: usize, input: Input) {
        let now = self.clock(i);
        if let Some(node) = self.hosts[i].node.as_mut() {
            node.handle(now, input);
        }
        self.drain(i);
    }

    /// The liar says something over its link.
    pub fn lie(&mut self, to: usize, lane: usize, bytes: Vec<u8>) {
        let (now, to) = (self.now, self.ids[to]);
        if self.liar.as_mut().is_some_and(|liar| liar.say(now, to, lane, bytes)) {
            self.count("the liar was heard");
        }
        self.drain(LIAR);
    }

    fn drain(&mut self, i: usize) {
        let mut outputs = 0;
        while let Some(output) = self.hosts[i].node.as_mut().and_then(Node::poll) {
            outputs += 1;
            assert!(outputs < 20_000, "one input made node{i} do more than 20,000 things");
            self.output(i, output);
        }
        if i == LIAR && self.hosts[i].node.is_none() {
            while let Some((to, bytes)) = self.liar.as_mut().and_then(Liar::poll) {
                self.send(i, to, bytes);
            }
            if self.liar.as_ref().is_some_and(|liar| !liar.heard.is_empty()) {
                self.count("the liar heard something");
            }
        }
    }

    fn note(&mut self, i: usize, what: &str, bytes: &[u8]) {
        self.transcript.update([i as u8]);
        self.transcript.update(what.as_bytes());
        self.transcript.update((bytes.len() as u64).to_be_bytes());
        self.transcript.update(bytes);
    }

    fn send(&mut self, i: usize, to: NodeId, bytes: Vec<u8>) {
        let to = self.ids.iter().position(|id| *id == to).expect("datagrams go to peers");
        assert_ne!(to, i, "a node sends itself a datagram");
        if self.old.len() < OLD_MAX {
            self.old.push(bytes.clone());
        } else {
            let at = self.entropy as usize % OLD_MAX;
            self.entropy += 1;
            self.old[at] = bytes.clone();
        }
        if !self.cut.contains(&(i, to)) {
            self.fly(to, 300, Input::Datagram(bytes));
        }
    }

    fn output(&mut self, i: usize, output: Output) {
        match output {
            Output::Datagram { to, bytes } => {
                self.note(i, "datagram", &bytes);
                self.checks.datagram(&bytes);
                self.send(i, to, bytes);
            }
            Output::Persist { id, batch } => {
                self.checks.batch(&batch);
                for write in &batch.writes {
                    self.note(i, write.keyspace.name(), &write.key);
                    self.note(i, "value", write.value.as_ref().map_or(&[][..], Secret::expose));
                    if let (Some(written), Some(value)) = (&mut self.written, &write.value) {
                        written.push((write.keyspace, value.expose().to_vec()));
                    }
                }
                let host = &mut self.hosts[i];
                apply(&mut host.live, &batch);
                assert!(host.pending.insert(id, batch).is_none(), "two batches with one id");
                self.fly(i, 200, Input::Persisted(id));
            }
            Output::Load { id, keyspace, key } => {
                self.note(i, "load", &key);
                let value = self.hosts[i].live.get(&(keyspace, key)).cloned();
                self.fly(i, 50, Input::Loaded(id, value));
            }
            Output::Scan { id, keyspace, after, limit } => {
                self.note(i, "scan", &after);
                let page = self.hosts[i]
                    .live
                    .range((keyspace, after.clone())..)
                    .take_while(|((of, _), _)| *of == keyspace)
                    .filter(|((_, key), _)| after.is_empty() || *key > after)
                    .take(limit)
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect();
                self.fly(i, 50, Input::Scanned(id, page));
            }
            Output::Compute(job) => {
                self.note(i, "job", job.label.as_bytes());
                self.entropy += 1;
                let entropy = Sha256::digest(self.entropy.to_be_bytes()).into();
                self.fly(i, 1_000, Input::Computed(job.run(entropy)));
            }
            Output::Publish(publication) => {
                self.note(i, &publication.dedup, &publication.body);
                let disks: Vec<&Disk> = self.hosts.iter().map(|host| &host.durable).collect();
                let what = self.checks.published(&publication, &disks);
                self.count(what);
                self.fly(i, 300, Input::Published(publication.id));
            }
            Output::Reply { query, body } => {
                self.note(i, &format!("reply {}", query.0), &body);
                let what = self.checks.reply(&body);
                self.count(what);
            }
            Output::Settle { delivery, how } => {
                self.note(i, &format!("{how:?}"), &delivery.0.to_be_bytes());
                self.settle(i, delivery, how);
            }
            Output::Intake { kind, open } => {
                self.note(i, "intake", &[u8::from(open)]);
                let intake = &mut self.hosts[i].intake;
                let _ = if open { intake.insert(kind) } else { intake.remove(&kind) };
            }
            Output::Report(report) => {
                self.note(i, "report", report.to_string().as_bytes());
                self.checks.report(&report);
                match &report {
                    Report::LinkUp { .. } => self.count("link up"),
                    Report::LinkDown { .. } => self.count("link down"),
                    Report::SessionEnded { reason, .. } if !reason.is_empty() => self.count("a session failed"),
                    Report::Declined { .. } => self.count("a proposal was declined"),
                    Report::RequestWaits { .. } => self.count("a request waits"),
                    Report::Ignored { .. } => self.count("a message was ignored"),
                    Report::AuxiliaryReady { .. } => self.count("an auxiliary set is ready"),
                    _ => {}
                }
            }
        }
    }

    fn settle(&mut self, i: usize, delivery: DeliveryId, how: Settlement) {
        let host = &mut self.hosts[i];
        assert!(host.given.contains(&delivery), "node{i} settles {delivery:?}, which it was never given");
        if how == Settlement::Acknowledge {
            host.acknowledged += 1;
            assert!(host.acknowledged <= host.published, "node{i} acknowledges more than was published");
            *self.counters.entry("a delivery was acknowledged").or_default() += 1;
        }
        let deadline = self.now.after(Duration::from_secs(30));
        // A settlement counts for the message, whichever of its deliveries it is for.
        let Some(message) = self.queue.iter_mut().find(|message| message.delivery.id.0 >> 16 == delivery.0 >> 16)
        else {
            return;
        };
        message.state = match (how, &message.state) {
            (_, State::Done) | (Settlement::Acknowledge, _) => State::Done,
            (Settlement::KeepAlive, State::Out(_)) => State::Out(deadline),
            (Settlement::KeepAlive, State::Ready) | (Settlement::Release(_), _) => State::Ready,
        };
    }

    /// What must hold at every moment.
    pub fn check(&mut self) {
        for i in 0..NODES {
            let now = self.clock(i);
            if let Some(node) = &self.hosts[i].node {
                let status = node.status(now);
                self.checks.status(&status, node.coordinated());
                if status.presignatures.used > 0 {
                    self.count("a presignature was used");
                }
            }
        }
        let violations = self.witness.take_violations();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

fn identity(id: NodeId, i: usize) -> Identity {
    Identity::new(id, &[i as u8 + 1; 32])
}

fn apply(disk: &mut Disk, batch: &Batch) {
    for write in &batch.writes {
        let name = (write.keyspace, write.key.clone());
        match &write.value {
            Some(value) => drop(disk.insert(name, value.clone())),
            None => drop(disk.remove(&name)),
        }
    }
}

/// The name of a wallet by its number.
pub fn wallet(number: usize) -> String {
    format!("wallet-{number}")
}

/// A request to create a wallet, signed by the initiator or by a stranger.
pub fn keygen(number: usize, honest: bool) -> Request {
    signed(Request::Keygen(KeygenRequest { wallet_id: wallet(number), ..KeygenRequest::default() }), honest)
}

/// A request for a signature, signed by the initiator or by a stranger.
pub fn sign(number: usize, ecdsa: bool, transaction: usize, message: Vec<u8>, path: Vec<u32>, honest: bool) -> Request {
    let request = SignRequest {
        key_type: if ecdsa { "secp256k1" } else { "ed25519" }.to_owned(),
        wallet_id: wallet(number),
        network_internal_code: "net".to_owned(),
        tx_id: format!("tx-{transaction}"),
        tx: Some(message),
        derivation_path: path,
        ..SignRequest::default()
    };
    signed(Request::Sign(request), honest)
}

/// A request for a signature over a message that the nodes hash, for which they may use a presignature.
pub fn sign_hashed(number: usize, transaction: usize, hash: MessageHash, message: Vec<u8>) -> Request {
    let Request::Sign(request) = sign(number, true, transaction, Vec::new(), Vec::new(), true) else {
        panic!("another kind")
    };
    let mut request = Request::from(request.with_message(hash, message));
    // Every signing request of that transaction is another one, whichever fields its signature covers.
    let full = FullSignature {
        request_id: request.request_id().to_owned(),
        expires_at: START * 2,
        ..FullSignature::default()
    };
    *request.full_signature_mut() = Some(full);
    let bytes = request.full_bytes().expect("it has one");
    let signature = SigningKey::from_bytes(&INITIATOR).sign(&bytes).to_bytes().to_vec();
    request.full_signature_mut().as_mut().expect("just put in").signature = Some(signature);
    signed(request, true)
}

fn signed(mut request: Request, honest: bool) -> Request {
    let key = SigningKey::from_bytes(if honest { &INITIATOR } else { &[8; 32] });
    let signature = key.sign(&request.canonical());
    request.set_signature(signature.to_bytes().to_vec());
    request
}

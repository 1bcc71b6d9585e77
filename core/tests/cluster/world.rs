//! A cluster in virtual time: datagrams, disks and workers with fixed delays.

#[allow(clippy::duplicate_mod, reason = "the tests of core that include this file define the toy level besides")]
#[path = "../common_protocol/toy.rs"]
mod toy;

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use ed25519_dalek::{Signer as _, SigningKey};
use mpcium_client::{
    FullSignature,
    auth::{Authorization, InitiatorKey},
    query::WalletQuery,
    request::{KeygenRequest, Request, SignRequest},
};
use mpcium_core::{
    Config, Duration, Identity, Input, NodeId, Now, Output, PeerInfo, Secret, Time, WallTime,
    input::{Delivery, DeliveryId, QueryId, RequestKind},
    node::Node,
    output::{PersistId, Settlement},
    protocol::{Job, Priority, Suites, cggmp::Cggmp, frost::Frost, keygen::DistributedKeyGeneration},
    report::Report,
    store::{Batch, BootRecord, Keyspace},
};

pub use self::toy::Toy;

/// The cluster's chain code.
pub const CHAIN_CODE: [u8; 32] = [9; 32];
const INITIATOR: [u8; 32] = [7; 32];
const START: u64 = 1_800_000_000_000;

/// What a node has made durable.
pub type Disk = BTreeMap<(Keyspace, Vec<u8>), Secret>;

struct Host {
    node: Option<Node>,
    disk: Disk,
    starts: u8,
    intake: BTreeSet<RequestKind>,
    /// Deliveries that this node holds.
    held: BTreeMap<DeliveryId, Delivery>,
    /// Batches that wait for a disk that stands still.
    unwritten: Vec<(PersistId, Batch)>,
    /// Whether a test plays this node: what is sent to it is kept in `mail`.
    played: bool,
    mail: Vec<Vec<u8>>,
    sent: u64,
    /// How far its clock is ahead.
    ahead: Duration,
}

/// What is to happen.
enum Event {
    Give(usize, u8, Input),
    /// A worker has time for a job.
    Work(usize, u8, Job, [u8; 32]),
    Settle(usize, DeliveryId, Settlement),
}

/// A cluster.
pub struct World {
    hosts: Vec<Host>,
    ids: Vec<NodeId>,
    config: Vec<Config>,
    /// By node.
    suites: Vec<Suites>,
    /// Whether work for which nobody waits is never done.
    quiet: bool,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    pending: BTreeMap<u64, Event>,
    sequence: u64,
    queue: Vec<Delivery>,
    next_sequence: u64,
    /// Published results: subject, de-duplication id, document.
    pub results: Vec<(String, String, serde_json::Value)>,
    /// Replies to queries, with the node's number.
    pub replies: Vec<(usize, QueryId, serde_json::Value)>,
    /// All reports, with the node's number.
    pub reports: Vec<(usize, Report)>,
    /// Pairs of nodes between which datagrams are lost.
    pub cut: BTreeSet<(usize, usize)>,
    /// Nodes whose disks stand still: what is written can be read, but nothing becomes durable or is confirmed.
    pub still: BTreeSet<usize>,
    /// What the machines' entropy differs by from that of another world.
    pub entropy: u8,
    /// What a node's store says that it lacks, from its next start.
    pub damage: BTreeMap<usize, String>,
    /// Microseconds until a worker has done a job at a node; a thousand where nothing is said. `None`: it never comes back.
    pub work: BTreeMap<usize, Option<u64>>,
    /// Nodes whose workers begin with a job at once, however long they take.
    pub eager: BTreeSet<usize>,
    /// Batches made durable.
    pub batches: u64,
    /// The peer with which a node has just banned its auxiliary data, until that is durable.
    banning: BTreeMap<usize, usize>,
    /// Datagrams that left in that time for that peer.
    pub sent_while_banning: u64,
}

impl World {
    /// `n` nodes of which `threshold` sign, all started.
    pub fn new(n: u8, threshold: u16) -> Self {
        Self::with(n, threshold, |_| {})
    }

    /// As [`World::new`], with something changed in every node's configuration.
    pub fn with(n: u8, threshold: u16, change: impl Fn(&mut Config)) -> Self {
        Self::with_suites(threshold, vec![toy_suites(); usize::from(n)], change)
    }

    /// As [`World::with`], but nobody has the time to make auxiliary data, most of what a cluster computes: for
    /// everything that is not about ECDSA signatures.
    pub fn quiet(n: u8, threshold: u16, change: impl Fn(&mut Config)) -> Self {
        Self::built(threshold, vec![toy_suites(); usize::from(n)], true, change)
    }

    /// A node for each of these suites.
    pub fn with_suites(threshold: u16, suites: Vec<Suites>, change: impl Fn(&mut Config)) -> Self {
        Self::built(threshold, suites, false, change)
    }

    fn built(threshold: u16, suites: Vec<Suites>, quiet: bool, change: impl Fn(&mut Config)) -> Self {
        let n = u8::try_from(suites.len()).expect("few nodes");
        let ids: Vec<NodeId> = (0..n).map(|i| NodeId::from_bytes([i + 1; 16])).collect();
        let peers: Vec<PeerInfo> = (0..n)
            .map(|i| PeerInfo {
                id: ids[usize::from(i)],
                name: format!("node{i}"),
                key: Identity::new(ids[usize::from(i)], &[i + 1; 32]).public(),
            })
            .collect();
        let initiator = hex::encode(SigningKey::from_bytes(&INITIATOR).verifying_key().as_bytes());
        let config = ids
            .iter()
            .map(|me| {
                let mut config = Config {
                    me: *me,
                    peers: peers.clone(),
                    threshold,
                    chain_code: Some(CHAIN_CODE),
                    initiator: InitiatorKey::parse("ed25519", &initiator).expect("a key"),
                    authorization: Authorization::default(),
                    max_concurrent_keygen: 2,
                    max_concurrent_signing: 20,
                    presignatures: 0,
                    signing_deadline: Duration::from_secs(180),
                    keygen_deadline: Duration::from_secs(900),
                    clock_skew: Duration::from_secs(5),
                    workers: 2,
                    ingredients_reserve: 0,
                };
                change(&mut config);
                config.checked().expect("a configuration")
            })
            .collect();
        let hosts = (0..n)
            .map(|_| Host {
                node: None,
                disk: Disk::new(),
                starts: 0,
                intake: BTreeSet::new(),
                held: BTreeMap::new(),
                unwritten: Vec::new(),
                played: false,
                mail: Vec::new(),
                sent: 0,
                ahead: Duration::ZERO,
            })
            .collect();
        let mut world = Self {
            hosts,
            ids,
            config,
            suites,
            quiet,
            now: Time(0),
            events: BinaryHeap::new(),
            pending: BTreeMap::new(),
            sequence: 0,
            queue: Vec::new(),
            next_sequence: 1,
            results: Vec::new(),
            replies: Vec::new(),
            reports: Vec::new(),
            cut: BTreeSet::new(),
            still: BTreeSet::new(),
            entropy: 0,
            damage: BTreeMap::new(),
            work: BTreeMap::new(),
            eager: BTreeSet::new(),
            batches: 0,
            banning: BTreeMap::new(),
            sent_while_banning: 0,
        };
        for i in 0..usize::from(n) {
            world.start(i);
        }
        world
    }

    /// Changes every node's configuration; it holds from a node's next start.
    pub fn reconfigure(&mut self, change: impl Fn(&mut Config)) {
        for config in &mut self.config {
            change(config);
            *config = config.clone().checked().expect("a configuration");
        }
    }

    /// What a node runs with from its next start.
    pub fn change_suites(&mut self, i: usize, suites: Suites) {
        self.suites[i] = suites;
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, i: usize) {
        let now = self.clocks(i);
        let host = &mut self.hosts[i];
        host.starts += 1;
        let records = host
            .disk
            .iter()
            .filter(|((keyspace, _), _)| keyspace.loaded_at_boot())
            .map(|((keyspace, key), value)| (*keyspace, key.clone(), value.clone()))
            .collect();
        let mut seed = [i as u8 + 1; 32];
        seed[0] = host.starts;
        let config = self.config[i].clone();
        let identity = Identity::new(config.me, &[i as u8 + 1; 32]);
        let boot = BootRecord { records, damage: self.damage.get(&i).cloned().into_iter().collect() };
        host.node = Some(Node::new(config, identity, self.suites[i].clone(), boot, seed, now));
        self.drain(i);
    }

    /// Kills a node: what is not on its disk is gone, and what it held goes back to the queue.
    pub fn kill(&mut self, i: usize) {
        let host = &mut self.hosts[i];
        host.node = None;
        host.unwritten.clear();
        host.intake.clear();
        let held = std::mem::take(&mut host.held);
        for (_, mut delivery) in held {
            delivery.deliveries += 1;
            self.queue.push(delivery);
        }
        self.offer();
    }

    /// A node's process ends in good order.
    pub fn stop(&mut self, i: usize) {
        self.give(i, Input::Leave);
        self.kill(i);
    }

    /// A test plays node `i` from now on: what the others send to it comes with [`mail`](Self::mail), and what it says
    /// goes out with [`post`](Self::post).
    pub fn play(&mut self, i: usize) {
        self.kill(i);
        self.hosts[i].played = true;
    }

    /// What was sent to a node that a test plays since it was last asked for.
    pub fn mail(&mut self, i: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.hosts[i].mail)
    }

    /// A datagram to a node, from whoever a test plays.
    pub fn post(&mut self, to: NodeId, bytes: Vec<u8>) {
        let to = self.number(to);
        self.later(to, 300, Input::Datagram(bytes));
    }

    /// Datagrams that a node has sent.
    pub fn sent(&self, i: usize) -> u64 {
        self.hosts[i].sent
    }

    pub fn number(&self, id: NodeId) -> usize {
        self.ids.iter().position(|known| *known == id).expect("a peer")
    }

    pub fn id(&self, i: usize) -> NodeId {
        self.ids[i]
    }

    pub fn config(&self, i: usize) -> &Config {
        &self.config[i]
    }

    pub fn suites(&self, i: usize) -> &Suites {
        &self.suites[i]
    }

    /// The disk of a node works again: what waited is written, in order.
    pub fn move_on(&mut self, i: usize) {
        self.still.remove(&i);
        for (id, batch) in std::mem::take(&mut self.hosts[i].unwritten) {
            self.write(i, id, batch);
        }
    }

    /// Whether a node takes requests of a kind.
    pub fn takes(&self, i: usize, kind: RequestKind) -> bool {
        self.hosts[i].intake.contains(&kind)
    }

    pub fn disk(&mut self, i: usize) -> &mut Disk {
        &mut self.hosts[i].disk
    }

    pub fn node(&self, i: usize) -> &Node {
        self.hosts[i].node.as_ref().expect("the node runs")
    }

    /// What a node's clocks show.
    fn clocks(&self, i: usize) -> Now {
        let Now { time, wall } = self.now();
        Now { time, wall: wall.after(self.hosts[i].ahead) }
    }

    /// Puts a node's clock ahead of all others.
    pub fn set_ahead(&mut self, i: usize, ahead: Duration) {
        self.hosts[i].ahead = ahead;
    }

    pub fn now(&self) -> Now {
        Now { time: self.now, wall: WallTime(START + self.now.0 / 1000) }
    }

    /// A client's request enters the queue.
    pub fn request(&mut self, request: &Request) {
        let kind = match request {
            Request::Keygen(_) => RequestKind::Keygen,
            Request::Sign(_) => RequestKind::Sign,
            Request::Reshare(_) => RequestKind::Reshare,
        };
        self.raw_request(kind, request.to_json());
    }

    pub fn raw_request(&mut self, kind: RequestKind, body: Vec<u8>) {
        self.request_from(None, kind, body);
    }

    /// A request with this `ClientID` header.
    pub fn request_from(&mut self, client: Option<&str>, kind: RequestKind, body: Vec<u8>) {
        self.enqueue(client, kind, body, 1);
    }

    /// A request that the queue has given out so many times, this one included.
    pub fn request_delivered(&mut self, kind: RequestKind, body: Vec<u8>, deliveries: u64) {
        self.enqueue(None, kind, body, deliveries);
    }

    /// A client's signing request that the queue gives to this node.
    pub fn request_to(&mut self, i: usize, request: &Request) {
        let kind = match request {
            Request::Keygen(_) => RequestKind::Keygen,
            Request::Sign(_) => RequestKind::Sign,
            Request::Reshare(_) => RequestKind::Reshare,
        };
        let delivery = self.delivery(None, kind, request.to_json(), 1);
        self.hosts[i].held.insert(delivery.id, delivery.clone());
        self.later(i, 500, Input::Request(delivery));
    }

    fn enqueue(&mut self, client: Option<&str>, kind: RequestKind, body: Vec<u8>, deliveries: u64) {
        let delivery = self.delivery(client, kind, body, deliveries);
        self.queue.push(delivery);
        self.offer();
    }

    fn delivery(&mut self, client: Option<&str>, kind: RequestKind, body: Vec<u8>, deliveries: u64) -> Delivery {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Delivery {
            id: DeliveryId(sequence),
            kind,
            body,
            client: client.map(str::to_owned),
            stream: "stream".to_owned(),
            sequence,
            timestamp: self.now().wall,
            deliveries,
        }
    }

    /// Asks node `i` for a wallet and returns its reply.
    pub fn query(&mut self, i: usize, query: &WalletQuery) -> serde_json::Value {
        let number = QueryId(self.replies.len() as u64 + 1);
        self.give(i, Input::Query { query: number, body: query.to_json() });
        let replied = |w: &mut Self| w.replies.iter().any(|r| r.1 == number);
        assert!(self.run_until(Duration::from_secs(20), replied), "no reply; reports: {:#?}", self.last_reports());
        self.replies.iter().find(|r| r.1 == number).expect("just seen").2.clone()
    }

    /// Runs until `done` holds; `false` if `limit` passes first.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now.after(limit);
        loop {
            if done(self) {
                return true;
            }
            let wake = self.hosts.iter().enumerate().filter_map(|(i, h)| Some((h.node.as_ref()?.wake_at()?, i))).min();
            let event = self.events.peek().map(|Reverse((at, id))| (*at, *id));
            match (event, wake) {
                (Some((at, id)), wake) if wake.is_none_or(|(w, _)| at <= w) => {
                    if at > end {
                        return false;
                    }
                    self.events.pop();
                    self.now = self.now.max(at);
                    let event = self.pending.remove(&id).expect("an event");
                    self.happen(event);
                }
                (_, Some((at, i))) => {
                    if at > end {
                        return false;
                    }
                    self.now = self.now.max(at);
                    self.give(i, Input::Wake);
                    let node = self.hosts[i].node.as_ref().expect("it runs");
                    assert!(node.wake_at().is_none_or(|w| w > self.now), "node {i} wants to wake at once for ever");
                }
                _ => return false,
            }
        }
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.run_until(time, |_| false);
        self.now = self.now.max(end);
    }

    /// Runs until a result for this wallet and (for signatures) transaction is published.
    pub fn result(&mut self, wallet: &str, tx: Option<&str>) -> serde_json::Value {
        let matches = |r: &serde_json::Value| {
            r["wallet_id"] == wallet
                && tx.is_none_or(|tx| r["tx_id"] == tx)
                && (tx.is_some() == r.get("tx_id").is_some())
        };
        let found = self.run_until(Duration::from_secs(1200), |w| w.results.iter().any(|r| matches(&r.2)));
        assert!(found, "no result for {wallet} {tx:?}; reports: {:#?}", self.last_reports());
        self.results.iter().find(|r| matches(&r.2)).expect("just found").2.clone()
    }

    pub fn last_reports(&self) -> Vec<String> {
        let from = self.reports.len().saturating_sub(60);
        self.reports[from..].iter().map(|(i, r)| format!("node{i}: {r}")).collect()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Give(i, start, input) => {
                if self.hosts[i].starts == start {
                    self.give(i, input);
                }
            }
            Event::Work(i, start, job, entropy) => {
                if self.hosts[i].starts == start {
                    self.give(i, Input::Computed(job.run(entropy)));
                }
            }
            Event::Settle(i, id, how) => {
                let Some(mut delivery) = self.hosts[i].held.remove(&id) else { return };
                match how {
                    Settlement::Acknowledge => {}
                    Settlement::KeepAlive => drop(self.hosts[i].held.insert(id, delivery)),
                    Settlement::Release(_) => {
                        delivery.deliveries += 1;
                        self.queue.push(delivery);
                        self.offer();
                    }
                }
            }
        }
    }

    /// The queue gives what it has to a node that takes it, and when it comes back to the next one.
    fn offer(&mut self) {
        let mut left = Vec::new();
        for delivery in std::mem::take(&mut self.queue) {
            let open: Vec<usize> = (0..self.hosts.len())
                .filter(|i| self.hosts[*i].node.is_some() && self.hosts[*i].intake.contains(&delivery.kind))
                .collect();
            let turn = (delivery.sequence + delivery.deliveries.saturating_sub(1)) as usize;
            match open.get(turn % open.len().max(1)) {
                None => left.push(delivery),
                Some(i) => {
                    self.hosts[*i].held.insert(delivery.id, delivery.clone());
                    self.later(*i, 500, Input::Request(delivery));
                }
            }
        }
        self.queue = left;
    }

    fn later(&mut self, i: usize, micros: u64, input: Input) {
        let start = self.hosts[i].starts;
        self.schedule(micros, Event::Give(i, start, input));
    }

    fn schedule(&mut self, micros: u64, event: Event) {
        self.sequence += 1;
        self.pending.insert(self.sequence, event);
        self.events.push(Reverse((Time(self.now.0 + micros), self.sequence)));
    }

    /// One input for one node.
    pub fn give(&mut self, i: usize, input: Input) {
        let now = self.clocks(i);
        if matches!(input, Input::Persisted(_)) {
            self.banning.remove(&i);
        }
        if let Some(node) = self.hosts[i].node.as_mut() {
            node.handle(now, input);
            self.drain(i);
        }
    }

    fn write(&mut self, i: usize, id: PersistId, batch: Batch) {
        self.batches += 1;
        apply(&mut self.hosts[i].disk, batch);
        self.later(i, 200, Input::Persisted(id));
    }

    /// What a node reads: its disk, with what was written to it and is not durable yet.
    fn readable(&self, i: usize) -> Cow<'_, Disk> {
        let host = &self.hosts[i];
        let mut disk = Cow::Borrowed(&host.disk);
        for (_, batch) in &host.unwritten {
            apply(disk.to_mut(), batch.clone());
        }
        disk
    }

    fn drain(&mut self, i: usize) {
        let mut reoffer = false;
        while let Some(output) = self.hosts[i].node.as_mut().and_then(Node::poll) {
            match output {
                Output::Datagram { to, bytes } => {
                    self.hosts[i].sent += 1;
                    let to = self.number(to);
                    self.sent_while_banning += u64::from(self.banning.get(&i) == Some(&to));
                    if self.cut.contains(&(i, to)) {
                        continue;
                    }
                    if self.hosts[to].played {
                        self.hosts[to].mail.push(bytes);
                    } else if self.hosts[to].node.is_some() {
                        self.later(to, 300, Input::Datagram(bytes));
                    }
                }
                Output::Persist { id, batch } if self.still.contains(&i) => {
                    self.hosts[i].unwritten.push((id, batch));
                }
                Output::Persist { id, batch } => self.write(i, id, batch),
                Output::Load { id, keyspace, key } => {
                    let value = self.readable(i).get(&(keyspace, key)).cloned();
                    self.later(i, 50, Input::Loaded(id, value));
                }
                Output::Scan { id, keyspace, after, limit } => {
                    let disk = self.readable(i);
                    let records = disk.iter().filter(|((of, key), _)| *of == keyspace && *key > after);
                    let page = records.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect();
                    self.later(i, 50, Input::Scanned(id, page));
                }
                Output::Compute(job) if self.quiet && job.priority == Priority::Background => {}
                Output::Compute(job) => {
                    if let Some(micros) = self.work.get(&i).copied().unwrap_or(Some(1000)) {
                        let entropy = [self.sequence as u8 ^ self.entropy; 32];
                        if self.eager.contains(&i) {
                            self.later(i, micros, Input::Computed(job.run(entropy)));
                        } else {
                            self.schedule(micros, Event::Work(i, self.hosts[i].starts, job, entropy));
                        }
                    }
                }
                Output::Publish(publication) => {
                    let document: serde_json::Value =
                        serde_json::from_slice(&publication.body).expect("a JSON document");
                    match self.results.iter().find(|r| r.1 == publication.dedup) {
                        Some(first) => assert_eq!(first.2, document, "two answers to one delivery"),
                        None => self.results.push((publication.subject, publication.dedup, document)),
                    }
                    self.later(i, 300, Input::Published(publication.id));
                }
                Output::Reply { query, body } => {
                    let document = serde_json::from_slice(&body).expect("a JSON document");
                    self.replies.push((i, query, document));
                }
                Output::Settle { delivery, how } => self.schedule(100, Event::Settle(i, delivery, how)),
                Output::Intake { kind, open } => {
                    if open {
                        self.hosts[i].intake.insert(kind);
                        reoffer = true;
                    } else {
                        self.hosts[i].intake.remove(&kind);
                    }
                }
                Output::Report(report) => {
                    if let Report::PairBanned { peer, by, .. } = &report
                        && *by == format!("node{i}")
                    {
                        let peer = (0..self.hosts.len()).find(|j| *peer == format!("node{j}")).expect("a peer");
                        self.banning.insert(i, peer);
                    }
                    self.reports.push((i, report));
                }
            }
        }
        if reoffer {
            self.offer();
        }
    }
}

fn toy_suites() -> Suites {
    Suites {
        keygen: Arc::new(DistributedKeyGeneration),
        secp256k1: Arc::new(Cggmp::<Toy>::new()),
        ed25519: Arc::new(Frost),
    }
}

fn apply(disk: &mut Disk, batch: Batch) {
    for write in batch.writes {
        let name = (write.keyspace, write.key);
        match write.value {
            Some(value) => drop(disk.insert(name, value)),
            None => drop(disk.remove(&name)),
        }
    }
}

/// The error code of a result; empty on success.
pub fn code(result: &serde_json::Value) -> &str {
    result["error_code"].as_str().expect("a code")
}

/// Who attests a result, in hexadecimal digits of node ids.
pub fn attested_by(result: &serde_json::Value) -> Vec<String> {
    let all = result["attestations"].as_array().expect("results are attested");
    all.iter().map(|one| one["node_id"].as_str().expect("an id").to_owned()).collect()
}

/// A signed query for a wallet, an hour long.
pub fn query(wallet: &str) -> WalletQuery {
    let mut query = WalletQuery {
        wallet_id: wallet.to_owned(),
        request_id: "query".to_owned(),
        expires_at: START + 3_600_000,
        signature: None,
    };
    query.signature = Some(SigningKey::from_bytes(&INITIATOR).sign(&query.signed_bytes()).to_bytes().to_vec());
    query
}

/// A signed request to create a wallet.
pub fn keygen(wallet: &str) -> Request {
    signed(Request::Keygen(KeygenRequest { wallet_id: wallet.to_owned(), ..KeygenRequest::default() }))
}

/// A signed request for a signature.
pub fn sign(wallet: &str, key_type: &str, tx_id: &str, tx: &[u8], path: &[u32]) -> Request {
    signed(Request::Sign(SignRequest {
        key_type: key_type.to_owned(),
        wallet_id: wallet.to_owned(),
        network_internal_code: "test".to_owned(),
        tx_id: tx_id.to_owned(),
        tx: Some(tx.to_vec()),
        derivation_path: path.to_vec(),
        ..SignRequest::default()
    }))
}

/// With a full signature that ends `lifetime_ms` after the start of the world (before it, if negative).
pub fn in_full(mut request: Request, lifetime_ms: i64, client_id: Option<&str>) -> Request {
    *request.full_signature_mut() = Some(FullSignature {
        request_id: "request".to_owned(),
        expires_at: START.saturating_add_signed(lifetime_ms),
        client_id: client_id.map(str::to_owned),
        signature: None,
    });
    let bytes = request.full_bytes().expect("it has one");
    let signature = SigningKey::from_bytes(&INITIATOR).sign(&bytes).to_bytes().to_vec();
    request.full_signature_mut().as_mut().expect("just put in").signature = Some(signature);
    request
}

/// With the initiator's signature.
pub fn signed(mut request: Request) -> Request {
    let signature = SigningKey::from_bytes(&INITIATOR).sign(&request.canonical());
    request.set_signature(signature.to_bytes().to_vec());
    request
}

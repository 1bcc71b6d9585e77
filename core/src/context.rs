//! What all parts of a node share: its configuration, the present moment, the way out, and the promises that a
//! continuation runs only after what it depends on.

use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use zeroize::Zeroizing;

use crate::{
    Config, Identity, Incarnation, NodeId, Now, Output, Time,
    bucket::Bucket,
    input::DeliveryId,
    limits,
    link::{Lane, Links, Mark, SendError},
    message::Message,
    node::{Table, records},
    output::{LoadId, PersistId, Publication, PublishId, Settlement},
    planted::{Bug, planted},
    protocol::{Job, JobId, Outcome, Priority, Suites, Work},
    report::Report,
    request::{
        answers::{Attempt, DeliveryKey},
        ledger::RequestKey,
    },
    session::{Failure, Owner, SessionId, truncate},
    store::{Batch, Keyspace},
    tags,
};

/// What one part of the node tells the others; the node routes it.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message from a peer, or from this node to itself.
    Message { from: NodeId, message: Message },
    /// A run ended.
    SessionEnded { session: SessionId, owner: Owner, result: Result<Outcome, Failure> },
    /// A peer computes for a run that is over here: it is at its last step.
    StillComputing { session: SessionId, from: NodeId },
    /// A check failed that says something about the secrets of auxiliary sets, which this node has with these peers;
    /// nobody has heard of it yet.
    Ban { sets: Vec<(NodeId, [u8; 32])>, reason: String, unsaid: Vec<crate::session::Unsaid> },
    /// A wallet's records are in memory now, or known to be absent.
    WalletLoaded(String),
    /// A ledger record of this request is in memory now, or known to be absent.
    LedgerLoaded(RequestKey),
    /// A wallet's certificate became durable here.
    WalletActivated(String),
    /// None of a wallet's sessions so far becomes the wallet.
    SlotClosed(String),
    /// Something changed that requests may wait for: links, auxiliary sets, free places.
    Resume,
}

/// Which part continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// The node's own incarnation is durable: links may begin.
    Boot,
    /// It is noted that what this start of the node had written is lost.
    Conceded(Incarnation),
    /// Signing goes on.
    Signing(crate::request::signing::After),
    /// A wallet's creation goes on.
    Wallet(crate::wallet::activation::After),
    /// Auxiliary data goes on.
    Auxiliary(crate::auxiliary::After),
    /// An answer is decided.
    Answers(crate::request::answers::After),
    /// Nobody waits for it.
    Nothing,
}

/// Which part wants a record.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// The wallet cache.
    Wallet(crate::wallet::cache::Wanted),
    /// The ledger: a request's result.
    Result(RequestKey),
    /// The ledger: a delivery's verdict.
    Verdict(RequestKey, DeliveryKey),
    /// A peer that catches up: one page of certificates.
    CatchUp(crate::session::Participant, crate::node::CatchUpCursor),
}

/// What a job was for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JobFor {
    /// A step of a session.
    Session(SessionId),
    /// A piece of an ingredient.
    Piece,
    /// What makes signatures with an auxiliary set cheaper.
    Precomputation,
}

/// A write under way.
struct Write {
    after: After,
    /// How many commits the store holds once it is durable, if it counts.
    commits: Option<u64>,
    /// Marks of peers that it takes along.
    marks: Vec<(NodeId, Mark)>,
}

/// The shared state of a node's parts.
pub(crate) struct Context {
    pub config: Config,
    pub identity: Identity,
    pub suites: Suites,
    pub me: NodeId,
    pub incarnation: Incarnation,
    pub now: Now,
    /// `None` until this node's incarnation is durable.
    pub links: Option<Links>,
    /// Why this node must not sign: store damage, a rolled-back store.
    pub unfit: Vec<String>,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
    rng: ChaCha20Rng,
    next_id: u64,
    /// Attempts that this life has made at anything.
    attempts: u64,
    writes: BTreeMap<PersistId, Write>,
    /// Commits that the store holds, or will once it has done what was ordered.
    ordered: u64,
    /// Commits that the store is known to hold.
    durable: u64,
    loads: BTreeMap<LoadId, Wanted>,
    jobs: BTreeMap<JobId, JobFor>,
    publications: BTreeMap<PublishId, DeliveryId>,
    /// Nodes whose blame lasts until the given time.
    blamed: BTreeMap<NodeId, Time>,
    /// What is told of messages that are ignored, by the name of the peer.
    ignored: BTreeMap<String, Ignored>,
}

/// A peer says what is not understood or not allowed.
struct Ignored {
    /// When that may be told.
    told: Bucket,
    /// How often it was not, since it was told last.
    untold: u64,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({}, {})", self.me, self.incarnation)
    }
}

impl Context {
    /// `commits`: how many the store held at the start.
    pub fn new(config: Config, identity: Identity, suites: Suites, commits: u64, seed: [u8; 32], now: Now) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut incarnation = [0; 16];
        rng.fill_bytes(&mut incarnation);
        Self {
            me: config.me,
            config,
            identity,
            suites,
            incarnation: Incarnation(incarnation),
            now,
            links: None,
            unfit: Vec::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            rng,
            next_id: 0,
            attempts: 0,
            writes: BTreeMap::new(),
            ordered: commits,
            durable: commits,
            loads: BTreeMap::new(),
            jobs: BTreeMap::new(),
            publications: BTreeMap::new(),
            blamed: BTreeMap::new(),
            ignored: BTreeMap::new(),
        }
    }

    // Ways out.

    pub fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells people; but of what a peer says in vain only so much.
    pub fn report(&mut self, mut report: Report) {
        if let Report::Ignored { peer, what } = &mut report {
            let now = self.now.time;
            let told = self.ignored.entry(peer.clone()).or_insert_with(|| Ignored {
                told: Bucket::every(now, limits::TROUBLE_INTERVAL, limits::IGNORED_BURST),
                untold: 0,
            });
            if !told.told.admits(now) {
                told.untold += 1;
                return;
            }
            if told.untold > 0 {
                let report = Report::IgnoredUntold { peer: peer.clone(), messages: std::mem::take(&mut told.untold) };
                self.outputs.push_back(Output::Report(report));
            }
            // It may quote names that are as long as the peer likes.
            truncate(what);
        }
        self.outputs.push_back(Output::Report(report));
    }

    pub fn settle(&mut self, delivery: DeliveryId, how: Settlement) {
        self.outputs.push_back(Output::Settle { delivery, how });
    }

    pub fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sends to a peer over its link, or to this node itself. `false`: the link is down or its lane is full, so the
    /// message is lost.
    pub fn send(&mut self, to: NodeId, lane: Lane, message: Message) -> bool {
        if to == self.me {
            self.event(Event::Message { from: to, message });
            return true;
        }
        let Some(links) = self.links.as_mut() else { return false };
        matches!(links.send(self.now.time, to, lane, message.encode()), Ok(()))
    }

    /// Like [`send`](Self::send), telling a full lane from a link that is down.
    pub fn try_send(&mut self, to: NodeId, lane: Lane, message: &Message) -> Result<(), SendError> {
        let Some(links) = self.links.as_mut() else { return Err(SendError::NotUp) };
        links.send(self.now.time, to, lane, message.encode())
    }

    // Promises.

    /// Makes `batch` durable; `after` comes back once it is. It counts: what this node says afterwards tells its peers
    /// that the store holds so much, and a store that is found without it was rolled back.
    pub fn persist(&mut self, mut batch: Batch, after: After) {
        self.ordered += 1;
        records::put_commits(&mut batch, self.ordered);
        self.write(batch, after, Some(self.ordered));
    }

    /// Remembers how far a peer has come. That does not count, or two nodes would remember each other for ever.
    pub fn remember(&mut self, peer: NodeId, mark: Mark) {
        let mut batch = Batch::default();
        self.put_mark(&mut batch, peer, &mark);
        let others = self.write(batch, After::Nothing, None);
        others.push((peer, mark));
    }

    fn put_mark(&self, batch: &mut Batch, peer: NodeId, mark: &Mark) {
        if let Some(info) = self.config.peer(peer) {
            records::put_mark(batch, info, mark);
        }
    }

    /// Orders a write, which takes along what peers have said of themselves meanwhile.
    fn write(&mut self, mut batch: Batch, after: After, commits: Option<u64>) -> &mut Vec<(NodeId, Mark)> {
        let marks = self.links.as_mut().map(Links::take_unwritten).unwrap_or_default();
        for (peer, mark) in &marks {
            self.put_mark(&mut batch, *peer, mark);
        }
        let id = PersistId(self.fresh_id());
        self.outputs.push_back(Output::Persist { id, batch });
        &mut self.writes.entry(id).or_insert(Write { after, commits, marks }).marks
    }

    pub fn persisted(&mut self, id: PersistId) -> Option<After> {
        let Write { after, commits, marks } = self.writes.remove(&id)?;
        // Batches become durable in the order in which they were ordered.
        self.durable = commits.map_or(self.durable, |commits| self.durable.max(commits));
        if let Some(links) = self.links.as_mut() {
            links.committed(self.durable);
            for (peer, mark) in marks {
                links.remembered(self.now.time, peer, mark);
            }
        }
        Some(after)
    }

    /// Commits that the store holds.
    pub fn commits(&self) -> u64 {
        self.durable
    }

    pub fn load(&mut self, keyspace: Keyspace, key: Vec<u8>, wanted: Wanted) {
        let id = LoadId(self.fresh_id());
        self.loads.insert(id, wanted);
        self.outputs.push_back(Output::Load { id, keyspace, key });
    }

    pub fn scan(&mut self, keyspace: Keyspace, after: Vec<u8>, limit: usize, wanted: Wanted) {
        let id = LoadId(self.fresh_id());
        self.loads.insert(id, wanted);
        self.outputs.push_back(Output::Scan { id, keyspace, after, limit });
    }

    pub fn loaded(&mut self, id: LoadId) -> Option<Wanted> {
        self.loads.remove(&id)
    }

    /// Orders work from the workers.
    pub fn compute(&mut self, what: JobFor, priority: Priority, label: &'static str, heavy: bool, work: Work) -> JobId {
        let id = JobId(self.fresh_id());
        self.jobs.insert(id, what);
        self.outputs.push_back(Output::Compute(Job { id, priority, label, heavy, work }));
        id
    }

    pub fn computed(&mut self, id: JobId) -> Option<JobFor> {
        self.jobs.remove(&id)
    }

    pub fn publish(&mut self, delivery: DeliveryId, subject: String, dedup: String, body: Vec<u8>) {
        let id = PublishId(self.fresh_id());
        self.publications.insert(id, delivery);
        self.outputs.push_back(Output::Publish(Publication { id, subject, dedup, body }));
    }

    pub fn published(&mut self, id: PublishId) -> Option<DeliveryId> {
        if planted(Bug::EntryKept) {
            return self.publications.get(&id).copied();
        }
        self.publications.remove(&id)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A new attempt of this node's, above `known`.
    pub fn next_attempt(&mut self, known: u64) -> Attempt {
        let clock = if planted(Bug::AttemptNotFromClock) { 0 } else { self.now.wall.0 };
        self.attempt(known.saturating_add(1).max(clock))
    }

    /// An attempt of this number.
    pub fn attempt(&mut self, number: u64) -> Attempt {
        self.attempts += 1;
        Attempt { number, coordinator: self.me, incarnation: self.incarnation, serial: self.attempts }
    }

    /// The highest number that an honest node can have taken from its clock by now, in milliseconds.
    pub fn highest_by_clock(&self) -> u64 {
        self.now.wall.after(self.config.clock_skew * 2 + limits::PROPOSAL_WAIT).0
    }

    /// What is under way, for the status.
    pub fn tables(&self) -> Vec<Table> {
        let queued = self.links.as_ref().map_or(0, |links| links.states().iter().map(|s| s.queued_bytes).sum());
        vec![
            ("writes under way", self.writes.len(), None),
            ("reads under way", self.loads.len(), None),
            ("jobs under way", self.jobs.len(), None),
            ("publications under way", self.publications.len(), None),
            ("blamed nodes", self.blamed.len(), Some(self.config.peers.len())),
            ("bytes queued in links", queued, Some(self.config.peers.len() * 3 * crate::limits::LANE_BYTES_MAX)),
        ]
    }

    // Randomness.

    /// The seed of one run's generator, from core's generator and the execution id.
    pub fn session_seed(&mut self, execution_id: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let drawn = Zeroizing::new(self.random_bytes::<32>());
        tags::SESSION_SEED.derive(drawn.as_slice(), execution_id)
    }

    pub fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A number below `bound` (0 if `bound` is 0), as good as uniform while that is far below 2⁶⁴: for choices that nobody
    /// may foresee, not for secrets.
    pub fn random_below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.next_u64() % bound }
    }

    // Peers.

    pub fn name(&self, id: NodeId) -> String {
        self.config.name(id)
    }

    pub fn names(&self, ids: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        ids.into_iter().map(|id| self.config.name(id)).collect()
    }

    /// The incarnation under which a node answers now; this node's own for itself.
    pub fn incarnation_of(&self, id: NodeId) -> Option<Incarnation> {
        if id == self.me {
            return Some(self.incarnation);
        }
        self.links.as_ref().and_then(|links| links.incarnation_of(id))
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.incarnation_of(id).is_some()
    }

    /// Nodes that answer, this one included.
    pub fn reachable(&self) -> Vec<NodeId> {
        self.config.peers.iter().map(|p| p.id).filter(|id| self.is_up(*id)).collect()
    }

    /// Leaves a node out of attempts where others can do its work, for a while.
    pub fn blame(&mut self, id: NodeId) {
        if id != self.me {
            self.blamed.insert(id, self.now.time.after(crate::limits::BLAME_LASTS));
        }
    }

    pub fn is_blamed(&self, id: NodeId) -> bool {
        self.blamed.get(&id).is_some_and(|until| *until > self.now.time)
    }

    pub fn forgive(&mut self, id: NodeId) {
        self.blamed.remove(&id);
    }
}

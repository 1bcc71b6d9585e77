//! The simulated world: one table of future events, and the parts that the nodes' ports act upon.
//!
//! Everything that happens goes through [`World::handle`], in the order of time and, within one instant, of
//! scheduling. All chance comes from the world's own dice, so the executor's is irrelevant to what is drawn.

mod cheater;
mod clients;
mod disk;
mod faults;
mod machine;
mod network;
mod ports;
mod queue;
mod results;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use madsim::{runtime::Handle, time::Instant};
use mpcium_core::{
    Input,
    input::RequestKind,
    link::Lane,
    output::{Publication, Settlement},
    protocol::Suites,
};

pub use cheater::{Cheating, Proxy};
pub use clients::{Clients, Request};
pub use disk::Disk;
pub use machine::{CHAIN_CODE, Machine};
pub use network::Network;
pub use ports::process;
pub use queue::Queues;
pub use results::{Answer, Results};

use crate::{
    counters::Counters,
    dice::Dice,
    frozen::Frozen,
    ideal::Witness,
    invariants::{Fact, Invariant},
    log::Log,
    planted::Planted,
    scenario::{At, Scenario},
};

/// Events of one run after which something must be running in circles.
const EVENTS_MAX: u64 = 20_000_000;
/// The same for runs that last for days.
const EVENTS_MAX_SOAK: u64 = 400_000_000;

/// The world as tasks share it.
pub type Shared = Arc<Mutex<World>>;

/// Locks the world. A task that panicked while holding it has ended the run anyway.
pub fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A machine starts, unless something holds it down.
    Boot(usize),
    /// A fault begins.
    FaultBegins(usize),
    /// A fault ends.
    FaultEnds(usize),
    /// A backup is made for a later rollback.
    Backup(usize),
    /// A machine is cut off or comes back.
    Cut(usize, bool),
    /// A machine that died by itself may come back.
    Release(usize),
    /// A process is to stop in good order.
    Drain(usize),
    /// A process that was told so stops.
    Stop {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// A computation in which a party revealed its last secret of a run comes back to its node.
    Revealed {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
        /// What was revealed.
        reveals: Vec<crate::ideal::Reveal>,
    },
    /// A client acts.
    Step(usize),
    /// A datagram arrives.
    Datagram {
        /// At which node.
        to: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something reaches a process.
    Input {
        /// Which node.
        node: usize,
        /// Which of its processes; another one never gets it.
        generation: u64,
        /// What.
        input: Box<Input>,
    },
    /// The oldest unsynced batch has been written to the operating system's cache.
    Written {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// The oldest written batch is durable.
    Synced {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// The queue looks for takers.
    Offer(RequestKind),
    /// Nobody has acknowledged a delivery for too long.
    AcknowledgementMissing {
        /// Which queue.
        kind: RequestKind,
        /// Which message.
        sequence: u64,
        /// Which period of waiting; an older one means nothing.
        token: u64,
    },
    /// A settlement reaches the queue.
    Settle {
        /// Which queue.
        kind: RequestKind,
        /// Which message.
        sequence: u64,
        /// What.
        how: Settlement,
    },
    /// A publication reaches the result stream, or does not.
    Publish {
        /// Who publishes.
        node: usize,
        /// Which of its processes.
        generation: u64,
        /// What.
        publication: Publication,
    },
    /// Discovery tells everybody what it knows.
    Discovery,
    /// The links of a cheater's proxy have something to do.
    Proxy {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// A cheater sends a message that it held back or made up.
    Lie {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
        /// To whom.
        to: usize,
        /// In which lane.
        lane: Lane,
        /// The message.
        message: Vec<u8>,
    },
    /// Invariants that look at the state of things are checked.
    Inspect,
    /// The first phase ends.
    Heal,
    /// The core has settled: clients ask it for fresh work.
    Fresh {
        /// For ECDSA signatures, which need auxiliary data; otherwise for everything else.
        ecdsa: bool,
    },
    /// Whether everything has been answered.
    Review,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was wrong.
    Passed,
    /// Something was.
    Violated {
        /// The invariant.
        invariant: String,
        /// What happened.
        what: String,
    },
}

/// Everything that is not inside a node.
pub struct World {
    /// The run.
    pub scenario: Scenario,
    /// The nodes' machines.
    pub machines: Vec<Machine>,
    /// Between them.
    pub network: Network,
    /// From clients.
    pub queues: Queues,
    /// To clients.
    pub results: Results,
    /// The clients.
    pub clients: Clients,
    /// What the ideal suites saw.
    pub witness: Arc<Witness>,
    /// What stands between nodes that cheat and the others.
    pub proxies: BTreeMap<usize, Proxy>,
    /// What they remember.
    pub cheating: Cheating,
    /// What was counted.
    pub counters: Counters,
    /// What happened.
    pub log: Log,
    /// How it ended, once it has.
    pub verdict: Option<Verdict>,
    /// Whether the second phase has begun.
    pub healed: bool,
    /// Since when the healed core is asked for fresh work.
    pub fresh_since: Option<At>,
    /// Whether all fresh work was asked for.
    pub fresh: bool,
    /// The members of every auxiliary set that a node reported as ready, by name.
    pub auxiliary_sets: std::collections::BTreeSet<Vec<String>>,
    /// How long the cluster had run before this run, in microseconds.
    before: At,
    suites: Suites,
    dice: Dice,
    runtime: Handle,
    began: Instant,
    events: BTreeMap<(At, u64), Event>,
    scheduled: u64,
    waker: Option<Waker>,
    invariants: Vec<Box<dyn Invariant>>,
    me: Weak<Mutex<World>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(seed {}, {} events scheduled)", self.scenario.seed, self.events.len())
    }
}

/// The name of the world's stream of chance.
fn world_stream(luck: u64) -> String {
    if luck == 0 { "world".into() } else { format!("world {luck}") }
}

impl World {
    /// A world in which nothing has happened yet. Must be called inside the simulation's runtime.
    #[must_use]
    pub fn new(
        scenario: Scenario,
        suites: Suites,
        witness: Arc<Witness>,
        invariants: Vec<Box<dyn Invariant>>,
        log: Log,
    ) -> Shared {
        let seed = scenario.seed;
        let machines = (0..scenario.nodes).map(|node| Machine::new(&scenario, node)).collect();
        let network = Network::new(scenario.nodes);
        let clients = Clients::new(scenario.people, seed, scenario.manners);
        Arc::new_cyclic(|me| {
            let mut world = Self {
                machines,
                network,
                queues: Queues::default(),
                results: Results::default(),
                clients,
                witness,
                proxies: BTreeMap::new(),
                cheating: Cheating::new(seed),
                counters: Counters::default(),
                log,
                verdict: None,
                healed: false,
                fresh_since: None,
                fresh: false,
                auxiliary_sets: std::collections::BTreeSet::new(),
                before: 0,
                suites,
                dice: Dice::new(seed, &world_stream(scenario.luck)),
                runtime: Handle::current(),
                began: Instant::now(),
                events: BTreeMap::new(),
                scheduled: 0,
                waker: None,
                invariants,
                scenario,
                me: me.clone(),
            };
            let World { log, scenario, .. } = &mut world;
            log.event(0, None, "scenario", &[], || serde_json::json!({"scenario": scenario}));
            world.plan();
            if world.scenario.profile == crate::scenario::Profile::Upgrade {
                world.thaw();
            }
            Mutex::new(world)
        })
    }

    /// Begins with what an earlier version left.
    fn thaw(&mut self) {
        let frozen = match Frozen::first() {
            Ok(frozen) => frozen,
            Err(error) => panic!("the records of the first version cannot be read: {error}"),
        };
        self.before = frozen.at;
        for (machine, records) in self.machines.iter_mut().zip(frozen.disks) {
            machine.disk.fill(records);
        }
        let everybody = (0..self.scenario.nodes).map(|node| format!("node{node}")).collect();
        self.auxiliary_sets.insert(everybody);
        for request in frozen.requests {
            self.queues.skip(request.kind, request.sequence);
            let request = Request::from(request);
            self.observe(&Fact::Sent { request: &request });
            self.clients.old.push(request.clone());
            self.clients.requests.push(request);
        }
        for answer in frozen.answers {
            self.answered_before(answer);
        }
    }

    /// What the cluster leaves behind at this moment.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let records = |machine: &Machine| {
            let of =
                |keyspace| machine.disk.records(keyspace).map(move |(k, v)| (keyspace, k.clone(), v.expose().to_vec()));
            mpcium_core::store::Keyspace::ALL.into_iter().flat_map(of).collect()
        };
        Frozen {
            disks: self.machines.iter().map(records).collect(),
            requests: self.clients.requests.iter().map(crate::frozen::OldRequest::from).collect(),
            answers: self.results.published.clone(),
            at: self.now(),
        }
    }

    /// Puts everything that the scenario fixes into the table.
    fn plan(&mut self) {
        for node in 0..self.scenario.nodes {
            self.schedule(self.scenario.starts[node], Event::Boot(node));
        }
        for at in
            (0..self.scenario.steps.len()).filter(|at| !self.scenario.without_steps.contains(at)).collect::<Vec<_>>()
        {
            self.schedule(self.scenario.steps[at].at, Event::Step(at));
        }
        for at in
            (0..self.scenario.faults.len()).filter(|at| !self.scenario.without_faults.contains(at)).collect::<Vec<_>>()
        {
            let (from, until) = (self.scenario.faults[at].from, self.scenario.faults[at].until);
            self.schedule(from, Event::FaultBegins(at));
            self.schedule(until, Event::FaultEnds(at));
            if let crate::scenario::FaultKind::Rollback { backup, .. } = self.scenario.faults[at].kind {
                self.schedule(backup, Event::Backup(at));
            }
        }
        self.schedule(0, Event::Discovery);
        self.schedule(crate::scenario::SECOND, Event::Inspect);
        self.schedule(self.scenario.healed_at, Event::Heal);
    }

    /// Simulated time since the run began.
    #[must_use]
    pub fn now(&self) -> At {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When the run began, for timers.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// True wall time in milliseconds.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        // Any day will do; a fixed one keeps runs equal.
        1_800_000_000_000 + (self.before + self.now()) / crate::scenario::MILLISECOND
    }

    /// Lets something happen at a time.
    pub fn schedule(&mut self, at: At, event: Event) {
        self.scheduled += 1;
        let first = self.events.first_key_value().map(|(key, _)| key.0);
        self.events.insert((at, self.scheduled), event);
        if first.is_none_or(|first| at < first)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Lets something happen after a while, in microseconds.
    pub fn later(&mut self, delay: u64, event: Event) {
        let at = self.now() + delay;
        self.schedule(at, event);
    }

    /// Whether the bus can be reached by a node.
    #[must_use]
    pub fn on_bus(&self, node: usize) -> bool {
        self.network.bus_down == 0 && self.machines[node].cut == 0
    }

    /// Whether this bug was planted.
    #[must_use]
    pub fn has(&self, planted: Planted) -> bool {
        self.scenario.planted == Some(planted)
    }

    /// Ends the run: this must not have happened.
    pub fn violated(&mut self, invariant: &str, what: impl Into<String>) {
        if self.verdict.is_none() {
            let what = what.into();
            self.log.event(
                self.now(),
                None,
                "violation",
                what.as_bytes(),
                || serde_json::json!({"invariant": invariant, "what": what}),
            );
            self.verdict = Some(Verdict::Violated { invariant: invariant.into(), what });
        }
    }

    /// Shows a fact to every invariant.
    pub fn observe(&mut self, fact: &Fact<'_>) {
        let mut invariants = std::mem::take(&mut self.invariants);
        for invariant in &mut invariants {
            if let Err(what) = invariant.check(self, fact) {
                let name = invariant.name();
                self.violated(name, what);
            }
        }
        self.invariants = invariants;
    }

    /// Shows the invariants what the ideal suites saw.
    fn observe_witness(&mut self) {
        for what in self.witness.take_violations() {
            self.violated("one_time_secrets", what);
        }
        for secret in self.witness.take_secrets() {
            self.observe(&Fact::Secret { bytes: &secret });
        }
        for (execution, position) in self.witness.take_absorbed() {
            self.observe(&Fact::Absorbed { execution, position });
        }
        for message in self.witness.take_messages() {
            self.observe(&Fact::Signing { message: &message });
        }
    }

    /// A node is about to get a step back in which its party revealed its last secret.
    fn revealed(&mut self, node: usize, generation: u64, reveals: &[crate::ideal::Reveal]) {
        if self.is_current(node, generation) {
            for reveal in reveals {
                self.observe(&Fact::Revealed { node, reveal });
            }
        }
    }

    /// Ends everything that still runs.
    pub fn close(&mut self) {
        for node in 0..self.machines.len() {
            self.kill(node);
        }
        self.events.clear();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Boot(node) => self.boot(node),
            Event::FaultBegins(at) => self.fault_begins(at),
            Event::FaultEnds(at) => self.fault_ends(at),
            Event::Backup(at) => self.backup(at),
            Event::Cut(node, cut) => self.cut(node, cut),
            Event::Release(node) => self.release(node),
            Event::Drain(node) => self.drain(node),
            Event::Stop { node, generation } => self.stop_process(node, generation),
            Event::Revealed { node, generation, reveals } => self.revealed(node, generation, &reveals),
            Event::Step(at) => self.step(at),
            Event::Datagram { to, bytes } => self.datagram_arrives(to, bytes),
            Event::Input { node, generation, input } => self.input(node, generation, *input),
            Event::Written { node, generation } => self.written(node, generation),
            Event::Synced { node, generation } => self.synced(node, generation),
            Event::Offer(kind) => self.offer(kind),
            Event::AcknowledgementMissing { kind, sequence, token } => {
                self.acknowledgement_missing(kind, sequence, token);
            }
            Event::Settle { kind, sequence, how } => self.settle_arrives(kind, sequence, how),
            Event::Publish { node, generation, publication } => self.publish_arrives(node, generation, publication),
            Event::Discovery => self.discovery(),
            Event::Proxy { node, generation } => self.proxy_wakes(node, generation),
            Event::Lie { node, generation, to, lane, message } => self.lie(node, generation, to, lane, message),
            Event::Inspect => self.inspect(),
            Event::Heal => self.heal(),
            Event::Fresh { ecdsa } => self.ask_fresh(ecdsa),
            Event::Review => self.review(),
        }
        self.observe_witness();
    }
}

/// Moves the world until the run has a verdict.
pub async fn pump(shared: Shared) -> Verdict {
    loop {
        let next = {
            let mut world = lock(&shared);
            loop {
                if let Some(verdict) = world.verdict.clone() {
                    return verdict;
                }
                let soak = world.scenario.profile == crate::scenario::Profile::Soak;
                let most = if soak { EVENTS_MAX_SOAK } else { EVENTS_MAX };
                if world.log.events() > most {
                    world.violated("liveness", format!("more than {most} events in one run"));
                    continue;
                }
                let now = world.now();
                match world.events.first_key_value().map(|(key, _)| *key) {
                    Some(key) if key.0 <= now => {
                        if let Some(event) = world.events.remove(&key) {
                            world.handle(event);
                        }
                    }
                    Some(key) => break key.0,
                    None => {
                        world.violated("liveness", "nothing will ever happen again");
                    }
                }
            }
        };
        let began = lock(&shared).began();
        let sleep = std::pin::pin!(madsim::time::sleep_until(began + std::time::Duration::from_micros(next)));
        let earlier = std::future::poll_fn(|context| {
            let mut world = lock(&shared);
            if world.verdict.is_some() || world.events.first_key_value().is_some_and(|(key, _)| key.0 < next) {
                return std::task::Poll::Ready(());
            }
            world.waker = Some(context.waker().clone());
            std::task::Poll::Pending
        });
        futures::future::select(sleep, std::pin::pin!(earlier)).await;
    }
}

//! A node's machine: whether it runs, its clocks, its disk, and what reaches the process on it.

use std::{collections::BTreeMap, task::Waker};

use ed25519_dalek::{SigningKey, VerifyingKey};
use mpcium_core::{
    Config, Duration, Identity, Input, NodeId, Now, PeerInfo, Time, WallTime,
    input::RequestKind,
    node::Node,
    store::{BootRecord, Keyspace},
};
use mpcium_io::{driver, ports::Inbox};
use serde_json::json;

use super::{Disk, Event, Shared, World, network::digest, ports::Port, process};
use crate::{
    dice::Dice,
    invariants::Fact,
    planted::Planted,
    scenario::{At, CrashPoint, MILLISECOND, SECOND, Scenario},
};

/// One machine. Survives its processes.
#[derive(Debug)]
pub struct Machine {
    /// The node's id.
    pub id: NodeId,
    /// Counts its processes; a port of an older one does nothing.
    pub generation: u64,
    /// Whether a process runs.
    pub alive: bool,
    /// How many faults hold it down.
    pub down: u32,
    /// Whether it never comes back.
    pub gone: bool,
    /// How many faults cut it off from everything.
    pub cut: u32,
    /// Its disk.
    pub disk: Disk,
    /// Dies at a write: writes that still succeed, where, and until when it stays down.
    pub crash_armed: Option<(u64, CrashPoint, At)>,
    /// The next write fails.
    pub error_armed: bool,
    /// How many faults make every write fail.
    pub disk_full: u32,
    /// Its disk is slow.
    pub disk_slow: u32,
    /// Its processors are slow.
    pub slow: u32,
    /// How many faults let it hear nothing more once it has prepared a wallet.
    pub deaf_armed: u32,
    /// How many of them do so now.
    pub deaf: u32,
    /// Discovery's view of it is bad.
    pub blind: u32,
    /// What its links agree on, where somebody else needs to know.
    pub facets: Vec<(String, String)>,
    /// How often it was started.
    pub boots: u64,
    /// Whether it was ever rolled back.
    pub rolled_back: bool,
    /// Whether it was once rolled back to a moment within its last run, which its own records do not show, or worked with
    /// a peer after a rollback that neither of them knew of.
    pub rolled_back_within_run: bool,
    /// Whether its node has not noticed a rollback yet, which it may never do if all that heard of what is lost died too.
    pub rollback_unnoticed: bool,
    /// Whether its node knows that it was put back and is not up to date yet.
    pub behind: bool,
    /// Whether it takes requests.
    pub intake: BTreeMap<RequestKind, bool>,
    /// Where its process gets its inputs.
    pub inbox: Option<Inbox>,
    seed: [u8; 32],
    public_key: VerifyingKey,
    wall_offset_ms: i64,
    /// Monotonic time when the process began, and true time then.
    origin: (u64, At),
    simulated: Option<madsim::task::NodeId>,
    /// When its process wants to be woken, under which number in the table of events, and how. A process has one timer,
    /// which it sets anew all the time: the executor's timers cannot be taken back and would wake it for nothing.
    alarm: Option<((At, u64), Waker)>,
    /// Clock reads since simulated time last moved, to notice a node that runs in circles.
    sleeps: (At, u64),
}

/// The cluster's chain code.
pub const CHAIN_CODE: [u8; 32] = [7; 32];

/// Sleeps within one microsecond after which a node runs in circles.
const SLEEPS_MAX: u64 = 10_000;

impl Machine {
    /// Whether its node takes part although answers that it held are lost: it does not know of a rollback, or has been
    /// brought up to date, which brings back everything but answers.
    pub fn has_forgotten(&self) -> bool {
        self.rolled_back && !self.behind
    }

    /// A machine that has never been started.
    #[must_use]
    pub fn new(scenario: &Scenario, node: usize) -> Self {
        let mut dice = Dice::new(scenario.people, &format!("identity {node}"));
        let mut id = [0; 16];
        id.copy_from_slice(&dice.bytes(16));
        let seed = dice.bytes32();
        Self {
            id: NodeId::from_bytes(id),
            generation: 0,
            alive: false,
            down: 0,
            gone: false,
            cut: 0,
            disk: Disk::default(),
            crash_armed: None,
            error_armed: false,
            disk_full: 0,
            disk_slow: 0,
            slow: 0,
            deaf_armed: 0,
            deaf: 0,
            blind: 0,
            facets: Vec::new(),
            boots: 0,
            rolled_back: false,
            rolled_back_within_run: false,
            rollback_unnoticed: false,
            behind: false,
            intake: BTreeMap::new(),
            inbox: None,
            seed,
            public_key: SigningKey::from_bytes(&seed).verifying_key(),
            wall_offset_ms: scenario.clock_offsets_ms.get(node).copied().unwrap_or(0),
            origin: (0, 0),
            simulated: None,
            alarm: None,
            sleeps: (0, 0),
        }
    }

    /// The node's identity key, which a cheater's accomplice outside its process needs as well.
    pub(super) fn identity(&self) -> Identity {
        Identity::new(self.id, &self.seed)
    }

    pub(super) fn info(&self, node: usize) -> PeerInfo {
        PeerInfo { id: self.id, name: format!("node{node}"), key: self.public_key }
    }

    /// The public part of its identity key.
    #[must_use]
    pub fn public_key(&self) -> VerifyingKey {
        self.public_key
    }

    /// Sets the wall clock, in milliseconds from true time.
    pub fn set_wall_offset(&mut self, offset_ms: i64) {
        self.wall_offset_ms = offset_ms;
    }
}

impl World {
    /// A node's clocks.
    pub(super) fn clocks(&self, node: usize) -> Now {
        let machine = &self.machines[node];
        let (origin, began) = machine.origin;
        Now {
            time: Time(origin + self.now().saturating_sub(began)),
            wall: WallTime(self.wall_ms().saturating_add_signed(machine.wall_offset_ms)),
        }
    }

    /// A node's wall clock, in milliseconds.
    #[must_use]
    pub fn wall_of(&self, node: usize) -> u64 {
        self.clocks(node).wall.0
    }

    /// True time when a node's monotonic clock shows `time`. Panics if the node never lets time pass: a process that
    /// is always due runs in circles.
    pub(super) fn true_time(&mut self, node: usize, time: Time) -> At {
        let now = self.now();
        let machine = &mut self.machines[node];
        let (origin, began) = machine.origin;
        let at = time.0.saturating_sub(origin) + began;
        if at > now {
            machine.sleeps = (now, 0);
        } else {
            machine.sleeps.1 += 1;
            assert!(
                machine.sleeps.1 < SLEEPS_MAX,
                "node{node} runs in circles: wake_at stays at {at} us while it is {now} us"
            );
        }
        at
    }

    /// Wakes a process at a time, instead of when it wanted to be woken before.
    pub(super) fn set_alarm(&mut self, node: usize, at: At, waker: &Waker) {
        let alarm = &mut self.machines[node].alarm;
        match alarm {
            Some((set, earlier)) if set.0 == at => earlier.clone_from(waker),
            _ => {
                self.stop_alarm(node);
                let number = self.schedule(at, Event::Alarm(node));
                self.machines[node].alarm = Some(((at, number), waker.clone()));
            }
        }
    }

    fn stop_alarm(&mut self, node: usize) {
        if let Some((key, _)) = self.machines[node].alarm.take() {
            self.events.remove(&key);
        }
    }

    /// A process wanted to be woken now.
    pub(super) fn alarm(&mut self, node: usize) {
        if let Some((_, waker)) = self.machines[node].alarm.take() {
            waker.wake();
        }
    }

    /// Starts a machine, unless something holds it down.
    pub(super) fn boot(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.alive || machine.gone || machine.down > 0 {
            return;
        }
        machine.alive = true;
        machine.generation += 1;
        machine.boots += 1;
        machine.intake.clear();
        let generation = machine.generation;
        let boots = machine.boots;
        if boots > 1 {
            self.counters.sometimes("restart");
        }
        self.log.event(
            self.now(),
            Some(node),
            "boot",
            &generation.to_be_bytes(),
            || serde_json::json!({"process": generation}),
        );
        match self.machines[node].simulated {
            Some(simulated) => self.runtime.restart(simulated),
            None => {
                let me = self.me.clone();
                let built = self
                    .runtime
                    .create_node()
                    .name(format!("node{node}"))
                    .init(move || {
                        let shared = me.upgrade();
                        async move {
                            if let Some(shared) = shared {
                                process(shared, node).await;
                            }
                        }
                    })
                    .build();
                self.machines[node].simulated = Some(built.id());
            }
        }
    }

    /// What the process on a machine begins with.
    pub(super) fn begin(&mut self, shared: &Shared, node: usize) -> (Node, mpcium_io::ports::Events, Port) {
        let now = self.now();
        let origin = self.dice.between(0, 1 << 40);
        self.machines[node].origin = (origin, now);
        let peers = self.machines.iter().enumerate().map(|(at, machine)| machine.info(at)).collect();
        let initiator =
            if self.has(Planted::WrongInitiator) { self.clients.stranger() } else { self.clients.initiator() };
        let scenario = &self.scenario;
        // Where fewer are too few, nodes refuse to start, which shows nothing.
        let fewer = self.has(Planted::LowThreshold) && scenario.threshold > scenario.nodes / 2 + 1;
        let threshold = scenario.threshold - usize::from(fewer);
        let config = Config {
            me: self.machines[node].id,
            peers,
            threshold: u16::try_from(threshold).unwrap_or(u16::MAX),
            chain_code: Some(CHAIN_CODE),
            initiator,
            authorization: self.clients.authorization(),
            max_concurrent_keygen: scenario.concurrent_keygen,
            max_concurrent_signing: scenario.concurrent_signing,
            presignatures: scenario.presignatures,
            signing_deadline: Duration::from_secs(scenario.signing_deadline_s),
            keygen_deadline: Duration::from_secs(scenario.keygen_deadline_s),
            clock_skew: Duration::from_millis(scenario.clock_skew_ms),
            workers: 2,
            ingredients_reserve: 1,
        };
        let config = match config.checked() {
            Ok(config) => config,
            Err(error) => panic!("the scenario's configuration is refused: {error}"),
        };
        let identity = self.machines[node].identity();
        if self.scenario.is_cheater(node) {
            self.machines[node].facets = mpcium_core::node::facets(&config, &self.suites);
        }
        let disk = &self.machines[node].disk;
        let boot = disk.boot_record();
        if disk.records(Keyspace::Pending).next().is_some() {
            self.counters.sometimes("started with an undecided session");
        }
        if disk.records(Keyspace::Decisions).next().is_some() {
            self.counters.sometimes("started with an open decision");
        }
        let mut seed = self.dice.bytes32();
        if self.has(Planted::SameRandomness) {
            seed = self.machines[node].seed;
        }
        let core = Node::new(config, identity, self.suites.clone(), boot, seed, self.clocks(node));
        let (inbox, events) = Inbox::new();
        self.machines[node].inbox = Some(inbox);
        let generation = self.machines[node].generation;
        self.tell_peers(node);
        (core, events, Port { world: shared.clone(), node, generation })
    }

    /// A process ended by itself.
    pub(super) fn ended(&mut self, node: usize, generation: u64, result: Result<(), String>) {
        if !self.is_current(node, generation) {
            return;
        }
        let reason = result.err().unwrap_or_default();
        self.log.event(self.now(), Some(node), "exit", reason.as_bytes(), || serde_json::json!({"reason": reason}));
        self.stop(node);
        let delay = self.dice.between(SECOND, 5 * SECOND);
        self.later(delay, Event::Boot(node));
    }

    /// Whether a process is the one that runs.
    pub(super) fn is_current(&self, node: usize, generation: u64) -> bool {
        self.machines[node].alive && self.machines[node].generation == generation
    }

    fn stop(&mut self, node: usize) {
        self.proxies.remove(&node);
        self.stop_alarm(node);
        let machine = &mut self.machines[node];
        machine.alive = false;
        machine.inbox = None;
        machine.disk.crash(&mut self.dice, self.scenario.planted);
        self.log_disk(node, "crash");
    }

    /// Kills the process at once, as `kill -9` or a power failure does.
    pub(super) fn kill(&mut self, node: usize) {
        if !self.machines[node].alive {
            return;
        }
        self.log.event(self.now(), Some(node), "kill", &[], || serde_json::json!({}));
        self.stop(node);
        if let Some(simulated) = self.machines[node].simulated {
            self.runtime.kill(simulated);
        }
    }

    /// Kills a node because of a fault that counts, and holds it down.
    pub(super) fn hold_down(&mut self, node: usize) {
        self.machines[node].down += 1;
        self.kill(node);
    }

    /// One fault less holds a node down.
    pub(super) fn release(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.down = machine.down.saturating_sub(1);
        self.boot(node);
    }

    /// Stops a process in good order: it hands back what it has not begun, and a moment later it ends.
    pub(super) fn drain(&mut self, node: usize) {
        if let Some(inbox) = &self.machines[node].inbox {
            inbox.put(Input::Drain);
            let generation = self.machines[node].generation;
            let delay = self.dice.between(100 * MILLISECOND, 3 * SECOND);
            self.later(delay, Event::Stop { node, generation });
        }
    }

    /// Tells a process to end.
    pub(super) fn stop_process(&mut self, node: usize, generation: u64) {
        if self.is_current(node, generation)
            && let Some(inbox) = &self.machines[node].inbox
        {
            self.counters.sometimes("stopped in good order");
            inbox.stop();
        }
    }

    /// Freezes or thaws a process.
    pub(super) fn pause(&mut self, node: usize, frozen: bool) {
        if !self.machines[node].alive {
            return;
        }
        let kind = if frozen { "pause" } else { "resume" };
        self.log.event(self.now(), Some(node), kind, &[], || serde_json::json!({}));
        if let Some(simulated) = self.machines[node].simulated {
            if frozen {
                self.runtime.pause(simulated);
            } else {
                self.runtime.resume(simulated);
            }
        }
    }

    /// Hands an input to a process, if it still runs.
    pub(super) fn input(&mut self, node: usize, generation: u64, input: Input) {
        if !self.is_current(node, generation) {
            return;
        }
        let kind = input_name(&input);
        self.log.event(self.now(), Some(node), kind, &[], || input_fields(&input));
        if let Some(inbox) = &self.machines[node].inbox {
            inbox.put(input);
        }
    }

    /// Tells everybody what discovery knows.
    pub(super) fn discovery(&mut self) {
        for node in 0..self.machines.len() {
            self.tell_peers(node);
        }
        let delay = self.dice.between(SECOND, 4 * SECOND);
        self.later(delay, Event::Discovery);
    }

    fn tell_peers(&mut self, node: usize) {
        if !self.machines[node].alive || !self.on_bus(node) {
            return;
        }
        let blind = self.machines[node].blind > 0;
        // A machine that died is listed until its health check has failed: half of the time it still is.
        let listed: Vec<NodeId> = (0..self.machines.len())
            .filter(|other| {
                let registered = self.machines[*other].alive || (self.machines[*other].boots > 0 && !self.healed);
                registered && !(blind && self.dice.chance(0.5))
            })
            .map(|other| self.machines[other].id)
            .collect();
        let generation = self.machines[node].generation;
        self.later(MILLISECOND, Event::Input { node, generation, input: Box::new(Input::Peers(listed)) });
    }

    /// Looks at the state of all nodes.
    pub(super) fn inspect(&mut self) {
        for node in 0..self.machines.len() {
            let Some(inbox) = self.machines[node].inbox.clone() else { continue };
            let Some(shared) = self.me.upgrade() else { continue };
            let generation = self.machines[node].generation;
            madsim::task::spawn(async move {
                if let Some(status) = inbox.status().await {
                    let mut world = super::lock(&shared);
                    if world.is_current(node, generation) {
                        let now = world.now();
                        world.log.event(now, Some(node), "status", &[], || serde_json::json!({"status": status}));
                        world.observe(&Fact::Status { node, status: &status });
                    }
                }
            });
        }
        // In long runs looking often would cost more than running.
        let patient = self.scenario.profile == crate::scenario::Profile::Soak && !self.healed;
        self.later(if patient { 60 * SECOND } else { 2 * SECOND }, Event::Inspect);
    }
}

fn input_name(input: &Input) -> &'static str {
    match input {
        Input::Request(_) => "request",
        Input::Query { .. } => "query",
        Input::Datagram(_) => "datagram",
        Input::Peers(_) => "peers",
        Input::WalletsElsewhere(_) => "wallets_elsewhere",
        Input::Persisted(_) => "persisted",
        Input::Loaded(..) => "loaded",
        Input::Scanned(..) => "scanned",
        Input::Computed(_) => "computed",
        Input::Published(_) => "published",
        Input::Wake => "wake",
        Input::Drain => "drain",
        Input::Leave => "leave",
    }
}

/// What of an input belongs into the log: enough to find its cause, and no secret.
fn input_fields(input: &Input) -> serde_json::Value {
    match input {
        Input::Request(delivery) => json!({
            "stream": delivery.stream, "sequence": delivery.sequence, "delivery": delivery.deliveries, "id": delivery.id.0
        }),
        Input::Query { query, body } => json!({"id": query.0, "bytes": body.len()}),
        Input::Datagram(bytes) => json!({"bytes": bytes.len(), "digest": digest(bytes)}),
        Input::Peers(peers) => json!({"listed": peers.len()}),
        Input::WalletsElsewhere(wallets) => json!({"listed": wallets.len()}),
        Input::Persisted(id) => json!({"id": id.0}),
        Input::Loaded(id, value) => json!({"id": id.0, "found": value.is_some()}),
        Input::Scanned(id, page) => json!({"id": id.0, "found": page.len()}),
        Input::Published(id) => json!({"id": id.0}),
        Input::Computed(_) | Input::Wake | Input::Drain | Input::Leave => json!({}),
    }
}

impl Disk {
    /// What a process reads before it makes its node.
    pub(super) fn boot_record(&self) -> BootRecord {
        let records = Keyspace::ALL
            .into_iter()
            .filter(|keyspace| keyspace.loaded_at_boot())
            .flat_map(|keyspace| self.records(keyspace).map(move |(key, value)| (keyspace, key.clone(), value.clone())))
            .collect();
        BootRecord { records, damage: Vec::new() }
    }
}

/// Runs the real driver over simulated ports.
pub(super) async fn drive(core: &mut Node, events: mpcium_io::ports::Events, port: &Port) -> Result<(), String> {
    let ports = driver::Ports {
        datagrams: port.clone(),
        requests: port.clone(),
        results: port.clone(),
        store: port.clone(),
        workers: port.clone(),
        clock: port.clone(),
        reports: port.clone(),
    };
    driver::run(core, events, &ports).await
}

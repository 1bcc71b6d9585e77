//! The simulated world: one table of future events, and the parts that the nodes' ports act upon.
//!
//! Everything that happens goes through `World::handle`, in the order of time and, within one instant, of
//! scheduling. All chance comes from the world's own dice, so the executor's is irrelevant to what is drawn.

mod cheater;
mod clients;
mod disk;
mod events;
mod faults;
mod machine;
mod network;
mod ports;
mod queue;
mod results;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use madsim::{runtime::Handle, time::Instant};
use mpcium_core::protocol::Suites;

pub use cheater::{Cheating, Proxy};
pub use clients::{Clients, Request};
pub use disk::Disk;
pub use events::{Event, pump};
pub use machine::{CHAIN_CODE, Machine};
pub use network::Network;
pub use ports::process;
pub use queue::Queues;
pub use results::{Answer, Results};

use crate::{
    counters::Counters,
    dice::Dice,
    ideal::Witness,
    invariants::{Fact, Invariant},
    log::Log,
    planted::Planted,
    rare,
    scenario::{At, Scenario},
};

/// The world as tasks share it.
pub type Shared = Arc<Mutex<World>>;

/// Locks the world. A task that panicked while holding it has ended the run anyway.
pub fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    let mut world = shared.lock().unwrap_or_else(PoisonError::into_inner);
    // Time passes only while nothing runs.
    world.now = u64::try_from(world.began.elapsed().as_micros()).unwrap_or(u64::MAX);
    world
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
    /// The faults that make a node mute, and which node, once there is one.
    mute: BTreeMap<usize, Option<usize>>,
    /// The members of every auxiliary set that a node reported as ready, by name.
    pub auxiliary_sets: BTreeSet<Vec<String>>,
    /// How long the cluster had run before this run, in microseconds.
    before: At,
    suites: Suites,
    dice: Dice,
    runtime: Handle,
    began: Instant,
    /// Simulated time since then, in microseconds.
    now: At,
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

impl World {
    /// Simulated time since the run began.
    #[must_use]
    pub fn now(&self) -> At {
        self.now
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

    /// Lets something happen at a time; says under which number.
    pub fn schedule(&mut self, at: At, event: Event) -> u64 {
        self.scheduled += 1;
        let first = self.events.first_key_value().map(|(key, _)| key.0);
        self.events.insert((at, self.scheduled), event);
        if first.is_none_or(|first| at < first)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        self.scheduled
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
        rare::note(&mut self.counters, fact);
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
}

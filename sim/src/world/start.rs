//! How a world begins: empty, or with what an earlier version of the program left; and what it leaves behind itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use madsim::{runtime::Handle, time::Instant};
use mpcium_core::{protocol::Suites, store::Keyspace};

use super::{Cheating, Clients, Event, Machine, Network, Queues, Request, Results, Shared, World};
use crate::{
    counters::Counters,
    dice::Dice,
    frozen::{Frozen, OldRequest},
    ideal::Witness,
    invariants::{Fact, Invariant},
    log::Log,
    scenario::{FaultKind, Profile, SECOND, Scenario},
    small,
};

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
        let clients = Clients::new(scenario.people, seed, scenario.manners, scenario.presignatures > 0);
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
                mute: BTreeMap::new(),
                auxiliary_sets: BTreeSet::new(),
                before: 0,
                suites,
                dice: Dice::new(seed, &world_stream(scenario.luck)),
                runtime: Handle::current(),
                began: Instant::now(),
                now: 0,
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
            if world.scenario.profile == Profile::Upgrade {
                world.thaw();
            }
            if world.scenario.prepared {
                world.begin_prepared();
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

    /// Begins with auxiliary data and nothing else.
    fn begin_prepared(&mut self) {
        let left = small::left_before(&self.scenario);
        let named = |node: usize| format!("node{node}");
        let nodes = self.machines.len();
        // As sets of all, and as those of pairs, of which each suite makes one or the other.
        self.auxiliary_sets.insert((0..nodes).map(named).collect());
        self.auxiliary_sets.extend((0..nodes).flat_map(|a| (0..a).map(move |b| vec![named(b), named(a)])));
        for (machine, records) in self.machines.iter_mut().zip(left.iter()) {
            machine.disk.fill(records.clone());
        }
    }

    /// What the cluster leaves behind at this moment.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let records = |machine: &Machine| {
            let of =
                |keyspace| machine.disk.records(keyspace).map(move |(k, v)| (keyspace, k.clone(), v.expose().to_vec()));
            Keyspace::ALL.into_iter().flat_map(of).collect()
        };
        Frozen {
            disks: self.machines.iter().map(records).collect(),
            requests: self.clients.requests.iter().map(OldRequest::from).collect(),
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
            if let FaultKind::Rollback { backup, .. } = self.scenario.faults[at].kind {
                self.schedule(backup, Event::Backup(at));
            }
        }
        self.schedule(0, Event::Discovery);
        self.schedule(SECOND, Event::Inspect);
        self.schedule(self.scenario.healed_at, Event::Heal);
    }
}

//! The driver's ports, implemented on the simulated world. A port of a process that is dead does nothing, however long
//! its task lingers.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use mpcium_core::{
    Input, NodeId, Now, Time,
    input::{DeliveryId, RequestKind},
    output::{LoadId, PersistId, Publication, Settlement},
    protocol::Job,
    report::Report,
    store::{Batch, Keyspace},
};
use mpcium_io::ports::{Clock, Datagrams, Reports, Requests, Results, Store, Workers};
use serde_json::json;

use super::{Event, Shared, World, lock, machine::drive};
use crate::{invariants::Fact, planted::Planted, rare, scenario::MILLISECOND};

/// All ports of one process.
#[derive(Clone)]
pub struct Port {
    pub(super) world: Shared,
    pub(super) node: usize,
    pub(super) generation: u64,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port(node{}, process {})", self.node, self.generation)
    }
}

/// A node's process, from start to end: what madsim runs again after every restart.
pub async fn process(shared: Shared, node: usize) {
    let (mut core, events, port) = {
        let mut world = lock(&shared);
        if !world.machines[node].alive {
            return;
        }
        world.begin(&shared, node)
    };
    let result = drive(&mut core, events, &port).await;
    lock(&shared).ended(node, port.generation, result);
}

impl Port {
    /// Does something to the world, if this process still runs.
    fn with(&self, act: impl FnOnce(&mut World, usize, u64)) {
        let mut world = lock(&self.world);
        if world.is_current(self.node, self.generation) {
            act(&mut world, self.node, self.generation);
        }
    }
}

impl Datagrams for Port {
    fn send(&self, to: NodeId, bytes: Vec<u8>) {
        self.with(|world, node, _| {
            if let Some(to) = world.machines.iter().position(|machine| machine.id == to) {
                world.datagram_leaves(node, to, bytes);
            }
        });
    }
}

impl Requests for Port {
    fn intake(&self, kind: RequestKind, open: bool) {
        self.with(|world, node, _| {
            world.log.event(world.now(), Some(node), "intake", &[u8::from(open)], || json!({"of": kind, "open": open}));
            world.machines[node].intake.insert(kind, open);
            if open {
                world.later(MILLISECOND, Event::Offer(kind));
            }
        });
    }

    fn settle(&self, delivery: DeliveryId, how: Settlement) {
        self.with(|world, node, _| world.settle_leaves(node, delivery, how));
    }
}

impl Results for Port {
    fn publish(&self, publication: Publication) {
        self.with(|world, node, generation| world.publish_leaves(node, generation, publication));
    }
}

impl Store for Port {
    fn persist(&self, id: PersistId, batch: Batch) {
        self.with(|world, node, generation| {
            if world.has(Planted::SharesInClear) {
                for share in batch.writes.iter().filter(|write| write.keyspace == Keyspace::Shares) {
                    let bytes = share.value.as_ref().map(|value| value.expose().to_vec()).unwrap_or_default();
                    world.datagram_leaves(node, 0, bytes);
                }
            }
            world.persist(node, generation, id, batch);
        });
    }

    fn load(&self, id: LoadId, keyspace: Keyspace, key: Vec<u8>) {
        self.with(|world, node, generation| {
            world.log.event(
                world.now(),
                Some(node),
                "load",
                &key,
                || json!({"id": id.0, "in": keyspace.name(), "key": hex::encode(&key)}),
            );
            let value = world.machines[node].disk.read(keyspace, &key);
            world.disk_answers(node, generation, Input::Loaded(id, value));
        });
    }

    fn scan(&self, id: LoadId, keyspace: Keyspace, after: Vec<u8>, limit: usize) {
        self.with(|world, node, generation| {
            world.log.event(world.now(), Some(node), "scan", &after, || json!({"id": id.0, "in": keyspace.name()}));
            let page = world.machines[node].disk.page(keyspace, &after, limit);
            world.disk_answers(node, generation, Input::Scanned(id, page));
        });
    }
}

impl Workers for Port {
    fn submit(&self, job: Job) {
        self.with(|world, node, generation| {
            let (label, background) = (job.label, job.priority >= mpcium_core::protocol::Priority::Presigning);
            world.log.event(world.now(), Some(node), "compute", label.as_bytes(), || json!({"job": label}));
            let mut entropy = world.dice.bytes32();
            if world.has(Planted::SameRandomness) {
                entropy = [0; 32];
            }
            let computed = job.run(entropy);
            let reveals = world.witness.take_reveals();
            for seen in world.witness.take_pairs() {
                world.observe(&Fact::Pair { node, seen: &seen });
            }
            let most = world.scenario.rates.compute * if background { 10 } else { 1 };
            let mut delay = world.dice.between(10, most.max(10));
            if world.machines[node].slow > 0 {
                delay *= 50;
            }
            if world.has(Planted::LostComputation) && world.dice.below(16) == 0 {
                return;
            }
            if !reveals.is_empty() {
                world.later(delay, Event::Revealed { node, generation, reveals });
            }
            world.later(delay, Event::Input { node, generation, input: Box::new(Input::Computed(computed)) });
        });
    }
}

impl Clock for Port {
    fn now(&self) -> Now {
        lock(&self.world).clocks(self.node)
    }

    fn sleep_until(&self, time: Time) -> impl Future<Output = ()> {
        let at = lock(&self.world).true_time(self.node, time);
        poll_fn(move |context| {
            let mut world = lock(&self.world);
            if !world.is_current(self.node, self.generation) {
                return Poll::Pending;
            }
            if world.now() >= at {
                return Poll::Ready(());
            }
            world.set_alarm(self.node, at, context.waker());
            Poll::Pending
        })
    }
}

impl Reports for Port {
    fn report(&self, report: Report) {
        self.with(|world, node, _| {
            let text = serde_json::to_string(&report).unwrap_or_default();
            world.log.event(
                world.now(),
                Some(node),
                "report",
                text.as_bytes(),
                || json!({"report": report, "says": report.to_string()}),
            );
            if let Report::AuxiliaryReady { members, .. } = &report {
                world.auxiliary_sets.insert(members.clone());
            }
            if let Report::LinkUp { .. } = &report {
                // Whoever knows more of it has told it so before.
                let machine = &mut world.machines[node];
                machine.rolled_back_within_run |= machine.rollback_unnoticed;
            }
            if rare::tells_of_own_rollback(&report) {
                world.machines[node].rollback_unnoticed = false;
                world.machines[node].behind = true;
            }
            if matches!(report, Report::CaughtUp) {
                world.machines[node].behind = false;
            }
            world.observe(&Fact::Report { node, report: &report, text: &text });
        });
    }
}

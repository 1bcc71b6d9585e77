//! A node's disk: batches are written, then synced, in order; what was not synced may be lost when the machine dies.

use std::collections::{BTreeMap, VecDeque};

use mpcium_core::{
    Input, Secret,
    output::{PersistId, Record},
    report::Report,
    store::{Batch, Keyspace, Write},
    wallet::ShareRecord,
};
use serde_json::json;

use super::{Event, World};
use crate::{
    dice::Dice,
    invariants::Fact,
    planted::Planted,
    records,
    scenario::{CrashPoint, MILLISECOND, SECOND},
};

type Image = BTreeMap<Keyspace, BTreeMap<Vec<u8>, Secret>>;

/// Where a batch is on its way to the platters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In the process.
    Queued,
    /// In the operating system's cache.
    Written,
}

#[derive(Debug)]
struct Pending {
    id: PersistId,
    batch: Batch,
    stage: Stage,
    crash: Option<CrashPoint>,
}

/// A disk.
#[derive(Debug, Default)]
pub struct Disk {
    durable: Image,
    /// As the process sees it: with everything that it has ordered.
    live: Image,
    pending: VecDeque<Pending>,
    /// By fault: what was there, and of which process.
    backups: BTreeMap<usize, (u64, Image)>,
    /// The process that wrote last.
    writer: u64,
}

fn apply(image: &mut Image, batch: &Batch) {
    for write in &batch.writes {
        let records = image.entry(write.keyspace).or_default();
        match &write.value {
            Some(value) => records.insert(write.key.clone(), value.clone()),
            None => records.remove(&write.key),
        };
    }
}

impl Disk {
    /// What would be there after a power failure at this moment, without unsynced writes.
    pub fn records(&self, keyspace: Keyspace) -> impl Iterator<Item = (&Vec<u8>, &Secret)> {
        self.durable.get(&keyspace).into_iter().flatten()
    }

    /// Whether any durable record of a keyspace contains these bytes.
    #[must_use]
    pub fn holds(&self, keyspace: Keyspace, bytes: &[u8]) -> bool {
        self.records(keyspace).any(|(_, value)| value.expose().windows(bytes.len()).any(|window| window == bytes))
    }

    /// Reads as the process does.
    pub(super) fn read(&self, keyspace: Keyspace, key: &[u8]) -> Option<Secret> {
        self.live.get(&keyspace)?.get(key).cloned()
    }

    /// Lists as the process does.
    pub(super) fn page(&self, keyspace: Keyspace, after: &[u8], limit: usize) -> Vec<Record> {
        self.live
            .get(&keyspace)
            .into_iter()
            .flatten()
            .filter(|(key, _)| after.is_empty() || key.as_slice() > after)
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The machine dies: of what was written but not synced, a drawn part survives; of the rest, nothing.
    pub(super) fn crash(&mut self, dice: &mut Dice, planted: Option<Planted>) {
        let written = self.pending.iter().take_while(|pending| pending.stage == Stage::Written).count();
        let survives = dice.below(written as u64 + 1);
        for _ in 0..survives {
            if let Some(pending) = self.pending.pop_front() {
                apply(&mut self.durable, &pending.batch);
            }
        }
        if let Some(Planted::Forgets(keyspace)) = planted {
            self.durable.remove(&keyspace);
        }
        self.pending.clear();
        self.live = self.durable.clone();
    }

    /// Holds these records from the beginning.
    pub(super) fn fill(&mut self, records: Vec<crate::frozen::OldRecord>) {
        for (keyspace, key, value) in records {
            self.durable.entry(keyspace).or_default().insert(key, Secret::new(value));
        }
        self.live = self.durable.clone();
    }

    /// Keeps a copy for a later rollback.
    pub(super) fn back_up(&mut self, fault: usize, generation: u64) {
        self.backups.insert(fault, (generation, self.durable.clone()));
    }

    /// Becomes what it was; an empty disk if no backup was made. Says of which processes the last records were before
    /// and are now.
    pub(super) fn roll_back(&mut self, fault: usize) -> (u64, u64) {
        let before = self.writer;
        (self.writer, self.durable) = self.backups.remove(&fault).unwrap_or_default();
        self.live = self.durable.clone();
        self.pending.clear();
        (before, self.writer)
    }
}

impl World {
    /// A process orders a batch.
    pub(super) fn persist(&mut self, node: usize, generation: u64, id: PersistId, batch: Batch) {
        self.counters.writes += 1;
        let names: Vec<u8> = batch.writes.iter().flat_map(|write| write.key.iter().copied()).collect();
        self.log.event(self.now(), Some(node), "persist", &names, || {
            let write = |w: &Write| {
                let bytes = w.value.as_ref().map(|value| value.expose().len());
                json!({"in": w.keyspace.name(), "key": hex::encode(&w.key), "bytes": bytes})
            };
            json!({"id": id.0, "writes": batch.writes.iter().map(write).collect::<Vec<_>>()})
        });
        if self.machines[node].error_armed || self.machines[node].disk_full > 0 {
            self.counters.sometimes("a write failed");
            self.machines[node].error_armed = false;
            if let Some(inbox) = &self.machines[node].inbox {
                inbox.fatal("the disk is full");
            }
            return;
        }
        if self.has(Planted::ForgottenSync) && self.dice.chance(0.125) {
            apply(&mut self.machines[node].disk.live, &batch);
            self.later(0, Event::Input { node, generation, input: Box::new(Input::Persisted(id)) });
            return;
        }
        if self.has(Planted::ConfirmedBeforeWrite) {
            self.later(0, Event::Input { node, generation, input: Box::new(Input::Persisted(id)) });
        }
        let mut crash = None;
        if let Some((after, point, until)) = self.machines[node].crash_armed {
            if after == 0 {
                self.machines[node].crash_armed = None;
                crash = Some(point);
                let back = until.max(self.now() + SECOND);
                self.schedule(back, Event::Release(node));
                self.machines[node].down += 1;
            } else {
                self.machines[node].crash_armed = Some((after - 1, point, until));
            }
        }
        if crash == Some(CrashPoint::Before) {
            self.died_writing(node, CrashPoint::Before);
            return;
        }
        let disk = &mut self.machines[node].disk;
        apply(&mut disk.live, &batch);
        disk.pending.push_back(Pending { id, batch, stage: Stage::Queued, crash });
        if disk.pending.len() == 1 {
            self.write_next(node, generation);
        }
    }

    /// Writes down what is durable after the process has died or the disk was put back.
    pub(super) fn log_disk(&mut self, node: usize, why: &str) {
        let disk = &self.machines[node].disk;
        self.log.event(self.now(), Some(node), "disk", why.as_bytes(), || {
            let records: serde_json::Map<String, serde_json::Value> = Keyspace::ALL
                .into_iter()
                .map(|keyspace| {
                    let sizes: serde_json::Map<String, serde_json::Value> = disk
                        .records(keyspace)
                        .map(|(key, value)| (hex::encode(key), value.expose().len().into()))
                        .collect();
                    (keyspace.name().to_owned(), sizes.into())
                })
                .collect();
            json!({"after": why, "records": records})
        });
    }

    fn write_next(&mut self, node: usize, generation: u64) {
        if self.machines[node].disk.pending.is_empty() {
            return;
        }
        let delay = self.disk_delay(node);
        self.later(delay, Event::Written { node, generation });
    }

    fn disk_delay(&mut self, node: usize) -> u64 {
        let slow = if self.machines[node].disk_slow > 0 { 500 * MILLISECOND } else { 0 };
        self.dice.between(20, self.scenario.rates.write.max(20) + slow)
    }

    fn died_writing(&mut self, node: usize, point: CrashPoint) {
        self.counters.sometimes(match point {
            CrashPoint::Before => "crashed before a write",
            CrashPoint::Torn => "crashed inside a write",
            CrashPoint::Written => "crashed between write and sync",
            CrashPoint::Synced => "crashed between sync and answer",
        });
        self.kill(node);
    }

    /// The oldest batch reaches the cache. Batches that wait behind it share its sync.
    pub(super) fn written(&mut self, node: usize, generation: u64) {
        if !self.is_current(node, generation) {
            return;
        }
        // Whatever was ordered before the first batch that is to fail goes along.
        let mut torn = false;
        let mut cut = false;
        for pending in &mut self.machines[node].disk.pending {
            match pending.crash {
                Some(CrashPoint::Torn) => {
                    torn = true;
                    break;
                }
                Some(CrashPoint::Written) => {
                    pending.stage = Stage::Written;
                    cut = true;
                    break;
                }
                _ => pending.stage = Stage::Written,
            }
        }
        if torn {
            self.died_writing(node, CrashPoint::Torn);
        } else if cut {
            self.died_writing(node, CrashPoint::Written);
        } else {
            let delay = self.disk_delay(node);
            self.later(delay, Event::Synced { node, generation });
        }
    }

    /// Everything that has been written becomes durable.
    pub(super) fn synced(&mut self, node: usize, generation: u64) {
        if !self.is_current(node, generation) {
            return;
        }
        loop {
            let disk = &mut self.machines[node].disk;
            if disk.pending.front().is_none_or(|pending| pending.stage != Stage::Written) {
                break;
            }
            let Some(pending) = disk.pending.pop_front() else { break };
            apply(&mut disk.durable, &pending.batch);
            disk.writer = generation;
            self.log.event(
                self.now(),
                Some(node),
                "durable",
                &pending.id.0.to_be_bytes(),
                || json!({"id": pending.id.0}),
            );
            self.observe(&Fact::Durable { node, batch: &pending.batch });
            if self.has(Planted::ShareInReport) {
                self.tell_shares(node, &pending.batch);
            }
            self.may_fall_deaf(node, &pending.batch);
            self.may_fall_mute(node, &pending.batch);
            if self.scenario.is_cheater(node) {
                self.proxy_sees_write(node, generation, &pending.batch);
            }
            if pending.crash.is_some() {
                self.died_writing(node, CrashPoint::Synced);
                return;
            }
            if self.has(Planted::ConfirmedBeforeWrite)
                || (self.has(Planted::LostConfirmation) && self.dice.chance(0.125))
            {
                continue;
            }
            self.later(0, Event::Input { node, generation, input: Box::new(Input::Persisted(pending.id)) });
        }
        self.write_next(node, generation);
    }

    /// Reports what nobody may.
    fn tell_shares(&mut self, node: usize, batch: &Batch) {
        for write in batch.writes.iter().filter(|write| write.keyspace == Keyspace::Shares) {
            let Some(record) = write.value.as_ref().and_then(|v| records::read::<ShareRecord>(v.expose()).ok()) else {
                continue;
            };
            let report = Report::NotReady { waiting_for: format!("{:?}", record.share.secret.expose()) };
            self.observe(&Fact::Report { node, report: &report, text: "" });
        }
    }

    /// A read comes back after a while.
    pub(super) fn disk_answers(&mut self, node: usize, generation: u64, input: Input) {
        if self.has(Planted::LostRead) && self.dice.chance(0.125) {
            return;
        }
        let delay = self.disk_delay(node);
        self.later(delay, Event::Input { node, generation, input: Box::new(input) });
    }
}

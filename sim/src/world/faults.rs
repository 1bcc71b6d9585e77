//! Faults begin and end. Each may overlap with any other, also with itself: what is broken is counted.

use super::{Event, World};
use crate::{
    records,
    scenario::{FaultKind, SECOND},
};
use mpcium_core::{
    NodeId,
    input::RequestKind,
    store::{Batch, Keyspace},
    wallet::{AcceptorRecord, CertificateRecord, Choice, PendingRecord, record::Stored as _},
};

impl World {
    /// A fault begins.
    pub(super) fn fault_begins(&mut self, at: usize) {
        let fault = self.scenario.faults[at].clone();
        let name = fault.kind.name();
        self.counters.fault(name);
        self.log.event(
            self.now(),
            None,
            "fault begins",
            &at.to_be_bytes(),
            || serde_json::json!({"fault": at, "what": fault.kind}),
        );
        match fault.kind {
            FaultKind::Kill { node } => self.hold_down(node),
            FaultKind::Blackout => {
                for node in 0..self.machines.len() {
                    self.hold_down(node);
                }
            }
            FaultKind::Pause { node } => self.pause(node, true),
            FaultKind::CrashAtWrite { node, after, point } => {
                self.machines[node].crash_armed = Some((after, point, fault.until));
            }
            FaultKind::DiskError { node } => self.machines[node].error_armed = true,
            FaultKind::DiskSlow { node } => self.machines[node].disk_slow += 1,
            FaultKind::Rollback { node, .. } => {
                self.hold_down(node);
                let machine = &mut self.machines[node];
                let (from, to) = machine.disk.roll_back(at);
                machine.rolled_back = true;
                machine.rolled_back_within_run |= from == to;
                machine.rollback_unnoticed = true;
                self.log_disk(node, "rollback");
            }
            FaultKind::Isolate { node } => self.cut(node, true),
            FaultKind::Split { side } => self.split(&side, true),
            FaultKind::OneWay { directions } => {
                for (from, to) in directions {
                    self.network.block(from, to, true);
                }
            }
            FaultKind::Swizzle { leave, back } => {
                let (now, until) = (self.now(), fault.until);
                let step = ((until - now) / (2 * leave.len() as u64 + 1)).max(1);
                for (number, node) in leave.iter().enumerate() {
                    self.schedule(now + step * number as u64, Event::Cut(*node, true));
                }
                for (number, node) in back.iter().rev().enumerate() {
                    self.schedule(until - step * number as u64, Event::Cut(*node, false));
                }
            }
            FaultKind::Loss { per_mille } => self.network.loss.push(per_mille),
            FaultKind::Delay { longest } => self.network.delay.push(longest),
            FaultKind::Storm { copies } => self.network.storms.push(copies),
            FaultKind::StalledQueue => self.queues.stalled += 1,
            FaultKind::QueueFailover => self.queue_failover(),
            FaultKind::BusOutage => self.network.bus_down += 1,
            FaultKind::ClockJump { node, offset } => self.machines[node].set_wall_offset(offset),
            FaultKind::Discovery { node } => self.machines[node].blind += 1,
            FaultKind::Slow { node } => self.machines[node].slow += 1,
            FaultKind::DiskFull { node } => self.machines[node].disk_full += 1,
            FaultKind::Deaf { node } => self.machines[node].deaf_armed += 1,
            FaultKind::Mute => drop(self.mute.insert(at, None)),
            FaultKind::RollingRestart { order } => {
                let step = (fault.until - self.now()) / (order.len() as u64 + 1);
                for (number, node) in order.into_iter().enumerate() {
                    self.later(step * number as u64, Event::Drain(node));
                }
            }
        }
    }

    /// A fault ends.
    pub(super) fn fault_ends(&mut self, at: usize) {
        let fault = self.scenario.faults[at].clone();
        self.log.event(self.now(), None, "fault ends", &at.to_be_bytes(), || serde_json::json!({"fault": at}));
        match fault.kind {
            FaultKind::Kill { node } | FaultKind::Rollback { node, .. } => self.release(node),
            FaultKind::Blackout => {
                for node in 0..self.machines.len() {
                    self.release(node);
                }
            }
            FaultKind::Pause { node } => self.pause(node, false),
            FaultKind::CrashAtWrite { node, .. } => {
                if self.machines[node].crash_armed.is_some_and(|(_, _, until)| until == fault.until) {
                    self.machines[node].crash_armed = None;
                }
            }
            FaultKind::DiskError { node } => self.machines[node].error_armed = false,
            FaultKind::DiskSlow { node } => {
                self.machines[node].disk_slow = self.machines[node].disk_slow.saturating_sub(1);
            }
            FaultKind::Isolate { node } => self.cut(node, false),
            FaultKind::Split { side } => self.split(&side, false),
            FaultKind::OneWay { directions } => {
                for (from, to) in directions {
                    self.network.block(from, to, false);
                }
            }
            FaultKind::Loss { per_mille } => remove(&mut self.network.loss, per_mille),
            FaultKind::Delay { longest } => remove(&mut self.network.delay, longest),
            FaultKind::Storm { copies } => remove(&mut self.network.storms, copies),
            FaultKind::StalledQueue => {
                self.queues.stalled = self.queues.stalled.saturating_sub(1);
                self.offer_all();
            }
            FaultKind::BusOutage => {
                self.network.bus_down = self.network.bus_down.saturating_sub(1);
                self.offer_all();
            }
            FaultKind::Discovery { node } => self.machines[node].blind = self.machines[node].blind.saturating_sub(1),
            FaultKind::Slow { node } => self.machines[node].slow = self.machines[node].slow.saturating_sub(1),
            FaultKind::DiskFull { node } => {
                self.machines[node].disk_full = self.machines[node].disk_full.saturating_sub(1);
            }
            FaultKind::Deaf { node } => self.hears_again(node),
            FaultKind::Mute => {
                if let Some(node) = self.mute.remove(&at).flatten() {
                    self.silence(node, false);
                }
            }
            // A swizzle ends by its own events; a clock stays wrong; a failover is over at once.
            FaultKind::Swizzle { .. }
            | FaultKind::ClockJump { .. }
            | FaultKind::QueueFailover
            | FaultKind::RollingRestart { .. } => {}
        }
    }

    fn offer_all(&mut self) {
        self.later(0, Event::Offer(RequestKind::Keygen));
        self.later(SECOND / 1_000, Event::Offer(RequestKind::Sign));
    }

    /// A backup is made.
    pub(super) fn backup(&mut self, at: usize) {
        if let FaultKind::Rollback { node, .. } = self.scenario.faults[at].kind {
            let generation = self.machines[node].generation;
            self.machines[node].disk.back_up(at, generation);
        }
    }

    /// One fault more or less cuts a node off from everything.
    pub(super) fn cut(&mut self, node: usize, cut: bool) {
        if self.healed {
            return;
        }
        let machine = &mut self.machines[node];
        machine.cut = if cut { machine.cut + 1 } else { machine.cut.saturating_sub(1) };
        if !cut {
            self.offer_all();
        }
    }

    /// Something became durable at a node: if a wallet is prepared now, and faults wait for that, it hears nothing more.
    pub(super) fn may_fall_deaf(&mut self, node: usize, batch: &Batch) {
        let machine = &mut self.machines[node];
        if machine.deaf_armed > 0 && machine.deaf == 0 && prepares(batch) {
            machine.deaf = machine.deaf_armed;
            self.counters.sometimes("a member did not hear that a wallet was decided");
            self.deafen(node, true);
        }
    }

    /// One fault less lets a node hear nothing.
    fn hears_again(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.deaf_armed = machine.deaf_armed.saturating_sub(1);
        if machine.deaf > 0 && machine.deaf_armed == 0 {
            machine.deaf = 0;
            self.deafen(node, false);
        }
    }

    /// Something became durable at a node: if a fault waits for it, the others hear nothing more of that node; and if
    /// they do not hear of a decision, that is counted.
    pub(super) fn may_fall_mute(&mut self, node: usize, batch: &Batch) {
        if self.mute.is_empty() {
            return;
        }
        if decides(batch) && self.mute.values().any(|mute| *mute == Some(node)) {
            self.counters.sometimes("nobody heard from whom a wallet was decided");
        }
        if self.mute.values().all(|mute| *mute != Some(node))
            && votes_in_ballot_of(self.machines[node].id, batch)
            && let Some(waiting) = self.mute.values_mut().find(|mute| mute.is_none())
        {
            *waiting = Some(node);
            self.silence(node, true);
        }
    }

    fn silence(&mut self, node: usize, block: bool) {
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.network.block(node, other, block);
        }
    }

    fn deafen(&mut self, node: usize, block: bool) {
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.network.block(other, node, block);
        }
    }

    fn split(&mut self, side: &[usize], block: bool) {
        for a in 0..self.machines.len() {
            for b in 0..self.machines.len() {
                if side.contains(&a) != side.contains(&b) {
                    self.network.block(a, b, block);
                }
            }
        }
    }
}

fn remove(values: &mut Vec<u64>, value: u64) {
    if let Some(at) = values.iter().position(|other| *other == value) {
        values.swap_remove(at);
    }
}

/// What a batch makes durable in a keyspace.
fn written(batch: &Batch, keyspace: Keyspace) -> impl Iterator<Item = &[u8]> {
    let writes = batch.writes.iter().filter(move |write| write.keyspace == keyspace);
    writes.filter_map(|write| write.value.as_ref().map(|value| value.expose()))
}

/// Whether a batch makes it durable that a wallet is prepared.
fn prepares(batch: &Batch) -> bool {
    let mut records = written(batch, Keyspace::Pending).filter_map(|value| PendingRecord::decode(value).ok());
    records.any(|record| matches!(record, PendingRecord::Prepared(_)))
}

/// Whether a batch makes a vote for a session durable, in a ballot of this node.
fn votes_in_ballot_of(id: NodeId, batch: &Batch) -> bool {
    let mut records =
        written(batch, Keyspace::Decisions).filter_map(|value| records::read::<AcceptorRecord>(value).ok());
    records.any(|record| {
        let acceptor = &record.acceptor;
        acceptor.voted().is_some_and(|voted| {
            // Otherwise it is an older one, and something else was promised since.
            acceptor.promised() == Some(voted.ballot)
                && voted.ballot.node == id
                && matches!(voted.value, Choice::Session(_))
        })
    })
}

/// Whether a batch makes a wallet durable.
fn decides(batch: &Batch) -> bool {
    written(batch, Keyspace::Certificates).any(|value| records::read::<CertificateRecord>(value).is_ok())
}

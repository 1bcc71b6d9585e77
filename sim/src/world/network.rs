//! Datagrams between nodes: lost, late, repeated, out of order, damaged, or old ones once more.

use std::collections::VecDeque;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Event, World};
use crate::invariants::Fact;

/// Old datagrams per node that may come back.
const REMEMBERED: usize = 64;

/// What lies between the nodes.
#[derive(Debug)]
pub struct Network {
    /// How many faults block each direction.
    blocked: Vec<Vec<u32>>,
    /// Extra loss of active faults, in thousandths.
    pub loss: Vec<u64>,
    /// Longest extra delay of active faults, in microseconds.
    pub delay: Vec<u64>,
    /// How often datagrams arrive, by active faults.
    pub storms: Vec<u64>,
    /// How many faults keep everybody from the bus.
    pub bus_down: u32,
    history: Vec<VecDeque<Vec<u8>>>,
}

impl Network {
    /// A network that works.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            blocked: vec![vec![0; nodes]; nodes],
            loss: Vec::new(),
            delay: Vec::new(),
            storms: Vec::new(),
            bus_down: 0,
            history: vec![VecDeque::new(); nodes],
        }
    }

    /// One fault more or less blocks a direction.
    pub fn block(&mut self, from: usize, to: usize, block: bool) {
        if let Some(count) = self.blocked.get_mut(from).and_then(|row| row.get_mut(to)) {
            *count = if block { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        for count in self.blocked.iter_mut().flatten() {
            *count = 0;
        }
        self.loss.clear();
        self.delay.clear();
        self.storms.clear();
        self.bus_down = 0;
    }
}

/// Names a datagram in the log, so that its arrivals can be found.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..6])
}

impl World {
    /// A node sends; what a cheater sends reaches its proxy first.
    pub(super) fn datagram_leaves(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.scenario.is_cheater(from) {
            self.proxy_hears_node(from, to, &bytes);
        } else {
            self.datagram_travels(from, to, bytes);
        }
    }

    /// A datagram goes out into the network.
    pub(super) fn datagram_travels(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.counters.datagrams += 1;
        self.log.event(
            self.now(),
            Some(from),
            "send",
            &bytes,
            || json!({"to": format!("node{to}"), "bytes": bytes.len(), "digest": digest(&bytes)}),
        );
        self.observe(&Fact::Datagram { from, bytes: &bytes });
        let rates = self.scenario.rates.clone();
        let chance = |world: &mut Self, per_mille: u64| !world.healed && world.dice.below(1_000) < per_mille;
        let extra_loss = self.network.loss.iter().copied().max().unwrap_or(0);
        if self.network.blocked[from][to] > 0
            || !self.on_bus(from)
            || chance(self, rates.loss)
            || chance(self, extra_loss)
        {
            self.log.event(
                self.now(),
                Some(from),
                "lost",
                &[],
                || json!({"what": "datagram", "to": format!("node{to}"), "digest": digest(&bytes)}),
            );
            return;
        }
        if self.healed && rates.healed_loss > 0 && self.dice.below(1_000) < rates.healed_loss {
            return;
        }
        if chance(self, rates.duplicate) {
            self.carry(to, bytes.clone());
        }
        for _ in 1..self.network.storms.iter().copied().max().unwrap_or(1) {
            self.carry(to, bytes.clone());
        }
        if chance(self, rates.corrupt) && !bytes.is_empty() {
            let mut damaged = bytes.clone();
            let at = usize::try_from(self.dice.below(damaged.len() as u64)).unwrap_or(0);
            damaged[at] ^= 1 << self.dice.below(8);
            self.carry(to, damaged);
        }
        if chance(self, rates.replay) {
            let history = self.network.history[to].make_contiguous();
            if let Some(old) = self.dice.pick(history).cloned() {
                self.carry(to, old);
            }
        }
        if rates.replay > 0 {
            let history = &mut self.network.history[to];
            // Every eighth, so that what comes back is old enough to be of another session or process.
            if self.counters.datagrams.is_multiple_of(8) {
                if history.len() == REMEMBERED {
                    history.pop_front();
                }
                history.push_back(bytes.clone());
            }
        }
        self.carry(to, bytes);
    }

    fn carry(&mut self, to: usize, bytes: Vec<u8>) {
        let (least, most) = self.scenario.rates.latency;
        let mut delay = self.dice.between(least, most);
        if !self.healed {
            if self.dice.below(1_000) < self.scenario.rates.late {
                delay *= 20;
            }
            let extra = self.network.delay.iter().copied().max().unwrap_or(0);
            delay += self.dice.between(0, extra);
        }
        self.later(delay, Event::Datagram { to, bytes });
    }

    /// A datagram arrives, if its receiver runs and can be reached.
    pub(super) fn datagram_arrives(&mut self, to: usize, bytes: Vec<u8>) {
        if !self.machines[to].alive || !self.on_bus(to) {
            self.log.event(
                self.now(),
                None,
                "lost",
                &[],
                || json!({"what": "datagram", "to": format!("node{to}"), "digest": digest(&bytes)}),
            );
            return;
        }
        if self.scenario.is_cheater(to) {
            return self.proxy_hears_network(to, &bytes);
        }
        let generation = self.machines[to].generation;
        self.input(to, generation, mpcium_core::Input::Datagram(bytes));
    }
}

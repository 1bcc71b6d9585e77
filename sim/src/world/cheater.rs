//! Nodes that cheat: a real node, with a proxy between it and the network.
//!
//! The proxy holds the node's identity and speaks for it towards the others, over links of its own; towards the node
//! it plays the others. So every message passes through it in clear, and whatever it makes of one leaves validly
//! sealed. The node inside is the shipped one and knows nothing of it.
//!
//! Messages are altered by their layout, not by core's own types, which core does not hand out. A layout that has
//! changed makes a lie miss; `reached.rs` demands that each of them is told.

mod anatomy;

use std::collections::{BTreeMap, VecDeque};

use mpcium_core::{
    Incarnation, NodeId, Time,
    link::{Lane, LinkConfig, LinkOutput, Links, Mark, Start},
    store::{Batch, Keyspace},
};
use serde_json::json;

use super::{Event, World};
use crate::{
    dice::Dice,
    scenario::{Lie, MILLISECOND, SECOND},
};

/// Old messages of its own that a cheater may repeat.
const REMEMBERED: usize = 128;
/// How often, and how soon again, ballots about one request are raised.
const RAISED: (u64, u64) = (40, 250 * MILLISECOND);
/// How often a message is repeated.
const REPEATED: u64 = 40;
/// Invented sessions of one flood, and bytes of each message.
const FLOOD: (u64, usize) = (90, 200);

/// What a cheater keeps in mind across its restarts.
#[derive(Debug, Default)]
struct Memory {
    starts: BTreeMap<Incarnation, Start>,
    peers: BTreeMap<NodeId, Mark>,
    peers_starts: BTreeMap<NodeId, BTreeMap<Incarnation, Start>>,
    sent: VecDeque<(usize, Lane, Vec<u8>)>,
}

/// What stands between one process of a cheating node and the others.
pub struct Proxy {
    generation: u64,
    incarnation: Incarnation,
    /// Towards the others.
    outer: Links,
    /// Towards the node, as each of the others.
    inner: BTreeMap<usize, Links>,
    /// Until when it says nothing about wallets.
    silent_until: u64,
    wakes: Option<u64>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({}, {} peers up)", self.incarnation, self.inner.len())
    }
}

/// All cheaters' memories and chance.
#[derive(Debug)]
pub struct Cheating {
    memories: BTreeMap<usize, Memory>,
    /// The first message of each kind that passed through a proxy unaltered.
    heard: BTreeMap<(u8, u8), Vec<u8>>,
    dice: Dice,
}

impl Cheating {
    /// Nobody has done anything yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { memories: BTreeMap::new(), heard: BTreeMap::new(), dice: Dice::new(seed, "cheating") }
    }

    /// What passed through the proxies in clear: a message of each kind.
    #[must_use]
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.values().cloned().collect()
    }

    fn hears(&mut self, message: &[u8]) {
        self.heard.entry(anatomy::kind(message)).or_insert_with(|| message.to_vec());
    }
}

/// One message on its way out of a cheater.
struct Outgoing {
    delay: u64,
    to: usize,
    lane: Lane,
    message: Vec<u8>,
}

/// Whether `to` is among the half of the others that a cheater tells something else. Counted among the others: of three
/// nodes, those beside the second one have even numbers.
fn second_half(cheater: usize, to: usize) -> bool {
    (to - usize::from(to > cheater)) % 2 == 1
}

impl World {
    fn time(&self) -> Time {
        Time(self.now())
    }

    /// A write of a cheater's node is durable: its first one names the start under which the proxy speaks for it.
    pub(super) fn proxy_sees_write(&mut self, node: usize, generation: u64, batch: &Batch) {
        if self.proxies.contains_key(&node) {
            return;
        }
        let start = batch.writes.iter().filter(|write| write.keyspace == Keyspace::Meta && write.value.is_some());
        let mut start = start.filter_map(|w| w.key.strip_prefix(b"start ")?.try_into().ok());
        let Some(incarnation) = start.next().map(Incarnation) else { return };
        let liar = self.machines[node].identity();
        for peer in (0..self.machines.len()).filter(|peer| *peer != node).collect::<Vec<_>>() {
            if self.lies(node, Lie::FalseClaim) {
                self.tells(node, Lie::FalseClaim);
                let never = Incarnation(std::array::from_fn(|at| self.machines[peer].id.as_bytes()[at] ^ 0x5a));
                let memory = self.cheating.memories.entry(node).or_default();
                memory.peers.insert(self.machines[peer].id, Mark::of(&liar, never, 1_000_000));
            }
        }
        let memory = self.cheating.memories.entry(node).or_default();
        let found = memory.starts.len() as u64;
        let config = LinkConfig {
            identity: self.machines[node].identity(),
            peers: self.machines.iter().enumerate().map(|(at, machine)| machine.info(at)).collect(),
            facets: self.machines[node].facets.clone(),
            incarnation,
            found,
            commits: found + 1,
            history: memory.starts.clone(),
            remembered: memory.peers.clone(),
            seed: self.cheating.dice.bytes32(),
        };
        memory.starts.insert(incarnation, Start { found: Some(found), conceded: false });
        let outer = Links::new(config, self.time());
        let proxy = Proxy { generation, incarnation, outer, inner: BTreeMap::new(), silent_until: 0, wakes: None };
        self.proxies.insert(node, proxy);
        self.proxy_settles(node);
    }

    /// The cheater's node says something to one of those whom the proxy plays.
    pub(super) fn proxy_hears_node(&mut self, node: usize, to: usize, bytes: &[u8]) {
        let now = self.time();
        if let Some(links) = self.proxies.get_mut(&node).and_then(|proxy| proxy.inner.get_mut(&to)) {
            links.handle_datagram(now, bytes);
            self.proxy_settles(node);
        }
    }

    /// Something arrives for the cheater.
    pub(super) fn proxy_hears_network(&mut self, node: usize, bytes: &[u8]) {
        let now = self.time();
        if let Some(proxy) = self.proxies.get_mut(&node) {
            proxy.outer.handle_datagram(now, bytes);
            self.proxy_settles(node);
        }
    }

    /// Timers.
    pub(super) fn proxy_wakes(&mut self, node: usize, generation: u64) {
        let now = self.time();
        let Some(proxy) = self.proxies.get_mut(&node).filter(|proxy| proxy.generation == generation) else { return };
        proxy.wakes = None;
        proxy.outer.handle_wake(now);
        for links in proxy.inner.values_mut() {
            links.handle_wake(now);
        }
        self.proxy_settles(node);
    }

    /// A message that was held back or made up leaves.
    pub(super) fn lie(&mut self, node: usize, generation: u64, to: usize, lane: Lane, message: Vec<u8>) {
        let (now, peer) = (self.time(), self.machines[to].id);
        if let Some(proxy) = self.proxies.get_mut(&node).filter(|proxy| proxy.generation == generation) {
            // A link that is down loses it, like everything else.
            let _ = proxy.outer.send(now, peer, lane, message);
            self.proxy_settles(node);
        }
    }

    /// Moves everything that waits in the proxy's links, and sets its timer.
    fn proxy_settles(&mut self, node: usize) {
        loop {
            let Some(proxy) = self.proxies.get_mut(&node) else { return };
            if let Some(output) = proxy.outer.poll() {
                self.outer_output(node, output);
                continue;
            }
            let inner = proxy.inner.iter_mut().find_map(|(peer, links)| Some((*peer, links.poll()?)));
            match inner {
                Some((peer, output)) => self.inner_output(node, peer, output),
                None => break,
            }
        }
        let Some(proxy) = self.proxies.get_mut(&node) else { return };
        let wake = proxy.inner.values().filter_map(Links::wake_at).chain(proxy.outer.wake_at()).min();
        if let Some(Time(at)) = wake
            && proxy.wakes.is_none_or(|wakes| at < wakes)
        {
            proxy.wakes = Some(at);
            let generation = proxy.generation;
            // Time is coarse: a timer that is due now is due in a microsecond.
            let at = at.max(self.now() + 1);
            self.schedule(at, Event::Proxy { node, generation });
        }
    }

    fn at_of(&self, id: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.id == id)
    }

    /// Something from the side of the others.
    fn outer_output(&mut self, node: usize, output: LinkOutput) {
        let now = self.time();
        match output {
            LinkOutput::Datagram { to, bytes } => {
                if let Some(to) = self.at_of(to) {
                    self.datagram_travels(node, to, bytes);
                }
            }
            LinkOutput::Remember { peer, mark } => {
                self.cheating.memories.entry(node).or_default().peers.insert(peer, mark);
                if let Some(proxy) = self.proxies.get_mut(&node) {
                    proxy.outer.remembered(now, peer, mark);
                }
            }
            LinkOutput::Up { peer, incarnation } => {
                let Some(at) = self.at_of(peer) else { return };
                let memory = self.cheating.memories.entry(node).or_default();
                let starts = memory.peers_starts.entry(peer).or_default();
                let next = starts.len() as u64;
                let start = *starts.entry(incarnation).or_insert(Start { found: Some(next), conceded: false });
                let found = start.found.unwrap_or_default();
                let history = starts.clone();
                let me = self.machines[node].identity();
                let Some(proxy) = self.proxies.get_mut(&node) else { return };
                let config = LinkConfig {
                    identity: self.machines[at].identity(),
                    peers: vec![self.machines[node].info(node)],
                    facets: self.machines[node].facets.clone(),
                    incarnation,
                    found,
                    commits: found + 1,
                    history,
                    remembered: [(me.id(), Mark::of(&me, proxy.incarnation, 0))].into(),
                    seed: self.cheating.dice.bytes32(),
                };
                proxy.inner.insert(at, Links::new(config, now));
            }
            LinkOutput::Down { peer, .. } => {
                if let Some(at) = self.at_of(peer)
                    && let Some(proxy) = self.proxies.get_mut(&node)
                {
                    proxy.inner.remove(&at);
                }
            }
            LinkOutput::Message { peer, lane, bytes, .. } => {
                // Another cheater may have altered it.
                if self.at_of(peer).is_some_and(|at| !self.scenario.is_cheater(at)) {
                    self.cheating.hears(&bytes);
                }
                if anatomy::kind(&bytes) == anatomy::PROPOSE_SIGN && self.lies(node, Lie::Raise) {
                    self.raise(node, &bytes);
                }
                let (me, at) = (self.machines[node].id, self.at_of(peer));
                if let Some(links) = at.and_then(|at| self.proxies.get_mut(&node)?.inner.get_mut(&at)) {
                    // What comes before the node has met this peer is lost.
                    let _ = links.send(now, me, lane, bytes);
                }
            }
            LinkOutput::RolledBack { .. } | LinkOutput::PutBack { .. } | LinkOutput::Trouble(_) => {}
        }
    }

    /// Something from the side of the cheater's node, for `peer`.
    fn inner_output(&mut self, node: usize, peer: usize, output: LinkOutput) {
        match output {
            LinkOutput::Datagram { bytes, .. } => {
                let generation = self.machines[node].generation;
                let input = Box::new(mpcium_core::Input::Datagram(bytes));
                self.later(20, Event::Input { node, generation, input });
            }
            LinkOutput::Remember { peer: id, mark } => {
                let now = self.time();
                if let Some(links) = self.proxies.get_mut(&node).and_then(|proxy| proxy.inner.get_mut(&peer)) {
                    links.remembered(now, id, mark);
                }
            }
            LinkOutput::Message { lane, bytes, .. } => {
                self.cheating.hears(&bytes);
                let generation = self.machines[node].generation;
                for Outgoing { delay, to, lane, message } in self.tamper(node, peer, lane, bytes) {
                    if delay > 0 {
                        self.later(delay, Event::Lie { node, generation, to, lane, message });
                        continue;
                    }
                    let (now, id) = (self.time(), self.machines[to].id);
                    if let Some(proxy) = self.proxies.get_mut(&node) {
                        let _ = proxy.outer.send(now, id, lane, message);
                    }
                }
            }
            LinkOutput::RolledBack { .. }
            | LinkOutput::PutBack { .. }
            | LinkOutput::Up { .. }
            | LinkOutput::Down { .. }
            | LinkOutput::Trouble(_) => {}
        }
    }

    /// Everybody is asked to promise higher and higher ballots about the request of a proposal.
    fn raise(&mut self, node: usize, proposal: &[u8]) {
        let Some(proxy) = self.proxies.get(&node) else { return };
        let (generation, incarnation) = (proxy.generation, proxy.incarnation);
        let me = self.machines[node].id;
        self.tells(node, Lie::Raise);
        let delivery = self.cheating.dice.bytes32();
        for step in 0..RAISED.0 {
            let delay = step * RAISED.1;
            let number = self.wall_ms() + delay / MILLISECOND + self.scenario.clock_skew_ms;
            let of = (me.as_bytes().as_slice(), incarnation.0.as_slice());
            let Some(message) = anatomy::prepare(proposal, (number, step), of, &delivery) else { return };
            for to in (0..self.machines.len()).filter(|to| *to != node) {
                self.later(
                    delay + 1,
                    Event::Lie { node, generation, to, lane: Lane::Control, message: message.clone() },
                );
            }
        }
    }

    /// Whether a lie is told now.
    fn lies(&mut self, node: usize, lie: Lie) -> bool {
        let rate = self.scenario.cheaters.iter().find(|cheater| cheater.node == node).and_then(|c| c.lies.get(&lie));
        let Some(rate) = rate.copied() else { return false };
        if self.scenario.conspiracy && self.healed {
            return false;
        }
        self.cheating.dice.below(1_000) < rate
    }

    fn tells(&mut self, node: usize, lie: Lie) {
        let name = lie.name();
        self.counters.sometimes(name);
        self.log.event(self.now(), Some(node), "lie", name.as_bytes(), || json!({"lie": name}));
    }

    /// What becomes of a message of the cheater's node.
    fn tamper(&mut self, node: usize, to: usize, lane: Lane, mut message: Vec<u8>) -> Vec<Outgoing> {
        use anatomy as a;
        let kind = a::kind(&message);
        let now = self.now();
        let mut out = Vec::new();
        let silent = self.proxies.get(&node).is_some_and(|proxy| proxy.silent_until > now);
        if kind == a::PREPARED && !silent && self.lies(node, Lie::FallSilent) {
            self.tells(node, Lie::FallSilent);
            let until = now + self.cheating.dice.between(5 * SECOND, 120 * SECOND);
            if let Some(proxy) = self.proxies.get_mut(&node) {
                proxy.silent_until = until;
            }
        } else if silent && kind.0 == a::WALLET {
            return out;
        }
        if kind == a::PREPARED && second_half(node, to) && self.lies(node, Lie::Refuse) {
            let (liar, incarnation) = (self.machines[node].identity(), self.proxies.get(&node).map(|p| p.incarnation));
            if let Some(refused) = incarnation.and_then(|incarnation| a::refuse(&message, incarnation, &liar)) {
                self.tells(node, Lie::Refuse);
                message = refused;
            }
        }
        if self.lies(node, Lie::Garble) {
            self.tells(node, Lie::Garble);
            let message = a::garbled(&self.cheating.dice.bytes(40));
            out.push(Outgoing { delay: 0, to, lane, message });
        }
        if self.lies(node, Lie::Drop) {
            self.tells(node, Lie::Drop);
            return out;
        }
        if kind == a::PROPOSE_SIGN || kind == a::PROPOSE_KEYGEN {
            let mut forged = message.clone();
            if self.lies(node, Lie::Forge) && a::forge(&mut forged) {
                self.tells(node, Lie::Forge);
                out.push(Outgoing { delay: 0, to, lane, message: forged });
            }
            let (me, other) = (self.machines[node].id, self.machines[(node + 1) % self.machines.len()].id);
            if self.lies(node, Lie::Impersonate) && a::replace(&mut message, me.as_bytes(), other.as_bytes()) {
                self.tells(node, Lie::Impersonate);
            }
            if self.lies(node, Lie::Split) {
                self.tells(node, Lie::Split);
                let mut first = a::another_session(&message);
                if second_half(node, to) {
                    std::mem::swap(&mut first, &mut message);
                }
                out.push(Outgoing { delay: 0, to, lane, message: first });
            }
        }
        if kind == a::ROUND {
            let body = a::body(&message);
            if a::is_token_of_pair(&message) && self.lies(node, Lie::WrongCheck) {
                if let Some(byte) = message.last_mut() {
                    *byte ^= 1;
                }
                self.tells(node, Lie::WrongCheck);
            } else if self.lies(node, Lie::WrongShare)
                && let Some((3, content)) = a::ideal_round(&message)
                && let Some(byte) = message.get_mut(content + 7)
            {
                *byte ^= 0x10;
                self.tells(node, Lie::WrongShare);
            } else if a::is_broadcast(&message) && second_half(node, to) && self.lies(node, Lie::Equivocate) {
                if let Some(byte) = message.last_mut().filter(|_| body < usize::MAX) {
                    *byte ^= 1;
                }
                self.tells(node, Lie::Equivocate);
            } else if body < message.len() && self.lies(node, Lie::Alter) {
                let span = (message.len() - body) as u64;
                let at = body + usize::try_from(self.cheating.dice.below(span)).unwrap_or(0);
                message[at] ^= 1 << self.cheating.dice.below(8);
                self.tells(node, Lie::Alter);
            }
        }
        if kind == a::ROUND && self.lies(node, Lie::Repeat) {
            self.tells(node, Lie::Repeat);
            out.extend((0..REPEATED).map(|_| Outgoing { delay: 0, to, lane, message: message.clone() }));
        }
        if kind == a::STORED && self.lies(node, Lie::WrongResult) {
            // The same of all who lie about one session, so that they agree.
            let at = a::falsified(&message);
            if let Some(byte) = message.get_mut(at) {
                *byte ^= 1;
            }
            self.tells(node, Lie::WrongResult);
        }
        if self.lies(node, Lie::Replay) {
            let old: Vec<_> = self.cheating.memories.entry(node).or_default().sent.iter().cloned().collect();
            if let Some((to, lane, message)) = self.cheating.dice.pick(&old).cloned() {
                self.tells(node, Lie::Replay);
                out.push(Outgoing { delay: 0, to, lane, message });
            }
        }
        if self.lies(node, Lie::Flood) {
            self.tells(node, Lie::Flood);
            for _ in 0..FLOOD.0 {
                let session = self.cheating.dice.bytes32();
                out.push(Outgoing { delay: 0, to, lane, message: a::invented(&session, FLOOD.1) });
            }
        }
        self.remember(node, to, lane, &message);
        let mut delay = 0;
        if self.lies(node, Lie::Delay) {
            self.tells(node, Lie::Delay);
            delay = self.cheating.dice.skewed(10 * MILLISECOND, 20 * SECOND);
        }
        out.push(Outgoing { delay, to, lane, message });
        out
    }

    /// Keeps some messages for later: all proposals, and every eighth of the others.
    fn remember(&mut self, node: usize, to: usize, lane: Lane, message: &[u8]) {
        let kind = anatomy::kind(message);
        let proposal = kind == anatomy::PROPOSE_SIGN || kind == anatomy::PROPOSE_KEYGEN;
        if !proposal && self.cheating.dice.below(8) > 0 {
            return;
        }
        let sent = &mut self.cheating.memories.entry(node).or_default().sent;
        if sent.len() == REMEMBERED {
            sent.pop_front();
        }
        sent.push_back((to, lane, message.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cheater_of_three_and_more_tells_some_something_else() {
        for nodes in 3..=7 {
            for cheater in 0..nodes {
                let others = (0..nodes).filter(|to| *to != cheater);
                let told: Vec<bool> = others.map(|to| second_half(cheater, to)).collect();
                assert!(told.contains(&true) && told.contains(&false), "node{cheater} of {nodes}");
            }
        }
    }
}

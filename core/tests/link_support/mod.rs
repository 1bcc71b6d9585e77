//! A cluster of links over a channel that loses, repeats, reorders, alters and delays, under a simulated clock.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{
    Duration, Identity, Incarnation, NodeId, PeerInfo, Time,
    link::{DownReason, Lane, LinkConfig, LinkOutput, Links, Mark, Start, Trouble},
};

/// What the channel does; chances are of 100.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loss: u64,
    pub duplication: u64,
    pub corruption: u64,
    /// Delays are drawn between one and this many microseconds, so greater means more reordering.
    pub delay: u64,
}

pub const CLEAN: Faults = Faults { loss: 0, duplication: 0, corruption: 0, delay: 300 };

/// What a node's store keeps over restarts.
#[derive(Clone, Default)]
pub struct Disk {
    pub commits: u64,
    pub history: BTreeMap<Incarnation, Start>,
    pub remembered: BTreeMap<NodeId, Mark>,
}

pub struct Net {
    pub now: Time,
    pub faults: Faults,
    pub links: Vec<Option<Links>>,
    pub disks: Vec<Disk>,
    pub log: Vec<(usize, LinkOutput)>,
    /// Every datagram that was ever sent: sender, addressee, bytes.
    pub recorded: Vec<(usize, usize, Vec<u8>)>,
    /// Whether `Remember` is answered at once.
    pub fast_disk: bool,
    /// Nodes whose datagrams go nowhere.
    pub cut: BTreeSet<usize>,
    pub facets: Vec<Vec<(String, String)>>,
    pub steps: usize,
    queue: BTreeMap<(Time, u64), (usize, Vec<u8>)>,
    sent: u64,
    random: u64,
    starts: u8,
}

pub fn id(node: usize) -> NodeId {
    NodeId::from_bytes([node as u8 + 1; 16])
}

pub fn identity(node: usize) -> Identity {
    Identity::new(id(node), &[node as u8 + 77; 32])
}

pub fn peers(nodes: usize) -> Vec<PeerInfo> {
    (0..nodes).map(|n| PeerInfo { id: id(n), name: format!("node{n}"), key: identity(n).public() }).collect()
}

impl Net {
    pub fn new(nodes: usize, seed: u64, faults: Faults) -> Self {
        Self {
            now: Time(1_000_000),
            faults,
            links: (0..nodes).map(|_| None).collect(),
            disks: vec![Disk::default(); nodes],
            log: Vec::new(),
            recorded: Vec::new(),
            fast_disk: true,
            cut: BTreeSet::new(),
            facets: vec![vec![("threshold".into(), "2".into()), ("chain code".into(), "aa".into())]; nodes],
            steps: 0,
            queue: BTreeMap::new(),
            sent: 0,
            random: seed,
            starts: 0,
        }
    }

    pub fn started(nodes: usize, seed: u64, faults: Faults) -> Self {
        let mut net = Self::new(nodes, seed, faults);
        for node in 0..nodes {
            net.start(node);
        }
        net
    }

    pub fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// A start's configuration, with a new incarnation that is noted on the node's disk.
    pub fn config(&mut self, node: usize) -> LinkConfig {
        self.starts += 1;
        let incarnation = Incarnation([self.starts; 16]);
        let disk = &mut self.disks[node];
        let (found, history) = (disk.commits, disk.history.clone());
        disk.history.insert(incarnation, Start { found: Some(found), conceded: false });
        disk.commits += 1;
        LinkConfig {
            identity: identity(node),
            peers: peers(self.links.len()),
            facets: self.facets[node].clone(),
            incarnation,
            found,
            commits: disk.commits,
            history,
            remembered: disk.remembered.clone(),
            seed: [self.starts; 32],
        }
    }

    pub fn start(&mut self, node: usize) {
        let config = self.config(node);
        self.links[node] = Some(Links::new(config, self.now));
        self.drain(node);
    }

    pub fn send(&mut self, from: usize, to: usize, lane: Lane, message: Vec<u8>) -> bool {
        let now = self.now;
        let sent = self.links[from].as_mut().is_some_and(|l| l.send(now, id(to), lane, message).is_ok());
        self.drain(from);
        sent
    }

    pub fn drain(&mut self, node: usize) {
        let mut polled = 0;
        while let Some(output) = self.links[node].as_mut().and_then(Links::poll) {
            polled += 1;
            assert!(polled < 100_000, "poll does not come to an end");
            match output {
                LinkOutput::Datagram { to, bytes } => {
                    assert!(bytes.len() <= mpcium_core::limits::DATAGRAM_BYTES_MAX);
                    let to = (0..self.links.len()).find(|n| id(*n) == to).expect("addressee");
                    self.recorded.push((node, to, bytes.clone()));
                    if !self.cut.contains(&node) && !self.cut.contains(&to) {
                        self.carry(to, bytes);
                    }
                }
                LinkOutput::Remember { peer, mark } if self.fast_disk => {
                    self.log.push((node, LinkOutput::Remember { peer, mark }));
                    self.persist(node, peer, mark);
                }
                LinkOutput::RolledBack { peer, incarnation, start } if self.fast_disk => {
                    self.log.push((node, LinkOutput::RolledBack { peer, incarnation, start }));
                    self.concede(node, incarnation, start);
                }
                other => self.log.push((node, other)),
            }
        }
    }

    pub fn persist(&mut self, node: usize, peer: NodeId, mark: Mark) {
        self.disks[node].remembered.insert(peer, mark);
        let now = self.now;
        if let Some(links) = self.links[node].as_mut() {
            links.remembered(now, peer, mark);
        }
    }

    pub fn concede(&mut self, node: usize, incarnation: Incarnation, start: Start) {
        self.disks[node].history.insert(incarnation, start);
        let now = self.now;
        if let Some(links) = self.links[node].as_mut() {
            links.conceded(now, incarnation);
        }
    }

    fn carry(&mut self, to: usize, bytes: Vec<u8>) {
        let copies = if self.draw(100) < self.faults.duplication { 2 } else { 1 };
        for _ in 0..copies {
            if self.draw(100) < self.faults.loss {
                continue;
            }
            let mut bytes = bytes.clone();
            if self.draw(100) < self.faults.corruption {
                let at = self.draw(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.draw(8);
            }
            let at = self.now.after(Duration::from_micros(1 + self.draw(self.faults.delay)));
            self.sent += 1;
            self.queue.insert((at, self.sent), (to, bytes));
        }
    }

    /// Gives a node a datagram now.
    pub fn inject(&mut self, to: usize, bytes: &[u8]) {
        let now = self.now;
        if let Some(links) = self.links[to].as_mut() {
            links.handle_datagram(now, bytes);
        }
        self.drain(to);
    }

    /// One event: the next arrival or timer.
    pub fn step(&mut self) {
        self.steps += 1;
        let timer = (0..self.links.len())
            .filter_map(|n| Some((self.links[n].as_ref()?.wake_at()?, n)))
            .min()
            .expect("a timer is always set");
        match self.queue.first_key_value() {
            Some((&(at, _), _)) if at <= timer.0 => {
                let (_, (to, bytes)) = self.queue.pop_first().expect("not empty");
                self.now = self.now.max(at);
                self.inject(to, &bytes);
            }
            _ => {
                self.now = self.now.max(timer.0);
                let now = self.now;
                if let Some(links) = self.links[timer.1].as_mut() {
                    links.handle_wake(now);
                }
                self.drain(timer.1);
                let next = self.links[timer.1].as_ref().and_then(Links::wake_at).expect("a timer");
                assert!(next > now, "a timer that has run is still due");
            }
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done` or panics after `limit` of simulated time.
    pub fn run_until(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now.after(limit);
        while !done(self) {
            assert!(self.now < end, "{what}: not within {limit:?}; log: {:?}", self.tail());
            self.step();
        }
    }

    pub fn tail(&self) -> Vec<String> {
        self.log.iter().rev().take(12).map(|entry| format!("{entry:?}").chars().take(200).collect()).collect()
    }

    pub fn is_up(&self, node: usize, peer: usize) -> bool {
        self.links[node].as_ref().is_some_and(|l| l.incarnation_of(id(peer)).is_some())
    }

    pub fn all_up(&self) -> bool {
        let nodes = self.links.len();
        (0..nodes).all(|a| (0..nodes).all(|b| a == b || self.is_up(a, b)))
    }

    pub fn bring_up(&mut self) {
        self.run_until(Duration::from_secs(60), "all links up", Self::all_up);
    }

    pub fn received(&self, node: usize, lane: Lane) -> Vec<Vec<u8>> {
        self.log
            .iter()
            .filter_map(|(n, output)| match output {
                LinkOutput::Message { lane: l, bytes, .. } if *n == node && *l == lane => Some(bytes.clone()),
                _ => None,
            })
            .collect()
    }

    /// How many messages arrived.
    pub fn count(&self, node: usize, lane: Lane) -> usize {
        let arrived = |(n, output): &&(usize, LinkOutput)| {
            *n == node && matches!(output, LinkOutput::Message { lane: l, .. } if *l == lane)
        };
        self.log.iter().filter(arrived).count()
    }

    pub fn troubles(&self, node: usize) -> Vec<Trouble> {
        self.log
            .iter()
            .filter_map(|(n, output)| match output {
                LinkOutput::Trouble(trouble) if *n == node => Some(trouble.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn ups(&self, node: usize) -> Vec<(NodeId, Incarnation)> {
        self.log
            .iter()
            .filter_map(|(n, output)| match output {
                LinkOutput::Up { peer, incarnation } if *n == node => Some((*peer, *incarnation)),
                _ => None,
            })
            .collect()
    }

    pub fn downs(&self, node: usize) -> Vec<(NodeId, Incarnation, DownReason)> {
        self.log
            .iter()
            .filter_map(|(n, output)| match output {
                LinkOutput::Down { peer, incarnation, reason } if *n == node => Some((*peer, *incarnation, *reason)),
                _ => None,
            })
            .collect()
    }
}

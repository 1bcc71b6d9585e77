//! A peer with a valid identity and real links that says what it should not.

use std::collections::{BTreeMap, VecDeque};

use mpcium_core::{
    Identity, Incarnation, NodeId, PeerInfo, Time,
    link::{Lane, LinkConfig, LinkOutput, Links, Start},
};

/// Messages that are kept to be said again.
const HEARD_MAX: usize = 512;

pub struct Liar {
    links: Links,
    /// Messages that others sent, in the clear, as the liar may say them again.
    pub heard: Vec<Vec<u8>>,
    out: VecDeque<(NodeId, Vec<u8>)>,
    now: Time,
}

impl Liar {
    pub fn new(
        identity: Identity,
        peers: Vec<PeerInfo>,
        facets: Vec<(String, String)>,
        (commits, history): (u64, BTreeMap<Incarnation, Start>),
        number: u64,
        now: Time,
    ) -> Self {
        let mut incarnation = [0xee; 16];
        incarnation[..8].copy_from_slice(&number.to_be_bytes());
        let config = LinkConfig {
            identity,
            peers,
            facets,
            incarnation: Incarnation(incarnation),
            found: commits,
            commits: commits + 1,
            history,
            remembered: BTreeMap::new(),
            seed: [number as u8; 32],
        };
        let mut liar = Self { links: Links::new(config, now), heard: Vec::new(), out: VecDeque::new(), now };
        liar.work();
        liar
    }

    pub fn datagram(&mut self, now: Time, bytes: &[u8]) {
        self.now = now;
        self.links.handle_datagram(now, bytes);
        self.work();
    }

    pub fn wake(&mut self, now: Time) {
        self.now = now;
        self.links.handle_wake(now);
        self.work();
    }

    pub fn wake_at(&self) -> Option<Time> {
        self.links.wake_at()
    }

    /// Whether the link took the message.
    pub fn say(&mut self, now: Time, to: NodeId, lane: usize, bytes: Vec<u8>) -> bool {
        let lane = [Lane::Control, Lane::Signing, Lane::Bulk][lane % 3];
        let taken = self.links.send(now, to, lane, bytes).is_ok();
        self.now = now;
        self.work();
        taken
    }

    pub fn poll(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.out.pop_front()
    }

    fn work(&mut self) {
        while let Some(output) = self.links.poll() {
            match output {
                LinkOutput::Datagram { to, bytes } => self.out.push_back((to, bytes)),
                LinkOutput::Remember { peer, mark } => self.links.remembered(self.now, peer, mark),
                LinkOutput::RolledBack { incarnation, .. } => self.links.conceded(self.now, incarnation),
                LinkOutput::Message { bytes, .. } => {
                    if self.heard.len() < HEARD_MAX {
                        self.heard.push(bytes);
                    }
                }
                LinkOutput::PutBack { .. }
                | LinkOutput::Up { .. }
                | LinkOutput::Down { .. }
                | LinkOutput::Trouble(_) => {}
            }
        }
    }
}

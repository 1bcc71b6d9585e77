//! Links: what peers say to each other, and the only thing they say it through.
//!
//! The bus below loses, repeats, reorders and delays; anyone on it may read and write. A link makes of it, per pair of
//! nodes and pair of *incarnations*, three lanes of messages that arrive once, in order, unread and unaltered.
//!
//! Invariants:
//! - A link is up only after both sides have proven their identity and the fresh keys, agree on the configuration, and
//!   durably remember each other's incarnation. Until then an older link lives on; nothing that is merely replayed
//!   ends it.
//! - Messages are handed up only between `Up` and `Down` of the incarnation that sent them.
//! - When both sides start, the node with the lower id leads: while its hello is out it answers a hello of the other
//!   side with its own, so two handshakes never finish crosswise.
//!
//! - A peer that remembers more of this node than its store does is believed if it shows this node's own signature; the
//!   store notes that before the peer may forget it.
//!
//! `acquaintance` tells a peer's handshakes from a stranger's, `handshake` says who it is and agrees on keys, `mark` is how
//! far a node has come, `packets` seals and acknowledges, `lane` repeats and orders, `peer`
//! is the state of one pair, `wire` holds the byte layouts, `trouble` what goes into reports.

mod acquaintance;
#[cfg(test)]
mod golden;
mod handshake;
mod lane;
mod mark;
mod packets;
mod peer;
mod trouble;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

#[cfg(test)]
pub(crate) use golden::golden;
pub use mark::{Mark, Start};
pub use trouble::Trouble;

use self::{
    handshake::Facets,
    mark::{History, Present},
    packets::Link,
    peer::Peer,
    trouble::Gate,
};
use crate::{Duration, Identity, Incarnation, NodeId, PeerInfo, Time, limits};

/// What links need to begin.
#[derive(Clone)]
pub struct LinkConfig {
    /// This node's identity.
    pub identity: Identity,
    /// All nodes of the cluster; this one may be among them.
    pub peers: Vec<PeerInfo>,
    /// Parts of the configuration that all nodes must share: name (plain ASCII words, at most
    /// [`FACET_NAME_BYTES_MAX`](limits::FACET_NAME_BYTES_MAX) bytes; at most [`FACETS_MAX`](limits::FACETS_MAX) are
    /// compared) and value. Compared at first contact; only hashes of the values travel.
    pub facets: Vec<(String, String)>,
    /// This start of this node, durable already.
    pub incarnation: Incarnation,
    /// How many commits the store held when this start began.
    pub found: u64,
    /// How many it holds now, that of this start's own record among them.
    pub commits: u64,
    /// All earlier starts of this node that its store knows or has conceded.
    pub history: BTreeMap<Incarnation, Start>,
    /// The last mark of each peer that this node's store remembers, if it was said by the identity that the peer has now:
    /// to show another one is a lie.
    pub remembered: BTreeMap<NodeId, Mark>,
    /// Fresh random bytes.
    pub seed: [u8; 32],
}

impl std::fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkConfig({:?}, {})", self.identity, self.incarnation)
    }
}

/// One of a link's independent streams; none waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Requests, decisions, small talk.
    Control,
    /// Messages of signing sessions.
    Signing,
    /// Everything large: auxiliary data, key generation.
    Bulk,
}

const LANES: [Lane; 3] = [Lane::Control, Lane::Signing, Lane::Bulk];

impl Lane {
    fn index(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Signing => 1,
            Self::Bulk => 2,
        }
    }

    fn code(self) -> u8 {
        self.index() as u8
    }
}

/// Why a message was not taken. Nothing of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The peer does not answer, or there is no such peer.
    NotUp,
    /// Too much waits in this lane, or the message is empty or longer than
    /// [`MESSAGE_BYTES_MAX`](limits::MESSAGE_BYTES_MAX).
    Full,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotUp => "the peer does not answer",
            Self::Full => "too much waits to be sent to the peer",
        })
    }
}

impl std::error::Error for SendError {}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The peer was started again.
    Restarted,
    /// The peer, in the same incarnation, had lost the link and made a new one.
    Replaced,
    /// The peer said nothing for [`LINK_SILENCE_MAX`](limits::LINK_SILENCE_MAX).
    Silent,
    /// The peer has said that its process ends.
    Left,
    /// The peer broke the link protocol in the way that a [`Trouble`] names.
    Violation,
}

impl std::fmt::Display for DownReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Restarted => f.write_str("it was started again"),
            Self::Replaced => f.write_str("it had lost the link and made a new one"),
            Self::Silent => write!(f, "nothing heard for {} s", limits::LINK_SILENCE_MAX.as_secs()),
            Self::Left => f.write_str("it said that it ends"),
            Self::Violation => f.write_str("it broke the link protocol"),
        }
    }
}

/// What links want or have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// Send bytes to a peer; may be lost.
    Datagram {
        /// The addressee.
        to: NodeId,
        /// At most [`DATAGRAM_BYTES_MAX`](limits::DATAGRAM_BYTES_MAX).
        bytes: Vec<u8>,
    },
    /// Remember durably that this was the peer's last mark, then call [`Links::remembered`].
    Remember {
        /// The peer.
        peer: NodeId,
        /// Its start, and how far it had come.
        mark: Mark,
    },
    /// The peer has shown, with this node's own signature, that this node's store lacks what one of its starts had
    /// written: it was rolled back, restored or copied. Note that durably, then call [`Links::conceded`]; until then no
    /// link with that peer comes up.
    RolledBack {
        /// The peer.
        peer: NodeId,
        /// The start.
        incarnation: Incarnation,
        /// What the store is to say of that start from now on.
        start: Start,
    },
    /// The peer has shown, with this node's own seal, that this very process had said more than it knows: the machine was
    /// put back with its memory, or copied while it ran. Nothing that the process holds may be used any more: it must
    /// end.
    PutBack {
        /// The peer.
        peer: NodeId,
    },
    /// The peer answers.
    Up {
        /// The peer.
        peer: NodeId,
        /// Its start.
        incarnation: Incarnation,
    },
    /// The link ended; whatever was sent through it and not answered is lost.
    Down {
        /// The peer.
        peer: NodeId,
        /// The start whose link ended.
        incarnation: Incarnation,
        /// Why.
        reason: DownReason,
    },
    /// A message from a peer.
    Message {
        /// The peer.
        peer: NodeId,
        /// Its start.
        incarnation: Incarnation,
        /// The lane.
        lane: Lane,
        /// The message as it was sent.
        bytes: Vec<u8>,
    },
    /// Something for the reports.
    Trouble(Trouble),
}

/// How the link to one peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The peer.
    pub peer: NodeId,
    /// Its start, while up.
    pub incarnation: Option<Incarnation>,
    /// Since when it is up.
    pub up_since: Option<Time>,
    /// When an authentic packet arrived last, while up.
    pub last_heard: Option<Time>,
    /// Estimate of the round-trip time.
    pub round_trip: Option<Duration>,
    /// Bytes that wait to be sent or acknowledged.
    pub queued_bytes: usize,
    /// What the link waits for, in words; empty while up.
    pub waits_for: String,
}

/// Reads a handshake message as far as that goes without keys; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_handshake(bytes: &[u8]) -> bool {
    handshake::reads(bytes)
}

/// Reads the frames of an opened packet; `false`: they are none. See [`crate::decode`].
pub(crate) fn reads_frames(bytes: &[u8]) -> bool {
    wire::reads_frames(bytes)
}

/// What all peers share.
struct Common {
    identity: Identity,
    me: NodeId,
    facets: Facets,
    history: History,
    present: Present,
    /// Starts of ours that a peer has shown to be lost, in this process.
    lost: BTreeSet<Incarnation>,
    /// Hellos so far.
    hellos: u64,
    rng: ChaCha20Rng,
    outputs: VecDeque<LinkOutput>,
}

impl Common {
    /// How far this node has come.
    fn mark(&mut self) -> Mark {
        self.present.mark(&self.identity, &self.history)
    }
}

/// The links of one node to all others.
///
/// Drain [`poll`](Self::poll) after every call, and after the messages it gave have been handled: packets are built
/// when nothing else is left, so that answers and acknowledgements share them.
pub struct Links {
    common: Common,
    /// Sorted by id.
    peers: Vec<Peer>,
    /// Troubles that concern no particular peer.
    strangers: Gate,
    now: Time,
    /// The first peer that may have something to flush.
    flushing: usize,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Links({}, {} peers)", self.common.me, self.peers.len())
    }
}

impl Links {
    /// Begins a handshake with every peer.
    #[must_use]
    pub fn new(config: LinkConfig, now: Time) -> Self {
        let me = config.identity.id();
        let mut facets = handshake::facets(&config.facets);
        facets.retain(|(name, _)| name.len() <= limits::FACET_NAME_BYTES_MAX);
        facets.truncate(limits::FACETS_MAX);
        let mut common = Common {
            me,
            facets,
            identity: config.identity,
            history: History::new(config.incarnation, config.found, config.commits, config.history),
            present: Present::default(),
            lost: BTreeSet::new(),
            hellos: 0,
            rng: ChaCha20Rng::from_seed(config.seed),
            outputs: VecDeque::new(),
        };
        let remembered = config.remembered;
        let mut peers: Vec<Peer> = config
            .peers
            .into_iter()
            .filter(|info| info.id != me)
            .map(|info| {
                let known = remembered.get(&info.id).copied();
                Peer::new(&common, info, known, now)
            })
            .collect();
        peers.sort_by_key(Peer::id);
        for peer in &mut peers {
            peer.begin(&mut common, now);
        }
        Self { common, peers, strangers: Gate::default(), now, flushing: 0 }
    }

    /// Absorbs whatever arrived; any bytes will do.
    pub fn handle_datagram(&mut self, now: Time, bytes: &[u8]) {
        self.advance(now);
        let (Some(&kind), Some(&version)) = (bytes.first(), bytes.get(1)) else { return self.stranger() };
        if bytes.len() > limits::DATAGRAM_BYTES_MAX || !(wire::HELLO..=wire::PACKET).contains(&kind) {
            return self.stranger();
        }
        if version != wire::VERSION {
            return self.complain(Trouble::Version { theirs: version, ours: wire::VERSION });
        }
        if kind == wire::PACKET {
            // Packets of links that are gone, or of another process with this identity, are common and harmless.
            let Some(header) = wire::PacketHeader::read(bytes) else { return self.stranger() };
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.expects_packets_of(header.link)) {
                peer.packet(&mut self.common, self.now, bytes);
            }
            return;
        }
        let Some((id, from)) = handshake::peek(bytes) else { return self.stranger() };
        if from == Some(self.common.me) {
            return;
        }
        let peer = match from {
            Some(from) => self.peers.iter_mut().find(|peer| peer.id() == from),
            None => match self.peers.iter_mut().find(|peer| peer.expects_confirmation_of(id)) {
                Some(peer) => Some(peer),
                // A late repetition.
                None => return,
            },
        };
        let Some(peer) = peer else { return self.stranger() };
        let Some(bytes) = peer.recognise(&mut self.common, self.now, bytes) else { return };
        match kind {
            wire::HELLO => peer.hello(&mut self.common, self.now, bytes),
            wire::REPLY => peer.reply(&mut self.common, self.now, id, bytes),
            _ => peer.confirm(&mut self.common, self.now, id, bytes),
        }
    }

    /// Timers.
    pub fn handle_wake(&mut self, now: Time) {
        self.advance(now);
        for peer in &mut self.peers {
            peer.wake(&mut self.common, self.now);
        }
    }

    /// Answers [`LinkOutput::Remember`] once it is durable, and [`take_unwritten`](Self::take_unwritten).
    pub fn remembered(&mut self, now: Time, peer: NodeId, mark: Mark) {
        self.advance(now);
        if let Some(at) = self.position(peer)
            && let Some(peer) = self.peers.get_mut(at)
        {
            peer.remembered(&mut self.common, self.now, mark);
        }
    }

    /// Answers [`LinkOutput::RolledBack`] once it is durable.
    pub fn conceded(&mut self, now: Time, incarnation: Incarnation) {
        self.advance(now);
        self.common.history.concede(incarnation);
        for peer in self.peers.iter_mut().filter(|peer| peer.incarnation().is_none()) {
            peer.begin_anew(&mut self.common, self.now);
        }
    }

    /// So many commits of this node's store are durable now. From here on peers are told with everything that they hear.
    pub fn committed(&mut self, commits: u64) {
        self.common.history.committed(commits);
    }

    /// The peers' newest marks that no write has taken along yet. Whoever writes something takes them, so that what rests
    /// on a peer's word is durable together with how far the peer had come; then calls [`remembered`](Self::remembered).
    pub fn take_unwritten(&mut self) -> Vec<(NodeId, Mark)> {
        self.peers.iter_mut().filter_map(|peer| Some((peer.id(), peer.take_unwritten()?))).collect()
    }

    /// Queues a message; it leaves with the next [`poll`](Self::poll)s.
    ///
    /// # Errors
    /// The link is down, or the lane is full; either way nothing of the message is sent.
    pub fn send(&mut self, now: Time, peer: NodeId, lane: Lane, message: Vec<u8>) -> Result<(), SendError> {
        self.advance(now);
        let at = self.position(peer).ok_or(SendError::NotUp)?;
        let link = self.peers.get_mut(at).and_then(Peer::link_mut).ok_or(SendError::NotUp)?;
        if message.is_empty() || message.len() > limits::MESSAGE_BYTES_MAX || !link.push(lane, message) {
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Tells all peers that this node's process ends now, which is worth no more than its silence: they need not wait for
    /// that. Nothing is to be handled afterwards.
    pub fn leave(&mut self, now: Time) {
        self.advance(now);
        self.peers.iter_mut().filter_map(Peer::link_mut).for_each(Link::leave);
    }

    /// The next thing that links want or have.
    pub fn poll(&mut self) -> Option<LinkOutput> {
        if let Some(output) = self.common.outputs.pop_front() {
            return Some(output);
        }
        while let Some(peer) = self.peers.get_mut(self.flushing) {
            let to = peer.id();
            let common = &mut self.common;
            if let Some(bytes) = peer.link_mut().and_then(|link| link.seal_next(self.now, || common.mark())) {
                return Some(LinkOutput::Datagram { to, bytes });
            }
            self.flushing += 1;
        }
        self.flushing = 0;
        None
    }

    /// When [`handle_wake`](Self::handle_wake) should be called.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        self.peers.iter().map(Peer::wake_at).min()
    }

    /// The start under which a peer answers; `None` while it does not.
    #[must_use]
    pub fn incarnation_of(&self, peer: NodeId) -> Option<Incarnation> {
        self.peers.get(self.position(peer)?)?.incarnation()
    }

    /// How every link is, for people; by id.
    #[must_use]
    pub fn states(&self) -> Vec<LinkState> {
        self.peers.iter().map(Peer::state).collect()
    }

    fn position(&self, peer: NodeId) -> Option<usize> {
        self.peers.binary_search_by_key(&peer, Peer::id).ok()
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.flushing = 0;
    }

    fn stranger(&mut self) {
        self.complain(Trouble::Stranger);
    }

    fn complain(&mut self, trouble: Trouble) {
        if self.strangers.admits(self.now, &trouble) {
            self.common.outputs.push_back(LinkOutput::Trouble(trouble));
        }
    }
}

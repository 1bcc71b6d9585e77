//! An established link: sealed packets, acknowledgements, heartbeats.
//!
//! Invariant: the packet counter is the nonce; it only grows, so no nonce is used twice under a key, and a packet is
//! accepted at most once.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _,
    aead::{AeadInOut as _, inout::InOutBuf},
};

use zeroize::Zeroizing;

use super::{
    LANES, Lane,
    handshake::Agreed,
    lane::{Accepted, ReceiveLane, SendLane},
    mark::Mark,
    wire::{self, Frame, PacketHeader, Reader},
};
use crate::{
    Duration, Incarnation, Time, limits,
    planted::{Bug, planted},
};

/// Counters that were seen, below the greatest one.
struct ReplayWindow {
    /// One more than the greatest counter seen.
    end: u64,
    seen: [u64; Self::WORDS],
}

impl ReplayWindow {
    const WORDS: usize = 32;
    const SIZE: u64 = Self::WORDS as u64 * 64;

    fn place(counter: u64) -> (usize, u64) {
        // The remainder is below WORDS.
        ((counter / 64 % Self::WORDS as u64) as usize, 1 << (counter % 64))
    }

    fn is_new(&self, counter: u64) -> bool {
        // The last counter of all is never used: nothing could be newer.
        if counter == u64::MAX {
            return false;
        }
        if counter >= self.end {
            return true;
        }
        // One word is being reused for greater counters, so it cannot answer for old ones.
        if self.end - counter > Self::SIZE - 64 {
            return false;
        }
        let (word, bit) = Self::place(counter);
        self.seen[word] & bit == 0
    }

    fn insert(&mut self, counter: u64) {
        if counter >= self.end {
            let (from, to) = (self.end.div_ceil(64), counter / 64);
            for word in from..=to.min(from.saturating_add(Self::WORDS as u64)) {
                self.seen[(word % Self::WORDS as u64) as usize] = 0;
            }
            self.end = counter.saturating_add(1);
        }
        let (word, bit) = Self::place(counter);
        self.seen[word] |= bit;
    }
}

/// Why a packet was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It was seen before, or is so late that nobody knows.
    Repeated,
    /// Its seal is broken.
    Forged,
    /// The peer itself sent what it must not; the link cannot go on.
    Violation(&'static str),
}

/// An established link.
pub(super) struct Link {
    pub agreed: Agreed,
    /// The newest mark that the peer has said, and the packet that it came in.
    pub said: Mark,
    said_in: u64,
    pub since: Time,
    pub last_heard: Time,
    last_sent: Time,
    counter: u64,
    window: ReplayWindow,
    sending: [SendLane; 3],
    receiving: [ReceiveLane; 3],
    /// Greatest counter of a packet of ours that is known to have arrived.
    newest_arrived: u64,
    smoothed: Option<Duration>,
    variation: Duration,
    /// When acknowledgements must leave at the latest.
    acknowledge_at: Option<Time>,
    /// Something must be said now, if only that we are here.
    speak: bool,
    /// This node's process ends now, and says so.
    leaves: bool,
    /// The peer has said so of its own.
    pub left: bool,
}

impl Link {
    pub fn new(agreed: Agreed, now: Time) -> Self {
        Self {
            said: agreed.peer.mark,
            said_in: 0,
            agreed,
            since: now,
            last_heard: now,
            last_sent: now,
            counter: 0,
            window: ReplayWindow { end: 0, seen: [0; ReplayWindow::WORDS] },
            sending: LANES.map(|lane| {
                SendLane::new(if lane == Lane::Bulk { limits::BULK_WINDOW_BYTES } else { limits::LANE_WINDOW_BYTES })
            }),
            receiving: Default::default(),
            newest_arrived: 0,
            smoothed: None,
            variation: Duration::ZERO,
            acknowledge_at: None,
            speak: true,
            leaves: false,
            left: false,
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        self.agreed.peer.mark.incarnation
    }

    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    pub fn queued(&self) -> usize {
        self.sending.iter().map(SendLane::queued).sum()
    }

    /// Makes the next flush say something even if nothing waits.
    pub fn speak(&mut self) {
        self.speak = true;
    }

    /// Makes the next flush say that this node's process ends.
    pub fn leave(&mut self) {
        self.leaves = true;
        self.speak = true;
    }

    /// Queues a message; `false` if the lane is full.
    pub fn push(&mut self, lane: Lane, message: Vec<u8>) -> bool {
        self.sending[lane.index()].push(message)
    }

    fn timeout(&self) -> Duration {
        self.smoothed
            .map_or(limits::RESEND_MIN, |smoothed| smoothed + 4 * self.variation + limits::ACKNOWLEDGE_WITHIN)
            .clamp(limits::RESEND_MIN, limits::RESEND_MAX)
    }

    fn learn(&mut self, sample: Duration) {
        // RFC 6298.
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// Opens a packet and absorbs its frames; whole messages go to `deliver`.
    pub fn open(&mut self, now: Time, bytes: &[u8], mut deliver: impl FnMut(Lane, Vec<u8>)) -> Result<(), Rejected> {
        let header = PacketHeader::read(bytes).ok_or(Rejected::Forged)?;
        if !self.window.is_new(header.counter) {
            return Err(Rejected::Repeated);
        }
        let (associated, sealed) = bytes.split_at_checked(wire::PACKET_HEADER).ok_or(Rejected::Forged)?;
        let length = sealed.len().checked_sub(wire::SEAL).ok_or(Rejected::Forged)?;
        let (ciphertext, tag) = sealed.split_at(length);
        let tag: [u8; wire::SEAL] = tag.try_into().map_err(|_| Rejected::Forged)?;
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        ChaCha20Poly1305::new((&*self.agreed.keys.receive).into())
            .decrypt_inout_detached(
                &nonce(header.counter).into(),
                associated,
                InOutBuf::from(plain.as_mut_slice()),
                &tag.into(),
            )
            .map_err(|_| Rejected::Forged)?;
        self.window.insert(header.counter);
        self.last_heard = now;
        let mut reader = Reader(&plain);
        while !reader.0.is_empty() {
            match Frame::read(&mut reader).ok_or(Rejected::Violation("a packet that does not parse"))? {
                Frame::Ack(ack) => {
                    let learned = self.sending[ack.lane.index()]
                        .acknowledge(now, ack.below, &ack.ranges)
                        .map_err(|_| Rejected::Violation("an acknowledgement of what was never sent"))?;
                    if let Some(sample) = learned.round_trip {
                        self.learn(sample);
                    }
                    self.newest_arrived = self.newest_arrived.max(learned.newest);
                }
                Frame::Mark { commits, seal } => {
                    if commits > self.said.commits {
                        self.said = Mark::from_parts(self.incarnation(), commits, seal);
                        self.said_in = header.counter;
                    } else if commits < self.said.commits && header.counter > self.said_in {
                        // The next handshake tells it so.
                        return Err(Rejected::Violation(
                            "it has forgotten what it had said: it was put back or copied",
                        ));
                    }
                }
                Frame::Leaving => self.left = true,
                Frame::Data { lane, sequence, total, payload } => {
                    let receiving = &mut self.receiving[lane.index()];
                    let accepted = receiving
                        .accept(sequence, total, payload, &mut |message| deliver(lane, message))
                        .map_err(|contradiction| Rejected::Violation(contradiction.0))?;
                    let at_once = accepted != Accepted::InOrder
                        || receiving.unacknowledged >= limits::ACKNOWLEDGE_FRAGMENTS
                        || receiving.unacknowledged_bytes >= limits::ACKNOWLEDGE_BYTES;
                    if accepted != Accepted::NoRoom {
                        let by = if at_once { now } else { now.after(limits::ACKNOWLEDGE_WITHIN) };
                        self.acknowledge_at = Some(self.acknowledge_at.map_or(by, |at| at.min(by)));
                    }
                }
            }
        }
        // Counters are the link's, so traffic in one lane tells of losses in another.
        for lane in &mut self.sending {
            lane.look_for_overtaken(self.newest_arrived);
        }
        Ok(())
    }

    /// Timers: marks what must be sent again, and whether a heartbeat is due.
    pub fn tick(&mut self, now: Time) {
        let timeout = self.timeout();
        for lane in &mut self.sending {
            lane.look_for_lost(now, timeout);
        }
        if self.last_sent.after(limits::HEARTBEAT) <= now {
            self.speak = true;
        }
    }

    /// When [`tick`](Self::tick) or [`seal_next`](Self::seal_next) has something to do.
    pub fn wake_at(&self) -> Time {
        let mut at = self.last_sent.after(limits::HEARTBEAT).min(self.last_heard.after(limits::LINK_SILENCE_MAX));
        for lane in &self.sending {
            at = lane.resend_at.map_or(at, |resend| resend.min(at));
        }
        self.acknowledge_at.map_or(at, |acknowledge| acknowledge.min(at))
    }

    fn writes(&self, now: Time) -> bool {
        self.speak
            || self.acknowledge_at.is_some_and(|at| at <= now)
            || self.sending.iter().any(|lane| lane.next_length().is_some())
    }

    /// Builds the next packet, if something must leave now. Acknowledgements ride on whatever leaves; and so does this
    /// node's mark, so that whoever hears what rests on a commit has heard of the commit.
    pub fn seal_next(&mut self, now: Time, mark: impl FnOnce() -> Mark) -> Option<Vec<u8>> {
        if !self.writes(now) {
            return None;
        }
        let again = planted(Bug::NonceReused) && self.sending.iter().any(SendLane::repeats);
        let counter = self.counter.saturating_sub(u64::from(again));
        // At the end of the counter the link falls silent and is replaced; no nonce is ever used again.
        let stays = planted(Bug::CounterNotAdvanced) && self.sending.iter().all(|lane| lane.next_length().is_none());
        self.counter = counter.checked_add(u64::from(!stays))?;
        let first = self.sending.iter().find_map(SendLane::next_length).unwrap_or(0);
        let mut packet = Vec::with_capacity(
            wire::PACKET_HEADER
                + wire::SEAL
                + first
                + wire::DATA_OVERHEAD
                + wire::ACK_BYTES_MAX
                + wire::MARK_BYTES
                + wire::LEAVING_BYTES,
        );
        PacketHeader { link: self.agreed.keys.link, counter }.write(&mut packet);
        for (lane, receiving) in LANES.into_iter().zip(&mut self.receiving) {
            if receiving.unacknowledged > 0 {
                let (below, ranges) = receiving.acknowledgement();
                wire::write_ack(&mut packet, lane, below, &ranges);
            }
        }
        let mark = mark();
        wire::write_mark(&mut packet, mark.commits, mark.seal());
        if self.leaves {
            wire::write_leaving(&mut packet);
        }
        self.acknowledge_at = None;
        self.speak = false;
        let timeout = self.timeout();
        let mut urgent = false;
        for lane in LANES {
            // Bulk travels in packets of its own: what is urgent does not wait for 64 KiB to arrive.
            if lane == Lane::Bulk && urgent {
                break;
            }
            let sending = &mut self.sending[lane.index()];
            while let Some(length) = sending.next_length() {
                if packet.len() + wire::DATA_OVERHEAD + length + wire::SEAL > limits::DATAGRAM_BYTES_MAX {
                    break;
                }
                let Some(fragment) = sending.take(now, counter, timeout) else { break };
                wire::write_data(&mut packet, lane, fragment.sequence, fragment.total, fragment.payload);
                urgent |= lane != Lane::Bulk;
            }
        }
        let (associated, body) = packet.split_at_mut(wire::PACKET_HEADER);
        let tag = ChaCha20Poly1305::new((&*self.agreed.keys.send).into())
            .encrypt_inout_detached(&nonce(counter).into(), associated, InOutBuf::from(body))
            .ok()?;
        packet.extend_from_slice(&tag);
        self.last_sent = now;
        Some(packet)
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::handshake;

    #[test]
    fn the_replay_window_takes_every_counter_once_in_any_order() {
        let mut window = ReplayWindow { end: 0, seen: [0; ReplayWindow::WORDS] };
        for counter in [0, 5, 3, 64, 63, 700, 699, 1, 128] {
            assert!(window.is_new(counter), "{counter}");
            window.insert(counter);
            assert!(!window.is_new(counter), "{counter}");
        }
        window.insert(100_000);
        assert!(!window.is_new(700), "too late to know");
        assert!(window.is_new(100_001) && window.is_new(99_999) && !window.is_new(100_000));
        assert!(!window.is_new(u64::MAX));
    }

    #[test]
    fn the_replay_window_agrees_with_a_set() {
        let mut window = ReplayWindow { end: 0, seen: [0; ReplayWindow::WORDS] };
        let mut seen = std::collections::BTreeSet::new();
        let mut random = 1u64;
        let mut highest = 0u64;
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let counter = (highest + 40).saturating_sub((random >> 33) & 1023);
            assert_eq!(window.is_new(counter), !seen.contains(&counter), "{counter} below {highest}");
            window.insert(counter);
            seen.insert(counter);
            highest = highest.max(counter);
        }
    }

    #[test]
    fn a_peer_that_has_forgotten_what_it_said_goes_on_with_no_link() {
        let (sending, receiving) = handshake::tests::agreed();
        let identity = handshake::tests::node(1).0;
        let mark = |commits| Mark::of(&identity, receiving.peer.mark.incarnation, commits);
        let mut sender = Link::new(sending, Time(0));
        let mut say = |commits| {
            sender.speak();
            sender.seal_next(Time(0), || mark(commits)).expect("something is said")
        };
        let packets = [say(5), say(6), say(6), say(8), say(7)];
        let mut receiver = Link::new(receiving.clone(), Time(0));
        // Packets that overtake each other are no such thing.
        for at in [1, 0, 3, 2] {
            receiver.open(Time(0), &packets[at], |_, _| {}).unwrap_or_else(|_| panic!("packet {at}"));
        }
        assert_eq!(receiver.said.commits, 8);
        assert!(matches!(receiver.open(Time(0), &packets[4], |_, _| {}), Err(Rejected::Violation(_))));
    }
}

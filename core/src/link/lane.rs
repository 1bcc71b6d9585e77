//! One lane of one link: what waits to be acknowledged, and what arrived out of order.
//!
//! Invariant: a message is handed up once, whole, and after every earlier message of its lane; a receiver holds at
//! most [`LANE_WINDOW_PACKETS`](limits::LANE_WINDOW_PACKETS) fragments and a bounded number of bytes, and takes no more
//! fragments than that until it has acknowledged some.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use zeroize::Zeroizing;

use crate::planted::{Bug, planted};
use crate::{Duration, Time, limits};

/// One fragment of a message on its way.
struct Fragment {
    /// Erased when the last fragment is acknowledged.
    message: Arc<Zeroizing<Vec<u8>>>,
    start: usize,
    length: usize,
    /// Length of the whole message, on its first fragment.
    total: Option<u32>,
    /// The last transmission.
    sent_at: Time,
    counter: u64,
    tries: u32,
    acknowledged: bool,
}

/// A fragment about to be written into a packet.
pub(super) struct Sending<'a> {
    pub sequence: u64,
    pub total: Option<u32>,
    pub payload: &'a [u8],
}

/// What an acknowledgement taught.
#[derive(Default)]
pub(super) struct Learned {
    /// Time from the only transmission of a fragment to its acknowledgement.
    pub round_trip: Option<Duration>,
    /// Greatest counter of a packet that is now known to have arrived.
    pub newest: u64,
}

/// An acknowledgement of something that was never sent.
#[derive(Debug)]
pub(super) struct NeverSent;

/// The sending half.
pub(super) struct SendLane {
    window_bytes: usize,
    /// Sequence number of the first fragment in `queue`.
    base: u64,
    queue: VecDeque<Fragment>,
    /// How many fragments at the front of `queue` were sent at least once.
    sent: usize,
    /// Bytes in `queue`.
    bytes: usize,
    /// Bytes sent and not acknowledged.
    flying: usize,
    /// Sequence numbers to send again.
    lost: BTreeSet<u64>,
    /// When to look for lost fragments; may be early, never late.
    pub resend_at: Option<Time>,
}

impl SendLane {
    pub fn new(window_bytes: usize) -> Self {
        Self {
            window_bytes,
            base: 0,
            queue: VecDeque::new(),
            sent: 0,
            bytes: 0,
            flying: 0,
            lost: BTreeSet::new(),
            resend_at: None,
        }
    }

    /// Bytes that wait for an acknowledgement or for their turn.
    pub fn queued(&self) -> usize {
        self.bytes
    }

    /// Whether the next fragment was sent before.
    pub fn repeats(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Queues a message, which is not empty; `false` if the lane is full.
    pub fn push(&mut self, message: Vec<u8>) -> bool {
        let fragments = message.len().div_ceil(limits::FRAGMENT_BYTES_MAX);
        if self.bytes + message.len() > limits::LANE_BYTES_MAX
            || self.queue.len() + fragments > limits::LANE_FRAGMENTS_MAX
        {
            return false;
        }
        self.bytes += message.len();
        // Messages are at most MESSAGE_BYTES_MAX, checked by the caller.
        let total = message.len() as u32;
        let message = Arc::new(Zeroizing::new(message));
        for at in 0..fragments {
            let start = at * limits::FRAGMENT_BYTES_MAX;
            self.queue.push_back(Fragment {
                length: (message.len() - start).min(limits::FRAGMENT_BYTES_MAX),
                message: Arc::clone(&message),
                start,
                total: (at == 0).then_some(total),
                sent_at: Time::default(),
                counter: 0,
                tries: 0,
                acknowledged: false,
            });
        }
        true
    }

    /// Payload length of the fragment that should go next, if one should.
    pub fn next_length(&self) -> Option<usize> {
        if let Some(sequence) = self.lost.first() {
            return self.fragment(*sequence).map(|f| f.length);
        }
        let fragment = self.queue.get(self.sent)?;
        let open = self.sent < limits::LANE_WINDOW_PACKETS
            && (self.flying == 0 || self.flying + fragment.length <= self.window_bytes);
        open.then_some(fragment.length)
    }

    /// Takes the fragment that [`next_length`](Self::next_length) spoke of, noting that packet `counter` carries it.
    pub fn take(&mut self, now: Time, counter: u64, timeout: Duration) -> Option<Sending<'_>> {
        self.next_length()?;
        let sequence = match self.lost.pop_first() {
            Some(sequence) => sequence,
            None => {
                let sequence = self.base + self.sent as u64;
                self.sent += 1;
                sequence
            }
        };
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        let fragment = self.queue.get_mut(index)?;
        if fragment.tries == 0 {
            self.flying += fragment.length;
        }
        fragment.tries = fragment.tries.saturating_add(1);
        fragment.sent_at = now;
        fragment.counter = counter;
        let due = if planted(Bug::NeverSentAgain) { Time(u64::MAX) } else { now.after(wait(timeout, fragment.tries)) };
        self.resend_at = Some(self.resend_at.map_or(due, |at| at.min(due)));
        let payload = fragment.message.get(fragment.start..fragment.start + fragment.length)?;
        Some(Sending { sequence, total: fragment.total, payload })
    }

    fn fragment(&self, sequence: u64) -> Option<&Fragment> {
        self.queue.get(usize::try_from(sequence.checked_sub(self.base)?).ok()?)
    }

    /// Marks for repetition what has waited too long.
    pub fn look_for_lost(&mut self, now: Time, timeout: Duration) {
        if self.resend_at.is_none_or(|at| at > now) {
            return;
        }
        self.resend_at = None;
        for (sequence, fragment) in (self.base..).zip(self.queue.iter().take(self.sent)) {
            if fragment.acknowledged || self.lost.contains(&sequence) {
                continue;
            }
            let due = fragment.sent_at.after(wait(timeout, fragment.tries));
            if due <= now {
                self.lost.insert(sequence);
            } else {
                self.resend_at = Some(self.resend_at.map_or(due, |at| at.min(due)));
            }
        }
    }

    /// Absorbs an acknowledgement.
    pub fn acknowledge(&mut self, now: Time, below: u64, ranges: &[(u64, u64)]) -> Result<Learned, NeverSent> {
        let end = self.base + self.sent as u64;
        if below > end || ranges.iter().any(|(start, count)| start.checked_add(*count).is_none_or(|e| e > end)) {
            return Err(NeverSent);
        }
        let mut learned = Learned::default();
        for sequence in named(self.base, below, ranges) {
            self.mark(now, sequence, &mut learned);
        }
        while self.queue.front().is_some_and(|f| f.acknowledged) {
            if let Some(fragment) = self.queue.pop_front() {
                self.bytes -= fragment.length;
                self.base += 1;
                self.sent -= 1;
            }
        }
        if self.sent == 0 {
            self.resend_at = None;
        }
        Ok(learned)
    }

    /// Marks for repetition what packets sent three later have overtaken: it is lost, not late.
    pub fn look_for_overtaken(&mut self, newest: u64) {
        for (sequence, fragment) in (self.base..).zip(self.queue.iter().take(self.sent)) {
            if !fragment.acknowledged && fragment.counter.saturating_add(3) <= newest {
                self.lost.insert(sequence);
            }
        }
    }

    fn mark(&mut self, now: Time, sequence: u64, learned: &mut Learned) {
        let index = sequence.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        let Some(fragment) = index.and_then(|i| self.queue.get_mut(i)) else { return };
        if fragment.acknowledged {
            return;
        }
        fragment.acknowledged = true;
        self.flying -= fragment.length;
        self.lost.remove(&sequence);
        learned.newest = learned.newest.max(fragment.counter);
        // A repeated fragment does not tell which transmission was acknowledged.
        if fragment.tries == 1 {
            learned.round_trip = Some(now.since(fragment.sent_at));
        }
    }
}

/// What an acknowledgement names from `base` on, each once: its ranges ascend, or those that go back are not read again.
fn named(base: u64, below: u64, ranges: &[(u64, u64)]) -> impl Iterator<Item = u64> + '_ {
    let ranges = ranges.iter().map(|(start, count)| (*start, start.saturating_add(*count)));
    std::iter::once((base, below))
        .chain(ranges)
        .scan(base, |from, (start, end)| {
            let range = start.max(*from)..end;
            *from = end.max(*from);
            Some(range)
        })
        .flatten()
}

/// How long to wait for the acknowledgement of the `tries`-th transmission.
fn wait(timeout: Duration, tries: u32) -> Duration {
    timeout.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(limits::RESEND_MAX)
}

/// A fragment that overtook an earlier one.
struct Held {
    total: Option<u32>,
    bytes: Zeroizing<Vec<u8>>,
}

/// A message of which the last fragment is missing.
struct Assembly {
    total: usize,
    bytes: Vec<u8>,
}

/// What became of a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accepted {
    /// It was the next one.
    InOrder,
    /// It was there already.
    Again,
    /// It overtook another; the sender should soon hear of the gap.
    Early,
    /// There is no room to hold it; the sender will repeat it.
    NoRoom,
}

/// The peer's fragments contradict each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contradiction(pub &'static str);

/// The receiving half.
#[derive(Default)]
pub(super) struct ReceiveLane {
    next: u64,
    /// What `next` was when it was last acknowledged: an honest sender goes no further than a window beyond it.
    told: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    assembly: Option<Assembly>,
    /// Fragments accepted since the last acknowledgement was written.
    pub unacknowledged: usize,
    /// Their bytes.
    pub unacknowledged_bytes: usize,
}

impl ReceiveLane {
    /// Absorbs a fragment; whole messages go to `deliver`.
    pub fn accept(
        &mut self,
        sequence: u64,
        total: Option<u32>,
        payload: &[u8],
        deliver: &mut impl FnMut(Vec<u8>),
    ) -> Result<Accepted, Contradiction> {
        if sequence.saturating_sub(self.told) >= limits::LANE_WINDOW_PACKETS as u64 {
            return Ok(Accepted::NoRoom);
        }
        if sequence > self.next && !self.held.contains_key(&sequence) {
            if self.held_bytes + payload.len() > limits::LANE_HELD_BYTES_MAX {
                return Ok(Accepted::NoRoom);
            }
            self.held_bytes += payload.len();
            self.held.insert(sequence, Held { total, bytes: Zeroizing::new(payload.to_vec()) });
            self.count(payload.len());
            return Ok(Accepted::Early);
        }
        self.count(payload.len());
        if sequence != self.next {
            if planted(Bug::DeliveredTwice) && total.is_some_and(|total| total as usize == payload.len()) {
                deliver(payload.to_vec());
            }
            return Ok(Accepted::Again);
        }
        self.append(total, payload, deliver)?;
        while let Some(held) = self.held.remove(&self.next) {
            self.held_bytes -= held.bytes.len();
            self.append(held.total, &held.bytes, deliver)?;
        }
        Ok(Accepted::InOrder)
    }

    fn count(&mut self, bytes: usize) {
        self.unacknowledged += 1;
        self.unacknowledged_bytes += bytes;
    }

    fn append(
        &mut self,
        total: Option<u32>,
        payload: &[u8],
        deliver: &mut impl FnMut(Vec<u8>),
    ) -> Result<(), Contradiction> {
        self.next += 1;
        let mut assembly = match (self.assembly.take(), total) {
            (None, Some(total)) => {
                let total = usize::try_from(total).unwrap_or(usize::MAX);
                if total > limits::MESSAGE_BYTES_MAX {
                    return Err(Contradiction("a message is longer than allowed"));
                }
                // What is announced is not yet here: room grows with what arrives.
                Assembly { total, bytes: Vec::with_capacity(total.min(4 * limits::FRAGMENT_BYTES_MAX)) }
            }
            (Some(assembly), None) => assembly,
            (None, None) => return Err(Contradiction("a fragment continues no message")),
            (Some(_), Some(_)) => return Err(Contradiction("a message begins inside another")),
        };
        if assembly.bytes.len() + payload.len() > assembly.total {
            return Err(Contradiction("fragments are longer than their message"));
        }
        if payload.is_empty() {
            return Err(Contradiction("an empty fragment"));
        }
        assembly.bytes.extend_from_slice(payload);
        if assembly.bytes.len() == assembly.total {
            deliver(assembly.bytes);
        } else {
            self.assembly = Some(assembly);
        }
        Ok(())
    }

    /// What to acknowledge: everything below the first number, and ranges as offset from it and length.
    pub fn acknowledgement(&mut self) -> (u64, Vec<(u16, u16)>) {
        self.unacknowledged = 0;
        self.unacknowledged_bytes = 0;
        self.told = self.next;
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for sequence in self.held.keys() {
            // Held fragments are within the window, which fits.
            let offset = (sequence - self.next) as u16;
            match ranges.last_mut() {
                Some((start, count)) if *start + *count == offset => *count += 1,
                _ => ranges.push((offset, 1)),
            }
        }
        (self.next, ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(
        lane: &mut ReceiveLane,
        sequence: u64,
        total: Option<u32>,
        bytes: &[u8],
    ) -> Result<Accepted, Contradiction> {
        lane.accept(sequence, total, bytes, &mut |_| {})
    }

    #[test]
    fn contradicting_fragments_are_named() {
        let too_long = u32::try_from(limits::MESSAGE_BYTES_MAX + 1).expect("fits");
        assert!(accept(&mut ReceiveLane::default(), 0, Some(too_long), b"x").is_err());
        assert!(accept(&mut ReceiveLane::default(), 0, None, b"x").is_err());
        assert!(accept(&mut ReceiveLane::default(), 0, Some(1), b"xy").is_err());
        let mut lane = ReceiveLane::default();
        assert_eq!(accept(&mut lane, 0, Some(9), b"x"), Ok(Accepted::InOrder));
        assert!(accept(&mut lane, 1, Some(9), b"x").is_err());
        assert!(accept(&mut ReceiveLane::default(), 0, Some(0), b"").is_err(), "nobody says nothing");
    }

    #[test]
    fn a_receiver_takes_no_more_than_a_window_until_it_has_acknowledged_some() {
        let mut lane = ReceiveLane::default();
        let mut delivered = 0;
        for told in 1..4 {
            for sequence in 0..10_000 {
                lane.accept(sequence, Some(1), b"x", &mut |_| delivered += 1).expect("no contradiction");
            }
            assert_eq!(delivered, told * limits::LANE_WINDOW_PACKETS);
            assert_eq!(lane.acknowledgement(), (delivered as u64, Vec::new()));
        }
    }

    #[test]
    fn a_receiver_holds_no_more_than_its_limits() {
        let mut lane = ReceiveLane::default();
        let fragment = vec![0; limits::FRAGMENT_BYTES_MAX];
        let mut held = 0;
        for sequence in 1..100_000 {
            if accept(&mut lane, sequence, None, &fragment) == Ok(Accepted::Early) {
                held += fragment.len();
            }
        }
        assert_eq!(held, limits::LANE_HELD_BYTES_MAX);
        let mut lane = ReceiveLane::default();
        let early = (1..100_000).filter(|s| accept(&mut lane, *s, Some(1), b"x") == Ok(Accepted::Early)).count();
        assert_eq!(early, limits::LANE_WINDOW_PACKETS - 1);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_an_error() {
        let mut lane = SendLane::new(1000);
        assert!(lane.push(b"one".to_vec()));
        assert!(lane.acknowledge(Time(1), 1, &[]).is_err());
        assert!(lane.take(Time(1), 0, limits::RESEND_MIN).is_some());
        assert!(lane.acknowledge(Time(2), 0, &[(u64::MAX, 1)]).is_err());
        assert!(lane.acknowledge(Time(2), 0, &[(0, 2)]).is_err());
        let learned = lane.acknowledge(Time(2), 1, &[]).expect("it was sent");
        assert_eq!(learned.round_trip, Some(Duration::from_micros(1)));
        assert_eq!((lane.queued(), lane.resend_at), (0, None));
    }

    #[test]
    fn an_acknowledgement_names_each_fragment_once() {
        let all = |below, ranges: &[(u64, u64)]| named(5, below, ranges).collect::<Vec<_>>();
        assert_eq!(all(7, &[(8, 2), (12, 1)]), [5, 6, 8, 9, 12]);
        assert_eq!(all(3, &[(4, 3)]), [5, 6]);
        assert_eq!(all(7, &vec![(7, 200); 32]).len(), 202);
    }

    #[test]
    fn waits_double_up_to_the_limit() {
        assert_eq!(wait(limits::RESEND_MIN, 1), limits::RESEND_MIN);
        assert_eq!(wait(limits::RESEND_MIN, 2), 2 * limits::RESEND_MIN);
        assert_eq!(wait(limits::RESEND_MIN, u32::MAX), limits::RESEND_MAX);
    }
}

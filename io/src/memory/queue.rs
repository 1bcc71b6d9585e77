//! One queue of requests with at-least-once delivery, as pure bookkeeping: time is an argument.
//!
//! A request is waiting, delivered to exactly one node, or gone. It only goes by acknowledgement.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mpcium_core::{
    NodeId, WallTime,
    input::{Delivery, DeliveryId, RequestKind},
    limits,
    output::Settlement,
};

/// See the module.
pub(super) struct Queue {
    kind: RequestKind,
    stream: &'static str,
    next_sequence: u64,
    requests: BTreeMap<u64, Request>,
    open: BTreeSet<NodeId>,
    /// Who got the last delivery: the next goes to the next node.
    last: Option<NodeId>,
}

struct Request {
    body: Vec<u8>,
    client: Option<String>,
    timestamp: WallTime,
    deliveries: u64,
    state: State,
}

enum State {
    /// May be delivered from this time on; `None`: at once.
    Waiting(Option<Instant>),
    Delivered {
        to: NodeId,
        id: DeliveryId,
        until: Instant,
    },
}

impl Queue {
    pub(super) fn new(kind: RequestKind, stream: &'static str) -> Self {
        Self { kind, stream, next_sequence: 1, requests: BTreeMap::new(), open: BTreeSet::new(), last: None }
    }

    /// A new request; returns its sequence number.
    pub(super) fn push(&mut self, body: Vec<u8>, client: Option<String>, timestamp: WallTime) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let request = Request { body, client, timestamp, deliveries: 0, state: State::Waiting(None) };
        self.requests.insert(sequence, request);
        sequence
    }

    pub(super) fn pending(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn intake(&mut self, node: NodeId, open: bool) {
        if open {
            self.open.insert(node);
        } else {
            self.open.remove(&node);
        }
    }

    /// The node is gone: what it held waits again.
    pub(super) fn leave(&mut self, node: NodeId) {
        self.open.remove(&node);
        for request in self.requests.values_mut() {
            if matches!(request.state, State::Delivered { to, .. } if to == node) {
                request.state = State::Waiting(None);
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        node: NodeId,
        delivery: DeliveryId,
        how: Settlement,
        now: Instant,
        acknowledge_wait: Duration,
    ) {
        let held = self.requests.iter_mut().find(
            |(_, request)| matches!(request.state, State::Delivered { to, id, .. } if to == node && id == delivery),
        );
        let Some((&sequence, request)) = held else { return };
        match how {
            Settlement::Acknowledge => {
                self.requests.remove(&sequence);
            }
            Settlement::KeepAlive => {
                if let State::Delivered { until, .. } = &mut request.state {
                    *until = now + acknowledge_wait;
                }
            }
            Settlement::Release(after) => request.state = State::Waiting(now.checked_add(after)),
        }
    }

    /// Deliveries that nobody kept alive wait again.
    pub(super) fn expire(&mut self, now: Instant) {
        for request in self.requests.values_mut() {
            if matches!(request.state, State::Delivered { until, .. } if until <= now) {
                request.state = State::Waiting(None);
            }
        }
    }

    /// The next delivery, if there is a request and a node for it.
    pub(super) fn next(
        &mut self,
        now: Instant,
        acknowledge_wait: Duration,
        next_id: &mut u64,
    ) -> Option<(NodeId, Delivery)> {
        let to = self.next_node()?;
        let (&sequence, request) = self.requests.iter_mut().find(
            |(_, request)| matches!(request.state, State::Waiting(from) if from.is_none_or(|from| from <= now)),
        )?;
        let id = DeliveryId(*next_id);
        *next_id += 1;
        request.deliveries += 1;
        request.state = State::Delivered { to, id, until: now + acknowledge_wait };
        self.last = Some(to);
        let delivery = Delivery {
            id,
            kind: self.kind,
            body: request.body.clone(),
            client: request.client.clone(),
            stream: self.stream.to_owned(),
            sequence,
            timestamp: request.timestamp,
            deliveries: request.deliveries,
        };
        Some((to, delivery))
    }

    /// When something changes by itself: an acknowledgement wait that ends, or a delay that does.
    pub(super) fn due(&self) -> Option<Instant> {
        let of = |request: &Request| match request.state {
            State::Waiting(from) => from.filter(|_| !self.open.is_empty()),
            State::Delivered { until, .. } => Some(until),
        };
        self.requests.values().filter_map(of).min()
    }

    /// The next open node in turn that has room.
    fn next_node(&self) -> Option<NodeId> {
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for request in self.requests.values() {
            if let State::Delivered { to, .. } = request.state {
                *held.entry(to).or_default() += 1;
            }
        }
        let has_room = |node: &&NodeId| held.get(node).copied().unwrap_or(0) < limits::REQUESTS_MAX;
        let after_last = self.open.iter().filter(|node| self.last.is_none_or(|last| **node > last));
        after_last.chain(self.open.iter()).find(has_room).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn queue() -> Queue {
        let mut queue = Queue::new(RequestKind::Sign, "mpc-signing");
        queue.intake(node(1), true);
        queue
    }

    fn next(queue: &mut Queue, now: Instant, ids: &mut u64) -> Option<(NodeId, Delivery)> {
        queue.next(now, WAIT, ids)
    }

    #[test]
    fn closed_nodes_get_nothing_and_open_ones_take_turns() {
        let (mut queue, mut ids, now) = (Queue::new(RequestKind::Sign, "s"), 0, Instant::now());
        for _ in 0..4 {
            queue.push(vec![], None, WallTime(0));
        }
        assert!(next(&mut queue, now, &mut ids).is_none());
        queue.intake(node(1), true);
        queue.intake(node(2), true);
        let order: Vec<NodeId> = std::iter::from_fn(|| next(&mut queue, now, &mut ids)).map(|(to, _)| to).collect();
        assert_eq!(order, [node(1), node(2), node(1), node(2)]);
    }

    #[test]
    fn a_delivery_that_is_not_kept_alive_comes_again() {
        let (mut queue, mut ids, start) = (queue(), 0, Instant::now());
        let sequence = queue.push(b"x".to_vec(), None, WallTime(7));
        let (_, first) = next(&mut queue, start, &mut ids).unwrap();
        assert_eq!((first.sequence, first.deliveries, first.timestamp), (sequence, 1, WallTime(7)));

        queue.settle(node(1), first.id, Settlement::KeepAlive, start + WAIT / 2, WAIT);
        queue.expire(start + WAIT);
        assert!(next(&mut queue, start + WAIT, &mut ids).is_none(), "it was kept alive");

        let later = start + WAIT * 2;
        queue.expire(later);
        let (_, second) = next(&mut queue, later, &mut ids).unwrap();
        assert_eq!((second.sequence, second.deliveries), (sequence, 2));
        assert_ne!(second.id, first.id);
        queue.settle(node(1), first.id, Settlement::Acknowledge, later, WAIT);
        assert_eq!(queue.pending(), 1, "the earlier delivery's name is void");
        queue.settle(node(1), second.id, Settlement::Acknowledge, later, WAIT);
        assert_eq!(queue.pending(), 0);
    }

    #[test]
    fn a_released_delivery_comes_again_after_its_delay() {
        let (mut queue, mut ids, start) = (queue(), 0, Instant::now());
        queue.push(vec![], None, WallTime(0));
        let (_, first) = next(&mut queue, start, &mut ids).unwrap();
        let delay = Duration::from_secs(5);
        queue.settle(node(1), first.id, Settlement::Release(delay), start, WAIT);
        assert!(next(&mut queue, start, &mut ids).is_none());
        assert_eq!(queue.due(), Some(start + delay));
        assert!(next(&mut queue, start + delay, &mut ids).is_some());
    }

    #[test]
    fn another_node_cannot_settle_a_delivery() {
        let (mut queue, mut ids, now) = (queue(), 0, Instant::now());
        queue.push(vec![], None, WallTime(0));
        let (_, delivery) = next(&mut queue, now, &mut ids).unwrap();
        queue.settle(node(2), delivery.id, Settlement::Acknowledge, now, WAIT);
        assert_eq!(queue.pending(), 1);
    }

    #[test]
    fn what_a_leaving_node_held_goes_to_another() {
        let (mut queue, mut ids, now) = (queue(), 0, Instant::now());
        queue.push(vec![], None, WallTime(0));
        let (to, _) = next(&mut queue, now, &mut ids).unwrap();
        queue.intake(node(2), true);
        queue.leave(to);
        assert_eq!(next(&mut queue, now, &mut ids).unwrap().0, node(2));
    }

    #[test]
    fn a_full_node_gets_no_more() {
        let (mut queue, mut ids, now) = (queue(), 0, Instant::now());
        for _ in 0..=limits::REQUESTS_MAX {
            queue.push(vec![], None, WallTime(0));
        }
        let taken = std::iter::from_fn(|| next(&mut queue, now, &mut ids)).count();
        assert_eq!(taken, limits::REQUESTS_MAX);
    }
}

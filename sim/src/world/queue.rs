//! The queues of clients' requests with JetStream's semantics: one shared consumer per stream, redelivery when no
//! acknowledgement comes in time, delay, keep-alive; settlements and deliveries may get lost.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{
    Input, WallTime,
    input::{Delivery, DeliveryId, RequestKind},
    output::Settlement,
};
use serde_json::json;

use super::{Event, World};
use crate::{
    invariants::Fact,
    planted::Planted,
    scenario::{At, SECOND},
};

/// How long the queue waits for an acknowledgement.
const ACKNOWLEDGEMENT_WAIT: u64 = 30 * SECOND;

#[derive(Debug)]
enum State {
    /// May be delivered from this time on.
    Ready(At),
    /// Delivered; `token` names the current period of waiting.
    Out { token: u64 },
    /// Acknowledged.
    Done,
}

#[derive(Debug)]
struct Message {
    body: Vec<u8>,
    client: Option<String>,
    timestamp: WallTime,
    deliveries: u64,
    state: State,
    /// Who got it last: node, process, and when.
    holder: Option<(usize, u64, At)>,
}

/// All queues.
#[derive(Debug, Default)]
pub struct Queues {
    messages: BTreeMap<(RequestKind, u64), Message>,
    last: BTreeMap<RequestKind, u64>,
    deliveries: BTreeMap<u64, (RequestKind, u64)>,
    delivered: u64,
    tokens: u64,
    /// What vanished before it was acknowledged.
    lost: BTreeSet<(RequestKind, u64)>,
    /// How many faults make consumers stall.
    pub stalled: u32,
}

impl Queues {
    /// A stream goes on after this message, which was answered before the run.
    pub(super) fn skip(&mut self, kind: RequestKind, sequence: u64) {
        let last = self.last.entry(kind).or_insert(0);
        *last = sequence.max(*last);
    }

    /// Whether a request vanished. Its client was told that it is in the queue: nobody can know whether it is answered.
    #[must_use]
    pub fn has_lost(&self, kind: RequestKind, sequence: u64) -> bool {
        self.lost.contains(&(kind, sequence))
    }

    /// How many requests have not been acknowledged.
    #[must_use]
    pub fn open(&self) -> usize {
        self.messages.values().filter(|message| !matches!(message.state, State::Done)).count()
    }
}

/// The stream's name as clients know it.
#[must_use]
pub fn stream(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Keygen => "mpc-keygen",
        RequestKind::Sign => "mpc-signing",
        RequestKind::Reshare => "mpc-reshare",
    }
}

impl World {
    /// A client's request is in the stream; returns its sequence number.
    pub(super) fn enqueue(&mut self, kind: RequestKind, body: Vec<u8>, client: Option<String>) -> u64 {
        let timestamp = WallTime(self.wall_ms());
        let now = self.now();
        let sequence = self.queues.last.entry(kind).or_insert(0);
        *sequence += 1;
        let sequence = *sequence;
        self.log.event(
            now,
            None,
            "enqueue",
            &body,
            || json!({"stream": stream(kind), "sequence": sequence, "body": String::from_utf8_lossy(&body)}),
        );
        self.queues.messages.insert(
            (kind, sequence),
            Message { body, client, timestamp, deliveries: 0, state: State::Ready(now), holder: None },
        );
        self.later(0, Event::Offer(kind));
        let rate = self.scenario.rates.request_lost;
        if !self.healed && rate > 0 && self.dice.below(1_000) < rate {
            // Whether somebody has it already or not.
            let delay = self.dice.skewed(1, 10 * SECOND);
            self.later(delay, Event::RequestLost { kind, sequence });
        }
        sequence
    }

    /// A request is lost with the server that had acknowledged it, whoever works for it.
    pub(super) fn request_lost(&mut self, kind: RequestKind, sequence: u64) {
        let open = |message: &Message| !matches!(message.state, State::Done);
        if self.healed || !self.queues.messages.get(&(kind, sequence)).is_some_and(open) {
            return;
        }
        self.queues.messages.remove(&(kind, sequence));
        self.queues.lost.insert((kind, sequence));
        self.counters.fault("lost request");
        self.log_lost(None, "request", kind, sequence);
    }

    /// Gives every ready message to somebody who takes requests.
    pub(super) fn offer(&mut self, kind: RequestKind) {
        if self.queues.stalled > 0 || self.network.bus_down > 0 {
            return;
        }
        let now = self.now();
        let takers: Vec<usize> = (0..self.machines.len())
            .filter(|node| {
                let machine = &self.machines[*node];
                machine.alive && machine.cut == 0 && machine.intake.get(&kind) == Some(&true)
            })
            .collect();
        let ready: Vec<u64> = self
            .queues
            .messages
            .range((kind, 0)..=(kind, u64::MAX))
            .filter(|(_, message)| matches!(message.state, State::Ready(at) if at <= now))
            .map(|((_, sequence), _)| *sequence)
            .collect();
        for sequence in ready {
            let Some(node) = self.dice.pick(&takers).copied() else { return };
            self.deliver(kind, sequence, node);
        }
    }

    fn deliver(&mut self, kind: RequestKind, sequence: u64, node: usize) {
        self.queues.delivered += 1;
        self.queues.tokens += 1;
        let (id, token) = (self.queues.delivered, self.queues.tokens);
        let (now, generation) = (self.now(), self.machines[node].generation);
        let retimed = self.has(Planted::NewTimestamp).then(|| WallTime(self.wall_ms()));
        let Some(message) = self.queues.messages.get_mut(&(kind, sequence)) else { return };
        message.deliveries += 1;
        if let Some(now) = retimed {
            message.timestamp = now;
        }
        message.state = State::Out { token };
        message.holder = Some((node, generation, now));
        let delivery = Delivery {
            id: DeliveryId(id),
            kind,
            body: message.body.clone(),
            client: message.client.clone(),
            stream: stream(kind).into(),
            sequence,
            timestamp: message.timestamp,
            deliveries: message.deliveries,
        };
        let deliveries = message.deliveries;
        if deliveries > 1 {
            self.counters.sometimes("redelivery");
        }
        self.queues.deliveries.insert(id, (kind, sequence));
        self.log.event(
            self.now(),
            Some(node),
            "deliver",
            &sequence.to_be_bytes(),
            || json!({"stream": stream(kind), "sequence": sequence, "delivery": deliveries, "id": id}),
        );
        self.later(ACKNOWLEDGEMENT_WAIT, Event::AcknowledgementMissing { kind, sequence, token });
        if !self.healed && self.dice.below(1_000) < self.scenario.rates.delivery_lost {
            self.counters.sometimes("lost delivery");
            self.log_lost(Some(node), "delivery", kind, sequence);
            return;
        }
        let delay = self.bus_delay();
        let generation = self.machines[node].generation;
        self.later(delay, Event::Input { node, generation, input: Box::new(Input::Request(delivery)) });
        if self.has(Planted::AcknowledgedOnDelivery) {
            self.settle_leaves(node, DeliveryId(id), Settlement::Acknowledge);
        }
    }

    /// Everything that is out is delivered once more.
    pub(super) fn queue_failover(&mut self) {
        let now = self.now();
        let mut out = 0;
        for message in self.queues.messages.values_mut() {
            if matches!(message.state, State::Out { .. }) {
                message.state = State::Ready(now);
                out += 1;
            }
        }
        if out > 0 {
            self.counters.sometimes("delivered again while the first taker works");
        }
        self.later(0, Event::Offer(RequestKind::Keygen));
        self.later(0, Event::Offer(RequestKind::Sign));
    }

    pub(super) fn bus_delay(&mut self) -> u64 {
        let (least, most) = self.scenario.rates.latency;
        self.dice.between(least, most)
    }

    /// Nobody acknowledged in time: the message is delivered again.
    pub(super) fn acknowledgement_missing(&mut self, kind: RequestKind, sequence: u64, token: u64) {
        let now = self.now();
        if let Some(message) = self.queues.messages.get_mut(&(kind, sequence))
            && matches!(message.state, State::Out { token: current } if current == token)
        {
            message.state = State::Ready(now);
            self.log.event(
                now,
                None,
                "acknowledgement missing",
                &sequence.to_be_bytes(),
                || json!({"stream": stream(kind), "sequence": sequence}),
            );
            let holder = message.holder;
            // In a healed world nothing gets lost: whoever has the request must have said so in time.
            if let Some((node, generation, since)) = holder
                && since > self.scenario.healed_at
                && self.healed
                && self.is_current(node, generation)
                && self.scenario.in_core(node)
                && !self.scenario.is_cheater(node)
            {
                self.violated(
                    "kept_alive",
                    format!("node{node} let {} {sequence} lapse while it has it", stream(kind)),
                );
            }
            self.offer(kind);
        }
    }

    fn log_lost(&mut self, node: Option<usize>, what: &str, kind: RequestKind, sequence: u64) {
        self.log.event(
            self.now(),
            node,
            "lost",
            what.as_bytes(),
            || json!({"what": what, "stream": stream(kind), "sequence": sequence}),
        );
    }

    /// A node settles a delivery.
    pub(super) fn settle_leaves(&mut self, node: usize, delivery: DeliveryId, how: Settlement) {
        let settled = self.queues.deliveries.get(&delivery.0).copied();
        self.log.event(self.now(), Some(node), "settle", &delivery.0.to_be_bytes(), || {
            let (stream, sequence) = settled.map_or(("", 0), |(kind, sequence)| (stream(kind), sequence));
            json!({"id": delivery.0, "how": format!("{how:?}"), "stream": stream, "sequence": sequence})
        });
        let Some((kind, sequence)) = settled else {
            self.violated(
                "acknowledged_after_answer",
                format!("node{node} settled delivery {} that never was", delivery.0),
            );
            return;
        };
        if how == Settlement::Acknowledge {
            self.observe(&Fact::Acknowledged { node, kind, sequence });
        }
        let lost = !self.healed && self.dice.below(1_000) < self.scenario.rates.settlement_lost;
        if lost || !self.on_bus(node) {
            self.counters.sometimes("lost settlement");
            self.log_lost(Some(node), "settlement", kind, sequence);
            return;
        }
        let delay = self.bus_delay();
        self.later(delay, Event::Settle { kind, sequence, how });
    }

    /// A settlement reaches the queue. Like JetStream's, it counts whichever delivery it was for.
    pub(super) fn settle_arrives(&mut self, kind: RequestKind, sequence: u64, how: Settlement) {
        let now = self.now();
        self.log.event(
            now,
            None,
            "settled",
            &sequence.to_be_bytes(),
            || json!({"stream": stream(kind), "sequence": sequence, "how": format!("{how:?}")}),
        );
        self.queues.tokens += 1;
        let token = self.queues.tokens;
        let Some(message) = self.queues.messages.get_mut(&(kind, sequence)) else { return };
        match (how, &message.state) {
            (_, State::Done) => {}
            (Settlement::Acknowledge, _) => message.state = State::Done,
            (Settlement::KeepAlive, State::Out { .. }) => {
                message.state = State::Out { token };
                self.later(ACKNOWLEDGEMENT_WAIT, Event::AcknowledgementMissing { kind, sequence, token });
            }
            (Settlement::KeepAlive, State::Ready(_)) => {}
            (Settlement::Release(_), _) if self.scenario.planted == Some(Planted::LostRelease) => {
                message.state = State::Done;
            }
            (Settlement::Release(delay), _) => {
                self.counters.sometimes("released delivery");
                let delay = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX / 2);
                message.state = State::Ready(now + delay);
                self.later(delay, Event::Offer(kind));
            }
        }
    }
}

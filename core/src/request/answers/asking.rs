//! A coordinator's ballot on its way: whom to ask, and when again.

use super::{Attempt, DeliveryKey, Message, Value, decision::Decision};
use crate::{Duration, NodeId, Time, context::Context, input::RequestKind, link::Lane, message::Message as Envelope};

/// How soon those that have not answered are asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A ballot with its timers.
#[derive(Debug)]
pub(crate) struct Asking {
    pub decision: Decision,
    ask_again: Time,
    /// Whether everybody has been asked once.
    asked: bool,
}

impl Asking {
    /// A new ballot; [`ask`](Self::ask) begins it.
    pub fn new(
        ctx: &Context,
        ballot: Attempt,
        payload: [u8; 32],
        acceptors: Vec<NodeId>,
        deliveries: Vec<DeliveryKey>,
    ) -> Self {
        Self { decision: Decision::new(ballot, payload, acceptors, deliveries), ask_again: ctx.now.time, asked: false }
    }

    /// Chooses, and asks everybody who promised to store it.
    pub fn choose(&mut self, ctx: &mut Context, kind: RequestKind, request: &[u8], value: Value) {
        self.decision.choose(value);
        self.ask_again = ctx.now.time;
        self.ask(ctx, kind, request);
    }

    /// When it is time to ask again: whether somebody has rejected the ballot for a higher one, and the others have not
    /// become a quorum without it. They may not answer at all, so the next ballot is above that number.
    pub fn outbid(&self, ctx: &Context) -> Option<u64> {
        self.decision.outbid().filter(|_| self.asked && ctx.now.time >= self.ask_again)
    }

    /// Asks those that have not answered, if it is time. Returns who is to store what was chosen.
    pub fn ask(&mut self, ctx: &mut Context, kind: RequestKind, request: &[u8]) -> Vec<NodeId> {
        if ctx.now.time < self.ask_again {
            return Vec::new();
        }
        self.ask_again = ctx.now.time.after(ASK_AGAIN);
        self.asked = true;
        let ballot = self.decision.ballot();
        let mut asked = Vec::new();
        if let Some((value, missing)) = self.decision.unstored() {
            for node in &missing {
                store(ctx, *node, (kind, request), ballot, value);
            }
            asked = missing;
        }
        for node in self.decision.unpromised() {
            let deliveries = self.decision.deliveries().to_vec();
            let message = Message::Prepare { kind, request: request.to_vec(), ballot, deliveries };
            ctx.send(node, Lane::Control, Envelope::Answers(message));
        }
        asked
    }

    /// Asks a member whose promise came after the choice.
    pub fn ask_late(&self, ctx: &mut Context, kind: RequestKind, request: &[u8], node: NodeId) {
        if let Some((value, _)) = self.decision.unstored().filter(|(_, missing)| missing.contains(&node)) {
            store(ctx, node, (kind, request), self.decision.ballot(), value);
        }
    }

    /// When those that have not answered are asked again.
    pub fn ask_again(&self) -> Time {
        self.ask_again
    }
}

fn store(ctx: &mut Context, node: NodeId, (kind, request): (RequestKind, &[u8]), ballot: Attempt, value: &Value) {
    let message = Message::Store { kind, request: request.to_vec(), ballot, value: value.clone() };
    ctx.send(node, Lane::Control, Envelope::Answers(message));
}

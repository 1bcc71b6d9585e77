//! A request leaves the queue only after an answer to it has reached the result stream: otherwise a crash at that
//! moment would lose it for ever.

use super::{Fact, Invariant};
use crate::world::World;

pub(super) struct AcknowledgedAfterAnswer;

impl Invariant for AcknowledgedAfterAnswer {
    fn name(&self) -> &'static str {
        "acknowledged_after_answer"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Acknowledged { node, kind, sequence } = fact else { return Ok(()) };
        let sent = world.clients.requests.iter().find(|r| r.kind == *kind && r.sequence == *sequence);
        // What is no request at all has no id by which its answer could be found.
        let Some(sent) = sent else { return Ok(()) };
        if world.results.answers(&sent.wallet, &sent.transaction) == 0 {
            return Err(format!("node{node} acknowledged {} {} before any answer", sent.wallet, sent.transaction));
        }
        Ok(())
    }
}

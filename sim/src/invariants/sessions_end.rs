//! Every session that a process starts ends once, and at once when the link to a participant goes down: a restarted
//! peer knows nothing of it.

use std::collections::BTreeMap;

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::{scenario::At, world::World};

#[derive(Default)]
pub(super) struct SessionsEnd {
    /// Running sessions of a process, with their participants.
    running: BTreeMap<(usize, u64), BTreeMap<String, Vec<String>>>,
    /// Sessions that must be over now, by process.
    doomed: BTreeMap<(usize, u64), (At, Vec<String>)>,
}

impl Invariant for SessionsEnd {
    fn name(&self) -> &'static str {
        "sessions_end"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Report { node, report, .. } = fact else { return Ok(()) };
        let process = (*node, world.machines.get(*node).map_or(0, |machine| machine.generation));
        let now = world.now();
        if let Some((at, sessions)) = self.doomed.get(&process)
            && *at < now
        {
            let running = self.running.get(&process);
            if let Some(left) = sessions.iter().find(|id| running.is_some_and(|running| running.contains_key(*id))) {
                return Err(format!("node{node} still runs session {left} although the link to a participant is down"));
            }
            self.doomed.remove(&process);
        }
        match report {
            Report::SessionStarted { session, participants, .. } => {
                let running = self.running.entry(process).or_default();
                if running.insert(session.clone(), participants.clone()).is_some() {
                    return Err(format!("node{node} started session {session} twice"));
                }
            }
            Report::SessionEnded { session, .. }
                if self.running.entry(process).or_default().remove(session).is_none() =>
            {
                return Err(format!("node{node} ended session {session}, which it does not run"));
            }
            Report::LinkDown { peer, .. } => {
                let running = self.running.entry(process).or_default();
                let hit = running.iter().filter(|(_, who)| who.contains(peer)).map(|(id, _)| id.clone());
                let (at, doomed) = self.doomed.entry(process).or_default();
                *at = now;
                doomed.extend(hit);
            }
            _ => {}
        }
        Ok(())
    }
}

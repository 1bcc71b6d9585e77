//! What an acceptor has promised, voted or resolved durably it never takes back, across restarts and rollbacks: a later
//! record of the same decision promises no less, holds the vote (unless its session is closed), closes no fewer
//! sessions, and holds no vote for a closed one. Whoever was rolled back must sit out what it cannot remember.

use std::collections::BTreeMap;

use mpcium_core::{
    store::Keyspace,
    wallet::{AcceptorRecord, record::Stored},
};

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct PromisesKept {
    last: BTreeMap<(usize, Vec<u8>), AcceptorRecord>,
}

impl Invariant for PromisesKept {
    fn name(&self) -> &'static str {
        "promises_kept"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Durable { node, batch } = fact else { return Ok(()) };
        // The known limit of noticing rollbacks.
        if world.machines.get(*node).is_none_or(|machine| machine.rolled_back_within_run) {
            return Ok(());
        }
        for write in batch.writes.iter().filter(|write| write.keyspace == Keyspace::Decisions) {
            let name = (*node, write.key.clone());
            let Some(value) = &write.value else {
                // Decided: nothing is promised any more.
                self.last.remove(&name);
                continue;
            };
            let record = AcceptorRecord::decode(value.expose())
                .map_err(|error| format!("node{node} stored an acceptor that cannot be read: {error}"))?;
            if let Some((_, value)) = record.acceptor.voted()
                && record.closed.contains(&value.facts().session)
            {
                return Err(format!("node{node} voted for a session of {} that it had closed", record.wallet));
            }
            if let Some(last) = self.last.get(&name) {
                compare(last, &record).map_err(|what| format!("node{node}, wallet {}: {what}", record.wallet))?;
            }
            self.last.insert(name, record);
        }
        Ok(())
    }
}

fn compare(last: &AcceptorRecord, record: &AcceptorRecord) -> Result<(), String> {
    if record.acceptor.promised() < last.acceptor.promised() {
        return Err("its promise has become smaller".to_owned());
    }
    if let Some(session) = last.closed.iter().find(|session| !record.closed.contains(session)) {
        return Err(format!("it does not know any more that session {session} is closed"));
    }
    let Some((ballot, value)) = last.acceptor.voted() else { return Ok(()) };
    match record.acceptor.voted() {
        Some((later, _)) if later >= ballot => Ok(()),
        None if record.closed.contains(&value.facts().session) => Ok(()),
        _ => Err("its vote is gone".to_owned()),
    }
}

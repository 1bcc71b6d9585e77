//! A slot decides one thing: once so many members have voted durably, in one ballot, for a session or for closing the
//! slot that this is decided, nothing else of the slot ever is, and no session of a closed slot becomes the wallet.
//! Votes are of honest members; with cheaters, who may say that they voted for nothing, only crashes are survived.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{
    consensus::Ballot,
    session::SessionId,
    store::Keyspace,
    wallet::{AcceptorRecord, CertificateRecord, Choice, Slot},
};

use super::{Fact, Invariant};
use crate::{records, world::World};

#[derive(Default)]
pub(super) struct SlotsDecideOnce {
    /// By wallet, slot and ballot.
    votes: BTreeMap<(String, u32, Ballot), Votes>,
    decided: BTreeMap<(String, u32), Choice>,
    /// The slots in which sessions were voted for.
    slots: BTreeMap<SessionId, u32>,
}

/// What was voted for in one ballot, and by whom.
struct Votes {
    choice: Choice,
    voters: BTreeSet<usize>,
}

impl Invariant for SlotsDecideOnce {
    fn name(&self) -> &'static str {
        "slots_decide_once"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Durable { node, batch } = fact else { return Ok(()) };
        if !world.scenario.cheaters.is_empty() || world.machines.iter().any(|machine| machine.rolled_back_within_run) {
            return Ok(());
        }
        for write in &batch.writes {
            let Some(value) = write.value.as_ref().map(|value| value.expose()) else { continue };
            match write.keyspace {
                Keyspace::Decisions => {
                    let record = records::read::<AcceptorRecord>(value).map_err(|error| error.to_string())?;
                    if let Some(voted) = record.acceptor.voted() {
                        self.voted(world, *node, &record.slot, voted.ballot, &voted.value)?;
                    }
                }
                Keyspace::Certificates => {
                    // A wallet's newest epoch stands there too.
                    let Ok(record) = records::read::<CertificateRecord>(value) else { continue };
                    let facts = record.certificate.facts();
                    let decided = self.slots.get(&facts.session).map(|slot| (facts.wallet.clone(), *slot));
                    if decided.and_then(|slot| self.decided.get(&slot)) == Some(&Choice::Close) {
                        return Err(format!("a session of a closed slot became wallet {}", facts.wallet));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl SlotsDecideOnce {
    fn voted(
        &mut self,
        world: &World,
        node: usize,
        slot: &Slot,
        ballot: Ballot,
        choice: &Choice,
    ) -> Result<(), String> {
        let name = (slot.wallet.clone(), slot.number);
        if let Choice::Session(value) = choice {
            self.slots.insert(value.facts().session, slot.number);
        }
        let ballot = (slot.wallet.clone(), slot.number, ballot);
        let votes =
            self.votes.entry(ballot).or_insert_with(|| Votes { choice: choice.clone(), voters: BTreeSet::new() });
        if votes.choice != *choice {
            return Err(format!("two votes of one ballot about wallet {} differ", slot.wallet));
        }
        votes.voters.insert(node);
        if votes.voters.len() < quorum(world, choice) {
            return Ok(());
        }
        match self.decided.insert(name, choice.clone()) {
            Some(other) if other != *choice => {
                Err(format!("slot {} of wallet {} was decided in two ways", slot.number, slot.wallet))
            }
            _ => Ok(()),
        }
    }
}

/// How many votes decide: as many as sign, for a session and for closing a slot; but where everybody signs, one member
/// closes a slot, because each of them could keep the session from becoming a wallet anyway.
fn quorum(world: &World, choice: &Choice) -> usize {
    let (nodes, threshold) = (world.scenario.nodes, world.scenario.threshold);
    match choice {
        Choice::Close if threshold == nodes => 1,
        Choice::Session(_) | Choice::Close => threshold,
    }
}

//! What an acceptor has promised or voted durably it never takes back, across restarts and rollbacks: a later record of
//! the same slot promises no less and holds the vote; slots only go forward; and it is forgotten only where the wallet is held. Whoever was rolled back must sit out what
//! it cannot remember.

use std::{collections::BTreeMap, sync::Arc};

use mpcium_core::{
    store::Keyspace,
    wallet::{AcceptorRecord, CertificateRecord},
};

use super::{Fact, Invariant};
use crate::{records, world::World};

#[derive(Default)]
pub(super) struct PromisesKept {
    last: BTreeMap<(usize, Vec<u8>), Arc<AcceptorRecord>>,
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
                if let Some(last) = self.last.get(&name)
                    && !holds_wallet(world, *node, last)
                {
                    let wallet = &last.slot.wallet;
                    return Err(format!(
                        "node{node} forgot what it had promised of wallet {wallet}, which it does not hold"
                    ));
                }
                continue;
            };
            let record = records::read::<AcceptorRecord>(value.expose())
                .map_err(|error| format!("node{node} stored an acceptor that cannot be read: {error}"))?;
            if let Some(last) = self.last.get(&name) {
                compare(last, &record).map_err(|what| format!("node{node}, wallet {}: {what}", record.slot.wallet))?;
            }
            self.last.insert(name, record);
        }
        Ok(())
    }
}

/// Whether a node holds durably what was decided: then nothing needs to be promised any more.
fn holds_wallet(world: &World, node: usize, last: &AcceptorRecord) -> bool {
    let certificates = world.machines.get(node).into_iter().flat_map(|m| m.disk.records(Keyspace::Certificates));
    let mut records = certificates.filter_map(|(_, value)| records::read::<CertificateRecord>(value.expose()).ok());
    records.any(|record| {
        let facts = record.certificate.facts();
        facts.wallet == last.slot.wallet && facts.epoch >= last.slot.epoch
    })
}

fn compare(last: &AcceptorRecord, record: &AcceptorRecord) -> Result<(), String> {
    if record.slot.number < last.slot.number {
        return Err("it went back to a slot that is closed".to_owned());
    }
    if record.slot.number > last.slot.number {
        return Ok(());
    }
    if record.acceptor.promised() < last.acceptor.promised() {
        return Err("its promise has become smaller".to_owned());
    }
    let Some(voted) = last.acceptor.voted() else { return Ok(()) };
    match record.acceptor.voted() {
        Some(later) if later.ballot >= voted.ballot => Ok(()),
        _ => Err("its vote is gone".to_owned()),
    }
}

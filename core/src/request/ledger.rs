//! Which request was answered with which signature: durable, and cached.
//!
//! A record is written by every signer before the signature may be published, and refuses the same request id with
//! another payload for as long as it exists.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Attestations, signing::Attempt};
use crate::{
    Secret, WallTime,
    context::{Context, Event, Wanted},
    limits,
    node::Table,
    store::{Batch, Keyspace},
};

/// Names a request: a hash of kind, wallet and the client's id.
pub(crate) type RequestKey = [u8; 32];

/// The result of a signing request as one member holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Digest of the payload, signatures left out, so that a randomised signature does not make a retry another request.
    pub payload: [u8; 32],
    /// The attempt that made it, or the last one that adopted it.
    pub attempt: Attempt,
    /// The signature, in the suite's form.
    pub signature: Vec<u8>,
    /// When it was stored.
    pub at: WallTime,
    /// The signatures of all signers over the result document: part of the record, so that whoever answers attaches
    /// the same. Empty in records from before there were any.
    pub attestations: Attestations,
}

/// A record from before results were attested.
#[derive(Serialize, Deserialize)]
struct Unattested {
    payload: [u8; 32],
    attempt: Attempt,
    signature: Vec<u8>,
    at: WallTime,
}

#[derive(Serialize, Deserialize)]
enum Stored {
    V1(Unattested),
    V2(Held),
}

/// Reads a stored result; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_stored(bytes: &[u8]) -> bool {
    postcard::from_bytes::<Stored>(bytes).is_ok_and(|stored| crate::decode::same_again(&stored))
}

/// What is known of a request here.
pub(crate) enum Lookup {
    /// Being read: [`Event::LedgerLoaded`] follows.
    Loading,
    /// No result is held here.
    Absent,
    /// This result is held here.
    Held(Held),
}

enum Entry {
    Loading,
    Absent,
    Held(Held),
}

/// The ledger's cache over the store.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<RequestKey, Entry>,
    order: VecDeque<RequestKey>,
}

impl Ledger {
    pub fn tables(&self) -> [Table; 1] {
        // Records that are being read are not thrown out.
        [("results in memory", self.entries.len(), Some(2 * limits::LEDGER_CACHED))]
    }

    pub fn lookup(&mut self, ctx: &mut Context, key: RequestKey) -> Lookup {
        match self.entries.get(&key) {
            Some(Entry::Loading) => Lookup::Loading,
            Some(Entry::Absent) => Lookup::Absent,
            Some(Entry::Held(held)) => Lookup::Held(held.clone()),
            None => {
                self.insert(key, Entry::Loading);
                ctx.load(Keyspace::Ledger, key.to_vec(), Wanted::Ledger(key));
                Lookup::Loading
            }
        }
    }

    pub fn on_loaded(&mut self, ctx: &mut Context, key: RequestKey, value: Option<Secret>) {
        // A result that was stored while the read was under way is newer than what was read.
        if matches!(self.entries.get(&key), Some(Entry::Loading) | None) {
            let entry = match value {
                None => Entry::Absent,
                Some(bytes) => match postcard::from_bytes(bytes.expose()) {
                    Ok(Stored::V1(Unattested { payload, attempt, signature, at })) => {
                        Entry::Held(Held { payload, attempt, signature, at, attestations: Attestations::new() })
                    }
                    Ok(Stored::V2(held)) => Entry::Held(held),
                    // The store authenticates what it returns: an unreadable record is ours and wrong.
                    Err(error) => panic!("ledger record {} cannot be read: {error}", hex::encode(key)),
                },
            };
            self.insert(key, entry);
        }
        ctx.event(Event::LedgerLoaded(key));
    }

    /// Adds the record to a batch, and to the cache at once: whoever asks meanwhile is told of the result, which is
    /// harmless, because only durable copies count for publication.
    pub fn hold(&mut self, batch: &mut Batch, key: RequestKey, held: Held) {
        let bytes = postcard::to_stdvec(&Stored::V2(held.clone())).expect("a record of plain data serialises");
        batch.put(Keyspace::Ledger, key.to_vec(), bytes);
        self.insert(key, Entry::Held(held));
    }

    fn insert(&mut self, key: RequestKey, entry: Entry) {
        if self.entries.insert(key, entry).is_none() {
            self.order.push_back(key);
        }
        let mut looked_at = 0;
        while self.order.len() > limits::LEDGER_CACHED && looked_at < limits::LEDGER_CACHED {
            looked_at += 1;
            let Some(oldest) = self.order.pop_front() else { break };
            match self.entries.get(&oldest) {
                // Its answer is still under way.
                Some(Entry::Loading) => self.order.push_back(oldest),
                _ => {
                    self.entries.remove(&oldest);
                }
            }
        }
    }
}

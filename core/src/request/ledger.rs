//! Which request has which result, and which delivery which verdict: durable, and cached.
//!
//! A result is written by every signer before the signature may be published, and refuses the same request id with
//! another payload for as long as it exists.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::answers::{Attempt, DeliveryKey, Report, Signed, Verdict};
use crate::{
    Incarnation, NodeId, Secret, WallTime,
    context::{Context, Event, Wanted},
    decode, limits,
    node::Table,
    store::{Batch, Keyspace},
};

/// Names a request: a hash of kind, wallet and the client's id.
pub(crate) type RequestKey = [u8; 32];

/// The result of a signing request as one member holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The attempt that made it, or the last one that stored it again.
    pub attempt: Attempt,
    /// When it was stored.
    pub at: WallTime,
    pub signed: Signed,
}

/// The verdict of one delivery as one member holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ruled {
    /// The attempt in which it was stored.
    pub attempt: Attempt,
    pub verdict: Verdict,
}

#[derive(Serialize, Deserialize)]
enum StoredResult {
    V1(Held),
}

#[derive(Serialize, Deserialize)]
enum StoredVerdict {
    V1(Ruled),
}

/// Reads a stored result; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_result(bytes: &[u8]) -> bool {
    decode::exact::<StoredResult>(bytes).is_some()
}

/// Reads a stored verdict; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_verdict(bytes: &[u8]) -> bool {
    decode::exact::<StoredVerdict>(bytes).is_some()
}

/// For the tests of encodings.
#[cfg(test)]
pub(crate) fn codecs() -> [crate::codecs::Codec; 2] {
    use crate::codecs::codec;
    [codec::<StoredResult>("result record"), codec::<StoredVerdict>("verdict record")]
}

/// A record of the ledger as whoever sees a node's store from outside reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The attempt in which it was stored: its number (milliseconds of its coordinator's clock, or more), its
    /// coordinator, that node's start, and the how manyth of that start it was. Later attempts are greater.
    pub ballot: (u64, NodeId, Incarnation, u64),
    /// What was stored: a result, or a verdict.
    pub value: Vec<u8>,
}

impl LedgerEntry {
    /// Reads the record of this name. `None`: it is none of the ledger's.
    #[must_use]
    pub fn read(name: &[u8], record: &[u8]) -> Option<Self> {
        let (attempt, value) = if name.len() == size_of::<RequestKey>() {
            let StoredResult::V1(held) = decode::exact(record)?;
            (held.attempt, postcard::to_stdvec(&held.signed))
        } else {
            let StoredVerdict::V1(ruled) = decode::exact(record)?;
            (ruled.attempt, postcard::to_stdvec(&ruled.verdict))
        };
        let Attempt { number, coordinator, incarnation, serial } = attempt;
        Some(Self { ballot: (number, coordinator, incarnation, serial), value: value.ok()? })
    }
}

/// What is known of a record.
pub(crate) enum Lookup<V> {
    /// Being read: [`Event::LedgerLoaded`] follows.
    Loading,
    /// Not held here.
    Absent,
    /// This is held here.
    Held(V),
}

/// The name of a verdict's record; those of results have 32 bytes.
fn verdict_name(key: &RequestKey, delivery: &DeliveryKey) -> Vec<u8> {
    [b"answer ", &key[..], &delivery[..]].concat()
}

/// The ledger's cache over the store.
pub(crate) struct Ledger {
    results: Cache<RequestKey, Held>,
    verdicts: Cache<(RequestKey, DeliveryKey), Ruled>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { results: Cache::new(limits::LEDGER_CACHED), verdicts: Cache::new(limits::VERDICTS_CACHED) }
    }
}

impl Ledger {
    pub fn tables(&self) -> [Table; 2] {
        // Records that are being read are not thrown out.
        [
            ("results in memory", self.results.entries.len(), Some(2 * limits::LEDGER_CACHED)),
            ("verdicts in memory", self.verdicts.entries.len(), Some(2 * limits::VERDICTS_CACHED)),
        ]
    }

    /// The result of a request.
    pub fn result(&mut self, ctx: &mut Context, key: RequestKey) -> Lookup<Held> {
        self.results.lookup(key, || ctx.load(Keyspace::Ledger, key.to_vec(), Wanted::Result(key)))
    }

    /// What is held of a request and these deliveries; `None`: records are being read.
    pub fn report(&mut self, ctx: &mut Context, key: RequestKey, deliveries: &[DeliveryKey]) -> Option<Report> {
        let mut report = Report::default();
        let mut loading = false;
        match self.result(ctx, key) {
            Lookup::Loading => loading = true,
            Lookup::Absent => {}
            Lookup::Held(held) => report.result = Some((held.attempt, held.signed)),
        }
        // All reads begin at once.
        for delivery in deliveries {
            let name = (key, *delivery);
            let load = || ctx.load(Keyspace::Ledger, verdict_name(&key, delivery), Wanted::Verdict(key, *delivery));
            match self.verdicts.lookup(name, load) {
                Lookup::Loading => loading = true,
                Lookup::Absent => {}
                Lookup::Held(ruled) => drop(report.verdicts.insert(*delivery, (ruled.attempt, ruled.verdict))),
            }
        }
        (!loading).then_some(report)
    }

    pub fn on_result_loaded(&mut self, ctx: &mut Context, key: RequestKey, value: Option<Secret>) {
        let held = read(value, "result").map(|StoredResult::V1(held)| held);
        self.results.loaded(key, held);
        ctx.event(Event::LedgerLoaded(key));
    }

    pub fn on_verdict_loaded(
        &mut self,
        ctx: &mut Context,
        key: RequestKey,
        delivery: DeliveryKey,
        value: Option<Secret>,
    ) {
        let ruled = read(value, "verdict").map(|StoredVerdict::V1(ruled)| ruled);
        self.verdicts.loaded((key, delivery), ruled);
        ctx.event(Event::LedgerLoaded(key));
    }

    /// Adds a result to a batch, and to the cache at once: whoever asks meanwhile is told of it, which is harmless,
    /// because only durable copies count.
    pub fn hold(&mut self, batch: &mut Batch, now: WallTime, key: RequestKey, attempt: Attempt, signed: Signed) {
        let held = Held { attempt, at: now, signed };
        batch.put(Keyspace::Ledger, key.to_vec(), write(&StoredResult::V1(held.clone())));
        self.results.hold(key, held);
    }

    /// Adds a verdict to a batch and to the cache.
    pub fn rule(
        &mut self,
        batch: &mut Batch,
        key: RequestKey,
        delivery: DeliveryKey,
        attempt: Attempt,
        verdict: Verdict,
    ) {
        let ruled = Ruled { attempt, verdict };
        batch.put(Keyspace::Ledger, verdict_name(&key, &delivery), write(&StoredVerdict::V1(ruled.clone())));
        self.verdicts.hold((key, delivery), ruled);
    }
}

fn write<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_stdvec(record).expect("a record of plain data serialises")
}

fn read<T: Serialize + DeserializeOwned>(value: Option<Secret>, what: &str) -> Option<T> {
    value.map(|bytes| {
        // The store authenticates what it returns: an unreadable record is ours and wrong.
        decode::exact(bytes.expose()).unwrap_or_else(|| panic!("a {what} cannot be read"))
    })
}

enum Entry<V> {
    Loading,
    Absent,
    Held(V),
}

/// Records in memory, the ones that were looked at first thrown out first.
struct Cache<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    order: VecDeque<K>,
    room: usize,
}

impl<K: Copy + Ord, V: Clone> Cache<K, V> {
    fn new(room: usize) -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new(), room }
    }

    fn lookup(&mut self, key: K, load: impl FnOnce()) -> Lookup<V> {
        match self.entries.get(&key) {
            Some(Entry::Loading) => Lookup::Loading,
            Some(Entry::Absent) => Lookup::Absent,
            Some(Entry::Held(value)) => Lookup::Held(value.clone()),
            None => {
                self.insert(key, Entry::Loading);
                load();
                Lookup::Loading
            }
        }
    }

    fn loaded(&mut self, key: K, value: Option<V>) {
        // What was stored while the read was under way is newer than what was read.
        if matches!(self.entries.get(&key), Some(Entry::Loading) | None) {
            self.insert(key, value.map_or(Entry::Absent, Entry::Held));
        }
    }

    fn hold(&mut self, key: K, value: V) {
        self.insert(key, Entry::Held(value));
    }

    fn insert(&mut self, key: K, entry: Entry<V>) {
        if self.entries.insert(key, entry).is_none() {
            self.order.push_back(key);
        }
        let mut looked_at = 0;
        while self.order.len() > self.room && looked_at < self.room {
            looked_at += 1;
            let Some(oldest) = self.order.pop_front() else { break };
            match self.entries.get(&oldest) {
                // Its answer is still under way.
                Some(Entry::Loading) => self.order.push_back(oldest),
                _ => drop(self.entries.remove(&oldest)),
            }
        }
    }
}

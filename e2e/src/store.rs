//! A stopped node's store, opened by somebody who knows the password.

use std::path::Path;

use futures::executor::block_on;
use mpcium_core::{
    Input, NodeId, Secret,
    output::{LoadId, PersistId},
    protocol::AuxiliarySet,
    store::{Batch, Keyspace},
    wallet::{ShareRecord, record::Stored as _},
};
use mpcium_io::{
    fjall::{FjallStore, Options, open},
    ports::{Event, Events, Inbox, Store as _},
};

/// Records that are read at once.
const SCANNED: usize = 64;

/// One open store, asked for one thing at a time.
#[derive(Debug)]
pub struct OpenStore {
    store: FjallStore,
    events: Events,
}

impl OpenStore {
    /// Opens it.
    ///
    /// # Errors
    /// If it cannot be opened, or is damaged.
    pub fn open(path: &Path, password: &Secret) -> Result<Self, String> {
        let opened = open(path, password, Options::existing()).map_err(|error| error.to_string())?;
        if !opened.boot.damage.is_empty() {
            return Err(format!("the store is damaged: {}", opened.boot.damage.join("; ")));
        }
        let (inbox, events) = Inbox::new();
        let store = opened.store.start(inbox).map_err(|error| error.to_string())?;
        Ok(Self { store, events })
    }

    fn answer(&mut self) -> Result<Input, String> {
        match block_on(self.events.next()) {
            Some(Event::Input(input)) => Ok(input),
            other => Err(format!("the store answers {other:?}")),
        }
    }

    /// Makes a batch durable.
    ///
    /// # Errors
    /// If the store answers anything else.
    pub fn persist(&mut self, batch: Batch) -> Result<(), String> {
        self.store.persist(PersistId(0), batch);
        self.answer().map(drop)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If the store answers anything else.
    pub fn load(&mut self, keyspace: Keyspace, key: Vec<u8>) -> Result<Option<Secret>, String> {
        self.store.load(LoadId(0), keyspace, key);
        match self.answer()? {
            Input::Loaded(_, value) => Ok(value),
            other => Err(format!("the store answers {other:?}")),
        }
    }

    /// Some records whose names come after this one, in the order of their names.
    ///
    /// # Errors
    /// If the store answers anything else.
    pub fn scan(&mut self, keyspace: Keyspace, after: &[u8]) -> Result<Vec<(Vec<u8>, Secret)>, String> {
        self.store.scan(LoadId(0), keyspace, after.to_vec(), SCANNED);
        match self.answer()? {
            Input::Scanned(_, records) => Ok(records),
            other => Err(format!("the store answers {other:?}")),
        }
    }

    fn all(&mut self, keyspace: Keyspace) -> Result<Vec<(Vec<u8>, Secret)>, String> {
        let mut all: Vec<(Vec<u8>, Secret)> = Vec::new();
        loop {
            let after = all.last().map(|(name, _)| name.clone()).unwrap_or_default();
            let more = self.scan(keyspace, &after)?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// Everything in it that nobody else may know, with a name for each: shares, and what is secret of auxiliary sets and
    /// of their ingredients.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub fn secrets(&mut self) -> Result<Vec<(String, Secret)>, String> {
        let mut secrets = Vec::new();
        for (name, record) in self.all(Keyspace::Shares)? {
            let share = ShareRecord::decode(record.expose()).map_err(|error| error.to_string())?.share;
            let name = String::from_utf8_lossy(&name).into_owned();
            secrets.push((format!("a share of {:?} ({name:?})", share.curve), share.secret));
        }
        for (name, record) in self.all(Keyspace::Auxiliary)? {
            // Its kind, its members, the own place among them, and the data.
            let read = postcard::take_from_bytes::<(u32, Vec<NodeId>, u16, AuxiliarySet)>(record.expose());
            match read {
                Ok(((0, _, _, set), _)) => {
                    secrets.push((format!("the auxiliary set {}", hex::encode(name)), set.secret))
                }
                // Nothing is left of the secrets of one that is banned.
                _ if record.expose().first() == Some(&1) => {}
                _ => return Err(format!("the auxiliary set {} cannot be read", hex::encode(name))),
            }
        }
        for (name, record) in self.all(Keyspace::Ingredients)? {
            secrets.push((format!("the ingredient {}", hex::encode(name)), record));
        }
        Ok(secrets)
    }
}

//! What the encrypted store promises, on real files: orders go in, the answers are read back one by one.

mod behaviour;
mod crash;
mod damage;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    fjall::{self, FjallStore, OpenError, Opened, Options, PasswordCost},
    ports::{Event, Events, Inbox, Store as _},
};
use futures::executor::block_on;
use mpcium_core::{
    Input, Secret,
    output::{LoadId, PersistId, Record},
    store::{Batch, Keyspace},
};

pub(super) fn password() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

/// Opens or makes a store that nobody else uses, except that a child which another test has just forked holds the lock
/// of every store until it executes its program.
pub(super) fn open(path: &Path) -> Opened {
    let forked = Instant::now() + Duration::from_secs(10);
    loop {
        match reopen_with(path, Options::create_if_absent(PasswordCost::TRIVIAL)) {
            Err(OpenError::InUse { .. }) if Instant::now() < forked => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened.expect("the store opens"),
        }
    }
}

pub(super) fn reopen_with(path: &Path, options: Options) -> Result<Opened, OpenError> {
    fjall::open(path, &password(), options)
}

/// Every file below a folder with its content.
pub(super) fn all_files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("listing") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            let bytes = fs::read(&path).expect("file");
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

/// A running store and its answers.
pub(super) struct Running {
    pub(super) store: FjallStore,
    events: Events,
    next_id: u64,
}

impl Running {
    pub(super) fn start(opened: Opened) -> Self {
        let (inbox, events) = Inbox::new();
        let store = opened.store.start(inbox).expect("a thread");
        Self { store, events, next_id: 1_000_000 }
    }

    pub(super) fn close(self) {
        self.store.close();
    }

    pub(super) fn next_event(&mut self) -> Event {
        block_on(self.events.next()).expect("an answer")
    }

    /// Closes the store; whether nothing more has come of it.
    pub(super) fn ends(mut self) -> bool {
        self.store.close();
        block_on(self.events.next()).is_none()
    }

    pub(super) fn next(&mut self) -> Input {
        match self.next_event() {
            Event::Input(input) => input,
            other => panic!("expected an input, got {other:?}"),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn persist(&mut self, batch: Batch) {
        let id = PersistId(self.id());
        self.store.persist(id, batch);
        match self.next() {
            Input::Persisted(answered) => assert_eq!(answered, id),
            other => panic!("expected an acknowledgement, got {other:?}"),
        }
    }

    pub(super) fn load(&mut self, keyspace: Keyspace, name: &[u8]) -> Option<Vec<u8>> {
        let id = LoadId(self.id());
        self.store.load(id, keyspace, name.to_vec());
        match self.next() {
            Input::Loaded(answered, value) => {
                assert_eq!(answered, id);
                value.map(|value| value.expose().to_vec())
            }
            other => panic!("expected a record, got {other:?}"),
        }
    }

    pub(super) fn scan(&mut self, keyspace: Keyspace, after: &[u8], limit: usize) -> Vec<Record> {
        let id = LoadId(self.id());
        self.store.scan(id, keyspace, after.to_vec(), limit);
        match self.next() {
            Input::Scanned(answered, records) => {
                assert_eq!(answered, id);
                records
            }
            other => panic!("expected a page, got {other:?}"),
        }
    }

    pub(super) fn names(&mut self, keyspace: Keyspace) -> Vec<Vec<u8>> {
        self.scan(keyspace, b"", usize::MAX).into_iter().map(|(name, _)| name).collect()
    }
}

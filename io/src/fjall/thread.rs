//! The thread that owns the store: takes orders in their order, lets batches that have queued up share their syncs,
//! and answers in the same order once the whole group is durable.
//!
//! Only that a record does not exist is answered at once, by whoever orders: the names of all records are in memory, and
//! nearly every read is of this kind (has this request been answered before?). It would otherwise wait for the syncs of
//! other requests' batches. Of a record whose removal is not durable yet, that it is gone is answered in order: no answer
//! tells of what a crash could undo.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use mpcium_core::{
    Input,
    output::{LoadId, PersistId},
    store::{Batch, Keyspace},
};

use crate::ports::{Inbox, Store};

use super::{
    seal::Reason,
    vault::{Changes, Existence, Names, Vault},
};

/// Orders of one group.
const GROUP_ORDERS_MAX: usize = 1024;
/// Bytes of values in one group.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the thread is asked to do.
enum Order {
    Persist(PersistId, Batch),
    /// Of a record that existed then.
    Load(LoadId, Keyspace, Vec<u8>),
    /// Of a record whose removal had been ordered then.
    LoadRemoved(LoadId),
    /// Of the records that existed then.
    Scan(LoadId, Keyspace, Vec<Vec<u8>>),
}

/// The names of all records, of whoever orders and of the thread.
type SharedNames = Arc<Mutex<Names>>;

fn lock(names: &SharedNames) -> MutexGuard<'_, Names> {
    // Every change is a single insertion or removal, so a panic elsewhere leaves the names whole.
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what a store holds, without a read, for as long as somebody asks.
#[derive(Clone, Debug)]
pub struct Census(SharedNames);

impl Census {
    /// Wallets whose certificate is here without a share of their keys. A node that took part in making a wallet has
    /// both, so it has lost what is missing, and does not sign with that wallet.
    #[must_use]
    pub fn wallets_without_share(&self) -> usize {
        lock(&self.0).without_share()
    }
}

/// The running store. Dropping it finishes what was ordered and closes the store.
#[derive(Debug)]
pub struct FjallStore {
    orders: Option<mpsc::Sender<Order>>,
    names: SharedNames,
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl FjallStore {
    pub(super) fn start(vault: Vault, inbox: Inbox) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        let mut vault = vault;
        let names: SharedNames = Arc::new(Mutex::new(vault.take_names()));
        let (shared, answers) = (names.clone(), inbox.clone());
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            match catch_unwind(AssertUnwindSafe(|| serve(&mut vault, &shared, &receiver, &answers))) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => answers.fatal(format!("the store failed: {reason}")),
                Err(_) => answers.fatal("the store failed: its thread panicked"),
            }
        })?;
        Ok(Self { orders: Some(orders), names, inbox, thread: Some(thread) })
    }

    /// Who counts what the store holds.
    #[must_use]
    pub fn census(&self) -> Census {
        Census(self.names.clone())
    }

    /// Finishes what was ordered and closes the store: afterwards another process can open it.
    pub fn close(self) {
        drop(self);
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // After a failure nobody listens: the driver has been told.
            let _ = orders.send(order);
        }
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its panics have been reported as fatal.
            let _ = thread.join();
        }
    }
}

impl Store for FjallStore {
    fn persist(&self, id: PersistId, batch: Batch) {
        let mut names = lock(&self.names);
        for write in &batch.writes {
            match &write.value {
                Some(_) => names.added(write.keyspace, &write.key),
                None => names.removed(write.keyspace, &write.key),
            }
        }
        drop(names);
        self.order(Order::Persist(id, batch));
    }

    fn load(&self, id: LoadId, keyspace: Keyspace, key: Vec<u8>) {
        let existence = lock(&self.names).existence(keyspace, &key);
        match existence {
            Existence::Exists => self.order(Order::Load(id, keyspace, key)),
            Existence::Removing => self.order(Order::LoadRemoved(id)),
            Existence::Absent => self.inbox.put(Input::Loaded(id, None)),
        }
    }

    fn scan(&self, id: LoadId, keyspace: Keyspace, after: Vec<u8>, limit: usize) {
        let names = lock(&self.names).above(keyspace, &after, limit);
        self.order(Order::Scan(id, keyspace, names));
    }
}

/// Orders that are carried out together.
#[derive(Default)]
struct Group {
    changes: Changes,
    answers: Vec<Input>,
    removed: Vec<(Keyspace, Vec<u8>)>,
    bytes: usize,
}

impl Group {
    fn is_full(&self) -> bool {
        self.answers.len() >= GROUP_ORDERS_MAX || self.bytes >= GROUP_BYTES_MAX
    }

    /// Takes one order; reads see exactly the batches before them.
    fn take(&mut self, vault: &mut Vault, order: Order) -> Result<(), Reason> {
        let answer = match order {
            Order::Persist(id, batch) => {
                for write in batch.writes {
                    if write.value.is_none() {
                        self.removed.push((write.keyspace, write.key.clone()));
                    }
                    self.bytes += write.key.len() + write.value.as_ref().map_or(0, |value| value.expose().len());
                    self.changes.insert((write.keyspace, write.key), write.value);
                }
                Input::Persisted(id)
            }
            Order::Load(id, keyspace, name) => Input::Loaded(id, vault.load(&self.changes, keyspace, &name)?),
            Order::LoadRemoved(id) => Input::Loaded(id, None),
            Order::Scan(id, keyspace, names) => Input::Scanned(id, vault.read_all(&self.changes, keyspace, names)?),
        };
        self.answers.push(answer);
        Ok(())
    }
}

/// Serves until nobody orders any more, or until something fails.
fn serve(vault: &mut Vault, names: &SharedNames, orders: &mpsc::Receiver<Order>, inbox: &Inbox) -> Result<(), Reason> {
    while let Ok(first) = orders.recv() {
        let mut group = Group::default();
        group.take(vault, first)?;
        while !group.is_full()
            && let Ok(next) = orders.try_recv()
        {
            group.take(vault, next)?;
        }
        vault.commit(&group.changes)?;
        if !group.removed.is_empty() {
            let mut names = lock(names);
            group.removed.iter().for_each(|(keyspace, name)| names.removal_is_durable(*keyspace, name));
        }
        group.answers.into_iter().for_each(|answer| inbox.put(answer));
        // After the answers: they need not wait for a second sync.
        vault.settle()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::fjall::{Options, PasswordCost, open};

    use super::*;

    #[test]
    fn batches_that_have_queued_up_share_one_commit() {
        let folder = tempfile::tempdir().expect("folder");
        let password = mpcium_core::Secret::new(b"password".to_vec());
        let options = Options::create_if_absent(PasswordCost::TRIVIAL);
        let mut vault = open(&folder.path().join("store"), &password, options).expect("opened").store.vault;
        let before = vault.state.sequence;
        let (orders, receiver) = mpsc::channel();
        for number in 0..100_u64 {
            let mut batch = Batch::default();
            batch.put(Keyspace::Shares, number.to_be_bytes().to_vec(), b"share".to_vec());
            orders.send(Order::Persist(PersistId(number), batch)).expect("queued");
        }
        drop(orders);
        let (inbox, _events) = Inbox::new();
        serve(&mut vault, &SharedNames::default(), &receiver, &inbox).expect("served");
        assert_eq!(vault.state.sequence, before + 1);
    }

    #[test]
    fn only_what_certainly_does_not_exist_is_answered_before_its_turn() {
        let mut names = Names::default();
        let existence = |names: &Names| names.existence(Keyspace::Ledger, b"a");
        assert_eq!(existence(&names), Existence::Absent);
        names.added(Keyspace::Ledger, b"a");
        assert_eq!(existence(&names), Existence::Exists);
        names.removed(Keyspace::Ledger, b"a");
        assert_eq!(existence(&names), Existence::Removing);
        // Stored again and removed again before the first removal is durable.
        names.added(Keyspace::Ledger, b"a");
        assert_eq!(existence(&names), Existence::Exists);
        names.removed(Keyspace::Ledger, b"a");
        names.removal_is_durable(Keyspace::Ledger, b"a");
        assert_eq!(existence(&names), Existence::Removing);
        names.removal_is_durable(Keyspace::Ledger, b"a");
        assert_eq!(existence(&names), Existence::Absent);
        assert_eq!(names.above(Keyspace::Ledger, b"", 9), Vec::<Vec<u8>>::new());
    }
}

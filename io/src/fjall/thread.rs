//! The thread that owns the store: takes orders in their order, lets batches that have queued up share their syncs,
//! and answers in the same order once the whole group is durable.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
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
    vault::{Changes, Vault},
};

/// Orders of one group.
const GROUP_ORDERS_MAX: usize = 1024;
/// Bytes of values in one group.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the thread is asked to do.
enum Order {
    Persist(PersistId, Batch),
    Load(LoadId, Keyspace, Vec<u8>),
    Scan { id: LoadId, keyspace: Keyspace, after: Vec<u8>, limit: usize },
}

/// The running store. Dropping it finishes what was ordered and closes the store.
#[derive(Debug)]
pub struct FjallStore {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl FjallStore {
    pub(super) fn start(vault: Vault, inbox: Inbox) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut vault = vault;
            match catch_unwind(AssertUnwindSafe(|| serve(&mut vault, &receiver, &inbox))) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => inbox.fatal(format!("the store failed: {reason}")),
                Err(_) => inbox.fatal("the store failed: its thread panicked"),
            }
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
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
        self.order(Order::Persist(id, batch));
    }

    fn load(&self, id: LoadId, keyspace: Keyspace, key: Vec<u8>) {
        self.order(Order::Load(id, keyspace, key));
    }

    fn scan(&self, id: LoadId, keyspace: Keyspace, after: Vec<u8>, limit: usize) {
        self.order(Order::Scan { id, keyspace, after, limit });
    }
}

/// Orders that are carried out together.
#[derive(Default)]
struct Group {
    changes: Changes,
    answers: Vec<Input>,
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
                    vault.expect_name(write.keyspace, &write.key, write.value.is_some());
                    self.bytes += write.key.len() + write.value.as_ref().map_or(0, |value| value.expose().len());
                    self.changes.insert((write.keyspace, write.key), write.value);
                }
                Input::Persisted(id)
            }
            Order::Load(id, keyspace, name) => Input::Loaded(id, vault.load(&self.changes, keyspace, &name)?),
            Order::Scan { id, keyspace, after, limit } => {
                Input::Scanned(id, vault.scan(&self.changes, keyspace, &after, limit)?)
            }
        };
        self.answers.push(answer);
        Ok(())
    }
}

/// Serves until nobody orders any more, or until something fails.
fn serve(vault: &mut Vault, orders: &mpsc::Receiver<Order>, inbox: &Inbox) -> Result<(), Reason> {
    while let Ok(first) = orders.recv() {
        let mut group = Group::default();
        group.take(vault, first)?;
        while !group.is_full()
            && let Ok(next) = orders.try_recv()
        {
            group.take(vault, next)?;
        }
        vault.commit(&group.changes)?;
        group.answers.into_iter().for_each(|answer| inbox.put(answer));
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
        serve(&mut vault, &receiver, &inbox).expect("served");
        assert_eq!(vault.state.sequence, before + 1);
    }
}

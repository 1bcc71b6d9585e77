//! Records as the checkers read them. Each is looked at by several of them, and most are the same at all nodes, so what
//! has been read once in a run is remembered: a run has a thread of its own.

use std::{any::Any, cell::RefCell, collections::BTreeMap, sync::Arc};

use mpcium_core::wallet::record::{RecordError, Stored};

/// What was read, by what the records are and by their bytes.
type Read = BTreeMap<&'static str, BTreeMap<Vec<u8>, Arc<dyn Any + Send + Sync>>>;

thread_local! {
    static READ: RefCell<Read> = const { RefCell::new(Read::new()) };
}

/// The record that `bytes` hold.
///
/// # Errors
/// If they hold none of this kind.
pub fn read<R: Stored + Send + Sync + 'static>(bytes: &[u8]) -> Result<Arc<R>, RecordError> {
    let known = READ.with_borrow(|read| read.get(R::WHAT).and_then(|records| records.get(bytes)).cloned());
    if let Some(known) = known.and_then(|known| known.downcast().ok()) {
        return Ok(known);
    }
    let record = Arc::new(R::decode(bytes)?);
    let remembered: Arc<dyn Any + Send + Sync> = record.clone();
    READ.with_borrow_mut(|read| read.entry(R::WHAT).or_default().insert(bytes.to_vec(), remembered));
    Ok(record)
}

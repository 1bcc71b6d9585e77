//! What this life of a member has promised: to store nothing of a lower ballot.

use std::collections::BTreeMap;

use super::{Attempt, DeliveryKey, Report};
use crate::{
    WallTime, limits,
    planted::{Bug, planted},
    request::ledger::RequestKey,
};

struct Promise {
    ballot: Attempt,
    /// What is being signed under the id, and until when somebody may.
    signing: Option<([u8; 32], WallTime)>,
    /// Of which deliveries the coordinator was told what is held.
    deliveries: Vec<DeliveryKey>,
    /// After this, nobody runs an attempt at the request any more.
    until: WallTime,
}

/// What is to be promised.
pub(crate) struct Asked<'a> {
    pub key: RequestKey,
    pub payload: [u8; 32],
    pub ballot: Attempt,
    pub deliveries: &'a [DeliveryKey],
    pub until: WallTime,
    /// To sign under it: once only, and nothing while another payload is promised to be signed under the id. Deciding
    /// asks about the id, whatever was promised under it, and may ask again.
    pub to_sign: bool,
}

/// Why a ballot is not promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This one was.
    Higher(Attempt),
    /// The id was promised to another payload.
    OtherPayload,
    /// There is no room.
    Full,
}

/// The promises of this life.
#[derive(Default)]
pub(crate) struct Promises {
    table: BTreeMap<RequestKey, Promise>,
}

impl Promises {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Promises a ballot; `held` is what this member holds of the request and those deliveries, and what the coordinator
    /// is told.
    pub fn promise(&mut self, now: WallTime, asked: &Asked<'_>, held: &Report) -> Result<(), Refusal> {
        if self.table.len() >= limits::PROMISES_MAX / 2 {
            self.table.retain(|_, promise| promise.until >= now);
        }
        let known = self.table.get(&asked.key);
        if known.is_none() && self.table.len() >= limits::PROMISES_MAX {
            return Err(Refusal::Full);
        }
        if let Some(known) = known {
            if asked.to_sign && known.signing.is_some_and(|(payload, until)| payload != asked.payload && until >= now) {
                return Err(Refusal::OtherPayload);
            }
            if known.ballot > asked.ballot || (known.ballot == asked.ballot && asked.to_sign) {
                return Err(Refusal::Higher(known.ballot));
            }
        }
        // Also what an earlier life has stored: the promise that it gave is forgotten.
        if let Some(stored) = held.highest().filter(|stored| *stored > asked.ballot && !planted(Bug::BallotsForgotten))
        {
            return Err(Refusal::Higher(stored));
        }
        let promise = Promise {
            ballot: asked.ballot,
            signing: if asked.to_sign {
                Some((asked.payload, asked.until))
            } else {
                known.and_then(|known| known.signing)
            },
            deliveries: asked.deliveries.to_vec(),
            until: known.map_or(asked.until, |known| known.until.max(asked.until)),
        };
        self.table.insert(asked.key, promise);
        Ok(())
    }

    /// Whether something of this ballot, about these deliveries, may be stored.
    pub fn allows<'a>(
        &self,
        key: &RequestKey,
        ballot: Attempt,
        mut deliveries: impl Iterator<Item = &'a DeliveryKey>,
    ) -> bool {
        self.table.get(key).is_some_and(|promise| {
            (promise.ballot == ballot || planted(Bug::StoresAnything))
                && deliveries.all(|d| promise.deliveries.contains(d))
        })
    }

    /// The ballot that is promised for a request.
    pub fn ballot(&self, key: &RequestKey) -> Option<Attempt> {
        self.table.get(key).map(|promise| promise.ballot)
    }
}

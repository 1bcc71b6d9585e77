//! What this life of a member has promised: to store nothing of a lower ballot.
//!
//! # Nobody ends others' attempts as often as it likes
//! A higher ballot ends what runs for a lower one. So that a member whom nobody needs cannot end everybody's attempts by
//! raising ballots, each peer may begin only so many about one request: a few at once, and then one every few seconds,
//! between which others come to their end. It may name only so many deliveries, too. All this only refuses: nothing else
//! rests on it, and whoever is refused asks again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attempt, DeliveryKey, Report};
use crate::{
    NodeId, Time, WallTime,
    bucket::Bucket,
    limits,
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
    /// All deliveries that anybody has named since.
    named: BTreeSet<DeliveryKey>,
    named_since: Option<Time>,
    peers: BTreeMap<NodeId, Peer>,
}

/// What a peer has done about one request.
struct Peer {
    ballots: Bucket,
    /// How many deliveries it was the first to name.
    named: usize,
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

impl Promise {
    fn new(asked: &Asked<'_>) -> Self {
        Self {
            ballot: asked.ballot,
            signing: None,
            deliveries: Vec::new(),
            until: asked.until,
            named: BTreeSet::new(),
            named_since: None,
            peers: BTreeMap::new(),
        }
    }
}

impl Peer {
    fn new(now: Time) -> Self {
        Self { ballots: Bucket::every(now, limits::REQUEST_BALLOT_EVERY, limits::REQUEST_BALLOTS_BURST), named: 0 }
    }
}

/// The promises of this life.
#[derive(Default)]
pub(crate) struct Promises {
    table: BTreeMap<RequestKey, Promise>,
    /// The highest number that earlier lives may have promised.
    forgotten: u64,
}

impl Promises {
    /// Those of a life that follows others, which may have promised numbers up to this one.
    pub fn after(forgotten: u64) -> Self {
        Self { table: BTreeMap::new(), forgotten: if planted(Bug::PromisesForgotten) { 0 } else { forgotten } }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether whoever asks for a promise may begin another ballot, which it pays for. What is not higher than what was
    /// promised begins nothing; to ask again is to ask the same.
    pub fn affords(&mut self, now: Time, asked: &Asked<'_>, me: NodeId) -> bool {
        let Some(promise) = self.table.get_mut(&asked.key) else { return true };
        if promise.ballot == asked.ballot {
            return promise.deliveries == asked.deliveries;
        }
        if asked.ballot < promise.ballot {
            return true;
        }
        if now >= promise.named_since.get_or_insert(now).after(limits::NAMES_FORGOTTEN) {
            promise.named_since = Some(now);
            promise.named.clear();
            promise.peers.values_mut().for_each(|peer| peer.named = 0);
        }
        let by = asked.ballot.coordinator;
        let peer = promise.peers.entry(by).or_insert_with(|| Peer::new(now));
        let new = asked.deliveries.iter().filter(|delivery| !promise.named.contains(*delivery)).count();
        if by != me && (peer.named + new > limits::DELIVERIES_NAMED_MAX || !peer.ballots.admits(now)) {
            return false;
        }
        peer.named += new;
        true
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
        if asked.ballot.number <= self.forgotten {
            return Err(Refusal::Higher(Attempt { number: self.forgotten, ..asked.ballot }));
        }
        // Also what an earlier life has stored.
        if let Some(stored) = held.highest().filter(|stored| *stored > asked.ballot && !planted(Bug::BallotsForgotten))
        {
            return Err(Refusal::Higher(stored));
        }
        let promise = self.table.entry(asked.key).or_insert_with(|| Promise::new(asked));
        promise.ballot = asked.ballot;
        if asked.to_sign {
            promise.signing = Some((asked.payload, asked.until));
        }
        promise.deliveries = asked.deliveries.to_vec();
        promise.until = promise.until.max(asked.until);
        promise.named.extend(asked.deliveries);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Duration, Incarnation};

    const KEY: RequestKey = [7; 32];
    const ME: u8 = 9;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn at(seconds: u64) -> Time {
        Time::default().after(Duration::from_secs(seconds))
    }

    /// A member that is asked by several peers.
    #[derive(Default)]
    struct Member {
        promises: Promises,
        number: u64,
    }

    impl Member {
        /// Whether it promises a higher ballot of this peer.
        fn promises(&mut self, now: Time, peer: u8, deliveries: &[DeliveryKey]) -> bool {
            self.number += 1;
            let ballot = Attempt {
                number: self.number,
                coordinator: node(peer),
                incarnation: Incarnation([0; 16]),
                serial: self.number,
            };
            self.asked(now, ballot, deliveries)
        }

        fn asked(&mut self, now: Time, ballot: Attempt, deliveries: &[DeliveryKey]) -> bool {
            let until = WallTime(u64::MAX);
            let to_sign = self.promises.ballot(&KEY) != Some(ballot);
            let asked = Asked { key: KEY, payload: [0; 32], ballot, deliveries, until, to_sign };
            self.promises.affords(now, &asked, node(ME))
                && self.promises.promise(WallTime(0), &asked, &Report::default()).is_ok()
        }
    }

    #[test]
    fn a_later_life_promises_nothing_that_an_earlier_one_may_have_known() {
        let mut member = Member { promises: Promises::after(2), ..Member::default() };
        assert!(!member.promises(at(0), 1, &[]) && !member.promises(at(0), 1, &[]));
        assert!(member.promises(at(0), 1, &[]));
    }

    #[test]
    fn a_peer_begins_only_so_many_ballots_about_one_request() {
        let mut member = Member::default();
        let begun = |member: &mut Member, now, peer| (0..1000).filter(|_| member.promises(now, peer, &[])).count();
        // The first one is free, because the request is new.
        assert_eq!(begun(&mut member, at(0), 1), 1 + limits::REQUEST_BALLOTS_BURST as usize);
        assert_eq!(begun(&mut member, at(3), 1), 0);
        assert_eq!(begun(&mut member, at(15), 1), 3);
        assert_eq!(begun(&mut member, at(15), 2), limits::REQUEST_BALLOTS_BURST as usize, "others are not kept away");
        assert_eq!(begun(&mut member, at(15), ME), 1000, "a node limits nobody but others");
    }

    #[test]
    fn a_peer_names_only_so_many_deliveries_that_nobody_else_has_named() {
        let mut member = Member::default();
        let names = |from: u8, to: u8| (from..to).map(|name| [name; 32]).collect::<Vec<DeliveryKey>>();
        assert!(member.promises(at(0), 1, &[]));
        let most = u8::try_from(limits::DELIVERIES_NAMED_MAX).expect("a small limit");
        for (number, from) in (0..most).step_by(16).enumerate() {
            assert!(member.promises(at(5 * number as u64), 1, &names(from, from + 16)));
        }
        assert!(!member.promises(at(100), 1, &names(most, most + 1)));
        assert!(member.promises(at(100), 1, &names(0, 16)), "those that are named already");
        // To ask again is to ask the same.
        let ballot = member.promises.ballot(&KEY).expect("promised");
        assert!(member.asked(at(100), ballot, &names(0, 16)));
        assert!(!member.asked(at(100), ballot, &names(most, most + 16)));
        assert!(member.promises(at(100), 2, &names(most, most + 16)), "what one peer names is not another's");
        assert!(!member.promises(at(599), 1, &names(100, 101)));
        assert!(member.promises(at(601), 1, &names(100, 101)), "who asks for ever is answered for ever");
    }
}

//! What this life of a member has promised: to store nothing of a lower ballot.
//!
//! # Whose turn it is
//! A higher ballot ends what runs for a lower one. So that a member whom nobody needs cannot end everybody's attempts by
//! raising ballots, a promise is kept against *another* peer's higher ballot for a while: as long as what was promised
//! needs, while whoever it was given to answers and has not had its value stored here. Whoever is refused asks again, and has
//! waited since it was refused first, whatever the other one begins meanwhile: a peer that holds on to a request keeps
//! nobody away for ever. Once it has waited long enough it is its turn, for long enough to come back with a number that is
//! high enough. Each time that a peer has cut another one's run short, it waits twice as long; so of two that want
//! the same, each gets longer and longer times to come to an end, and honest ones come to theirs. Besides, each peer may
//! begin only so many ballots and name only so many deliveries. All this only refuses: nothing else rests on it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attempt, DeliveryKey, Report};
use crate::{
    Duration, NodeId, Time, WallTime,
    bucket::Bucket,
    limits,
    planted::{Bug, planted},
    request::ledger::RequestKey,
};

struct Promise {
    ballot: Attempt,
    /// How long the ballot is protected from other peers', if it does not come to its end first.
    needs: Duration,
    /// Whether something runs for it.
    runs: bool,
    finished: bool,
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
    /// Whose turn it is, until when: nobody else begins anything meanwhile.
    turn: Option<(NodeId, Time)>,
}

/// What a peer has done about one request.
struct Peer {
    ballots: Bucket,
    /// Since when it has been kept waiting for another peer's ballot.
    waits_since: Option<Time>,
    /// How often it has cut another one short.
    cut_short: u32,
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
    /// How long it takes at a slow node, from the promise to the end.
    pub needs: Duration,
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
            needs: asked.needs,
            runs: asked.to_sign,
            finished: false,
            signing: None,
            deliveries: Vec::new(),
            until: asked.until,
            named: BTreeSet::new(),
            named_since: None,
            peers: BTreeMap::new(),
            turn: None,
        }
    }
}

impl Peer {
    fn new(now: Time) -> Self {
        Self {
            ballots: Bucket::new(now, limits::REQUEST_BALLOTS_PER_SECOND, limits::REQUEST_BALLOTS_BURST),
            waits_since: None,
            cut_short: 0,
            named: 0,
        }
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

    /// Whether it is the turn of whoever asks for a promise, which it pays for. What is not higher than what was promised
    /// takes no turn; to ask again is to ask the same. `lives`: whether a coordinator still answers under that start.
    pub fn take_turn(&mut self, now: Time, asked: &Asked<'_>, me: NodeId, lives: impl Fn(&Attempt) -> bool) -> bool {
        let Some(promise) = self.table.get_mut(&asked.key) else { return true };
        let (by, before) = (asked.ballot.coordinator, promise.ballot);
        if before == asked.ballot {
            return promise.deliveries == asked.deliveries;
        }
        let lower = asked.ballot < before;
        let turn = promise.turn.filter(|(_, until)| now < *until).map(|(whose, _)| whose);
        if turn.is_some_and(|whose| whose != by) {
            return lower;
        }
        let peer = promise.peers.entry(by).or_insert_with(|| Peer::new(now));
        if turn.is_none() && before.coordinator != by && !promise.finished && lives(&before) {
            let since = *peer.waits_since.get_or_insert(now);
            if now < since.after(promise.needs * (1 << peer.cut_short.min(limits::PATIENCE_DOUBLINGS))) {
                return lower;
            }
            peer.waits_since = None;
            peer.cut_short += u32::from(promise.runs);
            promise.turn = Some((by, now.after(limits::TURN)));
        }
        if lower {
            return true;
        }
        if now >= promise.named_since.get_or_insert(now).after(limits::NAMES_FORGOTTEN) {
            promise.named_since = Some(now);
            promise.named.clear();
            promise.peers.values_mut().for_each(|peer| peer.named = 0);
        }
        let peer = promise.peers.entry(by).or_insert_with(|| Peer::new(now));
        let new = asked.deliveries.iter().filter(|delivery| !promise.named.contains(*delivery)).count();
        if by != me && (peer.named + new > limits::DELIVERIES_NAMED_MAX || !peer.ballots.admits(now)) {
            return false;
        }
        peer.waits_since = None;
        peer.named += new;
        promise.turn = None;
        true
    }

    /// What was begun in a ballot is stored here: it needs no protection any more.
    pub fn finished(&mut self, key: &RequestKey, ballot: Attempt) {
        if let Some(promise) = self.table.get_mut(key).filter(|promise| promise.ballot == ballot) {
            promise.finished = true;
        }
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
        promise.finished &= promise.ballot == asked.ballot;
        (promise.ballot, promise.needs, promise.runs) = (asked.ballot, asked.needs, asked.to_sign);
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
    use crate::Incarnation;

    const KEY: RequestKey = [7; 32];
    const ME: u8 = 9;
    const NEEDS: Duration = Duration::from_secs(10);

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
        dead: Option<NodeId>,
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
            let asked = Asked { key: KEY, payload: [0; 32], ballot, deliveries, until, needs: NEEDS, to_sign };
            let dead = self.dead;
            self.promises.take_turn(now, &asked, node(ME), |attempt| Some(attempt.coordinator) != dead)
                && self.promises.promise(WallTime(0), &asked, &Report::default()).is_ok()
        }
    }

    #[test]
    fn a_promise_is_kept_against_other_peers_while_its_holder_needs_it() {
        let mut member = Member::default();
        assert!(member.promises(at(0), 1, &[]));
        assert!(!member.promises(at(0), 2, &[]), "the first one has only begun");
        assert!(member.promises(at(1), 1, &[]), "its own next attempt");
        assert!(!member.promises(at(9), 2, &[]));
        assert!(member.promises(at(10), 2, &[]), "who has waited that long is not kept away by further attempts");
        // Nothing is protected that nobody works for any more.
        member.promises.finished(&KEY, member.promises.ballot(&KEY).expect("just promised"));
        assert!(member.promises(at(10), 1, &[]));
        member.dead = Some(node(1));
        assert!(member.promises(at(10), 3, &[]));
    }

    #[test]
    fn of_two_that_want_the_same_each_gets_longer_and_longer_times() {
        let mut member = Member::default();
        let (mut second, mut holder, mut turns) = (0, 1, Vec::new());
        assert!(member.promises(at(0), 1, &[]));
        // The other one asks all the time.
        for now in 1..300 {
            if member.promises(at(now), 3 - holder, &[]) {
                turns.push(now - second);
                (second, holder) = (now, 3 - holder);
            }
        }
        assert_eq!(turns, [11, 11, 21, 21, 41, 41, 81], "seconds without the other one");
    }

    /// Whoever is told of a higher ballot comes back with a higher number, but not at once.
    #[test]
    fn a_peer_that_raises_its_number_all_the_time_keeps_nobody_away() {
        let mut member = Member::default();
        let mut known = 0;
        let came_through = (0..60).find(|now| {
            member.promises(at(*now), 1, &[]);
            if now % 5 != 0 {
                return false;
            }
            let incarnation = Incarnation([0; 16]);
            let ballot = Attempt { number: known + 1, coordinator: node(2), incarnation, serial: 1 };
            let promised = member.asked(at(*now), ballot, &[]);
            known = member.promises.ballot(&KEY).expect("promised").number;
            promised
        });
        assert_eq!(came_through, Some(15), "its turn comes after ten seconds, and then it asks once more");
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
        assert_eq!(begun(&mut member, at(3), 1), 3 * limits::REQUEST_BALLOTS_PER_SECOND as usize);
        member.dead = Some(node(1));
        assert_eq!(begun(&mut member, at(3), ME), 1000, "a node limits nobody but others");
    }

    #[test]
    fn a_peer_names_only_so_many_deliveries_that_nobody_else_has_named() {
        let mut member = Member::default();
        let names = |from: u8, to: u8| (from..to).map(|name| [name; 32]).collect::<Vec<DeliveryKey>>();
        assert!(member.promises(at(0), 1, &[]));
        let most = u8::try_from(limits::DELIVERIES_NAMED_MAX).expect("a small limit");
        for (number, from) in (0..most).step_by(16).enumerate() {
            assert!(member.promises(at(number as u64), 1, &names(from, from + 16)));
        }
        assert!(!member.promises(at(100), 1, &names(most, most + 1)));
        assert!(member.promises(at(100), 1, &names(0, 16)), "those that are named already");
        // To ask again is to ask the same.
        let ballot = member.promises.ballot(&KEY).expect("promised");
        assert!(member.asked(at(100), ballot, &names(0, 16)));
        assert!(!member.asked(at(100), ballot, &names(most, most + 16)));
        member.dead = Some(node(1));
        assert!(member.promises(at(100), 2, &names(most, most + 16)), "what one peer names is not another's");
        member.dead = Some(node(2));
        assert!(!member.promises(at(599), 1, &names(100, 101)));
        assert!(member.promises(at(601), 1, &names(100, 101)), "who asks for ever is answered for ever");
    }
}

//! Auxiliary data of suites in which every pair of nodes has a set of its own, and how such a set ends.
//!
//! The lower node of each pair that answers proposes a run of the two. Every node tells all others which sets it would
//! sign with, so that whoever coordinates a signature can name one for each pair of its signers.
//!
//! A failed consistency check says something about the secrets of the set that it was made with, so that set is banned:
//! its record is replaced by one without secrets. Invariant: from the moment of the failure nothing that has to do with
//! the set leaves this node until that is durable: no other run with it, no state, no answer to a proposal. Both members keep the ban and say so
//! whenever they meet, also of a set that a newer one has replaced, because runs that began with it hold its secrets; the
//! pair signs again once it has made a new set, which it does on its own only after a wait that
//! grows with every ban. The nodes themselves are not excluded: each goes on with all others.

use super::*;
use crate::WallTime;
use crate::node::{PairState, PairStatus};
use crate::planted::{Bug, planted};

/// First wait after a ban before a pair makes a new set on its own; doubles with each further ban up to
/// [`AFTER_BAN_MAX`].
const AFTER_BAN_MIN: Duration = Duration::from_secs(600);
/// Longest such wait.
const AFTER_BAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bans of one pair that are remembered; the sets of older ones are gone anyway.
pub(super) const BANS_KEPT: usize = 8;
/// Steps of the search for signers of which every pair has a set.
const SEARCH_STEPS_MAX: usize = 100_000;

/// What is left of a set that must never be used again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ban {
    suite: String,
    members: Vec<NodeId>,
    /// Who found the reason.
    by: NodeId,
    reason: String,
    at: WallTime,
    /// How many bans the pair has had, this one included.
    count: u32,
    /// When this start of the node may make a new set: whatever clocks did meanwhile, no later than the wait after it began.
    #[serde(skip)]
    until: Time,
    /// Whether it is in the store. Until then nobody is told, in whatever way.
    #[serde(skip)]
    durable: bool,
}

impl Ban {
    fn wait(&self) -> Duration {
        AFTER_BAN_MIN.saturating_mul(1 << self.count.saturating_sub(1).min(16)).min(AFTER_BAN_MAX)
    }
}

/// When a set-up with a peer may be tried again.
pub(super) struct Tries {
    next: Time,
    backoff: Duration,
}

impl Auxiliary {
    pub(super) fn restore_ban(&mut self, ctx: &Context, key: &[u8], mut ban: Ban) {
        if ban.suite == ctx.suites.secp256k1.name()
            && let Ok(name) = key.try_into()
        {
            let left = Duration::from_millis(ban.at.after(ban.wait()).0.saturating_sub(ctx.now.wall.0));
            ban.until = ctx.now.time.after(left.min(ban.wait()));
            ban.durable = true;
            self.bans.insert(name, ban);
        }
    }

    /// Proposes a run with every peer that this node leads and has no set with.
    pub(super) fn propose_pairs(&mut self, ctx: &mut Context) {
        let now = ctx.now.time;
        for peer in ctx.reachable() {
            if peer <= ctx.me
                || self.own_pair(peer).is_some()
                || self.is_joining(peer)
                || self.tries.get(&peer).is_some_and(|tries| now < tries.next)
                || self.ban_lasts(ctx, peer) > Duration::ZERO
                || self.loss_keeps_from(ctx, peer, Part::Propose).is_some()
            {
                continue;
            }
            let Some(incarnation) = ctx.incarnation_of(peer) else { continue };
            let backoff = self.tries.get(&peer).map_or(RETRY_MIN, |tries| tries.backoff);
            self.tries.insert(peer, Tries { next: now.after(backoff), backoff });
            let participants = vec![(ctx.me, ctx.incarnation), (peer, incarnation)];
            let proposal = Proposal { participants, nonce: ctx.random_bytes() };
            for node in [ctx.me, peer] {
                ctx.send(node, Lane::Bulk, Envelope::Auxiliary(Message::Propose(proposal.clone())));
            }
        }
    }

    /// Why this node does not take part in a set-up that `from` proposes.
    pub(super) fn refuses_pair(&self, ctx: &Context, from: NodeId, members: usize) -> Option<String> {
        let peer_of_own = from == ctx.me;
        if members != 2 {
            Some("the proposed members are no pair".to_owned())
        } else if peer_of_own {
            None
        } else if self.is_joining(from) {
            Some("another run of the pair is under way".to_owned())
        } else if self.own_pair(from).is_some() {
            Some("the pair has a set".to_owned())
        } else if let Some(wait) = self.waits_for(ctx, from) {
            Some(format!("the pair's last run led to nothing: not for {} s", wait.as_secs()))
        } else if let Some(wait) = self.loss_keeps_from(ctx, from, Part::Join) {
            Some(format!("it has lost the pair's last set: not for {} s", wait.as_secs()))
        } else {
            let wait = self.ban_lasts(ctx, from);
            (wait > Duration::ZERO).then(|| format!("the pair's last set was banned: not for {} s", wait.as_secs()))
        }
    }

    /// A run of a pair ended; if it made a set, the next one waits so long.
    pub(super) fn on_tried(&mut self, ctx: &Context, members: &[NodeId], made: Option<Duration>) {
        let Some(peer) = members.iter().copied().find(|member| *member != ctx.me) else { return };
        let backoff = self.tries.get(&peer).map_or(RETRY_MIN, |tries| tries.backoff);
        // After success the other one has a moment to agree.
        let (wait, backoff) = made.map_or((backoff, (backoff * 2).min(RETRY_MAX)), |wait| (wait, RETRY_MIN));
        self.tries.insert(peer, Tries { next: ctx.now.time.after(wait), backoff });
    }

    pub(super) fn pairs_wake_at(&self, ctx: &Context) -> Option<Time> {
        let now = ctx.now.time;
        let lacking = ctx.reachable().into_iter().filter(|peer| *peer > ctx.me && self.own_pair(*peer).is_none());
        lacking
            .filter_map(|peer| {
                let next = self.tries.get(&peer).map_or(now, |tries| tries.next);
                let lost = self.loss_keeps_from(ctx, peer, Part::Propose).unwrap_or_default();
                Some(next.max(now.after(self.ban_lasts(ctx, peer).max(lost)))).filter(|at| *at > now)
            })
            .min()
    }

    fn is_joining(&self, peer: NodeId) -> bool {
        self.joining.values().any(|joining| joining.members.contains(&peer))
    }

    /// The set that this node would sign with beside a peer.
    fn own_pair(&self, peer: NodeId) -> Option<[u8; 32]> {
        self.sets.iter().find(|(name, set)| set.is_agreed() && self.serves(name, set, peer)).map(|(name, _)| *name)
    }

    pub(super) fn own_pairs(&self, ctx: &Context) -> Vec<(NodeId, [u8; 32])> {
        if !is_pairwise(ctx) {
            return Vec::new();
        }
        let others = ctx.config.peers.iter().map(|p| p.id).filter(|id| *id != ctx.me);
        others.filter_map(|peer| Some((peer, self.own_pair(peer)?))).collect()
    }

    /// The set that two nodes would sign with, by the word of both where this node is neither.
    fn pair(&self, ctx: &Context, one: NodeId, other: NodeId) -> Option<[u8; 32]> {
        if one == ctx.me {
            return self.own_pair(other);
        }
        if other == ctx.me {
            return self.own_pair(one);
        }
        let name = self.claims.get(&one)?.get(&other)?;
        (self.claims.get(&other)?.get(&one) == Some(name)).then_some(*name)
    }

    /// The most preferred signers of which every pair has a set, by id, and the sets: for each signer those with all
    /// later ones.
    pub(super) fn choose_pairs(
        &self,
        ctx: &Context,
        candidates: &[NodeId],
        threshold: usize,
    ) -> Option<(Vec<[u8; 32]>, Vec<NodeId>)> {
        let mut chosen: Vec<usize> = Vec::with_capacity(threshold);
        let mut at = 0;
        for _ in 0..SEARCH_STEPS_MAX {
            if chosen.len() == threshold {
                let mut nodes: Vec<NodeId> = chosen.iter().filter_map(|at| candidates.get(*at).copied()).collect();
                nodes.sort();
                let names = pairs_of(&nodes).map(|(one, other)| self.pair(ctx, one, other));
                return Some((names.collect::<Option<_>>()?, nodes));
            }
            match candidates.get(at) {
                Some(candidate) => {
                    let known =
                        |at: &usize| candidates.get(*at).is_some_and(|c| self.pair(ctx, *c, *candidate).is_some());
                    if chosen.iter().all(known) {
                        chosen.push(at);
                    }
                    at += 1;
                }
                None => at = chosen.pop()? + 1,
            }
        }
        None
    }

    pub(super) fn view_of_pairs(&self, ctx: &Context, names: &[[u8; 32]], signers: &[NodeId]) -> Result<View, String> {
        let pairs: Vec<_> = pairs_of(signers).collect();
        if pairs.len() != names.len() {
            return Err(format!("the proposal names {} sets for {} pairs", names.len(), pairs.len()));
        }
        let mut view = View { views: Vec::new(), pairs: Vec::new() };
        // In order of the pairs the other one's position grows.
        for (name, (one, other)) in names.iter().zip(pairs) {
            let peer = match (one == ctx.me, other == ctx.me) {
                (true, _) => other,
                (_, true) => one,
                _ => continue,
            };
            if let Some(ban) = self.bans.get(name) {
                return Err(format!("its set-up with {} is banned: {}", ctx.name(peer), ban.reason));
            }
            let set = self.sets.get(name).filter(|set| set.members.len() == 2 && set.members.contains(&peer));
            let Some(set) = set else { return Err(format!("it does not hold that set-up with {}", ctx.name(peer))) };
            if !set.is_agreed() {
                return Err(format!("{} has not agreed to that set-up", ctx.name(peer)));
            }
            let opened = set.opened.clone();
            let secret = if opened.is_some() { Secret::new(Vec::new()) } else { set.data.secret.clone() };
            view.views.push(AuxiliaryView { secret, rows: set.data.rows.clone(), opened });
            view.pairs.push((peer, *name));
        }
        Ok(view)
    }

    /// Drops the sets that a newer one of the same pair replaces.
    pub(super) fn supersede(&mut self, by: &[u8; 32], members: &[NodeId], batch: &mut Batch) {
        let old = self.sets.iter().filter(|(name, set)| *name != by && set.members == members).map(|(name, _)| *name);
        for name in old.collect::<Vec<_>>() {
            self.sets.remove(&name);
            batch.remove(Keyspace::Auxiliary, name.to_vec());
        }
    }

    /// The store was rolled back: pairs' sets in it may have been banned since, so all of them are given up, also those
    /// that wait for the cluster to sign with their suite again.
    pub fn on_rolled_back(&mut self, ctx: &mut Context) {
        let mut batch = Batch::default();
        if is_pairwise(ctx) {
            for name in std::mem::take(&mut self.sets).into_keys() {
                batch.remove(Keyspace::Auxiliary, name.to_vec());
            }
        }
        for key in std::mem::take(&mut self.dormant) {
            batch.remove(Keyspace::Auxiliary, key);
        }
        if batch.writes.is_empty() {
            return;
        }
        ctx.persist(batch, ContextAfter::Auxiliary(After::Stored(None)));
    }

    // Bans.

    /// How long the pair still waits before it makes a new set.
    fn ban_lasts(&self, ctx: &Context, peer: NodeId) -> Duration {
        let last = self.bans.values().filter(|ban| ban.members.contains(&peer)).max_by_key(|ban| ban.count);
        last.map_or(Duration::ZERO, |ban| ban.until.since(ctx.now.time))
    }

    /// Ends sets for ever because a check failed that says something about their secrets. What ended for that reason is
    /// said, and handled, once it is durable.
    pub fn ban(
        &mut self,
        ctx: &mut Context,
        sessions: &mut Sessions,
        sets: &[(NodeId, [u8; 32])],
        by: NodeId,
        reason: &str,
        mut unsaid: Vec<Unsaid>,
    ) {
        let (mut batch, mut names) = (Batch::default(), Vec::new());
        for (peer, name) in sets {
            if self.bans.contains_key(name) {
                continue;
            }
            // It may have been replaced while the run was under way: runs that began with it hold its secrets still.
            self.sets.remove(name);
            let members = vec![ctx.me.min(*peer), ctx.me.max(*peer)];
            let count = self.forget_old_bans(&members, &mut batch) + 1;
            let suite = ctx.suites.secp256k1.name().to_owned();
            let mut ban = Ban {
                suite,
                members,
                by,
                reason: reason.into(),
                at: ctx.now.wall,
                count,
                until: Time(0),
                durable: false,
            };
            ban.until = ctx.now.time.after(ban.wait());
            ctx.report(Report::PairBanned {
                peer: ctx.name(*peer),
                set: short(name),
                by: ctx.name(by),
                reason: reason.to_owned(),
                wait_s: ban.wait().as_secs(),
            });
            let record = postcard::to_stdvec(&StoredSet::Banned(ban.clone())).expect("plain data serialises");
            batch.put(Keyspace::Auxiliary, name.to_vec(), record);
            self.bans.insert(*name, ban);
            names.push(*name);
            if !planted(Bug::BanEndsNothing) {
                unsaid.extend(sessions.end_users_of(ctx, *name, "its auxiliary data has been banned"));
            }
        }
        if planted(Bug::BanSaidBeforeDurable) {
            self.on_persisted(ctx, After::Banned(names.clone(), std::mem::take(&mut unsaid)));
        }
        if !names.is_empty() || !unsaid.is_empty() {
            ctx.persist(batch, ContextAfter::Auxiliary(After::Banned(names, unsaid)));
        }
    }

    pub(super) fn durable(&mut self, names: &[[u8; 32]]) {
        self.bans.iter_mut().filter(|(name, _)| names.contains(name)).for_each(|(_, ban)| ban.durable = true);
    }

    /// Whether any ban waits to be durable.
    pub(super) fn is_banning(&self) -> bool {
        self.bans.values().any(|ban| !ban.durable)
    }

    pub(super) fn is_banning_with(&self, peer: NodeId) -> bool {
        self.bans.values().any(|ban| !ban.durable && ban.members.contains(&peer))
    }

    /// Whether nothing may be said yet about a proposal that names these sets: the ban of one waits to be durable.
    pub fn holds_back(&self, names: &[[u8; 32]]) -> bool {
        names.iter().any(|name| self.bans.get(name).is_some_and(|ban| !ban.durable))
    }

    /// Bans what the other member has banned.
    pub(super) fn on_banned(&mut self, ctx: &mut Context, sessions: &mut Sessions, from: NodeId, banned: &[[u8; 32]]) {
        let held = |name: &[u8; 32]| {
            self.sets.get(name).is_some_and(|set| set.members.len() == 2 && set.members.contains(&from))
        };
        let sets: Vec<_> =
            banned.iter().filter(|name| held(name) || sessions.uses(from, **name)).map(|name| (from, *name)).collect();
        if is_pairwise(ctx) && !sets.is_empty() {
            self.ban(ctx, sessions, &sets, from, "a consistency check failed there", Vec::new());
        }
    }

    /// The number of the pair's last ban; the oldest of too many goes.
    fn forget_old_bans(&mut self, members: &[NodeId], batch: &mut Batch) -> u32 {
        let mut bans: Vec<(u32, [u8; 32])> =
            self.bans.iter().filter(|(_, ban)| ban.members == members).map(|(name, ban)| (ban.count, *name)).collect();
        bans.sort_unstable();
        if bans.len() >= BANS_KEPT
            && let Some((_, oldest)) = bans.first()
        {
            self.bans.remove(oldest);
            batch.remove(Keyspace::Auxiliary, oldest.to_vec());
        }
        bans.last().map_or(0, |(count, _)| *count)
    }

    /// Whether this node can sign with each other one, and if not, why not and until when.
    pub fn pairs_status(&self, ctx: &Context) -> Vec<PairStatus> {
        if !is_pairwise(ctx) {
            return Vec::new();
        }
        let others = ctx.config.peers.iter().map(|p| p.id).filter(|id| *id != ctx.me);
        others
            .map(|peer| {
                let (state, detail) = self.pair_state(ctx, peer);
                PairStatus { peer: ctx.name(peer), state, detail }
            })
            .collect()
    }

    fn pair_state(&self, ctx: &Context, peer: NodeId) -> (PairState, String) {
        if self.own_pair(peer).is_some() {
            return (PairState::Ready, String::new());
        }
        let last = self.bans.values().filter(|ban| ban.members.contains(&peer)).max_by_key(|ban| ban.count);
        let wait = self.ban_lasts(ctx, peer);
        if let Some(ban) = last
            && wait > Duration::ZERO
        {
            let (by, reason, count, wait) = (ctx.name(ban.by), &ban.reason, ban.count, wait.as_secs());
            return (PairState::Banned, format!("ban {count}, found by {by}: {reason}; a new one in {wait} s"));
        }
        let name = ctx.name(peer);
        let detail = if self.is_joining(peer) {
            "is being made".to_owned()
        } else if !ctx.is_up(peer) {
            format!("waits for {name} to answer")
        } else if self.sets.values().any(|set| !set.is_agreed() && set.members.contains(&peer)) {
            format!("made here, waits for the word of {name}")
        } else if peer < ctx.me {
            format!("waits for {name} to propose it")
        } else {
            let next = self.tries.get(&peer).map_or(ctx.now.time, |tries| tries.next).since(ctx.now.time);
            let lost = self.loss_keeps_from(ctx, peer, Part::Propose).unwrap_or_default();
            format!("is tried in {} s", next.max(lost).as_secs())
        };
        (PairState::Missing, detail)
    }

    pub(super) fn banned_status<'a>(&'a self, ctx: &'a Context) -> impl Iterator<Item = AuxiliaryStatus> + 'a {
        self.bans.iter().map(|(name, ban)| AuxiliaryStatus {
            name: short(name),
            members: ctx.names(ban.members.iter().copied()),
            agreed: false,
            banned: format!("found by {}: {}", ctx.name(ban.by), ban.reason),
        })
    }
}

/// All pairs of an ordered list: each element with all later ones.
fn pairs_of(nodes: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
    nodes.iter().enumerate().flat_map(|(at, one)| nodes.iter().skip(at + 1).map(|other| (*one, *other)))
}

//! How soon a node may propose the next run for auxiliary data after one that led to nothing, and how soon a member gets
//! another set that says it has lost one.
//!
//! Whoever proposes waits longer after each run that failed, and longer still after each that every participant completed
//! and somebody did not agree to. The others join no earlier than half of that: an honest proposer, whose clock and news
//! differ a little, is never refused for it.
//!
//! A member that lost its store gets new sets at once; one that loses them again waits, longer after each time. The work is
//! everybody's, and nobody can see whether it is true.

use super::*;

/// How a node's last runs went.
pub(super) struct Pace {
    next: Time,
    /// The proposer's wait if the next run fails, and if it is not agreed to.
    failed: Duration,
    unagreed: Duration,
}

/// What a member said about its last loss.
pub(super) struct Loss {
    at: Time,
    /// How long after that a run is proposed of which it is a member.
    wait: Duration,
}

/// A node's part in a run.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Propose,
    /// No sooner than half of the proposer's wait.
    Join,
}

impl Auxiliary {
    /// A member said that it does not hold a set any more to which everybody had agreed, and no other serves it.
    pub(super) fn lost(&mut self, ctx: &Context, node: NodeId) {
        let now = ctx.now.time;
        let last = self.losses.get(&node).filter(|last| now < last.at.after(last.wait + limits::AUXILIARY_WAIT_MAX));
        let wait = last.map_or(Duration::ZERO, |last| (last.wait * 2).clamp(RETRY_MAX, limits::AUXILIARY_WAIT_MAX));
        self.losses.insert(node, Loss { at: now, wait });
    }

    /// How long its last loss still keeps this node from runs with that member.
    pub(super) fn loss_keeps_from(&self, ctx: &Context, member: NodeId, part: Part) -> Option<Duration> {
        let loss = self.losses.get(&member)?;
        let wait = match part {
            Part::Propose => loss.wait,
            Part::Join => loss.wait / 2,
        };
        Some(loss.at.after(wait).since(ctx.now.time)).filter(|wait| !wait.is_zero())
    }

    pub(super) fn losses_end(&self) -> impl Iterator<Item = Time> + '_ {
        self.losses.values().map(|loss| loss.at.after(loss.wait))
    }

    /// How long it takes until a run that another node proposes is joined.
    pub(super) fn waits_for(&self, ctx: &Context, proposer: NodeId) -> Option<Duration> {
        let pace = self.paces.get(&proposer).filter(|_| proposer != ctx.me)?;
        Some(pace.next.since(ctx.now.time)).filter(|wait| !wait.is_zero())
    }

    /// A run is over, and nobody has agreed to what it made. How long its proposer waits.
    pub(super) fn ran(&mut self, ctx: &Context, proposer: NodeId, made: bool) -> Duration {
        let first = Pace { next: Time(0), failed: RETRY_MIN, unagreed: RETRY_MAX };
        let pace = self.paces.entry(proposer).or_insert(first);
        let wait = if made { pace.unagreed } else { pace.failed };
        if made {
            pace.failed = RETRY_MIN;
            pace.unagreed = (wait * 2).min(limits::AUXILIARY_WAIT_MAX);
        } else {
            pace.failed = (wait * 2).min(RETRY_MAX);
        }
        pace.next = ctx.now.time.after(wait / 2);
        wait
    }
}

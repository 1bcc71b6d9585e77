//! How far a node has come, under its own seal: what lets its peers tell it that its store was rolled back.
//!
//! A node counts its durable commits. Its peers remember the last count that it told them, as a *mark* under its seal,
//! and show it at every handshake. Invariant: a mark is sealed only when its commits are durable, so a store that does
//! not reach a mark of its own node has lost something; and nobody but the node itself can make one, so no peer can
//! invent such a loss. Only the node itself ever asks whether a mark is its own (a peer has it from an authenticated
//! link), so a MAC does, which costs less than a signature with every commit.

use std::collections::BTreeMap;

use crate::{Identity, Incarnation, NodeId, identity::SEAL_BYTES, tags};

/// A start of a node and how many commits its store held, sealed by that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The start.
    pub incarnation: Incarnation,
    /// Durable commits, counted over all starts.
    pub commits: u64,
    seal: [u8; Self::SEAL],
}

fn body(node: NodeId, incarnation: Incarnation, commits: u64) -> [u8; 40] {
    let mut body = [0; 40];
    body[..16].copy_from_slice(node.as_bytes());
    body[16..32].copy_from_slice(&incarnation.0);
    body[32..].copy_from_slice(&commits.to_le_bytes());
    body
}

impl Mark {
    /// Bytes of the seal.
    pub(super) const SEAL: usize = SEAL_BYTES;
    /// Bytes of a mark.
    pub const BYTES: usize = 16 + 8 + Self::SEAL;

    /// Says how far `identity`'s node has come.
    #[must_use]
    pub fn of(identity: &Identity, incarnation: Incarnation, commits: u64) -> Self {
        let seal = identity.seal(tags::LINK_MARK, &body(identity.id(), incarnation, commits));
        Self { incarnation, commits, seal }
    }

    /// Whether `identity`'s node itself has said it.
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        identity.knows(tags::LINK_MARK, &body(identity.id(), self.incarnation, self.commits), &self.seal)
    }

    /// As it is stored and sent.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.incarnation.0);
        bytes[16..24].copy_from_slice(&self.commits.to_le_bytes());
        bytes[24..].copy_from_slice(&self.seal);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, whoever made it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (incarnation, rest) = bytes.split_first_chunk().expect("a mark begins with a start");
        let (commits, rest) = rest.split_first_chunk().expect("a count follows");
        let seal = rest.first_chunk().expect("a seal ends a mark");
        Self { incarnation: Incarnation(*incarnation), commits: u64::from_le_bytes(*commits), seal: *seal }
    }

    /// From its parts, whoever made it.
    pub(super) fn from_parts(incarnation: Incarnation, commits: u64, seal: [u8; Self::SEAL]) -> Self {
        Self { incarnation, commits, seal }
    }

    pub(super) fn seal(&self) -> &[u8; Self::SEAL] {
        &self.seal
    }
}

/// What a node's store says of one of the node's starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The commits that the store held when this start began; `None`: the store never knew this start.
    pub found: Option<u64>,
    /// The loss of what this start wrote is known, and the node has come to terms with it (or is about to).
    pub conceded: bool,
}

/// What a mark that a peer shows says about this node's own store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing is missing, or the peer has never met this node.
    Sound,
    /// The store has lost something that this node had told the peer.
    Lost(Start),
    /// The same, of a start whose loss is known.
    Conceded,
    /// This very process has said it, and does not know: it was put back with its memory, or copied while it ran.
    PutBack,
    /// This node never said that.
    False,
}

/// All starts of this node that its store knows, and how far each came.
pub(super) struct History {
    current: Incarnation,
    /// Durable commits.
    commits: u64,
    /// The current one too.
    starts: BTreeMap<Incarnation, Start>,
}

impl History {
    /// The `current` start found so many commits, and `commits` are durable by now.
    pub fn new(current: Incarnation, found: u64, commits: u64, mut starts: BTreeMap<Incarnation, Start>) -> Self {
        starts.insert(current, Start { found: Some(found), conceded: false });
        Self { current, commits, starts }
    }

    pub fn committed(&mut self, commits: u64) {
        self.commits = self.commits.max(commits);
    }

    /// How many commits the store held when the start that found `found` of them had ended.
    fn end(&self, found: u64) -> u64 {
        // Every start commits, so the next one found more.
        self.starts.values().filter_map(|start| start.found).filter(|next| *next > found).min().unwrap_or(self.commits)
    }

    /// Looks at what a peer says that this node told it.
    pub fn judge(&self, claim: Option<&Mark>, identity: &Identity) -> Claim {
        let Some(claim) = claim else { return Claim::Sound };
        if !claim.is_of(identity) {
            return Claim::False;
        }
        if claim.incarnation == self.current {
            return if claim.commits <= self.commits { Claim::Sound } else { Claim::PutBack };
        }
        match self.starts.get(&claim.incarnation) {
            Some(Start { found: Some(found), .. }) if claim.commits <= self.end(*found) => Claim::Sound,
            Some(Start { conceded: true, .. }) => Claim::Conceded,
            start => Claim::Lost(Start { found: start.and_then(|start| start.found), conceded: true }),
        }
    }

    pub fn concede(&mut self, incarnation: Incarnation) {
        self.starts.entry(incarnation).or_insert(Start { found: None, conceded: true }).conceded = true;
    }
}

/// Makes this node's present mark, once per count.
#[derive(Default)]
pub(super) struct Present(Option<Mark>);

impl Present {
    pub fn mark(&mut self, identity: &Identity, history: &History) -> Mark {
        match self.0 {
            Some(mark) if mark.commits == history.commits => mark,
            _ => *self.0.insert(Mark::of(identity, history.current, history.commits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::new(NodeId::from_bytes([1; 16]), &[5; 32])
    }

    fn start(n: u8) -> Incarnation {
        Incarnation([n; 16])
    }

    fn known(found: u64) -> Start {
        Start { found: Some(found), conceded: false }
    }

    /// Start 1 found nothing and made ten commits, start 2 made five; start 3 runs and has made two.
    fn history() -> History {
        History::new(start(3), 15, 17, [(start(1), known(0)), (start(2), known(10))].into())
    }

    fn judge(history: &History, incarnation: Incarnation, commits: u64) -> Claim {
        history.judge(Some(&Mark::of(&identity(), incarnation, commits)), &identity())
    }

    #[test]
    fn a_store_is_sound_as_far_as_it_reached_and_rolled_back_beyond() {
        let history = history();
        assert_eq!(history.judge(None, &identity()), Claim::Sound);
        for (incarnation, reached) in [(1, 10), (2, 15)] {
            for commits in [0, reached - 1, reached] {
                assert_eq!(judge(&history, start(incarnation), commits), Claim::Sound, "{incarnation} {commits}");
            }
            let found = history.starts.get(&start(incarnation)).and_then(|s| s.found);
            let lost = Claim::Lost(Start { found, conceded: true });
            assert_eq!(judge(&history, start(incarnation), reached + 1), lost);
        }
        assert_eq!(judge(&history, start(3), 17), Claim::Sound);
        assert_eq!(judge(&history, start(3), 18), Claim::PutBack);
        assert_eq!(judge(&history, start(9), 1), Claim::Lost(Start { found: None, conceded: true }));
    }

    #[test]
    fn commits_that_were_made_since_do_not_hide_a_loss() {
        let mut history = History::new(start(2), 50, 51, [(start(1), known(0))].into());
        history.committed(1000);
        assert!(matches!(judge(&history, start(1), 51), Claim::Lost(_)));
    }

    #[test]
    fn a_loss_is_conceded_once_for_all_that_the_start_wrote_and_hides_no_other() {
        let mut history = history();
        for lost in [start(2), start(9)] {
            history.concede(lost);
            assert_eq!(judge(&history, lost, 1000), Claim::Conceded);
        }
        assert_eq!(judge(&history, start(2), 15), Claim::Sound, "what is there is there");
        assert!(matches!(judge(&history, start(1), 11), Claim::Lost(_)));
        assert!(matches!(judge(&history, start(8), 1), Claim::Lost(_)));
    }

    #[test]
    fn nobody_else_can_say_that_this_node_has_lost_something() {
        let history = history();
        let genuine = Mark::of(&identity(), start(9), 7);
        let stranger = Mark::of(&Identity::new(identity().id(), &[6; 32]), start(9), 7);
        let other_node = Mark::of(&Identity::new(NodeId::from_bytes([2; 16]), &[5; 32]), start(9), 7);
        let raised = Mark { commits: 8, ..genuine };
        let moved = Mark { incarnation: start(8), ..genuine };
        for forged in [stranger, other_node, raised, moved] {
            assert_eq!(history.judge(Some(&forged), &identity()), Claim::False, "{forged:?}");
        }
        assert!(matches!(history.judge(Some(&genuine), &identity()), Claim::Lost(_)));
        assert_eq!(Mark::from_bytes(&genuine.to_bytes()), genuine);
    }
}

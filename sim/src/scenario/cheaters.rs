//! Who cheats, and which lies are told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FaultKind, Scenario, pick_number};
use crate::dice::Dice;

/// A lie that a cheating node tells, validly sealed, for as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lie {
    /// Messages are not sent.
    Drop,
    /// Messages are sent late.
    Delay,
    /// Messages of a protocol are altered.
    Alter,
    /// Different parties are told different things in one broadcast.
    Equivocate,
    /// Its own older messages are sent again, also those of earlier sessions and processes.
    Replay,
    /// Its proposals are repeated for something that nobody asked for.
    Forge,
    /// Its proposals claim to be somebody else's.
    Impersonate,
    /// Says nothing more about wallets once it has stated that it is prepared.
    FallSilent,
    /// The last secret of a signature is another one.
    WrongShare,
    /// The signature that it says it stored is another one.
    WrongResult,
    /// Messages for sessions that never were.
    Flood,
    /// Says that nodes have told it what they have not.
    FalseClaim,
    /// What it says about the auxiliary data of a pair fails the other's check. Only where pairs have their own.
    WrongCheck,
    /// Every request to sign that it hears of it coordinates itself: with ballots as high as can be, again and again.
    Raise,
    /// What it says in a protocol it says many times.
    Repeat,
    /// Proposes two sessions for one request at once, under the same ballot and in the same slot. Half of the others
    /// hear of the one first, half of the other.
    Split,
    /// Says that it refuses a session where it would say that it is prepared; to half of the others only.
    Refuse,
    /// Sends what is no message of any kind.
    Garble,
}

impl Lie {
    /// Those that are told whatever the suites are.
    pub const ALL: [Self; 12] = [
        Self::Drop,
        Self::Delay,
        Self::Alter,
        Self::Equivocate,
        Self::Replay,
        Self::Forge,
        Self::Impersonate,
        Self::FallSilent,
        Self::WrongShare,
        Self::WrongResult,
        Self::Flood,
        Self::FalseClaim,
    ];

    /// Its name, for counting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "cheater dropped a message",
            Self::FalseClaim => "cheater claimed what nobody told it",
            Self::Delay => "cheater delayed a message",
            Self::Alter => "cheater altered a message",
            Self::Equivocate => "cheater equivocated",
            Self::Replay => "cheater replayed a message",
            Self::Forge => "cheater proposed what nobody asked for",
            Self::Impersonate => "cheater claimed another sender",
            Self::FallSilent => "cheater fell silent after preparing",
            Self::WrongShare => "cheater answered with a wrong share",
            Self::WrongResult => "cheater reported another signature",
            Self::Flood => "cheater flooded its peers",
            Self::WrongCheck => "cheater failed a check of a pair",
            Self::Raise => "cheater raised ballots",
            Self::Repeat => "cheater repeated a message",
            Self::Split => "cheater proposed two sessions at once",
            Self::Refuse => "cheater refused what it had prepared",
            Self::Garble => "cheater sent what is no message",
        }
    }
}

/// A node that cheats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cheater {
    /// Which.
    pub node: usize,
    /// What it does, in thousandths of the messages that the lie fits.
    pub lies: BTreeMap<Lie, u64>,
}

impl Scenario {
    /// At most `n − t` nodes cheat, which is fewer than `t`: what is promised holds whatever they do.
    pub(super) fn draw_cheaters(&mut self) {
        let dice = &mut Dice::new(self.seed, "cheaters");
        if self.threshold == self.nodes {
            self.threshold = self.nodes - 1;
        }
        let most = self.nodes - self.threshold;
        let mut order: Vec<usize> = (0..self.nodes).collect();
        dice.shuffle(&mut order);
        let count = pick_number(dice, 1, most);
        order.truncate(count);
        order.sort_unstable();
        for node in order {
            let mut lies = BTreeMap::new();
            for _ in 0..dice.between(1, 4) {
                if let Some(lie) = dice.pick(&Lie::ALL) {
                    let rate = if *lie == Lie::Flood { dice.between(2, 20) } else { dice.skewed(20, 1_000) };
                    lies.insert(*lie, rate);
                }
            }
            self.cheaters.push(Cheater { node, lies });
        }
        let conspiracy = &mut Dice::new(self.seed, "conspiracy");
        if conspiracy.chance(0.15) {
            self.conspire(conspiracy);
        }
        // Cheaters count against what may be rolled back.
        self.faults.retain(|fault| !matches!(fault.kind, FaultKind::Rollback { .. }));
        let honest = (0..self.nodes).filter(|node| !self.is_cheater(*node));
        // They go on cheating in a core of all, or are gone.
        self.core = if self.conspiracy || dice.chance(0.4) {
            (0..self.nodes).collect()
        } else {
            honest.take(self.threshold).collect()
        };
    }

    /// A majority, which is what makes a result believed, reports the same false one; all signers but one, so that an
    /// honest coordinator signs with them.
    fn conspire(&mut self, dice: &mut Dice) {
        self.conspiracy = true;
        let majority = self.nodes / 2 + 1;
        self.threshold = majority + 1;
        let mut order: Vec<usize> = (0..self.nodes).collect();
        dice.shuffle(&mut order);
        order.truncate(majority);
        order.sort_unstable();
        let lies: BTreeMap<Lie, u64> = [(Lie::WrongResult, 1_000)].into();
        self.cheaters = order.into_iter().map(|node| Cheater { node, lies: lies.clone() }).collect();
    }

    /// Half of the clusters with cheaters have auxiliary data for each pair, and most of those cheat with it.
    pub(super) fn draw_pairs(&mut self) {
        let dice = &mut Dice::new(self.seed, "pairs");
        self.pairs = dice.chance(0.5) && !self.conspiracy;
        for cheater in self.cheaters.iter_mut().filter(|_| self.pairs) {
            if dice.chance(0.8) {
                cheater.lies.insert(Lie::WrongCheck, dice.skewed(50, 1_000));
            }
        }
    }

    /// Some cheaters take part in nothing so much as in others' requests.
    pub(super) fn draw_zeal(&mut self) {
        let dice = &mut Dice::new(self.seed, "zeal");
        for cheater in self.cheaters.iter_mut().filter(|_| !self.conspiracy) {
            for lie in [Lie::Raise, Lie::Repeat] {
                if dice.chance(0.25) {
                    cheater.lies.insert(lie, dice.skewed(50, 1_000));
                }
            }
        }
    }

    /// Some set those against each other that their requests need.
    pub(super) fn draw_splits(&mut self) {
        let dice = &mut Dice::new(self.seed, "splits");
        for cheater in self.cheaters.iter_mut().filter(|_| !self.conspiracy) {
            if dice.chance(0.2) {
                cheater.lies.insert(Lie::Split, dice.skewed(200, 1_000));
            }
        }
    }

    /// Some say what honest nodes never say.
    pub(super) fn draw_babble(&mut self) {
        let dice = &mut Dice::new(self.seed, "babble");
        for cheater in self.cheaters.iter_mut().filter(|_| !self.conspiracy) {
            if dice.chance(0.5) {
                cheater.lies.insert(Lie::Refuse, dice.between(300, 1_000));
            }
            if dice.chance(0.2) {
                cheater.lies.insert(Lie::Garble, dice.skewed(1, 50));
            }
        }
    }

    /// Whether a node cheats.
    #[must_use]
    pub fn is_cheater(&self, node: usize) -> bool {
        self.cheaters.iter().any(|cheater| cheater.node == node)
    }

    /// Whether somebody who cheats is alive in the second phase.
    #[must_use]
    pub fn cheated_core(&self) -> bool {
        self.core.iter().any(|node| self.is_cheater(*node))
    }
}

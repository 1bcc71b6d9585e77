//! What happens in one run, drawn from its seed as plain data: the cluster, what clients ask, what breaks and when.
//!
//! Faults stay within what the protocol promises to survive: any number of crashes and any partition may delay, but
//! rolled-back disks are at most `n − t`, and clocks differ by at most the configured skew.

mod cheaters;
mod clients;
mod faults;
mod profiles;
mod rates;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::{
    cheaters::{Cheater, Lie},
    clients::{Action, Manners, Step},
    faults::{CrashPoint, Fault, FaultKind},
    rates::Rates,
};
use self::{
    clients::{
        draw_insistence, draw_interrupted, draw_long_messages, draw_manners, draw_presigned, draw_set_back, draw_steps,
        draw_unheard, draw_unspoken,
    },
    faults::{draw_faults, draw_more_faults, draw_storm},
    rates::draw_rates,
};
use crate::{dice::Dice, planted::Planted};

/// One second in the unit of simulated time.
pub const SECOND: u64 = 1_000_000;
/// One hour in the unit of simulated time.
pub const HOUR: u64 = 3_600 * SECOND;
/// One millisecond in the unit of simulated time.
pub const MILLISECOND: u64 = 1_000;

/// Which protocols the cluster runs, and how hard it is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Ideal suites: very many scenarios.
    Ideal,
    /// Real protocols: DKLs23, or CGGMP24 at a toy security level, and FROST.
    Small,
    /// Ideal suites, and up to `n − t` nodes that cheat.
    Byzantine,
    /// Ideal suites: one cluster for days, with few faults an hour; nothing may grow.
    Soak,
    /// Ideal suites: nodes are restarted one by one and find records of an earlier version of the program.
    Upgrade,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ideal, Self::Small, Self::Byzantine, Self::Soak, Self::Upgrade];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ideal => "ideal",
            Self::Small => "small",
            Self::Byzantine => "byzantine",
            Self::Soak => "soak",
            Self::Upgrade => "upgrade",
        }
    }

    /// The profile of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }
}

/// How a node goes on for ever that is outside the core of the second phase and does not die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remains {
    /// It hears the others, and they do not hear it. It reaches the bus.
    Mute,
    /// It hears nobody, and the others hear it. It reaches the bus.
    Deaf,
    /// It stands still.
    Paused,
}

impl Remains {
    /// Its name, for counting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mute => "outside the core: mute",
            Self::Deaf => "outside the core: deaf",
            Self::Paused => "outside the core: paused",
        }
    }
}

/// A point of simulated time, in microseconds since the run began.
pub type At = u64;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Decides everything.
    pub seed: u64,
    /// Decides who the nodes and the clients are: the seed, unless they come from an earlier run.
    pub people: u64,
    /// Which protocols.
    pub profile: Profile,
    /// Nodes.
    pub nodes: usize,
    /// Nodes that sign together.
    pub threshold: usize,
    /// Seconds within which a signing request is answered.
    pub signing_deadline_s: u64,
    /// Seconds within which a key generation request is answered.
    pub keygen_deadline_s: u64,
    /// Milliseconds by which wall clocks may differ.
    pub clock_skew_ms: u64,
    /// How far each node's wall clock is off at first, in milliseconds.
    pub clock_offsets_ms: Vec<i64>,
    /// Signing requests that a coordinator runs at once.
    pub concurrent_signing: usize,
    /// Key generations that a coordinator runs at once.
    pub concurrent_keygen: usize,
    /// Presignatures that each node keeps ready per wallet and signers; then half of all ECDSA requests can use them.
    #[serde(default)]
    pub presignatures: usize,
    /// What clients do.
    pub steps: Vec<Step>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// What is always a little broken.
    pub rates: Rates,
    /// When the first phase ends: everything outside `core` is broken for ever, everything inside is healed.
    pub healed_at: At,
    /// Exactly `threshold` nodes, or all.
    pub core: Vec<usize>,
    /// What becomes of nodes outside it that do not die.
    #[serde(default)]
    pub remains: BTreeMap<usize, Remains>,
    /// When each node starts for the first time.
    pub starts: Vec<At>,
    /// How requests are signed.
    pub manners: Manners,
    /// Who cheats, and how.
    pub cheaters: Vec<Cheater>,
    /// More nodes cheat than answers survive, though fewer than a key does: nothing false may be published even so. They
    /// are honest once the world has healed.
    #[serde(default)]
    pub conspiracy: bool,
    /// Whether auxiliary data was made before the run.
    #[serde(default)]
    pub prepared: bool,
    /// Whether every pair of nodes has auxiliary data of its own.
    #[serde(default)]
    pub pairs: bool,
    /// What is wrong on purpose, to see whether the harness notices; never part of a scenario that was written down.
    #[serde(skip_deserializing)]
    pub planted: Option<Planted>,
    /// Steps that clients leave out, by their numbers: what is left keeps its number.
    pub without_steps: BTreeSet<usize>,
    /// Faults that do not happen, by their numbers.
    pub without_faults: BTreeSet<usize>,
    /// Another number lets chance in the world fall differently for one and the same scenario.
    pub luck: u64,
}

impl Scenario {
    /// Draws a run.
    #[must_use]
    pub fn draw(seed: u64, profile: Profile) -> Self {
        let mut dice = Dice::new(seed, "scenario");
        let dice = &mut dice;
        let sizes: &[usize] = match profile {
            Profile::Small => &[2, 3, 3, 3, 4],
            Profile::Byzantine => &[3, 3, 4, 4, 5, 5],
            Profile::Soak => &[3],
            // The effort grows with the square, and hardly anything needs many nodes to go wrong.
            _ => &[2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 6],
        };
        let mut nodes = dice.pick(sizes).copied().unwrap_or(3);
        if nodes == 6 && Dice::new(seed, "seventh node").chance(0.5) {
            nodes = 7;
        }
        let threshold = pick_number(dice, nodes / 2 + 1, nodes);
        let clock_skew_ms = dice.between(100, 5_000);
        let half = clock_skew_ms / 2;
        let clock_offsets_ms = (0..nodes).map(|_| offset(dice, half)).collect();
        let length = dice.between(15, 45) * SECOND;
        let calm = if dice.chance(0.7) { 6 * SECOND } else { 0 };
        let starts = (0..nodes).map(|_| dice.skewed(0, 3 * SECOND)).collect();
        let mut faults = draw_faults(dice, nodes, threshold, calm, length, half);
        let mut steps = draw_steps(dice, profile, length, &faults);
        let mut order: Vec<usize> = (0..nodes).collect();
        dice.shuffle(&mut order);
        // Rolled-back nodes may lack shares, so they are the ones that stay broken.
        order.sort_by_key(|node| rolled_back(&faults, *node));
        let everybody = dice.chance(0.4) && !order.iter().any(|node| rolled_back(&faults, *node));
        let mut core: Vec<usize> = order.into_iter().take(if everybody { nodes } else { threshold }).collect();
        core.sort_unstable();
        // Whatever came later draws from streams of its own, so that older draws stay what they were.
        let manners = draw_manners(&mut Dice::new(seed, "manners"), &mut steps);
        draw_more_faults(&mut Dice::new(seed, "more faults"), nodes, calm, length, &mut faults);
        draw_insistence(&mut Dice::new(seed, "insistence"), nodes, calm, length, &mut steps, &mut faults);
        let presignatures = pick_number(&mut Dice::new(seed, "presignatures"), 0, 7).saturating_sub(4);
        if presignatures > 0 {
            draw_presigned(&mut Dice::new(seed, "presigned"), nodes, calm, length, &mut steps, &mut faults);
        }
        draw_unheard(&mut Dice::new(seed, "unheard"), nodes, threshold, length, &mut steps, &mut faults);
        draw_long_messages(&mut Dice::new(seed, "long messages"), &mut steps);
        let spare = nodes - threshold - faults.iter().filter(|fault| fault.is_rollback()).count();
        let broken: Vec<usize> =
            (0..nodes).filter(|node| !core.contains(node) && !rolled_back(&faults, *node)).collect();
        if spare > 0
            && let Some(node) = broken.first()
        {
            draw_interrupted(&mut Dice::new(seed, "interrupted"), *node, nodes, calm, length, &mut steps, &mut faults);
        }
        draw_storm(&mut Dice::new(seed, "storm"), nodes, calm, length, &mut faults);
        let brought_back = threshold < nodes && faults.iter().any(Fault::is_rollback);
        if brought_back && Dice::new(seed, "brought back").chance(0.15) {
            // Whoever was put back is to be of use again.
            core = (0..nodes).collect();
        }
        let (size, time) = ((nodes, threshold), (calm, length));
        draw_set_back(&mut Dice::new(seed, "set back"), size, time, half, &mut steps, &mut faults);
        let unspoken = draw_unspoken(&mut Dice::new(seed, "unspoken"), length, &mut steps, &mut faults);
        let scenario = Self {
            seed,
            people: seed,
            profile,
            nodes,
            threshold,
            signing_deadline_s: dice.between(30, 60),
            keygen_deadline_s: unspoken.unwrap_or(dice.between(30, 90)),
            clock_skew_ms,
            clock_offsets_ms,
            concurrent_signing: pick_number(dice, 1, 20),
            concurrent_keygen: pick_number(dice, 1, 3),
            presignatures,
            steps,
            faults,
            rates: draw_rates(dice, profile),
            healed_at: length,
            core,
            remains: BTreeMap::new(),
            starts,
            manners,
            cheaters: Vec::new(),
            conspiracy: false,
            prepared: false,
            pairs: false,
            planted: None,
            without_steps: BTreeSet::new(),
            without_faults: BTreeSet::new(),
            luck: 0,
        };
        scenario.in_profile()
    }

    /// The same without what is left out: numbers are given anew.
    #[must_use]
    pub fn compact(mut self) -> Self {
        let without = std::mem::take(&mut self.without_faults);
        let mut number = 0..;
        self.faults.retain(|_| number.next().is_none_or(|number| !without.contains(&number)));
        let without = std::mem::take(&mut self.without_steps);
        // What repeats a step that is left out does nothing, so it goes as well.
        let stays = |at: usize, step: &Step| {
            !without.contains(&at) && step.action.repeats().is_none_or(|earlier| !without.contains(&earlier))
        };
        let stay: Vec<usize> = (0..self.steps.len()).filter(|at| stays(*at, &self.steps[*at])).collect();
        let mut steps: Vec<Step> = stay.iter().map(|at| self.steps[*at].clone()).collect();
        for step in &mut steps {
            if let Action::Again { action } | Action::OtherPayload { action } = &mut step.action {
                *action = stay.binary_search(action).unwrap_or(*action);
            }
        }
        self.steps = steps;
        self
    }

    /// Whether a node is alive in the second phase.
    #[must_use]
    pub fn in_core(&self, node: usize) -> bool {
        self.core.contains(&node)
    }
}

/// Whether a node's disk is ever put back.
fn rolled_back(faults: &[Fault], node: usize) -> bool {
    faults.iter().any(|f| matches!(f.kind, FaultKind::Rollback { node: other, .. } if other == node))
}

fn pick_number(dice: &mut Dice, low: usize, high: usize) -> usize {
    usize::try_from(dice.between(low as u64, high as u64)).unwrap_or(low)
}

fn offset(dice: &mut Dice, half: u64) -> i64 {
    let away = i64::try_from(dice.between(0, half)).unwrap_or(0);
    if dice.chance(0.5) { away } else { -away }
}

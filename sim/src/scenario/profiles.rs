//! What the profiles make of a drawn run: days instead of minutes, or a cluster that an earlier version left.

use super::{
    Action, Fault, FaultKind, HOUR, Manners, Profile, Rates, Remains, SECOND, Scenario, Step, clients::draw_manners,
    faults::draw_fault, pick_number,
};
use crate::dice::Dice;

/// Decides who the nodes are that have auxiliary data before the run.
const PREPARED: u64 = 20_261_128;

impl Scenario {
    /// Turns what was drawn into what the profile is about.
    pub(super) fn in_profile(mut self) -> Self {
        let hurry = &mut Dice::new(self.seed, "hurry");
        if hurry.chance(0.15) {
            // Deadlines that pass while something runs.
            self.signing_deadline_s = hurry.between(4, 12);
        }
        let hurry = &mut Dice::new(self.seed, "hurried wallets");
        if hurry.chance(0.1) {
            self.keygen_deadline_s = hurry.between(5, 12);
        }
        let careless = &mut Dice::new(self.seed, "lost requests");
        // A stream that is replicated without waiting loses what was acknowledged when its leader dies.
        self.rates.request_lost = if careless.chance(0.1) { careless.skewed(20, 400) } else { 0 };
        // Even a network that works loses something now and then.
        self.rates.healed_loss = if hurry.chance(0.3) { hurry.between(5, 60) } else { 0 };
        match self.profile {
            Profile::Soak => self.draw_soak(),
            Profile::Upgrade => self.draw_upgrade(),
            Profile::Small => self.draw_prepared(),
            Profile::Ideal | Profile::Byzantine => {}
        }
        if self.profile == Profile::Byzantine {
            self.draw_cheaters();
            self.draw_pairs();
            self.draw_zeal();
            self.draw_splits();
            self.draw_babble();
            if self.cheated_core() {
                // Attempts with those that cheat take time before others are chosen.
                self.signing_deadline_s = self.signing_deadline_s.max(45);
            }
        }
        self.draw_remains();
        self
    }

    /// Not everything that is of no use is dead: honest nodes outside the core may go on without being heard.
    fn draw_remains(&mut self) {
        let dice = &mut Dice::new(self.seed, "remains");
        for node in 0..self.nodes {
            let how = dice.pick(&[Remains::Mute, Remains::Deaf, Remains::Paused]).copied();
            if dice.chance(0.3)
                && !self.in_core(node)
                && !self.is_cheater(node)
                && let Some(how) = how
            {
                self.remains.insert(node, how);
            }
        }
    }

    /// One cluster for days: an operation every few minutes, about two faults an hour.
    pub(super) fn draw_soak(&mut self) {
        let dice = &mut Dice::new(self.seed, "soak");
        let length = dice.between(20, 28) * HOUR;
        (self.nodes, self.threshold, self.core) = (3, 2, vec![0, 1, 2]);
        (self.signing_deadline_s, self.keygen_deadline_s) = (60, 90);
        self.steps = vec![Step::new(10 * SECOND, Action::Keygen { wallet: 0 })];
        let (mut at, mut wallets) = (60 * SECOND, 1);
        while at < length - 600 * SECOND {
            let number = self.steps.len();
            let action = match dice.below(40) {
                0 => {
                    wallets += 1;
                    Action::Keygen { wallet: wallets - 1 }
                }
                1 => Action::Again { action: pick_number(dice, 0, number - 1) },
                2 => Action::Sign { wallet: 500, ecdsa: dice.chance(0.5), transaction: 500 + number, length: 32 },
                _ => Action::Sign {
                    wallet: pick_number(dice, 0, wallets - 1),
                    ecdsa: dice.chance(0.5),
                    transaction: number,
                    length: 32,
                },
            };
            self.steps.push(Step::new(at, action));
            at += dice.skewed(SECOND, 900 * SECOND);
        }
        draw_manners(dice, &mut self.steps);
        self.faults.clear();
        let mut at = 600 * SECOND;
        while at < length - 900 * SECOND {
            let until = (at + dice.skewed(SECOND, 300 * SECOND)).min(length - 600 * SECOND);
            let fault = draw_fault(dice, self.nodes, at, self.clock_skew_ms / 2, &mut 0);
            self.faults.push(Fault { from: at, until, kind: fault });
            at += dice.between(60 * SECOND, HOUR);
        }
        self.rates = Rates { compute: self.rates.compute, write: self.rates.write, ..Rates::quiet() };
        self.healed_at = length;
    }

    /// The cluster that an earlier version left, restarted node by node while clients go on.
    pub(super) fn draw_upgrade(&mut self) {
        let dice = &mut Dice::new(self.seed, "upgrade");
        let frozen = Self::to_freeze();
        self.people = frozen.people;
        (self.nodes, self.threshold) = (frozen.nodes, frozen.threshold);
        self.manners = frozen.manners;
        let nodes = self.nodes;
        self.faults.retain(|fault| !matches!(fault.kind, FaultKind::Rollback { .. }) && fault.kind.fits(nodes));
        self.starts.resize(nodes, SECOND);
        self.clock_offsets_ms.resize(nodes, 0);
        let mut order: Vec<usize> = (0..nodes).collect();
        dice.shuffle(&mut order);
        let (from, until) = (8 * SECOND, self.healed_at - 2 * SECOND);
        self.faults.push(Fault { from, until, kind: FaultKind::RollingRestart { order: order.clone() } });
        for step in &mut self.steps {
            // Other ids than those that were used before.
            if let Action::Sign { transaction, .. } = &mut step.action {
                *transaction += 10_000;
            }
        }
        // Requests of old times, once more.
        for _ in 0..dice.between(2, 8) {
            let action = Action::Old { number: pick_number(dice, 0, 1_000) };
            self.steps.push(Step::new(dice.between(5 * SECOND, until), action));
        }
        self.core =
            if dice.chance(0.5) { (0..nodes).collect() } else { order.into_iter().take(self.threshold).collect() };
        self.core.sort_unstable();
    }

    /// Mostly auxiliary data is there already: to make it under faults costs many times what all the rest does, and the
    /// more the more nodes there are.
    fn draw_prepared(&mut self) {
        let unprepared = match self.nodes {
            2 => 0.3,
            3 => 0.08,
            _ => 0.02,
        };
        self.prepared = !Dice::new(self.seed, "prepared").chance(unprepared);
        if self.prepared {
            self.people = PREPARED;
        }
    }

    /// A quiet run with real protocols, by which auxiliary data is made.
    #[must_use]
    pub fn to_prepare(seed: u64, nodes: usize) -> Self {
        let mut scenario = Self::draw(seed, Profile::Small).calmed();
        (scenario.prepared, scenario.people) = (false, PREPARED);
        (scenario.nodes, scenario.threshold, scenario.core) = (nodes, nodes / 2 + 1, (0..nodes).collect());
        (scenario.starts, scenario.clock_offsets_ms) = (vec![0; nodes], vec![0; nodes]);
        (scenario.presignatures, scenario.healed_at) = (0, 20 * SECOND);
        scenario.steps.clear();
        scenario
    }

    /// The same cluster in a world in which nothing breaks, with time for everything.
    fn calmed(mut self) -> Self {
        self.faults.clear();
        self.rates = Rates { compute: 1_000, write: 1_000, ..Rates::quiet() };
        (self.signing_deadline_s, self.keygen_deadline_s) = (60, 90);
        self
    }

    /// The run whose end is frozen: a quiet one, with everything that leaves records.
    #[must_use]
    pub fn to_freeze() -> Self {
        let mut scenario = Self::draw(crate::frozen::SEED, Profile::Ideal).calmed();
        (scenario.nodes, scenario.threshold, scenario.core) = (3, 2, vec![0, 1, 2]);
        scenario.manners = Manners { p256: true, authorizers: 1 };
        scenario.starts = vec![0; 3];
        scenario.clock_offsets_ms = vec![0; 3];
        let mut steps: Vec<Step> =
            (0..4).map(|wallet| Step::new((1 + wallet as u64) * SECOND, Action::Keygen { wallet })).collect();
        for transaction in 0..24 {
            let wallet = if transaction % 8 == 7 { 500 } else { transaction % 4 };
            let action = Action::Sign { wallet, ecdsa: transaction % 2 == 0, transaction, length: 32 };
            let path =
                if transaction % 3 == 0 { vec![44, 60, u32::try_from(transaction).unwrap_or(0)] } else { vec![] };
            steps.push(Step { path, ..Step::new((10 + transaction as u64) * SECOND, action) });
        }
        scenario.steps = steps;
        scenario.healed_at = 45 * SECOND;
        scenario
    }
}

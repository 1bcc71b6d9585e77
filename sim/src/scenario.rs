//! What happens in one run, drawn from its seed as plain data: the cluster, what clients ask, what breaks and when.
//!
//! Faults stay within what the protocol promises to survive: any number of crashes and any partition may delay, but
//! rolled-back disks are at most `n − t`, and clocks differ by at most the configured skew.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{dice::Dice, planted::Planted};

/// One second in the unit of simulated time.
pub const SECOND: u64 = 1_000_000;
/// One hour in the unit of simulated time.
pub const HOUR: u64 = 3_600 * SECOND;
/// One millisecond in the unit of simulated time.
pub const MILLISECOND: u64 = 1_000;

/// Which protocols the cluster runs, and how hard it is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Ideal suites: very many scenarios.
    Ideal,
    /// Real CGGMP24 at the toy security level and real FROST.
    Small,
    /// Ideal suites, and up to `t − 1` nodes that cheat.
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

/// A point of simulated time, in microseconds since the run began.
pub type At = u64;

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Asks for a wallet.
    Keygen {
        /// Its number.
        wallet: usize,
    },
    /// Asks for a signature.
    Sign {
        /// The wallet's number; it may not exist.
        wallet: usize,
        /// On secp256k1, not Ed25519.
        ecdsa: bool,
        /// The transaction's number.
        transaction: usize,
        /// Bytes of the message on Ed25519.
        length: usize,
    },
    /// Publishes an earlier action's request once more, unchanged.
    Again {
        /// The index of the earlier action.
        action: usize,
    },
    /// The same transaction id with another message.
    OtherPayload {
        /// The index of the earlier action.
        action: usize,
    },
    /// A wallet is asked for with a signature that is not the initiator's.
    ForgedKeygen {
        /// A number that no honest request uses.
        wallet: usize,
    },
    /// A signature is asked for with a signature that is not the initiator's.
    ForgedSign {
        /// The wallet's number.
        wallet: usize,
        /// On secp256k1, not Ed25519.
        ecdsa: bool,
        /// A number that no honest request uses.
        transaction: usize,
    },
    /// A request that the cluster answered before the run began, unchanged.
    Old {
        /// Its number among them, modulo their number.
        number: usize,
    },
    /// Something that is no request.
    Garbage,
}

/// An action and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When.
    pub at: At,
    /// What.
    pub action: Action,
    /// The client's name in the request's header.
    pub client: Option<&'static str>,
    /// Child key indices of a signing request.
    pub path: Vec<u32>,
    /// Whether the authorizers have signed.
    pub approved: bool,
}

impl Step {
    fn new(at: At, action: Action) -> Self {
        Self { at, action, client: None, path: Vec::new(), approved: true }
    }
}

/// How requests are signed in this cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Manners {
    /// The initiator's key is of P-256, not Ed25519.
    pub p256: bool,
    /// Authorizers whose approval every request needs.
    pub authorizers: usize,
}

/// Where in a write a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum CrashPoint {
    /// Before anything of the batch reaches the disk.
    Before,
    /// In the middle of the batch: the engine throws away what it finds of it.
    Torn,
    /// After the write, before the sync: the batch survives or not.
    Written,
    /// After the sync, before the node learns of it.
    Synced,
}

/// What breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum FaultKind {
    /// A node is dead for the duration.
    Kill {
        /// Which node.
        node: usize,
    },
    /// Every node dies in the same instant and stays dead for the duration.
    Blackout,
    /// A node stands still for the duration, then goes on.
    Pause {
        /// Which node.
        node: usize,
    },
    /// A node dies at one of its next writes and stays dead for the rest of the duration.
    CrashAtWrite {
        /// Which node.
        node: usize,
        /// Writes that still succeed.
        after: u64,
        /// Where in the write.
        point: CrashPoint,
    },
    /// A write fails: the node stops, and starts again when the duration is over.
    DiskError {
        /// Which node.
        node: usize,
    },
    /// Writes and reads take long.
    DiskSlow {
        /// Which node.
        node: usize,
    },
    /// A node is dead for the duration and comes back with the disk as it was at the time `backup`.
    Rollback {
        /// Which node.
        node: usize,
        /// When its backup was made.
        backup: At,
    },
    /// Nothing reaches or leaves a node; peers and bus alike.
    Isolate {
        /// Which node.
        node: usize,
    },
    /// Peers cannot reach each other across the cut; the bus still reaches all.
    Split {
        /// Nodes on one side.
        side: Vec<usize>,
    },
    /// Datagrams are lost in these directions only.
    OneWay {
        /// From and to.
        directions: Vec<(usize, usize)>,
    },
    /// Nodes are isolated one after the other and come back in another order.
    Swizzle {
        /// Order of leaving.
        leave: Vec<usize>,
        /// Order of coming back.
        back: Vec<usize>,
    },
    /// Many datagrams are lost.
    Loss {
        /// In thousandths.
        per_mille: u64,
    },
    /// Datagrams take longer.
    Delay {
        /// At most this much, in microseconds.
        longest: u64,
    },
    /// Deliveries stop although the node believes that it is subscribed.
    StalledQueue,
    /// The queue forgets which deliveries are out and delivers all of them again at once, as after a change of leader:
    /// two nodes work on one request.
    QueueFailover,
    /// Queue and results cannot be reached by anybody.
    BusOutage,
    /// A node's wall clock jumps (within the allowed skew).
    ClockJump {
        /// Which node.
        node: usize,
        /// Milliseconds from true time.
        offset: i64,
    },
    /// Discovery lists nobody or only some.
    Discovery {
        /// Whose view.
        node: usize,
    },
    /// Computations take fifty times as long.
    Slow {
        /// Which node.
        node: usize,
    },
    /// Every write fails: the node stops, and stops again whenever it is started before the duration is over.
    DiskFull {
        /// Which node.
        node: usize,
    },
    /// Nodes are stopped in good order, one after the other, and started again after a while.
    RollingRestart {
        /// In which order.
        order: Vec<usize>,
    },
}

impl FaultKind {
    /// Whether it names only nodes of a cluster of this size.
    fn fits(&self, nodes: usize) -> bool {
        match self {
            Self::Kill { node }
            | Self::Pause { node }
            | Self::CrashAtWrite { node, .. }
            | Self::DiskError { node }
            | Self::DiskSlow { node }
            | Self::Rollback { node, .. }
            | Self::Isolate { node }
            | Self::ClockJump { node, .. }
            | Self::Discovery { node }
            | Self::Slow { node }
            | Self::DiskFull { node } => *node < nodes,
            Self::Split { side: among }
            | Self::Swizzle { leave: among, .. }
            | Self::RollingRestart { order: among } => among.iter().all(|node| *node < nodes),
            Self::OneWay { directions } => directions.iter().all(|(from, to)| *from < nodes && *to < nodes),
            Self::Blackout
            | Self::Loss { .. }
            | Self::Delay { .. }
            | Self::StalledQueue
            | Self::QueueFailover
            | Self::BusOutage => true,
        }
    }

    /// Its kind, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Blackout => "blackout",
            Self::Pause { .. } => "pause",
            Self::CrashAtWrite { point: CrashPoint::Before, .. } => "crash before write",
            Self::CrashAtWrite { point: CrashPoint::Torn, .. } => "crash, torn write",
            Self::CrashAtWrite { point: CrashPoint::Written, .. } => "crash before sync",
            Self::CrashAtWrite { point: CrashPoint::Synced, .. } => "crash after sync",
            Self::DiskError { .. } => "disk error",
            Self::DiskSlow { .. } => "slow disk",
            Self::Rollback { .. } => "rollback",
            Self::Isolate { .. } => "isolation",
            Self::Split { .. } => "split",
            Self::OneWay { .. } => "one-way partition",
            Self::Swizzle { .. } => "swizzle",
            Self::Loss { .. } => "loss",
            Self::Delay { .. } => "delay",
            Self::StalledQueue => "stalled queue",
            Self::QueueFailover => "queue failover",
            Self::BusOutage => "bus outage",
            Self::ClockJump { .. } => "clock jump",
            Self::Discovery { .. } => "discovery",
            Self::Slow { .. } => "slow processor",
            Self::DiskFull { .. } => "full disk",
            Self::RollingRestart { .. } => "rolling restart",
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// When it begins.
    pub from: At,
    /// When it ends.
    pub until: At,
    /// What it is.
    pub kind: FaultKind,
}

/// A lie that a cheating node tells, validly sealed, for as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
}

impl Lie {
    /// All of them.
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
        }
    }
}

/// A node that cheats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cheater {
    /// Which.
    pub node: usize,
    /// What it does, in thousandths of the messages that the lie fits.
    pub lies: BTreeMap<Lie, u64>,
}

/// Rates that hold throughout the first phase. In thousandths unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Datagrams lost.
    pub loss: u64,
    /// Datagrams lost after healing.
    pub healed_loss: u64,
    /// Datagrams delivered twice.
    pub duplicate: u64,
    /// Datagrams of which a copy with a flipped bit is delivered as well.
    pub corrupt: u64,
    /// Datagrams after which an old one is delivered again.
    pub replay: u64,
    /// Datagrams that take twenty times as long.
    pub late: u64,
    /// Least and most microseconds of a datagram's way.
    pub latency: (u64, u64),
    /// Settlements that the queue never sees.
    pub settlement_lost: u64,
    /// Acknowledgements of publications that get lost.
    pub publication_lost: u64,
    /// Deliveries that never arrive.
    pub delivery_lost: u64,
    /// Most microseconds of a write until it is durable.
    pub write: u64,
    /// Most microseconds of a computation.
    pub compute: u64,
}

impl Rates {
    /// Nothing breaks by itself.
    fn quiet() -> Self {
        Self {
            loss: 0,
            healed_loss: 0,
            duplicate: 0,
            corrupt: 0,
            replay: 0,
            late: 0,
            latency: (200, 2 * MILLISECOND),
            settlement_lost: 0,
            publication_lost: 0,
            delivery_lost: 0,
            write: MILLISECOND,
            compute: MILLISECOND,
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// What clients do.
    pub steps: Vec<Step>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// What is always a little broken.
    pub rates: Rates,
    /// When the first phase ends: everything outside `core` is dead for ever, everything inside is healed.
    pub healed_at: At,
    /// Exactly `threshold` nodes, or all.
    pub core: Vec<usize>,
    /// When each node starts for the first time.
    pub starts: Vec<At>,
    /// How requests are signed.
    pub manners: Manners,
    /// Who cheats, and how.
    pub cheaters: Vec<Cheater>,
    /// What is wrong on purpose, to see whether the harness notices.
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
            _ => &[2, 3, 3, 3, 4, 4, 5, 5, 6, 7],
        };
        let nodes = dice.pick(sizes).copied().unwrap_or(3);
        let threshold = pick_number(dice, nodes / 2 + 1, nodes);
        let clock_skew_ms = dice.between(100, 5_000);
        let half = clock_skew_ms / 2;
        let clock_offsets_ms = (0..nodes).map(|_| offset(dice, half)).collect();
        let length = dice.between(15, 60) * SECOND;
        let calm = if dice.chance(0.7) { 6 * SECOND } else { 0 };
        let starts = (0..nodes).map(|_| dice.skewed(0, 3 * SECOND)).collect();
        let mut faults = draw_faults(dice, nodes, threshold, calm, length, half);
        let mut steps = draw_steps(dice, profile, length, &faults);
        let rolled_back = |node: usize| {
            faults.iter().any(|f| matches!(f.kind, FaultKind::Rollback { node: other, .. } if other == node))
        };
        let mut order: Vec<usize> = (0..nodes).collect();
        dice.shuffle(&mut order);
        // Rolled-back nodes may lack shares, so they are the ones that stay broken.
        order.sort_by_key(|node| rolled_back(*node));
        let everybody = dice.chance(0.4) && !order.iter().any(|node| rolled_back(*node));
        let mut core: Vec<usize> = order.into_iter().take(if everybody { nodes } else { threshold }).collect();
        core.sort_unstable();
        // Whatever came later draws from streams of its own, so that older draws stay what they were.
        let manners = draw_manners(&mut Dice::new(seed, "manners"), &mut steps);
        draw_more_faults(&mut Dice::new(seed, "more faults"), nodes, calm, length, &mut faults);
        draw_insistence(&mut Dice::new(seed, "insistence"), nodes, calm, length, &mut steps, &mut faults);
        let scenario = Self {
            seed,
            people: seed,
            profile,
            nodes,
            threshold,
            signing_deadline_s: dice.between(30, 60),
            keygen_deadline_s: dice.between(30, 90),
            clock_skew_ms,
            clock_offsets_ms,
            concurrent_signing: pick_number(dice, 1, 20),
            concurrent_keygen: pick_number(dice, 1, 3),
            steps,
            faults,
            rates: draw_rates(dice, profile),
            healed_at: length,
            core,
            starts,
            manners,
            cheaters: Vec::new(),
            planted: None,
            without_steps: BTreeSet::new(),
            without_faults: BTreeSet::new(),
            luck: 0,
        };
        scenario.in_profile()
    }

    /// Turns what was drawn into what the profile is about.
    fn in_profile(mut self) -> Self {
        let hurry = &mut Dice::new(self.seed, "hurry");
        if hurry.chance(0.15) {
            // Deadlines that pass while something runs.
            self.signing_deadline_s = hurry.between(4, 12);
        }
        // Even a network that works loses something now and then.
        self.rates.healed_loss = if hurry.chance(0.3) { hurry.between(5, 60) } else { 0 };
        match self.profile {
            Profile::Soak => self.draw_soak(),
            Profile::Upgrade => self.draw_upgrade(),
            Profile::Ideal | Profile::Small | Profile::Byzantine => {}
        }
        if self.profile == Profile::Byzantine {
            self.draw_cheaters();
            if self.cheated_core() {
                // Attempts with those that cheat take time before others are chosen.
                self.signing_deadline_s = self.signing_deadline_s.max(45);
            }
        }
        self
    }

    /// One cluster for days: an operation every few minutes, about two faults an hour.
    fn draw_soak(&mut self) {
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
    fn draw_upgrade(&mut self) {
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

    /// The run whose end is frozen: a quiet one, with everything that leaves records.
    #[must_use]
    pub fn to_freeze() -> Self {
        let mut scenario = Self::draw(crate::frozen::SEED, Profile::Ideal);
        (scenario.nodes, scenario.threshold, scenario.core) = (3, 2, vec![0, 1, 2]);
        scenario.manners = Manners { p256: true, authorizers: 1 };
        scenario.faults.clear();
        scenario.rates = Rates { compute: 1_000, write: 1_000, ..Rates::quiet() };
        scenario.starts = vec![0; 3];
        scenario.clock_offsets_ms = vec![0; 3];
        (scenario.signing_deadline_s, scenario.keygen_deadline_s) = (60, 90);
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

    /// At most `n − t` nodes cheat, which is fewer than `t`: what is promised holds whatever they do.
    fn draw_cheaters(&mut self) {
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
        // Cheaters count against what may be rolled back.
        self.faults.retain(|fault| !matches!(fault.kind, FaultKind::Rollback { .. }));
        let honest = (0..self.nodes).filter(|node| !self.is_cheater(*node));
        // They go on cheating in a core of all, or are gone.
        self.core = if dice.chance(0.4) { (0..self.nodes).collect() } else { honest.take(self.threshold).collect() };
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

    /// Whether a node is alive in the second phase.
    #[must_use]
    pub fn in_core(&self, node: usize) -> bool {
        self.core.contains(&node)
    }
}

fn pick_number(dice: &mut Dice, low: usize, high: usize) -> usize {
    usize::try_from(dice.between(low as u64, high as u64)).unwrap_or(low)
}

fn offset(dice: &mut Dice, half: u64) -> i64 {
    let away = i64::try_from(dice.between(0, half)).unwrap_or(0);
    if dice.chance(0.5) { away } else { -away }
}

fn draw_rates(dice: &mut Dice, profile: Profile) -> Rates {
    // Half of all runs have a tidy network, so that crashes are seen without its noise.
    let noisy = dice.chance(0.5);
    let mut rate = |most: u64| if noisy && dice.chance(0.6) { dice.skewed(1, most) } else { 0 };
    let (loss, duplicate, corrupt, replay, late) = (rate(200), rate(200), rate(30), rate(50), rate(100));
    let (settlement_lost, publication_lost, delivery_lost) = (rate(300), rate(300), rate(200));
    let least = dice.between(100, 2_000);
    let compute = match profile {
        Profile::Small => 500 * MILLISECOND,
        _ => 100 * MILLISECOND,
    };
    Rates {
        loss,
        healed_loss: 0,
        duplicate,
        corrupt,
        replay,
        late,
        latency: (least, least + dice.skewed(100, 50 * MILLISECOND)),
        settlement_lost,
        publication_lost,
        delivery_lost,
        write: dice.skewed(100, 20 * MILLISECOND),
        compute: dice.skewed(100, compute),
    }
}

/// A moment at which clients ask for something: mostly around the beginning of a fault, where work is interrupted.
fn moment(dice: &mut Dice, earliest: At, length: At, faults: &[Fault]) -> At {
    let latest = length - SECOND;
    match dice.pick(faults) {
        Some(fault) if dice.chance(0.6) => {
            (fault.from + dice.between(0, 3 * SECOND)).saturating_sub(SECOND).clamp(earliest, latest)
        }
        _ => dice.between(earliest, latest),
    }
}

fn draw_steps(dice: &mut Dice, profile: Profile, length: At, faults: &[Fault]) -> Vec<Step> {
    let (most, wallets) = match profile {
        Profile::Small => (5, pick_number(dice, 1, 2)),
        _ => (14, pick_number(dice, 1, 4)),
    };
    let mut made = vec![dice.between(100 * MILLISECOND, 4 * SECOND)];
    for _ in 1..wallets {
        made.push(moment(dice, SECOND, length, faults));
    }
    let mut steps: Vec<Step> = (0..wallets).map(|wallet| Step::new(made[wallet], Action::Keygen { wallet })).collect();
    let count = dice.between(2, most);
    let mut transaction = 0;
    for _ in 0..count {
        let at = moment(dice, 3 * SECOND, length, faults);
        // Mostly a wallet that may exist by then.
        let asked: Vec<usize> = (0..wallets).filter(|wallet| made[*wallet] + SECOND < at).collect();
        let any = pick_number(dice, 0, wallets - 1);
        let wallet = dice.pick(&asked).copied().filter(|_| dice.chance(0.9)).unwrap_or(any);
        let earlier: Vec<usize> =
            (0..steps.len()).filter(|i| matches!(steps[*i].action, Action::Sign { .. })).collect();
        let any_earlier = pick_number(dice, 0, steps.len() - 1);
        let action = match dice.below(100) {
            0..=9 if matches!(steps[any_earlier].action, Action::Keygen { .. } | Action::Sign { .. }) => {
                Action::Again { action: any_earlier }
            }
            10..=14 if !earlier.is_empty() => {
                Action::OtherPayload { action: dice.pick(&earlier).copied().unwrap_or_default() }
            }
            15..=17 => Action::ForgedKeygen { wallet: 1_000 + steps.len() },
            18..=21 => Action::ForgedSign { wallet, ecdsa: dice.chance(0.5), transaction: 1_000 + steps.len() },
            22..=23 => Action::Garbage,
            24..=26 => {
                Action::Sign { wallet: 500, ecdsa: dice.chance(0.5), transaction: 500 + steps.len(), length: 32 }
            }
            _ => {
                transaction += 1;
                let length = if dice.chance(0.2) { pick_number(dice, 0, 3_000) } else { 32 };
                Action::Sign { wallet, ecdsa: dice.chance(0.5), transaction, length }
            }
        };
        steps.push(Step::new(at, action));
    }
    steps
}

fn draw_faults(dice: &mut Dice, nodes: usize, threshold: usize, calm: At, length: At, half: u64) -> Vec<Fault> {
    let count = match dice.below(10) {
        0 => 0,
        1..=4 => dice.between(1, 4),
        5..=8 => dice.between(4, 12),
        // Hardly ever is anything whole: what survives this has been through everything.
        _ => dice.between(12, 30),
    };
    let mut rollbacks = nodes - threshold;
    let mut faults = Vec::new();
    for _ in 0..count {
        let from = dice.between(calm, length - 2 * SECOND);
        // Long enough to be noticed, short enough to end within the phase.
        let until = (from + dice.skewed(SECOND, 25 * SECOND)).min(length - SECOND);
        let kind = draw_fault(dice, nodes, from, half, &mut rollbacks);
        faults.push(Fault { from, until, kind });
    }
    faults
}

/// One fault that begins at `from`; `half` the clock skew; as long as `rollbacks` are left.
fn draw_fault(dice: &mut Dice, nodes: usize, from: At, half: u64, rollbacks: &mut usize) -> FaultKind {
    let node = pick_number(dice, 0, nodes - 1);
    match dice.below(23) {
        0..=2 => FaultKind::Kill { node },
        3 => FaultKind::Pause { node },
        4..=7 => FaultKind::CrashAtWrite {
            node,
            after: dice.skewed(0, 12),
            point: dice
                .pick(&[CrashPoint::Before, CrashPoint::Torn, CrashPoint::Written, CrashPoint::Synced])
                .copied()
                .unwrap_or(CrashPoint::Written),
        },
        8 => FaultKind::DiskError { node },
        9 => FaultKind::DiskSlow { node },
        10 if *rollbacks > 0 => {
            *rollbacks -= 1;
            FaultKind::Rollback { node, backup: dice.between(0, from) }
        }
        11 => FaultKind::Isolate { node },
        12 => FaultKind::Split { side: (0..nodes).filter(|_| dice.chance(0.5)).collect() },
        13 => {
            let mut directions = Vec::new();
            for a in 0..nodes {
                for b in 0..nodes {
                    if a != b && dice.chance(0.3) {
                        directions.push((a, b));
                    }
                }
            }
            FaultKind::OneWay { directions }
        }
        14 => {
            let mut leave: Vec<usize> = (0..nodes).collect();
            dice.shuffle(&mut leave);
            let mut back = leave.clone();
            dice.shuffle(&mut back);
            FaultKind::Swizzle { leave, back }
        }
        15 if dice.chance(0.5) => FaultKind::Loss { per_mille: dice.between(100, 900) },
        15 => FaultKind::Delay { longest: dice.between(100 * MILLISECOND, 3 * SECOND) },
        16 if dice.chance(0.5) => FaultKind::StalledQueue,
        16 => FaultKind::BusOutage,
        17 => FaultKind::ClockJump { node, offset: offset(dice, half) },
        18 => FaultKind::Discovery { node },
        19 => FaultKind::Blackout,
        20 | 21 => FaultKind::QueueFailover,
        _ => FaultKind::Slow { node },
    }
}

/// Names that clients give themselves.
const CLIENTS: [&str; 3] = ["alice", "bob", "treasury-2"];

fn draw_manners(dice: &mut Dice, steps: &mut [Step]) -> Manners {
    let manners =
        Manners { p256: dice.chance(0.3), authorizers: if dice.chance(0.25) { pick_number(dice, 1, 2) } else { 0 } };
    for step in steps {
        step.client = CLIENTS.get(pick_number(dice, 0, 2 * CLIENTS.len())).copied();
        if dice.chance(0.25) {
            let levels = dice.between(1, 3);
            step.path = (0..levels).map(|_| u32::try_from(dice.below(1 << 31)).unwrap_or(0)).collect();
        }
        step.approved = dice.chance(0.9);
    }
    manners
}

fn draw_more_faults(dice: &mut Dice, nodes: usize, calm: At, length: At, faults: &mut Vec<Fault>) {
    if !dice.chance(0.4) {
        return;
    }
    for _ in 0..dice.between(1, 3) {
        let from = dice.between(calm, length - 2 * SECOND);
        let until = (from + dice.skewed(SECOND, 25 * SECOND)).min(length - SECOND);
        let kind = match dice.below(5) {
            0 => FaultKind::DiskFull { node: pick_number(dice, 0, nodes - 1) },
            1 | 2 => {
                let mut order: Vec<usize> = (0..nodes).collect();
                dice.shuffle(&mut order);
                FaultKind::RollingRestart { order }
            }
            3 => FaultKind::StalledQueue,
            _ => FaultKind::QueueFailover,
        };
        faults.push(Fault { from, until, kind });
    }
}

/// Some clients do not wait: they ask again and again while the node that signs for them crashes, and the queue gives
/// their requests to several nodes. Then attempts of several coordinators meet.
fn draw_insistence(
    dice: &mut Dice,
    nodes: usize,
    calm: At,
    length: At,
    steps: &mut Vec<Step>,
    faults: &mut Vec<Fault>,
) {
    if !dice.chance(0.2) {
        return;
    }
    let latest = length - SECOND;
    for action in 0..steps.len() {
        if !matches!(steps[action].action, Action::Sign { .. }) || dice.chance(0.4) {
            continue;
        }
        let at = steps[action].at;
        for _ in 0..dice.between(1, 4) {
            let again = Step { at: (at + dice.skewed(1, 8 * SECOND)).min(latest), ..steps[action].clone() };
            steps.push(Step { action: Action::Again { action }, ..again });
        }
        let from = (at + dice.skewed(0, 2 * SECOND)).max(calm).min(length - 2 * SECOND);
        let until = (from + dice.skewed(SECOND, 5 * SECOND)).min(latest);
        let node = pick_number(dice, 0, nodes - 1);
        let point = dice.pick(&[CrashPoint::Written, CrashPoint::Synced]).copied().unwrap_or(CrashPoint::Synced);
        faults.push(Fault { from, until, kind: FaultKind::QueueFailover });
        faults.push(Fault { from, until, kind: FaultKind::CrashAtWrite { node, after: dice.below(3), point } });
        if dice.chance(0.5) {
            faults.push(Fault { from, until, kind: FaultKind::Loss { per_mille: dice.between(200, 600) } });
        }
    }
}

//! What breaks: every kind of fault, and how many of which are drawn. Faults stay within what the protocol promises to
//! survive.

use serde::{Deserialize, Serialize};

use super::{At, MILLISECOND, SECOND, offset, pick_number};
use crate::dice::Dice;

/// Where in a write a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// A node that has just prepared a wallet hears nothing more from the others, for the rest of the duration. They
    /// hear it, so the wallet is decided without its knowledge; and the bus reaches it, so it is asked for the wallet.
    Deaf {
        /// Which node.
        node: usize,
    },
    /// The first node that votes for a session in a ballot of its own is heard by no other from then on, for the rest of
    /// the duration. It has asked them for their votes and hears them: it knows what was decided, and they do not.
    Mute,
    /// Every datagram arrives many times: the network has a loop.
    Storm {
        /// How often.
        copies: u64,
    },
    /// Nodes are stopped in good order, one after the other, and started again after a while.
    RollingRestart {
        /// In which order.
        order: Vec<usize>,
    },
}

impl FaultKind {
    /// Whether it names only nodes of a cluster of this size.
    pub(super) fn fits(&self, nodes: usize) -> bool {
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
            | Self::DiskFull { node }
            | Self::Deaf { node } => *node < nodes,
            Self::Split { side: among }
            | Self::Swizzle { leave: among, .. }
            | Self::RollingRestart { order: among } => among.iter().all(|node| *node < nodes),
            Self::OneWay { directions } => directions.iter().all(|(from, to)| *from < nodes && *to < nodes),
            Self::Blackout
            | Self::Loss { .. }
            | Self::Delay { .. }
            | Self::Storm { .. }
            | Self::Mute
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
            Self::Deaf { .. } => "deaf",
            Self::Mute => "mute",
            Self::Storm { .. } => "storm",
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub from: At,
    /// When it ends.
    pub until: At,
    /// What it is.
    pub kind: FaultKind,
}

pub(super) fn draw_faults(
    dice: &mut Dice,
    nodes: usize,
    threshold: usize,
    calm: At,
    length: At,
    half: u64,
) -> Vec<Fault> {
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

impl Fault {
    /// Whether a disk is put back.
    pub(super) fn is_rollback(&self) -> bool {
        matches!(self.kind, FaultKind::Rollback { .. })
    }
}

/// One fault that begins at `from`; `half` the clock skew; as long as `rollbacks` are left.
pub(super) fn draw_fault(dice: &mut Dice, nodes: usize, from: At, half: u64, rollbacks: &mut usize) -> FaultKind {
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

pub(super) fn draw_more_faults(dice: &mut Dice, nodes: usize, calm: At, length: At, faults: &mut Vec<Fault>) {
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

/// The network has a loop for a moment, and a node begins its handshakes with the others in it.
pub(super) fn draw_storm(dice: &mut Dice, nodes: usize, calm: At, length: At, faults: &mut Vec<Fault>) {
    if !dice.chance(0.05) {
        return;
    }
    let from = dice.between(calm, length - 6 * SECOND);
    let until = from + dice.between(SECOND, 4 * SECOND);
    faults.push(Fault { from, until, kind: FaultKind::Storm { copies: dice.between(10, 30) } });
    let node = pick_number(dice, 0, nodes - 1);
    faults.push(Fault { from, until: from + dice.below(SECOND), kind: FaultKind::Kill { node } });
}

//! What clients ask for: which requests, when, how they are signed, and how insistently.

use serde::{Deserialize, Serialize};

use super::{At, CrashPoint, Fault, FaultKind, MILLISECOND, Profile, SECOND, pick_number};
use crate::dice::Dice;

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Action {
    /// The number of the step that it repeats.
    pub(super) fn repeats(&self) -> Option<usize> {
        match self {
            Self::Again { action } | Self::OtherPayload { action } => Some(*action),
            _ => None,
        }
    }
}

/// An action and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: At,
    /// What.
    pub action: Action,
    /// The client's name in the request's header.
    pub client: Option<String>,
    /// Child key indices of a signing request.
    pub path: Vec<u32>,
    /// Whether the authorizers have signed.
    pub approved: bool,
}

impl Step {
    pub(super) fn new(at: At, action: Action) -> Self {
        Self { at, action, client: None, path: Vec::new(), approved: true }
    }
}

/// How requests are signed in this cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manners {
    /// The initiator's key is of P-256, not Ed25519.
    pub p256: bool,
    /// Authorizers whose approval every request needs.
    pub authorizers: usize,
}

/// Names that clients give themselves.
const CLIENTS: [&str; 3] = ["alice", "bob", "treasury-2"];

pub(super) fn draw_manners(dice: &mut Dice, steps: &mut [Step]) -> Manners {
    let manners =
        Manners { p256: dice.chance(0.3), authorizers: if dice.chance(0.25) { pick_number(dice, 1, 2) } else { 0 } };
    for step in steps {
        step.client = CLIENTS.get(pick_number(dice, 0, 2 * CLIENTS.len())).map(|name| (*name).to_owned());
        if dice.chance(0.25) {
            let levels = dice.between(1, 3);
            step.path = (0..levels).map(|_| u32::try_from(dice.below(1 << 31)).unwrap_or(0)).collect();
        }
        step.approved = dice.chance(0.9);
    }
    manners
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

pub(super) fn draw_steps(dice: &mut Dice, profile: Profile, length: At, faults: &[Fault]) -> Vec<Step> {
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

/// Some clients do not wait: they ask again and again while the node that signs for them crashes, and the queue gives
/// their requests to several nodes. Then attempts of several coordinators meet.
pub(super) fn draw_insistence(
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

/// A disk is put back to just before some work of its node, while most others are cut off, so that the work is still
/// open when the node comes back without knowing of it; and clients ask again.
pub(super) fn draw_interrupted(
    dice: &mut Dice,
    node: usize,
    nodes: usize,
    calm: At,
    length: At,
    steps: &mut Vec<Step>,
    faults: &mut Vec<Fault>,
) {
    if !dice.chance(0.15) {
        return;
    }
    let latest = length - SECOND;
    let work: Vec<usize> = (0..steps.len())
        .filter(|at| {
            matches!(steps[*at].action, Action::Keygen { .. } | Action::Sign { .. })
                && (calm..latest - 3 * SECOND).contains(&steps[*at].at)
        })
        .collect();
    let Some(action) = dice.pick(&work).copied() else { return };
    let at = steps[action].at;
    let from = at + dice.skewed(50 * MILLISECOND, 3 * SECOND);
    let until = (from + dice.skewed(SECOND, 6 * SECOND)).min(latest);
    let backup = at.saturating_sub(dice.below(SECOND)) + dice.below(200 * MILLISECOND);
    faults.push(Fault { from, until, kind: FaultKind::Rollback { node, backup } });
    for other in (0..nodes).filter(|other| *other != node) {
        if dice.chance(0.6) {
            let from = at + dice.skewed(20 * MILLISECOND, 3 * SECOND);
            let until = (until + dice.skewed(1, 5 * SECOND)).min(latest);
            let kind =
                if dice.chance(0.5) { FaultKind::Isolate { node: other } } else { FaultKind::Kill { node: other } };
            faults.push(Fault { from: from.min(until), until, kind });
        }
    }
    for _ in 0..dice.below(3) {
        let again = Step { at: (until + dice.below(8 * SECOND)).min(latest), ..steps[action].clone() };
        steps.push(Step { action: Action::Again { action }, ..again });
    }
}

/// A member does not hear that a wallet was decided, and clients ask for signatures with it as soon as they know it.
pub(super) fn draw_unheard(
    dice: &mut Dice,
    nodes: usize,
    threshold: usize,
    length: At,
    steps: &mut Vec<Step>,
    faults: &mut Vec<Fault>,
) {
    // Where all sign, nothing is decided without one of them.
    if !dice.chance(0.1) || threshold == nodes {
        return;
    }
    let latest = length - SECOND;
    let made: Vec<(At, usize)> = steps
        .iter()
        .filter_map(|step| match step.action {
            Action::Keygen { wallet } if step.approved && step.at + 8 * SECOND < latest => Some((step.at, wallet)),
            _ => None,
        })
        .collect();
    let Some((from, wallet)) = dice.pick(&made).copied() else { return };
    let until = (from + dice.between(5 * SECOND, 15 * SECOND)).min(latest);
    faults.push(Fault { from, until, kind: FaultKind::Deaf { node: pick_number(dice, 0, nodes - 1) } });
    for _ in 0..dice.between(2, 6) {
        // Soon: a node that has heard nobody for three seconds takes no requests.
        let at = from + dice.between(300 * MILLISECOND, 4 * SECOND);
        let (ecdsa, transaction) = (dice.chance(0.3), 2_000 + steps.len());
        steps.push(Step::new(at, Action::Sign { wallet, ecdsa, transaction, length: 32 }));
    }
}

/// Whoever has a wallet decided is not heard when it knows the decision, and another node works for the same request,
/// whose time passes meanwhile: it must not close what was decided. Says the time for wallets, in seconds.
pub(super) fn draw_unspoken(
    dice: &mut Dice,
    length: At,
    steps: &mut Vec<Step>,
    faults: &mut Vec<Fault>,
) -> Option<u64> {
    if !dice.chance(0.06) {
        return None;
    }
    let latest = length - SECOND;
    let made: Vec<usize> = (0..steps.len())
        .filter(|at| {
            let step = &steps[*at];
            matches!(step.action, Action::Keygen { .. }) && step.approved && step.at + 13 * SECOND < latest
        })
        .collect();
    let action = dice.pick(&made).copied()?;
    let from = steps[action].at;
    let until = (from + dice.between(12 * SECOND, 25 * SECOND)).min(latest);
    faults.push(Fault { from, until, kind: FaultKind::Mute });
    // Soon, or the wallet exists.
    for _ in 0..dice.between(1, 3) {
        let again = Step { at: from + dice.skewed(1, 500 * MILLISECOND), ..steps[action].clone() };
        steps.push(Step { action: Action::Again { action }, ..again });
    }
    Some(dice.between(4, 8))
}

/// A node stores an answer and dies, and its clock, which was ahead, is behind when it starts again: the ballot of what
/// it stored is above all that its new clock lets it take for possible. Another node, which was cut off all the time,
/// then works for the same request, without the one that coordinated it.
pub(super) fn draw_set_back(
    dice: &mut Dice,
    (nodes, threshold): (usize, usize),
    (calm, length): (At, At),
    half: u64,
    steps: &mut Vec<Step>,
    faults: &mut Vec<Fault>,
) {
    // Of more nodes there would be more that know the ballot, of fewer none that does not.
    if !dice.chance(0.2) || (nodes, threshold) != (3, 2) {
        return;
    }
    let latest = length - SECOND;
    let signed: Vec<usize> = (0..steps.len())
        .filter(|at| {
            let step = &steps[*at];
            matches!(step.action, Action::Sign { wallet, .. } if wallet < 500)
                && step.approved
                && (calm.max(6 * SECOND)..latest - 6 * SECOND).contains(&step.at)
        })
        .collect();
    let Some(action) = dice.pick(&signed).copied() else { return };
    let at = steps[action].at;
    let mut order = [0, 1, 2];
    dice.shuffle(&mut order);
    let [coordinator, node, other] = order;
    let ahead = i64::try_from(half).unwrap_or(0);
    let mut add = |from: At, until: At, kind| faults.push(Fault { from, until, kind });
    // Whoever has just started takes part in nothing below what its own clock lets it take for possible.
    add(at - 2 * SECOND, at - dice.between(500, 1_500) * MILLISECOND, FaultKind::Kill { node: coordinator });
    add(at - 2 * SECOND, at, FaultKind::ClockJump { node: coordinator, offset: ahead });
    add(at - 2 * SECOND, at, FaultKind::ClockJump { node, offset: ahead });
    let (dies, back) = (at + dice.skewed(1, 300 * MILLISECOND), at + dice.between(600, 1_500) * MILLISECOND);
    add(at - SECOND / 2, back, FaultKind::Isolate { node: other });
    add(dies, back, FaultKind::CrashAtWrite { node, after: dice.below(3), point: CrashPoint::Synced });
    add(back, back, FaultKind::ClockJump { node, offset: -ahead });
    add(back, latest, FaultKind::Isolate { node: coordinator });
    for _ in 0..dice.between(1, 3) {
        let again = Step { at: (back + dice.between(SECOND / 2, 4 * SECOND)).min(latest), ..steps[action].clone() };
        steps.push(Step { action: Action::Again { action }, ..again });
    }
}

/// Where nodes keep presignatures, clients mostly want what can use them, again and again with one wallet; and in half of
/// these runs nodes die at the writes that go before such a signature.
pub(super) fn draw_presigned(
    dice: &mut Dice,
    nodes: usize,
    calm: At,
    length: At,
    steps: &mut [Step],
    faults: &mut Vec<Fault>,
) {
    if !dice.chance(0.7) {
        return;
    }
    let crashes = dice.chance(0.5);
    let latest = length - SECOND;
    for step in steps {
        let at = step.at;
        let Action::Sign { wallet, ecdsa, .. } = &mut step.action else { continue };
        // Whoever asks for a wallet that does not exist goes on doing so.
        if *wallet >= 500 || !dice.chance(0.8) {
            continue;
        }
        (*wallet, *ecdsa, step.approved) = (0, true, true);
        step.path.clear();
        if crashes && dice.chance(0.3) {
            let from = (at + dice.below(50 * MILLISECOND)).max(calm).min(latest - SECOND);
            let until = (from + dice.skewed(SECOND, 5 * SECOND)).min(latest);
            let node = pick_number(dice, 0, nodes - 1);
            let point = dice.pick(&[CrashPoint::Written, CrashPoint::Synced]).copied().unwrap_or(CrashPoint::Synced);
            faults.push(Fault { from, until, kind: FaultKind::CrashAtWrite { node, after: dice.below(3), point } });
        }
    }
}

/// Some messages are longer than a datagram.
pub(super) fn draw_long_messages(dice: &mut Dice, steps: &mut [Step]) {
    for step in steps {
        if let Action::Sign { ecdsa: false, length, .. } = &mut step.action
            && dice.chance(0.01)
        {
            *length = pick_number(dice, 70_000, 150_000);
        }
    }
}

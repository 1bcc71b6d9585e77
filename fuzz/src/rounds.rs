//! One participant says what it likes in the runs of the protocols: party 0 hears everything that the others say but for
//! one message, in whose place stands what the input says.
//!
//! ```text
//! number of the message, of those that party 0 hears || how || rest
//! how: bit 0   the rest are changes of the honest bytes (place 2, what 1, value 1), else the bytes themselves
//!      bit 1   said to everybody and to one party are exchanged
//!      bit 2   it comes twice
//!      bit 3   the honest message follows
//! ```
//! The party must end, wait or fail, whatever it hears; a failure may name the sender of that one message and nobody
//! else; and what it ends with must be right. CGGMP24 is missing: its library panics at some numbers, which the runner
//! turns into blame (`core/src/protocol/runner.rs`), but a fuzzer ends at any panic, caught or not.

use std::sync::{Arc, OnceLock};

use mpcium_core::protocol::{
    Abort, AuxiliarySet, AuxiliarySuite, AuxiliaryView, Curve, DistributedKeyGeneration, Dkls, Frost, Incoming,
    KeyGeneration as _, KeyShare, Outcome, Party, Run, Signing, SigningSuite, Status,
};

/// What is signed.
const MESSAGE: [u8; 32] = [7; 32];
/// Bytes of a whole message in a seed; of longer ones seeds hold changes.
const WHOLE_MAX: usize = 4_000;

/// A kind of run.
struct Protocol {
    start: fn(u16) -> Box<dyn Party>,
    parties: u16,
    /// Whether an outcome is as it should be.
    is_right: fn(&Outcome) -> bool,
    /// What party 0 hears in an honest run, in order.
    heard: OnceLock<Vec<Incoming>>,
}

static KEYGEN: Protocol = Protocol { start: keygen, parties: 3, is_right: keys_are_right, heard: OnceLock::new() };
static FROST: Protocol = Protocol {
    start: |index| sign(&Frost, &ed25519_keys()[usize::from(index)], index, Vec::new()),
    parties: 3,
    is_right: |outcome| is_signature(&Frost, &ed25519_keys()[0], outcome),
    heard: OnceLock::new(),
};
static DKLS_SETUP: Protocol =
    Protocol { start: dkls_setup, parties: 2, is_right: set_is_right, heard: OnceLock::new() };
static DKLS_SIGNING: Protocol = Protocol {
    start: |index| {
        let set = &dkls_sets()[usize::from(index)];
        let view = AuxiliaryView { secret: set.secret.clone(), rows: set.rows.clone(), opened: None };
        sign(&Dkls, &secp256k1_keys()[usize::from(index)], index, vec![view])
    },
    parties: 2,
    is_right: |outcome| is_signature(&Dkls, &secp256k1_keys()[0], outcome),
    heard: OnceLock::new(),
};

pub(crate) fn keygen_rounds(bytes: &[u8]) {
    KEYGEN.hear(bytes);
}

pub(crate) fn frost_rounds(bytes: &[u8]) {
    FROST.hear(bytes);
}

pub(crate) fn dkls_setup_rounds(bytes: &[u8]) {
    DKLS_SETUP.hear(bytes);
}

pub(crate) fn dkls_signing_rounds(bytes: &[u8]) {
    DKLS_SIGNING.hear(bytes);
}

/// Targets that take so long that the property tests give them fewer inputs.
pub const SLOW: [&str; 4] = ["keygen_rounds", "frost_rounds", "dkls_setup_rounds", "dkls_signing_rounds"];

const PROTOCOLS: [&Protocol; 4] = [&KEYGEN, &FROST, &DKLS_SETUP, &DKLS_SIGNING];

/// Seeds of these targets: every message of an honest run as it is, whole where that is short, or with one change.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (target, protocol) in SLOW.into_iter().zip(PROTOCOLS) {
        for (number, honest) in (0_u8..).zip(protocol.heard()) {
            // The library of DKLs23 draws randomness of its own: a message of one run is none of another.
            if honest.bytes.len() <= WHOLE_MAX && !target.starts_with("dkls") {
                seeds.push((target, format!("whole-{number}"), [&[number, 0], &honest.bytes[..]].concat()));
            }
            seeds.push((target, format!("unchanged-{number}"), vec![number, 1]));
            seeds.push((target, format!("changed-{number}"), vec![number, 1, 40, 0, 0, 1]));
        }
    }
    seeds
}

/// Whether party 0 ends well with what stands in the place of the message.
#[must_use]
pub fn ends_well(target: &str, bytes: &[u8]) -> bool {
    let at = SLOW.iter().position(|name| *name == target).expect("a target of rounds");
    matches!(PROTOCOLS[at].hear(bytes), Some(Ok(())))
}

impl Protocol {
    fn parties(&self) -> Vec<Box<dyn Party>> {
        (0..self.parties).map(self.start).collect()
    }

    fn heard(&self) -> &[Incoming] {
        self.heard.get_or_init(|| {
            let mut heard = Vec::new();
            let ends = together(self.parties(), |message| {
                heard.push(message.clone());
                vec![message]
            });
            assert!(ends.iter().all(|end| matches!(end, Some(Ok(outcome)) if (self.is_right)(outcome))), "{ends:?}");
            heard
        })
    }

    /// How party 0 ends; `None`: it waits.
    fn hear(&self, bytes: &[u8]) -> Option<Result<(), Abort>> {
        let [number, how, rest @ ..] = bytes else { return None };
        let at = usize::from(*number) % self.heard().len();
        let (mut number, mut liar) = (0, None);
        let ends = together(self.parties(), |honest| {
            number += 1;
            if number != at + 1 {
                return vec![honest];
            }
            liar = Some(honest.from);
            let mut altered = honest.clone();
            if how & 1 == 0 {
                altered.bytes = rest.to_vec();
            } else {
                change(&mut altered.bytes, rest);
            }
            altered.broadcast ^= how & 2 != 0;
            let mut messages = vec![altered.clone()];
            messages.extend((how & 4 != 0).then_some(altered));
            messages.extend((how & 8 != 0).then_some(honest));
            messages
        });
        match ends.into_iter().next()?? {
            Ok(outcome) => {
                assert!((self.is_right)(&outcome), "a liar brought about {outcome:?}");
                Some(Ok(()))
            }
            Err(abort) => {
                let mut named = abort.culprits.iter().chain(&abort.bans);
                assert!(named.all(|party| Some(*party) == liar), "{liar:?} lied, and this follows: {abort:?}");
                Some(Err(abort))
            }
        }
    }
}

/// Changes bytes as four bytes each say: where, what, and a value.
fn change(bytes: &mut Vec<u8>, changes: &[u8]) {
    for change in changes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let Some(at) = at.checked_rem(bytes.len()) else { return };
        match change[2] % 4 {
            0 => bytes[at] ^= change[3],
            1 => bytes.truncate(at),
            2 => bytes.insert(at, change[3]),
            _ => drop(bytes.remove(at)),
        }
    }
}

/// How a party ended; `None`: it waits.
type End = Option<Result<Outcome, Abort>>;

/// Runs the parties until nobody has anything more to say. `meddle` gives back what party 0 hears instead of a message.
fn together(mut parties: Vec<Box<dyn Party>>, mut meddle: impl FnMut(Incoming) -> Vec<Incoming>) -> Vec<End> {
    let count = parties.len();
    let mut ends: Vec<End> = parties.iter().map(|_| None).collect();
    let mut inboxes: Vec<Vec<Incoming>> = parties.iter().map(|_| Vec::new()).collect();
    let mut first = true;
    while first || inboxes.iter().zip(&ends).any(|(inbox, end)| !inbox.is_empty() && end.is_none()) {
        first = false;
        let mut sent = Vec::new();
        for (from, party) in parties.iter_mut().enumerate() {
            let inbox = std::mem::take(&mut inboxes[from]);
            if ends[from].is_some() {
                continue;
            }
            let step = party.advance(inbox);
            sent.extend(step.messages.into_iter().map(|message| (from, message)));
            ends[from] = match step.status {
                Status::Waiting => None,
                Status::Done(outcome) => Some(Ok(outcome)),
                Status::Failed(abort) => Some(Err(abort)),
            };
        }
        for (from, message) in sent {
            let broadcast = message.to.is_none();
            for to in (0..count).filter(|to| *to != from && message.to.is_none_or(|one| usize::from(one) == *to)) {
                let from = u16::try_from(from).expect("few parties");
                let incoming = Incoming { from, broadcast, bytes: message.bytes.clone() };
                let arriving = if to == 0 { meddle(incoming) } else { vec![incoming] };
                inboxes[to].extend(arriving);
            }
        }
    }
    ends
}

/// What the parties of an honest run end with.
fn outcomes(parties: Vec<Box<dyn Party>>) -> Vec<Outcome> {
    let ends = together(parties, |message| vec![message]);
    ends.into_iter().map(|end| end.expect("an honest run stands still").expect("an honest run fails")).collect()
}

fn run(index: u16, parties: u16, occasion: u8) -> Run {
    let mut seed = [occasion; 32];
    seed[0] = u8::try_from(index).expect("few parties");
    Run { execution_id: [occasion; 32], index, parties, seed }
}

fn keygen(index: u16) -> Box<dyn Party> {
    DistributedKeyGeneration.start(run(index, 3, 1), 3).expect("possible numbers")
}

fn keys_are_right(outcome: &Outcome) -> bool {
    let Outcome::Keys(shares) = outcome else { return false };
    shares.len() == Curve::ALL.len() && shares.iter().all(|share| share.validate().is_ok())
}

/// The shares of all parties on one curve, which all of them sign with.
fn keys(parties: u16, occasion: u8, curve: Curve) -> Vec<Arc<KeyShare>> {
    let start =
        |index| DistributedKeyGeneration.start(run(index, parties, occasion), parties).expect("possible numbers");
    let outcomes = outcomes((0..parties).map(start).collect());
    let share = |outcome| match outcome {
        Outcome::Keys(shares) => shares.into_iter().find(|share| share.curve == curve).map(Arc::new),
        _ => None,
    };
    outcomes.into_iter().filter_map(share).collect()
}

fn ed25519_keys() -> &'static [Arc<KeyShare>] {
    static MADE: OnceLock<Vec<Arc<KeyShare>>> = OnceLock::new();
    MADE.get_or_init(|| keys(3, 2, Curve::Ed25519))
}

fn secp256k1_keys() -> &'static [Arc<KeyShare>] {
    static MADE: OnceLock<Vec<Arc<KeyShare>>> = OnceLock::new();
    MADE.get_or_init(|| keys(2, 3, Curve::Secp256k1))
}

fn sign(suite: &dyn SigningSuite, key: &Arc<KeyShare>, index: u16, auxiliary: Vec<AuxiliaryView>) -> Box<dyn Party> {
    let parties = key.threshold;
    let signers = (0..parties).collect();
    let signing = Signing { key: key.clone(), signers, message: MESSAGE.to_vec(), auxiliary };
    suite.start(run(index, parties, 4), signing).expect("all of it fits")
}

fn is_signature(suite: &dyn SigningSuite, key: &KeyShare, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Signature(signature) if suite.verify(&key.public_key, &MESSAGE, signature))
}

fn dkls() -> &'static dyn AuxiliarySuite {
    SigningSuite::auxiliary(&Dkls).expect("it needs set-ups")
}

fn dkls_setup(index: u16) -> Box<dyn Party> {
    dkls().start(run(index, 2, 5), Vec::new()).expect("possible numbers")
}

fn dkls_sets() -> &'static [AuxiliarySet] {
    static MADE: OnceLock<Vec<AuxiliarySet>> = OnceLock::new();
    MADE.get_or_init(|| {
        let outcomes = outcomes((0..2).map(dkls_setup).collect());
        let set = |outcome| if let Outcome::Auxiliary(set) = outcome { Some(set) } else { None };
        outcomes.into_iter().filter_map(set).collect()
    })
}

fn set_is_right(outcome: &Outcome) -> bool {
    let Outcome::Auxiliary(set) = outcome else { return false };
    (0..2).any(|index| dkls().check(set, index).is_ok())
}

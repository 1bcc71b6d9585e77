//! Key generation: both of a wallet's keys in one run, so that half a wallet cannot come about.
//!
//! Per curve it is the threshold key generation of the CGGMP24 library (commit, Feldman's verifiable secret sharing,
//! proof of knowledge), with the echo of the first round on. The two runs share nothing: each has an execution id and
//! a generator of its own, and a message says in its first byte which one it belongs to.

use cggmp24_keygen::msg::threshold::Msg;
use cggmp24_keygen::security_level::SecurityLevel128;
use cggmp24_keygen::{ExecutionId, KeygenBuilder, KeygenError};
use generic_ec::curves::{Ed25519, Secp256k1};
use key_share::CoreKeyShare;
use sha2::Sha256;

use super::keys::LibraryCurve;
use super::runner::{self, Engine, Guard, Kind, Run as ProtocolRun};
use super::{Abort, Curve, Incoming, KeyGeneration, KeyShare, Outcome, Outgoing, Pace, Party, Run, Status, Step};
use crate::Duration;

type Message<E> = Msg<E, SecurityLevel128, Sha256>;

/// Distributed key generation without a dealer: see the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct DistributedKeyGeneration;

impl KeyGeneration for DistributedKeyGeneration {
    fn name(&self) -> &'static str {
        "cggmp24-dkg"
    }

    fn pace(&self, parties: u16) -> Pace {
        // Milliseconds of work; the time goes into messages and queues.
        let parties = u64::from(parties);
        Pace {
            // Both curves have five rounds.
            bytes: 10 * bytes_max(usize::try_from(parties).unwrap_or(usize::MAX)),
            progress: Duration::from_secs(15),
            cap: Duration::from_secs(60 + 2 * parties),
            heavy: false,
        }
    }

    fn start(&self, run: Run, threshold: u16) -> Result<Box<dyn Party>, Abort> {
        runner::check_positions(&run)?;
        if !(2..=run.parties).contains(&threshold) {
            return Err(Abort::new(format!("threshold {threshold}, expected 2 to {}", run.parties)));
        }
        Ok(Box::new(BothCurves {
            secp256k1: Half::Running(Box::new(start_on::<Secp256k1>(&run, threshold))),
            ed25519: Half::Running(Box::new(start_on::<Ed25519>(&run, threshold))),
        }))
    }
}

/// What a message's first byte says.
fn tag(curve: Curve) -> u8 {
    match curve {
        Curve::Secp256k1 => 0,
        Curve::Ed25519 => 1,
    }
}

/// Most bytes of one message. The largest is round 2's broadcast: `threshold` points of at most 33 bytes and five
/// fixed-size fields.
fn bytes_max(threshold: usize) -> usize {
    1024 + 64 * threshold
}

struct RoundsGuard<E> {
    threshold: u16,
    curve: std::marker::PhantomData<fn() -> E>,
}

impl<E: LibraryCurve> Guard for RoundsGuard<E> {
    type Message = Message<E>;
    type Wire = Message<E>;

    fn bytes_max(&self) -> usize {
        bytes_max(usize::from(self.threshold))
    }

    fn message(wire: &Self::Wire) -> &Self::Message {
        wire
    }

    fn kind(round: u16) -> Option<Kind> {
        // Round1, Round2Broad, Round2Uni, Round3, ReliabilityCheck.
        [Kind::Broadcast, Kind::Broadcast, Kind::Direct, Kind::Broadcast, Kind::Broadcast]
            .get(usize::from(round))
            .copied()
    }

    fn admit(&mut self, from: u16, message: Self::Message) -> Result<Vec<Self::Message>, Abort> {
        // The library compares degrees, for which coefficients that are the identity do not count.
        if let Msg::Round2Broad(sharing) = &message {
            let coefficients = sharing.F.coefs().len();
            if coefficients != usize::from(self.threshold) {
                let expected = self.threshold;
                let reason = format!("a commitment to {coefficients} coefficients, expected {expected}");
                return Err(Abort::blaming(from, reason));
            }
        }
        Ok(vec![message])
    }

    fn release(&mut self, message: Self::Message) -> Result<Self::Wire, Abort> {
        Ok(message)
    }
}

fn start_on<E: LibraryCurve>(run: &Run, threshold: u16) -> impl Engine<KeyShare> + use<E> {
    let purpose = format!("key generation {:?}", E::CURVE);
    let execution_id = runner::execution_id(run, &purpose);
    let mut rng = runner::generator(run, &purpose);
    let (index, parties) = (run.index, run.parties);
    let binding = run.clone();
    ProtocolRun::<RoundsGuard<E>, Result<CoreKeyShare<E>, KeygenError>, KeyShare>::new(
        run,
        RoundsGuard { threshold, curve: std::marker::PhantomData },
        move |connection| async move {
            KeygenBuilder::<E, SecurityLevel128, Sha256>::new(ExecutionId::new(&execution_id), index, parties)
                .set_threshold(threshold)
                .enforce_reliable_broadcast(true)
                .start(&mut rng, connection)
                .await
        },
        move |result, _| match result {
            Ok(core) => KeyShare::from_core(&core),
            Err(error) => Err(runner::library_abort(&binding, &error)),
        },
    )
}

enum Half {
    Running(Box<dyn Engine<KeyShare>>),
    Done(KeyShare),
}

impl Half {
    fn accept(&mut self, incoming: &Incoming) -> Result<(), Abort> {
        match self {
            Self::Running(run) => run.accept(incoming),
            // All messages that it needed were there; what still comes is a repetition.
            Self::Done(_) => Ok(()),
        }
    }

    fn step(&mut self, curve: Curve, messages: &mut Vec<Outgoing>) -> Result<(), Abort> {
        let Self::Running(run) = self else { return Ok(()) };
        let (sent, share) = run.step()?;
        messages.extend(sent.into_iter().map(|Outgoing { to, bytes }| {
            let mut tagged = Vec::with_capacity(bytes.len() + 1);
            tagged.push(tag(curve));
            tagged.extend_from_slice(&bytes);
            Outgoing { to, bytes: tagged }
        }));
        if let Some(share) = share {
            *self = Self::Done(share);
        }
        Ok(())
    }
}

struct BothCurves {
    secp256k1: Half,
    ed25519: Half,
}

impl BothCurves {
    fn accept(&mut self, mut incoming: Incoming) -> Result<(), Abort> {
        let Some(first) = incoming.bytes.first().copied() else {
            return Err(Abort::blaming(incoming.from, "an empty message"));
        };
        incoming.bytes.remove(0);
        if first == tag(Curve::Secp256k1) {
            self.secp256k1.accept(&incoming)
        } else if first == tag(Curve::Ed25519) {
            self.ed25519.accept(&incoming)
        } else {
            Err(Abort::blaming(incoming.from, format!("a message for curve number {first}, expected 0 or 1")))
        }
    }

    fn run(&mut self, inbox: Vec<Incoming>) -> Result<Step, Abort> {
        for incoming in inbox {
            self.accept(incoming)?;
        }
        let mut messages = Vec::new();
        self.secp256k1.step(Curve::Secp256k1, &mut messages)?;
        self.ed25519.step(Curve::Ed25519, &mut messages)?;
        let status = match (&self.secp256k1, &self.ed25519) {
            (Half::Done(first), Half::Done(second)) => Status::Done(Outcome::Keys(vec![first.clone(), second.clone()])),
            _ => Status::Waiting,
        };
        Ok(Step { messages, status })
    }
}

impl Party for BothCurves {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        self.run(inbox).unwrap_or_else(|abort| Step { messages: Vec::new(), status: Status::Failed(abort) })
    }
}

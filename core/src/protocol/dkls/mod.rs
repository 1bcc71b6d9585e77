//! DKLs23: threshold ECDSA on secp256k1 from oblivious transfer (Doerner, Kondi, Lee, shelat; ePrint 2023/765).
//!
//! The building blocks are a library's; the keys are this project's own plain Shamir shares. What the protocol needs
//! besides is independent of any key: for each pair of nodes the base oblivious transfers in both directions, and a seed
//! for shares of zero. A pair makes it once, in a session of its own ([`setup`]); it serves all wallets. Each signature
//! is assembled from the signer's share, the shift to a child key, and its pairs ([`signing`]).
//!
//! Invariants: a pair's set-up is never used again after a consistency check on it has failed
//! ([`Abort::bans`](super::Abort)); every message has exactly one length; no point is the identity; all signers hold the
//! same nonce points before any of them says its last word; and no signature leaves unverified. `docs/protocols.md` has
//! the argument, and who checks what of every message.
//!
//! The library draws from the thread's own generator, which the operating system seeds anew before every step
//! ([`fresh_randomness`]). That stays inside the jobs that workers run; nothing of it reaches core except finished messages.

mod pair;
mod rounds;
mod setup;
mod signing;
#[cfg(test)]
mod tests;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    Abort, AuxiliarySet, AuxiliarySuite, Coverage, Curve, Incoming, Opened, Outcome, Outgoing, Pace, Party, Run,
    Signing, SigningSuite, Status, Step, ecdsa,
};
use crate::{Duration, Secret};

/// Signs on secp256k1 with DKLs23.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dkls;

impl SigningSuite for Dkls {
    fn name(&self) -> &'static str {
        "dkls23"
    }

    fn curve(&self) -> Curve {
        Curve::Secp256k1
    }

    fn pace(&self, parties: u16) -> Pace {
        // Below 20 milliseconds of work per signer; the time goes into messages and queues.
        Pace {
            bytes: signing::BYTES_MAX,
            progress: Duration::from_secs(10),
            cap: Duration::from_secs(30 + u64::from(parties)),
            heavy: false,
        }
    }

    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        Some(self)
    }

    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        ecdsa::verify(public_key, message, signature)
    }

    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        signing::start(run, &signing)
    }
}

impl AuxiliarySuite for Dkls {
    fn coverage(&self) -> Coverage {
        Coverage::Pairs
    }

    fn pace(&self, _: u16) -> Pace {
        // Half a second of work, behind those of all other pairs at low priority.
        Pace { bytes: setup::BYTES_MAX, progress: Duration::from_secs(60), cap: Duration::from_secs(180), heavy: false }
    }

    fn ingredient_pieces(&self) -> u16 {
        0
    }

    fn make_ingredient_piece(&self, _: [u8; 32]) -> Secret {
        Secret::new(Vec::new())
    }

    fn start(&self, run: Run, ingredient: Vec<Secret>) -> Result<Box<dyn Party>, Abort> {
        if !ingredient.is_empty() {
            return Err(Abort::new(format!("{} pieces of an ingredient, expected none", ingredient.len())));
        }
        setup::start(run)
    }

    fn check(&self, set: &AuxiliarySet, index: u16) -> Result<(), Abort> {
        let pair = pair::Pair::read(&set.secret, &set.rows)?;
        if u16::from(pair.index) == index {
            Ok(())
        } else {
            Err(Abort::new(format!("the secret of a pair's set-up is that of position {}, not {index}", pair.index)))
        }
    }

    fn open(&self, set: &AuxiliarySet) -> Option<Opened> {
        pair::Pair::read(&set.secret, &set.rows).ok().map(Opened::new)
    }
}

/// A run as this folder writes it: what it makes of the messages of each round.
trait Protocol: Send {
    /// Checks and keeps one message.
    fn accept(&mut self, incoming: Incoming) -> Result<(), Abort>;
    /// Goes as far as the messages allow.
    fn proceed(&mut self) -> Result<(Vec<Outgoing>, Option<Outcome>), Abort>;
}

/// Seeds the thread's generator from the operating system. On its own it does that once per 64 kB, so a machine that is
/// copied, or put back to a snapshot with its memory, would repeat what the library takes for secret and fresh.
#[expect(clippy::disallowed_methods, reason = "the library draws from nothing else; this runs on a worker")]
fn fresh_randomness() -> Result<(), Abort> {
    rand::rng().reseed().map_err(|error| Abort::new(format!("the machine gives no randomness: {error}")))
}

/// Makes a [`Party`] of a [`Protocol`]; a panic inside the library ends the run.
struct Driven<P>(P);

impl<P: Protocol> Party for Driven<P> {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let absorb = || {
            fresh_randomness()?;
            inbox.into_iter().try_for_each(|incoming| self.0.accept(incoming))?;
            self.0.proceed()
        };
        // Unwind safe: after a failure the run is not touched again.
        let absorbed = catch_unwind(AssertUnwindSafe(absorb))
            .unwrap_or_else(|_| Err(Abort::new("the protocol's library panicked")));
        match absorbed {
            Ok((messages, None)) => Step { messages, status: Status::Waiting },
            Ok((messages, Some(outcome))) => Step { messages, status: Status::Done(outcome) },
            Err(abort) => Step { messages: Vec::new(), status: Status::Failed(abort) },
        }
    }
}

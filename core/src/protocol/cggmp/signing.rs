//! Signing: the library's full protocol (presignature and signature in one run) among exactly the signers; and what a
//! run has in common with it that stops at the presignature.
//!
//! The signers form a committee of their own for the library, with the places of their shares on the polynomial, so
//! that any auxiliary set which contains them serves, in whatever order.

use std::collections::BTreeMap;
use std::sync::Arc;

use cggmp24::ExecutionId;
use cggmp24::security_level::SecurityLevel;
use cggmp24::signing::msg::{Msg, MsgRound1a, MsgRound1b};
use cggmp24::signing::{PrehashedDataToSign, Signature, SigningError};
use generic_ec::curves::Secp256k1;
use generic_ec::{Point, Scalar};
use sha2::Sha256;

use super::modulus_bytes;
use super::range_proofs::Verifier;
use super::rows::{self, Primes, Row};
use super::tables::Tables;
use crate::protocol::runner::{self, Guard, Kind, Run as ProtocolRun, SingleRun};
use crate::protocol::{Abort, AuxiliaryView, KeyShare, Opened, Outcome, Party, Run, Signing, ecdsa};

type E = Secp256k1;
type LibraryShare<L> = cggmp24::KeyShare<E, L>;

const PURPOSE: &str = "cggmp24 signing";

pub(super) fn start<L: SecurityLevel>(run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
    let digest = ecdsa::digest(&signing.message)?;
    let Prepared { guard, public_key, share, execution_id } =
        prepare::<L>(&run, PURPOSE, &signing.key, &signing.signers, signing.auxiliary, Some(digest))?;
    let mut rng = runner::generator(&run, PURPOSE);
    let (index, parties) = (run.index, run.parties);
    Ok(Box::new(SingleRun(ProtocolRun::<_, Result<Signature<E>, SigningError>, Outcome>::new(
        &run,
        guard,
        move |connection| async move {
            let positions: Vec<u16> = (0..parties).collect();
            cggmp24::signing(ExecutionId::new(&execution_id), index, &positions, &share)
                .enforce_reliable_broadcast(true)
                .sign(&mut rng, connection, &PrehashedDataToSign::from_scalar(digest))
                .await
        },
        move |result, guard| {
            let signature = result.map_err(|error| guard.abort(&error))?;
            ecdsa::finish(&public_key, digest, signature.r.into_inner(), signature.s.into_inner())
                .map(|bytes| Outcome::Signature(bytes.to_vec()))
                .ok_or_else(|| Abort::new("the signature does not verify under the public key"))
        },
    ))))
}

/// What a run needs that makes a signature, or all of one but the last round.
pub(super) struct Prepared<L: SecurityLevel> {
    pub(super) guard: RangeProofsGuard,
    pub(super) public_key: Point<E>,
    pub(super) share: Arc<LibraryShare<L>>,
    pub(super) execution_id: Vec<u8>,
}

/// Checks that run, key, signers and auxiliary data fit together. Without a digest the run ends before round 4.
pub(super) fn prepare<L: SecurityLevel>(
    run: &Run,
    purpose: &str,
    key: &KeyShare,
    signers: &[u16],
    auxiliary: Vec<AuxiliaryView>,
    digest: Option<Scalar<E>>,
) -> Result<Prepared<L>, Abort> {
    runner::check_positions(run)?;
    if signers.len() != usize::from(run.parties) {
        return Err(Abort::new(format!("{} signers in a run of {}", signers.len(), run.parties)));
    }
    let core = key.core_of_signers::<E>(signers)?;
    if core.i != run.index {
        let (own, index) = (core.i, run.index);
        return Err(Abort::new(format!("own share is number {own} among the signers, the run says {index}")));
    }
    let public_key = core.shared_public_key.into_inner();
    let Ok([auxiliary]) = <[_; 1]>::try_from(auxiliary) else {
        return Err(Abort::new("expected exactly one auxiliary set"));
    };
    if auxiliary.rows.len() != signers.len() {
        let (rows, signers) = (auxiliary.rows.len(), signers.len());
        return Err(Abort::new(format!("{rows} rows of auxiliary data for {signers} signers")));
    }
    let mut rows = auxiliary.rows.iter().map(|row| Row::decode::<L>(row)).collect::<Result<Vec<_>, _>>()?;
    if let Some(tables) = auxiliary.opened.as_ref().and_then(Opened::get::<Tables>) {
        for row in &mut rows {
            row.table = tables.of(&row.pedersen);
        }
    }
    let own_row =
        rows.get(usize::from(run.index)).ok_or_else(|| Abort::new("no row of auxiliary data of this signer"))?;
    let primes = Primes::decode(&auxiliary.secret)?;
    primes.check_row(own_row)?;
    let execution_id = runner::execution_id(run, purpose);
    let guard = RangeProofsGuard {
        verifier: Verifier::new::<L>(execution_id.clone(), own_row, &rows),
        bytes_max: bytes_max::<L>(),
        run: run.clone(),
        digest,
        first_messages: BTreeMap::new(),
        held_back: BTreeMap::new(),
        nonce_points: BTreeMap::new(),
        thirds: BTreeMap::new(),
        partials: BTreeMap::new(),
    };
    let share: Arc<LibraryShare<L>> = LibraryShare::from_parts((core, rows::library_auxiliary::<L>(primes, &rows)?))
        .map(Arc::new)
        .map_err(|invalid| Abort::new(format!("key and auxiliary data do not fit: {}", invalid.into_error())))?;
    Ok(Prepared { guard, public_key, share, execution_id })
}

/// A signer's round 3: what its partial signature has to fit.
struct Third {
    delta: Scalar<E>,
    big_s: Point<E>,
    big_delta: Point<E>,
}

/// Most bytes of one message.
pub(super) fn bytes_max<L: SecurityLevel>() -> usize {
    4096 + 160 * modulus_bytes::<L>()
}

/// Lets a round 1b through only with two good range proofs, and remembers what names the sender of a wrong partial
/// signature.
pub(super) struct RangeProofsGuard {
    run: Run,
    verifier: Verifier,
    bytes_max: usize,
    /// What is signed; `None` in a run that makes a presignature.
    digest: Option<Scalar<E>>,
    first_messages: BTreeMap<u16, MsgRound1a<E>>,
    /// Range proofs that came before the ciphertexts that they are about: at most one per signer.
    held_back: BTreeMap<u16, MsgRound1b<E>>,
    /// `Γ_j` of every signer.
    nonce_points: BTreeMap<u16, Point<E>>,
    /// What every signer said in round 3.
    thirds: BTreeMap<u16, Third>,
    partials: BTreeMap<u16, Scalar<E>>,
}

impl RangeProofsGuard {
    /// Verifies round 1b if both messages of round 1 are there. What has been verified is not kept, so once is enough.
    fn verify_pair(&mut self, from: u16) -> Result<Option<MsgRound1b<E>>, Abort> {
        let Some(first) = self.first_messages.get(&from) else { return Ok(None) };
        let Some(proofs) = self.held_back.remove(&from) else { return Ok(None) };
        self.verifier.check(from, first, &proofs).map_err(|reason| Abort::blaming(from, reason))?;
        Ok(Some(proofs))
    }

    fn note(&mut self, party: u16, message: &Msg<E, Sha256>) {
        match message {
            Msg::Round2(round) => drop(self.nonce_points.insert(party, round.Gamma)),
            Msg::Round3(round) => {
                let third = Third { delta: round.delta, big_s: round.S, big_delta: round.Delta };
                self.thirds.insert(party, third);
            }
            Msg::Round4(round) => drop(self.partials.insert(party, round.partial_sig.sigma)),
            Msg::Round1a(_) | Msg::Round1b(_) | Msg::ReliabilityCheck(_) => {}
        }
    }

    pub(super) fn abort(&self, error: &SigningError) -> Abort {
        let mut abort = runner::library_abort(&self.run, error);
        if abort.culprits.is_empty() {
            abort.culprits = self.wrong_partials().unwrap_or_default();
        }
        abort
    }

    /// Whose partial signature does not fit what it has committed to: `σ_j Γ != m δ⁻¹ Δ_j + r δ⁻¹ S_j`.
    ///
    /// Honest signers agree on `Γ` and `δ`, because both are bound by proofs to the echoed round 1a; so this frames
    /// nobody.
    fn wrong_partials(&self) -> Option<Vec<u16>> {
        let parties = usize::from(self.run.parties);
        let digest = self.digest?;
        if [self.nonce_points.len(), self.thirds.len(), self.partials.len()] != [parties; 3] {
            return None;
        }
        let nonce_point: Point<E> = self.nonce_points.values().sum();
        let delta: Scalar<E> = self.thirds.values().map(|third| third.delta).sum();
        let inverse = delta.invert()?;
        let r = ecdsa::x_mod_order(&nonce_point)?;
        let wrong = self.partials.iter().filter(|(party, sigma)| {
            let Some(Third { big_s, big_delta, .. }) = self.thirds.get(party) else { return false };
            let expected = (big_delta * digest + big_s * r) * inverse;
            nonce_point * *sigma != expected && **party != self.run.index
        });
        Some(wrong.map(|(party, _)| *party).collect())
    }
}

impl Guard for RangeProofsGuard {
    type Message = Msg<E, Sha256>;
    type Wire = Msg<E, Sha256>;

    fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn message(wire: &Self::Wire) -> &Self::Message {
        wire
    }

    fn kind(round: u16) -> Option<Kind> {
        // Round1a, Round1b, Round2, Round3, Round4, ReliabilityCheck.
        [Kind::Broadcast, Kind::Direct, Kind::Direct, Kind::Broadcast, Kind::Broadcast, Kind::Broadcast]
            .get(usize::from(round))
            .copied()
    }

    fn admit(&mut self, from: u16, message: Self::Message) -> Result<Vec<Self::Message>, Abort> {
        self.note(from, &message);
        match message {
            Msg::Round4(_) if self.digest.is_none() => {
                Err(Abort::blaming(from, "a partial signature where a presignature is made"))
            }
            Msg::Round1a(first) => {
                self.first_messages.insert(from, first.clone());
                let proofs = self.verify_pair(from)?;
                Ok(std::iter::once(Msg::Round1a(first)).chain(proofs.map(Msg::Round1b)).collect())
            }
            Msg::Round1b(proofs) => {
                self.held_back.insert(from, proofs);
                Ok(self.verify_pair(from)?.map(Msg::Round1b).into_iter().collect())
            }
            other => Ok(vec![other]),
        }
    }

    fn release(&mut self, message: Self::Message) -> Result<Self::Wire, Abort> {
        self.note(self.run.index, &message);
        Ok(message)
    }
}

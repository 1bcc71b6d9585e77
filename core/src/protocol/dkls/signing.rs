//! Signing: the library's three rounds among exactly the signers.
//!
//! ```text
//! round 0, to each   commitment to the nonce point (the same for all); the library's first message
//! round 1, to each   hash of all commitments of round 0; the library's second message
//! round 2, to all    the two summands of the signature
//! ```
//!
//! For the library the signers form a committee of their own with indices from 1, in the order of the run. It would
//! take its Lagrange coefficients from these indices; our shares lie at committee position + 1, so it is handed
//! `share · λ(our places) / λ(indices)`.
//!
//! The library lets a signer show different nonce points to different others. The commitment that all get, echoed
//! before anybody opens anything, excludes that.

use std::collections::BTreeMap;

use dkls23_core::protocols::derivation::DerivData;
use dkls23_core::protocols::signing::{KeepPhase1to2, KeepPhase2to3, SignData, UniqueKeep1to2, UniqueKeep2to3};
use dkls23_core::protocols::{
    Abort as LibraryAbort, AbortKind, AbortReason, Parameters, Party as LibraryParty, PartyIndex,
};
use dkls23_core::utilities::zero_shares::{SeedPair, ZeroShare};
use generic_ec::Point;
use generic_ec::curves::Secp256k1 as E;
use k256::elliptic_curve::ff::PrimeField as _;
use k256::elliptic_curve::sec1::ToSec1Point as _;
use k256::{AffinePoint, Scalar, Secp256k1};

use super::pair::Pair;
use super::rounds::{Body, Expected, Rounds, outgoing};
use super::{Driven, Protocol, wire};
use crate::protocol::runner::{self, Kind};
use crate::protocol::{Abort, Incoming, Outcome, Outgoing, Party, Run, Signing, ecdsa};
use crate::tags;

type K = Secp256k1;

/// Most bytes that one signer sends another in a whole run, each message behind the number of its round.
pub(super) const BYTES_MAX: usize = wire::FIRST + wire::SECOND + wire::THIRD + 3;

pub(super) fn start(run: Run, signing: &Signing) -> Result<Box<dyn Party>, Abort> {
    runner::check_positions(&run)?;
    let signers = signing.signers.len();
    if signers != usize::from(run.parties) {
        return Err(Abort::new(format!("{signers} signers in a run of {}", run.parties)));
    }
    let digest = ecdsa::digest(&signing.message)?;
    let message_hash =
        <[u8; 32]>::try_from(signing.message.as_slice()).map_err(|_| Abort::new("a digest has 32 bytes"))?;
    let own = signing.key.position_among(&signing.signers)?;
    let core = signing.key.checked_core::<E>()?;
    if own != run.index {
        let index = run.index;
        return Err(Abort::new(format!("own share is number {own} among the signers, the run says {index}")));
    }
    if signing.auxiliary.len() + 1 != signers {
        return Err(Abort::new(format!("{} pairs for {signers} signers", signing.auxiliary.len())));
    }
    let others: Vec<u16> = (0..run.parties).filter(|position| *position != run.index).collect();
    let party = assemble(&run, signing, &others)?;
    let data = SignData {
        sign_id: run.execution_id.to_vec(),
        counterparties: others.iter().map(|other| index_of(*other)).collect::<Result<_, _>>()?,
        message_hash,
    };
    let expected = vec![
        Expected { kind: Kind::Direct, bytes: wire::FIRST..=wire::FIRST },
        Expected { kind: Kind::Direct, bytes: wire::SECOND..=wire::SECOND },
        Expected { kind: Kind::Broadcast, bytes: wire::THIRD..=wire::THIRD },
    ];
    Ok(Box::new(Driven(Signer {
        rounds: Rounds::new(&run, expected),
        run,
        public_key: core.key_info.shared_public_key.into_inner(),
        digest,
        party,
        data,
        state: State::Start,
    })))
}

/// The library's party of this signature alone.
fn assemble(run: &Run, signing: &Signing, others: &[u16]) -> Result<LibraryParty<K>, Abort> {
    let threshold = u8::try_from(run.parties).map_err(|_| Abort::new("too many signers"))?;
    let parameters =
        Parameters::new(threshold, threshold).map_err(|error| Abort::new(format!("{threshold} signers: {error}")))?;
    let (mut senders, mut receivers, mut seeds) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (other, view) in others.iter().zip(&signing.auxiliary) {
        let pair = Pair::of(view)?;
        let counterparty = index_of(*other)?;
        senders.insert(counterparty, pair.sender.clone());
        receivers.insert(counterparty, pair.receiver.clone());
        seeds.push(SeedPair {
            lowest_index: run.index < *other,
            index_counterparty: counterparty,
            seed: pair.zero_seed,
        });
    }
    let poly_point = share_for_library(run, signing)?;
    let pk = *k256::PublicKey::from_sec1_bytes(&signing.key.public_key)
        .map_err(|_| Abort::new("the public key is no point"))?
        .as_affine();
    Ok(LibraryParty {
        parameters,
        party_index: index_of(run.index)?,
        session_id: run.execution_id.to_vec(),
        poly_point,
        pk,
        zero_share: ZeroShare::initialize(seeds),
        mul_senders: senders,
        mul_receivers: receivers,
        derivation_data: DerivData {
            depth: 0,
            child_number: 0,
            parent_fingerprint: [0; 4],
            poly_point,
            pk,
            chain_code: [0; 32],
        },
        address: String::new(),
    })
}

/// `share · λ(our places) / λ(indices)`, where our places are the signers' committee positions + 1 and the indices are
/// their positions in the run + 1.
fn share_for_library(run: &Run, signing: &Signing) -> Result<Scalar, Abort> {
    let secret: [u8; 32] =
        signing.key.secret.expose().try_into().map_err(|_| Abort::new("a secret share has 32 bytes"))?;
    let secret = Option::<Scalar>::from(Scalar::from_repr(secret.into()))
        .ok_or_else(|| Abort::new("the secret share is not below the order of the group"))?;
    let own = usize::from(run.index);
    let indices: Vec<u16> = (0..run.parties).collect();
    let coefficient = lagrange(&signing.signers, own).zip(lagrange(&indices, own));
    let (ours, theirs) = coefficient.ok_or_else(|| Abort::new("two signers at one place"))?;
    let inverse = Option::<Scalar>::from(theirs.invert()).ok_or_else(|| Abort::new("a Lagrange coefficient of 0"))?;
    Ok(secret * ours * inverse)
}

/// The Lagrange coefficient at zero of number `own` among points at `positions + 1`.
fn lagrange(positions: &[u16], own: usize) -> Option<Scalar> {
    let place = |position: &u16| Scalar::from(u32::from(*position) + 1);
    let own_place = place(positions.get(own)?);
    let others = positions.iter().enumerate().filter(|(at, _)| *at != own).map(|(_, position)| place(position));
    let (numerator, denominator) =
        others.fold((Scalar::ONE, Scalar::ONE), |(n, d), other| (n * other, d * (other - own_place)));
    Option::<Scalar>::from(denominator.invert()).map(|inverse| numerator * inverse)
}

/// The library's index of a position in the run.
fn index_of(position: u16) -> Result<PartyIndex, Abort> {
    u8::try_from(position + 1)
        .ok()
        .and_then(|index| PartyIndex::new(index).ok())
        .ok_or_else(|| Abort::new(format!("position {position} is no index of the library")))
}

struct Signer {
    run: Run,
    rounds: Rounds,
    public_key: Point<E>,
    digest: generic_ec::Scalar<E>,
    party: LibraryParty<K>,
    data: SignData,
    state: State,
}

enum State {
    Start,
    /// Round 0 is said.
    Committed(Box<Committed>),
    /// Round 1 is said.
    Multiplied(Box<Multiplied>),
    /// Round 2 is said.
    Summed {
        r: [u8; 32],
        numerator: Scalar,
        denominator: Scalar,
    },
    Over,
}

struct Committed {
    unique: UniqueKeep1to2<K>,
    kept: BTreeMap<PartyIndex, KeepPhase1to2<K>>,
}

struct Multiplied {
    unique: UniqueKeep2to3<K>,
    kept: BTreeMap<PartyIndex, KeepPhase2to3<K>>,
    /// Every signer's commitment to its nonce point, by position.
    nonce_points: BTreeMap<u16, [u8; 32]>,
}

impl Signer {
    /// What all get of the nonce point before anybody opens anything.
    fn nonce_point(&self, position: u16, point: &AffinePoint) -> [u8; 32] {
        let mut body = self.run.execution_id.to_vec();
        body.extend_from_slice(&position.to_be_bytes());
        body.extend_from_slice(point.to_sec1_point(true).as_bytes());
        tags::NONCE_POINT.hash(&body)
    }

    fn echo(&self, nonce_points: &BTreeMap<u16, [u8; 32]>) -> [u8; 32] {
        let mut body = self.run.execution_id.to_vec();
        nonce_points.values().for_each(|commitment| body.extend_from_slice(commitment));
        tags::ECHO.hash(&body)
    }

    fn begin(&mut self) -> Result<Vec<Outgoing>, Abort> {
        let (unique, kept, transmit) = self.party.sign_phase1(&self.data).map_err(|abort| self.abort(&abort))?;
        let nonce_point = self.nonce_point(self.run.index, &unique.instance_point);
        let messages = transmit
            .iter()
            .map(|message| {
                let body = wire::write_first(&nonce_point, message);
                outgoing(0, Some(position_of(message.parties.receiver)), &body)
            })
            .collect();
        self.state = State::Committed(Box::new(Committed { unique, kept }));
        Ok(messages)
    }

    fn multiply(&mut self, committed: Committed, received: &BTreeMap<u16, Body>) -> Result<Vec<Outgoing>, Abort> {
        let Committed { unique, kept } = committed;
        let mut nonce_points = BTreeMap::new();
        nonce_points.insert(self.run.index, self.nonce_point(self.run.index, &unique.instance_point));
        let mut firsts = Vec::with_capacity(received.len());
        for (from, bytes) in received {
            let (nonce_point, first) = wire::read_first(bytes, index_of(*from)?, self.party.party_index)
                .ok_or_else(|| Abort::blaming(*from, "round 0 cannot be read"))?;
            nonce_points.insert(*from, nonce_point);
            firsts.push(first);
        }
        let (unique, kept, transmit) =
            self.party.sign_phase2(&self.data, unique, kept, &firsts).map_err(|abort| self.abort(&abort))?;
        let echo = self.echo(&nonce_points);
        let messages = transmit
            .iter()
            .map(|message| {
                let body = wire::write_second(&echo, message);
                outgoing(1, Some(position_of(message.parties.receiver)), &body)
            })
            .collect();
        self.state = State::Multiplied(Box::new(Multiplied { unique, kept, nonce_points }));
        Ok(messages)
    }

    fn sum(&mut self, multiplied: Multiplied, received: &BTreeMap<u16, Body>) -> Result<Vec<Outgoing>, Abort> {
        let Multiplied { unique, kept, nonce_points } = multiplied;
        let echo = self.echo(&nonce_points);
        let mut seconds = Vec::with_capacity(received.len());
        for (from, bytes) in received {
            let (their_echo, second) = wire::read_second(bytes, index_of(*from)?, self.party.party_index)
                .ok_or_else(|| Abort::blaming(*from, "round 1 cannot be read"))?;
            if their_echo != echo {
                // Whoever told different things to different signers may be a third one.
                return Err(Abort::new("the signers saw different commitments to nonce points"));
            }
            if nonce_points.get(from) != Some(&self.nonce_point(*from, &second.instance_point)) {
                return Err(Abort::blaming(*from, "the nonce point is not the one committed to"));
            }
            seconds.push(second);
        }
        let (r, summands) =
            self.party.sign_phase3(&self.data, unique, kept, &seconds).map_err(|abort| self.abort(&abort))?;
        let mut x = [0; 32];
        hex::decode_to_slice(&r, &mut x).map_err(|_| Abort::new("the library's x coordinate is not 32 bytes"))?;
        let message = outgoing(2, None, &wire::write_third(&summands));
        self.state = State::Summed { r: x, numerator: summands.w, denominator: summands.u };
        Ok(vec![message])
    }

    fn finish(
        &self,
        r: [u8; 32],
        mut numerator: Scalar,
        mut denominator: Scalar,
        received: &BTreeMap<u16, Body>,
    ) -> Result<Outcome, Abort> {
        for (from, bytes) in received {
            let third = wire::read_third(bytes).ok_or_else(|| Abort::blaming(*from, "round 2 cannot be read"))?;
            numerator += third.w;
            denominator += third.u;
        }
        let inverse = Option::<Scalar>::from(denominator.invert())
            .ok_or_else(|| Abort::new("the summands of the denominator add up to 0"))?;
        let s = numerator * inverse;
        let r = generic_ec::Scalar::from_be_bytes_mod_order(r);
        let s = generic_ec::Scalar::from_be_bytes_mod_order(s.to_bytes());
        ecdsa::finish(&self.public_key, self.digest, r, s)
            .map(|bytes| Outcome::Signature(bytes.to_vec()))
            .ok_or_else(|| Abort::new("the signature does not verify under the public key"))
    }

    /// What the library's abort means: whom it names, and whether a consistency check of the multiplication failed.
    fn abort(&self, abort: &LibraryAbort) -> Abort {
        let reason = abort.description();
        let position =
            |index: &PartyIndex| Some(position_of(*index)).filter(|at| *at < self.run.parties && *at != self.run.index);
        if let AbortKind::BanCounterparty(cheater) = &abort.kind {
            return match position(cheater) {
                Some(cheater) => Abort::banning(cheater, reason),
                None => Abort::new(reason),
            };
        }
        match &abort.reason {
            AbortReason::SessionBindingMismatch { counterparty }
            | AbortReason::CommitmentMismatch { counterparty }
            | AbortReason::TrivialInstancePoint { counterparty } => match position(counterparty) {
                Some(culprit) => Abort::blaming(culprit, reason),
                None => Abort::new(reason),
            },
            // The rest is ours, or the sum of what several said.
            _ => Abort::new(reason),
        }
    }
}

/// The position in the run of a library's index.
fn position_of(index: PartyIndex) -> u16 {
    u16::from(index.as_u8()) - 1
}

impl Protocol for Signer {
    fn accept(&mut self, incoming: Incoming) -> Result<(), Abort> {
        self.rounds.accept(incoming)
    }

    fn proceed(&mut self) -> Result<(Vec<Outgoing>, Option<Outcome>), Abort> {
        let mut messages = Vec::new();
        if matches!(self.state, State::Start) {
            messages.extend(self.begin()?);
        }
        while let Some(received) = self.rounds.take() {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Committed(committed) => {
                    messages.extend(self.multiply(*committed, &received)?);
                }
                State::Multiplied(multiplied) => messages.extend(self.sum(*multiplied, &received)?),
                State::Summed { r, numerator, denominator } => {
                    return Ok((messages, Some(self.finish(r, numerator, denominator, &received)?)));
                }
                State::Start | State::Over => return Err(Abort::new("a message after the end of a signature")),
            }
        }
        Ok((messages, None))
    }
}

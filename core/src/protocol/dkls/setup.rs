//! A pair's set-up: base oblivious transfers in both directions, and a seed for shares of zero.
//!
//! ```text
//! round 0, to each other   commitment to a seed; as future receiver of multiplications: proof of the base sender's
//!                          exponent, nonce of the public gadget; as future sender: base receiver's seed, 256 proofs
//! round 1, to each other   the seed and its salt; hash of both messages of round 0
//! ```
//!
//! A member says round 1 only after everything of round 0 has verified, so whoever holds the other's round 1 knows that
//! both hold halves of the same set-up. Nothing that failed here was ever used: a failure ends the run and bans nobody.

use dkls23_core::protocols::PartyIndex;
use dkls23_core::utilities::hashes::HashOutput;
use dkls23_core::utilities::multiplication::{MulReceiver, MulSender};
use dkls23_core::utilities::ot::base::{OTReceiver, OTSender};
use dkls23_core::utilities::proofs::{DLogProof, EncProof};
use dkls23_core::utilities::zero_shares::ZeroShare;
use k256::{AffinePoint, Scalar, Secp256k1};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::pair::Pair;
use super::rounds::{Expected, Rounds, outgoing};
use super::{Driven, Protocol};
use crate::protocol::runner::{self, Kind};
use crate::protocol::{Abort, Incoming, Outcome, Outgoing, Party, Run};
use crate::tags;

/// Bytes of round 0: 256 proofs of 8 points and 6 scalars each, one proof of 65 points, 64 challenges and 64 scalars.
const FIRST_BYTES_MAX: usize = 192 * 1024;
/// Bytes of a seed's salt.
const SALT: usize = 64;
/// Bytes of round 1.
const SECOND_BYTES: usize = 32 + SALT + 32;
/// Most bytes that one member sends the other in a whole run, each message behind the number of its round.
pub(super) const BYTES_MAX: usize = FIRST_BYTES_MAX + SECOND_BYTES + 2;

#[derive(Serialize, Deserialize)]
pub(super) struct First {
    pub seed_commitment: HashOutput,
    pub exponent_proof: DLogProof<Secp256k1>,
    pub gadget_nonce: Scalar,
    pub base_seed: [u8; 32],
    pub choice_proofs: Vec<EncProof<Secp256k1>>,
}

pub(super) fn start(run: Run) -> Result<Box<dyn Party>, Abort> {
    runner::check_positions(&run)?;
    if run.parties != 2 {
        return Err(Abort::new(format!("a set-up among {} parties, expected a pair", run.parties)));
    }
    let expected = vec![
        Expected { kind: Kind::Direct, bytes: 1..=FIRST_BYTES_MAX },
        Expected { kind: Kind::Direct, bytes: SECOND_BYTES..=SECOND_BYTES },
    ];
    Ok(Box::new(Driven(Setup { rounds: Rounds::new(&run, expected), run, state: State::Start })))
}

struct Setup {
    run: Run,
    rounds: Rounds,
    state: State,
}

enum State {
    Start,
    /// Round 0 is said.
    Said(Box<Said>),
    /// Round 0 of the other has verified, round 1 is said.
    Made(Box<Made>),
    Over,
}

struct Said {
    own: Vec<u8>,
    seed: Zeroizing<[u8; 32]>,
    salt: Vec<u8>,
    base_sender: OTSender<Secp256k1>,
    gadget_nonce: Scalar,
    base_receiver: OTReceiver,
    choices: Vec<bool>,
    base_scalars: Vec<Scalar>,
}

impl Drop for Said {
    fn drop(&mut self) {
        self.base_sender.s.zeroize();
        self.choices.zeroize();
        self.base_scalars.zeroize();
    }
}

struct Made {
    seed: Zeroizing<[u8; 32]>,
    their_commitment: HashOutput,
    transcript: [u8; 32],
    rows: [[u8; 32]; 2],
    sender: MulSender<Secp256k1>,
    receiver: MulReceiver<Secp256k1>,
}

impl Setup {
    fn other(&self) -> u16 {
        1 - self.run.index
    }

    /// What the multiplication is bound to in which the member at `position` will be the receiver.
    fn session_of_receiver(&self, position: u16) -> Vec<u8> {
        let purpose = if position == 0 { "dkls23 pair, 0 receives" } else { "dkls23 pair, 1 receives" };
        runner::execution_id(&self.run, purpose)
    }

    /// What a seed's commitment is bound to.
    fn seed_context(&self, from: u16, to: u16) -> Result<HashOutput, Abort> {
        let session = runner::execution_id(&self.run, "dkls23 pair, zero shares");
        Ok(ZeroShare::seed_context(b"mpcium pair", &[&session], party_index(from)?, party_index(to)?))
    }

    fn row(&self, position: u16, first: &[u8]) -> [u8; 32] {
        let mut body = self.run.execution_id.to_vec();
        body.extend_from_slice(&position.to_be_bytes());
        body.extend_from_slice(first);
        tags::PAIR_SETUP.hash(&body)
    }

    fn begin(&self) -> Result<(Said, Outgoing), Abort> {
        let (me, other) = (self.run.index, self.other());
        let (seed, seed_commitment, salt) =
            ZeroShare::generate_seed_with_bound_commitment(&self.seed_context(me, other)?);
        let (base_sender, exponent_proof, gadget_nonce) =
            MulReceiver::<Secp256k1>::init_phase1(&self.session_of_receiver(me));
        let (base_receiver, choices, base_scalars, choice_proofs) =
            MulSender::<Secp256k1>::init_phase1(&self.session_of_receiver(other));
        let first =
            First { seed_commitment, exponent_proof, gadget_nonce, base_seed: base_receiver.seed, choice_proofs };
        let own = postcard::to_stdvec(&first)
            .map_err(|error| Abort::new(format!("own message could not be encoded: {error}")))?;
        let message = outgoing(0, Some(other), &own);
        let seed = Zeroizing::new(seed);
        Ok((Said { own, seed, salt, base_sender, gadget_nonce, base_receiver, choices, base_scalars }, message))
    }

    fn make(&self, mut said: Box<Said>, theirs: &[u8]) -> Result<(Made, Outgoing), Abort> {
        let (me, other) = (self.run.index, self.other());
        let first: First = match postcard::take_from_bytes(theirs) {
            Ok((first, [])) => first,
            _ => return Err(Abort::blaming(other, "the first message of a set-up cannot be read")),
        };
        check_first(&first).map_err(|reason| Abort::blaming(other, reason))?;
        let receiver = MulReceiver::init_phase2(
            &said.base_sender,
            &self.session_of_receiver(me),
            &first.base_seed,
            &first.choice_proofs,
            &said.gadget_nonce,
        )
        .map_err(|error| Abort::blaming(other, format!("set-up as receiver: {}", error.description)))?;
        let sender = MulSender::init_phase2(
            &said.base_receiver,
            &self.session_of_receiver(other),
            std::mem::take(&mut said.choices),
            &said.base_scalars,
            &first.exponent_proof,
            &first.gadget_nonce,
        )
        .map_err(|error| Abort::blaming(other, format!("set-up as sender: {}", error.description)))?;
        let (own_row, their_row) = (self.row(me, &said.own), self.row(other, theirs));
        let rows = if me == 0 { [own_row, their_row] } else { [their_row, own_row] };
        let transcript = tags::PAIR_SETUP.hash(&rows.concat());
        let mut body = Zeroizing::new(Vec::with_capacity(SECOND_BYTES));
        body.extend_from_slice(said.seed.as_slice());
        body.extend_from_slice(&said.salt);
        body.extend_from_slice(&transcript);
        let message = outgoing(1, Some(other), &body);
        let their_commitment = first.seed_commitment;
        let seed = std::mem::take(&mut said.seed);
        Ok((Made { seed, their_commitment, transcript, rows, sender, receiver }, message))
    }

    fn finish(&self, made: Made, theirs: &[u8]) -> Result<Outcome, Abort> {
        let (me, other) = (self.run.index, self.other());
        let malformed = || Abort::blaming(other, "the second message of a set-up cannot be read");
        let (seed, rest) = theirs.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (salt, transcript) = rest.split_first_chunk::<SALT>().ok_or_else(malformed)?;
        if transcript != made.transcript {
            return Err(Abort::blaming(other, "the two members saw different first messages"));
        }
        let context = self.seed_context(other, me)?;
        if !ZeroShare::verify_bound_seed(seed, &context, &made.their_commitment, salt) {
            return Err(Abort::blaming(other, "the seed is not the one committed to"));
        }
        let zero = ZeroShare::generate_seed_pair(party_index(me)?, party_index(other)?, &made.seed, seed);
        let pair = Pair {
            index: u8::try_from(me).map_err(|_| Abort::new("a position above 1"))?,
            rows: made.rows,
            sender: made.sender,
            receiver: made.receiver,
            zero_seed: zero.seed,
        };
        Ok(Outcome::Auxiliary(pair.into_set()?))
    }
}

/// What the library leaves open: points that are the identity, which no honest party sends.
fn check_first(first: &First) -> Result<(), &'static str> {
    let is_identity = |point: &AffinePoint| *point == AffinePoint::IDENTITY;
    let exponent = &first.exponent_proof;
    if is_identity(&exponent.point) || exponent.rand_commitments.iter().any(is_identity) {
        return Err("the identity in the proof of the base sender's exponent");
    }
    for proof in &first.choice_proofs {
        let (u, v) = proof.get_u_and_v();
        if is_identity(&u) || is_identity(&v) {
            return Err("the identity in a proof of the base receiver's choice");
        }
    }
    Ok(())
}

fn party_index(position: u16) -> Result<PartyIndex, Abort> {
    u8::try_from(position + 1)
        .ok()
        .and_then(|index| PartyIndex::new(index).ok())
        .ok_or_else(|| Abort::new(format!("position {position} is no index of the library")))
}

impl Protocol for Setup {
    fn accept(&mut self, incoming: Incoming) -> Result<(), Abort> {
        self.rounds.accept(incoming)
    }

    fn proceed(&mut self) -> Result<(Vec<Outgoing>, Option<Outcome>), Abort> {
        let mut messages = Vec::new();
        if matches!(self.state, State::Start) {
            let (said, message) = self.begin()?;
            self.state = State::Said(Box::new(said));
            messages.push(message);
        }
        while let Some(theirs) = self.rounds.take().and_then(|mut theirs| theirs.remove(&self.other())) {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Said(said) => {
                    let (made, message) = self.make(said, &theirs)?;
                    self.state = State::Made(Box::new(made));
                    messages.push(message);
                }
                State::Made(made) => return Ok((messages, Some(self.finish(*made, &theirs)?))),
                State::Start | State::Over => return Err(Abort::new("a message after the end of a set-up")),
            }
        }
        Ok((messages, None))
    }
}

//! The auxiliary-data run: the library's protocol, and with each decommitment a ring-Pedersen proof at full strength.
//!
//! The proof is checked before the library absorbs the decommitment. That is earlier than before the set is used, and
//! has to be: in the round that follows, this party proves something about its Paillier primes under the other's
//! ring-Pedersen parameters, and bad parameters would uncover them.

use std::marker::PhantomData;

use cggmp24::ExecutionId;
use cggmp24::key_refresh::{KeyRefreshError, Msg};
use cggmp24::key_share::AuxInfo;
use cggmp24::security_level::SecurityLevel;
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::ring_pedersen::{self, Parameters, Proof, Statement, Witness};
use super::rows::{self, Primes, Row};
use super::{modulus_bytes, primes};
use crate::Secret;
use crate::protocol::runner::{self, Guard, Kind, Run as ProtocolRun, SingleRun};
use crate::protocol::{Abort, AuxiliarySet, Outcome, Party, Run};

const PURPOSE: &str = "cggmp24 auxiliary data";

/// The library's message, and with a decommitment the sender's ring-Pedersen proof.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Wire<L: SecurityLevel> {
    pub(super) message: Msg<Sha256, L>,
    pub(super) proof: Option<Proof>,
}

/// Most bytes of one message. The decommitment: 256 numbers of the modulus' size in hexadecimal, the same again in bytes
/// in our proof.
pub(super) fn bytes_max<L: SecurityLevel>() -> usize {
    1024 * (modulus_bytes::<L>() + 16)
}

pub(super) fn start<L: SecurityLevel>(run: Run, ingredient: &[Secret]) -> Result<Box<dyn Party>, Abort> {
    runner::check_positions(&run)?;
    let primes = primes::read_ingredient::<L>(ingredient)?;
    let mut rng = runner::generator(&run, PURPOSE);
    let [_, _, hat_p, hat_q] = &primes;
    // On a copy of the generator: the library draws the same from the original, before anything else.
    let (parameters, witness) = ring_pedersen::draw_as_the_library(&mut rng.clone(), hat_p, hat_q)
        .ok_or_else(|| Abort::new("the ring-Pedersen primes of the ingredient do not fit together"))?;
    let guard = ParametersGuard::<L> {
        proof_rng: runner::generator(&run, "ring-Pedersen proof"),
        run: run.clone(),
        parameters,
        witness,
        level: PhantomData,
    };
    let primes = primes::pregenerated::<L>(primes)?;
    let execution_id = runner::execution_id(&run, PURPOSE);
    let (index, parties) = (run.index, run.parties);
    Ok(Box::new(SingleRun(ProtocolRun::<_, Result<AuxInfo<L>, KeyRefreshError>, Outcome>::new(
        &run,
        guard,
        move |connection| async move {
            cggmp24::aux_info_gen(ExecutionId::new(&execution_id), index, parties, primes)
                .enforce_reliable_broadcast(true)
                .start(&mut rng, connection)
                .await
        },
        move |result, guard| match result {
            Ok(auxiliary) => Ok(Outcome::Auxiliary(guard.set(auxiliary)?)),
            Err(error) => Err(runner::library_abort(&guard.run, &error)),
        },
    ))))
}

pub(super) fn check<L: SecurityLevel>(set: &AuxiliarySet, index: u16) -> Result<(), Abort> {
    let rows = set.rows.iter().map(|row| Row::decode::<L>(row)).collect::<Result<Vec<_>, _>>()?;
    let own = rows
        .get(usize::from(index))
        .ok_or_else(|| Abort::new(format!("an auxiliary set of {} rows, none at position {index}", rows.len())))?;
    Primes::decode(&set.secret)?.check_row(own)
}

struct ParametersGuard<L> {
    run: Run,
    /// What the library must announce as this party's parameters.
    parameters: Parameters,
    witness: Witness,
    proof_rng: ChaCha20Rng,
    level: PhantomData<fn() -> L>,
}

impl<L: SecurityLevel> ParametersGuard<L> {
    fn set(&self, auxiliary: AuxInfo<L>) -> Result<AuxiliarySet, Abort> {
        let auxiliary = auxiliary.into_inner();
        let rows: Vec<Row> = auxiliary
            .N
            .iter()
            .zip(&auxiliary.pedersen_params)
            .map(|(paillier, pedersen)| Row {
                paillier: paillier.clone(),
                pedersen: Parameters { modulus: pedersen.hat_N.clone(), s: pedersen.s.clone(), t: pedersen.t.clone() },
                table: None,
            })
            .collect();
        let primes = Primes { p: auxiliary.p, q: auxiliary.q };
        let set = AuxiliarySet { secret: primes.encode(), rows: rows.iter().map(Row::encode).collect() };
        // Own results go through the same checks as stored ones.
        check::<L>(&set, self.run.index)?;
        Ok(set)
    }
}

impl<L: SecurityLevel> Guard for ParametersGuard<L> {
    type Message = Msg<Sha256, L>;
    type Wire = Wire<L>;

    fn bytes_max(&self) -> usize {
        bytes_max::<L>()
    }

    fn message(wire: &Wire<L>) -> &Self::Message {
        &wire.message
    }

    fn kind(round: u16) -> Option<Kind> {
        // Round1, Round2, Round3, ReliabilityCheck.
        [Kind::Broadcast, Kind::Broadcast, Kind::Direct, Kind::Broadcast].get(usize::from(round)).copied()
    }

    fn admit(&mut self, from: u16, wire: Wire<L>) -> Result<Vec<Self::Message>, Abort> {
        match (&wire.message, &wire.proof) {
            (Msg::Round2(announced), Some(proof)) => {
                for modulus in [&announced.N, &announced.hat_N] {
                    rows::check_modulus::<L>(modulus).map_err(|abort| Abort::blaming(from, abort.reason))?;
                }
                let parameters =
                    Parameters { modulus: announced.hat_N.clone(), s: announced.s.clone(), t: announced.t.clone() };
                let execution_id = &self.run.execution_id;
                let statement = Statement { execution_id, prover: from, parameters: &parameters };
                ring_pedersen::verify(&statement, proof)
                    .map_err(|reason| Abort::blaming(from, format!("ring-Pedersen parameters refused: {reason}")))?;
            }
            (Msg::Round2(_), None) => {
                return Err(Abort::blaming(from, "ring-Pedersen parameters without a proof"));
            }
            (_, Some(_)) => return Err(Abort::blaming(from, "a ring-Pedersen proof in a round that has none")),
            (_, None) => {}
        }
        Ok(vec![wire.message])
    }

    fn release(&mut self, message: Self::Message) -> Result<Wire<L>, Abort> {
        let Msg::Round2(announced) = &message else { return Ok(Wire { message, proof: None }) };
        let Parameters { modulus, s, t } = &self.parameters;
        if announced.hat_N != *modulus || announced.s != *s || announced.t != *t {
            return Err(Abort::new(
                "the library drew ring-Pedersen parameters in another way than expected: no proof of them is possible",
            ));
        }
        let statement =
            Statement { execution_id: &self.run.execution_id, prover: self.run.index, parameters: &self.parameters };
        let proof = ring_pedersen::prove(&statement, &self.witness, &mut self.proof_rng)
            .ok_or_else(|| Abort::new("the ring-Pedersen proof could not be made"))?;
        Ok(Wire { message, proof: Some(proof) })
    }
}

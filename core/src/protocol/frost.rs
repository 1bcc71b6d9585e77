//! FROST: threshold Ed25519 signatures that verify like any other (RFC 9591, ciphersuite FROST(Ed25519, SHA-512)).
//!
//! The message is signed exactly as given, leading zero bytes included.
//!
//! Two things stand around the library. It has no execution id: the link binds messages to their session, and the
//! run's generator has the execution id mixed in, so that no nonce repeats. And it names nobody when a signature
//! comes out wrong: [`culprits`] checks each partial signature. That is only proof if everybody saw the same
//! commitments, otherwise one that told different parties different things could frame an honest one; so each
//! partial signature travels with a hash of the commitments that it was made for.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::{Signature as FinalSignature, VerifyingKey};
use generic_ec::{NonZero, Point, Scalar};
use givre::Ciphersuite;
use givre::ciphersuite::Ed25519 as Suite;
use givre::signing::aggregate::Signature;
use givre::signing::full_signing::{FullSigningError, Msg};
use givre::signing::round1::PublicCommitments;
use key_share::CoreKeyShare;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::runner::{self, Guard, Kind, Run as ProtocolRun, SingleRun};
use super::{Abort, AuxiliarySuite, Curve, Outcome, Pace, Party, Run, Signing, SigningSuite};
use crate::{Duration, tags};

type E = generic_ec::curves::Ed25519;
type Share = CoreKeyShare<E>;

/// Most bytes of one message: two points or a scalar, the echo and lengths.
const BYTES_MAX: usize = 256;

/// Signs on Ed25519: see the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Frost;

impl SigningSuite for Frost {
    fn name(&self) -> &'static str {
        "frost-ed25519"
    }

    fn curve(&self) -> Curve {
        Curve::Ed25519
    }

    fn pace(&self, parties: u16) -> Pace {
        // A millisecond of work; the time goes into messages and queues.
        Pace {
            bytes: 2 * BYTES_MAX,
            progress: Duration::from_secs(10),
            cap: Duration::from_secs(30 + u64::from(parties)),
            heavy: false,
        }
    }

    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        None
    }

    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = verifying_key(public_key) else { return false };
        FinalSignature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
    }

    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        runner::check_positions(&run)?;
        if signing.signers.len() != usize::from(run.parties) {
            return Err(Abort::new(format!("{} signers in a run of {}", signing.signers.len(), run.parties)));
        }
        let own = signing.key.position_among(&signing.signers)?;
        let share: Arc<Share> = signing.key.checked_core::<E>()?;
        if own != run.index {
            let index = run.index;
            return Err(Abort::new(format!("own share is number {own} among the signers, the run says {index}")));
        }
        let public_key =
            verifying_key(&signing.key.public_key).ok_or_else(|| Abort::new("the public key is no Ed25519 key"))?;
        let message: Arc<[u8]> = signing.message.into();
        let guard = CommitmentsGuard {
            run: run.clone(),
            share: share.clone(),
            signers: signing.signers.clone(),
            message: message.clone(),
            commitments: BTreeMap::new(),
            partials: BTreeMap::new(),
            echoes: BTreeMap::new(),
        };
        let mut rng = runner::generator(&run, "frost signing");
        let index = run.index;
        let (signed, signers) = (message.clone(), signing.signers);
        Ok(Box::new(SingleRun(ProtocolRun::<_, Result<Signature<Suite>, FullSigningError>, Outcome>::new(
            &run,
            guard,
            move |connection| async move {
                givre::signing::<Suite>(index, &share, &signers, &signed).sign(&mut rng, connection).await
            },
            move |result, guard| {
                let signature =
                    result.map_err(|error| guard.abort(&runner::library_abort(&guard.run, &error).reason))?;
                let mut bytes = [0; 64];
                signature.write_to_slice(&mut bytes);
                public_key
                    .verify_strict(&message, &FinalSignature::from_bytes(&bytes))
                    .map_err(|_| guard.abort("the signature does not verify under the public key"))?;
                Ok(Outcome::Signature(bytes.to_vec()))
            },
        ))))
    }
}

fn verifying_key(bytes: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()
}

/// The library's message, and with a partial signature the hash of the commitments that it was made for.
#[derive(Serialize, Deserialize)]
struct Wire {
    message: Msg<E>,
    echo: Option<[u8; 32]>,
}

struct CommitmentsGuard {
    run: Run,
    share: Arc<Share>,
    /// Committee positions by positions in the run.
    signers: Vec<u16>,
    message: Arc<[u8]>,
    commitments: BTreeMap<u16, PublicCommitments<E>>,
    partials: BTreeMap<u16, Scalar<E>>,
    echoes: BTreeMap<u16, [u8; 32]>,
}

impl CommitmentsGuard {
    fn echo(&self) -> [u8; 32] {
        let mut body = Sha256::new();
        body.update(self.run.execution_id);
        for (party, commitment) in &self.commitments {
            body.update(party.to_be_bytes());
            body.update(commitment.hiding_comm.to_bytes(true));
            body.update(commitment.binding_comm.to_bytes(true));
        }
        tags::ECHO.hash(&body.finalize())
    }

    fn public_share(&self, party: u16) -> Option<&NonZero<Point<E>>> {
        self.share.public_shares.get(usize::from(*self.signers.get(usize::from(party))?))
    }

    fn abort(&self, reason: &str) -> Abort {
        let own = self.echo();
        if self.echoes.values().any(|echo| *echo != own) {
            return Abort::new(format!("{reason}; the signers were told different nonce commitments"));
        }
        Abort { reason: reason.to_owned(), culprits: self.culprits(), bans: Vec::new() }
    }

    /// Whose partial signature is wrong: `z_i G != D_i + ρ_i E_i + c λ_i Y_i` (RFC 9591, section 5.4).
    fn culprits(&self) -> Vec<u16> {
        let Some(setup) = &self.share.vss_setup else { return Vec::new() };
        let mut by_place = Vec::new();
        for (party, commitment) in &self.commitments {
            let signer = self.signers.get(usize::from(*party));
            let Some(place) = signer.and_then(|signer| setup.I.get(usize::from(*signer))) else { return Vec::new() };
            by_place.push((*place, *party, *commitment));
        }
        by_place.sort_unstable_by_key(|(place, _, _)| *place);

        let public_key = self.share.shared_public_key;
        let message_hash = Suite::h4().chain_update(&self.message).finalize();
        let mut list_hash = Suite::h5();
        for (place, _, commitment) in &by_place {
            list_hash.update(Suite::serialize_scalar(place));
            list_hash.update(Suite::serialize_point(&commitment.hiding_comm));
            list_hash.update(Suite::serialize_point(&commitment.binding_comm));
        }
        let list_hash = list_hash.finalize();
        let factor = |place: &NonZero<Scalar<E>>| {
            let key = Suite::serialize_point(&public_key);
            Suite::h1(&[key.as_ref(), &message_hash, &list_hash, Suite::serialize_scalar(place).as_ref()])
        };
        let group_commitment: Point<E> = by_place
            .iter()
            .map(|(place, _, commitment)| commitment.hiding_comm + commitment.binding_comm * factor(place))
            .sum();
        let challenge = Suite::compute_challenge(
            &Suite::normalize_point(group_commitment),
            &Suite::normalize_point(public_key),
            &self.message,
        );

        let mut wrong = Vec::new();
        for (place, party, commitment) in &by_place {
            let (Some(partial), Some(public_share)) = (self.partials.get(party), self.public_share(*party)) else {
                continue;
            };
            // The Lagrange coefficient of this signer at zero.
            let mut lambda = Scalar::<E>::one();
            for (other, _, _) in by_place.iter().filter(|(other, _, _)| other != place) {
                let Some(inverse) = (other.into_inner() - place.into_inner()).invert() else { return Vec::new() };
                lambda = lambda * other.into_inner() * inverse;
            }
            let expected = commitment.hiding_comm
                + commitment.binding_comm * factor(place)
                + public_share.into_inner() * (challenge * lambda);
            if Point::generator() * partial != expected && *party != self.run.index {
                wrong.push(*party);
            }
        }
        wrong
    }
}

impl Guard for CommitmentsGuard {
    type Message = Msg<E>;
    type Wire = Wire;

    fn bytes_max(&self) -> usize {
        BYTES_MAX
    }

    fn message(wire: &Wire) -> &Msg<E> {
        &wire.message
    }

    fn kind(round: u16) -> Option<Kind> {
        (round < 2).then_some(Kind::Broadcast)
    }

    fn admit(&mut self, from: u16, wire: Wire) -> Result<Vec<Msg<E>>, Abort> {
        match (&wire.message, wire.echo) {
            (Msg::Round1(commitments), None) => {
                // RFC 9591, section 3.1: the identity is no valid group element.
                if commitments.hiding_comm.is_zero() || commitments.binding_comm.is_zero() {
                    return Err(Abort::blaming(from, "a nonce commitment is the identity"));
                }
                self.commitments.insert(from, *commitments);
            }
            (Msg::Round2(partial), Some(echo)) => {
                self.partials.insert(from, partial.0);
                self.echoes.insert(from, echo);
            }
            (Msg::Round1(_), Some(_)) => return Err(Abort::blaming(from, "an echo with nonce commitments")),
            (Msg::Round2(_), None) => return Err(Abort::blaming(from, "a partial signature without an echo")),
        }
        Ok(vec![wire.message])
    }

    fn release(&mut self, message: Msg<E>) -> Result<Wire, Abort> {
        let echo = match &message {
            Msg::Round1(commitments) => {
                self.commitments.insert(self.run.index, *commitments);
                None
            }
            Msg::Round2(partial) => {
                self.partials.insert(self.run.index, partial.0);
                Some(self.echo())
            }
        };
        Ok(Wire { message, echo })
    }
}

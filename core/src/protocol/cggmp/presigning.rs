//! Presignatures: the library's protocol up to its last round, made before there is a message, and that last round.
//!
//! Invariant: a presignature signs one message. It exists only in the memory of the process that made it, cannot be
//! copied, and is consumed by the partial signature; and what it signs is hashed here from the whole message.

use cggmp24::ExecutionId;
use cggmp24::security_level::SecurityLevel;
use cggmp24::signing::{
    DataToSign, PartialSignature, Presignature as LibraryPresignature, PresignaturePublicData, SigningError,
};
use futures_util::SinkExt;
use generic_ec::Point;
use generic_ec::curves::Secp256k1;
use mpcium_client::MessageHash;
use round_based::rounds_router::{RoundsRouter, simple_store::RoundInput};
use round_based::{Delivery, Mpc, MpcParty, ProtocolMessage};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::signing::{self, Prepared};
use crate::protocol::runner::{self, Connection, Guard, Kind, Run as ProtocolRun, SingleRun};
use crate::protocol::{Abort, Outcome, Party, Preimage, Presignature, Presigning, Run, ecdsa};

type E = Secp256k1;

const PURPOSE: &str = "cggmp24 presigning";

type Presigned = (LibraryPresignature<E>, PresignaturePublicData<E>);

pub(super) fn start<L: SecurityLevel>(run: Run, presigning: Presigning) -> Result<Box<dyn Party>, Abort> {
    let Presigning { key, signers, auxiliary } = presigning;
    let Prepared { guard, public_key, share, execution_id } =
        signing::prepare::<L>(&run, PURPOSE, &key, &signers, auxiliary, None)?;
    let mut rng = runner::generator(&run, PURPOSE);
    let (index, parties) = (run.index, run.parties);
    Ok(Box::new(SingleRun(ProtocolRun::<_, Result<Presigned, SigningError>, Outcome>::new(
        &run,
        guard,
        move |connection| async move {
            let positions: Vec<u16> = (0..parties).collect();
            cggmp24::signing(ExecutionId::new(&execution_id), index, &positions, &share)
                .enforce_reliable_broadcast(true)
                .generate_presignature(&mut rng, connection)
                .await
        },
        move |result, guard| {
            let (secret, public) = result.map_err(|error| guard.abort(&error))?;
            Ok(Outcome::Presignature(Box::new(CggmpPresignature { index, public_key, secret, public })))
        },
    ))))
}

/// One party's part of a presignature. Not `Clone`: two messages under it uncover the key.
struct CggmpPresignature {
    index: u16,
    public_key: Point<E>,
    secret: LibraryPresignature<E>,
    public: PresignaturePublicData<E>,
}

impl Presignature for CggmpPresignature {
    fn sign(self: Box<Self>, run: Run, preimage: &Preimage) -> Result<Box<dyn Party>, Abort> {
        let Self { index, public_key, secret, public } = *self;
        runner::check_positions(&run)?;
        if run.index != index || usize::from(run.parties) != public.commitments.len() {
            let parties = public.commitments.len();
            return Err(Abort::new(format!("a presignature of party {index} of {parties}, used in {run:?}")));
        }
        let data = data_to_sign(preimage);
        // Refuses a digest that is not below the order: the library would reduce it.
        if ecdsa::digest(&preimage.digest())? != data.to_scalar() {
            return Err(Abort::new("the library hashes the message to another digest"));
        }
        let own = secret.issue_partial_signature(data);
        let guard = PartialsGuard { run: run.clone(), data, public: public.clone() };
        Ok(Box::new(SingleRun(ProtocolRun::<_, Result<Vec<PartialSignature<E>>, String>, Outcome>::new(
            &run,
            guard,
            move |connection| exchange(connection, index, run.parties, own),
            move |result, _| {
                let partials = result.map_err(Abort::new)?;
                let signature = PartialSignature::combine(&partials, &public, data)
                    .ok_or_else(|| Abort::new("the partial signatures do not make a signature"))?;
                ecdsa::finish(&public_key, data.to_scalar(), signature.r.into_inner(), signature.s.into_inner())
                    .map(|bytes| Outcome::Signature(bytes.to_vec()))
                    .ok_or_else(|| Abort::new("the signature does not verify under the public key"))
            },
        ))))
    }
}

/// The library takes only what it has hashed itself.
fn data_to_sign(preimage: &Preimage) -> DataToSign<E> {
    let message = &preimage.message;
    match preimage.hash {
        MessageHash::Sha256 => DataToSign::digest::<Sha256>(message),
        MessageHash::Sha256d => DataToSign::digest::<Sha256>(&Sha256::digest(message)),
        MessageHash::Keccak256 => DataToSign::digest::<sha3::Keccak256>(message),
    }
}

/// The one round: everybody says its partial signature.
#[derive(Clone, ProtocolMessage, Serialize, Deserialize)]
enum Message {
    Partial(Partial),
}

#[derive(Clone, Serialize, Deserialize)]
struct Partial(PartialSignature<E>);

/// Exchanges partial signatures; all of them, in the order of the parties.
async fn exchange(
    connection: Connection<Message>,
    index: u16,
    parties: u16,
    own: PartialSignature<E>,
) -> Result<Vec<PartialSignature<E>>, String> {
    let MpcParty { delivery, .. } = connection.into_party();
    let (incoming, mut outgoing) = delivery.split();
    let mut rounds = RoundsRouter::<Message>::builder();
    let round = rounds.add_round(RoundInput::<Partial>::broadcast(index, parties));
    let mut rounds = rounds.listen(incoming);
    let message = round_based::Outgoing::broadcast(Message::Partial(Partial(own)));
    outgoing.send(message).await.map_err(|error| error.to_string())?;
    let heard = rounds.complete(round).await.map_err(|error| error.to_string())?;
    Ok(heard.into_vec_including_me(Partial(own)).into_iter().map(|partial| partial.0).collect())
}

/// Lets a partial signature through only if it fits what its sender committed to when the presignature was made.
struct PartialsGuard {
    run: Run,
    data: DataToSign<E>,
    public: PresignaturePublicData<E>,
}

impl PartialsGuard {
    fn fits(&self, from: u16, partial: &PartialSignature<E>) -> bool {
        let Some(commitment) = self.public.commitments.get(usize::from(from)) else { return false };
        let Some(r) = ecdsa::x_mod_order(&self.public.Gamma) else { return false };
        self.public.Gamma * partial.sigma == commitment.tilde_Delta * self.data.to_scalar() + commitment.tilde_S * r
    }
}

impl Guard for PartialsGuard {
    type Message = Message;
    type Wire = Message;

    fn bytes_max(&self) -> usize {
        256
    }

    fn message(wire: &Message) -> &Message {
        wire
    }

    fn kind(round: u16) -> Option<Kind> {
        (round == 0).then_some(Kind::Broadcast)
    }

    fn admit(&mut self, from: u16, message: Message) -> Result<Vec<Message>, Abort> {
        let Message::Partial(Partial(partial)) = &message;
        if !self.fits(from, partial) {
            return Err(Abort::blaming(from, "its partial signature is not the one that its presignature commits to"));
        }
        Ok(vec![message])
    }

    fn release(&mut self, message: Message) -> Result<Message, Abort> {
        let Message::Partial(Partial(partial)) = &message;
        // An own one that does not fit would be taken for cheating.
        if !self.fits(self.run.index, partial) {
            return Err(Abort::new("the own partial signature does not fit the presignature"));
        }
        Ok(message)
    }
}

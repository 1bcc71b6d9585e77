//! An in-process network for parties of one run: every message goes through a function that may change, repeat or
//! drop it.
//!
//! The file that includes this one brings `protocol` into scope under the name `api`, so that unit tests inside the
//! crate and behaviour tests outside of it share this code.

use std::collections::VecDeque;
use std::sync::Arc;

use k256::elliptic_curve::ff::PrimeField as _;
use k256::elliptic_curve::sec1::ToSec1Point as _;
use k256::{ProjectivePoint, Scalar};

use super::api::{Abort, Incoming, KeyShare, Outcome, Party, Run, Status};

/// One message on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who sent it.
    pub from: u16,
    /// Whom it goes to.
    pub to: u16,
    /// How many messages `from` has sent to `to` before this one.
    pub number: usize,
    /// Whether all others get the same.
    pub broadcast: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

/// How a party ended; `None`: it still waits for messages.
pub type End = Option<Result<Outcome, Abort>>;

/// Runs the parties until no message is on its way. `meddle` gives back what really arrives for each message sent.
pub fn pump(mut parties: Vec<Box<dyn Party>>, mut meddle: impl FnMut(Envelope) -> Vec<Envelope>) -> Vec<End> {
    let count = u16::try_from(parties.len()).expect("few parties");
    let mut ends: Vec<End> = parties.iter().map(|_| None).collect();
    let mut sent = vec![vec![0; parties.len()]; parties.len()];
    let mut queue = VecDeque::new();
    let mut work: VecDeque<(u16, Vec<Incoming>)> = (0..count).map(|party| (party, Vec::new())).collect();
    loop {
        while let Some((party, inbox)) = work.pop_front() {
            let at = usize::from(party);
            if ends[at].is_some() {
                continue;
            }
            let step = parties[at].advance(inbox);
            for outgoing in step.messages {
                for to in (0..count).filter(|to| *to != party && outgoing.to.is_none_or(|one| one == *to)) {
                    let number = sent[at][usize::from(to)];
                    sent[at][usize::from(to)] += 1;
                    let broadcast = outgoing.to.is_none();
                    let bytes = outgoing.bytes.clone();
                    queue.extend(meddle(Envelope { from: party, to, number, broadcast, bytes }));
                }
            }
            ends[at] = match step.status {
                Status::Waiting => None,
                Status::Done(outcome) => Some(Ok(outcome)),
                Status::Failed(abort) => Some(Err(abort)),
            };
        }
        let Some(Envelope { from, to, broadcast, bytes, .. }) = queue.pop_front() else { return ends };
        work.push_back((to, vec![Incoming { from, broadcast, bytes }]));
    }
}

/// Runs the parties over a perfect network and expects every one to finish.
pub fn pump_honestly(parties: Vec<Box<dyn Party>>) -> Vec<Outcome> {
    pump(parties, |envelope| vec![envelope])
        .into_iter()
        .map(|end| end.expect("the party waits for ever").expect("the party failed"))
        .collect()
}

/// The bindings of all parties of one run, deterministic in `occasion`.
pub fn runs(parties: u16, occasion: u8) -> Vec<Run> {
    (0..parties)
        .map(|index| {
            let mut seed = [occasion; 32];
            seed[0] = u8::try_from(index).expect("few parties");
            seed[1] = 0xa5;
            Run { execution_id: [occasion; 32], index, parties, seed }
        })
        .collect()
}

/// New shares of the same key on secp256k1 for so many members, of whom so many sign: what is left of it after another
/// committee has taken it over.
#[allow(dead_code, reason = "not every target that includes this file deals keys anew")]
pub fn dealt_anew(shares: &[Arc<KeyShare>], members: u16, threshold: u16) -> Vec<Arc<KeyShare>> {
    let place = |position: u16| Scalar::from(u64::from(position) + 1);
    let signers = &shares[..usize::from(shares[0].threshold)];
    let key = signers.iter().fold(Scalar::ZERO, |sum, own| {
        let secret = Scalar::from_repr(<[u8; 32]>::try_from(own.secret.expose()).expect("32 bytes").into());
        let others = signers.iter().filter(|other| other.index != own.index).map(|other| place(other.index));
        let coefficient = others.fold(Scalar::ONE, |product, other| {
            product * other * (other - place(own.index)).invert().expect("different places")
        });
        sum + secret.expect("below the order") * coefficient
    });
    // The coefficients above the constant one are as good as any.
    let secret_at = |position: u16| {
        (1..threshold)
            .rev()
            .fold(Scalar::ZERO, |sum, degree| (sum + Scalar::from(u64::from(degree) + 77)) * place(position))
            + key
    };
    let public =
        |secret: &Scalar| (ProjectivePoint::GENERATOR * secret).to_affine().to_sec1_point(true).as_bytes().to_vec();
    let public_shares: Vec<Vec<u8>> = (0..members).map(|position| public(&secret_at(position))).collect();
    let of = |index: u16| KeyShare {
        curve: shares[0].curve,
        threshold,
        index,
        secret: mpcium_core::Secret::new(secret_at(index).to_bytes().to_vec()),
        public_key: shares[0].public_key.clone(),
        public_shares: public_shares.clone(),
        checked: Default::default(),
    };
    (0..members).map(|index| Arc::new(of(index))).collect()
}

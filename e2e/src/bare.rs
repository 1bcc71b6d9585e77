//! The yardstick: the protocols' libraries as they come, without any code of this project. All parties are in this
//! process, messages are handed over as values, keys and auxiliary data come from a dealer (what they cost is not
//! measured). What an operation costs through a cluster is compared to what it costs here.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use cggmp24::{
    ExecutionId,
    backend::Integer,
    key_share::{DirtyAuxInfo, PedersenParams, Validate as _},
    security_level::SecurityLevel128,
    signing::PrehashedDataToSign,
};
use cggmp24_keygen::KeygenBuilder;
use dkls23_core::protocols::{
    Parameters, Party, PartyIndex, re_key::re_key, sign_session::SignSession, signing::SignData,
};
use generic_ec::curves::{Ed25519, Secp256k1};
use key_share::CoreKeyShare;
use mpcium_core::protocol::{Curve, EcdsaProtocol};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use round_based::{
    Incoming, MessageDestination, MessageType,
    state_machine::{ProceedResult, StateMachine, wrap_protocol},
};
use serde::Serialize;
use sha2::Sha256;

/// Safe primes of one party's auxiliary data for CGGMP24.
const PRIMES_EACH: usize = 4;

/// One committee of the libraries' own parties.
pub struct Bare {
    members: u16,
    threshold: u16,
    ecdsa: Ecdsa,
    ed25519: Vec<CoreKeyShare<Ed25519>>,
    occasion: u64,
    /// Bytes of the messages that all parties sent, if they are counted.
    bytes: Option<usize>,
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bare({} of {})", self.threshold, self.members)
    }
}

enum Ecdsa {
    Cggmp24(Vec<cggmp24::KeyShare<Secp256k1, SecurityLevel128>>),
    Dkls23(Vec<Party<k256::Secp256k1>>),
}

impl Bare {
    /// Makes keys and auxiliary data, for CGGMP24 from a file of safe primes.
    ///
    /// # Errors
    /// If the file is not what it should be, or key generation fails.
    pub fn make(ecdsa: EcdsaProtocol, members: u16, threshold: u16, primes: &Path) -> Result<Self, String> {
        let mut bare = Self {
            members,
            threshold,
            ecdsa: Ecdsa::Dkls23(Vec::new()),
            ed25519: Vec::new(),
            occasion: 0,
            bytes: None,
        };
        bare.ed25519 = bare.generate::<Ed25519>()?;
        bare.ecdsa = match ecdsa {
            EcdsaProtocol::Dkls23 => {
                let parameters = Parameters::new(small(threshold)?, small(members)?).map_err(|e| e.to_string())?;
                let secret = k256::Scalar::from(0x5eed_u64);
                let (parties, _) = re_key::<k256::Secp256k1>(&parameters, b"bench", &secret, None, |_| String::new());
                Ecdsa::Dkls23(parties)
            }
            EcdsaProtocol::Cggmp24 => {
                let auxiliary = deal(&read_primes(primes)?, usize::from(members))?;
                let cores = bare.generate::<Secp256k1>()?;
                let shares = cores.into_iter().zip(auxiliary).map(|(core, auxiliary)| {
                    let auxiliary = auxiliary.validate().map_err(|invalid| invalid.into_error().to_string())?;
                    cggmp24::KeyShare::from_parts((core, auxiliary)).map_err(|invalid| invalid.into_error().to_string())
                });
                Ecdsa::Cggmp24(shares.collect::<Result<_, String>>()?)
            }
        };
        Ok(bare)
    }

    /// Makes one signature with the first members.
    ///
    /// # Errors
    /// If the protocol fails.
    pub fn sign(&mut self, curve: Curve, message: [u8; 32]) -> Result<(), String> {
        let (eid, mut rngs) = self.occasion();
        let positions: Vec<u16> = (0..self.threshold).collect();
        match (curve, &self.ecdsa) {
            (Curve::Ed25519, _) => {
                let parties = positions.iter().zip(&self.ed25519).zip(&mut rngs).map(|((index, share), rng)| {
                    let signing = givre::signing::<givre::ciphersuite::Ed25519>(*index, share, &positions, &message);
                    wrap_protocol(move |party| signing.sign(rng, party))
                });
                run(parties.collect(), &mut self.bytes).map(drop)
            }
            (Curve::Secp256k1, Ecdsa::Cggmp24(shares)) => {
                let digest = PrehashedDataToSign::from_scalar(generic_ec::Scalar::from_be_bytes_mod_order(message));
                let parties = positions.iter().zip(shares).zip(&mut rngs).map(|((index, share), rng)| {
                    cggmp24::signing(ExecutionId::new(&eid), *index, &positions, share).sign_sync(rng, &digest)
                });
                run(parties.collect(), &mut self.bytes).map(drop)
            }
            (Curve::Secp256k1, Ecdsa::Dkls23(parties)) => {
                let signers = parties.get(..usize::from(self.threshold)).ok_or("fewer parties than sign")?;
                sign_dkls23(signers, &eid, message, &mut self.bytes)
            }
        }
    }

    /// Makes the keys of one wallet on both curves.
    ///
    /// # Errors
    /// If the protocol fails.
    pub fn make_wallet(&mut self) -> Result<(), String> {
        self.generate::<Secp256k1>()?;
        self.generate::<Ed25519>().map(drop)
    }

    /// Does something once and returns the bytes that all parties sent: each message once for each recipient, encoded
    /// with postcard.
    ///
    /// # Errors
    /// Whatever it returns.
    pub fn bytes_of(&mut self, what: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<usize, String> {
        self.bytes = Some(0);
        let outcome = what(self);
        let bytes = self.bytes.take().unwrap_or_default();
        outcome.map(|()| bytes)
    }

    fn generate<E: generic_ec::Curve>(&mut self) -> Result<Vec<CoreKeyShare<E>>, String> {
        let (eid, mut rngs) = self.occasion();
        let (members, threshold) = (self.members, self.threshold);
        let parties = (0..members).zip(&mut rngs).map(|(index, rng)| {
            KeygenBuilder::<E, SecurityLevel128, Sha256>::new(ExecutionId::new(&eid), index, members)
                .set_threshold(threshold)
                .into_state_machine(rng)
        });
        run(parties.collect(), &mut self.bytes)
    }

    /// A fresh execution id, and a generator for each party.
    fn occasion(&mut self) -> ([u8; 32], Vec<ChaCha20Rng>) {
        self.occasion += 1;
        let mut eid = [0; 32];
        eid[..8].copy_from_slice(&self.occasion.to_le_bytes());
        let seed = |index: u16| {
            let mut seed = eid;
            seed[8..10].copy_from_slice(&index.to_le_bytes());
            seed[31] = 1;
            seed
        };
        (eid, (0..self.members).map(|index| ChaCha20Rng::from_seed(seed(index))).collect())
    }
}

/// The library's three rounds among these signers, and its last phase at each of them.
fn sign_dkls23(
    signers: &[Party<k256::Secp256k1>],
    sign_id: &[u8; 32],
    message_hash: [u8; 32],
    bytes: &mut Option<usize>,
) -> Result<(), String> {
    let failed = |abort: dkls23_core::protocols::Abort| abort.description();
    let (mut sessions, mut firsts) = (Vec::new(), BTreeMap::<PartyIndex, Vec<_>>::new());
    for party in signers {
        let others = signers.iter().map(|other| other.party_index).filter(|index| *index != party.party_index);
        let data = SignData { sign_id: sign_id.to_vec(), counterparties: others.collect(), message_hash };
        let (session, sent) = SignSession::new(party, data).map_err(failed)?;
        sessions.push((party.party_index, session));
        for message in sent {
            count(bytes, &message, 1)?;
            firsts.entry(message.parties.receiver).or_default().push(message);
        }
    }
    let mut seconds = BTreeMap::<PartyIndex, Vec<_>>::new();
    for (index, session) in &mut sessions {
        for message in session.phase2(firsts.get(index).map_or(&[], Vec::as_slice)).map_err(failed)? {
            count(bytes, &message, 1)?;
            seconds.entry(message.parties.receiver).or_default().push(message);
        }
    }
    let mut summands = Vec::new();
    for (index, session) in &mut sessions {
        let message = session.phase3(seconds.get(index).map_or(&[], Vec::as_slice)).map_err(failed)?;
        count(bytes, &message, signers.len() - 1)?;
        summands.push(message);
    }
    sessions.into_iter().try_for_each(|(_, session)| session.phase4(&summands, true).map(drop).map_err(failed))
}

/// Lets parties talk until all are done.
fn run<S, O, E>(mut parties: Vec<S>, bytes: &mut Option<usize>) -> Result<Vec<O>, String>
where
    S: StateMachine<Output = Result<O, E>>,
    S::Msg: Clone + Serialize,
    E: std::fmt::Display,
{
    let number = parties.len();
    let mut outcomes: Vec<Option<O>> = parties.iter().map(|_| None).collect();
    let mut inboxes: Vec<VecDeque<Incoming<S::Msg>>> = parties.iter().map(|_| VecDeque::new()).collect();
    let mut waits = vec![false; number];
    let mut id = 0;
    while outcomes.iter().any(Option::is_none) {
        let mut moved = false;
        for at in 0..number {
            while outcomes[at].is_none() {
                if waits[at] {
                    let Some(message) = inboxes[at].pop_front() else { break };
                    parties[at].received_msg(message).map_err(|_| "a party takes no message")?;
                    waits[at] = false;
                }
                moved = true;
                match parties[at].proceed() {
                    ProceedResult::SendMsg(sent) => {
                        let (msg_type, to) = match sent.recipient {
                            MessageDestination::AllParties => (MessageType::Broadcast, None),
                            MessageDestination::OneParty(to) => (MessageType::P2P, Some(usize::from(to))),
                        };
                        let recipients = (0..number).filter(|other| *other != at && to.is_none_or(|to| to == *other));
                        count(bytes, &sent.msg, recipients.clone().count())?;
                        for other in recipients {
                            id += 1;
                            let sender = u16::try_from(at).map_err(|error| error.to_string())?;
                            inboxes[other].push_back(Incoming { id, sender, msg_type, msg: sent.msg.clone() });
                        }
                    }
                    ProceedResult::NeedsOneMoreMessage => waits[at] = true,
                    ProceedResult::Yielded => {}
                    ProceedResult::Output(outcome) => {
                        outcomes[at] = Some(outcome.map_err(|error| error.to_string())?);
                    }
                    ProceedResult::Error(error) => return Err(error.to_string()),
                }
            }
        }
        if !moved {
            return Err("a party waits for ever".to_owned());
        }
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// Adds a message's bytes, if they are counted.
fn count(bytes: &mut Option<usize>, message: &impl Serialize, recipients: usize) -> Result<(), String> {
    if let Some(bytes) = bytes {
        *bytes += recipients * postcard::to_stdvec(message).map_err(|error| error.to_string())?.len();
    }
    Ok(())
}

/// Auxiliary data of CGGMP24 for all members, as a dealer would hand it out.
fn deal(primes: &[Integer], members: usize) -> Result<Vec<DirtyAuxInfo<SecurityLevel128>>, String> {
    if primes.len() < PRIMES_EACH {
        return Err(format!("{} primes are too few for one member, which needs {PRIMES_EACH}", primes.len()));
    }
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let (mut own, mut moduli, mut pedersen) = (Vec::new(), Vec::new(), Vec::new());
    // Where there are too few, members have the same: it costs as much.
    for four in primes.chunks_exact(PRIMES_EACH).cycle().take(members) {
        let [p, q, hat_p, hat_q] = four else { continue };
        let hat_n = hat_p * hat_q;
        let root = Integer::sample_in_mult_group_of(&mut rng, &hat_n);
        let t = &(&root * &root) % &hat_n;
        let exponent = hat_n.random_below_ref(&mut rng);
        let s = t.pow_mod_ref(&exponent, &hat_n).ok_or("no power of t")?;
        own.push((p.clone(), q.clone()));
        moduli.push(p * q);
        pedersen.push(PedersenParams { hat_N: hat_n, s, t, multiexp: None, crt: None });
    }
    let of = |(p, q)| DirtyAuxInfo {
        p,
        q,
        N: moduli.clone(),
        pedersen_params: pedersen.clone(),
        security_level: std::marker::PhantomData,
    };
    Ok(own.into_iter().map(of).collect())
}

fn read_primes(path: &Path) -> Result<Vec<Integer>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| hex::decode(line).map_err(|error| format!("{}: {error}", path.display())))
        .map(|digits| digits.map(|digits| Integer::from_bytes_msf(&digits)))
        .collect()
}

fn small(number: u16) -> Result<u8, String> {
    u8::try_from(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_sign_and_make_keys_by_themselves() {
        let mut bare = Bare::make(EcdsaProtocol::Dkls23, 3, 2, Path::new("unused")).expect("made");
        for curve in Curve::ALL {
            let bytes = bare.bytes_of(|bare| bare.sign(curve, [7; 32])).expect("signed");
            assert!(bytes > 0, "{curve:?}");
        }
        bare.make_wallet().expect("made");
    }

    #[test]
    fn the_dealt_auxiliary_data_signs() {
        let mut bare = Bare::make(EcdsaProtocol::Cggmp24, 2, 2, &crate::programs::test_primes()).expect("made");
        bare.sign(Curve::Secp256k1, [7; 32]).expect("signed");
    }
}

//! Ideal signing: commit to a nonce contribution, prove the auxiliary data, reveal the contribution, reveal the
//! weighted share. The last round is the one that completes the signature, as in the real protocols.
//!
//! Where every pair of nodes has auxiliary data of its own, the proof has two parts: an echo of what everybody committed
//! to, which names nobody if it differs, and a check value that only the sender can have got wrong: that bans the pair.

use std::sync::Arc;

use mpcium_core::protocol::{
    Abort, AuxiliarySuite, AuxiliaryView, Coverage, Curve, KeyShare, Outcome, Pace, Party, Presigning, PresigningSuite,
    Run, Signing, SigningSuite,
};
use sha2::{Digest as _, Sha256};

use crate::planted::Planted;

use super::{
    IdealAuxiliary, Reveal, Witness,
    curve::{Scalar, lagrange, other_s, sign, verifies},
    pace, presigning,
    rounds::{Next, RoundParty, Rounds},
};

/// What a run says that ended because a check on a pair's auxiliary data failed.
pub const CHECK_FAILED: &str = "the check of a pair's auxiliary data failed";

/// Signs with real signatures after revealing everything to the other signers.
#[derive(Debug)]
pub struct IdealSigning {
    curve: Curve,
    auxiliary: Option<IdealAuxiliary>,
    witness: Arc<Witness>,
    planted: Option<Planted>,
}

impl IdealSigning {
    /// On `curve`, with or without auxiliary data, and perhaps with a bug.
    #[must_use]
    pub fn new(
        curve: Curve,
        auxiliary: Option<IdealAuxiliary>,
        witness: Arc<Witness>,
        planted: Option<Planted>,
    ) -> Self {
        Self { curve, auxiliary, witness, planted }
    }
}

impl SigningSuite for IdealSigning {
    fn name(&self) -> &'static str {
        match self.curve {
            Curve::Secp256k1 => "ideal secp256k1",
            Curve::Ed25519 => "ideal ed25519",
        }
    }

    fn curve(&self) -> Curve {
        self.curve
    }

    fn pace(&self, _: u16) -> Pace {
        pace()
    }

    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        self.auxiliary.as_ref().map(|suite| suite as &dyn AuxiliarySuite)
    }

    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        if self.planted == Some(Planted::HighS)
            && self.curve == Curve::Secp256k1
            && let Some(other) = other_s(signature)
        {
            return verifies(self.curve, public_key, message, &other);
        }
        let curve = self.name().as_bytes();
        let inputs = [b"verify".as_slice(), curve, public_key, message, signature];
        self.witness.once(&inputs, || vec![u8::from(verifies(self.curve, public_key, message, signature))]) == [1]
    }

    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        self.check(&run, &signing.key, &signing.signers, &signing.auxiliary)?;
        if self.curve == Curve::Secp256k1 && signing.message.len() != 32 {
            return Err(Abort::new(format!("a digest has 32 bytes, not {}", signing.message.len())));
        }
        self.witness.run(&run);
        self.witness.signing(&signing.message);
        let mut contribution: [u8; 32] = Sha256::digest([b"nonce".as_slice(), &run.seed].concat()).into();
        if self.planted == Some(Planted::NonceOfMessage) {
            let parts = [b"nonce".as_slice(), signing.key.secret.expose(), &signing.message];
            contribution = Sha256::digest(parts.concat()).into();
        }
        self.witness.secret(&contribution);
        let party = IdealSigningParty {
            run: run.clone(),
            signing,
            pairs: self.is_pairwise(),
            contribution,
            stage: 0,
            commitments: Vec::new(),
            nonce: None,
            witness: self.witness.clone(),
            planted: self.planted,
        };
        Ok(Box::new(RoundParty::new(&run, party)?))
    }

    fn presigning(&self) -> Option<&dyn PresigningSuite> {
        (self.curve == Curve::Secp256k1 && !self.is_pairwise()).then_some(self)
    }
}

impl PresigningSuite for IdealSigning {
    fn pace(&self, _: u16) -> Pace {
        pace()
    }

    fn start(&self, run: Run, presigning: Presigning) -> Result<Box<dyn Party>, Abort> {
        self.check(&run, &presigning.key, &presigning.signers, &presigning.auxiliary)?;
        presigning::start(&run, presigning, self.witness.clone(), self.planted)
    }
}

impl IdealSigning {
    fn is_pairwise(&self) -> bool {
        self.auxiliary.as_ref().is_some_and(|suite| suite.coverage() == Coverage::Pairs)
    }

    /// Whether everything fits together.
    fn check(&self, run: &Run, key: &KeyShare, signers: &[u16], auxiliary: &[AuxiliaryView]) -> Result<(), Abort> {
        if key.curve != self.curve {
            return Err(Abort::new("the key is of another curve"));
        }
        if signers.len() != usize::from(key.threshold) || signers.len() != usize::from(run.parties) {
            return Err(Abort::new(format!(
                "{} signers and {} parties for a threshold of {}",
                signers.len(),
                run.parties,
                key.threshold
            )));
        }
        if signers.get(usize::from(run.index)) != Some(&key.index) {
            return Err(Abort::new("this party's share is not at its place among the signers"));
        }
        let mut distinct = signers.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != signers.len()
            || distinct.last().is_some_and(|last| usize::from(*last) >= key.public_shares.len())
        {
            return Err(Abort::new("the signers are not distinct members"));
        }
        match (&self.auxiliary, auxiliary.first()) {
            _ if self.is_pairwise() => check_pairs(run, auxiliary),
            (Some(_), None) => Err(Abort::new("auxiliary data is missing")),
            (None, Some(_)) => Err(Abort::new("auxiliary data that nobody needs")),
            (Some(_), Some(view)) if view.rows.len() != signers.len() => {
                Err(Abort::new("auxiliary rows do not fit the signers"))
            }
            (Some(_), Some(view))
                if view.rows.get(usize::from(run.index)) != Some(&IdealAuxiliary::row(view.secret.expose())) =>
            {
                Err(Abort::new("the auxiliary secret does not belong to this signer's row"))
            }
            _ => Ok(()),
        }
    }
}

/// One view for each other signer, in their order, with the own secret at the own place.
fn check_pairs(run: &Run, views: &[AuxiliaryView]) -> Result<(), Abort> {
    let others: Vec<u16> = (0..run.parties).filter(|position| *position != run.index).collect();
    if views.len() != others.len() {
        return Err(Abort::new(format!("{} pairs for {} signers", views.len(), run.parties)));
    }
    for (other, view) in others.iter().zip(views) {
        let own = usize::from(run.index > *other);
        if view.rows.len() != 2 || view.rows.get(own) != Some(&IdealAuxiliary::row(view.secret.expose())) {
            return Err(Abort::new("the auxiliary secret does not belong to this signer's row of the pair"));
        }
    }
    Ok(())
}

struct IdealSigningParty {
    run: Run,
    signing: Signing,
    /// Whether every pair has auxiliary data of its own.
    pairs: bool,
    contribution: [u8; 32],
    stage: u8,
    commitments: Vec<Vec<u8>>,
    nonce: Option<Scalar>,
    witness: Arc<Witness>,
    planted: Option<Planted>,
}

impl IdealSigningParty {
    fn curve(&self) -> Curve {
        self.signing.key.curve
    }

    fn token(&self, from: usize, to: usize) -> Vec<u8> {
        let Self { run, signing, contribution, commitments, .. } = self;
        token(run, &signing.message, (contribution, commitments), &signing.auxiliary, (from, to))
    }

    /// An echo of what everybody committed to.
    fn echo(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(self.run.execution_id);
        for (position, commitment) in self.commitments.iter().enumerate() {
            let own = position == usize::from(self.run.index);
            let of_own = Sha256::digest(self.contribution);
            hash.update(if own { of_own.as_slice() } else { commitment });
        }
        hash.finalize().to_vec()
    }

    /// What only the two members of a pair can say to each other in this run.
    fn check_value(&self, from: usize, to: usize) -> Vec<u8> {
        let me = usize::from(self.run.index);
        let other = if from == me { to } else { from };
        let at = other - usize::from(other > me);
        let mut hash = Sha256::new();
        hash.update(b"check");
        hash.update(self.run.execution_id);
        hash.update(&self.signing.message);
        for row in self.signing.auxiliary.get(at).into_iter().flat_map(|view| &view.rows) {
            hash.update(row);
        }
        hash.update(from.to_be_bytes());
        hash.update(to.to_be_bytes());
        hash.finalize().to_vec()
    }

    /// Looks at what the others say of the auxiliary data that they share with this signer.
    fn check_tokens(&self, heard: &[Vec<u8>]) -> Result<(), Abort> {
        let me = usize::from(self.run.index);
        let others = || heard.iter().enumerate().filter(|(from, _)| *from != me);
        if !self.pairs {
            return if others().any(|(from, token)| *token != self.token(from, me)) {
                // Whoever sent it, or whoever told the two of us different things.
                Err(Abort::new("the others sign something else, or were told something else"))
            } else {
                Ok(())
            };
        }
        let echo = self.echo();
        for (from, token) in others() {
            let culprit = u16::try_from(from).unwrap_or(u16::MAX);
            let Some((their_echo, value)) = token.split_at_checked(echo.len()) else {
                return Err(Abort::blaming(culprit, "a token that is too short"));
            };
            if value != self.check_value(from, me) {
                return Err(Abort::banning(culprit, CHECK_FAILED));
            }
            if their_echo != echo {
                return Err(Abort::new("the others were told something else"));
            }
        }
        Ok(())
    }
}

/// Everything that the last round needs.
pub(super) struct Last<'a> {
    pub(super) run: &'a Run,
    pub(super) key: &'a KeyShare,
    pub(super) signers: &'a [u16],
    pub(super) message: &'a [u8],
    pub(super) nonce: Scalar,
    pub(super) witness: &'a Witness,
    pub(super) planted: Option<Planted>,
}

impl Last<'_> {
    /// Puts the shares together that everybody revealed.
    pub(super) fn finish(&self, heard: &[Vec<u8>]) -> Result<Next, Abort> {
        let Self { run, key, signers, message, nonce, witness, planted } = *self;
        let curve = key.curve;
        // The committee position of a participant, as the polynomial's argument.
        let arguments: Vec<u64> = signers.iter().map(|position| u64::from(*position) + 1).collect();
        let own = Scalar::parse(curve, key.secret.expose()).ok_or_else(|| Abort::new("the own share is no scalar"))?;
        let mut shares = Vec::with_capacity(heard.len());
        for (position, body) in heard.iter().enumerate() {
            if position == usize::from(run.index) {
                shares.push(own);
                continue;
            }
            let culprit = u16::try_from(position).unwrap_or(u16::MAX);
            witness.absorb(run.execution_id, culprit);
            shares.push(Scalar::parse(curve, body).ok_or_else(|| Abort::blaming(culprit, "the share is no scalar"))?);
        }
        let secret = shares
            .iter()
            .zip(&arguments)
            .fold(Scalar::small(curve, 0), |sum, (share, x)| sum.plus(share.times(lagrange(curve, *x, &arguments))));
        if secret.public() != key.public_key {
            let wrong = shares
                .iter()
                .zip(signers)
                .position(|(share, signer)| key.public_shares.get(usize::from(*signer)) != Some(&share.public()));
            return Err(match wrong.and_then(|position| u16::try_from(position).ok()) {
                Some(culprit) => Abort::blaming(culprit, "the share does not belong to its public share"),
                None => Abort::new("the shares do not add up to the key"),
            });
        }
        let inputs = [b"sign".as_slice(), &key.public_key, &nonce.bytes(), message];
        let signature = witness.once(&inputs, || sign(secret, nonce, &key.public_key, message).unwrap_or_default());
        if signature.is_empty() {
            return Err(Abort::new("the signature cannot be computed"));
        }
        let other = if planted == Some(Planted::HighS) { other_s(&signature) } else { None };
        Ok(Next::Done(Outcome::Signature(other.unwrap_or(signature))))
    }
}

/// What binds auxiliary data, message and run together for one pair of signers, and echoes what everybody committed to,
/// so that nobody is told something else than the others.
pub(super) fn token(
    run: &Run,
    message: &[u8],
    (contribution, commitments): (&[u8; 32], &[Vec<u8>]),
    auxiliary: &[AuxiliaryView],
    (from, to): (usize, usize),
) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(run.execution_id);
    hash.update(message);
    for (position, commitment) in commitments.iter().enumerate() {
        let own = position == usize::from(run.index);
        let of_own = Sha256::digest(contribution);
        hash.update(if own { of_own.as_slice() } else { commitment });
    }
    for row in auxiliary.iter().flat_map(|view| &view.rows) {
        hash.update(row);
    }
    hash.update(from.to_be_bytes());
    hash.update(to.to_be_bytes());
    hash.finalize().to_vec()
}

/// The nonce that everybody's contributions make, if they are those that were committed to.
pub(super) fn nonce(
    curve: Curve,
    me: usize,
    contribution: &[u8; 32],
    heard: &[Vec<u8>],
    commitments: &[Vec<u8>],
) -> Result<Scalar, Abort> {
    let mut parts: Vec<&[u8]> = vec![b"nonce"];
    for (position, (body, promised)) in heard.iter().zip(commitments).enumerate() {
        if position == me {
            parts.push(contribution);
            continue;
        }
        if Sha256::digest(body).as_slice() != promised.as_slice() {
            let culprit = u16::try_from(position).unwrap_or(u16::MAX);
            return Err(Abort::blaming(culprit, "the contribution is not the one committed to"));
        }
        parts.push(body);
    }
    Ok(Scalar::hashed(curve, &parts))
}

impl Rounds for IdealSigningParty {
    fn next(&mut self, heard: &[Vec<u8>]) -> Result<Next, Abort> {
        self.stage += 1;
        let me = usize::from(self.run.index);
        if self.pairs {
            self.signing.auxiliary.iter().for_each(|view| self.witness.pair_used(&view.rows));
        }
        match self.stage {
            1 => Ok(Next::Broadcast(Sha256::digest(self.contribution).to_vec())),
            2 => {
                self.commitments = heard.to_vec();
                let token = |to| match self.pairs {
                    false => self.token(me, to),
                    true if to == me => Vec::new(),
                    true => [self.echo(), self.check_value(me, to)].concat(),
                };
                Ok(Next::Each((0..usize::from(self.run.parties)).map(token).collect()))
            }
            3 => {
                self.check_tokens(heard)?;
                let purpose: [u8; 32] =
                    Sha256::digest([self.run.execution_id.as_slice(), &self.signing.message].concat()).into();
                self.witness.nonce(self.contribution, purpose);
                Ok(Next::Broadcast(self.contribution.to_vec()))
            }
            4 => {
                self.nonce = Some(nonce(self.curve(), me, &self.contribution, heard, &self.commitments)?);
                self.witness.reveal(Reveal {
                    execution: self.run.execution_id,
                    position: self.run.index,
                    message: self.signing.message.clone(),
                });
                Ok(Next::Broadcast(self.signing.key.secret.expose().to_vec()))
            }
            _ => Last {
                run: &self.run,
                key: &self.signing.key,
                signers: &self.signing.signers,
                message: &self.signing.message,
                nonce: self.nonce.ok_or_else(|| Abort::new("no nonce"))?,
                witness: &self.witness,
                planted: self.planted,
            }
            .finish(heard),
        }
    }

    fn is_broadcast(&self, round: u8) -> bool {
        round != 1
    }

    fn rounds(&self) -> u8 {
        4
    }
}

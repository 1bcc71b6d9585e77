//! Ideal presignatures: commit to a nonce contribution, prove the auxiliary data, reveal the contribution, all without a
//! message; and later the one round that signs, in which the weighted shares are revealed.

use std::sync::Arc;

use mpcium_core::protocol::{Abort, Outcome, Party, Preimage, Presignature, Presigning, Run};
use sha2::{Digest as _, Sha256};

use super::{
    Reveal, Witness,
    curve::Scalar,
    rounds::{Next, RoundParty, Rounds},
    signing::{Last, nonce, token},
};
use crate::planted::Planted;

pub(super) fn start(
    run: &Run,
    presigning: Presigning,
    witness: Arc<Witness>,
    planted: Option<Planted>,
) -> Result<Box<dyn Party>, Abort> {
    witness.run(run);
    let mut contribution: [u8; 32] = Sha256::digest([b"presignature".as_slice(), &run.seed].concat()).into();
    if planted == Some(Planted::PresignatureKept) {
        // What a store would do that gives a used presignature out again, after a restart too.
        let parts = [b"presignature".as_slice(), presigning.key.secret.expose()];
        contribution = Sha256::digest(parts.concat()).into();
    }
    witness.secret(&contribution);
    let party = PresigningParty {
        run: run.clone(),
        presigning,
        contribution,
        stage: 0,
        commitments: Vec::new(),
        witness,
        planted,
    };
    Ok(Box::new(RoundParty::new(run, party)?))
}

struct PresigningParty {
    run: Run,
    presigning: Presigning,
    contribution: [u8; 32],
    stage: u8,
    commitments: Vec<Vec<u8>>,
    witness: Arc<Witness>,
    planted: Option<Planted>,
}

impl PresigningParty {
    /// There is no message yet.
    fn token(&self, from: usize, to: usize) -> Vec<u8> {
        let Self { run, presigning, contribution, commitments, .. } = self;
        token(run, &[], (contribution, commitments), &presigning.auxiliary, (from, to))
    }
}

impl Rounds for PresigningParty {
    fn next(&mut self, heard: &[Vec<u8>]) -> Result<Next, Abort> {
        self.stage += 1;
        let me = usize::from(self.run.index);
        match self.stage {
            1 => Ok(Next::Broadcast(Sha256::digest(self.contribution).to_vec())),
            2 => {
                self.commitments = heard.to_vec();
                Ok(Next::Each((0..usize::from(self.run.parties)).map(|to| self.token(me, to)).collect()))
            }
            3 => {
                if (0..heard.len()).any(|from| from != me && heard.get(from) != Some(&self.token(from, me))) {
                    return Err(Abort::new("the others were told something else"));
                }
                Ok(Next::Broadcast(self.contribution.to_vec()))
            }
            _ => {
                let curve = self.presigning.key.curve;
                let presignature = IdealPresignature {
                    index: self.run.index,
                    nonce: nonce(curve, me, &self.contribution, heard, &self.commitments)?,
                    presigning: self.presigning.clone(),
                    contribution: self.contribution,
                    witness: self.witness.clone(),
                    planted: self.planted,
                };
                Ok(Next::Done(Outcome::Presignature(Box::new(presignature))))
            }
        }
    }

    fn is_broadcast(&self, round: u8) -> bool {
        round != 1
    }

    fn rounds(&self) -> u8 {
        3
    }
}

struct IdealPresignature {
    index: u16,
    presigning: Presigning,
    contribution: [u8; 32],
    nonce: Scalar,
    witness: Arc<Witness>,
    planted: Option<Planted>,
}

impl Presignature for IdealPresignature {
    fn sign(self: Box<Self>, run: Run, preimage: &Preimage) -> Result<Box<dyn Party>, Abort> {
        if run.index != self.index || usize::from(run.parties) != self.presigning.signers.len() {
            return Err(Abort::new("the presignature is of another place"));
        }
        self.witness.run(&run);
        let message = preimage.digest().to_vec();
        self.witness.signing(&message);
        let purpose: [u8; 32] = Sha256::digest([run.execution_id.as_slice(), &message].concat()).into();
        self.witness.nonce(self.contribution, purpose);
        let party = OnlineParty { run: run.clone(), presignature: *self, message, revealed: false };
        Ok(Box::new(RoundParty::new(&run, party)?))
    }
}

struct OnlineParty {
    run: Run,
    presignature: IdealPresignature,
    message: Vec<u8>,
    revealed: bool,
}

impl Rounds for OnlineParty {
    fn next(&mut self, heard: &[Vec<u8>]) -> Result<Next, Abort> {
        let IdealPresignature { presigning, nonce, witness, planted, .. } = &self.presignature;
        if !self.revealed {
            self.revealed = true;
            witness.reveal(Reveal {
                execution: self.run.execution_id,
                position: self.run.index,
                message: self.message.clone(),
            });
            return Ok(Next::Broadcast(presigning.key.secret.expose().to_vec()));
        }
        let last = Last {
            run: &self.run,
            key: &presigning.key,
            signers: &presigning.signers,
            message: &self.message,
            nonce: *nonce,
            witness,
            planted: *planted,
        };
        last.finish(heard)
    }

    fn is_broadcast(&self, _: u8) -> bool {
        true
    }

    fn rounds(&self) -> u8 {
        1
    }
}

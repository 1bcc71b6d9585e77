//! Ideal auxiliary data: a row is the hash of the member's secret. One set for a committee, or one for each pair.

use std::sync::Arc;

use mpcium_core::{
    Secret,
    protocol::{Abort, AuxiliarySet, AuxiliarySuite, Coverage, Outcome, Pace, Party, Run},
};
use sha2::{Digest as _, Sha256};

use super::{
    Witness, pace,
    rounds::{Next, RoundParty, Rounds},
};

/// Pieces per ingredient, where a set is for a committee.
const PIECES: u16 = 2;

/// Makes rows that only the owner of the secret can show to be his.
#[derive(Clone, Debug)]
pub struct IdealAuxiliary {
    coverage: Coverage,
    witness: Arc<Witness>,
}

impl IdealAuxiliary {
    /// With the cluster's witness.
    #[must_use]
    pub fn new(coverage: Coverage, witness: Arc<Witness>) -> Self {
        Self { coverage, witness }
    }

    /// The public row of a secret.
    #[must_use]
    pub fn row(secret: &[u8]) -> Vec<u8> {
        Sha256::digest([b"row".as_slice(), secret].concat()).to_vec()
    }
}

impl AuxiliarySuite for IdealAuxiliary {
    fn coverage(&self) -> Coverage {
        self.coverage
    }

    fn pace(&self, _: u16) -> Pace {
        pace()
    }

    fn ingredient_pieces(&self) -> u16 {
        match self.coverage {
            Coverage::Committee => PIECES,
            Coverage::Pairs => 0,
        }
    }

    fn make_ingredient_piece(&self, seed: [u8; 32]) -> Secret {
        let piece = Sha256::digest([b"piece".as_slice(), &seed].concat()).to_vec();
        self.witness.secret(&piece);
        Secret::new(piece)
    }

    fn start(&self, run: Run, ingredient: Vec<Secret>) -> Result<Box<dyn Party>, Abort> {
        let pieces = self.ingredient_pieces();
        if ingredient.len() != usize::from(pieces) {
            return Err(Abort::new(format!("an ingredient has {pieces} pieces, not {}", ingredient.len())));
        }
        if self.coverage == Coverage::Pairs && run.parties != 2 {
            return Err(Abort::new(format!("{} parties are no pair", run.parties)));
        }
        self.witness.run(&run);
        let joined: Vec<u8> = match self.coverage {
            Coverage::Committee => ingredient.iter().flat_map(|piece| piece.expose().iter().copied()).collect(),
            Coverage::Pairs => [b"pair".as_slice(), &run.seed].concat(),
        };
        let secret = Sha256::digest(joined).to_vec();
        self.witness.secret(&secret);
        let pairs = (self.coverage == Coverage::Pairs).then(|| self.witness.clone());
        let (index, row) = (run.index, Self::row(&secret));
        let party = IdealAuxiliaryParty { index, row, secret, stage: 0, rows: Vec::new(), pairs };
        Ok(Box::new(RoundParty::new(&run, party)?))
    }

    fn check(&self, set: &AuxiliarySet, index: u16) -> Result<(), Abort> {
        if set.rows.get(usize::from(index)) == Some(&Self::row(set.secret.expose())) {
            Ok(())
        } else {
            Err(Abort::new(format!("the secret does not belong to row {index}")))
        }
    }
}

struct IdealAuxiliaryParty {
    index: u16,
    secret: Vec<u8>,
    row: Vec<u8>,
    stage: u8,
    rows: Vec<Vec<u8>>,
    /// Who is told of a finished pair.
    pairs: Option<Arc<Witness>>,
}

impl IdealAuxiliaryParty {
    fn all_rows(&self, heard: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let me = usize::from(self.index);
        heard.iter().enumerate().map(|(p, row)| if p == me { self.row.clone() } else { row.clone() }).collect()
    }
}

impl Rounds for IdealAuxiliaryParty {
    fn next(&mut self, heard: &[Vec<u8>]) -> Result<Next, Abort> {
        self.stage += 1;
        match self.stage {
            1 => Ok(Next::Broadcast(Sha256::digest(&self.row).to_vec())),
            2 => {
                self.rows = heard.to_vec();
                Ok(Next::Broadcast(self.row.clone()))
            }
            3 => {
                for (position, (row, promised)) in heard.iter().zip(&self.rows).enumerate() {
                    if position != usize::from(self.index) && Sha256::digest(row).as_slice() != promised.as_slice() {
                        let culprit = u16::try_from(position).unwrap_or(u16::MAX);
                        return Err(Abort::blaming(culprit, "the row is not the one committed to"));
                    }
                }
                self.rows = self.all_rows(heard);
                let token = Sha256::digest(self.rows.concat()).to_vec();
                Ok(Next::Each(vec![token; self.rows.len()]))
            }
            _ => {
                if let Some(witness) = &self.pairs {
                    witness.pair_made(&self.rows);
                }
                Ok(Next::Done(Outcome::Auxiliary(AuxiliarySet {
                    secret: Secret::new(std::mem::take(&mut self.secret)),
                    rows: std::mem::take(&mut self.rows),
                })))
            }
        }
    }

    fn is_broadcast(&self, round: u8) -> bool {
        round < 2
    }

    fn rounds(&self) -> u8 {
        3
    }
}

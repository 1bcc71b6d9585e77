//! What one member keeps of a pair's set-up, and its encoding in a set's secret.

use std::sync::Arc;

use dkls23_core::utilities::multiplication::{MulReceiver, MulSender};
use k256::Secp256k1;
use serde::{Deserialize, Serialize};

use crate::Secret;
use crate::protocol::{Abort, AuxiliarySet, AuxiliaryView, Opened};

/// Bytes of an encoded [`Pair`] at most: 8 kB of seeds for one direction, 16 kB for the other, 13 kB of public gadget
/// for each.
const BYTES_MAX: usize = 64 * 1024;

/// One member's half of a pair's set-up.
#[derive(Serialize, Deserialize)]
pub(super) struct Pair {
    /// This member's position among the two.
    pub index: u8,
    /// Both rows, so that a secret cannot be used with the rows of another set.
    pub rows: [[u8; 32]; 2],
    /// For multiplications in which this member is the sender.
    pub sender: MulSender<Secp256k1>,
    /// For multiplications in which this member is the receiver.
    pub receiver: MulReceiver<Secp256k1>,
    /// What both derive shares of zero from.
    pub zero_seed: [u8; 32],
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The library's parts erase themselves.
        zeroize::Zeroize::zeroize(&mut self.zero_seed);
    }
}

impl Pair {
    /// The set as core keeps it.
    pub fn into_set(self) -> Result<AuxiliarySet, Abort> {
        let secret = postcard::to_stdvec(&self)
            .map_err(|error| Abort::new(format!("the set-up of a pair could not be encoded: {error}")))?;
        Ok(AuxiliarySet { secret: Secret::new(secret), rows: self.rows.iter().map(|row| row.to_vec()).collect() })
    }

    /// The half that a signer is given: as it was read before, or from its encoding.
    pub fn of(view: &AuxiliaryView) -> Result<Arc<Self>, Abort> {
        match view.opened.as_ref().and_then(Opened::get::<Self>) {
            Some(pair) if pair.belongs_to(&view.rows) => Ok(pair),
            Some(_) => Err(Abort::new("the secret of a pair's set-up does not belong to its rows")),
            None => Self::read(&view.secret, &view.rows).map(Arc::new),
        }
    }

    fn belongs_to(&self, rows: &[Vec<u8>]) -> bool {
        self.rows.iter().map(<[u8; 32]>::as_slice).eq(rows.iter().map(Vec::as_slice))
    }

    /// Reads a half and checks that it belongs to these rows and has the sizes that the library relies on.
    pub fn read(secret: &Secret, rows: &[Vec<u8>]) -> Result<Self, Abort> {
        let bytes = secret.expose();
        if bytes.len() > BYTES_MAX {
            return Err(Abort::new(format!("a pair's set-up of {} bytes, at most {BYTES_MAX}", bytes.len())));
        }
        let pair: Self = match postcard::take_from_bytes(bytes) {
            Ok((pair, [])) => pair,
            _ => return Err(Abort::new("a pair's set-up cannot be read")),
        };
        if pair.index > 1 {
            return Err(Abort::new(format!("position {} in a pair", pair.index)));
        }
        if !pair.belongs_to(rows) {
            return Err(Abort::new("the secret of a pair's set-up does not belong to its rows"));
        }
        pair.sender
            .check_state()
            .and_then(|()| pair.receiver.check_state(None))
            .map_err(|error| Abort::new(format!("a malformed set-up of a pair: {}", error.description)))?;
        Ok(pair)
    }
}

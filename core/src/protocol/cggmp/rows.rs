//! What is stored of auxiliary data: one public row per member, and this member's two Paillier primes.
//!
//! The encoding is canonical, so that all honest members hold the same bytes: numbers are big-endian without leading
//! zeros, each after its length in two bytes. A row is the Paillier modulus and the ring-Pedersen modulus, `s` and `t`.

use std::sync::Arc;

use cggmp24::backend::Integer;
use cggmp24::key_share::{AuxInfo, DirtyAuxInfo, PedersenParams, Validate};
use cggmp24::security_level::SecurityLevel;
use paillier_zk::multiexp::MultiexpTable;
use zeroize::Zeroizing;

use super::ring_pedersen::Parameters;
use crate::Secret;
use crate::protocol::Abort;

/// One member's public auxiliary data.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The Paillier modulus.
    pub(super) paillier: Integer,
    /// The ring-Pedersen parameters.
    pub(super) pedersen: Parameters,
    /// Powers of `s` and `t`, where they were computed in advance; no part of what is stored.
    pub(super) table: Option<Arc<MultiexpTable>>,
}

/// One member's Paillier primes. Not `Debug`.
pub(super) struct Primes {
    pub(super) p: Integer,
    pub(super) q: Integer,
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { paillier, pedersen: Parameters { modulus, s, t }, .. } = self;
        encode(&[paillier, modulus, s, t])
    }

    pub(super) fn decode<L: SecurityLevel>(bytes: &[u8]) -> Result<Self, Abort> {
        let [paillier, modulus, s, t] = decode(bytes, "a row of auxiliary data")?;
        for number in [&paillier, &modulus] {
            check_modulus::<L>(number)?;
        }
        for number in [&s, &t] {
            if !number.in_mult_group_of(&modulus) {
                return Err(Abort::new("a row of auxiliary data whose s or t is not in its group"));
            }
        }
        Ok(Self { paillier, pedersen: Parameters { modulus, s, t }, table: None })
    }

    pub(super) fn library_parameters(&self) -> PedersenParams {
        let Parameters { modulus, s, t } = self.pedersen.clone();
        PedersenParams { hat_N: modulus, s, t, multiexp: self.table.clone(), crt: None }
    }
}

/// Bounds a modulus from both sides: a smaller one is weak, a larger one costs everybody time.
pub(super) fn check_modulus<L: SecurityLevel>(modulus: &Integer) -> Result<(), Abort> {
    let (least, most) = (u64::from(L::RSA_PUBKEY_BITLEN), 2 * u64::from(L::RSA_PRIME_BITLEN));
    let bits = modulus.significant_bits();
    if modulus.cmp0().is_le() || modulus.is_even() || !(least..=most).contains(&bits) {
        return Err(Abort::new(format!("a modulus of {bits} bits, expected an odd one of {least} to {most}")));
    }
    Ok(())
}

impl Primes {
    pub(super) fn encode(&self) -> Secret {
        Secret::new(encode(&[&self.p, &self.q]))
    }

    pub(super) fn decode(secret: &Secret) -> Result<Self, Abort> {
        let [p, q] = decode(secret.expose(), "the secret of an auxiliary set")?;
        Ok(Self { p, q })
    }

    /// Whether these primes make the row's Paillier modulus.
    pub(super) fn check_row(&self, row: &Row) -> Result<(), Abort> {
        if self.p.is_one() || self.q.is_one() || &self.p * &self.q != row.paillier {
            return Err(Abort::new("the secret of the auxiliary set does not belong to this member's row"));
        }
        Ok(())
    }
}

/// The library's form of auxiliary data for the members whose rows are given, in their order.
pub(super) fn library_auxiliary<L: SecurityLevel>(primes: Primes, rows: &[Row]) -> Result<AuxInfo<L>, Abort> {
    DirtyAuxInfo {
        p: primes.p,
        q: primes.q,
        N: rows.iter().map(|row| row.paillier.clone()).collect(),
        pedersen_params: rows.iter().map(Row::library_parameters).collect(),
        security_level: std::marker::PhantomData,
    }
    .validate()
    .map_err(|invalid| Abort::new(format!("malformed auxiliary data: {}", invalid.into_error())))
}

fn encode(numbers: &[&Integer]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let digits = Zeroizing::new(number.to_bytes_msf());
        // Numbers here have at most a few thousand bits.
        let length = u16::try_from(digits.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&digits);
    }
    bytes
}

fn decode<const N: usize>(mut bytes: &[u8], what: &str) -> Result<[Integer; N], Abort> {
    let malformed = || Abort::new(format!("{what} is not {N} canonical numbers"));
    let mut numbers = Vec::with_capacity(N);
    for _ in 0..N {
        let (length, rest) = bytes.split_first_chunk::<2>().ok_or_else(malformed)?;
        let (digits, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(malformed)?;
        if digits.first().is_none_or(|first| *first == 0) {
            return Err(malformed());
        }
        numbers.push(Integer::from_bytes_msf(digits));
        bytes = rest;
    }
    if !bytes.is_empty() {
        return Err(malformed());
    }
    numbers.try_into().map_err(|_| malformed())
}

//! Tables of powers of the ring-Pedersen parameters, with which the library computes `s^x t^y` several times faster.
//!
//! The library fills such a table by one exponentiation per entry, each longer than the one before: 16 seconds for three
//! members. Here every entry is the one before it raised to the 256th power, which gives the same table in a
//! fiftieth of the time, cheap enough to be made anew at every start instead of being stored. The library's type has no
//! constructor for that, so it is decoded from an encoding of the same layout; the library's version is pinned
//! exactly, every table is tried before it is used, and a test compares with plain exponentiation.

use std::sync::Arc;

use cggmp24::backend::Integer;
use cggmp24::security_level::{SecurityLevel, max_exponents_size};
use paillier_zk::multiexp::MultiexpTable;
use serde::Serialize;

use super::ring_pedersen::Parameters;
use super::rows::Row;

/// Encodes like [`MultiexpTable`].
#[derive(Serialize)]
struct Layout<'a> {
    s: Vec<Integer>,
    ell_x: Integer,
    s_to_ell_x: Integer,
    t: Vec<Integer>,
    ell_y: Integer,
    t_to_ell_y: Integer,
    modulus: &'a Integer,
}

/// The tables of a set's rows, each with the parameters that it is for. Nothing in them is secret.
pub(super) struct Tables(Vec<(Parameters, Arc<MultiexpTable>)>);

impl Tables {
    /// Makes the tables of these rows; `None` if one is malformed or the library's layout is not the expected one.
    pub(super) fn make<L: SecurityLevel>(rows: &[Vec<u8>]) -> Option<Self> {
        let (x_bits, y_bits) = max_exponents_size::<L>();
        let of = |row: &Vec<u8>| {
            let parameters = Row::decode::<L>(row).ok()?.pedersen;
            let table = table(&parameters, x_bits, y_bits)?;
            Some((parameters, Arc::new(table)))
        };
        rows.iter().map(of).collect::<Option<_>>().map(Self)
    }

    /// The table for exactly these parameters.
    pub(super) fn of(&self, parameters: &Parameters) -> Option<Arc<MultiexpTable>> {
        self.0.iter().find(|(of, _)| of == parameters).map(|(_, table)| table.clone())
    }
}

fn table(parameters: &Parameters, x_bits: u32, y_bits: u32) -> Option<MultiexpTable> {
    let Parameters { modulus, s, t } = parameters;
    let half = |base: &Integer, bits: u32| {
        let digits = bits / 8 + 1;
        let lowest = -(Integer::one() << (digits * 8)) + Integer::one();
        let at_lowest = base.pow_mod_ref(&lowest, modulus)?;
        Some((powers(base, digits, modulus), lowest, at_lowest))
    };
    let ((s_powers, ell_x, s_to_ell_x), (t_powers, ell_y, t_to_ell_y)) = (half(s, x_bits)?, half(t, y_bits)?);
    let layout = Layout { s: s_powers, ell_x, s_to_ell_x, t: t_powers, ell_y, t_to_ell_y, modulus };
    let table: MultiexpTable = postcard::from_bytes(&postcard::to_allocvec(&layout).ok()?).ok()?;
    let (most, least) = (Integer::one() << (x_bits - 1), -(Integer::one() << (y_bits - 1)));
    let expected = (s.pow_mod_ref(&most, modulus)? * t.pow_mod_ref(&least, modulus)?) % modulus;
    (table.prod_exp(&most, &least)? == expected).then_some(table)
}

/// `base` to the powers of 256, from the 0th on.
fn powers(base: &Integer, count: u32, modulus: &Integer) -> Vec<Integer> {
    let mut powers = Vec::with_capacity(count as usize);
    let mut power = base.clone() % modulus;
    for _ in 0..count {
        powers.push(power.clone());
        for _ in 0..8 {
            power = power.square() % modulus;
        }
    }
    powers
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_table_gives_what_exponentiation_gives_and_is_the_librarys_own() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut modulus = Integer::random_bits(600, &mut rng);
        modulus.set_bit(0, true).set_bit(599, true);
        let coprime = |rng: &mut ChaCha20Rng| loop {
            let number = Integer::random_below_ref(&modulus, rng);
            if number.gcd_ref(&modulus).is_one() {
                return number;
            }
        };
        let (s, t) = (coprime(&mut rng), coprime(&mut rng));
        let parameters = Parameters { modulus: modulus.clone(), s: s.clone(), t: t.clone() };
        let ours = table(&parameters, 880, 1183).expect("fits");
        let theirs = MultiexpTable::build(&s, &t, 880, 1183, modulus.clone()).expect("fits");
        assert_eq!(ours.max_exponents_size(), theirs.max_exponents_size());
        assert_eq!(ours.size_in_bytes(), theirs.size_in_bytes());
        for round in 0..40 {
            let mut x = Integer::random_bits(880 - 20 * round, &mut rng);
            let mut y = Integer::random_bits(1183 - 25 * round, &mut rng);
            if round % 2 == 1 {
                x = -x;
            }
            if round % 3 == 1 {
                y = -y;
            }
            let plain = (s.pow_mod_ref(&x, &modulus).unwrap() * t.pow_mod_ref(&y, &modulus).unwrap()) % &modulus;
            assert_eq!(ours.prod_exp(&x, &y), Some(plain.clone()));
            assert_eq!(theirs.prod_exp(&x, &y), Some(plain));
        }
    }
}

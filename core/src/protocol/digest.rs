//! What a client's `tx` bytes mean for a curve: the border between bytes from outside and what a suite signs.
//!
//! On secp256k1 the bytes are an unsigned big-endian integer, which *is* the digest: nothing here hashes. A verifier
//! uses the integer left-padded to 32 bytes.

use std::fmt;

/// The order of secp256k1, big-endian (SEC 2, version 2, section 2.4.1).
const SECP256K1_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// Why bytes are no secp256k1 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidDigest {
    /// Without its leading zeros the integer has this many bytes, more than 32.
    TooLong(usize),
    /// The integer is not less than the order of the curve.
    NotBelowOrder,
}

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => {
                write!(f, "a secp256k1 digest has at most 32 bytes after leading zeros, got {bytes}")
            }
            Self::NotBelowOrder => f.write_str("a secp256k1 digest must be less than the order of the curve"),
        }
    }
}

impl std::error::Error for InvalidDigest {}

/// The 32-byte digest that `tx` stands for on secp256k1: an integer less than the curve's order. Shorter input is
/// padded on the left, longer input is taken if only leading zeros make it longer, and no bytes at all mean zero.
///
/// # Errors
/// If the integer has more than 32 bytes or is not less than the order.
pub fn digest_from_tx(tx: &[u8]) -> Result<[u8; 32], InvalidDigest> {
    let zeros = tx.iter().take_while(|byte| **byte == 0).count();
    let integer = tx.get(zeros..).unwrap_or_default();
    let mut digest = [0; 32];
    let padding = 32usize.checked_sub(integer.len()).ok_or(InvalidDigest::TooLong(integer.len()))?;
    if let Some(tail) = digest.get_mut(padding..) {
        tail.copy_from_slice(integer);
    }
    // Big-endian arrays of one length compare like the integers.
    if digest >= SECP256K1_ORDER { Err(InvalidDigest::NotBelowOrder) } else { Ok(digest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_input_is_padded_on_the_left_and_nothing_is_zero() {
        let mut expected = [0; 32];
        expected[31] = 7;
        assert_eq!(digest_from_tx(&[7]), Ok(expected));
        assert_eq!(digest_from_tx(&[]), Ok([0; 32]));
    }

    #[test]
    fn only_leading_zeros_may_exceed_32_bytes() {
        let mut long = vec![0; 40];
        long[39] = 7;
        assert_eq!(digest_from_tx(&long), digest_from_tx(&[7]));
        long[7] = 1;
        assert_eq!(digest_from_tx(&long), Err(InvalidDigest::TooLong(33)));
    }

    #[test]
    fn the_order_itself_is_refused_and_one_less_is_taken() {
        assert_eq!(digest_from_tx(&SECP256K1_ORDER), Err(InvalidDigest::NotBelowOrder));
        assert_eq!(digest_from_tx(&[0xff; 32]), Err(InvalidDigest::NotBelowOrder));
        let mut less = SECP256K1_ORDER;
        less[31] -= 1;
        assert_eq!(digest_from_tx(&less), Ok(less));
    }
}

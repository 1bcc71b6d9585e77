//! Finished ECDSA signatures on secp256k1: verified, with low `s`, as `r || s || recovery`.
//!
//! Recovery is the number 0 to 3 of SEC 1, section 4.1.6: bit 0 says that the nonce point's y is odd, bit 1 that its x
//! is not less than the group's order.

use generic_ec::curves::Secp256k1;
use generic_ec::{Point, Scalar};

use crate::planted::{Bug, planted};
use crate::protocol::{Abort, digest_from_tx};

type E = Secp256k1;

/// Reads the digest to sign: exactly 32 bytes, less than the group's order.
pub(super) fn digest(message: &[u8]) -> Result<Scalar<E>, Abort> {
    if message.len() != 32 {
        return Err(Abort::new(format!("a secp256k1 digest of {} bytes, expected 32", message.len())));
    }
    let digest = digest_from_tx(message).map_err(|invalid| Abort::new(invalid.to_string()))?;
    scalar(&digest).ok_or_else(|| Abort::new("a secp256k1 digest must be less than the order of the curve"))
}

fn scalar(bytes: &[u8]) -> Option<Scalar<E>> {
    Scalar::from_be_bytes(bytes).ok()
}

/// Verifies a signature, takes the lower one of `s` and `-s`, and appends the recovery number that belongs to it.
pub(super) fn finish(public_key: &Point<E>, digest: Scalar<E>, r: Scalar<E>, s: Scalar<E>) -> Option<[u8; 65]> {
    let negated = -s;
    let lower = negated.to_be_bytes().as_bytes() < s.to_be_bytes().as_bytes();
    let s = if lower != planted(Bug::HigherS) { negated } else { s };
    let recovery = recovery(public_key, digest, r, s)?;
    let mut bytes = [0; 65];
    let (numbers, last) = bytes.split_at_mut(64);
    let (r_bytes, s_bytes) = numbers.split_at_mut(32);
    r_bytes.copy_from_slice(r.to_be_bytes().as_bytes());
    s_bytes.copy_from_slice(s.to_be_bytes().as_bytes());
    last.copy_from_slice(&[recovery]);
    Some(bytes)
}

/// Whether 65 bytes are a signature as [`finish`] makes it, all of it checked: low `s` and the recovery number too.
pub(super) fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let check = || {
        let signature: &[u8; 65] = signature.try_into().ok()?;
        let (numbers, _) = signature.split_at(64);
        let (r, s) = numbers.split_at(32);
        let public_key = crate::protocol::keys::point_from_bytes::<E>(public_key, "the public key").ok()?;
        finish(&public_key, digest(message).ok()?, scalar(r)?, scalar(s)?).filter(|finished| finished == signature)
    };
    check().is_some()
}

/// Recomputes the nonce point `(m s⁻¹) G + (r s⁻¹) Q`; `None`: the signature is not valid.
fn recovery(public_key: &Point<E>, digest: Scalar<E>, r: Scalar<E>, s: Scalar<E>) -> Option<u8> {
    if r.is_zero() {
        return None;
    }
    let inverse = s.invert()?;
    let nonce_point = Point::generator() * (digest * inverse) + public_key * (r * inverse);
    if nonce_point.is_zero() {
        return None;
    }
    let encoded = nonce_point.to_bytes(true);
    let (parity, x) = encoded.as_bytes().split_first()?;
    if Scalar::<E>::from_be_bytes_mod_order(x) != r {
        return None;
    }
    Some(u8::from(*parity == 3) | u8::from(x != r.to_be_bytes().as_bytes()) << 1)
}

/// The x coordinate as a scalar, which is what ECDSA calls `r`; `None` for the identity.
pub(super) fn x_mod_order(point: &Point<E>) -> Option<Scalar<E>> {
    if point.is_zero() {
        return None;
    }
    let encoded = point.to_bytes(true);
    let (_, x) = encoded.as_bytes().split_first()?;
    Some(Scalar::from_be_bytes_mod_order(x))
}

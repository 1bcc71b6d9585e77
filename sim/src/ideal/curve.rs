//! Just enough arithmetic on both curves for plain Shamir shares and plain signatures. Nothing here is constant-time.

use std::{cell::RefCell, collections::BTreeMap};

use curve25519_dalek::{EdwardsPoint, Scalar as EdScalar};
use k256::{
    FieldBytes, ProjectivePoint, Scalar as K256Scalar,
    elliptic_curve::{PrimeField as _, ops::Reduce as _, point::AffineCoordinates as _, sec1::ToSec1Point as _},
};
use mpcium_core::protocol::Curve;
use sha2::{Digest as _, Sha256, Sha512};

/// Points that are kept.
const POINTS_MAX: usize = 4_096;

/// Points by whether they are of Ed25519 and by their logarithm.
type Points = BTreeMap<(bool, Vec<u8>), Vec<u8>>;

thread_local! {
    /// What was computed in this thread.
    static POINTS: RefCell<Points> = const { RefCell::new(Points::new()) };
}

/// A scalar of one of the curves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Secp256k1(K256Scalar),
    Ed25519(EdScalar),
}

impl Scalar {
    /// A scalar that depends on all of `parts`.
    pub(crate) fn hashed(curve: Curve, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        match curve {
            Curve::Secp256k1 => Self::Secp256k1(K256Scalar::reduce(&FieldBytes::from(bytes))),
            Curve::Ed25519 => Self::Ed25519(EdScalar::from_bytes_mod_order(bytes)),
        }
    }

    pub(crate) fn small(curve: Curve, value: u64) -> Self {
        match curve {
            Curve::Secp256k1 => Self::Secp256k1(K256Scalar::from(value)),
            Curve::Ed25519 => Self::Ed25519(EdScalar::from(value)),
        }
    }

    /// From the encoding of [`KeyShare::secret`](mpcium_core::protocol::KeyShare).
    pub(crate) fn parse(curve: Curve, bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        match curve {
            Curve::Secp256k1 => K256Scalar::from_repr(FieldBytes::from(bytes)).into_option().map(Self::Secp256k1),
            Curve::Ed25519 => EdScalar::from_canonical_bytes(bytes).into_option().map(Self::Ed25519),
        }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Secp256k1(scalar) => scalar.to_repr().to_vec(),
            Self::Ed25519(scalar) => scalar.to_bytes().to_vec(),
        }
    }

    /// The point with this logarithm, encoded as public keys are.
    pub(crate) fn public(self) -> Vec<u8> {
        // Every party of a run and every look at the shares wants the same few points.
        let name = (matches!(self, Self::Ed25519(_)), self.bytes());
        if let Some(known) = POINTS.with_borrow(|points| points.get(&name).cloned()) {
            return known;
        }
        let point = match self {
            Self::Secp256k1(scalar) => {
                (ProjectivePoint::GENERATOR * scalar).to_affine().to_sec1_point(true).as_bytes().to_vec()
            }
            Self::Ed25519(scalar) => EdwardsPoint::mul_base(&scalar).compress().to_bytes().to_vec(),
        };
        POINTS.with_borrow_mut(|points| {
            if points.len() >= POINTS_MAX {
                points.clear();
            }
            points.insert(name, point.clone());
        });
        point
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Secp256k1(a), Self::Secp256k1(b)) => Self::Secp256k1(a + b),
            (Self::Ed25519(a), Self::Ed25519(b)) => Self::Ed25519(a + b),
            _ => unreachable!("scalars of one run are of one curve"),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Secp256k1(a), Self::Secp256k1(b)) => Self::Secp256k1(a - b),
            (Self::Ed25519(a), Self::Ed25519(b)) => Self::Ed25519(a - b),
            _ => unreachable!("scalars of one run are of one curve"),
        }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        match (self, other) {
            (Self::Secp256k1(a), Self::Secp256k1(b)) => Self::Secp256k1(a * b),
            (Self::Ed25519(a), Self::Ed25519(b)) => Self::Ed25519(a * b),
            _ => unreachable!("scalars of one run are of one curve"),
        }
    }

    /// The inverse; zero has none and gives zero.
    pub(crate) fn inverted(self) -> Self {
        match self {
            Self::Secp256k1(a) => Self::Secp256k1(a.invert().unwrap_or(K256Scalar::ZERO)),
            Self::Ed25519(a) => Self::Ed25519(a.invert()),
        }
    }
}

/// The value of the polynomial with these coefficients (constant term first) at `x`.
pub(crate) fn evaluate(curve: Curve, coefficients: &[Scalar], x: u64) -> Scalar {
    let x = Scalar::small(curve, x);
    coefficients.iter().rev().fold(Scalar::small(curve, 0), |value, coefficient| value.times(x).plus(*coefficient))
}

/// What the share at `x` is multiplied with so that the shares at `all` add up to the value at 0.
pub(crate) fn lagrange(curve: Curve, x: u64, all: &[u64]) -> Scalar {
    let own = Scalar::small(curve, x);
    let one = Scalar::small(curve, 1);
    let (above, below) = all.iter().filter(|other| **other != x).fold((one, one), |(above, below), other| {
        let other = Scalar::small(curve, *other);
        (above.times(other), below.times(other.minus(own)))
    });
    above.times(below.inverted())
}

/// The public key of a secret in the encoding of key shares; `None` if it is no scalar.
#[must_use]
pub fn public_key_of(curve: Curve, secret: &[u8]) -> Option<Vec<u8>> {
    Scalar::parse(curve, secret).map(Scalar::public)
}

/// A signature in the encoding of [`Outcome::Signature`](mpcium_core::protocol::Outcome), with the given nonce.
pub(crate) fn sign(key: Scalar, nonce: Scalar, public_key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    match (key, nonce) {
        (Scalar::Secp256k1(key), Scalar::Secp256k1(nonce)) => {
            let digest: [u8; 32] = message.try_into().ok()?;
            let point = (ProjectivePoint::GENERATOR * nonce).to_affine();
            let r = K256Scalar::reduce(&point.x());
            let z = K256Scalar::reduce(&FieldBytes::from(digest));
            let s = nonce.invert().into_option()? * (z + r * key);
            let signature = k256::ecdsa::Signature::from_scalars(r.to_repr(), s.to_repr()).ok()?;
            let low = signature.normalize_s();
            let odd = bool::from(point.y_is_odd()) != (low != signature);
            let mut bytes = low.to_bytes().to_vec();
            bytes.push(u8::from(odd));
            Some(bytes)
        }
        (Scalar::Ed25519(key), Scalar::Ed25519(nonce)) => {
            let commitment = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
            let mut hash = Sha512::new();
            hash.update(commitment);
            hash.update(public_key);
            hash.update(message);
            let challenge = EdScalar::from_bytes_mod_order_wide(&hash.finalize().into());
            let mut bytes = commitment.to_vec();
            bytes.extend_from_slice(&(nonce + challenge * key).to_bytes());
            Some(bytes)
        }
        _ => None,
    }
}

/// A secp256k1 signature with the other `s`, which a careless verifier takes as well; `None` for what is none.
pub(crate) fn other_s(signature: &[u8]) -> Option<Vec<u8>> {
    let (rs, &[recovery]) = signature.split_at_checked(64)? else { return None };
    let (r, s) = rs.split_at_checked(32)?;
    let Scalar::Secp256k1(s) = Scalar::parse(Curve::Secp256k1, s)? else { return None };
    Some([r, (-s).to_repr().as_slice(), &[recovery ^ 1]].concat())
}

/// The public key to which shares `(x, secret)` interpolate; `None` if one is no scalar.
#[must_use]
pub fn interpolated_public_key(curve: Curve, shares: &[(u64, &[u8])]) -> Option<Vec<u8>> {
    let all: Vec<u64> = shares.iter().map(|(x, _)| *x).collect();
    let mut sum = Scalar::small(curve, 0);
    for (x, secret) in shares {
        sum = sum.plus(Scalar::parse(curve, secret)?.times(lagrange(curve, *x, &all)));
    }
    Some(sum.public())
}

/// Whether a signature in the encoding of [`Outcome::Signature`](mpcium_core::protocol::Outcome) is valid.
pub(crate) fn verifies(curve: Curve, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    match curve {
        Curve::Secp256k1 => {
            let (Ok(key), Some((rs, &[recovery]))) =
                (k256::ecdsa::VerifyingKey::from_sec1_bytes(public_key), signature.split_at_checked(64))
            else {
                return false;
            };
            let Ok(signature) = k256::ecdsa::Signature::from_slice(rs) else { return false };
            let recovered = k256::ecdsa::RecoveryId::from_byte(recovery)
                .and_then(|id| k256::ecdsa::VerifyingKey::recover_from_prehash(message, &signature, id).ok());
            signature.normalize_s() == signature && recovered == Some(key)
        }
        Curve::Ed25519 => {
            let key = public_key.try_into().ok().and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(key).ok());
            let signature = ed25519_dalek::Signature::from_slice(signature);
            key.zip(signature.ok()).is_some_and(|(key, signature)| key.verify_strict(message, &signature).is_ok())
        }
    }
}

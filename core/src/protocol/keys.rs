//! Key shares: the border between stored bytes and the libraries' types, and what may be done with a share.
//!
//! Invariant: no share reaches a library unless its secret belongs to its public share, the public shares lie on one
//! polynomial of degree `threshold - 1` whose value at zero is the public key, and no point is the identity.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use generic_ec::{NonZero, Point, Scalar, SecretScalar};
use key_share::{CoreKeyShare, DirtyCoreKeyShare, DirtyKeyInfo, Validate, VssSetup};

use super::{Abort, Curve, KeyShare};
use crate::{Secret, limits};

/// The library's curve that a [`Curve`] stands for, with the encodings that wallets use.
pub(crate) trait LibraryCurve: generic_ec::Curve {
    /// Which curve it is.
    const CURVE: Curve;
    /// Reads a scalar in the curve's own byte order.
    fn scalar_from_bytes(bytes: &[u8]) -> Option<SecretScalar<Self>>;
    /// Writes a scalar in the curve's own byte order.
    fn scalar_to_bytes(scalar: &SecretScalar<Self>) -> Vec<u8>;
}

impl LibraryCurve for generic_ec::curves::Secp256k1 {
    const CURVE: Curve = Curve::Secp256k1;
    fn scalar_from_bytes(bytes: &[u8]) -> Option<SecretScalar<Self>> {
        (bytes.len() == 32).then(|| SecretScalar::from_be_bytes(bytes).ok()).flatten()
    }
    fn scalar_to_bytes(scalar: &SecretScalar<Self>) -> Vec<u8> {
        scalar.as_ref().to_be_bytes().to_vec()
    }
}

impl LibraryCurve for generic_ec::curves::Ed25519 {
    const CURVE: Curve = Curve::Ed25519;
    fn scalar_from_bytes(bytes: &[u8]) -> Option<SecretScalar<Self>> {
        (bytes.len() == 32).then(|| SecretScalar::from_le_bytes(bytes).ok()).flatten()
    }
    fn scalar_to_bytes(scalar: &SecretScalar<Self>) -> Vec<u8> {
        scalar.as_ref().to_le_bytes().to_vec()
    }
}

/// Reads a point in the one encoding that is allowed: compressed, canonical, not the identity.
pub(crate) fn point_from_bytes<E: LibraryCurve>(bytes: &[u8], what: &str) -> Result<NonZero<Point<E>>, Abort> {
    let expected = Point::<E>::serialized_len(true);
    if bytes.len() != expected {
        return Err(Abort::new(format!("{what} has {} bytes, expected {expected}", bytes.len())));
    }
    let point = Point::<E>::from_bytes(bytes)
        .map_err(|_| Abort::new(format!("{what} is no point of {:?} in its prime-order group", E::CURVE)))?;
    if point.to_bytes(true).as_bytes() != bytes {
        return Err(Abort::new(format!("{what} is not in canonical encoding")));
    }
    NonZero::from_point(point).ok_or_else(|| Abort::new(format!("{what} is the identity")))
}

fn point_to_bytes<E: generic_ec::Curve>(point: &Point<E>) -> Vec<u8> {
    point.to_bytes(true).to_vec()
}

/// The place on the polynomial of the share at a committee position.
fn abscissa<E: generic_ec::Curve>(position: u16) -> Option<NonZero<Scalar<E>>> {
    NonZero::from_scalar(Scalar::from(u32::from(position) + 1))
}

/// The library's form of a share, once it has been read and checked: that takes longer than a share's part in an
/// Ed25519 signature. A copy begins without it, because it may be changed.
#[derive(Default)]
pub struct Checked(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Clone for Checked {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Checked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Checked {}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checked(..)")
    }
}

impl KeyShare {
    /// Checks everything about a share that can be checked alone, as when it is read from a store: sizes, bounds,
    /// encodings, that the secret belongs to this member's public share, and that all public shares and the public
    /// key lie on one polynomial of degree `threshold - 1`.
    ///
    /// # Errors
    /// If anything does not fit, naming it. The error holds nothing of the secret.
    pub fn validate(&self) -> Result<(), Abort> {
        match self.curve {
            Curve::Secp256k1 => self.core::<generic_ec::curves::Secp256k1>().map(drop),
            Curve::Ed25519 => self.core::<generic_ec::curves::Ed25519>().map(drop),
        }
    }

    /// The share of the child key whose secret is this key's plus `delta`: adds `delta` to the secret share, and
    /// `delta` times the generator to every public share and to the public key. `delta` is a scalar of 32 bytes
    /// in the curve's own order, like the secret itself: big-endian on secp256k1, little-endian on Ed25519.
    ///
    /// # Errors
    /// If `delta` is not less than the group's order, if a resulting point is the identity (which happens with
    /// negligible probability), or if this share is malformed.
    pub fn shifted(&self, delta: &[u8; 32]) -> Result<Self, Abort> {
        match self.curve {
            Curve::Secp256k1 => self.shifted_on::<generic_ec::curves::Secp256k1>(delta),
            Curve::Ed25519 => self.shifted_on::<generic_ec::curves::Ed25519>(delta),
        }
    }

    fn shifted_on<E: LibraryCurve>(&self, delta: &[u8; 32]) -> Result<Self, Abort> {
        let delta = E::scalar_from_bytes(delta)
            .ok_or_else(|| Abort::new("the shift to a child key is not less than the order of the group"))?;
        let core = self.checked_core::<E>()?;
        let shift = Point::generator() * &delta;
        let secret_share: &Scalar<E> = core.x.as_ref();
        let mut secret = secret_share + delta.as_ref();
        let public = |point: Point<E>, what: &str| {
            NonZero::from_point(point + shift)
                .map(|point| point_to_bytes::<E>(&point))
                .ok_or_else(|| Abort::new(format!("{what} of the child key is the identity")))
        };
        Ok(Self {
            secret: Secret::new(E::scalar_to_bytes(&SecretScalar::new(&mut secret))),
            public_key: public(core.shared_public_key.into_inner(), "the public key")?,
            public_shares: core
                .public_shares
                .iter()
                .map(|point| public(point.into_inner(), "a public share"))
                .collect::<Result<_, _>>()?,
            curve: self.curve,
            threshold: self.threshold,
            index: self.index,
            checked: Checked::default(),
        })
    }

    /// The library's form of the whole share, validated.
    pub(crate) fn core<E: LibraryCurve>(&self) -> Result<CoreKeyShare<E>, Abort> {
        let positions: Vec<u16> = (0..self.members()?).collect();
        self.core_of(&positions, self.index)
    }

    /// As [`core`](Self::core), read and checked only the first time.
    pub(crate) fn checked_core<E: LibraryCurve>(&self) -> Result<Arc<CoreKeyShare<E>>, Abort> {
        if let Some(known) = self.checked.0.get().and_then(|known| known.clone().downcast().ok()) {
            return Ok(known);
        }
        let core = Arc::new(self.core::<E>()?);
        // Another worker may have been faster, with the same.
        let _ = self.checked.0.set(core.clone());
        Ok(core)
    }

    /// The own position among the signers, who are as many as sign and are all members.
    pub(crate) fn position_among(&self, signers: &[u16]) -> Result<u16, Abort> {
        if signers.len() != usize::from(self.threshold) {
            return Err(Abort::new(format!("{} signers, expected exactly {}", signers.len(), self.threshold)));
        }
        let members = self.members()?;
        if let Some(stranger) = signers.iter().find(|signer| **signer >= members) {
            return Err(Abort::new(format!("position {stranger} among {members} members")));
        }
        if signers.iter().enumerate().any(|(at, signer)| signers.iter().skip(at + 1).any(|other| other == signer)) {
            return Err(Abort::new("a signer twice"));
        }
        signers
            .iter()
            .position(|signer| *signer == self.index)
            .and_then(|position| u16::try_from(position).ok())
            .ok_or_else(|| Abort::new(format!("own committee position {} is not among the signers", self.index)))
    }

    /// The library's form of this share in a committee that consists of exactly the signers, in their order: what the
    /// libraries call positions are then the run's positions, and nothing about other members is needed.
    pub(crate) fn core_of_signers<E: LibraryCurve>(&self, signers: &[u16]) -> Result<CoreKeyShare<E>, Abort> {
        let own = self.position_among(signers)?;
        self.core_of(signers, own)
    }

    fn members(&self) -> Result<u16, Abort> {
        let members = self.public_shares.len();
        if !(2..=limits::NODES_MAX).contains(&members) {
            return Err(Abort::new(format!("{members} public shares, expected 2 to {}", limits::NODES_MAX)));
        }
        if !(2..=members).contains(&usize::from(self.threshold)) {
            return Err(Abort::new(format!("threshold {} of {members} members, expected at least 2", self.threshold)));
        }
        if usize::from(self.index) >= members {
            return Err(Abort::new(format!("position {} among {members} members", self.index)));
        }
        u16::try_from(members).map_err(|_| Abort::new("too many members"))
    }

    fn core_of<E: LibraryCurve>(&self, positions: &[u16], own: u16) -> Result<CoreKeyShare<E>, Abort> {
        if self.curve != E::CURVE {
            return Err(Abort::new(format!("a key on {:?} where one on {:?} is needed", self.curve, E::CURVE)));
        }
        let secret = E::scalar_from_bytes(self.secret.expose())
            .and_then(NonZero::from_secret_scalar)
            .ok_or_else(|| Abort::new("the secret share is not a non-zero scalar of 32 bytes"))?;
        let mut public_shares = Vec::with_capacity(positions.len());
        let mut abscissas = Vec::with_capacity(positions.len());
        for position in positions {
            let bytes = self
                .public_shares
                .get(usize::from(*position))
                .ok_or_else(|| Abort::new(format!("position {position} among {} members", self.public_shares.len())))?;
            public_shares.push(point_from_bytes(bytes, "a public share")?);
            abscissas.push(abscissa(*position).ok_or_else(|| Abort::new("a share at zero"))?);
        }
        DirtyCoreKeyShare {
            i: own,
            key_info: DirtyKeyInfo {
                curve: Default::default(),
                shared_public_key: point_from_bytes(&self.public_key, "the public key")?,
                public_shares,
                vss_setup: Some(VssSetup { min_signers: self.threshold, I: abscissas }),
            },
            x: secret,
        }
        .validate()
        .map_err(|invalid| Abort::new(format!("malformed key share: {}", invalid.into_error())))
    }

    /// The stored form of a share that a key generation of the library made.
    pub(crate) fn from_core<E: LibraryCurve>(core: &CoreKeyShare<E>) -> Result<Self, Abort> {
        let setup = core.vss_setup.as_ref().ok_or_else(|| Abort::new("key generation made no polynomial shares"))?;
        let places_fit = (0u16..).zip(&setup.I).all(|(position, place)| abscissa(position) == Some(*place));
        if !places_fit {
            return Err(Abort::new("key generation put shares at places other than position + 1"));
        }
        Ok(Self {
            curve: E::CURVE,
            threshold: setup.min_signers,
            index: core.i,
            secret: Secret::new(E::scalar_to_bytes(&core.x)),
            public_key: point_to_bytes::<E>(&core.shared_public_key),
            public_shares: core.public_shares.iter().map(|point| point_to_bytes::<E>(point)).collect(),
            checked: Checked::default(),
        })
    }
}

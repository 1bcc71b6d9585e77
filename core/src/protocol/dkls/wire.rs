//! The bytes of signing messages. Every message has exactly one length, every number one encoding below the order of
//! the group, and every point is compressed and not the identity; who sent a message to whom is not written in it.

use dkls23_core::protocols::signing::{Broadcast3to4, TransmitPhase1to2, TransmitPhase2to3};
use dkls23_core::protocols::{PartiesMessage, PartyIndex};
use dkls23_core::utilities::multiplication::{L, MulDataToReceiver, OT_WIDTH};
use dkls23_core::utilities::ot::extension::{BATCH_SIZE, FieldElement, KAPPA, OTEDataToSender, PRGOutput};
use k256::elliptic_curve::ff::PrimeField as _;
use k256::elliptic_curve::sec1::ToSec1Point as _;
use k256::{AffinePoint, Scalar, Secp256k1};

const SCALAR: usize = 32;
const POINT: usize = 33;
const HASH: usize = 32;
const SALT: usize = 64;
const ROWS: usize = KAPPA as usize;
const BATCH: usize = BATCH_SIZE as usize;
const WIDTH: usize = OT_WIDTH as usize;
const INPUTS: usize = L as usize;

/// Bytes of round 0.
pub(super) const FIRST: usize =
    4 * HASH + ROWS * (size_of::<PRGOutput>() + size_of::<FieldElement>()) + size_of::<FieldElement>();
/// Bytes of round 1.
pub(super) const SECOND: usize =
    2 * HASH + 4 * POINT + SCALAR + SALT + WIDTH * BATCH * SCALAR + 2 * HASH + 2 * INPUTS * SCALAR;
/// Bytes of round 2.
pub(super) const THIRD: usize = 2 * SCALAR;

type Second = TransmitPhase2to3<Secp256k1>;
type Third = Broadcast3to4<Secp256k1>;

/// Round 0: the commitment to the nonce point that all get, and what is for this signer alone.
pub(super) fn write_first(nonce_point: &[u8; 32], message: &TransmitPhase1to2) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIRST);
    out.extend_from_slice(nonce_point);
    out.extend_from_slice(&message.session_binding);
    out.extend_from_slice(&message.commitment);
    out.extend_from_slice(&message.mul_transmit.nonce);
    message.mul_transmit.u.iter().for_each(|row| out.extend_from_slice(row));
    out.extend_from_slice(&message.mul_transmit.verify_x);
    message.mul_transmit.verify_t.iter().for_each(|element| out.extend_from_slice(element));
    out
}

/// Reads round 0.
pub(super) fn read_first(bytes: &[u8], from: PartyIndex, to: PartyIndex) -> Option<([u8; 32], TransmitPhase1to2)> {
    let mut reader = Reader(bytes);
    let nonce_point = reader.array()?;
    let message = TransmitPhase1to2 {
        parties: PartiesMessage { sender: from, receiver: to },
        session_binding: reader.array()?,
        commitment: reader.array()?,
        mul_transmit: OTEDataToSender {
            nonce: reader.array()?,
            u: (0..ROWS).map(|_| reader.array()).collect::<Option<_>>()?,
            verify_x: reader.array()?,
            verify_t: (0..ROWS).map(|_| reader.array()).collect::<Option<_>>()?,
        },
    };
    reader.0.is_empty().then_some((nonce_point, message))
}

/// Round 1: the hash of all commitments to nonce points, and what is for this signer alone.
pub(super) fn write_second(echo: &[u8; 32], message: &Second) -> Vec<u8> {
    let mut out = Vec::with_capacity(SECOND);
    out.extend_from_slice(echo);
    out.extend_from_slice(&message.session_binding);
    for point in [&message.gamma_u, &message.gamma_v, &message.public_share, &message.instance_point] {
        out.extend_from_slice(point.to_sec1_point(true).as_bytes());
    }
    out.extend_from_slice(&message.psi.to_bytes());
    out.extend_from_slice(&message.salt);
    let multiplication = &message.mul_transmit;
    multiplication.vector_of_tau.iter().flatten().for_each(|tau| out.extend_from_slice(&tau.to_bytes()));
    out.extend_from_slice(&multiplication.ote_salt);
    out.extend_from_slice(&multiplication.verify_r);
    for scalar in multiplication.verify_u.iter().chain(&multiplication.gamma_sender) {
        out.extend_from_slice(&scalar.to_bytes());
    }
    out
}

/// Reads round 1.
pub(super) fn read_second(bytes: &[u8], from: PartyIndex, to: PartyIndex) -> Option<([u8; 32], Second)> {
    let mut reader = Reader(bytes);
    let echo = reader.array()?;
    let message = TransmitPhase2to3 {
        parties: PartiesMessage { sender: from, receiver: to },
        session_binding: reader.array()?,
        gamma_u: reader.point()?,
        gamma_v: reader.point()?,
        public_share: reader.point()?,
        instance_point: reader.point()?,
        psi: reader.scalar()?,
        salt: reader.array::<SALT>()?.to_vec(),
        mul_transmit: MulDataToReceiver {
            vector_of_tau: (0..WIDTH).map(|_| reader.scalars(BATCH)).collect::<Option<_>>()?,
            ote_salt: reader.array()?,
            verify_r: reader.array()?,
            verify_u: reader.scalars(INPUTS)?,
            gamma_sender: reader.scalars(INPUTS)?,
        },
    };
    reader.0.is_empty().then_some((echo, message))
}

/// Round 2.
pub(super) fn write_third(message: &Third) -> Vec<u8> {
    [message.u.to_bytes(), message.w.to_bytes()].concat()
}

/// Reads round 2.
pub(super) fn read_third(bytes: &[u8]) -> Option<Third> {
    let mut reader = Reader(bytes);
    let message = Broadcast3to4 { u: reader.scalar()?, w: reader.scalar()? };
    reader.0.is_empty().then_some(message)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn scalar(&mut self) -> Option<Scalar> {
        Scalar::from_repr(self.array::<SCALAR>()?.into()).into()
    }

    fn scalars(&mut self, count: usize) -> Option<Vec<Scalar>> {
        (0..count).map(|_| self.scalar()).collect()
    }

    fn point(&mut self) -> Option<AffinePoint> {
        let bytes = self.array::<POINT>()?;
        // A public key is a point other than the identity.
        k256::PublicKey::from_sec1_bytes(&bytes).ok().map(|key| *key.as_affine())
    }
}

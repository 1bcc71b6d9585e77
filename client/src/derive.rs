//! Child keys from a wallet's public key, as clusters derive them and as anybody can without a cluster.
//!
//! One step is the same on both curves: `HMAC-SHA512(chain code, P ‖ index)`, whose left half times the generator is
//! added to the parent and whose right half is the child's chain code. `P` is `02`/`03` by the parity of y, then x,
//! big-endian; for Ed25519 these are the affine coordinates of the twisted Edwards form, a convention of the existing
//! system that is neither SLIP-10 nor BIP32-Ed25519. On secp256k1 this is BIP-32's public derivation.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use hmac::{Hmac, Mac as _};
use k256::{
    ProjectivePoint,
    elliptic_curve::{PrimeField as _, group::GroupEncoding as _, ops::Reduce as _, sec1::ToSec1Point as _},
};
use sha2::Sha512;

use crate::request::PATH_LEVELS_MAX;

/// A derived key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<const BYTES: usize> {
    /// Its public key: 33 bytes compressed for secp256k1, the usual 32 bytes for Ed25519.
    pub public_key: [u8; BYTES],
    /// The child's secret key minus the parent's, modulo the group order, big-endian. Public: it follows from public
    /// values. Zero for the empty path.
    pub shift: [u8; 32],
    /// The child's own chain code.
    pub chain_code: [u8; 32],
}

impl<const BYTES: usize> Child<BYTES> {
    /// [`shift`](Self::shift), little-endian.
    #[must_use]
    pub fn shift_little_endian(&self) -> [u8; 32] {
        let mut shift = self.shift;
        shift.reverse();
        shift
    }
}

/// Why there is no such child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeriveError {
    /// The parent is not a point of the curve.
    PublicKey,
    /// More than [`PATH_LEVELS_MAX`] levels.
    TooDeep(usize),
    /// Hardened indices need a private key that nobody has.
    Hardened(u32),
    /// The step's scalar is zero, or the child is the neutral element: practically impossible.
    Degenerate,
}

impl std::fmt::Display for DeriveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PublicKey => f.write_str("the parent is not a public key of this curve"),
            Self::TooDeep(levels) => write!(f, "a path of {levels} levels, at most {PATH_LEVELS_MAX} are allowed"),
            Self::Hardened(index) => write!(f, "the index must be non-hardened, got {index}"),
            Self::Degenerate => f.write_str("this path has no key"),
        }
    }
}

impl std::error::Error for DeriveError {}

/// Derives along a path from a compressed secp256k1 key.
///
/// # Errors
/// If the key is not on the curve, or the path is too long, hardened or (practically impossible) without a key.
pub fn derive_secp256k1(parent: &[u8; 33], chain_code: &[u8; 32], path: &[u32]) -> Result<Child<33>, DeriveError> {
    check_path(path)?;
    let mut point = Option::<ProjectivePoint>::from(ProjectivePoint::from_bytes(&(*parent).into()))
        .filter(|point| *point != ProjectivePoint::IDENTITY)
        .ok_or(DeriveError::PublicKey)?;
    let mut public_key = *parent;
    let mut chain_code = *chain_code;
    let mut shift = k256::Scalar::ZERO;
    for &index in path {
        let (left, right) = step(&public_key, &chain_code, index);
        let scalar = k256::Scalar::reduce(&k256::FieldBytes::from(left));
        if scalar == k256::Scalar::ZERO {
            return Err(DeriveError::Degenerate);
        }
        point += ProjectivePoint::GENERATOR * scalar;
        if point == ProjectivePoint::IDENTITY {
            return Err(DeriveError::Degenerate);
        }
        shift += scalar;
        public_key = point.to_bytes().into();
        chain_code = right;
    }
    Ok(Child { public_key, shift: shift.to_repr().into(), chain_code })
}

/// Derives along a path from an Ed25519 key.
///
/// # Errors
/// If the key is not in the prime-order group, or the path is too long, hardened or (practically impossible) without a
/// key.
pub fn derive_ed25519(parent: &[u8; 32], chain_code: &[u8; 32], path: &[u32]) -> Result<Child<32>, DeriveError> {
    check_path(path)?;
    let mut point = CompressedEdwardsY(*parent)
        .decompress()
        .filter(|point| point.is_torsion_free() && *point != EdwardsPoint::default())
        .ok_or(DeriveError::PublicKey)?;
    let mut public_key = *parent;
    let mut chain_code = *chain_code;
    let mut shift = curve25519_dalek::Scalar::ZERO;
    for &index in path {
        let affine = edwards::coordinates(&public_key).ok_or(DeriveError::PublicKey)?;
        let (mut left, right) = step(&affine, &chain_code, index);
        left.reverse();
        let scalar = curve25519_dalek::Scalar::from_bytes_mod_order(left);
        if scalar == curve25519_dalek::Scalar::ZERO {
            return Err(DeriveError::Degenerate);
        }
        point += EdwardsPoint::mul_base(&scalar);
        if point == EdwardsPoint::default() {
            return Err(DeriveError::Degenerate);
        }
        shift += scalar;
        public_key = point.compress().to_bytes();
        chain_code = right;
    }
    let mut shift = shift.to_bytes();
    shift.reverse();
    Ok(Child { public_key, shift, chain_code })
}

/// The 64 bytes X ‖ Y of a compressed secp256k1 key: the form in result documents.
///
/// # Errors
/// If the key is not on the curve.
pub fn secp256k1_coordinates(compressed: &[u8; 33]) -> Result<[u8; 64], DeriveError> {
    let key = k256::PublicKey::from_sec1_bytes(compressed).map_err(|_| DeriveError::PublicKey)?;
    let point = key.to_sec1_point(false);
    point.as_bytes().get(1..).and_then(|xy| xy.try_into().ok()).ok_or(DeriveError::PublicKey)
}

/// The compressed form of a secp256k1 key from a result document: 64 bytes X ‖ Y, or 65 with `04` in front.
///
/// # Errors
/// If it has another length or is not on the curve.
pub fn secp256k1_compressed(coordinates: &[u8]) -> Result<[u8; 33], DeriveError> {
    let with_tag = match coordinates.len() {
        64 => [&[4], coordinates].concat(),
        65 => coordinates.to_vec(),
        _ => return Err(DeriveError::PublicKey),
    };
    let key = k256::PublicKey::from_sec1_bytes(&with_tag).map_err(|_| DeriveError::PublicKey)?;
    key.to_sec1_point(true).as_bytes().try_into().map_err(|_| DeriveError::PublicKey)
}

fn check_path(path: &[u32]) -> Result<(), DeriveError> {
    if path.len() > PATH_LEVELS_MAX {
        return Err(DeriveError::TooDeep(path.len()));
    }
    path.iter().find(|&&index| index >= 1 << 31).map_or(Ok(()), |&index| Err(DeriveError::Hardened(index)))
}

/// The two halves of `HMAC-SHA512(chain code, parent ‖ index)`.
fn step(parent: &[u8; 33], chain_code: &[u8; 32], index: u32) -> ([u8; 32], [u8; 32]) {
    // HMAC pads shorter keys with zeros to the hash's block of 128 bytes; doing it here leaves no length to be wrong.
    let mut key = [0; 128];
    key[..32].copy_from_slice(chain_code);
    let mut mac = Hmac::<Sha512>::new(&key.into());
    mac.update(parent);
    mac.update(&index.to_be_bytes());
    let code: [u8; 64] = mac.finalize().into_bytes().into();
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&code[..32]);
    right.copy_from_slice(&code[32..]);
    (left, right)
}

/// The affine x of an Edwards point, which the curve library keeps to itself.
mod edwards {
    use k256::elliptic_curve::bigint::{
        ArrayEncoding as _, U256, const_monty_params,
        modular::{ConstMontyForm, ConstMontyParams},
    };

    const_monty_params!(
        FieldModulus,
        U256,
        "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed",
        "2^255 − 19"
    );
    type Element = ConstMontyForm<FieldModulus, { FieldModulus::LIMBS }>;

    const D: Element =
        Element::new(&U256::from_be_hex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3"));
    const SQRT_MINUS_ONE: Element =
        Element::new(&U256::from_be_hex("2b8324804fc1df0b2b4d00993dfbd7a72f431806ad2fe478c4ee1b274a0ea0b0"));
    /// (p − 5) / 8.
    const ROOT_EXPONENT: U256 = U256::from_be_hex("0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffd");

    /// `02`/`03` by the parity of y, then x, big-endian, of a point in the usual 32-byte encoding. RFC 8032, 5.1.3.
    pub fn coordinates(encoded: &[u8; 32]) -> Option<[u8; 33]> {
        let negative = encoded[31] >> 7 == 1;
        let mut y = *encoded;
        y[31] &= 0x7f;
        let y = U256::from_le_byte_array(y.into());
        if y >= *FieldModulus::PARAMS.modulus().as_ref() {
            return None;
        }
        let y_element = Element::new(&y);
        let square = y_element.square();
        let u = square - Element::ONE;
        let v = D * square + Element::ONE;
        let v3 = v.square() * v;
        let v7 = v3.square() * v;
        let mut x = u * v3 * (u * v7).pow_vartime(&ROOT_EXPONENT);
        if v * x.square() == -u {
            x *= SQRT_MINUS_ONE;
        }
        if v * x.square() != u {
            return None;
        }
        let odd = |element: &Element| element.retrieve().is_odd().to_bool();
        if odd(&x) != negative {
            x = -x;
        }
        let mut out = [0; 33];
        out[0] = 2 | u8::from(y.is_odd().to_bool());
        out[1..].copy_from_slice(&x.retrieve().to_be_byte_array());
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    const G: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    const B: &str = "5866666666666666666666666666666666666666666666666666666666666666";
    const CHAIN_A: &str = "aaa9a8a7a6a5a4a3a2a1a09f9e9d9c9b9a999897969594939291908f8e8d8c8b";
    const CHAIN_B: &str = "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb";
    const CHAIN_C: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";

    fn check_secp256k1(parent: [u8; 33], chain: &str, path: &[u32], child: &str, shift: &str, code: Option<&str>) {
        let derived = derive_secp256k1(&parent, &bytes(chain), path).unwrap();
        assert_eq!(hex::encode(derived.public_key), child, "{path:?}");
        assert_eq!(hex::encode(derived.shift), shift, "{path:?}");
        if let Some(code) = code {
            assert_eq!(hex::encode(derived.chain_code), code, "{path:?}");
        }
        let shift = Option::<k256::Scalar>::from(k256::Scalar::from_repr(derived.shift.into())).unwrap();
        let parent = Option::<ProjectivePoint>::from(ProjectivePoint::from_bytes(&parent.into())).unwrap();
        let expected: [u8; 33] = (parent + ProjectivePoint::GENERATOR * shift).to_bytes().into();
        assert_eq!(derived.public_key, expected);
    }

    fn check_ed25519(parent: &str, chain: &str, path: &[u32], child: &str, shift: &str, code: Option<&str>) {
        let derived = derive_ed25519(&bytes(parent), &bytes(chain), path).unwrap();
        assert_eq!(hex::encode(derived.public_key), child, "{path:?}");
        assert_eq!(hex::encode(derived.shift), shift, "{path:?}");
        if let Some(code) = code {
            assert_eq!(hex::encode(derived.chain_code), code, "{path:?}");
        }
        let shift = curve25519_dalek::Scalar::from_canonical_bytes(derived.shift_little_endian()).unwrap();
        let parent = CompressedEdwardsY(bytes(parent)).decompress().unwrap();
        assert_eq!(derived.public_key, (parent + EdwardsPoint::mul_base(&shift)).compress().to_bytes());
    }

    #[test]
    fn secp256k1_children_of_the_generator() {
        for (path, child, shift, code) in [
            (
                &[44, 60, 0, 0, 0][..],
                "02fd1192261b41954263f63859950b69b256088477137e8f1ef96c48eb6ec2da9f",
                "6a46d629b698d338d0d1bf78fee97d159eb9e5b68f6ee6bfc12c6a12f4f096e9",
                "730c47dae636635c99bff6a910d9f84baed84463a092288afbbe1c7cbd7f9408",
            ),
            (
                &[44, 60, 0, 0, 1],
                "03bf79f782ba858392459d801d850cfdded4ed5f198176543396869c002ee1f377",
                "c2ed55b90a838dc428163ef617d08fbbda98e8705d84431707d5057450daa06f",
                "0802819c9f2abd587dad941f2d19309392e35fbe90242db63c9a3d6c67bbbdc9",
            ),
            (
                &[44, 60, 0, 0, 999],
                "0351cd6b8f66b7f5f1d3e9fafbb355053d6ebe58218c607eb98cf33850c5bcba4c",
                "97329ed0ead3a677c46f87a9af85643d6c12115fac5220b5ad73636acd794d06",
                "877dad7075649aaf08972b8bca5bf0c120a056ee9a5e2c62ae5fd93a3e4dd839",
            ),
            (
                &[0],
                "028db0c985f6171680d7927f7793f2d7ab6e87c4bbc1b400c150ff7a352037617b",
                "661183b42ba97c827a8302de9d0829e30ca08ea892b5b6cc6616802dde6f027c",
                "d1ea1a165d12b2be253ec3a68e14ede92a3ea17f79872cc77b2fc99b8681e205",
            ),
            (
                &[2_147_483_647],
                "03268908874c59f3efb7dce0ea7d4f3cac9ba6fb0e52b29cb2409f38109c496899",
                "2ea31601a2a4f200f7341acd86fc449e9e06b08580e47f686994678f2f922a27",
                "ebe7cc35e5b5063415be81937bf9ce8eb4ca748a7f7453923a9c2782089ebca4",
            ),
        ] {
            check_secp256k1(bytes(G), CHAIN_A, path, child, shift, Some(code));
        }
        let first = derive_secp256k1(&bytes(G), &bytes(CHAIN_A), &[44, 60, 0, 0, 0]).unwrap();
        assert_eq!(
            hex::encode(secp256k1_coordinates(&first.public_key).unwrap()),
            concat!(
                "fd1192261b41954263f63859950b69b256088477137e8f1ef96c48eb6ec2da9f",
                "73063d4ca47c4633270ae4702e6cf051ea05684950edf5f14f955d7f780c4be8"
            )
        );
    }

    #[test]
    fn secp256k1_children_of_another_key() {
        let xy = concat!(
            "54103317f43c66ce1ebec1c671e06de728277e98ce2fad7d9ed08f609fb2fe54",
            "9ab442ef4d1c8e79431a97e2ff7986a7a701aa3af029630ff039207a0a272295"
        );
        let parent = secp256k1_compressed(&hex::decode(xy).unwrap()).unwrap();
        assert_eq!(hex::encode(secp256k1_coordinates(&parent).unwrap()), xy);
        check_secp256k1(
            parent,
            CHAIN_B,
            &[1, 2, 3],
            "037e12c284100bc6e1775e68235efc75767daeb805b43c439055879ae73e268717",
            "965c28455919ad6b2342133fa99cd25e0f9be78d613fe1711867c1f5706458a8",
            None,
        );
        check_secp256k1(
            parent,
            CHAIN_B,
            &[44, 0, 0, 0, 7],
            "03e4901397de8605d6ba66b67555005aa9eca75d3c8508bc80c0976c3d9842d6d9",
            "c5a42f472d4db99ddc30fc9aeee1508c3ad679ac742a777dfb461bffcdf4bd5e",
            None,
        );
    }

    /// BIP-32, test vector 2, chains m and m/0.
    #[test]
    fn secp256k1_follows_bip_32() {
        let child = derive_secp256k1(
            &bytes("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7"),
            &bytes("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689"),
            &[0],
        )
        .unwrap();
        assert_eq!(hex::encode(child.public_key), "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea");
        assert_eq!(hex::encode(child.chain_code), "f0909affaa7ee7abe5dd4e100598d4dc53cd709d5a5c2cac40e7412f232f7c9c");
    }

    #[test]
    fn ed25519_children_of_the_base_point() {
        for (path, child, shift, code) in [
            (
                &[44, 501, 0, 0][..],
                "dd8c985814d89a8ac48ab01ca5f065107add1b26a27e82d3930f80d26efb50cc",
                "0e8d1bb2d1bf3ef4a7d85b8114aae5c3895b72a4052004e77df9eccdd455ce9f",
                "f0d06d223d20c6d70656e33aacfe950283874e930c2eea04dfc6c82c9d6534b9",
            ),
            (
                &[44, 501, 1, 0],
                "68538c4932025f674e773e153fa2f5edfb38166786b5bd03e507c1fee3772b59",
                "091d557b95b63acb0af15f5bc2be75a7ec52d40e76ef1b6806e33688fa32acdf",
                "0ca39b0b110ed672d9db5a57d76eda7d80c8be70cd0d4c4708242dfadc7b9dcc",
            ),
            (
                &[44, 501, 99, 0],
                "c5e8c64572e3356027e3d878c762150220e37593662862105d8b49d8b9602b1a",
                "080ea1771e35c7e8908b6bcc32cd5b36eeca0a6d1b36d04de5b1f9111e476c66",
                "6a897383f8de195db42a182d80d6021f6154ad35611438bf3769a6aa5e7f3e7f",
            ),
            (
                &[0],
                "8c40aebc050849f7ee43f18f9a0d2f576d58aea61d5ca71a7e2a5c6174ee6748",
                "0ed85d703645c9577e45de55862c20de673624ac3ef34613cd4f1020929a10e7",
                "3c186c67a3220cca7511b2ef6916d7ad02a5741713d0f47bd24f3b270171e0eb",
            ),
            (
                &[2_147_483_647],
                "d114606535f76aa1bae82b1845d3ca901365369fa06b4874ed399686f9cdead8",
                "05adb3d962f82482f3d04982a3073899498a44845950b0f3e5bd758be11709ab",
                "eb8c6d30b160deced1f5a54d9f9de7c9c0b47c15315486163033bfce78a0716c",
            ),
        ] {
            check_ed25519(B, CHAIN_C, path, child, shift, Some(code));
        }
        assert_eq!(
            hex::encode(edwards::coordinates(&bytes(B)).unwrap()),
            "02216936d3cd6e53fec0a4e231fdd6dc5c692cc7609525a7b2c9562d608f25d51a"
        );
    }

    #[test]
    fn ed25519_children_of_another_key() {
        let parent = "4577c0b8e955e03e2ba0075d6e89a7461dd7a9da101347672187efaec2ba5ee8";
        for (path, child, shift) in [
            (
                &[1, 2, 3][..],
                "1e3f482f5858eb932f1b088ed1ceef2df39ce7c14c3b3a27533a71a883ee23f8",
                "06427aa745bc6fefee7ea62d599334ec41a6c057df550fe99b5f7f7fc53fa946",
            ),
            (
                &[44, 501, 0, 0],
                "da1018c3f09b9bae21d4b74fbdbcdc5440829ecadf3320f7aaf3826b7cef20cc",
                "04d3577efff0e5d501b23a361c7458f72955f814344c6fb01224ec1d2a3f84cf",
            ),
            (
                &[44, 60, 0, 0, 1],
                "ef2fae68ce464762adfa1ba338b038bc94ba530e9fa351e7132818eb5ec97b17",
                "0598c900428b4368e3f03a1cac20a79ef474da16c6b57fc73d5a98bcd6650249",
            ),
        ] {
            check_ed25519(parent, CHAIN_B, path, child, shift, None);
        }
    }

    #[test]
    fn the_empty_path_is_the_parent() {
        let child = derive_secp256k1(&bytes(G), &bytes(CHAIN_A), &[]).unwrap();
        assert_eq!((child.public_key, child.shift, child.chain_code), (bytes(G), [0; 32], bytes(CHAIN_A)));
        let child = derive_ed25519(&bytes(B), &bytes(CHAIN_C), &[]).unwrap();
        assert_eq!((child.public_key, child.shift, child.chain_code), (bytes(B), [0; 32], bytes(CHAIN_C)));
    }

    #[test]
    fn impossible_parents_and_paths_are_refused() {
        let chain = bytes(CHAIN_A);
        assert_eq!(derive_secp256k1(&bytes(G), &chain, &[1 << 31]), Err(DeriveError::Hardened(1 << 31)));
        assert_eq!(derive_ed25519(&bytes(B), &chain, &[0, u32::MAX]), Err(DeriveError::Hardened(u32::MAX)));
        assert_eq!(derive_secp256k1(&bytes(G), &chain, &[0; 256]), Err(DeriveError::TooDeep(256)));
        assert_eq!(derive_ed25519(&bytes(B), &chain, &[0; 256]), Err(DeriveError::TooDeep(256)));
        assert!(derive_secp256k1(&bytes(G), &chain, &[0; 255]).is_ok());
        assert_eq!(derive_secp256k1(&[0; 33], &chain, &[0]), Err(DeriveError::PublicKey));
        assert_eq!(derive_secp256k1(&[0xff; 33], &chain, &[0]), Err(DeriveError::PublicKey));
        let mut neutral = [0; 32];
        neutral[0] = 1;
        for bad in [[0; 32], [2; 32], [0xff; 32], neutral] {
            assert_eq!(derive_ed25519(&bad, &chain, &[0]), Err(DeriveError::PublicKey), "{bad:02x?}");
        }
    }
}

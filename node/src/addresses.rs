//! Addresses of a wallet's keys on the three best-known chains.
//!
//! Forms: Ethereum per EIP-55 (mixed-case checksum), Bitcoin main net P2WPKH per BIP 173, Solana base58 of the key.

use sha2::{Digest as _, Sha256};

/// An uncompressed secp256k1 public key: x and y, 32 bytes each, big-endian.
pub type SecpPoint = [u8; 64];

/// The Ethereum address with the mixed-case checksum of EIP-55.
#[must_use]
pub fn ethereum(key: &SecpPoint) -> String {
    let hash = sha3::Keccak256::digest(key);
    let digits = hex::encode(&hash[12..]);
    let checksum = sha3::Keccak256::digest(digits.as_bytes());
    let mut address = String::from("0x");
    for (at, digit) in digits.chars().enumerate() {
        let byte = checksum[at / 2];
        let nibble = if at % 2 == 0 { byte >> 4 } else { byte & 0x0f };
        address.push(if nibble >= 8 { digit.to_ascii_uppercase() } else { digit });
    }
    address
}

/// The SEC1 compressed form of a key.
#[must_use]
pub fn compressed(key: &SecpPoint) -> [u8; 33] {
    let mut bytes = [0; 33];
    bytes[0] = 2 + (key[63] & 1);
    bytes[1..].copy_from_slice(&key[..32]);
    bytes
}

/// The Bitcoin main net address that pays to the key's hash (P2WPKH).
#[must_use]
pub fn bitcoin(key: &SecpPoint) -> String {
    let hash = ripemd::Ripemd160::digest(Sha256::digest(compressed(key)));
    // Twenty bytes under a constant prefix are always within the limits of the encoding.
    bech32::segwit::encode_v0(bech32::hrp::BC, &hash).unwrap_or_default()
}

/// The Solana address of an Ed25519 public key.
#[must_use]
pub fn solana(key: &[u8; 32]) -> String {
    bs58::encode(key).into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generator of secp256k1: the public key of the secret 1, whose addresses are widely published.
    const GENERATOR: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                             483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";

    fn generator() -> SecpPoint {
        hex::decode(GENERATOR).expect("hex").try_into().expect("64 bytes")
    }

    #[test]
    fn ethereum_address_of_the_generator() {
        assert_eq!(ethereum(&generator()), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    }

    #[test]
    fn bitcoin_address_is_the_one_in_bip_173() {
        assert_eq!(bitcoin(&generator()), "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
    }

    #[test]
    fn compressed_form_carries_the_parity() {
        let mut key = generator();
        assert_eq!(compressed(&key)[0], 2);
        key[63] ^= 1;
        assert_eq!(compressed(&key)[0], 3);
        assert_eq!(compressed(&key)[1..], key[..32]);
    }

    #[test]
    fn solana_addresses_keep_leading_zeros() {
        assert_eq!(solana(&[0; 32]), "11111111111111111111111111111111");
        let token_program = bs58::decode("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA").into_vec().expect("base58");
        let key: [u8; 32] = token_program.try_into().expect("32 bytes");
        assert_eq!(solana(&key), "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
    }
}

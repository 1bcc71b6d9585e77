//! The published test primes, so that a node can refuse them.
//!
//! End-to-end tests run at full strength and cannot spend minutes on safe primes, so a file of them is part of the
//! sources. Whoever used one in production would have a Paillier key whose factors everybody knows.

use sha2::{Digest, Sha256};

/// SHA-256 of each published prime's big-endian bytes, in the order of the file.
const HASHES: [&str; 12] = [
    "53afa9fef641e2b974606f6f3869f791c1e1abdecbe0be9e2f290468d89e14da",
    "6ca6d2fedba71dd3737d4e12139bd7e44a90240276320d1a67d1ad0786437333",
    "23e089244db4e5ed36208ab9969ea8b203adfeb8395e22c01d0d0ef5d4e555c0",
    "d4cbc71b22a24abb47950b6ae492e2eeff629e1d1449e0149abfb6c16e2da51d",
    "c0fdbeda4e511f684c2cc31dff7c3a53dec4e3daea77da93337aa2a9c2d9a90b",
    "4c6569995199e4a43f18f4200cdc5d9b4e829237e3e24c2e4b0f6fd200eb700b",
    "d3b5949999c7adc54396ad83b0a6948ca70bc56b00d6461b1f5884bc165d49cd",
    "83b6d2a7b959fceb9625f12baa2f2fb4b40e84ff202b8e50a46a81917af11ee0",
    "dccb3f96092fbfc1c031902e5bd54de7cfe9361cd9d5185233e5f7676e46bd93",
    "477b39313e0670c1c05b6054eda8598a36fd184d19a4bfd1c1f99e1d3a39f2bf",
    "f028fd3cf59aea1ceb03746d8d54bcac29f36603f16e82fecfbf994b5ab8bbc7",
    "02f36074bcbcc4140ea48a045d0e56dcc3f811e88c336440d268e913517113ea",
];

/// The public seed of the prime with a number, counted from 0: the file can be made again from nothing.
#[must_use]
pub fn seed(number: u32) -> [u8; 32] {
    Sha256::digest(format!("mpcium published test prime {number}")).into()
}

/// Whether `prime` (big-endian bytes, as an ingredient's pieces are) is one of the published test primes.
#[must_use]
pub fn is_published(prime: &[u8]) -> bool {
    let zeros = prime.iter().take_while(|byte| **byte == 0).count();
    let hash = hex::encode(Sha256::digest(prime.get(zeros..).unwrap_or_default()));
    HASHES.contains(&hash.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prime_of_the_file_is_known_and_others_are_not() {
        let file = include_str!("../../../e2e/fixtures/test-primes.txt");
        let (warning, primes) = file.split_once('\n').expect("a first line");
        assert!(warning.starts_with("# PUBLISHED TEST PRIMES, NEVER USE"));
        let primes: Vec<Vec<u8>> = primes.lines().map(|line| hex::decode(line).expect("hexadecimal")).collect();
        assert_eq!(primes.len(), HASHES.len());
        for mut prime in primes {
            assert!(is_published(&prime));
            assert!(is_published(&[vec![0], prime.clone()].concat()), "padding hides nothing");
            *prime.last_mut().expect("bytes") ^= 2;
            assert!(!is_published(&prime));
        }
        assert!(!is_published(&[]));
    }
}

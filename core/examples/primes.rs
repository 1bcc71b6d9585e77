//! Makes the published test primes: safe primes of full size whose seeds are public, for tests that cannot spend
//! minutes on primes of their own. Nodes refuse them (`mpcium_core::protocol::test_primes`).
//!
//! `cargo run --release -p mpcium-core --example primes -- COUNT FILE` writes one prime per line in hexadecimal, after
//! a line that warns; about 10 seconds per prime. The same count gives the same file.

// The example is a shell of its own: only the library performs no I/O.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::error::Error;
use std::fs::File;
use std::io::Write;

use mpcium_core::protocol::{EcdsaProtocol, Suites, test_primes};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, path] = arguments.as_slice() else {
        return Err("expected two arguments: how many primes, and the file to write".into());
    };
    let count: u32 = count.parse()?;
    let suites = Suites::production(EcdsaProtocol::Cggmp24);
    let auxiliary = suites.secp256k1.auxiliary().ok_or("the suite needs no primes")?;
    let mut file = File::create(path)?;
    writeln!(file, "# PUBLISHED TEST PRIMES, NEVER USE: 1536-bit safe primes for tests, known to everybody")?;
    for number in 0..count {
        let prime = auxiliary.make_ingredient_piece(test_primes::seed(number));
        writeln!(file, "{}", hex::encode(prime.expose()))?;
        file.flush()?;
    }
    Ok(())
}

//! A toy security level for CGGMP24, so that tests and simulations run the real protocol in milliseconds.
//!
//! This is the only place that defines one. Test targets, unit tests and `sim` include the file by its path; the
//! product has no module of that name, so nothing in the binary can select it (`protocol_cggmp.rs` holds that).

/// 600-bit moduli: fast, and worthless.
#[derive(Clone)]
pub struct Toy;

cggmp24::define_security_level!(Toy {
    kappa_bits: 256,
    rsa_prime_bitlen: 300,
    rsa_pubkey_bitlen: 599,
    epsilon: 440,
    ell: 140,
    ell_prime: 100,
    m: 128,
});

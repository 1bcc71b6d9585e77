//! The contract between mpcium clusters and their clients, and the Rust client.
//!
//! Without the feature `nats` this crate is plain data and pure functions: the request and result documents, the
//! bytes that initiators and authorizers sign, the subjects, and child-key derivation. Nodes and clients share it, so
//! the two sides cannot disagree. The feature `nats` adds the asynchronous client and its local signers.
//!
//! The documents are those of the existing Go system, byte for byte: its own client libraries work unchanged.
#![forbid(unsafe_code)]

pub mod attest;
pub mod auth;
pub mod derive;
mod fields;
pub mod full;
pub mod gojson;
pub mod hash;
pub mod memory;
pub mod prefix;
pub mod query;
pub mod request;
pub mod result;
pub mod subjects;

#[cfg(feature = "nats")]
pub mod client;
#[cfg(feature = "kms")]
pub mod kms;
#[cfg(feature = "nats")]
pub mod listen;
#[cfg(feature = "nats")]
pub mod signer;

pub use full::FullSignature;
pub use hash::MessageHash;
pub use prefix::Prefix;
pub use request::{AuthorizerSignature, KeyType, KeygenRequest, Kind, Request, ReshareRequest, SignRequest};
pub use result::{ErrorCode, KeygenResult, ReshareResult, ResultType, SigningResult};

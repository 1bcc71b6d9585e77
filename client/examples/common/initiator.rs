//! The initiator's key, in a file.

use std::path::Path;

use mpcium_client::{auth::Algorithm, signer::LocalSigner};

use crate::common::{Arguments, Failure};

/// `--initiator FILE` and `--algorithm ed25519|p256`.
pub fn initiator(arguments: &Arguments) -> Result<LocalSigner, Failure> {
    let algorithm = Algorithm::parse(arguments.get("--algorithm", "ed25519"))?;
    read(arguments, algorithm, arguments.get("--initiator", "event_initiator.key"))
}

/// A key in a file; `--passphrase-file FILE` decrypts it.
pub fn read(arguments: &Arguments, algorithm: Algorithm, file: &str) -> Result<LocalSigner, Failure> {
    let passphrase = match arguments.get("--passphrase-file", "") {
        "" => None,
        file => Some(std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?),
    };
    Ok(LocalSigner::read(algorithm, Path::new(file), passphrase.as_deref().map(str::trim))?)
}

//! Getting into a server: the files that it takes, and in words what keeps a node out.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::NatsError;

/// TLS settings; all files are PEM.
#[derive(Clone, Debug, Default)]
pub struct NatsTls {
    /// The only certificate authority that is trusted; `None`: the machine's.
    pub authority: Option<PathBuf>,
    /// This node's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl NatsTls {
    /// Whether the files are what they should be: the client library would only say so as one of the many reasons for
    /// which a connection may fail, and without the file's name.
    pub(super) fn check(&self) -> Result<(), NatsError> {
        if let Some(path) = &self.authority {
            certificates(path)?;
        }
        if let Some((certificate, key)) = &self.client {
            certificates(certificate)?;
            PrivateKeyDer::from_pem_file(key).map_err(|error| NatsError::File {
                path: key.clone(),
                reason: format!("no private key in PEM: {error}"),
            })?;
        }
        Ok(())
    }
}

fn certificates(path: &Path) -> Result<(), NatsError> {
    let bytes = std::fs::read(path).map_err(|error| NatsError::file(path, &error))?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let reason = match found {
        Ok(found) if !found.is_empty() => return Ok(()),
        Ok(_) => "there is no certificate in PEM in it".to_owned(),
        Err(error) => format!("no certificate in PEM: {error}"),
    };
    Err(NatsError::file(path, &io::Error::other(reason)))
}

/// What people can do about failures that the client library, TLS or the server name in their own words.
const ADVICE: [(&str, &str); 10] = [
    ("could not load platform certs", "nats.tls.ca_cert names the file with the authority to trust"),
    (
        "UnknownIssuer",
        "the server's certificate does not come from an authority that is trusted here; nats.tls.ca_cert names the file \
         with the right one",
    ),
    (
        "certificate not valid for name",
        "the server's certificate is for another host than the address in nats.urls names",
    ),
    ("certificate expired", "the server's certificate has expired, or this machine's clock is wrong"),
    (
        "CertificateRequired",
        "the server demands a client certificate; nats.tls.client_cert and nats.tls.client_key name its files",
    ),
    ("fatal alert: BadCertificate", REFUSED_CERTIFICATE),
    ("fatal alert: UnknownCA", REFUSED_CERTIFICATE),
    ("fatal alert: CertificateExpired", "the client certificate in nats.tls.client_cert has expired"),
    ("InvalidContentType", "the server does not speak TLS, which the configuration demands of it"),
    (
        "authorization violation",
        "what was given as nats.username and nats.password, as nats.credentials, or as client certificate are not \
         accepted, or none was given",
    ),
];
const REFUSED_CERTIFICATE: &str = "the server does not accept this client's certificate (nats.tls.client_cert)";

/// A failure with what to do about it, where that is known.
pub(super) fn explained(failure: &str) -> String {
    match ADVICE.iter().find(|(words, _)| failure.contains(words)) {
        Some((_, advice)) => format!("{failure}: {advice}"),
        None => failure.to_owned(),
    }
}

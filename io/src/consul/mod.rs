//! Consul: who should exist, and what operators see of this node.
//!
//! Whoever reaches Consul can write there, so nothing read here is more than a hint: the core decides by its own
//! configuration and by links. Calls are retried without end where a node depends on them, and what they wait for is
//! told in [`Notices`]. Keys are the existing system's: `mpc_peers/<name>`, `ready/<node id>`,
//! `threshold_keyinfo/<curve>:<wallet>`, below a prefix where several clusters share a Consul.

mod api;
mod peers;
mod service;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, time::Duration};

use mpcium_core::NodeId;
use zeroize::Zeroizing;

pub use peers::{KeyInfoHint, Registration};
pub use service::Presence;

use crate::notice::Notices;

/// How long one ordinary call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a prefix of keys.
const PREFIX_BYTES_MAX: usize = 100;
/// Bytes of an answer that are read; more is an error.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How to reach Consul.
#[derive(Clone)]
pub struct ConsulOptions {
    /// `host:port` (plain HTTP) or a URL with `http://` or `https://`.
    pub address: String,
    /// An access token.
    pub token: Option<Zeroizing<String>>,
    /// User and password for basic authentication.
    pub user: Option<(String, Zeroizing<String>)>,
    /// Certificates for `https://`.
    pub tls: ConsulTls,
    /// What stands before every key; clusters that share a Consul differ in it.
    pub prefix: KeyPrefix,
}

/// Certificates for `https://`; all files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsulTls {
    /// The only certificate authority that is trusted, or a folder with the files of several; `None`: the machine's.
    pub authority: Option<PathBuf>,
    /// This node's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What stands before every key of a cluster, and before its service's name; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// Reads a prefix: parts of ASCII letters, digits, `_`, `-` and `.`, separated by slashes. The empty text is the
    /// default.
    ///
    /// # Errors
    /// If it is none: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |part: &str| {
            let named = part.chars().any(|c| c != '.');
            named && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if text.len() > PREFIX_BYTES_MAX || !(text.is_empty() || text.split('/').all(plain)) {
            return Err(format!(
                "expected at most {PREFIX_BYTES_MAX} letters, digits, _, - and ., in parts that / separates; got {text:?}"
            ));
        }
        // Keys of the cluster without a prefix must not lie below this one's, nor the other way round.
        match text.split('/').find(|part| peers::FOLDERS.contains(part)) {
            Some(taken) => {
                Err(format!("{taken:?} cannot be a part of it: a folder of the cluster's own has that name"))
            }
            None => Ok(Self(text.to_owned())),
        }
    }

    /// A key of this cluster.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.0.is_empty() { key.to_owned() } else { format!("{}/{key}", self.0) }
    }

    /// The name of this cluster's service.
    pub(crate) fn service(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}-{name}", self.0.replace(['/', '.', '_'], "-")) }
    }
}

impl ConsulOptions {
    /// Plain options for one address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token: None,
            user: None,
            tls: ConsulTls::default(),
            prefix: KeyPrefix::default(),
        }
    }
}

impl fmt::Debug for ConsulOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulOptions")
            .field("address", &api::without_password(&self.address))
            .field("token", &self.token.as_ref().map(|_| ".."))
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .finish()
    }
}

/// Why a call to Consul failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulError {
    /// The address or an option cannot be used.
    Options(String),
    /// A file cannot be used.
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No answer came.
    Unreachable(String),
    /// The answer was a refusal.
    Refused {
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
    /// The answer was not understood.
    Answer(String),
    /// A peer's name is registered with another id.
    Conflict {
        /// The name.
        name: String,
        /// The key under which it stands.
        key: String,
        /// The id to be registered.
        wanted: NodeId,
        /// What stands there.
        found: String,
    },
}

impl fmt::Display for ConsulError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(what) => write!(f, "Consul cannot be used: {what}"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Unreachable(why) => write!(f, "Consul does not answer: {why}"),
            Self::Refused { what, status, text } => {
                write!(f, "Consul refused {what} with status {status}: {text}")?;
                if *status == 403 { write!(f, ": look at consul.token and what its policy allows") } else { Ok(()) }
            }
            Self::Answer(what) => write!(f, "Consul's answer was not understood: {what}"),
            Self::Conflict { name, key, wanted, found } => {
                write!(f, "peer {name} is registered with id {found}, not {wanted}: remove {key} first")
            }
        }
    }
}

impl std::error::Error for ConsulError {}

/// A client of one Consul agent. Cheap to clone.
#[derive(Clone)]
pub struct Consul {
    http: reqwest::Client,
    base: String,
    options: ConsulOptions,
    notices: Notices,
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul").field("options", &self.options).finish_non_exhaustive()
    }
}

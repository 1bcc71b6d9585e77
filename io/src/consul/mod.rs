//! Consul: who should exist, and what operators see of this node.
//!
//! Whoever reaches Consul can write there, so nothing read here is more than a hint: the core decides by its own
//! configuration and by links. Calls are retried without end where a node depends on them, and what they wait for is
//! told in [`Notices`]. Keys are the existing system's: `mpc_peers/<name>`, `ready/<node id>`,
//! `threshold_keyinfo/<curve>:<wallet>`.

mod api;
mod peers;
mod service;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use mpcium_core::NodeId;
use zeroize::Zeroizing;

pub use peers::{KeyInfoHint, Registration};
pub use service::Presence;

use crate::notice::Notices;

/// How long one ordinary call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
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
}

impl ConsulOptions {
    /// Plain options for one address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), token: None, user: None }
    }
}

impl fmt::Debug for ConsulOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulOptions")
            .field("address", &api::without_password(&self.address))
            .field("token", &self.token.as_ref().map(|_| ".."))
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .finish()
    }
}

/// Why a call to Consul failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulError {
    /// The address or an option cannot be used.
    Options(String),
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
            Self::Unreachable(why) => write!(f, "Consul does not answer: {why}"),
            Self::Refused { what, status, text } => write!(f, "Consul refused {what} with status {status}: {text}"),
            Self::Answer(what) => write!(f, "Consul's answer was not understood: {what}"),
            Self::Conflict { name, wanted, found } => {
                write!(f, "peer {name} is registered with id {found}, not {wanted}: remove mpc_peers/{name} first")
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

//! What is wrong with what arrives, as data for reports.
//!
//! Invariant: nothing that a stranger sends decides how many troubles are told: the same kind with the same peer is
//! told at most once per [`TROUBLE_INTERVAL`](crate::limits::TROUBLE_INTERVAL).

use std::collections::BTreeMap;

use crate::{Time, limits};

/// Something is wrong with what arrives. Peers are given by name; `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A datagram that is nothing this version knows, or that no configured peer sent.
    Stranger,
    /// A handshake message that claims to be from a peer is malformed or meant for another node.
    Malformed {
        /// The claimed sender.
        peer: String,
    },
    /// A handshake message is not signed with the peer's identity key.
    BadSignature {
        /// The claimed sender.
        peer: String,
    },
    /// The key exchange was tampered with.
    BadKeys {
        /// The claimed sender.
        peer: String,
    },
    /// A packet of an established link has a broken seal.
    Forged {
        /// The claimed sender.
        peer: String,
    },
    /// Somebody sends another version of the link protocol.
    Version {
        /// The version of the datagram.
        theirs: u8,
        /// The version of this node.
        ours: u8,
    },
    /// More handshakes arrive in a peer's name than are answered.
    RateLimited {
        /// The claimed sender.
        peer: String,
    },
    /// The peer broke the link protocol.
    Violation {
        /// The peer.
        peer: String,
        /// How.
        what: &'static str,
    },
    /// The peer is configured differently, so no link is made.
    Configuration {
        /// The peer.
        peer: String,
        /// Names of the facets that differ.
        differs: Vec<String>,
    },
    /// A peer remembers more of this node than this node's store does.
    RolledBack {
        /// Who remembers it.
        peer: String,
    },
    /// A peer says that this node told it something that this node has never signed.
    FalseClaim {
        /// The peer.
        peer: String,
    },
    /// The peer's store lacks something that the peer had told this node.
    PeerRolledBack {
        /// The peer.
        peer: String,
    },
    /// An earlier start of a peer is back: two processes run with one identity.
    DuplicateIdentity {
        /// The peer.
        peer: String,
    },
}

impl Trouble {
    /// Whether somebody must look.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(
            self,
            Self::Configuration { .. }
                | Self::RolledBack { .. }
                | Self::FalseClaim { .. }
                | Self::PeerRolledBack { .. }
                | Self::DuplicateIdentity { .. }
        )
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Stranger => 0,
            Self::Malformed { .. } => 1,
            Self::BadSignature { .. } => 2,
            Self::BadKeys { .. } => 3,
            Self::Forged { .. } => 4,
            Self::Version { .. } => 5,
            Self::RateLimited { .. } => 6,
            Self::Violation { .. } => 7,
            Self::Configuration { .. } => 8,
            Self::RolledBack { .. } => 9,
            Self::PeerRolledBack { .. } => 10,
            Self::DuplicateIdentity { .. } => 11,
            Self::FalseClaim { .. } => 12,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stranger => f.write_str("a datagram arrived that no configured peer sent"),
            Self::Malformed { peer } => write!(f, "a malformed handshake arrived in the name of {peer}"),
            Self::BadSignature { peer } => {
                write!(f, "a handshake in the name of {peer} is not signed with the identity key configured for {peer}")
            }
            Self::BadKeys { peer } => write!(f, "the key exchange with {peer} was tampered with"),
            Self::Forged { peer } => write!(f, "a packet in the name of {peer} has a broken seal"),
            Self::Version { theirs, ours } => {
                write!(f, "a datagram has version {theirs} of the link protocol, this node speaks version {ours}")
            }
            Self::RateLimited { peer } => write!(f, "too many handshakes in the name of {peer}"),
            Self::Violation { peer, what } => write!(f, "{peer} broke the link protocol: {what}"),
            Self::Configuration { peer, differs } => {
                write!(f, "{peer} is configured differently: {}", differs.join(", "))
            }
            Self::RolledBack { peer } => write!(
                f,
                "{peer} remembers what this node told it and this node's store does not know: the store was rolled \
                 back, restored or copied, or another process runs with this identity"
            ),
            Self::FalseClaim { peer } => {
                write!(f, "{peer} says that this node told it what this node has never signed: {peer} lies")
            }
            Self::PeerRolledBack { peer } => write!(
                f,
                "the store of {peer} does not know what {peer} told this node: it was rolled back, restored or copied, \
                 or two processes run with this identity"
            ),
            Self::DuplicateIdentity { peer } => {
                write!(f, "two processes run with the identity of {peer}: an earlier start of it is back")
            }
        }
    }
}

/// Lets the first of its kind pass and holds back repetitions.
#[derive(Default)]
pub(super) struct Gate(BTreeMap<u8, Time>);

impl Gate {
    pub fn admits(&mut self, now: Time, trouble: &Trouble) -> bool {
        let kind = trouble.kind();
        if self.0.get(&kind).is_some_and(|told| told.after(limits::TROUBLE_INTERVAL) > now) {
            return false;
        }
        self.0.insert(kind, now);
        true
    }
}

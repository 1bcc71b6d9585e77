//! Structured facts: the only source of logs, metrics and the audit trail. No report ever holds a secret.

use serde::Serialize;

/// How loud a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For people who look for something.
    Debug,
    /// The node's life.
    Info,
    /// Something went wrong and is being dealt with.
    Warn,
    /// Somebody must look.
    Alarm,
}

/// One fact. Nodes are given by name, sessions by the first eight hex digits of their id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// The node exists and begins to look for its peers.
    Started {
        /// Its name.
        node: String,
        /// This start.
        incarnation: String,
        /// Nodes in the cluster.
        nodes: usize,
        /// Nodes that sign together.
        threshold: u16,
    },
    /// Links to enough nodes are up and requests are being taken.
    Ready {
        /// Nodes that answer, this one included.
        reachable: usize,
    },
    /// The node cannot take requests (any more).
    NotReady {
        /// What it waits for.
        waiting_for: String,
    },
    /// A peer answers.
    LinkUp {
        /// The peer.
        peer: String,
        /// Its start.
        incarnation: String,
    },
    /// A peer does not answer any more.
    LinkDown {
        /// The peer.
        peer: String,
        /// Why.
        reason: String,
    },
    /// Something is wrong with what arrives from a peer, or from somebody who claims to be it.
    LinkTrouble {
        /// What is wrong.
        what: String,
        /// Whether somebody must look (two processes with one identity, a configuration that differs).
        alarm: bool,
    },
    /// A request came from the queue.
    RequestTaken {
        /// `keygen`, `sign` or `reshare`.
        kind: &'static str,
        /// The wallet.
        wallet: String,
        /// The client's transaction or session id.
        id: String,
        /// Which delivery this is, from 1.
        delivery: u64,
    },
    /// A request cannot go on yet.
    RequestWaits {
        /// `keygen`, `sign` or `reshare`.
        kind: &'static str,
        /// The wallet.
        wallet: String,
        /// The client's transaction or session id.
        id: String,
        /// What it waits for.
        waiting_for: String,
    },
    /// A request was answered.
    RequestAnswered {
        /// `keygen`, `sign` or `reshare`.
        kind: &'static str,
        /// The wallet.
        wallet: String,
        /// The client's transaction or session id.
        id: String,
        /// Empty on success.
        error_code: String,
        /// Empty on success.
        reason: String,
        /// Milliseconds since this node took it.
        took_ms: u64,
    },
    /// This node joins a run of a protocol.
    SessionStarted {
        /// The session.
        session: String,
        /// `keygen`, `sign secp256k1`, `sign ed25519` or `auxiliary`.
        protocol: String,
        /// The wallet, if it is for one.
        wallet: String,
        /// Who proposed it.
        coordinator: String,
        /// Which attempt at the request this is.
        attempt: u32,
        /// Who takes part.
        participants: Vec<String>,
    },
    /// A run of a protocol ended at this node.
    SessionEnded {
        /// The session.
        session: String,
        /// As in `SessionStarted`.
        protocol: String,
        /// The wallet, if it is for one.
        wallet: String,
        /// Empty on success.
        reason: String,
        /// Whom the evidence names.
        culprits: Vec<String>,
        /// Who said nothing.
        silent: Vec<String>,
        /// Milliseconds since it started here.
        took_ms: u64,
    },
    /// A peer's proposal was not accepted.
    Declined {
        /// The session.
        session: String,
        /// Who declined.
        by: String,
        /// Why.
        reason: String,
    },
    /// A wallet's keys exist.
    WalletActivated {
        /// The wallet.
        wallet: String,
        /// The epoch.
        epoch: u32,
        /// Its members.
        members: Vec<String>,
    },
    /// A piece of an ingredient (a safe prime) was made.
    IngredientMade {
        /// Pieces in store.
        pieces: usize,
        /// Pieces wanted.
        wanted: usize,
    },
    /// An auxiliary set can be used.
    AuxiliaryReady {
        /// Its name.
        set: String,
        /// Its members.
        members: Vec<String>,
    },
    /// A pair's auxiliary data must never be used again: a consistency check on it failed.
    PairBanned {
        /// The other member.
        peer: String,
        /// The set's name.
        set: String,
        /// Who found it.
        by: String,
        /// What failed.
        reason: String,
        /// Seconds until the pair makes new auxiliary data on its own.
        wait_s: u64,
    },
    /// A node that was rolled back has learned what it missed and is fit again.
    CaughtUp,
    /// A message was not understood or not allowed.
    Ignored {
        /// From whom.
        peer: String,
        /// What it was.
        what: String,
    },
    /// More such messages came than are told one by one; what follows is the next that is told.
    IgnoredUntold {
        /// From whom.
        peer: String,
        /// How many.
        messages: u64,
    },
    /// Somebody must look.
    Alarm {
        /// At what.
        what: String,
    },
}

impl Report {
    /// How loud it is.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Started { .. }
            | Self::Ready { .. }
            | Self::LinkUp { .. }
            | Self::RequestWaits { .. }
            | Self::RequestAnswered { .. }
            | Self::SessionStarted { .. }
            | Self::WalletActivated { .. }
            | Self::IngredientMade { .. }
            | Self::AuxiliaryReady { .. }
            | Self::CaughtUp => Level::Info,
            Self::SessionEnded { reason, .. } if reason.is_empty() => Level::Info,
            Self::RequestTaken { .. } => Level::Debug,
            Self::NotReady { .. }
            | Self::LinkDown { .. }
            | Self::SessionEnded { .. }
            | Self::Declined { .. }
            | Self::Ignored { .. }
            | Self::IgnoredUntold { .. } => Level::Warn,
            Self::LinkTrouble { alarm, .. } => {
                if *alarm {
                    Level::Alarm
                } else {
                    Level::Warn
                }
            }
            Self::PairBanned { .. } | Self::Alarm { .. } => Level::Alarm,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started { node, incarnation, nodes, threshold } => {
                write!(f, "{node} started (incarnation {incarnation}): {threshold} of {nodes} nodes sign")
            }
            Self::Ready { reachable } => write!(f, "[READY] Node is ready: {reachable} nodes answer"),
            Self::NotReady { waiting_for } => write!(f, "not ready: waits for {waiting_for}"),
            Self::LinkUp { peer, incarnation } => write!(f, "{peer} answers (incarnation {incarnation})"),
            Self::LinkDown { peer, reason } => write!(f, "{peer} does not answer: {reason}"),
            Self::LinkTrouble { what, .. } | Self::Alarm { what } => f.write_str(what),
            Self::RequestTaken { kind, wallet, id, delivery } => {
                write!(f, "{kind} request {id} for wallet {wallet} taken (delivery {delivery})")
            }
            Self::RequestWaits { kind, wallet, id, waiting_for } => {
                write!(f, "{kind} request {id} for wallet {wallet} waits for {waiting_for}")
            }
            Self::RequestAnswered { kind, wallet, id, error_code, took_ms, .. } if error_code.is_empty() => {
                write!(f, "{kind} request {id} for wallet {wallet} answered: success after {took_ms} ms")
            }
            Self::RequestAnswered { kind, wallet, id, error_code, reason, took_ms } => {
                write!(f, "{kind} request {id} for wallet {wallet} answered: {error_code} after {took_ms} ms: {reason}")
            }
            Self::SessionStarted { session, protocol, wallet, coordinator, attempt, participants } => write!(
                f,
                "session {session} ({protocol}){} started: attempt {attempt} of {coordinator} with {}",
                for_wallet(wallet),
                participants.join(", ")
            ),
            Self::SessionEnded { session, protocol, wallet, reason, culprits, silent, took_ms } => {
                write!(f, "session {session} ({protocol}){} ended after {took_ms} ms: ", for_wallet(wallet))?;
                f.write_str(if reason.is_empty() { "done" } else { reason })?;
                if !culprits.is_empty() {
                    write!(f, "; misbehaved: {}", culprits.join(", "))?;
                }
                if !silent.is_empty() {
                    write!(f, "; silent: {}", silent.join(", "))?;
                }
                Ok(())
            }
            Self::Declined { session, by, reason } => write!(f, "{by} declined session {session}: {reason}"),
            Self::WalletActivated { wallet, epoch, members } => {
                write!(f, "wallet {wallet} exists (epoch {epoch}) at {}", members.join(", "))
            }
            Self::IngredientMade { pieces, wanted } => write!(f, "safe primes: {pieces} of {wanted} in store"),
            Self::AuxiliaryReady { set, members } => write!(f, "auxiliary set {set} ready for {}", members.join(", ")),
            Self::PairBanned { peer, set, by, reason, wait_s } => write!(
                f,
                "auxiliary set {set} with {peer} is banned for ever (found by {by}: {reason}); both go on with others, \
                 and make a new one after {wait_s} s"
            ),
            Self::CaughtUp => f.write_str("the node has been brought up to date and signs again"),
            Self::Ignored { peer, what } => write!(f, "ignored from {peer}: {what}"),
            Self::IgnoredUntold { peer, messages } => write!(f, "ignored from {peer}: {messages} messages more"),
        }
    }
}

/// ` for NAME`, or nothing for sessions that belong to no wallet.
fn for_wallet(wallet: &str) -> String {
    if wallet.is_empty() { String::new() } else { format!(" for {wallet}") }
}

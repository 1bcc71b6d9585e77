//! The mpcium node as a pure state machine.
//!
//! [`Node`] takes [`Input`]s (requests, datagrams from peers, completed writes, finished computations, time) and
//! emits [`Output`]s (datagrams, writes, computations, results). It performs no I/O, reads no clock, starts no
//! thread and draws no ambient randomness: the same seed and the same inputs give byte-identical outputs, which is
//! what lets a simulator replay a whole cluster from one number.
//!
//! ```text
//! let mut node = Node::new(config, identity, suites, boot_record, seed, now);
//! node.handle(now, input);                  // never blocks, never fails: bad input becomes a report
//! while let Some(output) = node.poll() {}   // drain after every handle
//! node.wake_at();                           // when it next wants an Input::Wake
//! ```
//!
//! Where to read on: `node` routes; `link` is what peers say to each other; `session` is one party's run of one
//! protocol; `request` answers clients; `wallet` makes a key exist exactly once; `protocol` hides the cryptography.
#![forbid(unsafe_code)]

// Here because it speaks in messages that only nodes know; the cluster that it lies to names this crate from outside.
#[cfg(test)]
#[path = "../tests/adversary/mod.rs"]
mod adversary;
#[cfg(test)]
extern crate self as mpcium_core;

mod auxiliary;
mod bucket;
#[cfg(test)]
mod codecs;
pub mod committee;
pub mod config;
pub mod consensus;
mod context;
pub mod decode;
pub mod identity;
pub mod input;
pub mod limits;
pub mod link;
mod message;
pub mod node;
pub mod output;
pub mod planted;
pub mod protocol;
pub mod report;
mod request;
pub mod secret;
pub mod session;
pub mod store;
pub mod tags;
pub mod time;
pub mod wallet;

pub use config::Config;
pub use identity::{Identity, Incarnation, NodeId, PeerInfo};
pub use input::Input;
pub use output::Output;
pub use request::ledger::LedgerEntry;
pub use secret::Secret;
pub use time::{Duration, Now, Time, WallTime};

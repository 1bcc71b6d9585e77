//! What nodes say to each other over links.
//!
//! Nothing in a message is trusted beyond "this peer said it": a sender's position in a session is looked up, never
//! read from the message.

use serde::{Deserialize, Serialize};

use crate::{limits, session::SessionId};

/// One message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Between the participants of a running session.
    Session(SessionMessage),
    /// About signing requests.
    Signing(crate::request::signing::Message),
    /// About the existence of wallets.
    Wallet(crate::wallet::activation::Message),
    /// About auxiliary data.
    Auxiliary(crate::auxiliary::Message),
    /// About what deliveries are answered with.
    Answers(crate::request::answers::Message),
    /// About what a node missed.
    CatchUp(crate::node::CatchUpMessage),
    /// Make a presignature.
    Presigning(crate::request::signing::presignatures::Proposal),
}

/// Between the participants of a running session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum SessionMessage {
    /// A message of the protocol.
    Round {
        session: SessionId,
        broadcast: bool,
        /// The same encoding as without the attribute, written and read at once instead of byte by byte.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The sender is still computing, or waits for a worker: do not count it silent.
    Computing { session: SessionId },
    /// The sender has given the session up.
    Abort { session: SessionId, reason: String },
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain data into memory cannot fail.
        postcard::to_stdvec(self).expect("a message of plain data serialises")
    }

    /// `None`: not a message of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > limits::MESSAGE_BYTES_MAX {
            return None;
        }
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Some(message),
            _ => None,
        }
    }
}

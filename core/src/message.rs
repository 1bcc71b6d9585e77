//! What nodes say to each other over links.
//!
//! Nothing in a message is trusted beyond "this peer said it": a sender's position in a session is looked up, never
//! read from the message.

use serde::{Deserialize, Serialize};

use crate::{decode, limits, session::SessionId};

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

/// How the encoding of [`Message::Session`] begins.
const SESSION: u8 = 0;

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain data into memory cannot fail.
        postcard::to_stdvec(self).expect("a message of plain data serialises")
    }

    /// `None`: not a message of this version, or not in its one encoding.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        // Only what is said in sessions is long, and comes in one piece; of anything else the parts take more memory than
        // their bytes.
        let most =
            if bytes.first() == Some(&SESSION) { limits::MESSAGE_BYTES_MAX } else { limits::PLAIN_MESSAGE_BYTES_MAX };
        if bytes.len() > most {
            return None;
        }
        decode::exact(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_in_sessions_may_be_long() {
        let round = |length| {
            let bytes = vec![7; length];
            Message::Session(SessionMessage::Round { session: SessionId([1; 32]), broadcast: true, bytes }).encode()
        };
        let long = round(limits::MESSAGE_BYTES_MAX - 64);
        assert_eq!(long.first(), Some(&SESSION));
        assert!(Message::decode(&long).is_some());
        assert!(Message::decode(&round(limits::MESSAGE_BYTES_MAX)).is_none());
        let state = |sets| {
            let sets = vec![[7; 32]; sets];
            let (agreed, pairs, banned) = (Vec::new(), Vec::new(), Vec::new());
            Message::Auxiliary(crate::auxiliary::Message::State { has_ingredient: true, sets, agreed, pairs, banned })
        };
        let most = limits::PLAIN_MESSAGE_BYTES_MAX / 32;
        assert!(Message::decode(&state(most - 1).encode()).is_some());
        assert!(Message::decode(&state(most).encode()).is_none());
    }
}

//! Whose a handshake message is, before anything costly is done with it.
//!
//! Two nodes share a key that follows from their identity keys (X25519 of both, converted from Ed25519), and every
//! message of a handshake ends with a MAC under it. It decides nothing but whether the message is looked at: identities
//! are proven by signatures, traffic keys come from fresh secrets, and neither depends on this key. A stranger cannot
//! make such a message, so no flood of invented ones takes the place of the peer's.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Identity, NodeId, PeerInfo, tags};

/// Bytes of the MAC at the end of a message.
const MAC: usize = 32;

/// What two nodes have in common.
pub(super) struct Acquaintance {
    key: Zeroizing<[u8; 32]>,
    me: NodeId,
    peer: NodeId,
}

impl Acquaintance {
    pub fn new(identity: &Identity, peer: &PeerInfo) -> Self {
        let shared = identity.agree(&peer.key);
        let (me, peer) = (identity.id(), peer.id);
        let both = [me.min(peer), me.max(peer)];
        let key = tags::LINK_ACQUAINTANCE.derive(shared.as_slice(), &both.map(|id| *id.as_bytes()).concat());
        Self { key, me, peer }
    }

    fn mac(&self, sender: NodeId, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice()).expect("HMAC takes keys of any length");
        mac.update(sender.as_bytes());
        mac.update(message);
        mac
    }

    /// Completes a message of this node to the peer.
    pub fn seal(&self, mut message: Vec<u8>) -> Vec<u8> {
        let mac = self.mac(self.me, &message).finalize().into_bytes();
        message.extend_from_slice(&mac);
        message
    }

    /// The message inside a datagram of the peer to this node; `None`: somebody else made it.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        self.open_of(self.peer, datagram)
    }

    /// Whether this node made a datagram itself.
    pub fn made(&self, datagram: &[u8]) -> bool {
        self.open_of(self.me, datagram).is_some()
    }

    fn open_of<'a>(&self, sender: NodeId, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (message, mac) = datagram.split_at_checked(datagram.len().checked_sub(MAC)?)?;
        self.mac(sender, message).verify_slice(mac).ok().map(|()| message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> (Identity, PeerInfo) {
        let identity = Identity::new(NodeId::from_bytes([n; 16]), &[n; 32]);
        let info = PeerInfo { id: identity.id(), name: format!("node{n}"), key: identity.public() };
        (identity, info)
    }

    #[test]
    fn two_nodes_know_each_others_messages_and_nobody_elses() {
        let ((alice, alice_info), (bob, bob_info), (carol, carol_info)) = (node(1), node(2), node(3));
        let sealed = Acquaintance::new(&alice, &bob_info).seal(b"hello".to_vec());
        let at_bob = Acquaintance::new(&bob, &alice_info);
        assert_eq!(at_bob.open(&sealed), Some(&b"hello"[..]));
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(at_bob.open(&altered), None, "{at}");
        }
        assert_eq!(at_bob.open(&sealed[..20]), None);
        assert_eq!(Acquaintance::new(&bob, &carol_info).open(&sealed), None, "another sender");
        assert_eq!(Acquaintance::new(&carol, &alice_info).open(&sealed), None, "another addressee");
        let at_alice = Acquaintance::new(&alice, &bob_info);
        assert!(at_alice.open(&sealed).is_none() && at_alice.made(&sealed) && !at_bob.made(&sealed), "sent back");
        // Whoever knows a node's public key alone knows nothing.
        let impostor = Identity::new(alice.id(), &[9; 32]);
        assert_eq!(at_bob.open(&Acquaintance::new(&impostor, &bob_info).seal(b"hello".to_vec())), None);
    }
}

//! The handshake: hello, reply, confirmation (SIGMA).
//!
//! Both sides sign everything said so far (version, roles, ids, how far each has come, what each remembers of the other,
//! fresh X25519 keys, hashes of the configuration), and each proves that it holds the keys that follow from it.
//! Invariant: traffic keys depend on nothing but the two ephemeral secrets and the transcript, so whoever learns an
//! identity key later cannot open recorded traffic.
//!
//! ```text
//! hello   = 1 version | handshake id 8 | party | number 8 | signature 64 signed: 'H' | all before the signature
//! reply   = 2 version | handshake id 8 | party | known 1 | signature 64 | confirmation 32
//!                                                                        signed: 'R' | hello | all before it
//! confirm = 3 version | handshake id 8 | known 1 | signature 64 | confirmation 32
//!                                                                        signed: 'C' | hello | reply | all before it
//! party   = from 16 | to 16 | mark 40 | flag 1 | remembered mark 40 | X25519 key 32 | facets
//! mark    = incarnation 16 | commits 8 | seal 16                          sealed: node id | incarnation | commits
//! facets  = count 1 | (length 1 | name | SHA-256 of the value 32)*
//! ```
//! `known` says whether the sender's store reaches the mark that the other side remembers of it. Each message travels
//! with 32 more bytes that say at little cost whose it is: `acquaintance`.

use hkdf::Hkdf;
use mpcium_client::memory::or_computed;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{
    mark::Mark,
    wire::{self, Reader},
};
use crate::{Identity, Incarnation, NodeId, PeerInfo, identity, limits, tags};

const SIGNATURE: usize = 64;
const CONFIRMATION: usize = 32;

/// Names the two sides' parts of the configuration: name and hash of the value.
pub(super) type Facets = Vec<(String, [u8; 32])>;

/// Hashes the values.
pub(super) fn facets(values: &[(String, String)]) -> Facets {
    let mut facets: Facets = values
        .iter()
        .map(|(name, value)| {
            let mut body = Vec::with_capacity(name.len() + 1 + value.len());
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value.as_bytes());
            (name.clone(), tags::FINGERPRINT.hash(&body))
        })
        .collect();
    facets.sort();
    facets
}

/// The names of facets that differ or that only one side has.
pub(super) fn differences(ours: &Facets, theirs: &Facets) -> Vec<String> {
    let one_sided = |a: &Facets, b: &Facets| -> Vec<String> {
        a.iter().filter(|facet| !b.contains(facet)).map(|(name, _)| name.clone()).collect()
    };
    let mut names = one_sided(ours, theirs);
    names.extend(one_sided(theirs, ours));
    names.sort();
    names.dedup();
    names
}

/// What one side says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Party {
    pub from: NodeId,
    pub to: NodeId,
    /// Its start, and how far it has come.
    pub mark: Mark,
    /// The last mark of the other side that this side remembers.
    pub remembered: Option<Mark>,
    pub key: [u8; 32],
    pub facets: Facets,
}

impl Party {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.from.as_bytes());
        out.extend_from_slice(self.to.as_bytes());
        out.extend_from_slice(&self.mark.to_bytes());
        out.push(u8::from(self.remembered.is_some()));
        out.extend_from_slice(&self.remembered.map_or([0; Mark::BYTES], |mark| mark.to_bytes()));
        out.extend_from_slice(&self.key);
        out.push(self.facets.len() as u8);
        for (name, hash) in &self.facets {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(hash);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let from = NodeId::from_bytes(reader.array()?);
        let to = NodeId::from_bytes(reader.array()?);
        let mark = Mark::from_bytes(&reader.array()?);
        let known = reader.flag()?;
        let remembered = Mark::from_bytes(&reader.array()?);
        let key = reader.array()?;
        let count = usize::from(reader.u8()?);
        if count > limits::FACETS_MAX {
            return None;
        }
        let mut facets = Vec::with_capacity(count);
        for _ in 0..count {
            let length = usize::from(reader.u8()?);
            if length > limits::FACET_NAME_BYTES_MAX {
                return None;
            }
            // Names end up in logs: nothing but plain words.
            let name = std::str::from_utf8(reader.take(length)?).ok()?;
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || " -_.".contains(c)) {
                return None;
            }
            facets.push((name.to_owned(), reader.array()?));
        }
        Some(Self { from, to, mark, remembered: known.then_some(remembered), key, facets })
    }
}

/// The id of a handshake and the sender, read before anything is verified.
pub(super) fn peek(bytes: &[u8]) -> Option<([u8; 8], Option<NodeId>)> {
    let kind = *bytes.first()?;
    let mut reader = Reader(bytes.get(2..)?);
    let id = reader.array()?;
    let from = match kind {
        wire::HELLO | wire::REPLY => Some(NodeId::from_bytes(reader.array()?)),
        _ => None,
    };
    Some((id, from))
}

/// Reads whatever can be read before a signature is checked, and writes it again: what is read has one encoding.
pub(super) fn reads(bytes: &[u8]) -> bool {
    let (Some(_), Some(body)) = (peek(bytes), bytes.get(2 + 8..)) else { return false };
    let _ = claimed_incarnation(bytes);
    let mut reader = Reader(body);
    let Some(party) = Party::read(&mut reader) else { return false };
    let mut again = Vec::new();
    party.write(&mut again);
    let read = &body[..body.len() - reader.0.len()];
    // Where no mark is remembered, the place for it holds whatever the sender put there, and is signed as it is.
    assert!(party.remembered.is_none() || again == read, "a handshake has two encodings");
    true
}

/// The incarnation that a hello or a reply claims, read before anything is verified.
pub(super) fn claimed_incarnation(bytes: &[u8]) -> Option<Incarnation> {
    let mut reader = Reader(bytes.get(2 + 8 + 16 + 16..)?);
    reader.array().map(Incarnation)
}

/// Why a handshake message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is cut short or malformed.
    Malformed,
    /// It is for another node or from another one than its id says.
    Misaddressed,
    /// The signature is not that of the peer's identity key.
    Signature,
    /// The key exchange has a predictable outcome, or the peer derived other keys.
    Keys,
}

fn preimage(role: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + parts.iter().map(|p| p.len() + 4).sum::<usize>());
    body.push(role);
    for part in parts {
        body.extend_from_slice(&(part.len() as u32).to_le_bytes());
        body.extend_from_slice(part);
    }
    body
}

fn start(kind: u8, id: [u8; 8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&[kind, wire::VERSION]);
    bytes.extend_from_slice(&id);
    bytes
}

/// Splits a datagram into the signed part and what follows it.
fn split(bytes: &[u8], tail: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(bytes.len().checked_sub(tail)?)
}

/// Keys of one link, from the point of view of one side.
#[derive(Clone)]
pub(super) struct Keys {
    pub link: [u8; 8],
    pub send: Zeroizing<[u8; 32]>,
    pub receive: Zeroizing<[u8; 32]>,
    confirm_initiator: [u8; CONFIRMATION],
    confirm_responder: [u8; CONFIRMATION],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// `ours` is the public half of `secret`.
    fn derive(
        secret: &StaticSecret,
        ours: [u8; 32],
        theirs: [u8; 32],
        transcript: &[u8],
        initiator: bool,
    ) -> Result<Self, Refused> {
        let both = [ours.min(theirs), ours.max(theirs)];
        let shared = or_computed("key of a link", &both.each_ref().map(|key| key.as_slice()), || {
            let shared = secret.diffie_hellman(&PublicKey::from(theirs));
            shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
        });
        let shared = shared.ok_or(Refused::Keys)?;
        let hkdf = Hkdf::<Sha256>::new(Some(Sha256::digest(transcript).as_slice()), shared.as_slice());
        let expand = |what: &str| -> Result<Zeroizing<[u8; 32]>, Refused> {
            let mut key = Zeroizing::new([0; 32]);
            hkdf.expand(&tags::LINK_KEYS.preimage(what.as_bytes()), key.as_mut_slice()).map_err(|_| Refused::Keys)?;
            Ok(key)
        };
        let to_responder = expand("initiator to responder")?;
        let to_initiator = expand("responder to initiator")?;
        let id = expand("link id")?;
        let mut link = [0; 8];
        link.copy_from_slice(&id[..8]);
        let (send, receive) = if initiator { (to_responder, to_initiator) } else { (to_initiator, to_responder) };
        Ok(Self {
            link,
            send,
            receive,
            confirm_initiator: *expand("initiator confirms")?,
            confirm_responder: *expand("responder confirms")?,
        })
    }
}

/// What a finished handshake established.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    /// The handshake.
    pub id: [u8; 8],
    pub keys: Keys,
    pub peer: Party,
    /// Whether the peer's store reaches the mark that we remember of it.
    pub peer_known: bool,
}

/// Our hello, waiting for its reply.
pub(super) struct Initiator {
    pub id: [u8; 8],
    secret: StaticSecret,
    me: Party,
    pub hello: Vec<u8>,
}

impl Initiator {
    /// `secret` and `id` are fresh random bytes; `number` is greater than in any earlier hello of this process.
    pub fn new(identity: &Identity, mut me: Party, id: [u8; 8], number: u64, secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        me.key = PublicKey::from(&secret).to_bytes();
        let mut hello = start(wire::HELLO, id);
        me.write(&mut hello);
        hello.extend_from_slice(&number.to_le_bytes());
        let signature = identity.sign(tags::HANDSHAKE, &preimage(b'H', &[&hello]));
        hello.extend_from_slice(&signature);
        Self { id, secret, me, hello }
    }

    /// Whether a new hello would say what this one says, but for its keys.
    pub fn says(&self, me: &Party) -> bool {
        let Party { from, to, mark, remembered, key: _, facets } = me;
        let said = &self.me;
        (*from, *to, *mark, *remembered, facets) == (said.from, said.to, said.mark, said.remembered, &said.facets)
    }

    /// Verifies the reply.
    pub fn verify(&self, peer: &PeerInfo, reply: &[u8]) -> Result<Verified, Refused> {
        let (signed, tail) = split(reply, SIGNATURE + CONFIRMATION).ok_or(Refused::Malformed)?;
        let (signature, confirmation) = tail.split_at_checked(SIGNATURE).ok_or(Refused::Malformed)?;
        let mut reader = Reader(signed.get(10..).ok_or(Refused::Malformed)?);
        let party = Party::read(&mut reader).ok_or(Refused::Malformed)?;
        let peer_known = reader.flag().ok_or(Refused::Malformed)?;
        if !reader.0.is_empty() {
            return Err(Refused::Malformed);
        }
        if party.from != peer.id || party.to != self.me.from {
            return Err(Refused::Misaddressed);
        }
        if !identity::verify(&peer.key, tags::HANDSHAKE, &preimage(b'R', &[&self.hello, signed]), signature) {
            return Err(Refused::Signature);
        }
        let keys = Keys::derive(&self.secret, self.me.key, party.key, &preimage(b'K', &[&self.hello, signed]), true)?;
        if !bool::from(keys.confirm_responder.as_slice().ct_eq(confirmation)) {
            return Err(Refused::Keys);
        }
        Ok(Verified { agreed: Agreed { id: self.id, keys, peer: party, peer_known }, reply: signed.to_vec() })
    }

    /// Our last message, which ends the handshake. `known`: whether our store reaches what the peer remembers of us.
    pub fn confirm(&self, identity: &Identity, verified: Verified, known: bool) -> (Agreed, Vec<u8>) {
        let Verified { agreed, reply } = verified;
        let mut confirm = start(wire::CONFIRM, self.id);
        confirm.push(u8::from(known));
        let signature = identity.sign(tags::HANDSHAKE, &preimage(b'C', &[&self.hello, &reply, &confirm]));
        confirm.extend_from_slice(&signature);
        confirm.extend_from_slice(&agreed.keys.confirm_initiator);
        (agreed, confirm)
    }
}

/// A reply that bears the peer's signature and fits the keys: it answers our hello, so it is no replay.
pub(super) struct Verified {
    pub agreed: Agreed,
    /// The signed part.
    reply: Vec<u8>,
}

/// A hello of the peer's. It may be a replay.
pub(super) struct Hello {
    pub id: [u8; 8],
    pub peer: Party,
    number: u64,
    bytes: Vec<u8>,
}

impl Hello {
    /// Reads it; its signature is yet to be [`verified`](Self::verified).
    pub fn read(me: NodeId, peer: &PeerInfo, bytes: &[u8]) -> Result<Self, Refused> {
        let (signed, _) = split(bytes, SIGNATURE).ok_or(Refused::Malformed)?;
        let mut reader = Reader(signed.get(2..).ok_or(Refused::Malformed)?);
        let id = reader.array().ok_or(Refused::Malformed)?;
        let party = Party::read(&mut reader).ok_or(Refused::Malformed)?;
        let number = reader.u64().ok_or(Refused::Malformed)?;
        if !reader.0.is_empty() {
            return Err(Refused::Malformed);
        }
        if party.from != peer.id || party.to != me {
            return Err(Refused::Misaddressed);
        }
        Ok(Self { id, peer: party, number, bytes: bytes.to_vec() })
    }

    /// Its place among all hellos of the node: commits only grow from start to start, numbers within one.
    pub fn place(&self) -> (u64, u64) {
        (self.peer.mark.commits, self.number)
    }

    /// Checks the signature of the peer.
    pub fn verified(self, peer: &PeerInfo) -> Result<Self, Refused> {
        let (signed, signature) = split(&self.bytes, SIGNATURE).ok_or(Refused::Malformed)?;
        if identity::verify(&peer.key, tags::HANDSHAKE, &preimage(b'H', &[signed]), signature) {
            Ok(self)
        } else {
            Err(Refused::Signature)
        }
    }
}

/// Our reply, waiting for its confirmation.
pub(super) struct Responder {
    pub id: [u8; 8],
    pub reply: Vec<u8>,
    signed: usize,
    hello: Hello,
    keys: Keys,
}

impl Responder {
    /// `secret` is fresh random bytes; `known`: whether our store reaches what the peer remembers of us.
    pub fn new(
        identity: &Identity,
        mut me: Party,
        hello: Hello,
        known: bool,
        secret: [u8; 32],
    ) -> Result<Self, Refused> {
        let secret = StaticSecret::from(secret);
        me.key = PublicKey::from(&secret).to_bytes();
        let mut reply = start(wire::REPLY, hello.id);
        me.write(&mut reply);
        reply.push(u8::from(known));
        let signed = reply.len();
        let keys = Keys::derive(&secret, me.key, hello.peer.key, &preimage(b'K', &[&hello.bytes, &reply]), false)?;
        let signature = identity.sign(tags::HANDSHAKE, &preimage(b'R', &[&hello.bytes, &reply]));
        reply.extend_from_slice(&signature);
        reply.extend_from_slice(&keys.confirm_responder);
        Ok(Self { id: hello.id, reply, signed, hello, keys })
    }

    /// Whether a confirmation shows that its sender has the keys: no repetition of an older one does.
    pub fn is_fresh(&self, confirm: &[u8]) -> bool {
        split(confirm, CONFIRMATION)
            .is_some_and(|(_, confirmation)| bool::from(self.keys.confirm_initiator.as_slice().ct_eq(confirmation)))
    }

    /// Verifies the confirmation.
    pub fn finish(&self, peer: &PeerInfo, confirm: &[u8]) -> Result<Agreed, Refused> {
        let (signed, tail) = split(confirm, SIGNATURE + CONFIRMATION).ok_or(Refused::Malformed)?;
        let (signature, _) = tail.split_at_checked(SIGNATURE).ok_or(Refused::Malformed)?;
        let mut reader = Reader(signed.get(10..).ok_or(Refused::Malformed)?);
        let peer_known = reader.flag().ok_or(Refused::Malformed)?;
        if !reader.0.is_empty() {
            return Err(Refused::Malformed);
        }
        if !self.is_fresh(confirm) {
            return Err(Refused::Keys);
        }
        let replied = self.reply.get(..self.signed).ok_or(Refused::Malformed)?;
        let body = preimage(b'C', &[&self.hello.bytes, replied, signed]);
        if !identity::verify(&peer.key, tags::HANDSHAKE, &body, signature) {
            return Err(Refused::Signature);
        }
        Ok(Agreed { id: self.id, keys: self.keys.clone(), peer: self.hello.peer.clone(), peer_known })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn party(from: u8, to: u8) -> Party {
        Party {
            from: NodeId::from_bytes([from; 16]),
            to: NodeId::from_bytes([to; 16]),
            mark: Mark::of(&node(from).0, Incarnation([from; 16]), 1),
            remembered: None,
            key: [0; 32],
            facets: facets(&[("threshold".into(), "2".into())]),
        }
    }

    pub fn node(id: u8) -> (Identity, PeerInfo) {
        let identity = Identity::new(NodeId::from_bytes([id; 16]), &[id; 32]);
        let info = PeerInfo { id: identity.id(), name: format!("node{id}"), key: identity.public() };
        (identity, info)
    }

    fn hello_of(me: &Identity, peer: &PeerInfo, bytes: &[u8]) -> Result<Hello, Refused> {
        Hello::read(me.id(), peer, bytes)?.verified(peer)
    }

    /// What nodes 1 and 2 agree on when node 1 begins, and what they say until then.
    fn shaken() -> ((Agreed, Agreed), [Vec<u8>; 3]) {
        let ((alice, alice_info), (bob, bob_info)) = (node(1), node(2));
        let initiator = Initiator::new(&alice, party(1, 2), [7; 8], 1, [3; 32]);
        let hello = hello_of(&bob, &alice_info, &initiator.hello).expect("genuine");
        let responder = Responder::new(&bob, party(2, 1), hello, true, [4; 32]).expect("sound keys");
        let verified = initiator.verify(&bob_info, &responder.reply).expect("genuine");
        let (ours, confirm) = initiator.confirm(&alice, verified, false);
        let theirs = responder.finish(&alice_info, &confirm).expect("genuine");
        ((ours, theirs), [initiator.hello, responder.reply, confirm])
    }

    /// What nodes 1 and 2 agree on when node 1 begins.
    pub fn agreed() -> (Agreed, Agreed) {
        shaken().0
    }

    /// Hello, reply and confirmation.
    pub fn said() -> [Vec<u8>; 3] {
        shaken().1
    }

    #[test]
    fn both_sides_derive_the_same_keys_crosswise() {
        let (ours, theirs) = agreed();
        assert_eq!(ours.keys.send, theirs.keys.receive);
        assert_eq!(ours.keys.receive, theirs.keys.send);
        assert_ne!(ours.keys.send, ours.keys.receive);
        assert_eq!(ours.keys.link, theirs.keys.link);
        assert!(ours.peer_known && !theirs.peer_known);
        assert_eq!(format!("{:?}", ours.keys), "Keys(..)");
    }

    #[test]
    fn every_flipped_bit_of_every_handshake_message_is_refused() {
        let ((alice, alice_info), (bob, bob_info)) = (node(1), node(2));
        let initiator = Initiator::new(&alice, party(1, 2), [7; 8], 1, [3; 32]);
        let hello = hello_of(&bob, &alice_info, &initiator.hello).expect("genuine");
        let responder = Responder::new(&bob, party(2, 1), hello, true, [4; 32]).expect("sound keys");
        let verified = initiator.verify(&bob_info, &responder.reply).expect("genuine");
        let (_, confirm) = initiator.confirm(&alice, verified, true);
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        for at in 0..initiator.hello.len() {
            assert!(hello_of(&bob, &alice_info, &flipped(&initiator.hello, at)).is_err(), "hello {at}");
        }
        for at in 0..responder.reply.len() {
            let reply = flipped(&responder.reply, at);
            assert!(initiator.verify(&bob_info, &reply).is_err(), "reply {at}");
        }
        for at in 0..confirm.len() {
            assert!(responder.finish(&alice_info, &flipped(&confirm, at)).is_err(), "confirmation {at}");
        }
    }

    #[test]
    fn a_key_exchange_with_a_predictable_outcome_is_refused() {
        let ((alice, alice_info), (bob, _)) = (node(1), node(2));
        // The peer itself signs a hello with a key of small order.
        let mut weak = start(wire::HELLO, [7; 8]);
        party(1, 2).write(&mut weak);
        weak.extend_from_slice(&1_u64.to_le_bytes());
        let signature = alice.sign(tags::HANDSHAKE, &preimage(b'H', &[&weak]));
        weak.extend_from_slice(&signature);
        let hello = hello_of(&bob, &alice_info, &weak).expect("signed");
        assert_eq!(Responder::new(&bob, party(2, 1), hello, true, [4; 32]).err(), Some(Refused::Keys));
    }

    #[test]
    fn differences_are_named_whichever_side_has_them() {
        let facet = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let ours = facets(&[facet("suites", "a"), facet("threshold", "2"), facet("only ours", "x")]);
        let theirs = facets(&[facet("threshold", "3"), facet("suites", "a"), facet("only theirs", "x")]);
        assert_eq!(differences(&ours, &theirs), ["only ours", "only theirs", "threshold"]);
        assert!(differences(&ours, &ours).is_empty());
    }
}

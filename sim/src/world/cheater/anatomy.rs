//! Where things stand in a peer's message.

use mpcium_core::{
    Identity, Incarnation,
    wallet::{Prepared, Refused},
};

/// Kind of a message: its first byte, and the second one within that kind.
pub(super) fn kind(message: &[u8]) -> (u8, u8) {
    (message.first().copied().unwrap_or(u8::MAX), message.get(1).copied().unwrap_or(u8::MAX))
}

/// A message of a protocol's round.
pub(super) const ROUND: (u8, u8) = (0, 0);
/// A proposal to sign.
pub(super) const PROPOSE_SIGN: (u8, u8) = (1, 0);
/// "The signature is stored here."
pub(super) const STORED: (u8, u8) = (1, 2);
/// Everything about wallets.
pub(super) const WALLET: u8 = 2;
/// A proposal to generate keys.
pub(super) const PROPOSE_KEYGEN: (u8, u8) = (2, 0);
/// "My shares are durable."
pub(super) const PREPARED: (u8, u8) = (2, 2);

/// "I never prepare that session."
const REFUSED: (u8, u8) = (2, 8);

/// A round's message begins after kind and session.
const ROUND_BROADCAST: usize = 2 + 32;

/// Whether a round's message says that everybody gets the same.
pub(super) fn is_broadcast(message: &[u8]) -> bool {
    message.get(ROUND_BROADCAST) == Some(&1)
}

/// Where the protocol's own bytes begin.
pub(super) fn body(message: &[u8]) -> usize {
    let mut at = ROUND_BROADCAST + 1;
    // The length before them has seven bits a byte.
    while message.get(at).is_some_and(|byte| byte & 0x80 != 0) {
        at += 1;
    }
    at + 1
}

/// The round of an ideal protocol, and where its content begins.
pub(super) fn ideal_round(message: &[u8]) -> Option<(u8, usize)> {
    let at = body(message);
    // The content's length is below 128.
    Some((*message.get(at)?, at + 2))
}

/// What of a stored result is another in a false one, by the session: the signature or the last attestation.
pub(super) fn falsified(message: &[u8]) -> usize {
    const SESSION: usize = 2;
    const SIGNATURE: usize = SESSION + 32 + 1;
    let of_signature = message.get(SESSION).is_some_and(|byte| byte % 2 == 0);
    if of_signature { SIGNATURE + 8 } else { message.len().saturating_sub(1) }
}

/// Whether it is the echo and the check value that one signer sends to another where pairs have auxiliary data.
pub(super) fn is_token_of_pair(message: &[u8]) -> bool {
    let token = |(round, content): (u8, usize)| round == 1 && message.len() == content + 64;
    !is_broadcast(message) && ideal_round(message).is_some_and(token)
}

/// Adds a number as messages have it.
fn append(message: &mut Vec<u8>, number: u64) {
    message.extend(postcard::to_stdvec(&number).unwrap_or_default());
}

/// A message for a session that never was.
pub(super) fn invented(session: &[u8], bytes: usize) -> Vec<u8> {
    let mut message = vec![0, 0];
    message.extend_from_slice(session);
    message.push(1);
    append(&mut message, bytes as u64);
    message.resize(message.len() + bytes, 0);
    message
}

/// Asks for a promise of a ballot about the request that a proposal to sign is for.
pub(super) fn prepare(
    proposal: &[u8],
    (number, serial): (u64, u64),
    (coordinator, incarnation): (&[u8], &[u8]),
    delivery: &[u8; 32],
) -> Option<Vec<u8>> {
    let (_, rest) = postcard::take_from_bytes::<&[u8]>(proposal.get(2..)?).ok()?;
    // Among the messages about answers the first one, for a request to sign.
    let mut message = vec![4, 0, 1];
    message.extend_from_slice(proposal.get(2..proposal.len() - rest.len())?);
    append(&mut message, number);
    message.extend_from_slice(coordinator);
    message.extend_from_slice(incarnation);
    append(&mut message, serial);
    message.push(1);
    message.extend_from_slice(delivery);
    Some(message)
}

/// Makes of the statement that a session is prepared the one that its node refuses it. Both at once are a lie.
pub(super) fn refuse(prepared: &[u8], incarnation: Incarnation, liar: &Identity) -> Option<Vec<u8>> {
    let statement: Prepared = postcard::from_bytes(prepared.get(2..)?).ok()?;
    let facts = &statement.session.facts;
    let refused = Refused::sign(&facts.wallet, facts.epoch, facts.session, incarnation, liar);
    let mut message = vec![REFUSED.0, REFUSED.1];
    message.extend(postcard::to_stdvec(&refused).ok()?);
    Some(message)
}

/// What is no message.
pub(super) fn garbled(bytes: &[u8]) -> Vec<u8> {
    [&[u8::MAX], bytes].concat()
}

/// Replaces the first occurrence of `old` by `new`, which is as long; whether there was one.
pub(super) fn replace(message: &mut [u8], old: &[u8], new: &[u8]) -> bool {
    let Some(at) = message.windows(old.len()).position(|window| window == old) else { return false };
    message[at..at + old.len()].copy_from_slice(new);
    true
}

/// A proposal for the same thing in everything but that it is another session: the random bytes stand at the end.
pub(super) fn another_session(proposal: &[u8]) -> Vec<u8> {
    let mut other = proposal.to_vec();
    if let Some(byte) = other.last_mut() {
        *byte ^= 1;
    }
    other
}

/// Makes of a proposal one for something that nobody asked for.
pub(super) fn forge(message: &mut [u8]) -> bool {
    let field: &[u8] = if kind(message) == PROPOSE_SIGN { br#""tx":""# } else { br#""wallet_id":"wallet-"# };
    let Some(at) = message.windows(field.len()).position(|window| window == field) else { return false };
    let Some(character) = message.get_mut(at + field.len()) else { return false };
    *character = match *character {
        b'9' => b'8',
        b'0'..=b'8' => b'9',
        b'A' => b'B',
        _ => b'A',
    };
    true
}

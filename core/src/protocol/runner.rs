//! Drives one party's future of a round-based protocol from the outside: an owning, `Send` state machine without
//! `unsafe` and without an executor.
//!
//! The libraries describe a protocol as an `async` function over a stream and a sink. Here both ends are queues, the
//! future owns all of its inputs, and [`Run::step`] polls it with a waker that does nothing until it really waits for
//! messages.
//!
//! Invariant: the library sees a message only after its sender, its size, its encoding, its round and its kind were
//! checked, at most one message per sender and round, and only what the protocol's [`Guard`] lets through. Whatever
//! fails here is the sender's doing, because the link has authenticated it; so the sender is named.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::{Sink, Stream};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use round_based::{MessageDestination, MessageType, MpcParty, ProtocolMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{Abort, Incoming, Outcome, Outgoing, Party, Run as RunBinding, Status, Step};
use crate::tags;

/// Whether all others get the same message of a round or each gets its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All others get the same.
    Broadcast,
    /// Each gets its own.
    Direct,
}

/// What stands between the wire and the library in one protocol: it knows the protocol's rounds, sees every message
/// in both directions, and decides what the library may absorb.
pub(crate) trait Guard: Send + 'static {
    /// The library's message.
    type Message: ProtocolMessage + Send + 'static;
    /// What travels: the library's message and whatever the guard adds to it.
    type Wire: Serialize + DeserializeOwned;

    /// Most bytes that an encoded message may have.
    fn bytes_max(&self) -> usize;
    /// The library's message in what has travelled.
    fn message(wire: &Self::Wire) -> &Self::Message;
    /// The kind of a round's messages, as the library numbers its rounds; `None`: no such round.
    fn kind(round: u16) -> Option<Kind>;
    /// Checks a message and gives back what the library may now absorb: the message, nothing yet, or also others
    /// that were held back until this one came.
    fn admit(&mut self, from: u16, wire: Self::Wire) -> Result<Vec<Self::Message>, Abort>;
    /// Sees, and may extend, what this party sends.
    fn release(&mut self, message: Self::Message) -> Result<Self::Wire, Abort>;
}

/// A run whose result is a `T`: lets a party combine runs of different protocols.
pub(crate) trait Engine<T>: Send {
    /// Checks and queues one message; cheap unless the protocol's guard verifies proofs.
    fn accept(&mut self, incoming: &Incoming) -> Result<(), Abort>;
    /// Runs until it waits for messages or has a result.
    fn step(&mut self) -> Result<(Vec<Outgoing>, Option<T>), Abort>;
}

struct Queues<M> {
    inbox: VecDeque<round_based::Incoming<M>>,
    outbox: VecDeque<round_based::Outgoing<M>>,
    yields: u64,
}

type Shared<M> = Arc<Mutex<Queues<M>>>;

/// A panic inside a protocol ends its run; the queues themselves are valid in between any two operations.
fn lock<M>(queues: &Shared<M>) -> MutexGuard<'_, Queues<M>> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Inbox<M>(Shared<M>);
pub(crate) struct Outbox<M>(Shared<M>);
pub(crate) struct Yields<M>(Shared<M>);
pub(crate) struct YieldOnce<M>(Shared<M>, bool);

impl<M> Stream for Inbox<M> {
    type Item = Result<round_based::Incoming<M>, Infallible>;
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match lock(&self.0).inbox.pop_front() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None => Poll::Pending,
        }
    }
}

impl<M> Sink<round_based::Outgoing<M>> for Outbox<M> {
    type Error = Infallible;
    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn start_send(self: Pin<&mut Self>, message: round_based::Outgoing<M>) -> Result<(), Infallible> {
        lock(&self.0).outbox.push_back(message);
        Ok(())
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl<M> Future for YieldOnce<M> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.1 {
            return Poll::Ready(());
        }
        self.1 = true;
        lock(&self.0).yields += 1;
        Poll::Pending
    }
}

impl<M> round_based::runtime::AsyncRuntime for Yields<M> {
    type YieldNowFuture = YieldOnce<M>;
    fn yield_now(&self) -> YieldOnce<M> {
        YieldOnce(self.0.clone(), false)
    }
}

/// What a protocol's function gets as its connection to the others.
pub(crate) type Connection<M> = MpcParty<M, (Inbox<M>, Outbox<M>), Yields<M>>;

type Finish<G, O, T> = Box<dyn FnOnce(O, &G) -> Result<T, Abort> + Send>;

/// One party's run of one protocol of a library: messages in, messages out, at the end a `T`.
pub(crate) struct Run<G: Guard, O, T> {
    index: u16,
    parties: u16,
    guard: G,
    queues: Shared<G::Message>,
    future: Pin<Box<dyn Future<Output = O> + Send>>,
    finish: Option<Finish<G, O, T>>,
    /// Hash of what each (sender, round) said: an exact repetition is harmless, anything else is equivocation.
    seen: BTreeMap<(u16, u16), [u8; 32]>,
    next_id: u64,
}

impl<G, O, T> Run<G, O, T>
where
    G: Guard,
    O: Send + 'static,
    T: 'static,
{
    /// `start` gets the connection and returns the protocol's future, which owns all of its inputs; `finish` turns
    /// what the library returned into the run's result, with the guard's knowledge of all messages.
    pub(crate) fn new<F, Fut>(
        binding: &RunBinding,
        guard: G,
        start: F,
        finish: impl FnOnce(O, &G) -> Result<T, Abort> + Send + 'static,
    ) -> Self
    where
        F: FnOnce(Connection<G::Message>) -> Fut,
        Fut: Future<Output = O> + Send + 'static,
    {
        let queues = Arc::new(Mutex::new(Queues { inbox: VecDeque::new(), outbox: VecDeque::new(), yields: 0 }));
        let connection =
            MpcParty::connected((Inbox(queues.clone()), Outbox(queues.clone()))).set_runtime(Yields(queues.clone()));
        Self {
            index: binding.index,
            parties: binding.parties,
            guard,
            queues,
            future: Box::pin(start(connection)),
            finish: Some(Box::new(finish)),
            seen: BTreeMap::new(),
            next_id: 0,
        }
    }

    fn drain_outbox(&mut self) -> Result<Vec<Outgoing>, Abort> {
        let drained: Vec<_> = lock(&self.queues).outbox.drain(..).collect();
        let mut messages = Vec::with_capacity(drained.len());
        for outgoing in drained {
            let to = match outgoing.recipient {
                MessageDestination::AllParties => None,
                MessageDestination::OneParty(party) => Some(party),
            };
            let wire = self.guard.release(outgoing.msg)?;
            let bytes = postcard::to_allocvec(&wire)
                .map_err(|error| Abort::new(format!("own message could not be encoded: {error}")))?;
            messages.push(Outgoing { to, bytes });
        }
        Ok(messages)
    }
}

impl<G, O, T> Engine<T> for Run<G, O, T>
where
    G: Guard,
    O: Send + 'static,
    T: 'static,
{
    fn accept(&mut self, incoming: &Incoming) -> Result<(), Abort> {
        let from = incoming.from;
        if from >= self.parties || from == self.index {
            // Positions are looked up by the session, never read from a message: this is not the peers' doing.
            return Err(Abort::new(format!("message from position {from}, expected another of {}", self.parties)));
        }
        let limit = self.guard.bytes_max();
        if incoming.bytes.len() > limit {
            let length = incoming.bytes.len();
            return Err(Abort::blaming(from, format!("message of {length} bytes, at most {limit} allowed")));
        }
        let (wire, rest) = decode::<G::Wire>(&incoming.bytes)
            .map_err(|error| Abort::blaming(from, format!("message cannot be decoded: {error}")))?;
        if !rest.is_empty() {
            return Err(Abort::blaming(from, format!("{} bytes after the end of a message", rest.len())));
        }
        let round = G::message(&wire).round();
        let kind = if incoming.broadcast { Kind::Broadcast } else { Kind::Direct };
        match G::kind(round) {
            Some(expected) if expected == kind => {}
            Some(expected) => {
                return Err(Abort::blaming(from, format!("round {round} sent as {kind:?}, expected {expected:?}")));
            }
            None => return Err(Abort::blaming(from, format!("there is no round {round}"))),
        }
        let hash: [u8; 32] = Sha256::digest(&incoming.bytes).into();
        match self.seen.get(&(from, round)) {
            Some(earlier) if *earlier == hash => return Ok(()),
            Some(_) => return Err(Abort::blaming(from, format!("two different messages for round {round}"))),
            None => {
                self.seen.insert((from, round), hash);
            }
        }
        // Unwind safe: after an abort the guard is not asked again.
        let admitted = catch_unwind(AssertUnwindSafe(|| self.guard.admit(from, wire)))
            .unwrap_or_else(|_| Err(Abort::blaming(from, "a message whose check panicked")))?;
        for msg in admitted {
            let msg_type = match G::kind(msg.round()) {
                Some(Kind::Direct) => MessageType::P2P,
                _ => MessageType::Broadcast,
            };
            let id = self.next_id;
            self.next_id += 1;
            lock(&self.queues).inbox.push_back(round_based::Incoming { id, sender: from, msg_type, msg });
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(Vec<Outgoing>, Option<T>), Abort> {
        if self.finish.is_none() {
            return Ok((Vec::new(), None));
        }
        let mut messages = Vec::new();
        loop {
            let yields_before = lock(&self.queues).yields;
            let future = &mut self.future;
            let poll = || future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            // Unwind safe: after a panic neither the future nor the queues are touched again.
            let Ok(polled) = catch_unwind(AssertUnwindSafe(poll)) else {
                self.finish = None;
                return Err(Abort::new("the protocol's library panicked"));
            };
            messages.extend(self.drain_outbox()?);
            match polled {
                Poll::Ready(output) => {
                    let Some(finish) = self.finish.take() else { return Ok((messages, None)) };
                    let result = finish(output, &self.guard)?;
                    return Ok((messages, Some(result)));
                }
                // The protocol only offered to be interrupted: it has more to do right now.
                Poll::Pending if lock(&self.queues).yields != yields_before => {}
                Poll::Pending => return Ok((messages, None)),
            }
        }
    }
}

/// Decodes one value and gives back the bytes that follow it.
///
/// A panic is a message that cannot be decoded: the libraries' big integers travel with their radix, and a radix that
/// their parser does not know makes it panic.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    match catch_unwind(AssertUnwindSafe(|| postcard::take_from_bytes(bytes))) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(_) => Err("an impossible field".to_owned()),
    }
}

/// Makes a [`Party`] of a run whose result is the whole outcome.
pub(crate) struct SingleRun<E>(pub(crate) E);

impl<E: Engine<Outcome>> Party for SingleRun<E> {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let stepped = inbox.iter().try_for_each(|incoming| self.0.accept(incoming)).and_then(|()| self.0.step());
        match stepped {
            Ok((messages, None)) => Step { messages, status: Status::Waiting },
            Ok((messages, Some(outcome))) => Step { messages, status: Status::Done(outcome) },
            Err(abort) => Step { messages: Vec::new(), status: Status::Failed(abort) },
        }
    }
}

/// The checks that every protocol needs before the libraries are called, which panic on such numbers.
pub(crate) fn check_positions(binding: &RunBinding) -> Result<(), Abort> {
    let RunBinding { index, parties, .. } = binding;
    if !(2..=crate::limits::NODES_MAX).contains(&usize::from(*parties)) {
        return Err(Abort::new(format!("{parties} parties, expected 2 to {}", crate::limits::NODES_MAX)));
    }
    if index >= parties {
        return Err(Abort::new(format!("own position {index} among {parties} parties")));
    }
    Ok(())
}

/// The run's generator for one purpose. The execution id is mixed in so that even a repeated seed gives fresh nonces
/// in another run: one of the libraries does not bind its randomness to an execution id itself.
pub(crate) fn generator(binding: &RunBinding, purpose: &str) -> ChaCha20Rng {
    let run = [&binding.execution_id, binding.index.to_be_bytes().as_slice(), purpose.as_bytes()].concat();
    ChaCha20Rng::from_seed(*tags::GENERATOR_SEED.derive(&binding.seed, &run))
}

/// The execution id that a library binds one protocol of this run to.
pub(crate) fn execution_id(binding: &RunBinding, purpose: &str) -> Vec<u8> {
    let mut body = binding.execution_id.to_vec();
    body.extend_from_slice(purpose.as_bytes());
    tags::EXECUTION_PART.preimage(&body)
}

/// What a library's error says: its chain of causes in words, and the parties that it blames.
///
/// The libraries keep the types of their causes private, so the positions are read from the `Debug` text, which holds
/// nothing that a peer could have written into it. The libraries' versions are pinned exactly, and tests tamper with
/// every round and check who is named. An echo that differs names nobody: an honest party may be the one that
/// received something else.
pub(crate) fn library_abort(binding: &RunBinding, error: &(dyn std::error::Error + 'static)) -> Abort {
    const REASON_CHARS_MAX: usize = 300;
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason.push_str(": ");
        reason.push_str(&inner.to_string());
        cause = inner.source();
    }
    if reason.chars().count() > REASON_CHARS_MAX {
        reason = reason.chars().take(REASON_CHARS_MAX).collect();
    }
    let mut culprits = blamed_positions(&format!("{error:?}"));
    culprits.retain(|party| *party < binding.parties && *party != binding.index);
    Abort { reason, culprits, bans: Vec::new() }
}

fn blamed_positions(debug: &str) -> Vec<u16> {
    if debug.contains("NotReliable") {
        return Vec::new();
    }
    let mut positions = Vec::new();
    for marker in ["faulty_party: ", "parties: ["] {
        for (start, _) in debug.match_indices(marker) {
            let listed = debug.get(start + marker.len()..).unwrap_or_default();
            let end = listed.find(|c: char| !(c.is_ascii_digit() || (marker.ends_with('[') && ", ".contains(c))));
            let numbers = listed.get(..end.unwrap_or(listed.len())).unwrap_or_default();
            positions.extend(numbers.split(", ").filter_map(|number| number.parse::<u16>().ok()));
        }
    }
    positions.sort_unstable();
    positions.dedup();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_from_every_form_that_the_libraries_print() {
        let blame = "Aborted(InvalidDecommitment([AbortBlame { faulty_party: 3, data_message: 17, proof_message: 2 }, \
                     AbortBlame { faulty_party: 1, data_message: 4, proof_message: 5 }]))";
        assert_eq!(blamed_positions(blame), vec![1, 3]);
        assert_eq!(blamed_positions("Aborted(FeldmanVerificationFailed { parties: [12, 4] })"), vec![4, 12]);
        assert_eq!(
            blamed_positions(
                "ProtocolAborted { reason: InvalidModProof, parties: [AbortBlame { faulty_party: 2, .. }] }"
            ),
            vec![2]
        );
        assert_eq!(blamed_positions("Aborted(SignatureInvalid)"), Vec::<u16>::new());
    }

    #[test]
    fn an_unreliable_broadcast_names_nobody() {
        assert!(blamed_positions("Aborted(Round1aNotReliable([AbortBlame { faulty_party: 1 }]))").is_empty());
        assert!(blamed_positions("Aborted(Round1NotReliable([(2, 5)]))").is_empty());
    }
}

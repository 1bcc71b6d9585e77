//! The part that all ideal protocols share: numbered rounds, in each of which every party hears once from every other.

use std::collections::BTreeMap;

use mpcium_core::protocol::{Abort, Incoming, Outcome, Outgoing, Party, Run, Status, Step};
use serde::{Deserialize, Serialize};

/// One message as it travels.
#[derive(Serialize, Deserialize)]
struct Message {
    round: u8,
    body: Vec<u8>,
}

/// What a protocol does between rounds.
pub(crate) enum Next {
    /// Send the same to all others and wait for theirs.
    Broadcast(Vec<u8>),
    /// Send to each other party (by position; the own entry is ignored) and wait for theirs.
    Each(Vec<Vec<u8>>),
    /// Finished. The last messages were sent by the step before.
    Done(Outcome),
}

/// A protocol in rounds.
pub(crate) trait Rounds: Send {
    /// Called first with nothing, then with everybody's message of the round before, by position (the own one empty).
    fn next(&mut self, heard: &[Vec<u8>]) -> Result<Next, Abort>;
    /// Whether the messages of `round` must be broadcasts.
    fn is_broadcast(&self, round: u8) -> bool;
    /// The number of rounds.
    fn rounds(&self) -> u8;
}

/// Makes a [`Party`] of a protocol in rounds.
pub(crate) struct RoundParty<P> {
    protocol: P,
    index: u16,
    parties: u16,
    /// The round whose messages are awaited; `None` before the start.
    round: Option<u8>,
    heard: BTreeMap<(u8, u16), Vec<u8>>,
}

impl<P: Rounds> RoundParty<P> {
    pub(crate) fn new(run: &Run, protocol: P) -> Result<Self, Abort> {
        if run.parties < 2 || run.index >= run.parties {
            return Err(Abort::new(format!("position {} of {} parties is impossible", run.index, run.parties)));
        }
        Ok(Self { protocol, index: run.index, parties: run.parties, round: None, heard: BTreeMap::new() })
    }

    fn absorb(&mut self, incoming: &Incoming) -> Result<(), Abort> {
        let from = incoming.from;
        if from >= self.parties || from == self.index {
            return Err(Abort::new(format!("a message from position {from} is impossible")));
        }
        let message: Message =
            postcard::from_bytes(&incoming.bytes).map_err(|_| Abort::blaming(from, "undecodable message"))?;
        if message.round >= self.protocol.rounds() {
            return Err(Abort::blaming(from, "a message of a round that does not exist"));
        }
        if self.protocol.is_broadcast(message.round) != incoming.broadcast {
            return Err(Abort::blaming(from, "a broadcast that is none, or the reverse"));
        }
        match self.heard.get(&(message.round, from)) {
            Some(earlier) if *earlier != message.body => Err(Abort::blaming(from, "two messages for one round")),
            Some(_) => Ok(()),
            None => {
                self.heard.insert((message.round, from), message.body);
                Ok(())
            }
        }
    }

    fn complete(&self, round: u8) -> bool {
        (0..self.parties).all(|p| p == self.index || self.heard.contains_key(&(round, p)))
    }

    fn run(&mut self, messages: &mut Vec<Outgoing>) -> Result<Option<Outcome>, Abort> {
        loop {
            let heard: Vec<Vec<u8>> = match self.round {
                None => Vec::new(),
                Some(round) if self.complete(round) => {
                    (0..self.parties).map(|p| self.heard.get(&(round, p)).cloned().unwrap_or_default()).collect()
                }
                Some(_) => return Ok(None),
            };
            let round = self.round.map_or(0, |round| round + 1);
            let encode = |body: Vec<u8>| {
                postcard::to_stdvec(&Message { round, body }).map_err(|e| Abort::new(format!("cannot encode: {e}")))
            };
            match self.protocol.next(&heard)? {
                Next::Done(outcome) => return Ok(Some(outcome)),
                Next::Broadcast(body) => messages.push(Outgoing { to: None, bytes: encode(body)? }),
                Next::Each(bodies) => {
                    for (to, body) in (0..self.parties).zip(bodies) {
                        if to != self.index {
                            messages.push(Outgoing { to: Some(to), bytes: encode(body)? });
                        }
                    }
                }
            }
            self.round = Some(round);
        }
    }
}

impl<P: Rounds> Party for RoundParty<P> {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let mut messages = Vec::new();
        let absorbed = inbox.iter().try_for_each(|incoming| self.absorb(incoming));
        let status = match absorbed.and_then(|()| self.run(&mut messages)) {
            Ok(None) => Status::Waiting,
            Ok(Some(outcome)) => Status::Done(outcome),
            Err(abort) => Status::Failed(abort),
        };
        Step { messages, status }
    }
}

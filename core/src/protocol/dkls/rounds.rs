//! Collects what the others say in each round.
//!
//! Invariant: what comes out of [`Rounds::take`] is exactly one message of every other party, of that round, of the
//! kind and within the size that the round allows. Whatever fails here is the sender's doing, because the link has
//! authenticated it; so the sender is named. An exact repetition is harmless, two different messages for one round are
//! equivocation.

use std::collections::BTreeMap;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use crate::protocol::runner::Kind;
use crate::protocol::{Abort, Incoming, Outgoing, Run};

/// What the messages of one round look like.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub kind: Kind,
    /// Bytes of the body.
    pub bytes: RangeInclusive<usize>,
}

/// What a message says. Copies share it: they stay here, so that repetitions are recognised, while a round is worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body(Arc<Vec<u8>>);

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // Behind the byte that numbers the round.
        self.0.get(1..).unwrap_or_default()
    }
}

/// The messages of all rounds of one run; a body travels behind one byte that numbers its round.
pub(super) struct Rounds {
    index: u16,
    parties: u16,
    expected: Vec<Expected>,
    /// By round, then by sender.
    received: Vec<BTreeMap<u16, Body>>,
    /// The round that is taken next.
    next: usize,
}

impl Rounds {
    pub fn new(run: &Run, expected: Vec<Expected>) -> Self {
        let received = expected.iter().map(|_| BTreeMap::new()).collect();
        Self { index: run.index, parties: run.parties, expected, received, next: 0 }
    }

    /// Checks and keeps one message.
    pub fn accept(&mut self, incoming: Incoming) -> Result<(), Abort> {
        let Incoming { from, broadcast, bytes } = incoming;
        if from >= self.parties || from == self.index {
            // Positions are looked up by the session, never read from a message: this is not the peers' doing.
            return Err(Abort::new(format!("message from position {from}, expected another of {}", self.parties)));
        }
        let Some(round) = bytes.first().copied().map(usize::from) else {
            return Err(Abort::blaming(from, "an empty message"));
        };
        let (Some(expected), Some(received)) = (self.expected.get(round), self.received.get_mut(round)) else {
            return Err(Abort::blaming(from, format!("there is no round {round}")));
        };
        let kind = if broadcast { Kind::Broadcast } else { Kind::Direct };
        if kind != expected.kind {
            return Err(Abort::blaming(from, format!("round {round} sent as {kind:?}, expected {:?}", expected.kind)));
        }
        let length = bytes.len() - 1;
        if !expected.bytes.contains(&length) {
            let (least, most) = (expected.bytes.start(), expected.bytes.end());
            let reason = format!("round {round} of {length} bytes, expected {least} to {most}");
            return Err(Abort::blaming(from, reason));
        }
        match received.get(&from) {
            Some(earlier) if *earlier.0 == bytes => Ok(()),
            Some(_) => Err(Abort::blaming(from, format!("two different messages for round {round}"))),
            None => {
                received.insert(from, Body(Arc::new(bytes)));
                Ok(())
            }
        }
    }

    /// The messages of the next round by sender, once all are there.
    pub fn take(&mut self) -> Option<BTreeMap<u16, Body>> {
        let received = self.received.get(self.next)?;
        if received.len() + 1 < usize::from(self.parties) {
            return None;
        }
        self.next += 1;
        Some(received.clone())
    }
}

/// A message of a round, ready to travel.
pub(super) fn outgoing(round: u8, to: Option<u16>, body: &[u8]) -> Outgoing {
    let mut bytes = Vec::with_capacity(1 + body.len());
    bytes.push(round);
    bytes.extend_from_slice(body);
    Outgoing { to, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds() -> Rounds {
        let run = Run { execution_id: [1; 32], index: 0, parties: 3, seed: [0; 32] };
        let expected = |kind| Expected { kind, bytes: 2..=3 };
        Rounds::new(&run, vec![expected(Kind::Direct), expected(Kind::Broadcast)])
    }

    fn message(from: u16, broadcast: bool, bytes: &[u8]) -> Incoming {
        Incoming { from, broadcast, bytes: bytes.to_vec() }
    }

    #[test]
    fn a_round_is_complete_when_every_other_party_has_spoken_in_whatever_order() {
        let mut rounds = rounds();
        rounds.accept(message(2, true, &[1, 5, 5])).expect("the next round already");
        rounds.accept(message(2, false, &[0, 7, 7])).expect("fits");
        assert_eq!(rounds.take(), None);
        rounds.accept(message(2, false, &[0, 7, 7])).expect("an exact repetition");
        rounds.accept(message(1, false, &[0, 8, 8, 8])).expect("fits");
        let taken = rounds.take().expect("complete");
        let taken: Vec<_> = taken.into_iter().map(|(from, body)| (from, body.to_vec())).collect();
        assert_eq!(taken, [(1, vec![8, 8, 8]), (2, vec![7, 7])]);
        assert_eq!(rounds.take(), None);
        rounds.accept(message(1, false, &[0, 8, 8, 8])).expect("a late repetition");
    }

    #[test]
    fn whatever_does_not_fit_names_its_sender_and_bans_nobody() {
        let wrong: [(&str, &[Incoming]); 7] = [
            ("empty", &[message(1, false, &[])]),
            ("no such round", &[message(1, false, &[2, 0, 0])]),
            ("of the other kind", &[message(1, true, &[0, 0, 0])]),
            ("of the other kind", &[message(1, false, &[1, 0, 0])]),
            ("too short", &[message(1, false, &[0, 0])]),
            ("too long", &[message(1, false, &[0, 0, 0, 0, 0])]),
            ("two different ones", &[message(1, false, &[0, 1, 1]), message(1, false, &[0, 1, 2])]),
        ];
        for (what, messages) in wrong {
            let mut rounds = rounds();
            let abort = messages.iter().cloned().try_for_each(|m| rounds.accept(m)).expect_err(what);
            assert_eq!((abort.culprits, abort.bans), (vec![1], vec![]), "{what}");
        }
    }

    #[test]
    fn a_position_that_the_session_should_have_refused_is_nobodys_fault() {
        for from in [0, 3] {
            let abort = rounds().accept(message(from, false, &[0, 0, 0])).expect_err("no such other party");
            assert!(abort.culprits.is_empty());
        }
    }
}

//! Messages that overtook the proposal of their session: a small bounded waiting room.

use std::collections::BTreeMap;

use super::{Participant, SessionId};
use crate::{
    NodeId, Time, limits,
    node::Table,
    planted::{Bug, planted},
    protocol::Incoming,
};

struct Waiting {
    since: Time,
    messages: Vec<(Participant, Incoming)>,
}

/// The waiting room. Full: the session that has waited longest makes room, so a peer that invents sessions can only
/// delay, not block.
#[derive(Default)]
pub(super) struct Early {
    sessions: BTreeMap<SessionId, Waiting>,
    /// Sessions that somebody gave up before this node had started.
    given_up: BTreeMap<SessionId, (Time, Participant)>,
    bytes: usize,
}

impl Early {
    pub fn keep(&mut self, now: Time, session: SessionId, from: Participant, incoming: Incoming) {
        let size = incoming.bytes.len();
        if size > limits::EARLY_BYTES_MAX || planted(Bug::EarlyMessagesDropped) {
            return;
        }
        while !planted(Bug::EarlyRoomUnlimited) && self.is_full(size, session) {
            let Some(oldest) = self.sessions.iter().min_by_key(|(_, w)| w.since).map(|(id, _)| *id) else { return };
            self.drop_session(oldest);
        }
        let waiting = self.sessions.entry(session).or_insert(Waiting { since: now, messages: Vec::new() });
        if waiting.messages.len() < limits::SESSION_INBOX_MAX {
            self.bytes += size;
            waiting.messages.push((from, incoming));
        }
    }

    fn is_full(&self, size: usize, session: SessionId) -> bool {
        self.bytes + size > limits::EARLY_BYTES_MAX
            || (self.sessions.len() >= limits::EARLY_SESSIONS_MAX && !self.sessions.contains_key(&session))
    }

    pub fn take(&mut self, session: SessionId) -> Vec<(Participant, Incoming)> {
        let messages = self.sessions.remove(&session).map(|w| w.messages).unwrap_or_default();
        self.bytes -= messages.iter().map(|m| m.1.bytes.len()).sum::<usize>();
        messages
    }

    pub fn drop_session(&mut self, session: SessionId) {
        drop(self.take(session));
    }

    /// Somebody gave a session up that this node does not know yet.
    pub fn give_up(&mut self, now: Time, session: SessionId, from: Participant) {
        self.drop_session(session);
        if self.given_up.len() >= limits::EARLY_SESSIONS_MAX {
            let oldest = self.given_up.iter().min_by_key(|(_, (since, _))| *since).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.given_up.remove(&oldest);
            }
        }
        self.given_up.insert(session, (now, from));
    }

    /// Who gave a session up before it was started here.
    pub fn given_up(&mut self, session: SessionId) -> Option<Participant> {
        self.given_up.remove(&session).map(|(_, from)| from)
    }

    pub fn drop_peer(&mut self, peer: NodeId) {
        let mut freed = 0;
        for waiting in self.sessions.values_mut() {
            waiting.messages.retain(|(from, incoming)| {
                let keep = from.0 != peer;
                if !keep {
                    freed += incoming.bytes.len();
                }
                keep
            });
        }
        self.bytes -= freed;
        self.sessions.retain(|_, w| !w.messages.is_empty());
    }

    pub fn expire(&mut self, now: Time) {
        self.given_up.retain(|_, (since, _)| now < since.after(limits::EARLY_WAIT));
        let old: Vec<SessionId> =
            self.sessions.iter().filter(|(_, w)| now >= w.since.after(limits::EARLY_WAIT)).map(|(id, _)| *id).collect();
        for id in old {
            self.drop_session(id);
        }
    }

    pub fn tables(&self) -> [Table; 3] {
        [
            ("sessions with early messages", self.sessions.len(), Some(limits::EARLY_SESSIONS_MAX)),
            ("bytes of early messages", self.bytes, Some(limits::EARLY_BYTES_MAX)),
            ("sessions given up early", self.given_up.len(), Some(limits::EARLY_SESSIONS_MAX)),
        ]
    }

    pub fn wake_at(&self) -> Option<Time> {
        let given_up = self.given_up.values().map(|(since, _)| *since);
        self.sessions.values().map(|w| w.since).chain(given_up).min().map(|since| since.after(limits::EARLY_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    fn message(size: usize) -> Incoming {
        Incoming { from: 0, broadcast: true, bytes: vec![0; size] }
    }

    fn peer(n: u8) -> Participant {
        (NodeId::from_bytes([n; 16]), Incarnation([n; 16]))
    }

    fn id(n: u16) -> SessionId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        SessionId(bytes)
    }

    #[test]
    fn a_flood_of_invented_sessions_never_exceeds_the_limits() {
        let mut early = Early::default();
        for n in 0..1000 {
            early.keep(Time(u64::from(n)), id(n), peer(1), message(100_000));
            assert!(early.sessions.len() <= limits::EARLY_SESSIONS_MAX);
            assert!(early.bytes <= limits::EARLY_BYTES_MAX);
        }
        assert_eq!(early.take(id(999)).len(), 1, "the newest is kept");
        assert!(early.take(id(0)).is_empty(), "the oldest made room");
    }

    #[test]
    fn messages_of_a_peer_that_restarted_are_dropped() {
        let mut early = Early::default();
        early.keep(Time(0), id(1), peer(1), message(10));
        early.keep(Time(0), id(1), peer(2), message(10));
        early.drop_peer(peer(1).0);
        let left = early.take(id(1));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, peer(2));
        assert_eq!(early.bytes, 0);
    }

    #[test]
    fn what_waited_too_long_is_dropped() {
        let mut early = Early::default();
        early.keep(Time(0), id(1), peer(1), message(10));
        let end = early.wake_at().expect("something waits");
        early.expire(end);
        assert!(early.take(id(1)).is_empty());
    }
}

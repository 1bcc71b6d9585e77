//! Messages that overtook the proposal of their session: a small bounded waiting room for each peer.

use std::collections::BTreeMap;

use super::{Participant, SessionId};
use crate::{
    Incarnation, NodeId, Time, limits,
    node::Table,
    planted::{Bug, planted},
    protocol::Incoming,
};

struct Waiting {
    since: Time,
    messages: Vec<(Incarnation, Incoming)>,
}

/// What one peer sent too early. Full: the session that has waited longest makes room.
#[derive(Default)]
struct Room {
    sessions: BTreeMap<SessionId, Waiting>,
    /// Sessions that the peer gave up before this node had started.
    given_up: BTreeMap<SessionId, (Time, Incarnation)>,
    bytes: usize,
}

impl Room {
    fn keep(&mut self, now: Time, session: SessionId, incarnation: Incarnation, incoming: Incoming) {
        let size = incoming.bytes.len();
        if size > limits::EARLY_BYTES_MAX || planted(Bug::EarlyMessagesDropped) {
            return;
        }
        while !planted(Bug::EarlyRoomUnlimited) && self.is_full(size, session) {
            let Some(oldest) = self.sessions.iter().min_by_key(|(_, w)| w.since).map(|(id, _)| *id) else { return };
            drop(self.take(oldest));
        }
        let waiting = self.sessions.entry(session).or_insert(Waiting { since: now, messages: Vec::new() });
        // One more, so that the session notices.
        if waiting.messages.len() <= limits::SESSION_MESSAGES_MAX {
            self.bytes += size;
            waiting.messages.push((incarnation, incoming));
        }
    }

    fn is_full(&self, size: usize, session: SessionId) -> bool {
        self.bytes + size > limits::EARLY_BYTES_MAX
            || (self.sessions.len() >= limits::EARLY_SESSIONS_MAX && !self.sessions.contains_key(&session))
    }

    fn take(&mut self, session: SessionId) -> Vec<(Incarnation, Incoming)> {
        let messages = self.sessions.remove(&session).map(|w| w.messages).unwrap_or_default();
        self.bytes -= messages.iter().map(|m| m.1.bytes.len()).sum::<usize>();
        messages
    }

    fn give_up(&mut self, now: Time, session: SessionId, incarnation: Incarnation) {
        drop(self.take(session));
        if self.given_up.len() >= limits::EARLY_SESSIONS_MAX {
            let oldest = self.given_up.iter().min_by_key(|(_, (since, _))| *since).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.given_up.remove(&oldest);
            }
        }
        self.given_up.insert(session, (now, incarnation));
    }

    fn expire(&mut self, now: Time) {
        self.given_up.retain(|_, (since, _)| now < since.after(limits::EARLY_WAIT));
        let old: Vec<SessionId> =
            self.sessions.iter().filter(|(_, w)| now >= w.since.after(limits::EARLY_WAIT)).map(|(id, _)| *id).collect();
        for id in old {
            drop(self.take(id));
        }
    }
}

/// The waiting rooms: a peer that invents sessions fills and empties its own.
#[derive(Default)]
pub(super) struct Early {
    rooms: BTreeMap<NodeId, Room>,
}

impl Early {
    pub fn keep(&mut self, now: Time, session: SessionId, from: Participant, incoming: Incoming) {
        self.rooms.entry(from.0).or_default().keep(now, session, from.1, incoming);
    }

    /// The messages of a session, each peer's in the order in which they came.
    pub fn take(&mut self, session: SessionId) -> Vec<(Participant, Incoming)> {
        let mut messages = Vec::new();
        for (peer, room) in &mut self.rooms {
            messages.extend(room.take(session).into_iter().map(|(incarnation, m)| ((*peer, incarnation), m)));
        }
        messages
    }

    /// A peer gave a session up that this node does not know yet.
    pub fn give_up(&mut self, now: Time, session: SessionId, from: Participant) {
        self.rooms.entry(from.0).or_default().give_up(now, session, from.1);
    }

    /// Those who gave a session up before it was started here.
    pub fn given_up(&mut self, session: SessionId) -> Vec<Participant> {
        let given_up = |(peer, room): (&NodeId, &mut Room)| Some((*peer, room.given_up.remove(&session)?.1));
        self.rooms.iter_mut().filter_map(given_up).collect()
    }

    /// The messages of a peer whose link went down are void.
    pub fn drop_peer(&mut self, peer: NodeId) {
        if let Some(room) = self.rooms.get_mut(&peer) {
            room.sessions.clear();
            room.bytes = 0;
        }
    }

    pub fn expire(&mut self, now: Time) {
        for room in self.rooms.values_mut() {
            room.expire(now);
        }
    }

    /// The fullest room counts.
    pub fn tables(&self) -> [Table; 3] {
        let fullest = |size: fn(&Room) -> usize| self.rooms.values().map(size).max().unwrap_or(0);
        [
            ("sessions with early messages", fullest(|room| room.sessions.len()), Some(limits::EARLY_SESSIONS_MAX)),
            ("bytes of early messages", fullest(|room| room.bytes), Some(limits::EARLY_BYTES_MAX)),
            ("sessions given up early", fullest(|room| room.given_up.len()), Some(limits::EARLY_SESSIONS_MAX)),
        ]
    }

    pub fn wake_at(&self) -> Option<Time> {
        let since = |room: &Room| {
            let given_up = room.given_up.values().map(|(since, _)| *since);
            room.sessions.values().map(|w| w.since).chain(given_up).min()
        };
        self.rooms.values().filter_map(since).min().map(|since| since.after(limits::EARLY_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_flood_of_invented_sessions_never_exceeds_the_limits_and_pushes_out_nobody_elses() {
        let mut early = Early::default();
        early.keep(Time(0), id(0), peer(2), message(10));
        early.give_up(Time(0), id(5000), peer(2));
        for n in 0..1000 {
            early.keep(Time(u64::from(n)), id(n), peer(1), message(100_000));
            early.give_up(Time(u64::from(n)), id(5000 + n), peer(1));
            for (what, entries, limit) in early.tables() {
                assert!(Some(entries) <= limit, "{what}: {entries}");
            }
        }
        assert_eq!(early.take(id(999)).len(), 1, "the newest is kept");
        let left = early.take(id(0));
        assert_eq!(left.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [peer(2)], "the flood's oldest made room");
        assert_eq!(early.given_up(id(5000)), [peer(2)]);
    }

    #[test]
    fn who_gives_a_session_up_takes_back_its_own_messages_only() {
        let mut early = Early::default();
        early.keep(Time(0), id(1), peer(1), message(10));
        early.keep(Time(0), id(1), peer(2), message(10));
        early.give_up(Time(0), id(1), peer(2));
        assert_eq!(early.take(id(1)).iter().map(|(from, _)| *from).collect::<Vec<_>>(), [peer(1)]);
        assert_eq!(early.given_up(id(1)), [peer(2)]);
        assert_eq!(early.given_up(id(1)), []);
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
        assert!(early.rooms.values().all(|room| room.bytes == 0));
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

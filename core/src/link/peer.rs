//! The state of one pair of nodes: the link that is up, and handshakes under way.
//!
//! Invariants: a handshake changes nothing about an existing link until it has finished on fresh evidence from both
//! sides and the peer's incarnation is durably remembered; and no handshake goes on with a peer that remembers more of
//! this node than its store does, before the store says so too: the peer forgets that once the handshake is over.

use std::collections::VecDeque;

use rand_core::RngCore as _;
use zeroize::Zeroizing;

use super::{
    Common, DownReason, LinkOutput, LinkState, Trouble,
    acquaintance::Acquaintance,
    handshake::{self, Agreed, Hello, Initiator, Party, Refused, Responder},
    mark::{Claim, Mark},
    packets::{Link, Rejected},
    trouble::Gate,
};
use crate::{Duration, Incarnation, NodeId, PeerInfo, Time, bucket::Bucket, limits};

fn quota(now: Time) -> Bucket {
    Bucket::new(now, limits::HANDSHAKES_PER_SECOND, limits::HANDSHAKES_PER_SECOND)
}

/// How far a handshake that we began has come.
enum Stage {
    /// The hello is out.
    Greeted,
    /// The reply is good; the peer's incarnation is being remembered.
    Storing { agreed: Agreed, confirm: Vec<u8> },
    /// Our confirmation is out; the peer's first packet ends the handshake.
    Confirming { agreed: Agreed, confirm: Vec<u8>, tries: u32 },
}

struct Initiation {
    handshake: Initiator,
    stage: Stage,
    /// When the hello was made.
    begun: Time,
    /// When it left last.
    said: Time,
}

/// A handshake that the peer began.
struct Answer {
    responder: Responder,
    /// Its hello may be an old one that somebody repeats.
    doubtful: bool,
    since: Time,
    /// Finished, while the peer's incarnation is being remembered.
    agreed: Option<Agreed>,
}

/// One pair of nodes.
pub(super) struct Peer {
    info: PeerInfo,
    acquaintance: Acquaintance,
    /// Durable.
    remembered: Option<Mark>,
    /// What is being made durable.
    remembering: Option<Mark>,
    /// The newest mark of the start that is remembered.
    heard: Option<Mark>,
    /// Since when it is newer than what is being made durable.
    unwritten_since: Option<Time>,
    link: Option<Link>,
    initiation: Option<Initiation>,
    answers: VecDeque<Answer>,
    retry_at: Option<Time>,
    retry_wait: Duration,
    /// The last place of a hello among all of the peer's.
    latest: (u64, u64),
    /// Hellos that the peer has just made.
    hellos: Bucket,
    /// Hellos of the peer that are not its newest: repeated on their way or by a stranger, or of a store put back.
    repetitions: Bucket,
    /// Replies and confirmations of the peer.
    proofs: Bucket,
    /// Starts of the peer that were up before the present one.
    earlier: VecDeque<Incarnation>,
    last_up: Option<Incarnation>,
    /// Facets that differ, while they keep the link down.
    differs: Vec<String>,
    gate: Gate,
}

impl Peer {
    pub fn new(common: &Common, info: PeerInfo, remembered: Option<Mark>, now: Time) -> Self {
        Self {
            acquaintance: Acquaintance::new(&common.identity, &info),
            info,
            remembered,
            remembering: None,
            heard: remembered,
            unwritten_since: None,
            link: None,
            initiation: None,
            answers: VecDeque::new(),
            retry_at: None,
            retry_wait: limits::HANDSHAKE_RETRY_MIN,
            latest: (remembered.map_or(0, |mark| mark.commits), 0),
            hellos: quota(now),
            repetitions: quota(now),
            proofs: quota(now),
            earlier: VecDeque::new(),
            last_up: None,
            differs: Vec::new(),
            gate: Gate::default(),
        }
    }

    pub fn id(&self) -> NodeId {
        self.info.id
    }

    pub fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    pub fn incarnation(&self) -> Option<Incarnation> {
        self.link.as_ref().map(Link::incarnation)
    }

    /// Says hello. One that nobody has answered is said again as long as it would say the same; then another takes its
    /// place, so that an unanswered secret does not grow old.
    pub fn begin(&mut self, common: &mut Common, now: Time) {
        let me = self.party(common);
        match self.initiation.as_mut() {
            Some(Initiation { handshake, stage: Stage::Greeted, begun, said })
                if begun.after(limits::HELLO_LASTS) > now && handshake.says(&me) =>
            {
                *said = now;
            }
            _ => {
                let mut id = [0; 8];
                common.rng.fill_bytes(&mut id);
                let mut secret = Zeroizing::new([0; 32]);
                common.rng.fill_bytes(secret.as_mut_slice());
                common.hellos += 1;
                let handshake = Initiator::new(&common.identity, me, id, common.hellos, *secret);
                self.initiation = Some(Initiation { handshake, stage: Stage::Greeted, begun: now, said: now });
            }
        }
        self.say_hello(common);
        if common.me < self.info.id {
            // The leader does not also follow.
            self.answers.clear();
        }
        self.retry_at = Some(now.after(self.retry_wait));
        self.retry_wait = (self.retry_wait * 2).min(limits::HANDSHAKE_RETRY_MAX);
    }

    /// Begins again without the patience that earlier tries had built up.
    pub fn begin_anew(&mut self, common: &mut Common, now: Time) {
        self.retry_wait = limits::HANDSHAKE_RETRY_MIN;
        self.begin(common, now);
    }

    /// Says our hello, as it is, unless it has been answered.
    fn say_hello(&self, common: &mut Common) {
        if let Some(Initiation { handshake, stage: Stage::Greeted, .. }) = &self.initiation {
            self.say(common, handshake.hello.clone());
        }
    }

    fn party(&self, common: &mut Common) -> Party {
        Party {
            from: common.me,
            to: self.info.id,
            mark: common.mark(),
            remembered: self.heard,
            key: [0; 32],
            facets: common.facets.clone(),
        }
    }

    /// A handshake message in the peer's name: what is inside, if the peer has made it.
    pub fn recognise<'a>(&mut self, common: &mut Common, now: Time, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let message = self.acquaintance.open(datagram);
        // One of our own that somebody sends back is no more than a repetition.
        if message.is_none() && !self.acquaintance.made(datagram) {
            self.refuse(common, now, Refused::Signature);
        }
        message
    }

    /// What to say of what the peer remembers of us: whether our store reaches it. `None`: not yet, because it does not
    /// and has to note that first.
    fn weigh(&mut self, common: &mut Common, now: Time, peer: &Party) -> Option<bool> {
        match (common.history.judge(peer.remembered.as_ref(), &common.identity), peer.remembered) {
            (Claim::Conceded, _) => Some(false),
            (Claim::Lost(start), Some(Mark { incarnation, .. })) => {
                if common.lost.insert(incarnation) {
                    self.complain(common, now, Trouble::RolledBack { peer: self.info.name.clone() });
                    common.outputs.push_back(LinkOutput::RolledBack { peer: self.info.id, incarnation, start });
                }
                None
            }
            (Claim::PutBack, _) => {
                common.outputs.push_back(LinkOutput::PutBack { peer: self.info.id });
                None
            }
            (Claim::False, _) => {
                self.complain(common, now, Trouble::FalseClaim { peer: self.info.name.clone() });
                Some(true)
            }
            (Claim::Sound | Claim::Lost(_), _) => Some(true),
        }
    }

    /// The peer begins a handshake, or somebody repeats an old beginning.
    pub fn hello(&mut self, common: &mut Common, now: Time, bytes: &[u8]) {
        let hello = match Hello::read(common.me, &self.info, bytes) {
            Ok(hello) => hello,
            Err(refused) => return self.refuse(common, now, refused),
        };
        let (doubtful, newest) = (hello.place() <= self.latest, hello.place() >= self.latest);
        let quota = if doubtful { &mut self.repetitions } else { &mut self.hellos };
        if !quota.admits(now) {
            return self.complain(common, now, Trouble::RateLimited { peer: self.info.name.clone() });
        }
        if let Some(answer) = self.answers.iter().find(|answer| answer.responder.id == hello.id) {
            let reply = answer.responder.reply.clone();
            return self.say(common, reply);
        }
        let hello = match hello.verified(&self.info) {
            Ok(hello) => hello,
            Err(refused) => return self.refuse(common, now, refused),
        };
        self.latest = self.latest.max(hello.place());
        let Some(known) = self.weigh(common, now, &hello.peer) else { return };
        if common.me < self.info.id && self.link.is_none() {
            // No repetition of an old hello ends a handshake that is under way. The newest may be the peer's own, which
            // then has not heard ours.
            if doubtful {
                if newest {
                    self.say_hello(common);
                }
                return;
            }
            // We lead: answer with our own hello. One that has only just left is said again as it is: it may have left
            // before the peer could hear anything, and if it was heard, its repetition is answered as the first time.
            let Some(initiation) = self.initiation.as_ref() else { return self.begin_anew(common, now) };
            let young = initiation.said.after(limits::HANDSHAKE_RETRY_MIN) > now;
            match &initiation.stage {
                Stage::Greeted if young => self.say_hello(common),
                Stage::Greeted => self.begin_anew(common, now),
                Stage::Storing { agreed, .. } | Stage::Confirming { agreed, .. } => {
                    if agreed.peer.mark.incarnation != hello.peer.mark.incarnation && !young {
                        self.begin_anew(common, now);
                    }
                }
            }
            return;
        }
        if self.answers.len() >= limits::HANDSHAKES_OPEN_MAX {
            // Nor does one take the place of an answer to a new hello, as long as the peer may still go on with that: all that
            // a peer says whose store was put back looks old.
            let over = |answer: &Answer| answer.doubtful || answer.since.after(limits::ANSWER_LASTS) <= now;
            match self.answers.iter().position(over) {
                Some(at) => drop(self.answers.remove(at)),
                None if doubtful => return,
                None => drop(self.answers.pop_front()),
            }
        }
        let me = self.party(common);
        let mut secret = Zeroizing::new([0; 32]);
        common.rng.fill_bytes(secret.as_mut_slice());
        match Responder::new(&common.identity, me, hello, known, *secret) {
            Ok(responder) => {
                let reply = responder.reply.clone();
                self.answers.push_back(Answer { responder, doubtful, since: now, agreed: None });
                // Give the leader's handshake its time before ours begins again.
                self.retry_at = self.retry_at.map(|at| at.max(now.after(limits::HANDSHAKE_RETRY_MIN)));
                self.say(common, reply);
            }
            Err(refused) => self.refuse(common, now, refused),
        }
    }

    /// The peer answers our hello.
    pub fn reply(&mut self, common: &mut Common, now: Time, id: [u8; 8], bytes: &[u8]) {
        let Some(initiation) = self.initiation.as_ref().filter(|i| i.handshake.id == id) else { return };
        if let Stage::Storing { agreed, .. } | Stage::Confirming { agreed, .. } = &initiation.stage {
            // Repetitions are common. A second answer from another start may come from a peer that was started again
            // in between; from a start that was over already it means a second process.
            if handshake::claimed_incarnation(bytes) == Some(agreed.peer.mark.incarnation) || !self.proofs.admits(now) {
                return;
            }
            let second = initiation.handshake.verify(&self.info, bytes);
            if second.is_ok_and(|second| self.earlier.contains(&second.agreed.peer.mark.incarnation)) {
                self.complain(common, now, Trouble::DuplicateIdentity { peer: self.info.name.clone() });
            }
            return;
        }
        if !self.proofs.admits(now) {
            return self.complain(common, now, Trouble::RateLimited { peer: self.info.name.clone() });
        }
        let verified = match initiation.handshake.verify(&self.info, bytes) {
            Ok(verified) => verified,
            Err(refused) => return self.refuse(common, now, refused),
        };
        let Some(known) = self.weigh(common, now, &verified.agreed.peer) else { return };
        let Some(initiation) = self.initiation.as_ref() else { return };
        let (agreed, confirm) = initiation.handshake.confirm(&common.identity, verified, known);
        if self.differs_from(common, now, &agreed.peer) {
            // The other side should learn of it too; it makes no link either.
            self.say(common, confirm);
            self.initiation = None;
            self.retry_at = Some(now.after(limits::HANDSHAKE_RETRY_MAX));
            return;
        }
        let mark = agreed.peer.mark;
        if let Some(initiation) = self.initiation.as_mut() {
            initiation.stage = Stage::Storing { agreed, confirm };
        }
        if self.is_durable(mark) {
            self.proceed(common, now);
        } else {
            self.remember(common, mark);
            self.retry_at = Some(now.after(limits::HANDSHAKE_RETRY_MAX));
        }
    }

    /// The peer ends a handshake that it began.
    pub fn confirm(&mut self, common: &mut Common, now: Time, id: [u8; 8], bytes: &[u8]) {
        if let Some(link) = self.link.as_mut().filter(|link| link.agreed.id == id) {
            // It did not hear our first packet.
            return link.speak();
        }
        let open = |answer: &Answer| answer.responder.id == id && answer.agreed.is_none();
        let Some(at) = self.answers.iter().position(open) else { return };
        // Most likely an old confirmation repeated after its old hello: it proves nothing and harms nothing.
        if !self.answers.get(at).is_some_and(|answer| answer.responder.is_fresh(bytes)) {
            return;
        }
        if !self.proofs.admits(now) {
            return self.complain(common, now, Trouble::RateLimited { peer: self.info.name.clone() });
        }
        let Some(answer) = self.answers.get_mut(at) else { return };
        let agreed = match answer.responder.finish(&self.info, bytes) {
            Ok(agreed) => agreed,
            Err(refused) => return self.refuse(common, now, refused),
        };
        if self.differs_from(common, now, &agreed.peer) {
            self.answers.remove(at);
            return;
        }
        let mark = agreed.peer.mark;
        if self.is_durable(mark) {
            self.establish(common, now, agreed);
        } else {
            if let Some(answer) = self.answers.get_mut(at) {
                answer.agreed = Some(agreed);
            }
            self.remember(common, mark);
        }
    }

    /// Whether the store's last word on the peer, writes under way included, is of this start.
    fn is_durable(&self, mark: Mark) -> bool {
        let same = |known: Mark| known.incarnation == mark.incarnation;
        self.remembered.is_some_and(same) && self.remembering.is_none_or(same)
    }

    /// Has the peer's start remembered before the link is up.
    fn remember(&mut self, common: &mut Common, mark: Mark) {
        if self.remembering.is_none_or(|known| known.incarnation != mark.incarnation) {
            self.remembering = Some(mark);
            common.outputs.push_back(LinkOutput::Remember { peer: self.info.id, mark });
        }
    }

    /// What the peer said last of how far it has come, if no write has taken that along; the caller writes it now.
    pub fn take_unwritten(&mut self) -> Option<Mark> {
        let heard = self.heard?;
        let last = self.remembering.or(self.remembered)?;
        if last.incarnation != heard.incarnation || last.commits >= heard.commits {
            return None;
        }
        self.unwritten_since = None;
        self.remembering = Some(heard);
        Some(heard)
    }

    /// The peer said how far it has come.
    fn hear(&mut self, now: Time, mark: Mark) {
        // What an older start says is of no use: the newer one is remembered, or about to be.
        if self.heard.is_some_and(|h| h.incarnation == mark.incarnation && h.commits < mark.commits) {
            self.heard = Some(mark);
            self.unwritten_since.get_or_insert(now);
        }
    }

    /// A mark of the peer is durable.
    pub fn remembered(&mut self, common: &mut Common, now: Time, mark: Mark) {
        self.remembered = Some(mark);
        if self.remembering == Some(mark) {
            self.remembering = None;
        }
        if self.heard.is_none_or(|heard| heard.incarnation != mark.incarnation || heard.commits < mark.commits) {
            self.heard = Some(mark);
            self.unwritten_since = None;
        }
        self.proceed(common, now);
        let ready =
            |answer: &Answer| answer.agreed.as_ref().is_some_and(|a| a.peer.mark.incarnation == mark.incarnation);
        if let Some(at) = self.answers.iter().position(ready)
            && let Some(agreed) = self.answers.remove(at).and_then(|answer| answer.agreed)
        {
            self.establish(common, now, agreed);
        }
    }

    /// Sends the confirmation of our own handshake if its peer is remembered.
    fn proceed(&mut self, common: &mut Common, now: Time) {
        let durable = self.remembered;
        let Some(initiation) = self.initiation.as_mut() else { return };
        if let Stage::Storing { agreed, confirm } = &initiation.stage
            && durable.is_some_and(|mark| mark.incarnation == agreed.peer.mark.incarnation)
        {
            let (agreed, confirm) = (agreed.clone(), confirm.clone());
            initiation.stage = Stage::Confirming { agreed, confirm: confirm.clone(), tries: 1 };
            self.retry_wait = limits::HANDSHAKE_RETRY_MIN;
            self.retry_at = Some(now.after(self.retry_wait));
            self.say(common, confirm);
        }
    }

    /// Whether a packet of the link with this id would be for us.
    pub fn expects_packets_of(&self, id: [u8; 8]) -> bool {
        self.link.as_ref().is_some_and(|link| link.agreed.keys.link == id) || self.confirming(id).is_some()
    }

    /// Whether a handshake's last message with this id would be for us.
    pub fn expects_confirmation_of(&self, id: [u8; 8]) -> bool {
        self.answers.iter().any(|answer| answer.responder.id == id)
            || self.link.as_ref().is_some_and(|link| link.agreed.id == id)
    }

    fn confirming(&self, id: [u8; 8]) -> Option<&Agreed> {
        match &self.initiation.as_ref()?.stage {
            Stage::Confirming { agreed, .. } if agreed.keys.link == id => Some(agreed),
            _ => None,
        }
    }

    /// A packet of the present link, or the first one of the next.
    pub fn packet(&mut self, common: &mut Common, now: Time, bytes: &[u8]) {
        let id = super::wire::PacketHeader::read(bytes).map(|header| header.link);
        if let Some(agreed) = id.and_then(|id| self.confirming(id)).cloned() {
            // Nothing is delivered before the link is up, so open it with a link that is not yet ours.
            let mut link = Link::new(agreed.clone(), now);
            let mut messages = Vec::new();
            match link.open(now, bytes, |lane, bytes| messages.push((lane, bytes))) {
                Ok(()) => {
                    self.establish_as(common, now, link);
                    self.deliver(common, messages);
                    self.end_if_left(common, now);
                }
                Err(Rejected::Forged) => {
                    self.complain(common, now, Trouble::Forged { peer: self.info.name.clone() });
                }
                Err(Rejected::Repeated) => {}
                Err(Rejected::Violation(what)) => {
                    self.complain(common, now, Trouble::Violation { peer: self.info.name.clone(), what });
                }
            }
            return;
        }
        let Some(link) = self.link.as_mut() else { return };
        let (peer, incarnation) = (self.info.id, link.incarnation());
        let outputs = &mut common.outputs;
        let opened = link.open(now, bytes, |lane, bytes| {
            outputs.push_back(LinkOutput::Message { peer, incarnation, lane, bytes });
        });
        let said = link.said;
        match opened {
            Ok(()) => {
                self.hear(now, said);
                self.end_if_left(common, now);
            }
            Err(Rejected::Repeated) => {}
            Err(Rejected::Forged) => self.complain(common, now, Trouble::Forged { peer: self.info.name.clone() }),
            Err(Rejected::Violation(what)) => {
                self.complain(common, now, Trouble::Violation { peer: self.info.name.clone(), what });
                self.end(common, DownReason::Violation);
                self.retry_wait = limits::HANDSHAKE_RETRY_MAX;
                self.retry_at = Some(now.after(limits::HANDSHAKE_RETRY_MAX));
            }
        }
    }

    fn deliver(&mut self, common: &mut Common, messages: Vec<(super::Lane, Vec<u8>)>) {
        let Some(incarnation) = self.incarnation() else { return };
        for (lane, bytes) in messages {
            common.outputs.push_back(LinkOutput::Message { peer: self.info.id, incarnation, lane, bytes });
        }
    }

    fn establish(&mut self, common: &mut Common, now: Time, agreed: Agreed) {
        self.establish_as(common, now, Link::new(agreed, now));
    }

    fn establish_as(&mut self, common: &mut Common, now: Time, link: Link) {
        let incarnation = link.incarnation();
        let peer_known = link.agreed.peer_known;
        self.hear(now, link.said);
        if let Some(old) = self.incarnation() {
            self.end(common, if old == incarnation { DownReason::Replaced } else { DownReason::Restarted });
        }
        let name = || self.info.name.clone();
        let mut troubles = Vec::new();
        if self.last_up != Some(incarnation) {
            if self.earlier.contains(&incarnation) {
                troubles.push(Trouble::DuplicateIdentity { peer: name() });
            }
            if let Some(last) = self.last_up.replace(incarnation)
                && !self.earlier.contains(&last)
            {
                if self.earlier.len() >= limits::PEER_INCARNATIONS_KEPT {
                    self.earlier.pop_front();
                }
                self.earlier.push_back(last);
            }
        }
        if !peer_known {
            troubles.push(Trouble::PeerRolledBack { peer: name() });
        }
        for trouble in troubles {
            self.complain(common, now, trouble);
        }
        self.link = Some(link);
        self.initiation = None;
        self.answers.clear();
        self.retry_at = None;
        self.retry_wait = limits::HANDSHAKE_RETRY_MIN;
        self.differs.clear();
        common.outputs.push_back(LinkOutput::Up { peer: self.info.id, incarnation });
    }

    fn end(&mut self, common: &mut Common, reason: DownReason) {
        if let Some(link) = self.link.take() {
            let incarnation = link.incarnation();
            common.outputs.push_back(LinkOutput::Down { peer: self.info.id, incarnation, reason });
        }
    }

    /// The peer's process ends. Most come back, and then say so themselves.
    fn end_if_left(&mut self, common: &mut Common, now: Time) {
        if self.link.as_ref().is_some_and(|link| link.left) {
            self.end(common, DownReason::Left);
            self.retry_wait = limits::HANDSHAKE_RETRY_MIN;
            self.retry_at = Some(now.after(limits::HANDSHAKE_RETRY_MIN));
        }
    }

    /// Timers.
    pub fn wake(&mut self, common: &mut Common, now: Time) {
        if self.unwritten_since.is_some_and(|since| since.after(limits::MARK_WAIT) <= now) {
            self.unwritten_since = None;
            if let Some(mark) = self.take_unwritten() {
                common.outputs.push_back(LinkOutput::Remember { peer: self.info.id, mark });
            }
        }
        if let Some(link) = self.link.as_mut() {
            if link.last_heard.after(limits::LINK_SILENCE_MAX) <= now {
                self.end(common, DownReason::Silent);
                self.retry_wait = limits::HANDSHAKE_RETRY_MIN;
                self.begin(common, now);
            } else {
                link.tick(now);
            }
            return;
        }
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        match self.initiation.as_mut().map(|initiation| &mut initiation.stage) {
            Some(Stage::Confirming { confirm, tries, .. }) if *tries < limits::CONFIRMS_MAX => {
                *tries += 1;
                let confirm = confirm.clone();
                self.retry_at = Some(now.after(self.retry_wait));
                self.retry_wait = (self.retry_wait * 2).min(limits::HANDSHAKE_RETRY_MAX);
                self.say(common, confirm);
            }
            // The disk is slow; a new handshake would not be faster.
            Some(Stage::Storing { .. }) => self.retry_at = Some(now.after(limits::HANDSHAKE_RETRY_MAX)),
            _ => self.begin(common, now),
        }
    }

    pub fn wake_at(&self) -> Time {
        let at = match (&self.link, self.retry_at) {
            (Some(link), _) => link.wake_at(),
            (None, Some(at)) => at,
            // Without a link a retry is always set; this only keeps a mistake from waiting for ever.
            (None, None) => Time(u64::MAX),
        };
        self.unwritten_since.map_or(at, |since| at.min(since.after(limits::MARK_WAIT)))
    }

    pub fn state(&self) -> LinkState {
        let link = self.link.as_ref();
        let waits_for = match (link, self.initiation.as_ref().map(|i| &i.stage)) {
            (Some(_), _) => String::new(),
            _ if !self.differs.is_empty() => {
                format!("the same configuration: {} differ", self.differs.join(", "))
            }
            (None, Some(Stage::Greeted) | None) => "an answer to its hello".to_owned(),
            (None, Some(Stage::Storing { .. })) => "its own disk".to_owned(),
            (None, Some(Stage::Confirming { .. })) => "the first packet".to_owned(),
        };
        LinkState {
            peer: self.info.id,
            incarnation: link.map(Link::incarnation),
            up_since: link.map(|l| l.since),
            last_heard: link.map(|l| l.last_heard),
            round_trip: link.and_then(Link::round_trip),
            queued_bytes: link.map_or(0, Link::queued),
            waits_for,
        }
    }

    fn differs_from(&mut self, common: &mut Common, now: Time, peer: &Party) -> bool {
        self.differs = handshake::differences(&common.facets, &peer.facets);
        if self.differs.is_empty() {
            return false;
        }
        let trouble = Trouble::Configuration { peer: self.info.name.clone(), differs: self.differs.clone() };
        self.complain(common, now, trouble);
        true
    }

    fn refuse(&mut self, common: &mut Common, now: Time, refused: Refused) {
        let peer = self.info.name.clone();
        self.complain(
            common,
            now,
            match refused {
                Refused::Malformed | Refused::Misaddressed => Trouble::Malformed { peer },
                Refused::Signature => Trouble::BadSignature { peer },
                Refused::Keys => Trouble::BadKeys { peer },
            },
        );
    }

    /// Sends a handshake message.
    fn say(&self, common: &mut Common, message: Vec<u8>) {
        let bytes = self.acquaintance.seal(message);
        common.outputs.push_back(LinkOutput::Datagram { to: self.info.id, bytes });
    }

    fn complain(&mut self, common: &mut Common, now: Time, trouble: Trouble) {
        if self.gate.admits(now, &trouble) {
            common.outputs.push_back(LinkOutput::Trouble(trouble));
        }
    }
}

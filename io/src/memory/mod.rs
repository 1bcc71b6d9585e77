//! An in-process cluster's bus: datagrams, request queues and results for the demonstration and for tests.
//!
//! It promises what NATS promises and no more: datagrams at most once, requests at least once with an acknowledgement
//! wait, results de-duplicated within a window. It needs no runtime: one thread of its own watches the clock, and ends
//! when the last handle is dropped.

mod queue;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::channel::mpsc;
use mpcium_core::{
    Input, NodeId, WallTime,
    input::{DeliveryId, RequestKind},
    output::{Publication, Settlement},
};

use self::queue::Queue;
use crate::ports::{Datagrams, Inbox, Requests, Results};

/// Results that are kept for late readers; the oldest are forgotten first.
const RESULTS_KEPT: usize = 16 * 1024;

/// The bus's times.
#[derive(Clone, Copy, Debug)]
pub struct BusOptions {
    /// A delivery that is neither settled nor kept alive for this long is delivered again.
    pub acknowledge_wait: Duration,
    /// Within this time a result whose de-duplication id was seen is dropped (and counts as published).
    pub duplicate_window: Duration,
}

impl Default for BusOptions {
    /// As on NATS: 30 seconds and two minutes.
    fn default() -> Self {
        Self { acknowledge_wait: Duration::from_secs(30), duplicate_window: Duration::from_secs(120) }
    }
}

/// A result that clients see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedResult {
    /// Its place in the log, from 1.
    pub sequence: u64,
    /// The subject, per the contract with clients.
    pub subject: String,
    /// The JSON document.
    pub body: Vec<u8>,
}

/// The bus. Clones are the same bus.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    /// Tells the watching thread when the last handle is gone.
    _alive: Arc<Alive>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    options: BusOptions,
}

struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

#[derive(Default)]
struct State {
    members: BTreeMap<NodeId, (u64, Inbox)>,
    joined: u64,
    queues: BTreeMap<RequestKind, Queue>,
    next_delivery: u64,
    results: VecDeque<PublishedResult>,
    results_published: u64,
    seen: BTreeMap<String, Instant>,
    readers: Vec<mpsc::UnboundedSender<PublishedResult>>,
    stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Hands out whatever can be handed out.
    fn dispatch(&mut self, options: &BusOptions, now: Instant) {
        for queue in self.queues.values_mut() {
            queue.expire(now);
            while let Some((member, delivery)) = queue.next(now, options.acknowledge_wait, &mut self.next_delivery) {
                if let Some((_, inbox)) = self.members.get(&member) {
                    inbox.put(Input::Request(delivery));
                }
            }
        }
    }
}

impl Bus {
    /// An empty bus, with its thread running.
    #[must_use]
    pub fn new(options: BusOptions) -> Self {
        let mut state = State::default();
        for (kind, stream) in [
            (RequestKind::Keygen, "mpc-keygen"),
            (RequestKind::Sign, "mpc-signing"),
            (RequestKind::Reshare, "mpc-reshare"),
        ] {
            state.queues.insert(kind, Queue::new(kind, stream));
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), options });
        let watched = shared.clone();
        // Without a thread nothing would ever be redelivered, which a lost acknowledgement wait resembles closely
        // enough that failing to start it must not pass unnoticed.
        std::thread::Builder::new()
            .name("mpcium-bus".to_owned())
            .spawn(move || watch_the_clock(&watched))
            .unwrap_or_else(|error| panic!("the bus needs a thread: {error}"));
        Self { shared: shared.clone(), _alive: Arc::new(Alive(shared)) }
    }

    /// Makes a node reachable; whatever it does not take yet waits. A node that joins again replaces its former self,
    /// whose deliveries go back to the queue.
    #[must_use]
    pub fn join(&self, node: NodeId, inbox: Inbox) -> Member {
        self.leave(node);
        let mut state = self.shared.lock();
        state.joined += 1;
        let membership = state.joined;
        state.members.insert(node, (membership, inbox.clone()));
        drop(state);
        Member { bus: self.clone(), node, membership, inbox }
    }

    /// Makes a node unreachable at once; its unsettled deliveries go to others.
    pub fn leave(&self, node: NodeId) {
        self.change(|state| {
            state.members.remove(&node);
            for queue in state.queues.values_mut() {
                queue.leave(node);
            }
        });
    }

    /// A client's request; returns its sequence number in the stream of its kind.
    pub fn request(&self, kind: RequestKind, body: Vec<u8>, client: Option<String>) -> u64 {
        self.change(|state| state.queues.get_mut(&kind).map_or(0, |queue| queue.push(body, client, wall_time())))
    }

    /// All results from sequence number `from` on, past (as far as they are kept) and future.
    #[must_use]
    pub fn results(&self, from: u64) -> mpsc::UnboundedReceiver<PublishedResult> {
        let (sender, receiver) = mpsc::unbounded();
        let mut state = self.shared.lock();
        for result in state.results.iter().filter(|result| result.sequence >= from) {
            // The receiver is right here.
            let _ = sender.unbounded_send(result.clone());
        }
        state.readers.push(sender);
        receiver
    }

    /// Requests of a kind that are not acknowledged yet, delivered or not.
    #[must_use]
    pub fn pending(&self, kind: RequestKind) -> usize {
        self.shared.lock().queues.get(&kind).map_or(0, Queue::pending)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.lock();
        let outcome = change(&mut state);
        state.dispatch(&self.shared.options, Instant::now());
        drop(state);
        self.shared.changed.notify_all();
        outcome
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

fn watch_the_clock(shared: &Shared) {
    let mut state = shared.lock();
    while !state.stopped {
        let now = Instant::now();
        state.dispatch(&shared.options, now);
        let due = state.queues.values().filter_map(Queue::due).min();
        state = match due {
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                let wait = due.saturating_duration_since(now);
                shared.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One node's ports on the bus. Clone it for each port.
#[derive(Clone, Debug)]
pub struct Member {
    bus: Bus,
    node: NodeId,
    membership: u64,
    inbox: Inbox,
}

impl Member {
    /// Whether the node is still here, and has not joined anew since.
    fn is_current(&self, state: &State) -> bool {
        state.members.get(&self.node).is_some_and(|(membership, _)| *membership == self.membership)
    }
}

impl Datagrams for Member {
    fn send(&self, to: NodeId, bytes: Vec<u8>) {
        let state = self.bus.shared.lock();
        if self.is_current(&state)
            && let Some((_, inbox)) = state.members.get(&to)
        {
            inbox.put(Input::Datagram(bytes));
        }
    }
}

impl Requests for Member {
    fn intake(&self, kind: RequestKind, open: bool) {
        self.bus.change(|state| {
            if self.is_current(state)
                && let Some(queue) = state.queues.get_mut(&kind)
            {
                queue.intake(self.node, open);
            }
        });
    }

    fn settle(&self, delivery: DeliveryId, how: Settlement) {
        let wait = self.bus.shared.options.acknowledge_wait;
        self.bus.change(|state| {
            let now = Instant::now();
            for queue in state.queues.values_mut() {
                queue.settle(self.node, delivery, how, now, wait);
            }
        });
    }
}

impl Results for Member {
    fn publish(&self, publication: Publication) {
        let window = self.bus.shared.options.duplicate_window;
        self.bus.change(|state| {
            if !self.is_current(state) {
                return;
            }
            let now = Instant::now();
            state.seen.retain(|_, at| now.saturating_duration_since(*at) < window);
            if state.seen.insert(publication.dedup.clone(), now).is_none() {
                state.results_published += 1;
                let result = PublishedResult {
                    sequence: state.results_published,
                    subject: publication.subject,
                    body: publication.body,
                };
                state.readers.retain(|reader| reader.unbounded_send(result.clone()).is_ok());
                state.results.push_back(result);
                if state.results.len() > RESULTS_KEPT {
                    state.results.pop_front();
                }
            }
            self.inbox.put(Input::Published(publication.id));
        });
    }
}

//! What is going to happen, and the loop that lets it happen.

use mpcium_core::{
    Input,
    input::RequestKind,
    link::Lane,
    output::{Publication, Settlement},
};

use super::{Shared, Verdict, World, lock};
use crate::scenario::Profile;

/// Events of one run after which something must be running in circles.
const EVENTS_MAX: u64 = 20_000_000;
/// The same for runs that last for days.
const EVENTS_MAX_SOAK: u64 = 400_000_000;

/// Something that is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A machine starts, unless something holds it down.
    Boot(usize),
    /// A fault begins.
    FaultBegins(usize),
    /// A fault ends.
    FaultEnds(usize),
    /// A backup is made for a later rollback.
    Backup(usize),
    /// A machine is cut off or comes back.
    Cut(usize, bool),
    /// A machine that died by itself may come back.
    Release(usize),
    /// A process is to stop in good order.
    Drain(usize),
    /// A process that was told so stops.
    Stop {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// A computation in which a party revealed its last secret of a run comes back to its node.
    Revealed {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
        /// What was revealed.
        reveals: Vec<crate::ideal::Reveal>,
    },
    /// A client acts.
    Step(usize),
    /// A process wanted to be woken.
    Alarm(usize),
    /// A datagram arrives.
    Datagram {
        /// At which node.
        to: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something reaches a process.
    Input {
        /// Which node.
        node: usize,
        /// Which of its processes; another one never gets it.
        generation: u64,
        /// What.
        input: Box<Input>,
    },
    /// The oldest unsynced batch has been written to the operating system's cache.
    Written {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// The oldest written batch is durable.
    Synced {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// The queue looks for takers.
    Offer(RequestKind),
    /// The queue loses a request.
    RequestLost {
        /// Which queue.
        kind: RequestKind,
        /// Which message.
        sequence: u64,
    },
    /// Nobody has acknowledged a delivery for too long.
    AcknowledgementMissing {
        /// Which queue.
        kind: RequestKind,
        /// Which message.
        sequence: u64,
        /// Which period of waiting; an older one means nothing.
        token: u64,
    },
    /// A settlement reaches the queue.
    Settle {
        /// Which queue.
        kind: RequestKind,
        /// Which message.
        sequence: u64,
        /// What.
        how: Settlement,
    },
    /// A publication reaches the result stream, or does not.
    Publish {
        /// Who publishes.
        node: usize,
        /// Which of its processes.
        generation: u64,
        /// What.
        publication: Publication,
    },
    /// Discovery tells everybody what it knows.
    Discovery,
    /// The links of a cheater's proxy have something to do.
    Proxy {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
    },
    /// A cheater sends a message that it held back or made up.
    Lie {
        /// Which node.
        node: usize,
        /// Which of its processes.
        generation: u64,
        /// To whom.
        to: usize,
        /// In which lane.
        lane: Lane,
        /// The message.
        message: Vec<u8>,
    },
    /// Invariants that look at the state of things are checked.
    Inspect,
    /// The first phase ends.
    Heal,
    /// The core has settled: clients ask it for fresh work.
    Fresh {
        /// For ECDSA signatures, which need auxiliary data; otherwise for everything else.
        ecdsa: bool,
    },
    /// Whether everything has been answered.
    Review,
}

impl World {
    /// Lets one thing happen.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Boot(node) => self.boot(node),
            Event::FaultBegins(at) => self.fault_begins(at),
            Event::FaultEnds(at) => self.fault_ends(at),
            Event::Backup(at) => self.backup(at),
            Event::Cut(node, cut) => self.cut(node, cut),
            Event::Release(node) => self.release(node),
            Event::Drain(node) => self.drain(node),
            Event::Stop { node, generation } => self.stop_process(node, generation),
            Event::Revealed { node, generation, reveals } => self.revealed(node, generation, &reveals),
            Event::Step(at) => self.step(at),
            Event::Alarm(node) => self.alarm(node),
            Event::Datagram { to, bytes } => self.datagram_arrives(to, bytes),
            Event::Input { node, generation, input } => self.input(node, generation, *input),
            Event::Written { node, generation } => self.written(node, generation),
            Event::Synced { node, generation } => self.synced(node, generation),
            Event::Offer(kind) => self.offer(kind),
            Event::RequestLost { kind, sequence } => self.request_lost(kind, sequence),
            Event::AcknowledgementMissing { kind, sequence, token } => {
                self.acknowledgement_missing(kind, sequence, token);
            }
            Event::Settle { kind, sequence, how } => self.settle_arrives(kind, sequence, how),
            Event::Publish { node, generation, publication } => self.publish_arrives(node, generation, publication),
            Event::Discovery => self.discovery(),
            Event::Proxy { node, generation } => self.proxy_wakes(node, generation),
            Event::Lie { node, generation, to, lane, message } => self.lie(node, generation, to, lane, message),
            Event::Inspect => self.inspect(),
            Event::Heal => self.heal(),
            Event::Fresh { ecdsa } => self.ask_fresh(ecdsa),
            Event::Review => self.review(),
        }
        self.observe_witness();
    }
}

/// Moves the world until the run has a verdict.
pub async fn pump(shared: Shared) -> Verdict {
    loop {
        let next = {
            let mut world = lock(&shared);
            loop {
                if let Some(verdict) = world.verdict.clone() {
                    return verdict;
                }
                let soak = world.scenario.profile == Profile::Soak;
                let most = if soak { EVENTS_MAX_SOAK } else { EVENTS_MAX };
                if world.log.events() > most {
                    world.violated("liveness", format!("more than {most} events in one run"));
                    continue;
                }
                let now = world.now();
                match world.events.first_key_value().map(|(key, _)| *key) {
                    Some(key) if key.0 <= now => {
                        if let Some(event) = world.events.remove(&key) {
                            world.handle(event);
                        }
                    }
                    Some(key) => break key.0,
                    None => {
                        world.violated("liveness", "nothing will ever happen again");
                    }
                }
            }
        };
        let began = lock(&shared).began();
        let sleep = std::pin::pin!(madsim::time::sleep_until(began + std::time::Duration::from_micros(next)));
        let earlier = std::future::poll_fn(|context| {
            let mut world = lock(&shared);
            if world.verdict.is_some() || world.events.first_key_value().is_some_and(|(key, _)| key.0 < next) {
                return std::task::Poll::Ready(());
            }
            world.waker = Some(context.waker().clone());
            std::task::Poll::Pending
        });
        futures::future::select(sleep, std::pin::pin!(earlier)).await;
    }
}

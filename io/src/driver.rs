//! The one loop that moves inputs into the core and outputs to the ports: the same code in production, in the embedded
//! cluster and in simulation. It decides nothing and uses plain futures only.

use std::pin::pin;

use futures::future::{self, Either};
use mpcium_core::{Input, Output, node::Node};

use crate::ports::{Clock, Datagrams, Event, Events, Reports, Requests, Results, Store, Workers};

/// The ports of one node.
#[derive(Debug)]
pub struct Ports<D, Q, R, S, W, C, L> {
    /// To peers.
    pub datagrams: D,
    /// From clients.
    pub requests: Q,
    /// To clients.
    pub results: R,
    /// The disk.
    pub store: S,
    /// The processors.
    pub workers: W,
    /// The clocks.
    pub clock: C,
    /// The log.
    pub reports: L,
}

/// How many events are handled before the loop looks at the clock again.
const EVENTS_PER_ROUND: usize = 64;

/// Runs a node until it is told to stop.
///
/// # Errors
/// The reason, when a port could not go on (a failed write, for one): the process must end and start anew.
pub async fn run<D, Q, R, S, W, C, L>(
    node: &mut Node,
    mut events: Events,
    ports: &Ports<D, Q, R, S, W, C, L>,
) -> Result<(), String>
where
    D: Datagrams,
    Q: Requests,
    R: Results,
    S: Store,
    W: Workers,
    C: Clock,
    L: Reports,
{
    drain(node, ports);
    loop {
        let next = match node.wake_at() {
            None => events.next().await,
            Some(at) => {
                let (next, sleep) = (pin!(events.next()), pin!(ports.clock.sleep_until(at)));
                match future::select(next, sleep).await {
                    Either::Left((event, _)) => event,
                    Either::Right(((), _)) => Some(Event::Input(Input::Wake)),
                }
            }
        };
        let mut event = next;
        let mut handled = 0;
        loop {
            match event {
                None => return Ok(()),
                Some(Event::Stop) => {
                    node.handle(ports.clock.now(), Input::Leave);
                    drain(node, ports);
                    return Ok(());
                }
                Some(Event::Fatal(reason)) => return Err(reason),
                Some(Event::Status(reply)) => {
                    // The asker may have gone away.
                    let _ = reply.send(node.status(ports.clock.now()));
                }
                Some(Event::Input(input)) => {
                    node.handle(ports.clock.now(), input);
                    drain(node, ports);
                }
            }
            handled += 1;
            // Looked at before the next event is taken: what has been taken must be handled.
            if handled == EVENTS_PER_ROUND {
                break;
            }
            event = match events.next_now() {
                Some(event) => Some(event),
                None => break,
            };
        }
        // Neither connections, which may share this thread, nor timers must starve behind a steady stream of events.
        if handled == EVENTS_PER_ROUND {
            give_way().await;
        }
        let now = ports.clock.now();
        if node.wake_at().is_some_and(|at| at <= now.time) {
            node.handle(now, Input::Wake);
            drain(node, ports);
        }
    }
}

/// Lets the other tasks of this thread go on before it returns.
async fn give_way() {
    let mut gave = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Carries out everything that the node asks for, in order.
fn drain<D, Q, R, S, W, C, L>(node: &mut Node, ports: &Ports<D, Q, R, S, W, C, L>)
where
    D: Datagrams,
    Q: Requests,
    R: Results,
    S: Store,
    W: Workers,
    C: Clock,
    L: Reports,
{
    while let Some(output) = node.poll() {
        match output {
            Output::Datagram { to, bytes } => ports.datagrams.send(to, bytes),
            Output::Persist { id, batch } => ports.store.persist(id, batch),
            Output::Load { id, keyspace, key } => ports.store.load(id, keyspace, key),
            Output::Scan { id, keyspace, after, limit } => ports.store.scan(id, keyspace, after, limit),
            Output::Compute(job) => ports.workers.submit(job),
            Output::Publish(publication) => ports.results.publish(publication),
            Output::Reply { query, body } => ports.results.reply(query, body),
            Output::Settle { delivery, how } => ports.requests.settle(delivery, how),
            Output::Intake { kind, open } => ports.requests.intake(kind, open),
            Output::Report(report) => ports.reports.report(report),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{channel::oneshot, executor::block_on, future::pending};
    use mpcium_client::auth::{Authorization, InitiatorKey};
    use mpcium_core::{
        Config, Identity, NodeId, Now, PeerInfo, Time, WallTime,
        input::{DeliveryId, RequestKind},
        output::{LoadId, PersistId, Publication, Settlement},
        protocol::{Job, Suites},
        report::Report,
        store::{Batch, BootRecord, Keyspace},
    };

    use super::*;
    use crate::ports::Inbox;

    /// Ports behind which nothing happens.
    struct Nothing;

    impl Datagrams for Nothing {
        fn send(&self, _: NodeId, _: Vec<u8>) {}
    }

    impl Requests for Nothing {
        fn intake(&self, _: RequestKind, _: bool) {}
        fn settle(&self, _: DeliveryId, _: Settlement) {}
    }

    impl Results for Nothing {
        fn publish(&self, _: Publication) {}
    }

    impl Store for Nothing {
        fn persist(&self, _: PersistId, _: Batch) {}
        fn load(&self, _: LoadId, _: Keyspace, _: Vec<u8>) {}
        fn scan(&self, _: LoadId, _: Keyspace, _: Vec<u8>, _: usize) {}
    }

    impl Workers for Nothing {
        fn submit(&self, _: Job) {}
    }

    impl Clock for Nothing {
        fn now(&self) -> Now {
            Now { time: Time::default(), wall: WallTime(0) }
        }

        fn sleep_until(&self, _: Time) -> impl Future<Output = ()> {
            pending()
        }
    }

    impl Reports for Nothing {
        fn report(&self, _: Report) {}
    }

    fn node() -> Node {
        let identities = [1, 2, 3].map(|n| Identity::new(NodeId::from_bytes([n; 16]), &[n; 32]));
        let peers = identities.iter().map(|identity| {
            let id = identity.id();
            PeerInfo { id, name: id.to_string(), key: identity.public() }
        });
        let [me, ..] = &identities;
        let config = Config {
            me: me.id(),
            peers: peers.collect(),
            threshold: 2,
            chain_code: None,
            initiator: InitiatorKey::parse("ed25519", &hex::encode(me.public().as_bytes())).expect("a key"),
            authorization: Authorization::default(),
            max_concurrent_keygen: 1,
            max_concurrent_signing: 1,
            presignatures: 0,
            signing_deadline: Duration::from_secs(180),
            keygen_deadline: Duration::from_secs(900),
            clock_skew: Duration::from_secs(5),
            workers: 1,
            ingredients_reserve: 0,
        };
        let config = config.checked().expect("a configuration");
        Node::new(
            config,
            me.clone(),
            Suites::production(mpcium_core::protocol::EcdsaProtocol::Cggmp24),
            BootRecord::default(),
            [7; 32],
            Nothing.now(),
        )
    }

    #[test]
    fn every_event_of_a_burst_is_handled() {
        let (inbox, events) = Inbox::new();
        let mut waiting: Vec<oneshot::Receiver<_>> = Vec::new();
        for _ in 0..3 * EVENTS_PER_ROUND {
            let (sender, receiver) = oneshot::channel();
            inbox.ask(sender);
            waiting.push(receiver);
        }
        inbox.stop();
        let ports = Ports {
            datagrams: Nothing,
            requests: Nothing,
            results: Nothing,
            store: Nothing,
            workers: Nothing,
            clock: Nothing,
            reports: Nothing,
        };
        block_on(run(&mut node(), events, &ports)).expect("stopped");
        for (number, reply) in waiting.iter_mut().enumerate() {
            assert!(matches!(reply.try_recv(), Ok(Some(_))), "event {number} was lost");
        }
    }
}

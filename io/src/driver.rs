//! The one loop that moves inputs into the core and outputs to the ports: the same code in production, in the embedded
//! cluster and in simulation. It decides nothing and uses plain futures only.

use std::pin::pin;

use futures::{
    StreamExt as _,
    future::{self, Either},
};
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
            None => events.receiver.next().await,
            Some(at) => {
                let sleep = pin!(ports.clock.sleep_until(at));
                match future::select(events.receiver.next(), sleep).await {
                    Either::Left((event, _)) => event,
                    Either::Right(((), _)) => Some(Event::Input(Input::Wake)),
                }
            }
        };
        let mut event = next;
        for _ in 0..EVENTS_PER_ROUND {
            match event {
                None | Some(Event::Stop) => return Ok(()),
                Some(Event::Fatal(reason)) => return Err(reason),
                Some(Event::Status(reply)) => {
                    // The asker may have gone away.
                    let _ = reply.send(node.status(ports.clock.now()));
                }
                Some(Event::Input(input)) => {
                    let event = Event::Input(input);
                    events.taken(&event);
                    let Event::Input(input) = event else { unreachable!("made two lines above") };
                    node.handle(ports.clock.now(), input);
                    drain(node, ports);
                }
            }
            event = match events.receiver.try_recv() {
                Ok(event) => Some(event),
                Err(_) => break,
            };
        }
        // Timers must not starve behind a steady stream of events.
        let now = ports.clock.now();
        if node.wake_at().is_some_and(|at| at <= now.time) {
            node.handle(now, Input::Wake);
            drain(node, ports);
        }
    }
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
            Output::Settle { delivery, how } => ports.requests.settle(delivery, how),
            Output::Intake { kind, open } => ports.requests.intake(kind, open),
            Output::Report(report) => ports.reports.report(report),
        }
    }
}

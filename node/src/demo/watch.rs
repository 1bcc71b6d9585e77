//! What the demonstration's nodes report, summed up as it comes: who answers, how far the auxiliary data is, who signed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    time::Duration,
};

use futures::{StreamExt as _, channel::mpsc};
use mpcium_core::report::Report;
use tokio::sync::watch;

use super::cluster::{Fact, NODES, name};
use crate::keys;

/// One run of a signing protocol.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// Which attempt at the request it was.
    pub attempt: u32,
    /// Who took part.
    pub signers: Vec<String>,
}

/// The sum of all reports so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Pairs (node, name of a peer that answers it).
    links: BTreeSet<(usize, String)>,
    ready: [bool; NODES],
    /// Safe primes in store, by node.
    pub primes: [usize; NODES],
    /// The nodes have begun to prove to each other that their numbers are sound.
    pub proving: bool,
    /// Auxiliary sets that can be used, by node.
    agreed: [usize; NODES],
    /// The last run of a signing protocol that each node coordinated.
    running: BTreeMap<usize, Signing>,
    /// The run that gave each answered request its signature, by the client's id.
    pub answered: BTreeMap<String, Signing>,
    /// Something that must not happen.
    pub alarm: Option<String>,
}

impl Seen {
    /// Whether every node is ready and linked to every other: a wallet needs them all.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.ready.iter().all(|ready| *ready) && self.links.len() == NODES * (NODES - 1)
    }

    /// Whether every node can use this many auxiliary sets.
    #[must_use]
    pub fn auxiliary_ready(&self, sets: usize) -> bool {
        self.agreed.iter().all(|agreed| *agreed >= sets)
    }

    fn absorb(&mut self, node: usize, report: &Report) {
        let set = |all: &mut [bool; NODES], value| all.iter_mut().skip(node).take(1).for_each(|known| *known = value);
        match report {
            Report::Ready { .. } => set(&mut self.ready, true),
            Report::NotReady { .. } => set(&mut self.ready, false),
            Report::LinkUp { peer, .. } => drop(self.links.insert((node, peer.clone()))),
            Report::LinkDown { peer, .. } => drop(self.links.remove(&(node, peer.clone()))),
            Report::IngredientMade { pieces, .. } => {
                self.primes.iter_mut().skip(node).take(1).for_each(|known| *known = *pieces);
            }
            Report::AuxiliaryReady { .. } => self.agreed.iter_mut().skip(node).take(1).for_each(|sets| *sets += 1),
            Report::SessionStarted { protocol, .. } if protocol == "auxiliary" => self.proving = true,
            Report::SessionEnded { protocol, reason, .. } if protocol == "auxiliary" && !reason.is_empty() => {
                self.proving = false;
            }
            Report::SessionStarted { protocol, coordinator, attempt, participants, .. }
                if protocol.starts_with("sign") && *coordinator == name(node) =>
            {
                self.running.insert(node, Signing { attempt: *attempt, signers: participants.clone() });
            }
            Report::RequestAnswered { kind: "sign", id, .. } => {
                let by = self.running.get(&node).cloned().unwrap_or_default();
                self.answered.insert(id.clone(), by);
            }
            Report::Alarm { what } => self.alarm = Some(format!("{}: {what}", name(node))),
            _ => {}
        }
    }
}

/// Watches the nodes for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    seen: watch::Receiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Begins to watch; every report is also written to `log` if there is one.
    ///
    /// # Errors
    /// If the log cannot be made.
    pub fn start(facts: mpsc::UnboundedReceiver<Fact>, log: Option<&Path>) -> Result<Self, String> {
        let log = log
            .map(|path| std::fs::File::create(path).map_err(|error| format!("{}: {error}", path.display())))
            .transpose()?;
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(absorb_all(facts, log, sender));
        Ok(Self { seen, task })
    }

    /// Waits until the reports sum up to what is wanted; `look` sees every change on the way.
    ///
    /// # Errors
    /// If it takes too long, or something happened that must not.
    pub async fn until(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen, String> {
        let mut seen = self.seen.clone();
        let waiting = seen.wait_for(|seen| seen.alarm.is_some() || look(seen));
        let found = tokio::time::timeout(patience, waiting)
            .await
            .map_err(|_| format!("no {what} within {} s; --log FILE shows what the nodes say", patience.as_secs()))?
            .map_err(|_| "the cluster has ended".to_owned())?
            .clone();
        match found.alarm {
            Some(alarm) => Err(alarm),
            None => Ok(found),
        }
    }
}

async fn absorb_all(
    mut facts: mpsc::UnboundedReceiver<Fact>,
    mut log: Option<std::fs::File>,
    seen: watch::Sender<Seen>,
) {
    while let Some(Fact { node, at, report }) = facts.next().await {
        if let Some(file) = &mut log
            && writeln!(file, "{} {} {report}", keys::timestamp_millis(at), name(node)).is_err()
        {
            eprintln!("the log cannot be written any more");
            log = None;
        }
        seen.send_modify(|seen| seen.absorb(node, &report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_complete_when_every_pair_is_linked_both_ways() {
        let mut seen = Seen::default();
        for node in 0..NODES {
            assert!(!seen.complete());
            seen.absorb(node, &Report::Ready { reachable: NODES });
            for peer in (0..NODES).filter(|peer| *peer != node) {
                seen.absorb(node, &Report::LinkUp { peer: name(peer), incarnation: String::new() });
            }
        }
        assert!(seen.complete());
        seen.absorb(0, &Report::LinkDown { peer: name(1), reason: String::new() });
        assert!(!seen.complete());
    }

    #[test]
    fn a_signature_is_told_with_those_who_made_it() {
        let mut seen = Seen::default();
        let started = |attempt, with: usize| Report::SessionStarted {
            session: String::new(),
            protocol: "sign ed25519".to_owned(),
            wallet: "w".to_owned(),
            coordinator: name(0),
            attempt,
            participants: vec![name(0), name(with)],
        };
        seen.absorb(0, &started(1, 2));
        seen.absorb(0, &started(2, 1));
        // A participant's report of the same session is not the coordinator's.
        seen.absorb(1, &started(3, 2));
        seen.absorb(
            0,
            &Report::RequestAnswered {
                kind: "sign",
                wallet: "w".to_owned(),
                id: "tx".to_owned(),
                error_code: String::new(),
                reason: String::new(),
                took_ms: 1,
            },
        );
        let signing = &seen.answered["tx"];
        assert_eq!((signing.attempt, signing.signers.as_slice()), (2, [name(0), name(1)].as_slice()));
    }
}

//! The stream of results with its de-duplication window. Whatever reaches it is an answer that a client may see.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{Input, output::Publication};
use serde_json::{Value, json};

use super::{Event, World};
use crate::{
    frozen::OldAnswer,
    invariants::Fact,
    planted::Planted,
    scenario::{At, MILLISECOND, SECOND},
};

/// How long the stream remembers an id, as the server's default.
const WINDOW: u64 = 120 * SECOND;

/// One answer that reached the stream.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The de-duplication id.
    pub dedup: String,
    /// The subject.
    pub subject: String,
    /// The document as published.
    pub raw: Vec<u8>,
    /// `wallet_id`.
    pub wallet: String,
    /// `tx_id`; empty for key generation.
    pub transaction: String,
    /// Whether it says success.
    pub success: bool,
    /// The document.
    pub body: Value,
}

/// The stream.
#[derive(Debug, Default)]
pub struct Results {
    seen: BTreeMap<String, At>,
    /// De-duplication ids of all answers to a request (wallet and transaction).
    answered: BTreeMap<(String, String), BTreeSet<String>>,
    /// Successful answers by request.
    succeeded: BTreeSet<(String, String)>,
    /// Everything as it was published, if somebody wants to freeze it.
    pub published: Vec<OldAnswer>,
    /// Requests that somebody who cheats has answered.
    by_cheaters: BTreeSet<(String, String)>,
}

impl Results {
    /// How many different deliveries of a request were answered. `transaction` is empty for key generation.
    #[must_use]
    pub fn answers(&self, wallet: &str, transaction: &str) -> usize {
        self.answered.get(&(wallet.into(), transaction.into())).map_or(0, BTreeSet::len)
    }

    /// Whether somebody who cheats has answered a request: he may fail it if he likes.
    #[must_use]
    pub fn by_cheater(&self, wallet: &str, transaction: &str) -> bool {
        self.by_cheaters.contains(&(wallet.into(), transaction.into()))
    }

    /// Whether a request was ever answered with success.
    #[must_use]
    pub fn succeeded(&self, wallet: &str, transaction: &str) -> bool {
        self.succeeded.contains(&(wallet.into(), transaction.into()))
    }
}

/// The same document with one attestation fewer.
fn without_an_attestation(body: &[u8]) -> Vec<u8> {
    let Ok(mut document) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    if document["result_type"] != "success" {
        return body.to_vec();
    }
    if let Some(attestations) = document.get_mut("attestations").and_then(Value::as_array_mut) {
        attestations.pop();
    }
    document.to_string().into_bytes()
}

impl World {
    /// A node publishes: its port tries until the stream has it.
    pub(super) fn publish_leaves(&mut self, node: usize, generation: u64, mut publication: Publication) {
        if self.has(Planted::FreshDeduplication) {
            publication.dedup = format!("{} {node} {generation}", publication.dedup);
        }
        if self.has(Planted::AttestationMissing) {
            publication.body = without_an_attestation(&publication.body);
        }
        self.log.event(self.now(), Some(node), "publish", &publication.body, || {
            json!({"id": publication.id.0, "subject": publication.subject, "dedup": publication.dedup,
                "body": String::from_utf8_lossy(&publication.body)})
        });
        let delay = self.bus_delay();
        self.later(delay, Event::Publish { node, generation, publication });
    }

    /// A publication reaches the stream, or is tried again. What is on its way when its node dies may still arrive.
    pub(super) fn publish_arrives(&mut self, node: usize, generation: u64, publication: Publication) {
        let current = self.is_current(node, generation);
        if !current && self.dice.chance(0.5) {
            return;
        }
        if !self.on_bus(node) {
            if current {
                let delay = self.dice.between(250 * MILLISECOND, SECOND);
                self.later(delay, Event::Publish { node, generation, publication });
            }
            return;
        }
        if self.has(Planted::DroppedPublication) && self.dice.chance(0.25) {
            let input = Box::new(Input::Published(publication.id));
            self.later(0, Event::Input { node, generation, input });
            return;
        }
        if self.scenario.seed == crate::frozen::SEED {
            let Publication { subject, dedup, body, .. } = publication.clone();
            self.results.published.push(OldAnswer { subject, dedup, body });
        }
        self.stored(node, &publication);
        if self.healed || self.dice.below(1_000) >= self.scenario.rates.publication_lost {
            let delay = self.bus_delay();
            let input = Box::new(Input::Published(publication.id));
            self.later(delay, Event::Input { node, generation, input });
        } else if current {
            // The acknowledgement was lost: the port cannot know and publishes once more.
            self.counters.sometimes("lost acknowledgement of a publication");
            let delay = self.dice.between(SECOND, 5 * SECOND);
            let mut publication = publication;
            if self.has(Planted::AlteredAnswer) {
                publication.body.push(b' ');
            }
            self.later(delay, Event::Publish { node, generation, publication });
        }
    }

    /// An answer that was published before the run began.
    pub(super) fn answered_before(&mut self, old: OldAnswer) {
        let OldAnswer { subject, dedup, body } = old;
        self.stored(0, &Publication { id: mpcium_core::output::PublishId(0), subject, dedup, body });
    }

    fn stored(&mut self, node: usize, publication: &Publication) {
        let now = self.now();
        let body: Value = match serde_json::from_slice(&publication.body) {
            Ok(body) => body,
            Err(error) => {
                self.violated("signatures_verify", format!("node{node} published what is no JSON: {error}"));
                return;
            }
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let answer = Answer {
            dedup: publication.dedup.clone(),
            subject: publication.subject.clone(),
            raw: publication.body.clone(),
            wallet: text("wallet_id"),
            transaction: text("tx_id"),
            success: text("result_type") == "success",
            body: body.clone(),
        };
        let fresh = self.results.seen.get(&answer.dedup).is_none_or(|at| now - at > WINDOW);
        if fresh {
            self.results.seen.insert(answer.dedup.clone(), now);
        } else {
            self.counters.sometimes("repeated publication");
        }
        let request = (answer.wallet.clone(), answer.transaction.clone());
        self.results.answered.entry(request.clone()).or_default().insert(answer.dedup.clone());
        if self.scenario.is_cheater(node) {
            self.results.by_cheaters.insert(request.clone());
        }
        if answer.success {
            self.results.succeeded.insert(request);
            self.counters.successes += u64::from(fresh);
        } else {
            self.counters.failures += u64::from(fresh);
            self.counters.reason(&text("error_code"));
        }
        self.log.event(now, Some(node), "answer", &publication.body, || {
            json!({"dedup": answer.dedup, "fresh": fresh, "wallet": answer.wallet, "transaction": answer.transaction,
                "success": answer.success, "error_code": text("error_code")})
        });
        self.clients.learn(now, &answer);
        // Whoever cheats may publish what he likes: nobody can keep him from the bus.
        if !self.scenario.is_cheater(node) {
            self.observe(&Fact::Answer { node, answer: &answer });
        }
    }
}

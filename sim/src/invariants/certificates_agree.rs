//! There is one certificate for an epoch of a wallet: whatever any node stores as decided is the same session with the
//! same keys everywhere and for ever.

use std::collections::BTreeMap;

use mpcium_core::{store::Keyspace, wallet::CertificateRecord};

use super::{Fact, Invariant};
use crate::{records, world::World};

/// Bytes of the record that names a wallet's last epoch.
const HEAD_BYTES: usize = 4;

/// The session that became the epoch, and its public keys.
type Decision = (String, Vec<Vec<u8>>);

#[derive(Default)]
pub(super) struct CertificatesAgree {
    decided: BTreeMap<(String, u32), Decision>,
}

impl Invariant for CertificatesAgree {
    fn name(&self) -> &'static str {
        "certificates_agree"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Durable { node, batch } = fact else { return Ok(()) };
        for write in batch.writes.iter().filter(|w| w.keyspace == Keyspace::Certificates) {
            let Some(value) = &write.value else {
                return Err(format!("node{node} removed a certificate"));
            };
            // Beside the certificates stands, per wallet, which epoch is the last one.
            if value.expose().len() == HEAD_BYTES {
                continue;
            }
            let record = records::read::<CertificateRecord>(value.expose())
                .map_err(|error| format!("node{node} stored a certificate that cannot be read: {error}"))?;
            let facts = record.certificate.facts();
            if facts.committee.members.len() != world.scenario.nodes
                || usize::from(facts.committee.threshold) != world.scenario.threshold
            {
                return Err(format!("node{node} stored a certificate of another committee"));
            }
            let certificate = &record.certificate;
            if certificate.value.prepared.len() < world.scenario.nodes {
                return Err(format!("node{node} stored a certificate that lacks a member's statement"));
            }
            if certificate.votes.len() < world.scenario.threshold {
                return Err(format!("node{node} stored a certificate that lacks a vote"));
            }
            let decision = (format!("{:?}", facts.session), record.certificate.value.session.public_keys.clone());
            let first = self.decided.entry((facts.wallet.clone(), facts.epoch)).or_insert_with(|| decision.clone());
            if *first != decision {
                return Err(format!(
                    "two certificates for {} epoch {}: sessions {} and {} (at node{node})",
                    facts.wallet, facts.epoch, first.0, decision.0
                ));
            }
        }
        Ok(())
    }
}

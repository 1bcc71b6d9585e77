//! What clients can see is durable where it must be: a signature, and an error that does not follow from the request
//! alone, at a majority of the members, so that every later attempt meets it; a wallet's shares at every member. Disks
//! that were rolled back count as if they held it.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mpcium_core::{protocol::Curve, store::Keyspace, wallet::CertificateRecord};

use super::{Fact, Invariant};
use crate::{
    records,
    world::{Answer, Machine, World},
};

#[derive(Default)]
pub(super) struct DurableBeforeAnswer {
    seen: BTreeSet<(String, String)>,
    errors: BTreeSet<String>,
}

/// Errors that nodes agree on before one of them says so: others may yet have another answer.
const DECIDED: [&str; 4] =
    ["ERROR_NETWORK_TIMEOUT", "ERROR_KEY_NOT_FOUND", "ERROR_SESSION_DUPLICATE", "ERROR_KEY_ALREADY_EXISTS"];

impl Invariant for DurableBeforeAnswer {
    fn name(&self) -> &'static str {
        "durable_before_answer"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Answer { answer, .. } = fact else { return Ok(()) };
        if !answer.success {
            return if self.errors.insert(answer.dedup.clone()) { error(world, answer) } else { Ok(()) };
        }
        // Later the members may have moved on; it must have been so when it could first be seen.
        if !self.seen.insert((answer.wallet.clone(), answer.transaction.clone())) {
            return Ok(());
        }
        if answer.transaction.is_empty() { wallet(world, answer) } else { signature(world, answer) }
    }
}

fn signature(world: &World, answer: &Answer) -> Result<(), String> {
    let field = |name: &str| {
        answer.body.get(name).and_then(|v| v.as_str()).and_then(|v| STANDARD.decode(v).ok()).unwrap_or_default()
    };
    let mut bytes = field("signature");
    if bytes.is_empty() {
        bytes = [field("r"), field("s")].concat();
    }
    if bytes.len() != 64 {
        return Err(format!("{}: no signature in a success", answer.transaction));
    }
    let holders = world.machines.iter().filter(|m| m.rolled_back || m.disk.holds(Keyspace::Ledger, &bytes)).count();
    let quorum = world.scenario.nodes / 2 + 1;
    if holders < quorum {
        return Err(format!(
            "{} was published while {holders} members held its signature durably; {quorum} must",
            answer.transaction
        ));
    }
    Ok(())
}

fn error(world: &World, answer: &Answer) -> Result<(), String> {
    let code = answer.body.get("error_code").and_then(|code| code.as_str()).unwrap_or_default();
    if !DECIDED.contains(&code) {
        return Ok(());
    }
    let holds = |m: &&Machine| m.rolled_back || m.disk.holds(Keyspace::Ledger, &answer.raw);
    let (holders, quorum) = (world.machines.iter().filter(holds).count(), world.scenario.nodes / 2 + 1);
    if holders < quorum {
        return Err(format!(
            "{code} was answered to {} {} while {holders} members held that durably; {quorum} must",
            answer.wallet, answer.transaction
        ));
    }
    Ok(())
}

fn wallet(world: &World, answer: &Answer) -> Result<(), String> {
    let certificate = world.machines.iter().find_map(|machine| {
        machine
            .disk
            .records(Keyspace::Certificates)
            .filter_map(|(_, value)| records::read::<CertificateRecord>(value.expose()).ok())
            .find(|record| record.certificate.facts().wallet == answer.wallet)
    });
    let Some(record) = certificate else {
        return Err(format!("{} was published while nobody held its certificate durably", answer.wallet));
    };
    let session = record.certificate.facts().session;
    let holders = world
        .machines
        .iter()
        .filter(|machine| {
            machine.rolled_back || super::shares_interpolate::shares(machine, session).len() == Curve::ALL.len()
        })
        .count();
    if holders < world.scenario.nodes {
        return Err(format!(
            "{} was published while {holders} of {} members held their shares durably",
            answer.wallet, world.scenario.nodes
        ));
    }
    Ok(())
}

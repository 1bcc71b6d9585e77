//! The store, and the node that has it open if one runs.

use std::path::Path;

use mpcium_core::{
    Secret,
    node::{PairState, PairStatus, Status},
};
use mpcium_io::fjall;

use super::{Configured, Findings, files::private};
use crate::{
    cli::Doctor,
    config::{Environment, Settings},
    metrics::disk_free,
    passwords, primes, start,
    status::{self, Answer},
};

/// With less space than this nothing should be started.
const SPACE_MIN: u64 = 256 * 1024 * 1024;
/// With less space than this somebody should look.
const SPACE_LOW: u64 = 2 * 1024 * 1024 * 1024;

/// Looks at the store, or asks the node that has it open.
pub(super) async fn look(configured: &Configured, options: &Doctor, findings: &mut Findings) {
    let Some(settings) = &configured.settings else {
        findings.skip("store", "the configuration has to be put right first");
        return;
    };
    let folder = start::node_folder(&settings.db_path, &options.name);
    space(settings, findings);
    let old = settings.db_path.join(&options.name);
    if old.exists() {
        findings.warn(
            "store",
            format!("{} looks like a database of the Go system; it is left alone", old.display()),
            "its wallets are not used here; keep it until they are moved",
        );
    }
    if let Ok(answer) = status::ask(&folder).await {
        running(settings, &answer, findings);
        return;
    }
    for (key, address) in [("healthcheck.address", &settings.healthcheck), ("metrics.address", &settings.metrics)] {
        let Some(address) = address else { continue };
        match crate::http::listen(key, address).await {
            Ok(_) => findings.ok("addresses", format!("{key} {address} is free")),
            Err(error) => findings.fail("addresses", error, "use another address, or stop what listens there"),
        }
    }
    if folder.exists() {
        private("store", &folder, 0o700, findings);
    }
    open(settings, options, &folder.join("store"), findings);
    for check in ["primes", "auxiliary data", "peers' answers"] {
        findings.skip(check, "the node does not run");
    }
}

fn space(settings: &Settings, findings: &mut Findings) {
    const CHECK: &str = "disk";
    // The folder may not exist yet: then the disk that it will be on counts.
    let existing = settings.db_path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let Some(free) = disk_free(existing) else {
        findings.skip(CHECK, format!("{}: the free space is not known", existing.display()));
        return;
    };
    let found = format!("{} MiB are free for {}", free / 1024 / 1024, settings.db_path.display());
    if free < SPACE_MIN {
        findings.fail(CHECK, found, "make room: a node whose writes fail stops");
    } else if free < SPACE_LOW {
        findings.warn(CHECK, found, "make room before it is needed");
    } else {
        findings.ok(CHECK, found);
    }
}

/// Opens the store as a start would.
fn open(settings: &Settings, options: &Doctor, path: &Path, findings: &mut Findings) {
    const CHECK: &str = "store";
    let password = match passwords::store(settings.store_password.as_ref(), &options.passwords) {
        Ok(password) => password,
        Err(error) => {
            findings.fail("store password", error, "give the same one as `mpcium start` gets");
            return;
        }
    };
    if !path.exists() {
        findings.ok(CHECK, format!("{} does not exist yet; the first start makes it", path.display()));
        return;
    }
    let password = Secret::new(password.expose().as_bytes().to_vec());
    match fjall::open(path, &password, fjall::Options::existing()) {
        Ok(opened) if opened.boot.damage.is_empty() => {
            findings.ok(CHECK, format!("{}: the password is right, and every record is there", path.display()));
            shares(opened.store.wallets_without_share(), findings);
        }
        Ok(opened) => {
            for damage in &opened.boot.damage {
                findings.fail(
                    CHECK,
                    damage,
                    "do not restore anything over it: keep the files, and see \"When something happens to a node\" in \
                     docs/operations.md",
                );
            }
        }
        Err(error) => {
            let advice = match error {
                fjall::OpenError::InUse { .. } => "another process has it open; is the node running as another user?",
                fjall::OpenError::WrongPassword { .. } => "use the password with which the store was made",
                fjall::OpenError::Foreign { .. } => "point db_path elsewhere",
                _ => "keep the files, and look at the disk",
            };
            findings.fail(CHECK, error.to_string(), advice);
        }
    }
    if primes::are_marked(path) {
        test_primes(settings, findings);
    }
}

/// Wallets that this node knows and cannot sign with.
fn shares(lost: usize, findings: &mut Findings) {
    const CHECK: &str = "shares";
    if lost == 0 {
        findings.ok(CHECK, "every wallet that this node knows has its shares here");
        return;
    }
    // For good, so no failure: who waits for a node to be well again would wait for ever.
    findings.warn(
        CHECK,
        format!("{lost} wallets have no share here: for them this node is lost already, and one spare node fewer is left"),
        "if the store that this node had before still exists (another disk, a folder that was moved away), stop the node \
         and put that one back; otherwise these wallets need the other nodes: protect their stores, and move what the \
         wallets hold to new ones while enough nodes have shares",
    );
}

fn test_primes(settings: &Settings, findings: &mut Findings) {
    let found = "TEST PRIMES: the auxiliary data of this store is made of published primes and protects nothing";
    let advice = "never use this store's wallets for anything of value";
    match settings.environment {
        Environment::Production => findings.fail("primes", found, advice),
        Environment::Development => findings.warn("primes", found, advice),
    }
}

/// What a running node says of itself.
fn running(settings: &Settings, answer: &Answer, findings: &mut Findings) {
    findings.ok("process", format!("{} runs since {}", answer.pid, answer.started_at));
    if answer.version != crate::cli::VERSION {
        let found = format!("the node is version {}, this program {}", answer.version, crate::cli::VERSION);
        findings.warn("process", found, "restart the node with the new program");
    }
    if answer.test_primes {
        test_primes(settings, findings);
    }
    let Some(node) = &answer.node else {
        let found = format!("the node waits for {}", answer.starting);
        findings.fail("readiness", found, "see what else this list says of it");
        return;
    };
    for alarm in &node.alarms {
        findings.fail("alarms", alarm, "see \"Alarms\" in docs/operations.md");
    }
    if let Some(lost) = answer.wallets_without_share {
        shares(lost, findings);
    }
    for stopped in &node.stopped {
        findings.fail("keys", stopped, "see \"Alarms\" in docs/operations.md");
    }
    if node.ready {
        findings.ok("readiness", "the node takes requests");
    } else {
        findings.fail(
            "readiness",
            format!("waits for {}", node.waiting_for.join(", ")),
            "start or reach what it names",
        );
    }
    for peer in node.peers.iter().filter(|peer| !peer.up) {
        let found = format!("{} does not answer: {}", peer.name, peer.detail);
        let advice =
            "start it and look at its log; if the text names a difference in the configuration, make them equal";
        findings.warn("peers' answers", found, advice);
    }
    if node.peers.iter().all(|peer| peer.up) {
        findings.ok("peers' answers", format!("all {} other nodes answer", node.peers.len()));
    }
    let primes = &node.ingredients;
    let found = format!("{} of {} safe primes in store", primes.pieces, primes.wanted);
    if primes.wanted == 0 {
        findings.ok("primes", "the ECDSA protocol needs none");
    } else if primes.pieces >= primes.wanted {
        findings.ok("primes", found);
    } else if primes.making {
        findings.ok("primes", format!("{found}, more are being made"));
    } else {
        findings.warn("primes", found, "nothing, unless it stays so: they are made in the background");
    }
    match node.auxiliary_sets.iter().find(|set| set.agreed) {
        Some(_) if !node.pairs.is_empty() => pairs(node, findings),
        Some(set) => findings.ok("auxiliary data", format!("ready for {}", set.members.join(", "))),
        None => findings.warn(
            "auxiliary data",
            "none yet: ECDSA signatures wait, Ed25519 works",
            match primes.wanted {
                0 => "nothing for some seconds; then see whether all nodes run",
                _ => "nothing for some minutes; then see whether all nodes run and have their primes",
            },
        ),
    }
}

/// With whom this node cannot sign, where every pair of nodes has auxiliary data of its own.
fn pairs(node: &Status, findings: &mut Findings) {
    const CHECK: &str = "auxiliary data";
    let names = |state| {
        let of = node.pairs.iter().filter(move |pair| pair.state == state);
        of.map(|pair| pair.peer.as_str()).collect::<Vec<_>>().join(", ")
    };
    let unusable = |pair: &PairStatus, word: &str| format!("{word} with {}: {}", pair.peer, pair.detail);
    for pair in &node.pairs {
        match pair.state {
            PairState::Ready => {}
            PairState::Missing => findings.warn(
                CHECK,
                unusable(pair, "none yet"),
                "nothing for a minute; then start or reach that node. Others sign meanwhile",
            ),
            PairState::Banned => findings.warn(
                CHECK,
                unusable(pair, "banned"),
                "find out why before trusting that node again: it cheated, or one of the two machines computes or \
                 remembers wrongly. New auxiliary data follows by itself; see \"Bans\" in docs/protocols.md",
            ),
        }
    }
    if node.pairs.iter().any(|pair| pair.state == PairState::Ready) {
        findings.ok(CHECK, format!("ready with {}", names(PairState::Ready)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    #[test]
    fn lost_shares_are_a_finding_that_says_how_many_wallets_lack_them() {
        let mut findings = Findings::default();
        shares(0, &mut findings);
        assert_eq!(findings.count(Outcome::Ok), 1);
        shares(6, &mut findings);
        let found = findings.0.last().expect("a finding");
        assert_eq!(found.outcome, Outcome::Warning);
        assert!(found.found.starts_with("6 wallets have no share here"), "{}", found.found);
        assert!(found.advice.contains("put that one back"), "{}", found.advice);
    }
}

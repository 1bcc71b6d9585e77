//! Peers, identities, the private key, and who may read them.

use std::path::Path;

use mpcium_core::{NodeId, PeerInfo};

use super::{Configured, Findings};
use crate::{
    cli::Doctor,
    config::{Reader, Remark},
    files::{self, KeyProblem},
    passwords,
    start::{IDENTITY_FOLDER, PEERS_FILE},
};

/// What the files say of the cluster.
pub(super) struct Cluster {
    /// This node.
    pub me: NodeId,
    /// Names and ids of all nodes.
    pub peers: std::collections::BTreeMap<String, NodeId>,
}

/// Looks at the files in the folder that the node is started in.
pub(super) fn look(configured: &Configured, options: &Doctor, findings: &mut Findings) -> Option<Cluster> {
    let peers = match files::read_peers(Path::new(PEERS_FILE)) {
        Ok(peers) => peers,
        Err(error) => {
            let advice = "copy the cluster's peers.json here (`mpcium-cli generate-peers` makes one for a new cluster)";
            findings.fail("peers", error, advice);
            return None;
        }
    };
    let Some(me) = peers.get(&options.name).copied() else {
        let names: Vec<&str> = peers.keys().map(String::as_str).collect();
        let found = format!("{PEERS_FILE} does not name {}; it names {}", options.name, names.join(", "));
        findings.fail("peers", found, "use one of these names, or the right file");
        return None;
    };
    findings.ok("peers", format!("{PEERS_FILE} names {} nodes, {} among them", peers.len(), options.name));
    let folder = Path::new(IDENTITY_FOLDER);
    match files::read_identities(folder, &peers) {
        Ok(known) => {
            findings.ok("identities", "there is one for every node, and ids and keys fit");
            private_key(folder, me, &known, options, findings);
            threshold(configured, me, known, findings);
        }
        Err(problems) => {
            for problem in problems.lines() {
                let advice = "copy identity/<node>_identity.json from the node that it belongs to";
                findings.fail("identities", problem, advice);
            }
        }
    }
    for name in peers.keys().filter(|name| **name != options.name) {
        let strays = [false, true].map(|encrypted| files::private_key_path(folder, name, encrypted));
        for stray in strays.iter().filter(|path| path.exists()) {
            findings.warn(
                "private key",
                format!("{} belongs to another node", stray.display()),
                "remove it here: whoever has it can speak as that node",
            );
        }
    }
    Some(Cluster { me, peers })
}

fn private_key(folder: &Path, me: NodeId, known: &[PeerInfo], options: &Doctor, findings: &mut Findings) {
    const CHECK: &str = "private key";
    let Some(me) = known.iter().find(|peer| peer.id == me) else { return };
    let path = files::private_key_path(folder, &me.name, options.passwords.decrypt_private_key);
    let plain = files::private_key_path(folder, &me.name, false);
    let sealed = files::private_key_path(folder, &me.name, true);
    for path in [&plain, &sealed].into_iter().filter(|path| path.exists()) {
        private(CHECK, path, 0o600, findings);
    }
    if !options.passwords.decrypt_private_key && !plain.exists() && sealed.exists() {
        findings.skip(CHECK, format!("{} is encrypted; --decrypt-private-key checks it", sealed.display()));
        return;
    }
    if plain.exists() && sealed.exists() {
        let found = format!("{} lies in clear beside its encrypted form", plain.display());
        findings.warn(CHECK, found, "remove the clear one if the node is started with --decrypt-private-key");
    }
    let passphrase = match passwords::identity(&options.passwords) {
        Ok(passphrase) => passphrase,
        Err(error) => {
            let advice =
                "give the passphrase as `mpcium start` gets it (--identity-password-file); the key stays as it is";
            findings.fail(CHECK, error, advice);
            return;
        }
    };
    match files::read_identity(folder, me, passphrase.as_ref()) {
        Ok(_) => findings.ok(CHECK, format!("{} belongs to this node's public identity", path.display())),
        Err(problem) => findings.fail(CHECK, problem.to_string(), key_advice(&problem, &me.name)),
    }
}

/// What to do about a private key that cannot be used. Nothing here may lead to a key's being overwritten that is good.
fn key_advice(problem: &KeyProblem, node: &str) -> String {
    match problem {
        KeyProblem::WrongPassphrase(_) => {
            "give the passphrase with which the key was encrypted (--identity-password-file); the key stays as it is"
                .to_owned()
        }
        KeyProblem::Unusable(_) => {
            "make the file readable for the node's user, or put this node's own key back; keep the file that is there"
                .to_owned()
        }
        KeyProblem::Missing(_) | KeyProblem::NoKey(_) => format!(
            "put this node's own key back from its copy; only if there is none anywhere, move both files of {node} in \
             identity/ away, make new ones (`mpcium-cli generate-identity -n {node}`), and copy the public one to all nodes"
        ),
    }
}

fn threshold(configured: &Configured, me: NodeId, known: Vec<PeerInfo>, findings: &mut Findings) {
    const CHECK: &str = "threshold";
    let Some(settings) = &configured.settings else { return };
    let nodes = known.len();
    match settings.for_core(me, known) {
        Ok((config, Some(Remark::Warning(text)))) => {
            findings.warn(CHECK, text, format!("say what is meant; now {} of {nodes} sign", config.threshold));
        }
        Ok((config, _)) => findings.ok(CHECK, format!("{} of {nodes} nodes sign together", config.threshold)),
        Err(error) => findings.fail(CHECK, error, "correct mpc_threshold, threshold_counts or the peers"),
    }
}

/// A configuration that holds a password is for its owner only.
pub(super) fn configuration_is_private(reader: &Reader, findings: &mut Findings) {
    if reader.holds_password() {
        private("configuration", reader.file(), 0o600, findings);
    }
}

/// Complains if others than its owner may use a file or folder.
pub(super) fn private(check: &'static str, path: &Path, mode: u32, findings: &mut Findings) {
    if let Some(found) = files::open_to_others(path) {
        findings.fail(check, found, format!("chmod {mode:o} {}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_advised_only_where_there_is_none_and_never_over_another() {
        let text = String::new;
        for (problem, new) in [
            (KeyProblem::Missing(text()), true),
            (KeyProblem::NoKey(text()), true),
            (KeyProblem::WrongPassphrase(text()), false),
            (KeyProblem::Unusable(text()), false),
        ] {
            let advice = key_advice(&problem, "node0");
            assert_eq!(advice.contains("generate-identity"), new, "{advice}");
            assert!(!advice.contains(" -f") && !advice.contains("overwrite"), "{advice}");
        }
    }
}

//! The cluster as its clients on the command line know it: which nodes there are, and whether an answer is theirs.
//!
//! Whoever may publish on NATS can put an answer there. A folder with `peers.json`, the nodes' public identities and a
//! configuration with `mpc_threshold`, as `generate-configs` makes and as every node has, is enough to tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use mpcium_client::{
    attest::{Attested, Attesters},
    query::WalletReply,
    result::Attestation,
};

use crate::{
    cli::Reach,
    config::{self, Counting},
    files,
};

/// The nodes whose answers count.
#[derive(Clone, Debug)]
pub struct Cluster {
    attesters: Attesters,
    /// By id, in lower case.
    names: BTreeMap<String, String>,
}

impl Cluster {
    /// Reads the files that the options name; `None` if they are not there and were not asked for.
    ///
    /// # Errors
    /// If a file cannot be read, does not fit the others, or was asked for and is missing.
    pub fn find(config: Option<&Path>, reach: &Reach) -> Result<Option<Self>, String> {
        let asked = reach.peers.is_some() || reach.identities.is_some();
        let peers = reach.peers.as_deref().unwrap_or(Path::new("peers.json"));
        let identities = reach.identities.as_deref().unwrap_or(Path::new("identity"));
        let there = peers.is_file() && identities.is_dir();
        if !(asked || there) {
            return Ok(None);
        }
        let known = files::read_peers(peers)?;
        let mut reader = match config::open(config) {
            Ok(reader) => reader,
            Err(_) if config.is_none() && !asked => return Ok(None),
            Err(problem) => return Err(problem),
        };
        let threshold = reader.number("mpc_threshold", 0, 1024).and_then(|number| u16::try_from(number).ok());
        let counting =
            reader.choice("threshold_counts", &["signers", "degree"]).and_then(|text| Counting::parse(&text));
        reader.finish().map_err(|errors| errors.to_string())?;
        let Some(threshold) = threshold else {
            return if asked {
                Err("--peers and --identities: the configuration needs mpc_threshold, which says how many nodes must \
                     have signed an answer"
                    .to_owned())
            } else {
                Ok(None)
            };
        };
        let signers = config::settle(threshold, counting, known.len())?.signers;
        let attesters =
            Attesters::read(peers, identities, usize::from(signers)).map_err(|problem| problem.to_string())?;
        let names = known.into_iter().map(|(name, id)| (id.to_string().to_lowercase(), name)).collect();
        Ok(Some(Self { attesters, names }))
    }

    /// Checks that enough nodes have signed a success, and says which have.
    ///
    /// # Errors
    /// If too few have: somebody else may have published it.
    pub fn check(&self, result: &impl Attested) -> Result<Vec<String>, String> {
        self.attesters.check(result).map_err(|problem| problem.to_string())?;
        Ok(self.signers(&result.attested_document(), result.attestations()))
    }

    /// Checks that a node of the cluster has given this reply, and that enough members have signed the wallet's keys;
    /// says which have.
    ///
    /// # Errors
    /// If not.
    pub fn check_reply(&self, reply: &WalletReply) -> Result<Vec<String>, String> {
        reply.check(&self.attesters).map_err(|problem| problem.to_string())?;
        Ok(self.signers(&reply.wallet_document(), &reply.wallet_attestations))
    }

    /// Whose signatures are good, by name.
    fn signers(&self, document: &[u8], attestations: &[Attestation]) -> Vec<String> {
        let good =
            |item: &&Attestation| self.attesters.check_document(document, std::slice::from_ref(*item), 1).is_ok();
        let names: BTreeSet<String> = attestations.iter().filter(good).map(|item| self.name(&item.node_id)).collect();
        names.into_iter().collect()
    }

    /// The name of a node; its id if it is none of the cluster.
    #[must_use]
    pub fn name(&self, id: &str) -> String {
        self.names.get(&id.to_lowercase()).cloned().unwrap_or_else(|| id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use mpcium_client::{KeygenResult, attest};
    use mpcium_core::protocol::EcdsaProtocol;

    use super::*;
    use crate::{
        cli::{Bus, Clients, GenerateConfigs},
        files::Algorithm,
        provision,
    };

    fn attestation(folder: &Path, id: &str, node: &str, result: &KeygenResult) -> Attestation {
        let text = std::fs::read_to_string(files::private_key_path(&folder.join(node).join("identity"), node, false))
            .expect("a private key");
        let mut seed = [0; 32];
        hex::decode_to_slice(&text.trim()[..64], &mut seed).expect("a seed");
        let signature = SigningKey::from_bytes(&seed).sign(&attest::signed_bytes(&result.attested_bytes()));
        Attestation { node_id: id.to_owned(), signature: signature.to_bytes().to_vec() }
    }

    #[test]
    fn generated_folders_tell_whose_answers_count() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path().join("dev");
        provision::generate_configs(&GenerateConfigs {
            output_dir: root.clone(),
            number: 3,
            threshold: None,
            ecdsa: EcdsaProtocol::Dkls23,
            clients: Clients::Existing,
            nats: "nats://127.0.0.1:1".to_owned(),
            nats_replicas: None,
            nats_prefix: None,
            consul: "127.0.0.1:1".to_owned(),
            consul_prefix: None,
        })
        .expect("generated");
        let reach = Reach {
            bus: Bus::default(),
            key_path: root.join("event_initiator.key"),
            key_algorithm: Algorithm::Ed25519,
            peers: Some(root.join("peers.json")),
            identities: Some(root.join("identity")),
            timeout: 1,
            json: false,
        };
        let cluster = Cluster::find(Some(&root.join("config.yaml")), &reach).expect("fits").expect("is there");
        let ids = files::read_peers(&root.join("peers.json")).expect("peers");
        let mut result = KeygenResult::success("w", &[1; 64], &[2; 32]);
        let signed = |node: &str| attestation(&root, &ids[node].to_string(), node, &result);
        let (first, second) = (signed("node2"), signed("node0"));
        result.attestations = Some(vec![first.clone(), first.clone()]);
        let refused = cluster.check(&result).expect_err("one node, twice");
        assert!(refused.contains("signed by 1 nodes, expected 2"), "{refused}");
        result.attestations = Some(vec![first, second]);
        assert_eq!(cluster.check(&result), Ok(vec!["node0".to_owned(), "node2".to_owned()]));
        result.eddsa_pub_key = Some(vec![3; 32]);
        assert!(cluster.check(&result).is_err(), "other keys than those that were signed");
    }

    #[test]
    fn what_was_asked_for_has_to_be_there() {
        let reach = Reach {
            bus: Bus::default(),
            key_path: "event_initiator.key".into(),
            key_algorithm: Algorithm::Ed25519,
            peers: Some("no/peers.json".into()),
            identities: None,
            timeout: 1,
            json: false,
        };
        assert!(Cluster::find(None, &reach).expect_err("missing").contains("no/peers.json"));
        assert!(Cluster::find(None, &Reach { peers: None, ..reach }).expect("not asked for").is_none());
    }
}

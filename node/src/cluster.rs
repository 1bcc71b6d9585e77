//! The cluster as its clients on the command line know it: which nodes there are, and whether an answer is theirs.
//!
//! Whoever may publish on NATS can put an answer there. A folder with `peers.json`, the nodes' public identities and a
//! configuration with `mpc_threshold`, as `generate-configs` makes and as every node has, is enough to tell.

use std::{collections::BTreeMap, path::Path};

use mpcium_client::{
    attest::{Attested, Attesters},
    query::WalletReply,
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
        let document = result.attested_document();
        let good = result
            .attestations()
            .iter()
            .filter(|item| self.attesters.check_document(&document, std::slice::from_ref(item), 1).is_ok());
        Ok(good.map(|item| self.name(&item.node_id)).collect())
    }

    /// Checks that a node of the cluster has given this reply, and that enough members have signed the wallet's keys.
    ///
    /// # Errors
    /// If not.
    pub fn check_reply(&self, reply: &WalletReply) -> Result<(), String> {
        reply.check(&self.attesters).map_err(|problem| problem.to_string())
    }

    /// The name of a node; its id if it is none of the cluster.
    #[must_use]
    pub fn name(&self, id: &str) -> String {
        self.names.get(&id.to_lowercase()).cloned().unwrap_or_else(|| id.to_owned())
    }
}

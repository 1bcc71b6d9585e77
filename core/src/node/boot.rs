//! A start: this incarnation becomes durable, what earlier ones knew is taken back, and doubts about the store make
//! the node unfit to promise, vote or sign.

use super::records::{self, Starts};
use crate::{
    Config, NodeId,
    context::{After, Context},
    link::{LinkConfig, Mark, Start},
    protocol::Suites,
    report::Report,
    store::{Batch, BootRecord},
};

/// Begins a start; the links begin once [`After::Boot`] comes.
pub(super) fn begin(ctx: &mut Context, boot: &BootRecord, starts: Starts) -> LinkConfig {
    ctx.unfit.extend(boot.damage.iter().cloned());
    let mut batch = Batch::default();
    records::put_start(&mut batch, ctx.incarnation, Start { found: Some(starts.commits), conceded: false });
    ctx.persist(batch, After::Boot);
    ctx.report(Report::Started {
        node: ctx.name(ctx.me),
        incarnation: ctx.incarnation.to_string(),
        nodes: ctx.config.peers.len(),
        threshold: ctx.config.threshold,
    });
    for what in ctx.unfit.clone() {
        ctx.report(Report::Alarm { what: format!("{what}; this node does not sign until that is mended") });
    }
    let of_its_identity = |(id, (key, mark)): (NodeId, ([u8; 32], Mark))| {
        let peer = ctx.config.peer(id).filter(|peer| *peer.key.as_bytes() == key)?;
        Some((peer.id, mark))
    };
    LinkConfig {
        remembered: starts.peers.into_iter().filter_map(of_its_identity).collect(),
        identity: ctx.identity.clone(),
        peers: ctx.config.peers.clone(),
        facets: facets(&ctx.config, &ctx.suites),
        incarnation: ctx.incarnation,
        found: starts.commits,
        commits: starts.commits,
        history: starts.own,
        seed: ctx.random_bytes(),
    }
}

/// What must be the same at all nodes, as names and values for [`LinkConfig::facets`]. Only hashes of the values travel.
#[must_use]
pub fn facets(config: &Config, suites: &Suites) -> Vec<(String, String)> {
    let peers: Vec<String> =
        config.peers.iter().map(|p| format!("{} {}", p.id, hex::encode(p.key.as_bytes()))).collect();
    vec![
        ("number of nodes".to_owned(), config.peers.len().to_string()),
        ("threshold".to_owned(), config.threshold.to_string()),
        ("peers".to_owned(), peers.join(", ")),
        ("chain code".to_owned(), config.chain_code.map(hex::encode).unwrap_or_default()),
        ("initiator".to_owned(), hex::encode(config.initiator.to_bytes())),
        ("authorizers".to_owned(), hex::encode(config.authorization.to_bytes())),
        ("require_full_signature".to_owned(), config.authorization.full_signature_required.to_string()),
        ("key generation protocol".to_owned(), suites.keygen.name().to_owned()),
        ("ECDSA protocol".to_owned(), suites.secp256k1.name().to_owned()),
        ("EdDSA protocol".to_owned(), suites.ed25519.name().to_owned()),
    ]
}

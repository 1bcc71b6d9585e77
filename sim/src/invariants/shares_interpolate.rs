//! The shares of a certified epoch that are durable interpolate to its public key, and each belongs to its public
//! share; and every member still has its share, except where a disk was rolled back.

use std::{collections::BTreeSet, sync::Arc};

use mpcium_core::{
    protocol::{Curve, KeyShare},
    store::Keyspace,
    wallet::{CertificateRecord, SessionId, ShareRecord},
};

use super::{Fact, Invariant};
use crate::{
    ideal, records,
    world::{Machine, World},
};

/// Positions and secrets of shares that are put together.
type Quorum = Vec<(u64, Vec<u8>)>;

/// What has been computed once need not be computed again: the same shares belong to the same key for ever.
#[derive(Default)]
pub(super) struct SharesInterpolate {
    /// Secrets that were found to belong to their public share.
    fitting: BTreeSet<(Curve, Vec<u8>, Vec<u8>)>,
    /// Positions and secrets of quorums that were found to interpolate to a public key.
    interpolated: BTreeSet<(Curve, Vec<u8>, Quorum)>,
}

/// The shares of one session that a machine holds durably.
pub(super) fn shares(machine: &Machine, session: SessionId) -> Vec<Arc<ShareRecord>> {
    machine
        .disk
        .records(Keyspace::Shares)
        .filter_map(|(_, value)| records::read::<ShareRecord>(value.expose()).ok())
        .filter(|record| record.session == session)
        .collect()
}

impl Invariant for SharesInterpolate {
    fn name(&self) -> &'static str {
        "shares_interpolate"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        // When an epoch is decided somewhere, and once more at the end for everything that was decided.
        let certificates: Vec<Arc<CertificateRecord>> = match fact {
            Fact::Durable { batch, .. } => batch
                .writes
                .iter()
                .filter(|write| write.keyspace == Keyspace::Certificates)
                .filter_map(|write| records::read(write.value.as_ref()?.expose()).ok())
                .collect(),
            Fact::End => world
                .machines
                .iter()
                .flat_map(|machine| machine.disk.records(Keyspace::Certificates))
                .filter_map(|(_, value)| records::read(value.expose()).ok())
                .collect(),
            _ => return Ok(()),
        };
        certificates.iter().try_for_each(|record| self.decided(world, record))
    }
}

impl SharesInterpolate {
    fn decided(&mut self, world: &World, record: &CertificateRecord) -> Result<(), String> {
        let certificate = &record.certificate;
        let facts = certificate.facts();
        let mut held: Vec<Arc<ShareRecord>> = Vec::new();
        for (node, machine) in world.machines.iter().enumerate() {
            let shares = shares(machine, facts.session);
            if shares.len() != facts.curves.len() && !machine.rolled_back {
                return Err(format!(
                    "{} epoch {} is decided, but node{node} holds {} of {} shares",
                    facts.wallet,
                    facts.epoch,
                    shares.len(),
                    facts.curves.len()
                ));
            }
            held.extend(shares);
        }
        for (curve, public_key) in facts.curves.iter().zip(&certificate.value.session.public_keys) {
            let of_curve: Vec<&KeyShare> =
                held.iter().map(|record| &record.share).filter(|share| share.curve == *curve).collect();
            self.interpolates(*curve, &of_curve, public_key, facts.committee.threshold)
                .map_err(|what| format!("{} epoch {}: {what}", facts.wallet, facts.epoch))?;
        }
        Ok(())
    }

    fn interpolates(
        &mut self,
        curve: Curve,
        shares: &[&KeyShare],
        public_key: &[u8],
        threshold: u16,
    ) -> Result<(), String> {
        for share in shares {
            if share.public_key != public_key {
                return Err(format!("the {curve:?} share at position {} is of another key", share.index));
            }
            let public_share = share.public_shares.get(usize::from(share.index)).cloned().unwrap_or_default();
            let pair = (curve, share.secret.expose().to_vec(), public_share);
            if self.fitting.contains(&pair) {
                continue;
            }
            if ideal::public_key_of(curve, &pair.1).as_ref() == Some(&pair.2) {
                self.fitting.insert(pair);
            } else {
                return Err(format!(
                    "the {curve:?} share at position {} does not belong to its public share",
                    share.index
                ));
            }
        }
        let quorum: Vec<(u64, &[u8])> = shares
            .iter()
            .take(usize::from(threshold))
            .map(|share| (u64::from(share.index) + 1, share.secret.expose()))
            .collect();
        if quorum.len() < usize::from(threshold) {
            return Err(format!("only {} {curve:?} shares are left of {threshold} that are needed", quorum.len()));
        }
        let known = (curve, public_key.to_vec(), quorum.iter().map(|(x, secret)| (*x, secret.to_vec())).collect());
        if self.interpolated.contains(&known) {
            return Ok(());
        }
        if ideal::interpolated_public_key(curve, &quorum).as_deref() != Some(public_key) {
            return Err(format!("the {curve:?} shares do not interpolate to the public key"));
        }
        self.interpolated.insert(known);
        Ok(())
    }
}

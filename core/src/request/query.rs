//! Queries for wallets: answered from the certificate, or with "not found" once `n − t + 1` members that are up to date
//! agree. Nothing is stored, nothing is promised, and a query that cannot be answered in time is answered with that.

use std::collections::BTreeMap;

use mpcium_client::{
    query::{WalletQuery, WalletReply},
    result::{ErrorCode, ResultType},
};

use super::attestation;
use crate::{
    Time, WallTime,
    bucket::Bucket,
    context::Context,
    input::QueryId,
    limits,
    node::Table,
    output::Output,
    protocol::Curve,
    tags,
    wallet::cache::{Inquiry, Lookup, Wallet, Wallets},
};

struct Open {
    query: WalletQuery,
    taken: Time,
}

impl Open {
    /// When it is answered with whatever is known.
    fn until(&self) -> Time {
        self.taken.after(limits::QUERY_WAIT)
    }
}

/// The queries that this node has not answered yet.
pub(crate) struct Queries {
    open: BTreeMap<QueryId, Open>,
    /// How many may be looked at now, whoever sent them.
    checks: Bucket,
    /// How many of the initiator's may be answered now.
    answers: Bucket,
}

impl Queries {
    pub fn new(now: Time) -> Self {
        let a_second = |number| Bucket::new(now, number, number);
        let (checks, answers) = (a_second(limits::QUERIES_CHECKED_PER_SECOND), a_second(limits::QUERIES_PER_SECOND));
        Self { open: BTreeMap::new(), checks, answers }
    }

    pub fn tables(&self) -> [Table; 1] {
        [("queries for wallets", self.open.len(), Some(limits::QUERIES_OPEN_MAX))]
    }

    /// Takes a query. What is no query of the initiator's is answered as such, up to a number per second.
    pub fn take(&mut self, ctx: &mut Context, wallets: &mut Wallets, id: QueryId, body: &[u8]) {
        if !self.checks.admits(ctx.now.time) {
            return;
        }
        let query = match WalletQuery::from_json(body) {
            Ok(query) => query,
            Err(error) => {
                let reply = WalletReply::error(&WalletQuery::default(), ErrorCode::UnmarshalFailure, error.to_string());
                return answer(ctx, id, reply);
            }
        };
        let refusal = if let Err(invalid) = query.validate() {
            Some((ErrorCode::MsgValidation, invalid.to_string()))
        } else if let Err(error) = query.verify(&ctx.config.initiator) {
            Some((error.code(), error.reason()))
        } else if ctx.now.wall > WallTime(query.expires_at).after(ctx.config.clock_skew) {
            Some((ErrorCode::SessionStale, format!("expires_at: the query expired at {}", query.expires_at)))
        } else if self.open.len() >= limits::QUERIES_OPEN_MAX || !self.answers.admits(ctx.now.time) {
            Some((ErrorCode::ResourceExhausted, "too many queries at once; ask again in a second".to_owned()))
        } else {
            None
        };
        if let Some((code, reason)) = refusal {
            let reply = WalletReply::error(&query, code, reason);
            return answer(ctx, id, reply);
        }
        self.open.insert(id, Open { query, taken: ctx.now.time });
        self.drive_one(ctx, wallets, id);
    }

    /// Something is known of a wallet now.
    pub fn on_wallet(&mut self, ctx: &mut Context, wallets: &mut Wallets, wallet: &str) {
        let ids: Vec<QueryId> =
            self.open.iter().filter(|(_, open)| open.query.wallet_id == wallet).map(|(id, _)| *id).collect();
        for id in ids {
            self.drive_one(ctx, wallets, id);
        }
    }

    /// Answers those that have waited too long.
    pub fn on_wake(&mut self, ctx: &mut Context, wallets: &mut Wallets) {
        let now = ctx.now.time;
        let due: Vec<QueryId> = self.open.iter().filter(|(_, open)| now >= open.until()).map(|(id, _)| *id).collect();
        for id in due {
            self.drive_one(ctx, wallets, id);
        }
    }

    pub fn wake_at(&self) -> Option<Time> {
        self.open.values().map(Open::until).min()
    }

    fn drive_one(&mut self, ctx: &mut Context, wallets: &mut Wallets, id: QueryId) {
        let Some(open) = self.open.get(&id) else { return };
        let (query, late) = (&open.query, ctx.now.time >= open.until());
        let reply = match wallets.lookup(ctx, &query.wallet_id) {
            Lookup::Found(wallet) => found(query, &wallet),
            Lookup::Loading if !late => return,
            Lookup::Loading => WalletReply::error(query, ErrorCode::StorageRead, "the store did not answer in time"),
            Lookup::Absent => match wallets.inquire(ctx, &query.wallet_id, open.taken) {
                Inquiry::Unknown => {
                    let reason = format!("wallet {} does not exist", query.wallet_id);
                    WalletReply::error(query, ErrorCode::KeyNotFound, reason)
                }
                Inquiry::Asking(_) if !late => return,
                Inquiry::Asking(whom) => {
                    let names = ctx.names(whom).join(", ");
                    let reason = format!("too few nodes say whether they know the wallet; missing: {names}");
                    WalletReply::error(query, ErrorCode::ClusterNotReady, reason)
                }
            },
        };
        self.open.remove(&id);
        answer(ctx, id, reply);
    }
}

fn found(query: &WalletQuery, wallet: &Wallet) -> WalletReply {
    if wallet.frozen {
        let reason = "two certificates exist for the wallet's epoch; its keys are stopped";
        return WalletReply::error(query, ErrorCode::DataCorruption, reason);
    }
    let facts = wallet.certificate.facts();
    let ecdsa = wallet
        .public_key(Curve::Secp256k1)
        .and_then(|key| mpcium_client::derive::secp256k1_coordinates(key.try_into().ok()?).ok());
    WalletReply {
        wallet_id: query.wallet_id.clone(),
        request_id: query.request_id.clone(),
        ecdsa_pub_key: ecdsa.map(|key| key.to_vec()),
        eddsa_pub_key: wallet.public_key(Curve::Ed25519).map(<[u8]>::to_vec),
        threshold: facts.committee.threshold.into(),
        epoch: facts.epoch,
        committee: facts.committee.members.iter().map(ToString::to_string).collect(),
        result_type: ResultType::Success,
        wallet_attestations: wallet
            .certificate
            .value
            .attestations()
            .map(|(node, signature)| attestation((node, signature.0.to_vec())))
            .collect(),
        ..WalletReply::default()
    }
}

fn answer(ctx: &mut Context, id: QueryId, mut reply: WalletReply) {
    let signature = ctx.identity.sign(tags::RESULT, &reply.attested_bytes()).to_vec();
    reply.attestations = Some(vec![attestation((ctx.me, signature))]);
    ctx.output(Output::Reply { query: id, body: reply.to_json() });
}

//! A request that runs nothing: what it waits for, and what comes next.

use mpcium_client::result::ErrorCode;

use super::{Active, Coordinator, Name, Parts, Phase, attempts, duplicate_reason};
use crate::{
    context::Context,
    planted::{Bug, planted},
    report::Report,
    request::{
        ledger::Lookup,
        signing::{message_to_sign, signing_key},
    },
    wallet::cache::{self, Wallet},
};

impl Coordinator {
    pub(super) fn drive_waiting(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name) {
        let Some(active) = self.active.get_mut(&name) else { return };
        let request = &active.request;
        let wallet = match parts.wallets.lookup(ctx, request.wallet()) {
            cache::Lookup::Loading => return,
            cache::Lookup::Absent => None,
            cache::Lookup::Found(wallet) => Some(wallet),
        };
        let held = match parts.ledger.result(ctx, request.key) {
            Lookup::Loading => return,
            Lookup::Absent => None,
            Lookup::Held(held) => Some(held),
        };
        if matches!(active.phase, Phase::Waiting { until: Some(until) } if ctx.now.time < until) {
            return;
        }
        if let Some(late) = active.late(ctx) {
            let why = late.expired.clone().unwrap_or_else(|| given_up(active));
            self.decide(ctx, parts, name, Some(why));
            return;
        }
        if ctx.now.wall > active.schedule.deadline {
            return;
        }
        if let Some(held) = held {
            if held.signed.payload != request.payload && !planted(Bug::PayloadUnchecked) {
                let reason = duplicate_reason(request);
                self.decide(ctx, parts, name, Some((ErrorCode::SessionDuplicate, reason)));
                return;
            }
            if wallet.is_some() {
                self.decide(ctx, parts, name, None);
                return;
            }
        }
        let Some(wallet) = wallet else {
            match parts.wallets.inquire(ctx, request.wallet(), active.schedule.taken) {
                cache::Inquiry::Unknown => {
                    let reason = format!("wallet {} does not exist", request.wallet());
                    self.decide(ctx, parts, name, Some((ErrorCode::KeyNotFound, reason)));
                }
                cache::Inquiry::Asking(whom) => {
                    let what = format!("{} to say whether they know the wallet", ctx.names(whom).join(", "));
                    wait(ctx, active, what);
                }
            }
            return;
        };
        match unsignable(ctx, active, &wallet) {
            Some(why) => self.decide(ctx, parts, name, Some(why)),
            None => self.begin_attempt(ctx, parts, name, &wallet),
        }
    }

    /// Proposes, if there is a place, and everything that an attempt needs.
    fn begin_attempt(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name, wallet: &Wallet) {
        let running = self.running();
        let Some(active) = self.active.get_mut(&name) else { return };
        if wallet.frozen {
            wait(ctx, active, "the wallet's resharing to be decided".to_owned());
            return;
        }
        let curve = active.request.curve();
        let suite = ctx.suites.signing(curve).clone();
        let heavy = suite.pace(wallet.committee().threshold).heavy;
        if (running >= ctx.config.max_concurrent_signing.max(1) && !planted(Bug::PlacesUnlimited))
            || (heavy && parts.sessions.heavy() >= ctx.config.workers.max(1))
        {
            wait(ctx, active, "a free place among the running signatures".to_owned());
            return;
        }
        let needs_auxiliary = suite.auxiliary().is_some();
        let chosen = match attempts::choose_presigned(ctx, parts.presignatures, active, wallet) {
            Some(chosen) => Ok(chosen),
            None => attempts::choose(ctx, parts.auxiliary, active, wallet, needs_auxiliary, curve, &self.chosen),
        };
        match chosen {
            Err(missing) => wait(ctx, active, missing),
            Ok(chosen) => {
                active.presigned |= chosen.presignature.is_some();
                for node in &chosen.participants {
                    *self.chosen.entry(*node).or_default() += 1;
                }
                self.propose(ctx, parts.deliveries, name, wallet, chosen, curve);
            }
        }
    }
}

/// Why a request can never be signed with this wallet.
fn unsignable(ctx: &Context, active: &Active, wallet: &Wallet) -> Option<(ErrorCode, String)> {
    let curve = active.request.curve();
    let Some(public_key) = wallet.public_key(curve) else {
        return Some((ErrorCode::KeyNotFound, "the wallet has no key on this curve".to_owned()));
    };
    let path = &active.request.signing().derivation_path;
    signing_key(curve, public_key, ctx.config.chain_code.as_ref(), path)
        .and_then(|_| message_to_sign(active.request.signing()))
        .err()
        .map(|reason| (ErrorCode::MsgValidation, reason))
}

/// What the client is told when nothing came of its request in time.
fn given_up(active: &Active) -> (ErrorCode, String) {
    let mut reason = "the request's deadline has passed".to_owned();
    if !active.last_failure.is_empty() {
        reason.push_str("; last attempt: ");
        reason.push_str(&active.last_failure);
    } else if !active.waiting_for.is_empty() {
        reason.push_str("; it waited for ");
        reason.push_str(&active.waiting_for);
    }
    (ErrorCode::NetworkTimeout, reason)
}

fn wait(ctx: &mut Context, active: &mut Active, what: String) {
    active.phase = Phase::Waiting { until: None };
    if active.waiting_for != what {
        ctx.report(Report::RequestWaits {
            kind: "sign",
            wallet: active.request.wallet().to_owned(),
            id: active.request.id().to_owned(),
            waiting_for: what.clone(),
        });
        active.waiting_for = what;
    }
}

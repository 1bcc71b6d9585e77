//! A ballot without a signature: what the members hold is stored again and answered, and what they leave open may be
//! given up with an error.

use mpcium_client::result::ErrorCode;

use super::{Coordinator, Name, Parts, Phase, duplicate_reason, error};
use crate::{
    NodeId,
    context::Context,
    input::RequestKind,
    limits,
    planted::{Bug, planted},
    request::{
        answers::{Attempt, Report, Value, Verdict, asking::Asking, decision::Bound, is_error_for},
        ledger::RequestKey,
        signing::{are_attested, verifies},
    },
    session::Participant,
    wallet::{activation::own_committee, cache},
};

impl Coordinator {
    /// Begins a ballot. `own`: what those deliveries are told that the members leave open.
    pub(super) fn decide(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        name: Name,
        own: Option<(ErrorCode, String)>,
    ) {
        let Some(active) = self.active.get_mut(&name) else { return };
        let acceptors = match parts.wallets.lookup(ctx, active.request.wallet()) {
            cache::Lookup::Found(wallet) => wallet.committee().members.clone(),
            // Nobody can have signed with a wallet that is unknown here and that did not become known in time, unless
            // it exists elsewhere: then its members are among the configured nodes.
            _ => own_committee(ctx).members,
        };
        let ballot = ctx.next_attempt(active.number);
        active.number = ballot.number;
        active.waiting_for = "the members to say what they hold".to_owned();
        let names = parts.deliveries.keys(active.told_now(ctx));
        let asking = Asking::new(ctx, ballot, active.request.payload, acceptors, names);
        active.phase = Phase::Deciding { asking, own, give_up: ctx.now.time.after(limits::QUORUM_WAIT) };
        self.drive_deciding(ctx, parts, name);
    }

    pub(super) fn drive_deciding(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name) {
        let Some(active) = self.active.get_mut(&name) else { return };
        let late = active.schedule.is_late(ctx);
        let Phase::Deciding { asking, own, give_up } = &mut active.phase else { return };
        if asking.decision.is_open() {
            let mut value = Value::default();
            for delivery in asking.decision.deliveries() {
                let verdict = match (asking.decision.bound(delivery), &own) {
                    (Bound::Error(body), _) => Verdict::Error(body),
                    (Bound::Success(Some(signed)), _) => {
                        value.result = Some(signed);
                        Verdict::Success
                    }
                    (Bound::Taken, _) => {
                        let reason = duplicate_reason(&active.request);
                        Verdict::Error(error(&active.request, ErrorCode::SessionDuplicate, &reason).attested(ctx))
                    }
                    (Bound::Free, Some((code, reason))) => {
                        Verdict::Error(error(&active.request, *code, reason).attested(ctx))
                    }
                    // Nobody is believed to have a success without the result.
                    (Bound::Free, None) | (Bound::Success(None), _) => continue,
                };
                value.verdicts.insert(*delivery, verdict);
            }
            if value.verdicts.is_empty() {
                self.fail(ctx, parts, name, "the members hold nothing that answers the request");
                return;
            }
            if planted(Bug::ErrorNotRemembered) && value.result.is_none() {
                self.answer(ctx, parts, name, &value);
                return;
            }
            *give_up = ctx.now.time.after(limits::QUORUM_WAIT);
            asking.choose(ctx, RequestKind::Sign, &active.body, value);
        } else if ctx.now.time >= *give_up {
            if late {
                // Without a quorum nobody may say that there is no result: even a request that came here first may since
                // have been given to somebody else, who can reach one.
                self.release(ctx, parts.deliveries, name, limits::RETRY_MAX);
            } else {
                self.fail(ctx, parts, name, "too few members answer");
            }
        } else if let Some(number) = asking.outbid(ctx) {
            active.number = active.number.max(number);
            self.fail(ctx, parts, name, "another node coordinates the same request");
        } else {
            asking.ask(ctx, RequestKind::Sign, &active.body);
        }
    }

    /// The request that a member's answer to a ballot is about.
    fn deciding(&mut self, key: RequestKey, ballot: Attempt) -> Option<Name> {
        let mut names = self.active.range((key, [0; 32])..=(key, [u8::MAX; 32]));
        names.find_map(|(name, active)| match &active.phase {
            Phase::Deciding { asking, .. } if asking.decision.ballot() == ballot => Some(*name),
            _ => None,
        })
    }

    pub fn on_promised(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (key, ballot): (RequestKey, Attempt),
        report: Report,
    ) {
        let Some(name) = self.deciding(key, ballot) else { return };
        let Some(active) = self.active.get_mut(&name) else { return };
        let (wallet_id, id) = (active.request.wallet(), active.request.id());
        let honest = report.verdicts.values().all(|(_, verdict)| match verdict {
            Verdict::Success => report.result.is_some(),
            Verdict::Error(body) => is_error_for(RequestKind::Sign, wallet_id, id, body),
        });
        if !honest {
            ctx.blame(from.0);
            return;
        }
        if let Some((_, signed)) = &report.result {
            if signed.payload != active.request.payload && !planted(Bug::PayloadUnchecked) {
                let Phase::Deciding { own, .. } = &active.phase else { return };
                // Whoever is about to say an error says this one then.
                if own.is_none() {
                    return self.on_other_payload(ctx, parts, name, from.0);
                }
            } else {
                let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, wallet_id) else {
                    // The promise comes again, once somebody has shown the certificate.
                    let _ = parts.wallets.inquire(ctx, wallet_id, active.schedule.taken);
                    return;
                };
                if !verifies(ctx, &wallet, &active.request, &signed.signature)
                    || !are_attested(ctx, wallet.committee(), &active.request, signed)
                {
                    ctx.blame(from.0);
                    return;
                }
            }
        }
        let Phase::Deciding { asking, .. } = &mut active.phase else { return };
        let late = asking.decision.is_storing();
        asking.decision.on_promise(from.0, from.1, report);
        if late {
            asking.ask_late(ctx, RequestKind::Sign, &active.body, from.0);
        } else {
            self.drive_deciding(ctx, parts, name);
        }
    }

    /// A member has stored what was chosen.
    pub fn on_decision_stored(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (key, ballot): (RequestKey, Attempt),
    ) {
        let Some(name) = self.deciding(key, ballot) else { return };
        let Some(Phase::Deciding { asking, .. }) = self.active.get_mut(&name).map(|active| &mut active.phase) else {
            return;
        };
        if let Some(value) = asking.decision.on_stored(from.0, from.1).cloned() {
            self.answer(ctx, parts, name, &value);
        }
    }

    /// A member promised a higher ballot.
    pub fn on_rejected(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        (key, ballot): (RequestKey, Attempt),
        higher: Attempt,
    ) {
        let Some(name) = self.deciding(key, ballot) else { return };
        let Some(active) = self.active.get_mut(&name) else { return };
        let Phase::Deciding { asking, .. } = &mut active.phase else { return };
        if higher.is_plausible(ctx)
            && let Some(number) = asking.decision.on_rejected(from, higher.number)
        {
            active.number = active.number.max(number);
            self.fail(ctx, parts, name, "another node coordinates the same request");
        }
    }
}

//! This node as an acceptor: promises ballots, says what it holds, and stores what was chosen.

use std::collections::BTreeMap;

use super::{After, Attempt, DeliveryKey, Message, Report, Value, Verdict, is_error_for, promises};
use crate::{
    NodeId, Time, WallTime,
    bucket::Bucket,
    context::{After as ContextAfter, Context},
    input::RequestKind,
    limits,
    link::Lane,
    message::Message as Envelope,
    node::Table,
    planted::{Bug, planted},
    report::Report as Fact,
    request::{
        admission::{Admitted, admit},
        ledger::{Ledger, RequestKey},
        signing::{are_attested, verifies},
    },
    session::Participant,
    store::Batch,
    wallet::{
        activation,
        cache::{Lookup, Wallets},
    },
};

/// Something that is asked and waits for records.
struct Incoming {
    from: Participant,
    kind: RequestKind,
    request: Admitted,
    what: What,
    since: Time,
}

enum What {
    Promise(Vec<DeliveryKey>),
    Store(Value),
}

impl What {
    fn succeeds(&self) -> bool {
        matches!(self, Self::Store(value) if value.succeeds())
    }
}

/// The parts of the node that an acceptor needs.
pub(crate) struct Parts<'a> {
    pub ledger: &'a mut Ledger,
    pub wallets: &'a mut Wallets,
}

/// This node as an acceptor.
#[derive(Default)]
pub(crate) struct Acceptor {
    pub promises: promises::Promises,
    incoming: BTreeMap<(Attempt, RequestKey, bool), Incoming>,
    meters: BTreeMap<NodeId, Meter>,
}

/// How much of this node a peer takes up by ballots without a signature. Nothing is given back: whether they came to
/// something cannot be seen here.
struct Meter {
    ballots: Bucket,
    /// Of room in the ledger.
    verdicts: Bucket,
    told: Option<Time>,
}

impl Meter {
    fn new(now: Time) -> Self {
        Self {
            ballots: Bucket::new(now, limits::BALLOTS_PER_SECOND, limits::BALLOTS_BURST),
            verdicts: Bucket::new(now, limits::VERDICT_UNITS_PER_SECOND, limits::VERDICT_UNITS_BURST),
            told: None,
        }
    }
}

impl Acceptor {
    /// Of a life that follows others, which may have promised numbers up to this one.
    pub fn after(forgotten: u64) -> Self {
        Self { promises: promises::Promises::after(forgotten), ..Self::default() }
    }

    pub fn tables(&self) -> [Table; 2] {
        [
            ("promises", self.promises.len(), Some(limits::PROMISES_MAX)),
            ("ballots that wait for records", self.incoming.len(), Some(limits::REQUESTS_MAX)),
        ]
    }

    pub fn on_prepare(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (kind, document): (RequestKind, &[u8]),
        ballot: Attempt,
        deliveries: Vec<DeliveryKey>,
    ) {
        if deliveries.len() <= limits::PROPOSAL_DELIVERIES_MAX {
            self.take(ctx, parts, from, (kind, document), ballot, What::Promise(deliveries));
        }
    }

    pub fn on_store(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (kind, document): (RequestKind, &[u8]),
        ballot: Attempt,
        value: Value,
    ) {
        self.take(ctx, parts, from, (kind, document), ballot, What::Store(value));
    }

    fn take(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (kind, document): (RequestKind, &[u8]),
        ballot: Attempt,
        what: What,
    ) {
        // A node that lacks records promises nothing. Whoever is not answered asks again.
        if !ctx.unfit.is_empty() || !ballot.is_of(ctx, from) || self.incoming.len() >= limits::REQUESTS_MAX {
            return;
        }
        let Ok(request) = admit(ctx, kind, document) else { return };
        let name = (ballot, request.key, matches!(what, What::Store(_)));
        self.incoming.insert(name, Incoming { from, kind, request, what, since: ctx.now.time });
        self.drive_one(ctx, parts, name);
    }

    /// Records of a request were read.
    pub fn on_ledger_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        self.drive(ctx, parts, |incoming| incoming.request.key == key);
    }

    /// Records of a wallet were read, or have changed.
    pub fn on_wallet(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        self.drive(ctx, parts, |incoming| incoming.request.wallet() == wallet);
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, which: impl Fn(&Incoming) -> bool) {
        let names: Vec<_> = self.incoming.iter().filter(|(_, i)| which(i)).map(|(name, _)| *name).collect();
        for name in names {
            self.drive_one(ctx, parts, name);
        }
    }

    fn drive_one(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: (Attempt, RequestKey, bool)) {
        let Some(incoming) = self.incoming.get(&name) else { return };
        let loaded = match parts.wallets.lookup(ctx, incoming.request.wallet()) {
            Lookup::Loading => false,
            // Nobody is told that a wallet exists before a majority has its certificate.
            Lookup::Absent => incoming.kind != RequestKind::Keygen || !incoming.what.succeeds(),
            Lookup::Found(_) => true,
        };
        let held = match &incoming.what {
            What::Promise(deliveries) => parts.ledger.report(ctx, incoming.request.key, deliveries),
            What::Store(_) => Some(Report::default()),
        };
        let (true, Some(held)) = (loaded, held) else { return };
        let Some(incoming) = self.incoming.remove(&name) else { return };
        // The sender's link may have changed while records were read, and what this node knows of its store.
        if ctx.incarnation_of(incoming.from.0) != Some(incoming.from.1) || !ctx.unfit.is_empty() {
            return;
        }
        match incoming.what {
            What::Promise(ref deliveries) => self.promise(ctx, parts, &incoming, name.0, deliveries, held),
            What::Store(ref value) => self.store(ctx, parts, &incoming, name.0, value),
        }
    }

    fn promise(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        incoming: &Incoming,
        ballot: Attempt,
        deliveries: &[DeliveryKey],
        mut held: Report,
    ) {
        let Incoming { from, kind, request, .. } = incoming;
        let asked = promises::Asked {
            key: request.key,
            payload: request.payload,
            ballot,
            deliveries,
            until: last_moment(ctx, *kind),
            to_sign: false,
        };
        let key = request.key;
        let again = self.promises.ballot(&key) == Some(ballot);
        let affords = again || self.affords(ctx, from.0, |meter, now| meter.ballots.admits(now));
        // Whoever has to wait asks again.
        if !affords || !self.promises.affords(ctx.now.time, &asked, ctx.me) {
            return;
        }
        match self.promises.promise(ctx.now.wall, &asked, &held) {
            Ok(()) => {
                // Whoever is told of a new wallet is shown it.
                if *kind == RequestKind::Keygen
                    && let Lookup::Found(wallet) = parts.wallets.lookup(ctx, request.wallet())
                {
                    activation::send(
                        ctx,
                        from.0,
                        activation::Message::Certificate(Box::new(wallet.certificate.clone())),
                    );
                }
                if planted(Bug::VerdictForgotten) {
                    held.verdicts.clear();
                }
                send(ctx, *from, Message::Promised { key, ballot, report: held });
            }
            Err(promises::Refusal::Higher(higher)) => send(ctx, *from, Message::Rejected { key, ballot, higher }),
            // It is asked again.
            Err(promises::Refusal::Full | promises::Refusal::OtherPayload) => {}
        }
    }

    fn store(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, incoming: &Incoming, ballot: Attempt, value: &Value) {
        let Incoming { from, request, .. } = incoming;
        let key = request.key;
        if !self.promises.allows(&key, ballot, value.verdicts.keys()) {
            // A promise that was lost is given anew when it is asked for.
            if let Some(higher) = self.promises.ballot(&key).filter(|promised| *promised > ballot) {
                send(ctx, *from, Message::Rejected { key, ballot, higher });
            }
            return;
        }
        match may_be_stored(ctx, parts.wallets, incoming, value) {
            Ok(true) => {}
            Ok(false) => return,
            Err(what) => {
                ctx.blame(from.0);
                ctx.report(Fact::Ignored { peer: ctx.name(from.0), what: what.to_owned() });
                return;
            }
        }
        let units = value.verdicts.values().map(|verdict| match verdict {
            Verdict::Success => 1,
            Verdict::Error(body) => 1 + (body.len() / limits::VERDICT_UNIT) as u64,
        });
        let units = units.sum();
        // It is asked again.
        if !self.affords(ctx, from.0, |meter, now| meter.verdicts.admits_many(now, units)) {
            return;
        }
        let mut batch = Batch::default();
        if let Some(signed) = &value.result {
            parts.ledger.hold(&mut batch, ctx.now.wall, key, ballot, signed.clone());
        }
        for (delivery, verdict) in &value.verdicts {
            parts.ledger.rule(&mut batch, key, *delivery, ballot, verdict.clone());
        }
        let after = After::Stored { key, ballot, to: *from };
        if planted(Bug::VerdictNotDurable) {
            ctx.persist(batch, ContextAfter::Nothing);
            return Self::on_persisted(ctx, after);
        }
        ctx.persist(batch, ContextAfter::Answers(after));
    }

    /// Whether a peer may take up more of this node; what it is refused is told now and then.
    fn affords(&mut self, ctx: &mut Context, peer: NodeId, pay: impl FnOnce(&mut Meter, Time) -> bool) -> bool {
        let now = ctx.now.time;
        if peer == ctx.me {
            return true;
        }
        let meter = self.meters.entry(peer).or_insert_with(|| Meter::new(now));
        let affords = pay(meter, now);
        if !affords && meter.told.is_none_or(|told| now >= told.after(limits::TROUBLE_INTERVAL)) {
            meter.told = Some(now);
            let what = "more ballots, or more to be stored in them, than one node may ask for".to_owned();
            ctx.report(Fact::Ignored { peer: ctx.name(peer), what });
        }
        affords
    }

    /// A value is durable: say so, to the life that asked.
    pub fn on_persisted(ctx: &mut Context, after: After) {
        let After::Stored { key, ballot, to } = after;
        send(ctx, to, Message::Stored { key, ballot });
    }

    pub fn on_link_down(&mut self, peer: Participant) {
        self.incoming.retain(|_, incoming| incoming.from != peer);
    }

    /// A record that the store never returned would be a bug of the store; what waits for it must not stay for ever.
    pub fn on_wake(&mut self, ctx: &Context) {
        let now = ctx.now.time;
        self.incoming.retain(|_, incoming| now < incoming.since.after(limits::EARLY_WAIT));
    }

    pub fn wake_at(&self) -> Option<Time> {
        self.incoming.values().map(|incoming| incoming.since.after(limits::EARLY_WAIT)).min()
    }
}

/// Until when a request that is asked about now may be worked for.
fn last_moment(ctx: &Context, kind: RequestKind) -> WallTime {
    let deadline = match kind {
        RequestKind::Sign => ctx.config.signing_deadline,
        RequestKind::Keygen | RequestKind::Reshare => ctx.config.keygen_deadline,
    };
    ctx.now.wall.after(deadline + ctx.config.clock_skew)
}

/// Whether a value answers the request; `false`: not as far as this node knows yet. What no honest coordinator asks for
/// is an error.
fn may_be_stored(
    ctx: &mut Context,
    wallets: &mut Wallets,
    incoming: &Incoming,
    value: &Value,
) -> Result<bool, &'static str> {
    let Incoming { kind, request, .. } = incoming;
    let wallet = match wallets.lookup(ctx, request.wallet()) {
        Lookup::Found(wallet) => Some(wallet),
        Lookup::Loading | Lookup::Absent => None,
    };
    for verdict in value.verdicts.values() {
        if let Verdict::Error(body) = verdict
            && !is_error_for(*kind, request.wallet(), request.id(), body)
        {
            return Err("an error to be stored that answers another request");
        }
    }
    match (kind, &value.result) {
        (RequestKind::Sign, Some(signed)) => {
            let Some(wallet) = wallet else { return Ok(false) };
            if signed.payload == request.payload
                && verifies(ctx, &wallet, request, &signed.signature)
                && are_attested(ctx, wallet.committee(), request, signed)
            {
                Ok(true)
            } else {
                Err("a result to be stored whose signature or attestations do not verify")
            }
        }
        (RequestKind::Sign, None) if value.succeeds() => Err("a success to be stored without a result"),
        (RequestKind::Sign, None) => Ok(true),
        (_, Some(_)) => Err("a signature to be stored for a request that asks for none"),
        (_, None) => Ok(!value.succeeds() || wallet.is_some()),
    }
}

fn send(ctx: &mut Context, to: Participant, message: Message) {
    if ctx.incarnation_of(to.0) == Some(to.1) {
        ctx.send(to.0, Lane::Control, Envelope::Answers(message));
    }
}

//! A node whose store was rolled back, restored or copied: what it answered since is lost, so it answers nothing that
//! others rely on until it has been brought up to date.
//!
//! It asks the other members for every certificate and for the wallets whose creation is undecided. Once
//! `min(t, n − 1)` of them have told everything, and no request from before the restore can be answered any more, it is
//! fit again. Decisions that were open then it sits out for ever: it may have promised or voted in them.
//!
//! What it is told of these is written for ever, so nobody tells more than it is asked: one page per question, in which
//! names only grow, and no more of one member than so many. Who answers reads one page at a time for each peer that asks,
//! and so many in a second: an honest one asks for the next page when it has the last, and again if it hears nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::records;
use crate::{
    Incarnation, NodeId, Time,
    bucket::Bucket,
    context::{After, Context, Wanted},
    limits,
    link::{Lane, Start},
    message::Message as Envelope,
    node::Table,
    output::Record,
    planted::{Bug, planted},
    report::Report,
    session::Participant,
    store::{Batch, BootRecord, Keyspace},
    wallet::{
        Certificate, CertificateRecord,
        activation::{Activation, Parts},
        cache::Lookup,
        record::{Stored as _, is_certificate_key},
    },
};

/// Between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The sender asks for what comes after this.
    Ask { after: Cursor },
    /// One page.
    Page {
        certificates: Vec<Certificate>,
        /// Wallets about whose creation anything was said at the sender, and that do not exist.
        undecided: Vec<String>,
        /// Where to go on; `None` on the last page.
        next: Option<Cursor>,
    },
}

/// How far a listing has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Name of the last certificate's record.
    certificate: Vec<u8>,
    /// The last undecided wallet.
    undecided: String,
}

#[cfg(test)]
impl Cursor {
    /// Behind an undecided wallet and before all certificates.
    pub fn new(undecided: String) -> Self {
        Self { certificate: Vec::new(), undecided }
    }
}

/// Name of the record that says that the store was found to be rolled back.
const ROLLED_BACK: &[u8] = b"rolled back";
/// Names of the records of decisions that this node sits out begin with this.
const SITS_OUT: &[u8] = b"sits out ";
/// Certificates per page.
const PAGE: usize = 32;
/// Records that are read for a page: beside a certificate lies its wallet's newest epoch.
const RECORDS: usize = 2 * PAGE;
/// Undecided wallets per page.
const UNDECIDED: usize = 256;
/// How soon an unanswered question is repeated.
const ASK_AGAIN: crate::Duration = crate::Duration::from_secs(3);

/// What a node that was rolled back still has to learn, and what it tells others that were.
#[derive(Default)]
pub(super) struct CatchUp {
    /// Set while the node is not up to date.
    behind: Option<Behind>,
    /// Peers for which a page is being read. It is read to its end also if the link goes down meanwhile.
    reading: BTreeSet<NodeId>,
    /// How many pages each may still ask for now.
    budgets: BTreeMap<NodeId, Bucket>,
}

struct Behind {
    reason: String,
    /// Requests that may have been answered before the restore are over by then.
    earliest: Time,
    /// Where each member's listing stands.
    cursors: BTreeMap<NodeId, Cursor>,
    /// Who has not answered yet what it was asked last.
    open: BTreeSet<NodeId>,
    /// How many undecided wallets each has named.
    named: BTreeMap<NodeId, usize>,
    /// What comes after the page of each member that is being taken in: its `next`.
    pages: BTreeMap<NodeId, Option<Cursor>>,
    /// Certificates of those pages that wait for what is known of their wallets here.
    unread: BTreeMap<(NodeId, String), Certificate>,
    done: BTreeSet<NodeId>,
    ask_at: Time,
}

impl CatchUp {
    /// Takes back what an earlier start found out.
    pub fn restore(ctx: &mut Context, activation: &mut Activation, boot: &BootRecord) -> Self {
        let mut catch_up = Self::default();
        for (keyspace, key, value) in &boot.records {
            if *keyspace != Keyspace::Meta {
                continue;
            }
            if key == ROLLED_BACK {
                let reason = String::from_utf8_lossy(value.expose()).into_owned();
                catch_up.begin(ctx, reason);
            } else if let Some(wallet) = key.strip_prefix(SITS_OUT) {
                activation.sit_out(&String::from_utf8_lossy(wallet));
            }
        }
        catch_up
    }

    /// A peer has shown that the store lacks what an earlier start of this node had written.
    ///
    /// That is durable before the link with the peer is up, because then the peer remembers this start instead.
    pub fn on_rolled_back(&mut self, ctx: &mut Context, peer: &str, incarnation: Incarnation, start: Start) {
        let mut batch = Batch::default();
        records::put_start(&mut batch, incarnation, start);
        if self.behind.is_none() && !planted(Bug::RolledBackVotes) {
            let reason = format!(
                "the store was rolled back, restored or copied ({peer} remembers more of this node than it does): the \
                 node is being brought up to date"
            );
            batch.put(Keyspace::Meta, ROLLED_BACK.to_vec(), reason.clone().into_bytes());
            ctx.report(Report::Alarm { what: format!("{reason}; until then it does not sign") });
            self.begin(ctx, reason);
        }
        ctx.persist(batch, After::Conceded(incarnation));
    }

    fn begin(&mut self, ctx: &mut Context, reason: String) {
        ctx.unfit.push(reason.clone());
        self.behind = Some(Behind {
            reason,
            earliest: ctx.now.time.after(ctx.config.signing_deadline + ctx.config.clock_skew),
            cursors: BTreeMap::new(),
            open: BTreeSet::new(),
            named: BTreeMap::new(),
            pages: BTreeMap::new(),
            unread: BTreeMap::new(),
            done: BTreeSet::new(),
            ask_at: ctx.now.time,
        });
    }

    /// Asks, or declares the node up to date.
    pub fn drive(&mut self, ctx: &mut Context) {
        let Some(behind) = &mut self.behind else { return };
        let now = ctx.now.time;
        let needed = usize::from(ctx.config.threshold).min(ctx.config.peers.len() - 1);
        if behind.done.len() >= needed && now >= behind.earliest {
            let reason = std::mem::take(&mut behind.reason);
            self.behind = None;
            ctx.unfit.retain(|known| *known != reason);
            let mut batch = Batch::default();
            batch.remove(Keyspace::Meta, ROLLED_BACK.to_vec());
            ctx.persist(batch, After::Nothing);
            ctx.report(Report::CaughtUp);
            return;
        }
        if now < behind.ask_at {
            return;
        }
        behind.ask_at = now.after(ASK_AGAIN);
        let asked: Vec<NodeId> =
            ctx.reachable().into_iter().filter(|n| *n != ctx.me && !behind.done.contains(n)).collect();
        for node in asked.into_iter().filter(|node| !behind.pages.contains_key(node)) {
            behind.open.insert(node);
            let after = behind.cursors.get(&node).cloned().unwrap_or_default();
            ctx.send(node, Lane::Bulk, Envelope::CatchUp(Message::Ask { after }));
        }
    }

    pub fn tables(&self) -> [Table; 2] {
        let unread = self.behind.as_ref().map_or(0, |behind| behind.unread.len());
        [
            ("peers for which a page is read", self.reading.len(), Some(limits::NODES_MAX)),
            ("certificates that were told and wait for records", unread, Some(limits::NODES_MAX * PAGE)),
        ]
    }

    pub fn wake_at(&self) -> Option<Time> {
        self.behind.as_ref().map(|behind| behind.ask_at)
    }

    pub fn on_message(
        &mut self,
        ctx: &mut Context,
        activation: &mut Activation,
        parts: &mut Parts<'_>,
        from: NodeId,
        message: Message,
    ) {
        match message {
            Message::Ask { after } => self.on_ask(ctx, from, after),
            Message::Page { certificates, undecided, next } => {
                let Some(behind) = &mut self.behind else { return };
                // Names only grow, so nobody keeps this node asking, or writing, for ever with the same ones. A page that was
                // asked for twice comes twice.
                let after = behind.cursors.get(&from).cloned().unwrap_or_default();
                let grows = undecided.is_sorted_by(|a, b| a < b)
                    && undecided.first().is_none_or(|first| *first > after.undecided)
                    && next.as_ref().is_none_or(|next| *next > after && next.undecided >= after.undecided);
                if !grows || !behind.open.remove(&from) {
                    return;
                }
                let named = behind.named.entry(from).or_default();
                *named = named.saturating_add(undecided.len());
                let short = undecided.iter().all(|wallet| wallet.len() <= limits::ID_BYTES_MAX);
                if !short || undecided.len() > UNDECIDED || *named > limits::SAT_OUT_PER_MEMBER_MAX {
                    let what = "it names more undecided wallets than there can be".to_owned();
                    ctx.report(Report::Ignored { peer: ctx.name(from), what });
                    return;
                }
                behind.pages.insert(from, next);
                let mut batch = Batch::default();
                for wallet in undecided {
                    if activation.sit_out(&wallet) {
                        let mut key = SITS_OUT.to_vec();
                        key.extend(wallet.as_bytes());
                        batch.put(Keyspace::Meta, key, Vec::new());
                    }
                }
                if !batch.writes.is_empty() {
                    ctx.persist(batch, After::Nothing);
                }
                for certificate in certificates.into_iter().take(PAGE) {
                    let wallet = certificate.facts().wallet.clone();
                    // Nothing of it has been checked yet, and no record has such a name.
                    if wallet.len() > limits::ID_BYTES_MAX {
                        continue;
                    }
                    match parts.wallets.lookup(ctx, &wallet) {
                        Lookup::Loading => drop(behind.unread.insert((from, wallet), certificate)),
                        Lookup::Absent | Lookup::Found(_) => activation.adopt(ctx, parts, Some(from), certificate),
                    }
                }
                self.turn(ctx, from);
            }
        }
    }

    fn on_ask(&mut self, ctx: &mut Context, from: NodeId, after: Cursor) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        let long =
            after.certificate.len() > limits::RECORD_KEY_BYTES_MAX || after.undecided.len() > limits::ID_BYTES_MAX;
        if long || self.reading.contains(&from) {
            return;
        }
        let now = ctx.now.time;
        let full = || Bucket::new(now, limits::CATCH_UP_PAGES_PER_SECOND, limits::CATCH_UP_PAGES_BURST);
        if self.budgets.entry(from).or_insert_with(full).admits(now) {
            self.reading.insert(from);
            let name = after.certificate.clone();
            ctx.scan(Keyspace::Certificates, name, RECORDS, Wanted::CatchUp((from, incarnation), after));
        }
    }

    /// It is known now what this store holds of a wallet.
    pub fn on_wallet_loaded(
        &mut self,
        ctx: &mut Context,
        activation: &mut Activation,
        parts: &mut Parts<'_>,
        wallet: &str,
    ) {
        let Some(behind) = &mut self.behind else { return };
        let names: Vec<_> = behind.unread.keys().filter(|(_, of)| of == wallet).cloned().collect();
        let read: Vec<_> = names.into_iter().filter_map(|name| behind.unread.remove_entry(&name)).collect();
        for ((from, _), certificate) in read {
            activation.adopt(ctx, parts, Some(from), certificate);
            self.turn(ctx, from);
        }
    }

    /// Goes on to a member's next page once everything of the last one has been taken in.
    fn turn(&mut self, ctx: &mut Context, from: NodeId) {
        let Some(behind) = &mut self.behind else { return };
        if behind.unread.keys().any(|(of, _)| *of == from) {
            return;
        }
        match behind.pages.remove(&from) {
            Some(Some(next)) => {
                behind.cursors.insert(from, next.clone());
                behind.open.insert(from);
                ctx.send(from, Lane::Bulk, Envelope::CatchUp(Message::Ask { after: next }));
            }
            Some(None) => {
                behind.done.insert(from);
                self.drive(ctx);
            }
            None => {}
        }
    }

    /// A page of this node's certificates was read for somebody who catches up.
    pub fn on_scanned(
        &mut self,
        ctx: &mut Context,
        activation: &Activation,
        to: Participant,
        after: Cursor,
        records: &[Record],
    ) {
        self.reading.remove(&to.0);
        if ctx.incarnation_of(to.0) != Some(to.1) {
            return;
        }
        let undecided: Vec<String> = activation
            .open_decisions()
            .into_iter()
            .filter(|wallet| **wallet > *after.undecided)
            .take(UNDECIDED)
            .map(str::to_owned)
            .collect();
        let (mut certificates, mut last) = (Vec::new(), None);
        for (key, value) in records {
            if is_certificate_key(key) {
                if certificates.len() >= PAGE {
                    break;
                }
                // The store authenticates what it returns: an unreadable record is ours and wrong.
                let record = CertificateRecord::decode(value.expose())
                    .unwrap_or_else(|error| panic!("certificate {}: {error}", hex::encode(key)));
                certificates.push(record.certificate);
            }
            last = Some(key);
        }
        let all = records.len() < RECORDS && records.last().map(|(key, _)| key) == last;
        let more = !all || undecided.len() >= UNDECIDED;
        let next = more.then(|| Cursor {
            certificate: last.cloned().unwrap_or(after.certificate),
            undecided: undecided.last().cloned().unwrap_or(after.undecided),
        });
        ctx.send(to.0, Lane::Bulk, Envelope::CatchUp(Message::Page { certificates, undecided, next }));
    }
}

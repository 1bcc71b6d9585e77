//! Wallets in memory: read from the store when somebody needs them, and kept while there is room.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    CastVote, Certificate, CertificateRecord, ShareRecord, StoppedRecord,
    activation::Message,
    record::{STOPPED, Stored as _, certificate_key, head_key, share_key},
};
use crate::{
    NodeId, Secret, Time,
    committee::Committee,
    context::{After, Context, Event, Wanted as ContextWanted},
    limits,
    link::Lane,
    message::Message as Envelope,
    node::Table,
    protocol::{Curve, KeyShare},
    report::Report,
    store::{Batch, Keyspace},
};

/// A wallet whose keys exist.
#[derive(Debug)]
pub(crate) struct WalletData {
    pub certificate: Certificate,
    pub certificate_hash: [u8; 32],
    /// This node's last vote in the decision.
    pub vote: Option<CastVote>,
    /// This node's shares, one per curve; missing if the store has none.
    shares: Vec<Arc<KeyShare>>,
    /// Whether two certificates exist for the epoch: its keys sign no more.
    pub frozen: bool,
}

/// A wallet, cheap to clone.
pub(crate) type Wallet = Arc<WalletData>;

impl WalletData {
    pub fn committee(&self) -> &Committee {
        &self.certificate.facts().committee
    }

    pub fn share(&self, curve: Curve) -> Option<Arc<KeyShare>> {
        self.shares.iter().find(|s| s.curve == curve).cloned()
    }

    pub fn public_key(&self, curve: Curve) -> Option<&[u8]> {
        let at = self.certificate.facts().curves.iter().position(|c| *c == curve)?;
        self.certificate.value.session.public_keys.get(at).map(Vec::as_slice)
    }
}

/// What is known of a wallet here.
pub(crate) enum Lookup {
    /// Being read: [`Event::WalletLoaded`] follows.
    Loading,
    /// Not in this node's store.
    Absent,
    /// Here it is.
    Found(Wallet),
}

/// Which record of a wallet was wanted.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Head(String),
    Certificate(String),
    Share(String),
}

/// What the peers say of a wallet that this node does not know.
pub(crate) enum Inquiry {
    /// `n − t + 1` members do not know it, so nobody can have it.
    Unknown,
    /// These have not said yet.
    Asking(Vec<NodeId>),
}

enum Entry {
    Loading(Box<Parts>),
    Absent,
    Found(Wallet),
}

#[derive(Default)]
struct Parts {
    record: Option<CertificateRecord>,
    shares: Vec<Arc<KeyShare>>,
    /// Records that are still to come.
    open: usize,
}

struct Asked {
    /// The last time.
    at: Time,
    /// Who did not know it when it was asked at what time.
    unknown: BTreeMap<NodeId, Time>,
}

impl Asked {
    fn is_over(&self, now: Time) -> bool {
        now >= self.at.after(INQUIRY_LASTS)
    }
}

/// How long members are given to say that they do not know a wallet, before they are asked again.
const INQUIRY_LASTS: crate::Duration = crate::Duration::from_secs(2);

/// The cache.
#[derive(Default)]
pub(crate) struct Wallets {
    entries: BTreeMap<String, Entry>,
    order: VecDeque<String>,
    inquiries: BTreeMap<String, Asked>,
    /// Wallets whose keys sign no more, and why: for ever, and whatever else is read or written.
    stopped: BTreeMap<String, String>,
}

impl Wallets {
    /// Takes back which keys are stopped.
    pub fn restore(&mut self, ctx: &mut Context, records: &[(Keyspace, Vec<u8>, Secret)]) {
        let stopped =
            |(keyspace, key, _): &&(Keyspace, Vec<u8>, Secret)| *keyspace == Keyspace::Meta && key.starts_with(STOPPED);
        for (_, key, value) in records.iter().filter(stopped) {
            // The store authenticates what it returns: an unreadable record is ours and wrong.
            let record = StoppedRecord::decode(value.expose())
                .unwrap_or_else(|error| panic!("record {}: {error}", String::from_utf8_lossy(key)));
            ctx.report(Report::Alarm { what: record.to_string() });
            self.stopped.insert(record.wallet().to_owned(), record.to_string());
        }
    }

    /// Keys that sign no more, in words.
    pub fn stopped(&self) -> impl Iterator<Item = &String> {
        self.stopped.values()
    }

    pub fn lookup(&mut self, ctx: &mut Context, wallet: &str) -> Lookup {
        match self.entries.get(wallet) {
            Some(Entry::Loading(_)) => Lookup::Loading,
            Some(Entry::Absent) => Lookup::Absent,
            Some(Entry::Found(wallet)) => Lookup::Found(wallet.clone()),
            None => {
                self.insert(wallet, Entry::Loading(Box::new(Parts { open: 1, ..Parts::default() })));
                let wanted = ContextWanted::Wallet(Wanted::Head(wallet.to_owned()));
                ctx.load(Keyspace::Certificates, head_key(wallet), wanted);
                Lookup::Loading
            }
        }
    }

    /// A wallet that need not be read first.
    pub fn in_memory(&self, wallet: &str) -> Option<&Wallet> {
        match self.entries.get(wallet) {
            Some(Entry::Found(wallet)) => Some(wallet),
            Some(Entry::Loading(_) | Entry::Absent) | None => None,
        }
    }

    pub fn tables(&self) -> [Table; 3] {
        [
            // Wallets that are being read are not thrown out.
            ("wallets in memory", self.entries.len(), Some(2 * limits::WALLETS_CACHED)),
            ("inquiries", self.inquiries.len(), Some(2 * limits::REQUESTS_MAX)),
            // Each needs members that lied and can be named.
            ("stopped wallets", self.stopped.len(), None),
        ]
    }

    /// A record of a wallet was read.
    pub fn on_loaded(&mut self, ctx: &mut Context, wanted: Wanted, value: Option<Secret>) {
        let wallet = match &wanted {
            Wanted::Head(wallet) | Wanted::Certificate(wallet) | Wanted::Share(wallet) => wallet.clone(),
        };
        // A certificate that was activated while records were read has replaced the entry.
        let Some(Entry::Loading(parts)) = self.entries.get_mut(&wallet) else { return };
        parts.open = parts.open.saturating_sub(1);
        match (wanted, value) {
            (Wanted::Head(_), None) => {}
            (Wanted::Head(_), Some(bytes)) => {
                let epoch = bytes.expose().try_into().map(u32::from_be_bytes);
                let Ok(epoch) = epoch else { panic!("the newest epoch of wallet {wallet} is not a number") };
                parts.open += 1;
                let wanted = ContextWanted::Wallet(Wanted::Certificate(wallet.clone()));
                ctx.load(Keyspace::Certificates, certificate_key(&wallet, epoch), wanted);
            }
            (Wanted::Certificate(_), None) => ctx.report(crate::report::Report::Alarm {
                what: format!("the certificate of wallet {wallet} is missing from the store"),
            }),
            (Wanted::Certificate(_), Some(bytes)) => {
                // The store authenticates what it returns: an unreadable record is ours and wrong.
                let record = CertificateRecord::decode(bytes.expose())
                    .unwrap_or_else(|error| panic!("certificate of wallet {wallet}: {error}"));
                let facts = record.certificate.facts().clone();
                for curve in &facts.curves {
                    parts.open += 1;
                    let key = share_key(&wallet, *curve, facts.epoch, facts.session);
                    let wanted = ContextWanted::Wallet(Wanted::Share(wallet.clone()));
                    ctx.load(Keyspace::Shares, key, wanted);
                }
                parts.record = Some(record);
            }
            (Wanted::Share(_), None) => {}
            (Wanted::Share(_), Some(bytes)) => {
                let record = ShareRecord::decode(bytes.expose())
                    .unwrap_or_else(|error| panic!("share of wallet {wallet}: {error}"));
                parts.shares.push(Arc::new(record.share));
            }
        }
        if parts.open == 0 {
            let frozen = self.stopped.contains_key(&wallet);
            let entry = match std::mem::take(&mut **parts) {
                Parts { record: Some(CertificateRecord { certificate, vote }), shares, .. } => {
                    let certificate_hash = certificate.hash();
                    Entry::Found(Arc::new(WalletData { certificate_hash, certificate, vote, shares, frozen }))
                }
                _ => Entry::Absent,
            };
            self.insert(&wallet, entry);
            ctx.event(Event::WalletLoaded(wallet));
        }
    }

    /// Adds a certificate to a batch. The cache learns of it once it is durable: [`activated`](Self::activated).
    pub fn store(batch: &mut Batch, record: &CertificateRecord) {
        batch.put(Keyspace::Certificates, record.key(), record.encode());
        let facts = record.certificate.facts();
        batch.put(Keyspace::Certificates, head_key(&facts.wallet), facts.epoch.to_be_bytes().to_vec());
    }

    /// A certificate became durable: the next look-up reads it, with the shares that belong to it.
    pub fn activated(&mut self, wallet: &str) {
        self.entries.remove(wallet);
        self.order.retain(|w| w != wallet);
        self.inquiries.remove(wallet);
    }

    /// Stops a wallet's keys, durably: two certificates for one epoch exist.
    pub fn stop(&mut self, ctx: &mut Context, record: &StoppedRecord) {
        let (wallet, what) = (record.wallet(), record.to_string());
        if self.stopped.insert(wallet.to_owned(), what.clone()).is_some() {
            return;
        }
        let mut batch = Batch::default();
        batch.put(Keyspace::Meta, record.key(), record.encode());
        ctx.persist(batch, After::Nothing);
        ctx.report(Report::Alarm { what });
        if let Some(Entry::Found(data)) = self.entries.get_mut(wallet) {
            *data = Arc::new(WalletData {
                certificate: data.certificate.clone(),
                certificate_hash: data.certificate_hash,
                vote: data.vote.clone(),
                shares: data.shares.clone(),
                frozen: true,
            });
        }
    }

    /// Asks the members about a wallet that is absent here, for somebody who has waited since then. `Unknown` needs
    /// `n − t + 1` of them that did not know it when they were asked after that: a wallet may have been created since an
    /// earlier question. This node asks itself as well: it may have prepared the wallet and missed that it was decided. A
    /// certificate that comes instead is adopted and announced by [`Event::WalletActivated`].
    pub fn inquire(&mut self, ctx: &mut Context, wallet: &str, since: Time) -> Inquiry {
        let now = ctx.now.time;
        let quorum = ctx.config.peers.len() + 1 - usize::from(ctx.config.threshold);
        if self.inquiries.len() >= limits::REQUESTS_MAX {
            self.inquiries.retain(|_, asked| !asked.is_over(now));
        }
        let fresh = self.inquiries.get(wallet).is_some_and(|asked| asked.at >= since && !asked.is_over(now));
        let asked =
            self.inquiries.entry(wallet.to_owned()).or_insert_with(|| Asked { at: now, unknown: BTreeMap::new() });
        if !fresh {
            asked.at = now;
            for node in ctx.reachable() {
                let ask = Message::Ask { wallet: wallet.to_owned(), at: now };
                ctx.send(node, Lane::Control, Envelope::Wallet(ask));
            }
        }
        let missing = |node: &NodeId| asked.unknown.get(node).is_none_or(|at| *at < since);
        let (silent, unknown): (Vec<_>, Vec<_>) = ctx.config.peers.iter().map(|peer| peer.id).partition(missing);
        if unknown.len() >= quorum { Inquiry::Unknown } else { Inquiry::Asking(silent) }
    }

    /// A member did not know a wallet when it was asked at this time.
    pub fn on_unknown(&mut self, ctx: &mut Context, from: NodeId, wallet: &str, at: Time) {
        if let Some(asked) = self.inquiries.get_mut(wallet)
            && at <= asked.at
        {
            let known = asked.unknown.entry(from).or_insert(at);
            *known = at.max(*known);
            ctx.event(Event::WalletLoaded(wallet.to_owned()));
        }
    }

    /// When an inquiry is to be repeated.
    pub fn wake_at(&self) -> Option<Time> {
        self.inquiries.values().map(|asked| asked.at.after(INQUIRY_LASTS)).min()
    }

    /// Inquiries that brought nothing are forgotten, so that whoever waits asks again.
    pub fn on_wake(&mut self, ctx: &mut Context) {
        let now = ctx.now.time;
        let over: Vec<String> =
            self.inquiries.iter().filter(|(_, asked)| asked.is_over(now)).map(|(wallet, _)| wallet.clone()).collect();
        for wallet in over {
            self.inquiries.remove(&wallet);
            ctx.event(Event::WalletLoaded(wallet));
        }
    }

    fn insert(&mut self, wallet: &str, entry: Entry) {
        if self.entries.insert(wallet.to_owned(), entry).is_none() {
            self.order.push_back(wallet.to_owned());
        }
        let mut looked_at = 0;
        while self.order.len() > limits::WALLETS_CACHED && looked_at < limits::WALLETS_CACHED {
            looked_at += 1;
            let Some(oldest) = self.order.pop_front() else { break };
            match self.entries.get(&oldest) {
                // A reader is still to be answered.
                Some(Entry::Loading(_)) => self.order.push_back(oldest),
                _ => {
                    self.entries.remove(&oldest);
                }
            }
        }
    }
}

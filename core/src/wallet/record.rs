//! What a node keeps on disk of a wallet's keys, and under which names.
//!
//! | keyspace | name | record |
//! | --- | --- | --- |
//! | `Pending` | [`pending_key`] | [`PendingRecord`]: a session prepared or refused here |
//! | `Decisions` | [`decision_key`] | [`AcceptorRecord`]: this node's promise and vote |
//! | `Certificates` | [`certificate_key`] | [`CertificateRecord`] |
//! | `Shares` | [`share_key`] | [`ShareRecord`]: one key share, the only secret here |
//! | `Meta` | [`stopped_key`] | [`StoppedRecord`]: two certificates of one epoch, so the key signs no more |
//!
//! Invariant: what [`Stored::decode`] returns is well formed and would be encoded to exactly the bytes that were read.
//! Every record is an enum of schema versions; old versions are read for ever.
//!
//! Shares are apart from the rest of a prepared session because only they must be erasable;
//! [`PreparedRecord::store`] puts both into one atomic batch.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CertificateError, Value};
use super::closing::{Choice, ChoiceName, Closing, Grounds};
use super::statement::{FormError, Prepared, PublicShares, Refused, SessionId, Slot, check_wallet, point_bytes};
use crate::consensus::{self, Acceptor, Ballot, Decree as _, Election, Voted};
use crate::limits::{NODES_MAX, REQUEST_BYTES_MAX};
use crate::protocol::{Curve, KeyShare};
use crate::store::{Batch, Keyspace};
use crate::{NodeId, decode};

/// Bytes of one record without a request document. A certificate of the largest committee, with all votes, both curves
/// and the longest wallet id, stays below a fifth of it; an acceptor's with as many levels of grounds as there can be,
/// below three quarters.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// A session whose share this node holds durably, waiting for the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedRecord {
    /// This node's statement; the facts are in it.
    pub statement: Prepared,
    /// Every member's public share, per curve in the order of the facts' curves.
    pub public_shares: Vec<PublicShares>,
    /// The initiator-signed request document as it came: at most [`REQUEST_BYTES_MAX`] bytes.
    pub request: Vec<u8>,
}

/// A session that this node refused durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// This node's statement.
    pub statement: Refused,
}

/// What a node did with a session: one name, one record, so it can never be both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingRecord {
    /// It holds its share.
    Prepared(Box<PreparedRecord>),
    /// It never prepared it and never will.
    Refused(RefusedRecord),
}

/// This node's part in the decision about a wallet's epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptorRecord {
    /// The decision that is open.
    pub slot: Slot,
    /// Why the slot before is over; there exactly if there is one.
    pub closing: Option<Closing>,
    /// Promise and vote in the open slot.
    pub acceptor: Acceptor<Choice>,
    /// Sessions that this node said it never votes for while it ran a version that had no slots, in ascending order.
    pub refused: Vec<SessionId>,
}

/// An acceptor's promise and vote as they were before votes had grounds.
type PromisedAndVoted<V> = (Option<Ballot>, Option<(Ballot, V)>);

/// As it was before there were slots.
#[derive(Serialize, Deserialize)]
struct AcceptorRecordV1 {
    wallet: String,
    epoch: u32,
    acceptor: PromisedAndVoted<Value>,
    closed: Vec<SessionId>,
}

/// As it was before votes had grounds.
#[derive(Serialize, Deserialize)]
struct AcceptorRecordV2 {
    slot: Slot,
    closing: Option<Closing>,
    acceptor: PromisedAndVoted<Choice>,
    refused: Vec<SessionId>,
}

impl From<AcceptorRecordV1> for AcceptorRecord {
    fn from(old: AcceptorRecordV1) -> Self {
        let (promised, voted) = old.acceptor;
        let voted = voted.map(|(ballot, value)| (ballot, Choice::Session(Box::new(value))));
        let acceptor = Acceptor::without_grounds(promised, voted);
        Self { acceptor, refused: old.closed, ..Self::new(&old.wallet, old.epoch) }
    }
}

impl From<AcceptorRecordV2> for AcceptorRecord {
    fn from(old: AcceptorRecordV2) -> Self {
        let AcceptorRecordV2 { slot, closing, acceptor: (promised, voted), refused } = old;
        Self { slot, closing, acceptor: Acceptor::without_grounds(promised, voted), refused }
    }
}

/// A decision that this node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The proof.
    pub certificate: Certificate,
    /// This node's own last vote, kept as evidence in case that another certificate appears.
    pub vote: Option<CastVote>,
}

/// A vote that this node has cast, and why it could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CastVote {
    /// In which slot.
    pub slot: u32,
    /// In which ballot.
    pub ballot: Ballot,
    /// For what.
    pub name: ChoiceName,
    /// The promises that allowed it.
    pub grounds: Grounds,
}

/// Two decisions about one epoch, of which there can be only one: proof that members lied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedRecord {
    /// The one that this node held, or was about to hold.
    pub known: Certificate,
    /// The one that contradicts it.
    pub other: Certificate,
    /// This node's own last vote in the decision.
    pub vote: Option<CastVote>,
}

/// As they were before votes were kept.
#[derive(Serialize, Deserialize)]
struct CertificateRecordV1 {
    certificate: Certificate,
}

/// The same.
#[derive(Serialize, Deserialize)]
struct StoppedRecordV1 {
    known: Certificate,
    other: Certificate,
}

impl From<CertificateRecordV1> for CertificateRecord {
    fn from(old: CertificateRecordV1) -> Self {
        Self { certificate: old.certificate, vote: None }
    }
}

impl From<StoppedRecordV1> for StoppedRecord {
    fn from(old: StoppedRecordV1) -> Self {
        Self { known: old.known, other: old.other, vote: None }
    }
}

/// One key share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRecord {
    /// The session that made it.
    pub session: SessionId,
    /// The share.
    pub share: KeyShare,
}

/// Why stored bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// More bytes than such a record may have.
    TooLong {
        /// What was to be read.
        what: &'static str,
        /// The most that is read.
        limit: usize,
        /// How many bytes there are.
        got: usize,
    },
    /// Not the encoding of such a record, or not the one encoding that this program writes.
    Encoding {
        /// What was to be read.
        what: &'static str,
    },
    /// Encoded properly, but its content cannot be right.
    Content {
        /// What was read.
        what: &'static str,
        /// What is wrong.
        error: CertificateError,
    },
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong { what, limit, got } => write!(f, "{what} of {got} bytes, expected at most {limit}"),
            Self::Encoding { what } => write!(f, "not the encoding of {what}"),
            Self::Content { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for RecordError {}

/// A record as bytes: the border between disk and checked types.
pub trait Stored: Sized {
    /// What the record is called in errors.
    const WHAT: &'static str;
    /// The most bytes that are read.
    const BYTES_MAX: usize;

    /// The bytes to store, in the newest schema version. Those of a [`ShareRecord`] are secret: give them to
    /// [`Batch::put`], which owns and erases them, without a copy.
    fn encode(&self) -> Vec<u8>;

    /// Reads any schema version and checks everything that can be checked without keys.
    ///
    /// # Errors
    /// Naming what is wrong.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError>;
}

/// Kinds of records, with their earlier schema versions in order. The order of versions is the format.
macro_rules! stored {
    ($($record:ty $(, before $version:ident of $old:ty)*: $what:literal, at most $limit:expr;)*) => { $(
        const _: () = {
            #[derive(Serialize, Deserialize)]
            enum Versions<T> {
                $($version(Box<$old>),)*
                Newest(T),
            }

            impl Stored for $record {
                const WHAT: &'static str = $what;
                const BYTES_MAX: usize = $limit;

                fn encode(&self) -> Vec<u8> {
                    decode::encode(&Versions::Newest(self))
                }

                fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
                    let record: Self = match decode_exact::<Versions<Self>>(Self::WHAT, Self::BYTES_MAX, bytes)? {
                        $(Versions::$version(old) => (*old).into(),)*
                        Versions::Newest(record) => record,
                    };
                    record.check().map_err(|error| RecordError::Content { what: Self::WHAT, error })?;
                    Ok(record)
                }
            }
        };
    )* };
}

stored! {
    PendingRecord: "record of a prepared or refused session", at most RECORD_BYTES_MAX + REQUEST_BYTES_MAX;
    CertificateRecord, before V1 of CertificateRecordV1: "record of a certificate", at most RECORD_BYTES_MAX;
    StoppedRecord, before V1 of StoppedRecordV1:
        "record of two certificates for one epoch", at most 2 * RECORD_BYTES_MAX;
    AcceptorRecord, before V1 of AcceptorRecordV1, before V2 of AcceptorRecordV2:
        "record of an acceptor", at most RECORD_BYTES_MAX;
    ShareRecord: "record of a key share", at most RECORD_BYTES_MAX;
}

impl PreparedRecord {
    /// Adds this record and the node's key shares to one batch: prepared means all of them or nothing. Only when the
    /// batch is durable may the statement be sent.
    ///
    /// # Errors
    /// If the record is malformed, or the shares are not those of its session and node.
    pub fn store(self, shares: Vec<KeyShare>, batch: &mut Batch) -> Result<(), CertificateError> {
        self.check()?;
        self.statement.session.check_shares(self.statement.node, &shares)?;
        let facts = self.statement.session.facts.clone();
        for share in shares {
            let key = share_key(&facts.wallet, share.curve, facts.epoch, facts.session);
            batch.put(Keyspace::Shares, key, ShareRecord { session: facts.session, share }.encode());
        }
        let key = pending_key(&facts.wallet, facts.epoch, facts.session);
        batch.put(Keyspace::Pending, key, PendingRecord::Prepared(Box::new(self)).encode());
        Ok(())
    }

    fn check(&self) -> Result<(), CertificateError> {
        let session = &self.statement.session;
        session.check()?;
        session.check_public_shares(&self.public_shares)?;
        if session.facts.committee.position(self.statement.node).is_none() {
            return Err(FormError::NotAMember(self.statement.node).into());
        }
        if self.request.len() > REQUEST_BYTES_MAX {
            return Err(
                FormError::TooManyBytes { what: "request", limit: REQUEST_BYTES_MAX, got: self.request.len() }.into()
            );
        }
        Ok(())
    }
}

impl PendingRecord {
    /// The session that it is about: wallet, epoch, session.
    #[must_use]
    pub fn about(&self) -> (&str, u32, SessionId) {
        match self {
            Self::Prepared(record) => {
                let facts = &record.statement.session.facts;
                (&facts.wallet, facts.epoch, facts.session)
            }
            Self::Refused(RefusedRecord { statement }) => (&statement.wallet, statement.epoch, statement.session),
        }
    }

    /// The name to store it under.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let (wallet, epoch, session) = self.about();
        pending_key(wallet, epoch, session)
    }

    fn check(&self) -> Result<(), CertificateError> {
        match self {
            Self::Prepared(record) => record.check(),
            Self::Refused(record) => Ok(check_wallet(&record.statement.wallet)?),
        }
    }
}

impl AcceptorRecord {
    /// An acceptor that has promised and voted nothing, in a wallet's first slot.
    #[must_use]
    pub fn new(wallet: &str, epoch: u32) -> Self {
        let slot = Slot { wallet: wallet.to_owned(), epoch, number: 0 };
        Self { slot, closing: None, acceptor: Acceptor::new(), refused: Vec::new() }
    }

    /// An acceptor that has voted nothing in the slot after the one that was closed, and takes part in no ballot that was
    /// used before: its votes in different slots are of different ballots, so no two can be held against it. `promised`:
    /// the highest ballot that it promised. `None` if slots are exhausted.
    #[must_use]
    pub fn after(closing: Closing, promised: Option<Ballot>) -> Option<Self> {
        let slot = Slot { number: closing.slot.number.checked_add(1)?, ..closing.slot.clone() };
        let acceptor = Acceptor::above(promised.map_or(closing.ballot, |promised| promised.max(closing.ballot)));
        Some(Self { slot, closing: Some(closing), acceptor, refused: Vec::new() })
    }

    /// Its last vote, as it is kept once the decision is known.
    #[must_use]
    pub fn cast_vote(&self) -> Option<CastVote> {
        let Voted { ballot, value, grounds } = self.acceptor.voted()?;
        Some(CastVote { slot: self.slot.number, ballot: *ballot, name: value.name(), grounds: grounds.clone() })
    }

    /// The name to store it under.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        decision_key(&self.slot.wallet, self.slot.epoch)
    }

    fn check(&self) -> Result<(), CertificateError> {
        let Slot { wallet, epoch, number } = &self.slot;
        check_wallet(wallet)?;
        if self.closing.as_ref().map(|closing| &closing.slot) != self.slot.before().as_ref() {
            return Err(FormError::Closing { slot: *number }.into());
        }
        self.closing.as_ref().map_or(Ok(()), Closing::check)?;
        if !self.acceptor.is_well_formed() {
            return Err(FormError::VoteAbovePromise.into());
        }
        let Some(Voted { ballot, value: Choice::Session(value), .. }) = self.acceptor.voted() else { return Ok(()) };
        value.check()?;
        let facts = value.facts();
        if self.refused.contains(&facts.session) || facts.wallet != *wallet || facts.epoch != *epoch {
            return Err(CertificateError::VoteForOther(ballot.node));
        }
        Ok(())
    }
}

impl CertificateRecord {
    /// The name to store it under.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let facts = self.certificate.facts();
        certificate_key(&facts.wallet, facts.epoch)
    }

    fn check(&self) -> Result<(), CertificateError> {
        self.certificate.check()
    }
}

impl StoppedRecord {
    /// The wallet.
    #[must_use]
    pub fn wallet(&self) -> &str {
        &self.known.facts().wallet
    }

    /// The name to store it under.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        stopped_key(self.wallet())
    }

    fn check(&self) -> Result<(), CertificateError> {
        self.known.check()?;
        self.other.check()?;
        let (known, other) = (self.known.facts(), self.other.facts());
        if (&known.wallet, known.epoch) != (&other.wallet, other.epoch) || self.known.hash() == self.other.hash() {
            return Err(CertificateError::NoContradiction);
        }
        Ok(())
    }

    /// The members that have signed statements which contradict each other, as far as this node's evidence shows. An
    /// honest voter for the decision of the higher ballot holds the evidence.
    #[must_use]
    pub fn liars(&self) -> BTreeSet<NodeId> {
        let [known, other] = [&self.known, &self.other].map(|certificate| Election {
            ballot: certificate.ballot,
            name: ChoiceName::Session(certificate.value.hash()),
            voters: certificate.votes.iter().map(|(node, _)| *node).collect(),
        });
        // Without grounds it names only those that voted twice in one ballot.
        let mut liars = consensus::liars::<Choice>(&known, &other, &Grounds::default());
        // A decision of the first slot says nothing about promises in a later one, which begins without votes; a promise
        // in the first one contradicts a vote in any slot below its ballot.
        if let Some(CastVote { slot: 0, ballot, name, grounds }) = &self.vote {
            let mine = Election { ballot: *ballot, name: *name, voters: BTreeSet::new() };
            for decided in [known, other].iter().filter(|decided| *ballot > decided.ballot) {
                liars.extend(consensus::liars::<Choice>(decided, &mine, grounds));
            }
        }
        liars
    }
}

impl std::fmt::Display for StoppedRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let facts = self.known.facts();
        write!(
            f,
            "two certificates for epoch {} of wallet {}: {} and {}; its keys sign no more",
            facts.epoch,
            facts.wallet,
            hex::encode(self.known.hash()),
            hex::encode(self.other.hash())
        )?;
        let liars: Vec<String> = self.liars().iter().map(ToString::to_string).collect();
        if liars.is_empty() {
            Ok(())
        } else {
            write!(f, "; what they have signed contradicts itself: {}", liars.join(", "))
        }
    }
}

impl ShareRecord {
    fn check(&self) -> Result<(), CertificateError> {
        let KeyShare { curve, threshold, index, secret, public_key, public_shares, checked: _ } = &self.share;
        let n = public_shares.len();
        if !(2..=NODES_MAX).contains(&n) || usize::from(*threshold) <= n / 2 || usize::from(*threshold) > n {
            return Err(FormError::Committee { members: n, threshold: *threshold }.into());
        }
        if usize::from(*index) >= n {
            return Err(FormError::KeyShare("index").into());
        }
        if secret.expose().len() != 32 {
            return Err(FormError::KeyShare("secret's length").into());
        }
        let expected = point_bytes(*curve);
        match public_shares.iter().chain([public_key]).find(|point| point.len() != expected) {
            Some(point) => Err(FormError::PointLength { curve: *curve, expected, got: point.len() }.into()),
            None => Ok(()),
        }
    }
}

/// The common beginning of all names of a wallet's records in a keyspace: no wallet's is a prefix of another's.
///
/// Wallet ids have at most [`ID_BYTES_MAX`](crate::limits::ID_BYTES_MAX) bytes, so names stay below
/// [`RECORD_KEY_BYTES_MAX`](crate::limits::RECORD_KEY_BYTES_MAX).
#[must_use]
pub fn wallet_prefix(wallet: &str) -> Vec<u8> {
    let length = u16::try_from(wallet.len()).expect("wallet ids are checked to be short where they come in");
    let mut key = length.to_be_bytes().to_vec();
    key.extend_from_slice(wallet.as_bytes());
    key
}

/// Name of the record that holds a wallet's newest epoch, beside its certificates.
#[must_use]
pub fn head_key(wallet: &str) -> Vec<u8> {
    wallet_prefix(wallet)
}

/// Whether a name among certificates is a certificate's, and not that of the newest epoch ([`head_key`]).
#[must_use]
pub fn is_certificate_key(name: &[u8]) -> bool {
    let wallet = name.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest));
    wallet.is_some_and(|(length, rest)| rest.len() > length)
}

/// Name of a certificate: a wallet's sort by epoch.
#[must_use]
pub fn certificate_key(wallet: &str, epoch: u32) -> Vec<u8> {
    wallet_epoch(wallet, epoch)
}

/// Name of an acceptor's state: a wallet's sort by epoch.
#[must_use]
pub fn decision_key(wallet: &str, epoch: u32) -> Vec<u8> {
    wallet_epoch(wallet, epoch)
}

/// Name of a prepared or refused session: a wallet's sort by epoch.
#[must_use]
pub fn pending_key(wallet: &str, epoch: u32, session: SessionId) -> Vec<u8> {
    let mut key = wallet_epoch(wallet, epoch);
    key.extend_from_slice(&session.0);
    key
}

/// Name of the proof that stops a wallet's keys; all begin with [`STOPPED`].
#[must_use]
pub fn stopped_key(wallet: &str) -> Vec<u8> {
    [STOPPED, wallet.as_bytes()].concat()
}

/// How the names of such proofs begin.
pub const STOPPED: &[u8] = b"stopped ";

/// Name of a key share: a wallet's sort by epoch, then session, then curve.
#[must_use]
pub fn share_key(wallet: &str, curve: Curve, epoch: u32, session: SessionId) -> Vec<u8> {
    let mut key = pending_key(wallet, epoch, session);
    key.push(match curve {
        Curve::Secp256k1 => 0,
        Curve::Ed25519 => 1,
    });
    key
}

fn wallet_epoch(wallet: &str, epoch: u32) -> Vec<u8> {
    let mut key = wallet_prefix(wallet);
    key.extend_from_slice(&epoch.to_be_bytes());
    key
}

/// Decodes bytes that are exactly one value in its one encoding.
fn decode_exact<T: Serialize + DeserializeOwned>(
    what: &'static str,
    limit: usize,
    bytes: &[u8],
) -> Result<T, RecordError> {
    if bytes.len() > limit {
        return Err(RecordError::TooLong { what, limit, got: bytes.len() });
    }
    decode::exact(bytes).ok_or(RecordError::Encoding { what })
}

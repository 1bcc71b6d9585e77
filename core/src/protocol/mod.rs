//! The cryptographic protocols behind a few small traits.
//!
//! A key is plain Shamir shares over a curve, made by [`KeyGeneration`], which knows nothing of signing. A
//! [`SigningSuite`] adds what one signing protocol needs: auxiliary data per committee, and signing. Nothing outside
//! a suite's folder knows what that auxiliary data consists of.
//!
//! A [`Party`] is one node's run of one protocol. It owns everything that it needs, so that it can travel to a worker
//! as a [`Job`] and back as [`Computed`].

pub mod cggmp;
pub mod digest;
mod dkls;
mod ecdsa;
pub mod frost;
pub mod keygen;
pub mod keys;
mod runner;
pub mod test_primes;
#[cfg(test)]
mod testing;

use std::sync::Arc;

pub use cggmp::Cggmp;
pub use digest::{InvalidDigest, digest_from_tx};
pub use dkls::Dkls;
pub use frost::Frost;
pub use keygen::DistributedKeyGeneration;
pub use keys::Checked;
use mpcium_client::MessageHash;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::{Duration, Secret};

/// The two curves on which wallets have keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Curve {
    /// ECDSA on secp256k1. Public keys and public shares are 33-byte compressed SEC1 points.
    Secp256k1,
    /// EdDSA on edwards25519. Public keys and public shares are 32-byte RFC 8032 encodings.
    Ed25519,
}

impl Curve {
    /// Both, in the order in which a wallet's keys are listed.
    pub const ALL: [Self; 2] = [Self::Secp256k1, Self::Ed25519];
}

/// What binds a run to one occasion. Positions count from 0 and follow the order of participants in the proposal.
#[derive(Clone)]
pub struct Run {
    /// No two runs ever share one: it hashes wallet, epoch, request, attempt, participants and their incarnations.
    pub execution_id: [u8; 32],
    /// This party's position among the participants.
    pub index: u16,
    /// Number of participants.
    pub parties: u16,
    /// Seed of the run's generator: a hash of core's generator and the execution id, mixed with fresh entropy on the worker.
    pub seed: [u8; 32],
}

impl Drop for Run {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({} of {}, {})", self.index, self.parties, hex::encode(self.execution_id))
    }
}

/// A message from another party, already authenticated, attributed and in order. `Debug` shows no content: it may be
/// a share that is meant for this party alone.
#[derive(Clone)]
pub struct Incoming {
    /// The sender's position.
    pub from: u16,
    /// Whether the sender says that everybody got the same.
    pub broadcast: bool,
    /// The protocol's own encoding.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, broadcast, bytes } = self;
        write!(f, "Incoming(from {from}, broadcast {broadcast}, {} bytes)", bytes.len())
    }
}

/// A message to one party or to all others. `Debug` shows no content.
#[derive(Clone)]
pub struct Outgoing {
    /// The addressee's position; `None`: all others get the same.
    pub to: Option<u16>,
    /// The protocol's own encoding.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing(to {:?}, {} bytes)", self.to, self.bytes.len())
    }
}

/// Why a run ended without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// What was wrong, in words: a public sentence without any secret.
    pub reason: String,
    /// Positions of the parties whose misbehaviour the evidence proves to this party. Empty when it names nobody.
    pub culprits: Vec<u16>,
    /// Positions of the parties with whom this party must never use its present auxiliary data again, because the
    /// failure itself says something about the secrets in it.
    pub bans: Vec<u16>,
}

impl Abort {
    /// An abort that names nobody.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), culprits: Vec::new(), bans: Vec::new() }
    }

    /// An abort that names one party.
    #[must_use]
    pub fn blaming(party: u16, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), culprits: vec![party], bans: Vec::new() }
    }

    /// An abort that names one party and ends the auxiliary data that this party shares with it.
    #[must_use]
    pub fn banning(party: u16, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), culprits: vec![party], bans: vec![party] }
    }
}

/// Where a run stands after a step.
#[derive(Debug)]
pub enum Status {
    /// It waits for messages.
    Waiting,
    /// It finished.
    Done(Outcome),
    /// It failed and will say nothing more.
    Failed(Abort),
}

/// What a step of a run produced.
#[derive(Debug)]
pub struct Step {
    /// To be sent, in order.
    pub messages: Vec<Outgoing>,
    /// Where the run stands.
    pub status: Status,
}

/// One party's run of one protocol.
pub trait Party: Send {
    /// Absorbs messages and runs until it waits for more, is done or has failed. May take seconds: only for workers.
    ///
    /// An exact repetition of a message is ignored; two different messages for one place of one round are
    /// equivocation and fail the run. After `Done` or `Failed` it must not be called again.
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step;
}

/// What a run was for.
#[derive(Debug)]
pub enum Outcome {
    /// Key generation: one share per curve, in the order of [`Curve::ALL`].
    Keys(Vec<KeyShare>),
    /// An auxiliary set.
    Auxiliary(AuxiliarySet),
    /// A signature: secp256k1 `r || s || recovery` (65 bytes, low s), Ed25519 `R || S` (64 bytes).
    Signature(Vec<u8>),
    /// This party's part of a presignature.
    Presignature(Box<dyn Presignature>),
}

/// One party's plain Shamir share of one key. The share of position `i` is the polynomial's value at `x = i + 1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyShare {
    /// The curve.
    pub curve: Curve,
    /// Number of parties that sign together.
    pub threshold: u16,
    /// This party's position in the committee.
    pub index: u16,
    /// The secret scalar, 32 bytes: big-endian for secp256k1, little-endian for Ed25519.
    pub secret: Secret,
    /// The public key.
    pub public_key: Vec<u8>,
    /// Every member's public share, by position.
    pub public_shares: Vec<Vec<u8>>,
    /// What was read of all this and checked, once; not stored and not compared.
    #[serde(skip)]
    pub checked: Checked,
}

/// One member's part of auxiliary data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuxiliarySet {
    /// This member's secrets, in the suite's own encoding.
    pub secret: Secret,
    /// One public row per member, by position: the same bytes at every honest member.
    pub rows: Vec<Vec<u8>>,
}

/// Which sets of auxiliary data cover a group of signers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// One set that has all of them among its members.
    Committee,
    /// One set of exactly two members for every pair of them.
    Pairs,
}

/// What a signing party gets of one auxiliary set.
#[derive(Clone, Debug)]
pub struct AuxiliaryView {
    /// This member's secrets.
    pub secret: Secret,
    /// The signers' rows, in the order of the signers; of a pair's set both rows, in the order of the set.
    pub rows: Vec<Vec<u8>>,
    /// The same set as [`AuxiliarySuite::open`] has read it: then the secret above may be empty. Or what
    /// [`AuxiliarySuite::precompute`] has made of all of its rows.
    pub opened: Option<Opened>,
}

/// A set as a suite keeps it in memory, so that it is read once and not for every signature, or what a suite computed
/// in advance from its rows. Erases its secrets when the last copy is dropped.
#[derive(Clone)]
pub struct Opened(Arc<dyn std::any::Any + Send + Sync>);

impl Opened {
    /// Hides a suite's own type, which must erase its secrets when it is dropped.
    pub fn new(set: impl std::any::Any + Send + Sync) -> Self {
        Self(Arc::new(set))
    }

    /// The suite's own type, if it is this one.
    #[must_use]
    pub fn get<T: std::any::Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.clone().downcast().ok()
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened(..)")
    }
}

/// One signature to make.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The key, already shifted to the child key if one is wanted (see [`KeyShare::shifted`]).
    pub key: Arc<KeyShare>,
    /// Committee positions of the signers, in the order of the run's participants; exactly `threshold` of them.
    pub signers: Vec<u16>,
    /// secp256k1: the 32-byte digest, not hashed again. Ed25519: the message.
    pub message: Vec<u8>,
    /// Auxiliary data, for suites that need it: one view of the set that contains all signers, or one for each other
    /// signer, in the order of the signers (see [`Coverage`]).
    pub auxiliary: Vec<AuxiliaryView>,
}

/// One presignature to make: everything about a signature but the message.
#[derive(Clone, Debug)]
pub struct Presigning {
    /// The wallet's own key, never a child of it.
    pub key: Arc<KeyShare>,
    /// As in [`Signing`].
    pub signers: Vec<u16>,
    /// As in [`Signing`].
    pub auxiliary: Vec<AuxiliaryView>,
}

/// A message, and how it is hashed to what is signed. A presignature signs nothing else: who may choose a bare digest
/// after seeing a presignature's public part can make a signature over one message from that over another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preimage {
    /// How it is hashed.
    pub hash: MessageHash,
    /// All of it.
    pub message: Vec<u8>,
}

impl Preimage {
    /// What [`SigningSuite::verify`] takes for the message.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.hash.digest(&self.message)
    }
}

/// One party's part of a presignature: it signs one message, once. Two messages under one presignature uncover the key,
/// so it can be neither copied nor stored, and signing consumes it.
pub trait Presignature: Send {
    /// Starts a run whose outcome is [`Outcome::Signature`], verified against the key before it is returned, among the
    /// parties that made the presignature, in the same order.
    ///
    /// # Errors
    /// If run and presignature do not fit together, naming what differs. The presignature is gone all the same.
    fn sign(self: Box<Self>, run: Run, preimage: &Preimage) -> Result<Box<dyn Party>, Abort>;
}

impl std::fmt::Debug for dyn Presignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Presignature(..)")
    }
}

/// How long a run may take, so that load never turns into retries; and how much there is to say in it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most bytes that one party sends another in the whole run.
    pub bytes: usize,
    /// Without any progress for this long, while no participant says that it is computing, the run has failed.
    pub progress: Duration,
    /// Hard cap on the whole run.
    pub cap: Duration,
    /// At most one step of such a run per worker at a time.
    pub heavy: bool,
}

/// Makes the keys of a new wallet on both curves in one run.
pub trait KeyGeneration: Send + Sync {
    /// Name for configuration fingerprints and reports.
    fn name(&self) -> &'static str;
    /// How long a run may take.
    fn pace(&self, parties: u16) -> Pace;
    /// Starts a run whose outcome is [`Outcome::Keys`].
    ///
    /// # Errors
    /// If the numbers are impossible (`threshold` not in `2..=parties`, fewer than two parties, index out of range).
    fn start(&self, run: Run, threshold: u16) -> Result<Box<dyn Party>, Abort>;
}

/// One signing protocol.
pub trait SigningSuite: Send + Sync {
    /// Name for configuration fingerprints and reports.
    fn name(&self) -> &'static str;
    /// Whose keys it signs with.
    fn curve(&self) -> Curve;
    /// How long a signature may take.
    fn pace(&self, parties: u16) -> Pace;
    /// The auxiliary data that it needs, if any.
    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite>;
    /// Whether `signature` (as in [`Outcome::Signature`]) is `public_key`'s over `message`, low-s where that applies.
    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool;
    /// Starts a run whose outcome is [`Outcome::Signature`], verified against the key before it is returned.
    ///
    /// # Errors
    /// If key, signers, message or auxiliary data do not fit together, naming what is wrong.
    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort>;
    /// How it makes presignatures, if it does.
    fn presigning(&self) -> Option<&dyn PresigningSuite> {
        None
    }
}

/// The part of a signing protocol that can run before there is a message.
pub trait PresigningSuite: Send + Sync {
    /// How long a run that makes a presignature may take.
    fn pace(&self, parties: u16) -> Pace;
    /// Starts a run whose outcome is [`Outcome::Presignature`].
    ///
    /// # Errors
    /// If key, signers or auxiliary data do not fit together, naming what is wrong.
    fn start(&self, run: Run, presigning: Presigning) -> Result<Box<dyn Party>, Abort>;
}

/// Auxiliary data of one signing protocol: made once per committee or pair in the background, serves all wallets.
pub trait AuxiliarySuite: Send + Sync {
    /// What covers a group of signers.
    fn coverage(&self) -> Coverage {
        Coverage::Committee
    }
    /// How long a run may take.
    fn pace(&self, parties: u16) -> Pace;
    /// How many pieces [`make_ingredient_piece`](Self::make_ingredient_piece) makes for one ingredient (4 safe primes,
    /// say); 0: none are needed.
    fn ingredient_pieces(&self) -> u16;
    /// Makes one piece; takes seconds to a minute.
    fn make_ingredient_piece(&self, seed: [u8; 32]) -> Secret;
    /// Starts a run whose outcome is [`Outcome::Auxiliary`]. `ingredient` is exactly the pieces, used only once.
    ///
    /// # Errors
    /// If the numbers are impossible or the ingredient is malformed.
    fn start(&self, run: Run, ingredient: Vec<Secret>) -> Result<Box<dyn Party>, Abort>;
    /// Checks that this member's secret belongs to its row (`rows[index]`), as before a stored set is used.
    ///
    /// # Errors
    /// If it does not, naming what differs.
    fn check(&self, set: &AuxiliarySet, index: u16) -> Result<(), Abort>;
    /// Reads a set that has been checked into the form in which signatures use it, if reading it takes long.
    fn open(&self, set: &AuxiliarySet) -> Option<Opened> {
        let _ = set;
        None
    }
    /// Work that makes signatures with these public rows cheaper, if there is any: for a worker, in the background. What
    /// comes of it goes into [`AuxiliaryView::opened`]; signatures before that do without.
    fn precompute(&self, rows: &[Vec<u8>]) -> Option<Precomputation> {
        let _ = rows;
        None
    }
}

/// Computes something in advance; `None`: it could not.
pub type Precomputation = Box<dyn FnOnce() -> Option<Opened> + Send>;

/// The ECDSA protocols that a cluster can choose from. Keys are the same for both, so a cluster may change its choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EcdsaProtocol {
    /// CGGMP24: seconds per signature, minutes of preparation, assumptions about factoring.
    Cggmp24,
    /// DKLs23: milliseconds per signature, a second of preparation, oblivious transfer.
    Dkls23,
}

impl EcdsaProtocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cggmp24, Self::Dkls23];

    /// Its name in configurations and reports: `cggmp24` or `dkls23`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cggmp24 => "cggmp24",
            Self::Dkls23 => "dkls23",
        }
    }

    /// The protocol of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

impl std::fmt::Display for EcdsaProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The protocols that a node runs with: values, never features, so that nothing can switch a toy level on in the binary.
#[derive(Clone)]
pub struct Suites {
    /// Makes keys.
    pub keygen: Arc<dyn KeyGeneration>,
    /// Signs on secp256k1.
    pub secp256k1: Arc<dyn SigningSuite>,
    /// Signs on Ed25519.
    pub ed25519: Arc<dyn SigningSuite>,
}

impl Suites {
    /// What a node runs with: FROST, and CGGMP24 at full strength or DKLs23. There is no other way to make suites in
    /// the binary.
    #[must_use]
    pub fn production(ecdsa: EcdsaProtocol) -> Self {
        Self {
            keygen: Arc::new(DistributedKeyGeneration),
            secp256k1: match ecdsa {
                EcdsaProtocol::Cggmp24 => Arc::new(Cggmp::<cggmp24::security_level::SecurityLevel128>::new()),
                EcdsaProtocol::Dkls23 => Arc::new(Dkls),
            },
            ed25519: Arc::new(Frost),
        }
    }

    /// The suite that signs on `curve`.
    #[must_use]
    pub fn signing(&self, curve: Curve) -> &Arc<dyn SigningSuite> {
        match curve {
            Curve::Secp256k1 => &self.secp256k1,
            Curve::Ed25519 => &self.ed25519,
        }
    }
}

impl std::fmt::Debug for Suites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Suites({}, {}, {})", self.keygen.name(), self.secp256k1.name(), self.ed25519.name())
    }
}

/// Names a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Which jobs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A client waits for a signature.
    Signing,
    /// A client waits for a wallet.
    Keygen,
    /// Nobody waits yet, but not after work that takes a minute: a low-priority thread of its own.
    Presigning,
    /// Nobody waits: at most workers − 1 at a time, and on a low-priority thread where there is only one worker.
    Background,
}

/// What a job does with 32 fresh bytes of the machine's entropy.
pub type Work = Box<dyn FnOnce([u8; 32]) -> Done + Send>;

/// CPU work that owns everything it needs.
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What for.
    pub priority: Priority,
    /// For reports: "signing step", "safe prime".
    pub label: &'static str,
    /// At most one heavy job per worker runs or waits.
    pub heavy: bool,
    /// The work itself.
    pub work: Work,
}

impl Job {
    /// Runs it. `entropy` is 32 fresh bytes from the machine (in simulation: from the seed).
    #[must_use]
    pub fn run(self, entropy: [u8; 32]) -> Computed {
        Computed { id: self.id, done: (self.work)(entropy) }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({}, {}, {:?})", self.id.0, self.label, self.priority)
    }
}

/// A finished job.
#[derive(Debug)]
pub struct Computed {
    /// Its name.
    pub id: JobId,
    /// What came out.
    pub done: Done,
}

/// What a job produced.
pub enum Done {
    /// A party took a step; it comes back unless it has finished.
    Party(Option<Box<dyn Party>>, Step),
    /// One piece of an ingredient.
    Piece(Secret),
    /// Nobody wanted it any more when a worker had time.
    Nothing,
    /// What was computed in advance from the rows of an auxiliary set.
    Precomputed(Option<Opened>),
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Party(_, step) => write!(f, "Party({} messages)", step.messages.len()),
            Self::Piece(_) => f.write_str("Piece(..)"),
            Self::Nothing => f.write_str("Nothing"),
            Self::Precomputed(_) => f.write_str("Precomputed(..)"),
        }
    }
}

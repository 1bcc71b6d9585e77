//! Makes a wallet's key exist exactly once per epoch.
//!
//! After key generation or resharing every member of the new committee stores its share and signs that it did
//! ([`statement`]); [`consensus`](crate::consensus) decides which such session becomes the epoch; the statements and the
//! votes are the [`certificate`] that proves it to everybody; [`closing`] proves that none of those so far does; [`record`] is what a node keeps on disk of all that.
//!
//! Invariant: a key may be used only under a certificate that verifies, and a certificate verifies only if all members
//! hold their shares durably and a quorum of the deciding committee voted for exactly that session.

pub(crate) mod activation;
pub(crate) mod cache;
pub mod certificate;
pub mod closing;
pub mod record;
pub mod statement;

pub use certificate::{Certificate, CertificateError, Value};
pub use closing::{Choice, ChoiceName, Closing, Grounds, Votes};
pub use record::{
    AcceptorRecord, CastVote, CertificateRecord, PendingRecord, PreparedRecord, RecordError, ShareRecord, StoppedRecord,
};
pub use statement::{
    Activated, FormError, Keys, Prepared, PreparedSession, Promised, Refused, SessionFacts, SessionId, Signature, Slot,
    StatementError, Vote,
};

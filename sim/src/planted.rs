//! Bugs that are put in on purpose, to see that the harness notices them. Some sit in the simulated ports and in the
//! ideal suites, where a real adapter or a real suite could be wrong, and run against the core that is shipped; the
//! others sit inside core itself and need a build with `MPCIUM_PLANTED_BUGS=1` (`mpcium_core::planted`).

use mpcium_core::{planted::Bug, store::Keyspace};
use serde::Serialize;

use crate::scenario::Profile;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Planted {
    /// The disk confirms one batch in eight without ever syncing it.
    ForgottenSync,
    /// The disk confirms a batch when it is ordered.
    ConfirmedBeforeWrite,
    /// A restart finds nothing of this keyspace.
    Forgets(Keyspace),
    /// One read in eight never comes back.
    LostRead,
    /// One confirmation of a write in eight never comes.
    LostConfirmation,
    /// One result of a computation in sixteen never comes back.
    LostComputation,
    /// A request is acknowledged when it is delivered.
    AcknowledgedOnDelivery,
    /// One publication in four is confirmed but never reaches the stream.
    DroppedPublication,
    /// What is published again is not quite the same.
    AlteredAnswer,
    /// The de-duplication id is another one after a restart.
    FreshDeduplication,
    /// A redelivered request has a new timestamp.
    NewTimestamp,
    /// The queue loses a request that a node gave back.
    LostRelease,
    /// Nodes trust somebody else than the initiator.
    WrongInitiator,
    /// Nodes sign with one share less than was configured, where a node accepts that.
    LowThreshold,
    /// Every process of a node starts with the same randomness.
    SameRandomness,
    /// Share records travel in clear.
    SharesInClear,
    /// A node reports a share when it is durable, as numbers.
    ShareInReport,
    /// A success is published with one attestation too few.
    AttestationMissing,
    /// A signing party's nonce depends on the message alone.
    NonceOfMessage,
    /// A presignature that was used comes back when the next is made, after a restart too.
    PresignatureKept,
    /// Key generation gives the first party a share that does not belong to its public share.
    WrongShare,
    /// Signing yields the other `s` on secp256k1, and verification does not mind.
    HighS,
    /// A bug inside core.
    Core(Bug),
}

impl Planted {
    /// Those outside core.
    pub const OUTSIDE: [Self; 26] = [
        Self::ForgottenSync,
        Self::ConfirmedBeforeWrite,
        Self::Forgets(Keyspace::Decisions),
        Self::Forgets(Keyspace::Pending),
        Self::Forgets(Keyspace::Certificates),
        Self::Forgets(Keyspace::Shares),
        Self::Forgets(Keyspace::Ledger),
        Self::LostRead,
        Self::LostConfirmation,
        Self::LostComputation,
        Self::AcknowledgedOnDelivery,
        Self::DroppedPublication,
        Self::AlteredAnswer,
        Self::FreshDeduplication,
        Self::NewTimestamp,
        Self::LostRelease,
        Self::WrongInitiator,
        Self::LowThreshold,
        Self::SameRandomness,
        Self::SharesInClear,
        Self::ShareInReport,
        Self::AttestationMissing,
        Self::NonceOfMessage,
        Self::PresignatureKept,
        Self::WrongShare,
        Self::HighS,
    ];

    /// All that this build can plant.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let core = if mpcium_core::planted::BUILT_IN { Bug::ALL } else { &[] };
        Self::OUTSIDE.into_iter().chain(core.iter().copied().map(Self::Core)).collect()
    }

    /// The profile in which it can be noticed.
    #[must_use]
    pub fn profile(self) -> Profile {
        match self {
            Self::Core(
                Bug::EarlyRoomUnlimited
                | Bug::StaleIncarnation
                | Bug::WrongCulprit
                | Bug::UnverifiedRelease
                | Bug::InitiatorUnchecked
                | Bug::BanSaidBeforeDurable
                | Bug::BanEndsNothing,
            ) => Profile::Byzantine,
            Self::Core(Bug::HigherS) => Profile::Small,
            Self::Core(Bug::EntryKept) => Profile::Soak,
            _ => Profile::Ideal,
        }
    }

    /// What is planted in core.
    #[must_use]
    pub fn in_core(self) -> Option<Bug> {
        match self {
            Self::Core(bug) => Some(bug),
            _ => None,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::ForgottenSync => "forgotten-sync".into(),
            Self::ConfirmedBeforeWrite => "confirmed-before-write".into(),
            Self::Forgets(keyspace) => format!("forgets-{}", keyspace.name()),
            Self::LostRead => "lost-read".into(),
            Self::LostConfirmation => "lost-confirmation".into(),
            Self::LostComputation => "lost-computation".into(),
            Self::AcknowledgedOnDelivery => "acknowledged-on-delivery".into(),
            Self::DroppedPublication => "dropped-publication".into(),
            Self::AlteredAnswer => "altered-answer".into(),
            Self::FreshDeduplication => "fresh-deduplication".into(),
            Self::NewTimestamp => "new-timestamp".into(),
            Self::LostRelease => "lost-release".into(),
            Self::WrongInitiator => "wrong-initiator".into(),
            Self::LowThreshold => "low-threshold".into(),
            Self::SameRandomness => "same-randomness".into(),
            Self::SharesInClear => "shares-in-clear".into(),
            Self::ShareInReport => "share-in-report".into(),
            Self::AttestationMissing => "attestation-missing".into(),
            Self::NonceOfMessage => "nonce-of-message".into(),
            Self::PresignatureKept => "presignature-kept".into(),
            Self::WrongShare => "wrong-share".into(),
            Self::HighS => "high-s".into(),
            Self::Core(bug) => bug.name().into(),
        }
    }

    /// The bug of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|planted| planted.name() == name)
    }
}

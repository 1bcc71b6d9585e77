//! Bugs that are put in on purpose, each one line where it hurts, so that the simulator can show that it notices them.
//!
//! They exist only in a build with `MPCIUM_PLANTED_BUGS=1`, which no release accepts; in every other build
//! [`planted`] is the constant `false` and the lines around it vanish. Which bug is active is chosen at run time, per
//! thread, because the simulator runs one cluster per thread.

#[cfg(all(planted_bugs, not(debug_assertions)))]
compile_error!("planted bugs must never be part of a release: unset MPCIUM_PLANTED_BUGS");

/// Whether this build can plant bugs at all.
pub const BUILT_IN: bool = cfg!(planted_bugs);

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $variant:ident = $name:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Bug {
            $($(#[doc = $what])+ $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is wrong, in words.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => concat!($($what),+),)* }
            }
        }
    };
}

bugs! {
    /// A packet that carries something again is sealed under the counter of the packet before it.
    NonceReused = "nonce-reused",
    /// A heartbeat does not advance the packet counter.
    CounterNotAdvanced = "counter-not-advanced",
    /// A fragment that arrives a second time is handed up a second time.
    DeliveredTwice = "delivered-twice",
    /// What was lost is never sent again when its time has come.
    NeverSentAgain = "never-sent-again",
    /// The room for messages that overtake their proposal has no limit.
    EarlyRoomUnlimited = "early-room-unlimited",
    /// Messages that overtake their proposal are dropped.
    EarlyMessagesDropped = "early-messages-dropped",
    /// A link that goes down ends no session.
    SessionSurvivesRestart = "session-survives-restart",
    /// Participants may be named with a start of theirs that is over.
    StaleIncarnation = "stale-incarnation",
    /// Links begin before this start is durable.
    StartedBeforeDurable = "started-before-durable",
    /// Messages of a session still leave after its deadline.
    DeadlineIgnored = "deadline-ignored",
    /// The execution id covers the request alone: every attempt has the same.
    ExecutionIdReused = "execution-id-reused",
    /// Blame hits the neighbour of whoever cheated.
    WrongCulprit = "wrong-culprit",
    /// A member stores what it has promised in another ballot.
    StoresAnything = "stores-anything",
    /// The number of an attempt only counts on from what this node knows.
    AttemptNotFromClock = "attempt-not-from-clock",
    /// A signature is published when one member fewer than needed holds it.
    PublishedTooEarly = "published-too-early",
    /// A coordinator chooses with one promise fewer than needed.
    ClosedTooEarly = "closed-too-early",
    /// A coordinator believes that a signature which a participant stored verifies.
    UnverifiedRelease = "unverified-release",
    /// A participant says that it stored a result before it has.
    SaidBeforeWritten = "said-before-written",
    /// A result that is held answers the same id with any payload.
    PayloadUnchecked = "payload-unchecked",
    /// Participants do not check the initiator's signature.
    InitiatorUnchecked = "initiator-unchecked",
    /// Nobody checks authorizers.
    AuthorizersUnchecked = "authorizers-unchecked",
    /// The derivation path is ignored.
    PathIgnored = "path-ignored",
    /// An answer goes to the subject of requests without a client's name.
    ClientIgnored = "client-ignored",
    /// An error is published without being stored by anybody.
    ErrorNotRemembered = "error-not-remembered",
    /// A member says that it stored a verdict before it has.
    VerdictNotDurable = "verdict-not-durable",
    /// A member does not tell which verdicts it holds.
    VerdictForgotten = "verdict-forgotten",
    /// What a member has stored does not keep it from promising a lower ballot after a restart.
    BallotsForgotten = "ballots-forgotten",
    /// A verdict counts as decided when one member fewer than a majority holds it.
    DecidedTooEarly = "decided-too-early",
    /// A member that starts again promises ballots below those that it may have promised before.
    PromisesForgotten = "promises-forgotten",
    /// A redelivered request is answered with other bytes.
    SecondAnswer = "second-answer",
    /// What a node holds or runs is not kept alive in the queue.
    NotKeptAlive = "not-kept-alive",
    /// A member that has prepared a wallet says that it does not know it.
    AbsenceTooSoon = "absence-too-soon",
    /// A request that waits for a ledger record is not woken when it has been read.
    LostWakeUp = "lost-wake-up",
    /// A request that is answered leaves its place taken as far as others know.
    PlaceNotFreed = "place-not-freed",
    /// The number of running signatures has no limit.
    PlacesUnlimited = "places-unlimited",
    /// A restarted acceptor knows nothing of its promises and votes.
    AcceptorForgets = "acceptor-forgets",
    /// An acceptor votes below what it promised.
    VotesBelowPromise = "votes-below-promise",
    /// A member goes on with the sessions of a slot that is closed.
    VotesForClosed = "votes-for-closed",
    /// Proposers propose and acceptors vote for what they like, whatever promises say of votes.
    VotesIgnored = "votes-ignored",
    /// A node whose store was rolled back goes on as if nothing had happened.
    RolledBackVotes = "rolled-back-votes",
    /// A certificate lacks one member's statement.
    StatementMissing = "statement-missing",
    /// A decision is made with one vote fewer than needed.
    VoteMissing = "vote-missing",
    /// A member states that it is prepared before its shares are durable.
    PreparedBeforeDurable = "prepared-before-durable",
    /// A ban is told before it is durable.
    BanSaidBeforeDurable = "ban-said-before-durable",
    /// A ban ends no other run that uses the same auxiliary data.
    BanEndsNothing = "ban-ends-nothing",
    /// A run with a presignature begins before it is durable that the presignature is used.
    PresignatureUseNotDurable = "presignature-use-not-durable",
    /// What is published is never taken off the table of what is under way.
    EntryKept = "entry-kept",
    /// Signatures on secp256k1 have the higher `s`.
    HigherS = "higher-s",
}

impl Bug {
    /// The bug of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

#[cfg(planted_bugs)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in every node of this thread from now on, or none. Does nothing unless they are [`BUILT_IN`].
pub fn plant(bug: Option<Bug>) {
    #[cfg(planted_bugs)]
    ACTIVE.set(bug);
    #[cfg(not(planted_bugs))]
    let _ = bug;
}

/// Whether this bug is planted here.
#[cfg(planted_bugs)]
pub(crate) fn planted(bug: Bug) -> bool {
    ACTIVE.get() == Some(bug)
}

/// Whether this bug is planted here: never.
#[cfg(not(planted_bugs))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for bug in Bug::ALL {
            assert_eq!(Bug::parse(bug.name()), Some(*bug));
        }
        assert!(!planted(Bug::NonceReused), "nothing is planted unless somebody plants it");
    }
}

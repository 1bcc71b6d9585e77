//! What the seeds of a profile must have reached, or the runs say less than they seem to.

use crate::scenario::Profile;

/// Rare states by profile, each with the seeds that reach it as far as experience goes: fewer are not asked.
pub const REACHED: [(Profile, u64, &[&str]); 7] = [
    (
        Profile::Ideal,
        3_000,
        &[
            "a rolled-back node was brought up to date",
            "a session made no progress",
            "a session met its deadline",
            "declined: busy",
            "declined: no such presignature",
            "declined: the wallet is unknown",
            "sits out a decision",
        ],
    ),
    (
        Profile::Ideal,
        500,
        &[
            "a broken seal",
            "a damaged handshake",
            "a higher attempt ended a lower one",
            "a member did not hear that a wallet was decided",
            "a message was cut into fragments",
            "a node learned that it was rolled back",
            "a peer gave up before this one had started",
            "a peer's rollback was noticed",
            "a request waited for a free place",
            "a request waited for auxiliary data",
            "a request waited for peers",
            "a second ballot",
            "a session ended with a link",
            "a slot was closed",
            "a write failed",
            "alarm",
            "another session made the wallet",
            "auxiliary set ready",
            "crashed before a write",
            "crashed between sync and answer",
            "crashed between write and sync",
            "crashed inside a write",
            "decided in a later ballot",
            "declined: a higher attempt is known",
            "declined: a participant has restarted",
            "declined: another payload",
            "declined: another session runs",
            "declined: no link to a participant",
            "declined: unfit",
            "delivered again while the first taker works",
            "finished auxiliary",
            "finished keygen",
            "finished presign secp256k1",
            "finished sign ed25519",
            "finished sign secp256k1",
            "finished sign secp256k1 presigned",
            "handshakes were limited",
            "healed core without auxiliary data",
            "link down",
            "link trouble",
            "lost acknowledgement of a publication",
            "lost delivery",
            "lost settlement",
            "messages overtook their proposal",
            "outside the core: deaf",
            "outside the core: mute",
            "outside the core: paused",
            "nobody heard from whom a wallet was decided",
            "node not ready",
            "promised above a vote",
            "proposal declined",
            "redelivery",
            "refused what it never prepared",
            "released delivery",
            "repeated publication",
            "request waits",
            "restart",
            "second or later attempt",
            "session ended with silent peers",
            "session failed",
            "started with an open decision",
            "started with an undecided session",
            "stopped in good order",
            "the coordinator ended an attempt",
            "the others were asked for a wallet",
            "the same id with another payload",
            "the same request again",
            "wallet activated",
        ],
    ),
    (
        Profile::Small,
        30,
        &["finished auxiliary", "finished keygen", "finished sign ed25519", "finished sign secp256k1", "restart"],
    ),
    // Honest members of one session end it together, so hardly ever does one refuse it while another still runs it.
    (Profile::Byzantine, 500, &["a member refused a session"]),
    (
        Profile::Byzantine,
        200,
        &[
            "cheater altered a message",
            "cheater claimed what nobody told it",
            "cheater answered with a wrong share",
            "cheater claimed another sender",
            "cheater delayed a message",
            "cheater dropped a message",
            "cheater equivocated",
            "cheater failed a check of a pair",
            "cheater fell silent after preparing",
            "cheater flooded its peers",
            "cheater proposed two sessions at once",
            "cheater proposed what nobody asked for",
            "cheater raised ballots",
            "cheater refused what it had prepared",
            "cheater repeated a message",
            "cheater replayed a message",
            "cheater reported another signature",
            "cheater sent what is no message",
            "finished sign ed25519",
            "finished sign secp256k1",
            "a pair was banned",
            "a session made no progress",
            "message ignored",
            "session ended with culprits",
        ],
    ),
    (
        Profile::Upgrade,
        20,
        &["a request that an earlier version answered", "finished sign secp256k1", "stopped in good order"],
    ),
    (Profile::Soak, 1, &["finished sign secp256k1", "restart", "the same request again"]),
];

/// Faults of every kind must have happened in the ideal profile.
pub const FAULTS: [&str; 28] = [
    "blackout",
    "bus outage",
    "clock jump",
    "crash after sync",
    "crash before sync",
    "crash before write",
    "crash, torn write",
    "deaf",
    "delay",
    "discovery",
    "disk error",
    "full disk",
    "isolation",
    "kill",
    "loss",
    "lost request",
    "mute",
    "one-way partition",
    "pause",
    "queue failover",
    "rollback",
    "rolling restart",
    "slow disk",
    "slow processor",
    "split",
    "storm",
    "stalled queue",
    "swizzle",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `counters.sometimes("` and the next quotation mark.
    fn counted(source: &str) -> impl Iterator<Item = &str> {
        source.split(r#"sometimes(""#).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn every_rare_state_that_is_told_must_be_reached() {
        let told = counted(include_str!("rare.rs")).chain(crate::rare::told_by_words());
        let reached: Vec<&str> = REACHED.iter().flat_map(|(_, _, states)| states.iter().copied()).collect();
        let missing: Vec<&str> = told.filter(|state| !reached.contains(state)).collect();
        assert!(missing.is_empty(), "never demanded: {missing:?}");
    }
}

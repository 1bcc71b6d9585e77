//! Which rare states were reached, told by the same facts that invariants see: a fault, a rate or a profile that never
//! leads there shows as a counter that stays at zero (`reached.rs` says which must be).

use mpcium_core::{
    limits,
    node::Status,
    report::Report,
    store::{Batch, Keyspace},
    wallet::{AcceptorRecord, CertificateRecord, Choice, PendingRecord, record::Stored},
};

use crate::{counters::Counters, invariants::Fact, records};

/// What a node says that learns that its store was put back.
const OWN_ROLLBACK: &str = "remembers what this node told it";

/// Words in the reason of a session's end, and what they tell.
const ENDS: [(&str, &str); 8] = [
    ("a higher attempt has begun", "a higher attempt ended a lower one"),
    ("another session made the wallet", "another session made the wallet"),
    ("a member has refused the session", "a member refused a session"),
    ("the request's deadline has passed", "a session met its deadline"),
    ("the coordinator ended the attempt", "the coordinator ended an attempt"),
    ("the link to", "a session ended with a link"),
    ("gave up before this node had started", "a peer gave up before this one had started"),
    ("no progress", "a session made no progress"),
];

/// The same for refused proposals.
const DECLINES: [(&str, &str); 9] = [
    ("a higher attempt of", "declined: a higher attempt is known"),
    ("it is busy", "declined: busy"),
    ("has restarted", "declined: a participant has restarted"),
    ("it has no link to", "declined: no link to a participant"),
    ("with another payload", "declined: another payload"),
    ("damaged or was rolled back", "declined: unfit"),
    ("does not know wallet", "declined: the wallet is unknown"),
    ("does not hold that presignature", "declined: no such presignature"),
    ("another session for the wallet", "declined: another session runs"),
];

/// The same for trouble with links.
const TROUBLES: [(&str, &str); 5] = [
    (OWN_ROLLBACK, "a node learned that it was rolled back"),
    ("does not know what", "a peer's rollback was noticed"),
    ("too many handshakes", "handshakes were limited"),
    ("has a broken seal", "a broken seal"),
    ("is not signed with the identity key", "a damaged handshake"),
];

/// The same for requests that wait.
const WAITS: [(&str, &str); 4] = [
    ("whether they know the wallet", "the others were asked for a wallet"),
    ("a free place among", "a request waited for a free place"),
    ("auxiliary data", "a request waited for auxiliary data"),
    ("to answer", "a request waited for peers"),
];

/// Tables whose use is rare.
const TABLES: [(&str, &str); 1] = [("sessions with early messages", "messages overtook their proposal")];

/// Whether a node says that it has learned that its own store was put back.
#[must_use]
pub fn tells_of_own_rollback(report: &Report) -> bool {
    matches!(report, Report::LinkTrouble { what, .. } if what.contains(OWN_ROLLBACK))
}

/// All states that are told by words.
#[cfg(test)]
pub(crate) fn told_by_words() -> impl Iterator<Item = &'static str> {
    let tables: [&[(&str, &'static str)]; 5] = [&ENDS, &DECLINES, &TROUBLES, &WAITS, &TABLES];
    tables.into_iter().flat_map(|table| table.iter().map(|(_, state)| *state))
}

fn told_by(text: &str, table: &[(&str, &'static str)]) -> Option<&'static str> {
    table.iter().find(|(words, _)| text.contains(words)).map(|(_, state)| *state)
}

/// Counts the rare states that a fact shows.
pub fn note(counters: &mut Counters, fact: &Fact<'_>) {
    match fact {
        Fact::Report { report, .. } => told(counters, report),
        Fact::Durable { batch, .. } => durable(counters, batch),
        Fact::Datagram { bytes, .. } if bytes.len() > limits::FRAGMENT_BYTES_MAX => {
            counters.sometimes("a message was cut into fragments");
        }
        Fact::Status { status, .. } => looked(counters, status),
        _ => {}
    }
}

fn durable(counters: &mut Counters, batch: &Batch) {
    for write in &batch.writes {
        let Some(value) = write.value.as_ref().map(|value| value.expose()) else { continue };
        match write.keyspace {
            Keyspace::Decisions => {
                let Ok(record) = records::read::<AcceptorRecord>(value) else { continue };
                if record.acceptor.promised().is_some_and(|ballot| ballot.round > 1) {
                    counters.sometimes("a second ballot");
                }
                if record.slot.number > 0 {
                    counters.sometimes("a slot was closed");
                }
                if let Some(voted) = record.acceptor.voted()
                    && matches!(voted.value, Choice::Session(_))
                    && record.acceptor.promised().is_some_and(|promised| promised > voted.ballot)
                {
                    counters.sometimes("promised above a vote");
                }
            }
            Keyspace::Pending => {
                if let Ok(PendingRecord::Refused(_)) = PendingRecord::decode(value) {
                    counters.sometimes("refused what it never prepared");
                }
            }
            Keyspace::Certificates => {
                let Ok(record) = records::read::<CertificateRecord>(value) else { continue };
                if record.certificate.ballot.round > 1 {
                    counters.sometimes("decided in a later ballot");
                }
            }
            Keyspace::Meta if write.key.starts_with(b"sits out") => counters.sometimes("sits out a decision"),
            _ => {}
        }
    }
}

fn looked(counters: &mut Counters, status: &Status) {
    for table in status.tables.iter().filter(|table| table.entries > 0) {
        if let Some((_, state)) = TABLES.iter().find(|(name, _)| *name == table.name) {
            counters.sometimes(state);
        }
    }
}

fn told(counters: &mut Counters, report: &Report) {
    match report {
        Report::SessionStarted { attempt, .. } if *attempt > 1 => counters.sometimes("second or later attempt"),
        Report::SessionEnded { protocol, reason, .. } if reason.is_empty() => {
            counters.sometimes(&format!("finished {protocol}"));
        }
        Report::SessionEnded { reason, culprits, silent, .. } => {
            counters.sometimes("session failed");
            if !culprits.is_empty() {
                counters.sometimes("session ended with culprits");
            }
            if !silent.is_empty() {
                counters.sometimes("session ended with silent peers");
            }
            if let Some(state) = told_by(reason, &ENDS) {
                counters.sometimes(state);
            }
        }
        Report::Declined { reason, .. } => {
            counters.sometimes("proposal declined");
            if let Some(state) = told_by(reason, &DECLINES) {
                counters.sometimes(state);
            }
        }
        Report::RequestWaits { waiting_for, .. } => {
            counters.sometimes("request waits");
            if let Some(state) = told_by(waiting_for, &WAITS) {
                counters.sometimes(state);
            }
        }
        Report::LinkTrouble { what, .. } => {
            counters.sometimes("link trouble");
            if let Some(state) = told_by(what, &TROUBLES) {
                counters.sometimes(state);
            }
        }
        Report::LinkDown { .. } => counters.sometimes("link down"),
        Report::NotReady { .. } => counters.sometimes("node not ready"),
        Report::WalletActivated { .. } => counters.sometimes("wallet activated"),
        Report::AuxiliaryReady { .. } => counters.sometimes("auxiliary set ready"),
        Report::CaughtUp => counters.sometimes("a rolled-back node was brought up to date"),
        Report::PairBanned { .. } => counters.sometimes("a pair was banned"),
        Report::Ignored { .. } => counters.sometimes("message ignored"),
        Report::Alarm { .. } => counters.sometimes("alarm"),
        _ => {}
    }
}

//! What must always hold, one file each. Checkers stand outside the system under test: they see what crosses a port,
//! what is durable, and what nodes report, and nothing of a node's inside.

mod acknowledged_after_answer;
mod answers_fit;
mod answers_stay;
mod attested;
mod authorized_work;
mod bans_kept;
mod behind_sits_out;
mod bounded;
mod calm_after_healing;
mod certificates_agree;
mod deadlines;
mod durable_before_answer;
mod epochs_grow;
mod liveness;
mod no_secret_seen;
mod nobody_is_wronged;
mod nothing_grows;
mod one_answer;
mod packet_counters;
mod promises_kept;
mod sessions_end;
mod shares_interpolate;
mod signatures_verify;
mod slots_decide_once;
mod starts_are_unique;
mod used_before_signed;

use mpcium_core::{input::RequestKind, node::Status, report::Report, store::Batch};

use crate::{
    ideal::{PairSeen, Reveal},
    world::{Answer, Request, World},
};

/// Something that happened and can be seen from outside.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A client sent a request.
    Sent {
        /// What.
        request: &'a Request,
    },
    /// An answer reached the result stream.
    Answer {
        /// From whom.
        node: usize,
        /// What.
        answer: &'a Answer,
    },
    /// A node told the queue that a request is answered.
    Acknowledged {
        /// Who.
        node: usize,
        /// Which queue.
        kind: RequestKind,
        /// Which message.
        sequence: u64,
    },
    /// A node reported something.
    Report {
        /// Who.
        node: usize,
        /// What.
        report: &'a Report,
        /// The same as JSON.
        text: &'a str,
    },
    /// A node sent a datagram.
    Datagram {
        /// Who.
        from: usize,
        /// What.
        bytes: &'a [u8],
    },
    /// A batch became durable.
    Durable {
        /// Where.
        node: usize,
        /// What.
        batch: &'a Batch,
    },
    /// How a node says that it is.
    Status {
        /// Who.
        node: usize,
        /// How.
        status: &'a Status,
    },
    /// A secret came into being (only ideal suites tell).
    Secret {
        /// The secret.
        bytes: &'a [u8],
    },
    /// A party began to sign a message (only ideal suites tell).
    Signing {
        /// The message.
        message: &'a [u8],
    },
    /// A node gets a step back in which its party revealed its last secret (only ideal suites tell).
    Revealed {
        /// Who.
        node: usize,
        /// What.
        reveal: &'a Reveal,
    },
    /// Somebody received the last secret of a party (only ideal suites tell).
    Absorbed {
        /// Of which run.
        execution: [u8; 32],
        /// Of which party.
        position: u16,
    },
    /// A node orders a step that makes or uses auxiliary data of a pair (only ideal suites tell).
    Pair {
        /// Who.
        node: usize,
        /// What.
        seen: &'a PairSeen,
    },
    /// The run ends: everything was answered.
    End,
}

/// One property.
pub trait Invariant: Send {
    /// Its name, as in the documentation.
    fn name(&self) -> &'static str;
    /// Looks at a fact.
    ///
    /// # Errors
    /// In words, what is violated.
    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String>;
}

/// All of them, knowing nothing yet.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(signatures_verify::SignaturesVerify::default()),
        Box::new(attested::Attested::default()),
        Box::new(one_answer::OneAnswer::default()),
        Box::new(acknowledged_after_answer::AcknowledgedAfterAnswer),
        Box::new(authorized_work::AuthorizedWork::default()),
        Box::new(durable_before_answer::DurableBeforeAnswer::default()),
        Box::new(certificates_agree::CertificatesAgree::default()),
        Box::new(shares_interpolate::SharesInterpolate::default()),
        Box::new(epochs_grow::EpochsGrow::default()),
        Box::new(bounded::Bounded),
        Box::new(no_secret_seen::NoSecretSeen::default()),
        Box::new(liveness::Settled),
        Box::new(answers_fit::AnswersFit),
        Box::new(answers_stay::AnswersStay::default()),
        Box::new(packet_counters::PacketCounters::default()),
        Box::new(starts_are_unique::StartsAreUnique::default()),
        Box::new(sessions_end::SessionsEnd::default()),
        Box::new(promises_kept::PromisesKept::default()),
        Box::new(slots_decide_once::SlotsDecideOnce::default()),
        Box::new(deadlines::Deadlines::default()),
        Box::new(nobody_is_wronged::NobodyIsWronged),
        Box::new(bans_kept::BansKept::default()),
        Box::new(behind_sits_out::BehindSitsOut::default()),
        Box::new(used_before_signed::UsedBeforeSigned::default()),
        Box::new(nothing_grows::NothingGrows::default()),
        Box::new(calm_after_healing::CalmAfterHealing::default()),
    ]
}

//! An answer is about the request that it answers and goes where its client listens; and nobody is told that a wallet
//! does not exist once its creation was answered.

use mpcium_client::subjects::answered_sequence;
use mpcium_core::input::RequestKind;

use super::{Fact, Invariant};
use crate::world::{Answer, Request, World};

pub(super) struct AnswersFit;

/// The request that an answer answers, by its place in the stream.
pub(super) fn request<'a>(world: &'a World, answer: &Answer) -> Option<&'a Request> {
    let keygen = answer.subject.starts_with("mpc.mpc_keygen_result");
    let kind = if keygen { RequestKind::Keygen } else { RequestKind::Sign };
    world.clients.request(kind, answered_sequence(kind, &answer.dedup)?)
}

impl Invariant for AnswersFit {
    fn name(&self) -> &'static str {
        "answers_fit"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Answer { node, answer } = fact else { return Ok(()) };
        // What is no request at all has no client.
        let Some(request) = request(world, answer) else { return Ok(()) };
        if answer.wallet != request.wallet || answer.transaction != request.transaction {
            return Err(format!(
                "node{node} answered {} {} where {} {} was asked",
                answer.wallet, answer.transaction, request.wallet, request.transaction
            ));
        }
        let client = request.client.as_ref().map(|client| format!("{client}.")).unwrap_or_default();
        let expected = match request.kind {
            RequestKind::Sign => format!("mpc.mpc_signing_result.{client}complete"),
            _ => format!("mpc.mpc_keygen_result.{client}{}", request.wallet),
        };
        if answer.subject != expected {
            return Err(format!("node{node} published on {} what is awaited on {expected}", answer.subject));
        }
        let code = answer.body.get("error_code").and_then(|code| code.as_str());
        let known = world.clients.known_since.get(&request.wallet).is_some_and(|since| *since < request.at);
        let rolled_back = world.machines.iter().any(|machine| machine.rolled_back);
        if code == Some("ERROR_KEY_NOT_FOUND") && known && !rolled_back {
            return Err(format!("node{node} says that {} does not exist, which was answered before", request.wallet));
        }
        Ok(())
    }
}

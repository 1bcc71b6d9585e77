//! Blame names only those who cheat, and among honest nodes nothing happens that only a liar can bring about: no
//! message that must be ignored, no proposal that repeats a session, no alarm without a cause.

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::world::World;

/// Reasons for a refusal that an honest coordinator never gives cause for.
const NEVER: [&str; 7] = [
    "has run before",
    "names another coordinator",
    "is proposed twice",
    "too many deliveries",
    "is not the configured one",
    "later than any request's can be",
    "participants are proposed and",
];

pub(super) struct NobodyIsWronged;

impl Invariant for NobodyIsWronged {
    fn name(&self) -> &'static str {
        "nobody_is_wronged"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Report { node, report, .. } = fact else { return Ok(()) };
        // Whoever cheats, cheats itself too: its node sees a world that answers to its lies.
        if world.scenario.is_cheater(*node) {
            return Ok(());
        }
        let cheats =
            |name: &String| world.scenario.cheaters.iter().any(|cheater| format!("node{}", cheater.node) == *name);
        if let Report::SessionEnded { culprits, session, reason, .. } = report
            && let Some(wronged) = culprits.iter().find(|name| !cheats(name))
        {
            return Err(format!("node{node} blames {wronged}, which is honest, in session {session}: {reason}"));
        }
        if let Report::PairBanned { peer, by, reason, .. } = report
            && *by == format!("node{node}")
            && !cheats(peer)
        {
            return Err(format!("node{node} bans its pair with {peer}, which is honest: {reason}"));
        }
        let rolled_back = world.machines.iter().any(|machine| machine.rolled_back);
        let restored = |node: usize| world.machines.get(node).is_some_and(|machine| machine.rolled_back);
        let unlikely = match report {
            Report::LinkTrouble { what, alarm: true } => {
                let liar = what.split(' ').next().unwrap_or_default().to_owned();
                !(rolled_back || what.ends_with(" lies") && cheats(&liar))
            }
            Report::Alarm { what } => {
                let known = what.contains("rolled back") && restored(*node);
                !(known || rolled_back && what.contains("certificates"))
            }
            Report::Ignored { peer, .. } => !cheats(peer) && !rolled_back,
            Report::Declined { reason, .. } => {
                world.scenario.cheaters.is_empty() && NEVER.iter().any(|never| reason.contains(never))
            }
            _ => false,
        };
        if unlikely { Err(format!("node{node}, among honest nodes: {report}")) } else { Ok(()) }
    }
}

//! Nothing grows without limit: datagrams, record names, sessions and requests stay within the named limits.

use mpcium_core::limits;

use super::{Fact, Invariant};
use crate::world::World;

pub(super) struct Bounded;

fn within(node: usize, what: &str, number: usize, most: usize) -> Result<(), String> {
    if number > most { Err(format!("node{node}: {number} {what}, at most {most} are allowed")) } else { Ok(()) }
}

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Datagram { from, bytes } => {
                within(*from, "bytes in a datagram", bytes.len(), limits::DATAGRAM_BYTES_MAX)
            }
            Fact::Durable { node, batch } => batch.writes.iter().try_for_each(|write| {
                within(*node, "bytes in a record's name", write.key.len(), limits::RECORD_KEY_BYTES_MAX)
            }),
            Fact::Status { node, status } => {
                within(*node, "sessions", status.sessions.len(), limits::SESSIONS_MAX)?;
                within(*node, "requests", status.requests.len(), limits::REQUESTS_MAX)?;
                let attempts = status.requests.iter().filter(|r| r.kind == "sign" && r.state.starts_with("attempt"));
                within(*node, "signatures at once", attempts.count(), world.scenario.concurrent_signing)?;
                let mut limited = status.tables.iter().filter_map(|table| Some((table, table.limit?)));
                limited.try_for_each(|(table, limit)| within(*node, &table.name, table.entries, limit))
            }
            _ => Ok(()),
        }
    }
}

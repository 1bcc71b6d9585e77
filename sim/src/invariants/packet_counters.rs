//! No packet counter is used twice under one key: the counter is the nonce. Per sender and link it only grows.

use std::collections::BTreeMap;

use super::{Fact, Invariant};
use crate::world::World;

/// First byte of a sealed packet; link id and counter follow after the version.
const PACKET: u8 = 4;

#[derive(Default)]
pub(super) struct PacketCounters {
    last: BTreeMap<(usize, [u8; 8]), u64>,
}

impl Invariant for PacketCounters {
    fn name(&self) -> &'static str {
        "packet_counters"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Datagram { from, bytes } = fact else { return Ok(()) };
        let (Some(&PACKET), Some(link), Some(counter)) = (
            bytes.first(),
            bytes.get(2..10).and_then(|b| <[u8; 8]>::try_from(b).ok()),
            bytes.get(10..18).and_then(|b| <[u8; 8]>::try_from(b).ok()),
        ) else {
            return Ok(());
        };
        let counter = u64::from_le_bytes(counter);
        match self.last.insert((*from, link), counter) {
            Some(last) if counter <= last => {
                Err(format!("node{from} sealed a packet under counter {counter} after {last}"))
            }
            _ => Ok(()),
        }
    }
}

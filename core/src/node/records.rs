//! Small records of the node itself: its starts, its count of commits, its peers' marks.
//!
//! Each begins with a version. The store authenticates what it returns, so one that cannot be read was written by newer
//! software, and the node stops.

use std::collections::BTreeMap;

use crate::{
    Incarnation, NodeId, PeerInfo, Secret,
    link::{Mark, Start},
    store::{Batch, BootRecord, Keyspace},
};

const VERSION: u8 = 1;
/// Version 1 was under a signature of the peer's, which it does not take back any more.
const MARK_VERSION: u8 = 2;
/// Name of the record that holds the number of commits.
const COMMITS: &[u8] = b"commits";
/// Names of the records of this node's starts begin with this.
const START: &[u8] = b"start ";

/// What the store knows of this node's and its peers' starts.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    /// Commits that the store holds.
    pub commits: u64,
    /// This node's earlier starts.
    pub own: BTreeMap<Incarnation, Start>,
    /// The peers' last marks, each with the identity key under which the peer said it.
    pub peers: BTreeMap<NodeId, ([u8; 32], Mark)>,
}

/// Adds the number of commits that the store holds once it holds this one.
pub(crate) fn put_commits(batch: &mut Batch, commits: u64) {
    let mut record = vec![VERSION];
    record.extend_from_slice(&commits.to_le_bytes());
    batch.put(Keyspace::Meta, COMMITS.to_vec(), record);
}

/// Adds what is known of a start of this node.
pub(crate) fn put_start(batch: &mut Batch, incarnation: Incarnation, start: Start) {
    let mut record = vec![VERSION, u8::from(start.conceded), u8::from(start.found.is_some())];
    record.extend_from_slice(&start.found.unwrap_or_default().to_le_bytes());
    batch.put(Keyspace::Meta, [START, &incarnation.0].concat(), record);
}

/// Adds how far a peer has come.
pub(crate) fn put_mark(batch: &mut Batch, peer: &PeerInfo, mark: &Mark) {
    put_mark_of(batch, peer.id, peer.key.as_bytes(), mark);
}

fn put_mark_of(batch: &mut Batch, peer: NodeId, key: &[u8; 32], mark: &Mark) {
    let mut record = vec![MARK_VERSION];
    record.extend_from_slice(key);
    record.extend_from_slice(&mark.to_bytes());
    batch.put(Keyspace::Peers, peer.as_bytes().to_vec(), record);
}

fn commits(record: &[u8]) -> Option<u64> {
    let (&version, rest) = record.split_first()?;
    (version == VERSION).then_some(u64::from_le_bytes(rest.try_into().ok()?))
}

fn start(record: &[u8]) -> Option<Start> {
    let [VERSION, conceded @ 0..=1, found @ 0..=1, rest @ ..] = record else { return None };
    let commits = u64::from_le_bytes(rest.try_into().ok()?);
    if *found == 0 && commits != 0 {
        return None;
    }
    Some(Start { found: (*found == 1).then_some(commits), conceded: *conceded == 1 })
}

/// `Some(None)`: of a version that is of no use any more.
fn mark(record: &[u8]) -> Option<Option<([u8; 32], Mark)>> {
    let (&version, rest) = record.split_first()?;
    match version {
        VERSION => Some(None),
        MARK_VERSION => {
            let (key, mark) = rest.split_first_chunk()?;
            Some(Some((*key, Mark::from_bytes(mark.try_into().ok()?))))
        }
        _ => None,
    }
}

/// Whether what a writer makes of a record that was read is that record.
fn is_written(record: &[u8], write: impl FnOnce(&mut Batch)) -> bool {
    let mut batch = Batch::default();
    write(&mut batch);
    let written = batch.writes.first().and_then(|write| write.value.as_ref());
    assert_eq!(written.map(Secret::expose), Some(record), "a record has two encodings");
    true
}

/// Reads the number of commits; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_commits(record: &[u8]) -> bool {
    commits(record).is_some_and(|commits| is_written(record, |batch| put_commits(batch, commits)))
}

/// Reads what is known of a start; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_start(record: &[u8]) -> bool {
    start(record).is_some_and(|start| is_written(record, |batch| put_start(batch, Incarnation([0; 16]), start)))
}

/// Reads a peer's mark; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_mark(record: &[u8]) -> bool {
    match mark(record) {
        // Of the old version nothing is read but its number.
        Some(None) => true,
        Some(Some((key, mark))) => {
            is_written(record, |batch| put_mark_of(batch, NodeId::from_bytes([0; 16]), &key, &mark))
        }
        None => false,
    }
}

impl Starts {
    /// Reads them at a start.
    ///
    /// # Panics
    /// If one cannot be read.
    pub fn read(boot: &BootRecord) -> Self {
        let mut starts = Self::default();
        for (keyspace, key, value) in &boot.records {
            let read = match keyspace {
                Keyspace::Meta if key == COMMITS => commits(value.expose()).map(|commits| starts.commits = commits),
                Keyspace::Meta => match key.strip_prefix(START).map(TryInto::try_into) {
                    Some(Ok(incarnation)) => start(value.expose()).map(|start| {
                        starts.own.insert(Incarnation(incarnation), start);
                    }),
                    _ => Some(()),
                },
                Keyspace::Peers => key.as_slice().try_into().ok().zip(mark(value.expose())).map(|(peer, mark)| {
                    starts.peers.extend(mark.map(|mark| (NodeId::from_bytes(peer), mark)));
                }),
                _ => Some(()),
            };
            if read.is_none() {
                panic!("the record {} of {} cannot be read", hex::encode(key), keyspace.name());
            }
        }
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn what_is_written_is_read_again() {
        let identity = Identity::new(NodeId::from_bytes([1; 16]), &[1; 32]);
        let known = Start { found: Some(7), conceded: false };
        let unknown = Start { found: None, conceded: true };
        let mark = Mark::of(&identity, Incarnation([3; 16]), 9);
        let mut batch = Batch::default();
        put_commits(&mut batch, 12);
        put_start(&mut batch, Incarnation([1; 16]), known);
        put_start(&mut batch, Incarnation([2; 16]), unknown);
        let peer = PeerInfo { id: identity.id(), name: "peer".to_owned(), key: identity.public() };
        put_mark(&mut batch, &peer, &mark);
        let old = NodeId::from_bytes([9; 16]);
        batch.put(Keyspace::Peers, old.as_bytes().to_vec(), [&[1][..], &[0; 88]].concat());
        // Somebody else's record, with as long a name.
        batch.put(Keyspace::Meta, b"sits out twelve-bytes!".to_vec(), Vec::new());
        let records = batch.writes.into_iter().filter_map(|w| Some((w.keyspace, w.key, w.value?))).collect();
        let starts = Starts::read(&BootRecord { records, damage: Vec::new() });
        assert_eq!(starts.commits, 12);
        assert_eq!(starts.own, [(Incarnation([1; 16]), known), (Incarnation([2; 16]), unknown)].into());
        assert_eq!(starts.peers, [(identity.id(), (identity.public().to_bytes(), mark))].into());
    }

    #[test]
    #[should_panic = "cannot be read"]
    fn a_record_of_newer_software_stops_the_node() {
        let mut batch = Batch::default();
        batch.put(Keyspace::Meta, COMMITS.to_vec(), vec![2; 9]);
        let records = batch.writes.into_iter().filter_map(|w| Some((w.keyspace, w.key, w.value?))).collect();
        let _ = Starts::read(&BootRecord { records, damage: Vec::new() });
    }
}

//! What must exist: a count and a set hash per keyspace, kept in the database and in a file beside it.
//!
//! Invariant: a commit is acknowledged once the database holds it (synced, with the integrity record of the same batch),
//! and the next one begins only when the file beside holds that record too (synced). So at start the database is where
//! the file says, or exactly one commit ahead (a crash between the two); a database that is behind has lost acknowledged
//! records, and one whose rows do not add up to its own integrity record has lost or gained some. What stays unnoticed
//! here is a disk that loses the very last commit, which it had called durable, in the instant before it calls the file
//! beside so as well; peers remember the number of that commit (`core/src/link/mark.rs`).
//!
//! The set hash is the sum modulo 2^256 of keyed hashes of (row name, nonce, tag). It is only ever stored sealed, so
//! nobody without the data key can compute or steer it.

use std::collections::BTreeMap;

use mpcium_core::store::Keyspace;
use serde::{Deserialize, Serialize};

use super::seal::{self, Keys, Reason};

/// Words about earlier damage that are kept; what is beyond is only counted.
const NOTED_MAX: usize = 16;

/// How many records, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    count: u64,
    hash: [u8; 32],
}

impl Sum {
    /// One record more.
    pub(super) fn add(&mut self, element: &[u8; 32]) {
        self.count = self.count.wrapping_add(1);
        let mut carry = 0_u16;
        for (byte, more) in self.hash.iter_mut().zip(element) {
            let [low, high] = (u16::from(*byte) + u16::from(*more) + carry).to_le_bytes();
            *byte = low;
            carry = u16::from(high);
        }
    }

    /// One record fewer.
    pub(super) fn remove(&mut self, element: &[u8; 32]) {
        self.count = self.count.wrapping_sub(1);
        let mut borrow = 0_u8;
        for (byte, less) in self.hash.iter_mut().zip(element) {
            let (first, under) = byte.overflowing_sub(*less);
            let (second, under_again) = first.overflowing_sub(borrow);
            *byte = second;
            borrow = u8::from(under || under_again);
        }
    }
}

/// The integrity record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Grows by one with each commit.
    pub(super) sequence: u64,
    /// By keyspace number; empty keyspaces may be missing.
    sums: BTreeMap<u8, Sum>,
    /// Damage that was found earlier and is not forgotten when the store is written again.
    pub(super) noted: Vec<String>,
}

impl State {
    /// That of a new store.
    pub(super) fn first() -> Self {
        Self { sequence: 1, ..Self::default() }
    }

    /// The sum of one keyspace.
    pub(super) fn sum(&mut self, number: u8) -> &mut Sum {
        self.sums.entry(number).or_default()
    }

    /// The sealed form.
    pub(super) fn seal(&self, keys: &Keys) -> Result<Vec<u8>, Reason> {
        let plain = postcard::to_stdvec(self).map_err(|error| error.to_string())?;
        keys.seal_state(&plain)
    }

    /// Opens the sealed form.
    pub(super) fn open(keys: &Keys, sealed: &[u8]) -> Result<Self, Reason> {
        Self::read(&keys.open_state(sealed)?)
    }

    /// Reads bytes that are exactly one record, in its one encoding.
    fn read(plain: &[u8]) -> Result<Self, Reason> {
        let malformed = |why: &dyn std::fmt::Display| format!("its seal fits but its content is malformed: {why}");
        let state: Self = postcard::from_bytes(plain).map_err(|error| malformed(&error))?;
        let again = postcard::to_stdvec(&state).map_err(|error| malformed(&error))?;
        if again == plain { Ok(state) } else { Err(malformed(&"it would be written otherwise")) }
    }

    /// Remembers damage for ever.
    pub(super) fn note(&mut self, words: &[String]) {
        for one in words {
            if self.noted.len() < NOTED_MAX && !self.noted.contains(one) {
                self.noted.push(one.clone());
            }
        }
    }

    fn sums_differ(&self, other: &Self) -> Vec<String> {
        let mut words = Vec::new();
        for keyspace in Keyspace::ALL {
            let number = seal::number(keyspace);
            let expected = self.sums.get(&number).copied().unwrap_or_default();
            let found = other.sums.get(&number).copied().unwrap_or_default();
            if expected != found {
                words.push(difference(keyspace, expected.count, found.count));
            }
        }
        words
    }
}

/// One keyspace's difference in words.
/// Reads a record that has been opened; `false`: it is none. See [`super::decode`].
pub(super) fn reads(plain: &[u8]) -> bool {
    State::read(plain).is_ok_and(|mut state| {
        // Whatever the numbers are.
        drop(compare(&State::first(), Some(&state), Some(&State::first())));
        drop(compare(&state, None, Some(&state)));
        state.sum(0).add(&[0xff; 32]);
        state.sum(0).remove(&[0xff; 32]);
        true
    })
}

/// A record as it is before it is sealed.
pub(super) fn sample() -> Result<Vec<u8>, Reason> {
    let mut state = State::first();
    state.sum(seal::number(Keyspace::Shares)).add(&[1; 32]);
    state.note(&["shares: 1 of 2 records are missing".to_owned()]);
    postcard::to_stdvec(&state).map_err(|error| error.to_string())
}

fn difference(keyspace: Keyspace, expected: u64, found: u64) -> String {
    let name = keyspace.name();
    if found < expected {
        let missing = expected - found;
        format!("{name}: {missing} of {expected} records are missing")
    } else if found > expected {
        let more = found - expected;
        format!("{name}: {more} records more than the {expected} that should exist (older ones came back)")
    } else {
        format!("{name}: {expected} records as expected, but some are not the latest")
    }
}

/// Compares what the database holds (`found`, whose sequence and notes are ignored) with what it and the file beside
/// it say must exist. The result is the damage in words; empty: none.
pub(super) fn compare(found: &State, inside: Option<&State>, beside: Option<&State>) -> Vec<String> {
    let mut words = Vec::new();
    match (inside, beside) {
        (None, None) => words.push("neither the database nor the file beside it says what must exist".to_owned()),
        (None, Some(beside)) => {
            words.push("the database has lost its integrity record".to_owned());
            words.extend(beside.sums_differ(found));
        }
        (Some(inside), None) => words.extend(inside.sums_differ(found)),
        (Some(inside), Some(beside)) if inside.sequence < beside.sequence => {
            let lost = beside.sequence - inside.sequence;
            words.push(format!("the database has lost its last {lost} commits"));
            words.extend(beside.sums_differ(found));
        }
        (Some(inside), Some(beside)) => {
            words.extend(inside.sums_differ(found));
            let ahead = inside.sequence - beside.sequence;
            if ahead > 1 {
                words.push(format!("the integrity file is {ahead} commits older than the database"));
            }
            if ahead == 0 && !inside.sums_differ(beside).is_empty() {
                words.push("database and integrity file are of different histories".to_owned());
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_removing_in_any_order_ends_where_it_began() {
        let elements = [[0xff; 32], [1; 32], [0x80; 32], [0xfe; 32]];
        let mut sum = Sum::default();
        elements.iter().for_each(|element| sum.add(element));
        assert_eq!(sum.count, 4);
        elements.iter().rev().for_each(|element| sum.remove(element));
        assert_eq!(sum, Sum::default());
    }

    #[test]
    fn one_commit_ahead_is_a_crash_and_one_behind_is_damage() {
        let at = |sequence| State { sequence, ..State::default() };
        assert!(compare(&at(0), Some(&at(5)), Some(&at(4))).is_empty());
        assert!(compare(&at(0), Some(&at(5)), Some(&at(5))).is_empty());
        assert!(!compare(&at(0), Some(&at(4)), Some(&at(5))).is_empty());
        assert!(!compare(&at(0), Some(&at(6)), Some(&at(4))).is_empty());
        assert!(!compare(&at(0), None, Some(&at(4))).is_empty());
    }

    #[test]
    fn a_keyspace_that_was_emptied_is_as_one_that_never_was_used() {
        let mut emptied = State { sequence: 5, ..State::default() };
        emptied.sum(seal::number(Keyspace::Ingredients)).add(&[1; 32]);
        emptied.sum(seal::number(Keyspace::Ingredients)).remove(&[1; 32]);
        let unused = State { sequence: 5, ..State::default() };
        assert_eq!(compare(&unused, Some(&emptied), Some(&unused)), Vec::<String>::new());
        assert_eq!(compare(&unused, Some(&unused), Some(&emptied)), Vec::<String>::new());
    }

    #[test]
    fn a_missing_record_is_counted_and_its_keyspace_named() {
        let mut expected = State::default();
        expected.sum(seal::number(Keyspace::Shares)).add(&[1; 32]);
        let words = compare(&State::default(), Some(&expected), Some(&expected));
        assert_eq!(words, ["shares: 1 of 1 records are missing"]);
    }
}

//! What is dropped is gone: the test looks for secrets in the memory of its own process, which Linux shows as a file.
//!
//! Only what lives on the heap is looked for: the compiler may leave copies in the frames of functions that have
//! returned, which no program can reach. Everything therefore runs on threads of its own, whose stacks go with them.
//! CGGMP24 is left out: its library computes with big integers of GMP, which gives memory back as it is.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_types, reason = "this is no part of core")]

mod api {
    pub use mpcium_core::protocol::*;
}
#[allow(dead_code, reason = "tests of protocols, with which it is shared, use the rest")]
mod common_protocol;

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use common_protocol::{pump_honestly, runs};
use mpcium_core::{
    Identity, NodeId, Secret,
    protocol::{
        AuxiliaryView, Checked, Curve, DistributedKeyGeneration, Dkls, Frost, KeyGeneration, KeyShare, Outcome, Party,
        Run, Signing, SigningSuite,
    },
    store::{Batch, Keyspace},
};
use zeroize::Zeroize as _;

/// How much of the memory is looked at in one piece.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of a secret that are looked for. The first ones of what is given back to the allocator it overwrites itself.
const TAIL_BYTES: usize = 16;

/// A secret of which this test keeps only the complement, so that it does not find itself.
struct Wanted {
    what: String,
    complement: Vec<u8>,
}

impl Wanted {
    fn new(what: &str, secret: &[u8]) -> Self {
        Self { what: what.to_owned(), complement: secret.iter().map(|byte| !byte).collect() }
    }

    fn tail(&self) -> &[u8] {
        &self.complement[self.complement.len() - TAIL_BYTES..]
    }

    /// The secret itself, for a moment.
    fn with<T>(&self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let mut secret: Vec<u8> = self.complement.iter().map(|byte| !byte).collect();
        let used = use_it(&secret);
        secret.zeroize();
        used
    }

    fn is_at(&self, place: &[u8]) -> bool {
        place.len() >= TAIL_BYTES && self.tail().iter().zip(place).all(|(one, other)| *one == !*other)
    }
}

/// Looks through all that this process may write, one test at a time, and counts where each secret stands.
fn found(wanted: &[Wanted]) -> Vec<usize> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the list of this process's memory");
    let memory = File::open("/proc/self/mem").expect("this process's memory");
    let mut counts = vec![0; wanted.len()];
    let mut piece = vec![0; PIECE_BYTES];
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { panic!("no range: {line}") };
        let (from, to) = range.split_once('-').expect("a range");
        let bound = |text| u64::from_str_radix(text, 16).expect("an address");
        let (mut at, to) = (bound(from), bound(to));
        if !rights.starts_with("rw") {
            continue;
        }
        while at < to {
            let wish = piece.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            // A thread that has just ended takes its stack with it.
            let Ok(read) = memory.read_at(&mut piece[..wish], at) else { break };
            for start in 0..read {
                for (count, wanted) in counts.iter_mut().zip(wanted) {
                    *count += usize::from(wanted.is_at(&piece[start..read]));
                }
            }
            piece.zeroize();
            piece.resize(PIECE_BYTES, 0);
            if read < wish || at + read as u64 == to {
                break;
            }
            // What lies across the border of two pieces is seen in the second one.
            at += (read - TAIL_BYTES + 1) as u64;
        }
    }
    counts
}

/// Runs on a thread of its own and waits for it. Below so much of its stack that what the work leaves there is given
/// back to the system when the thread ends: pages above the last frame are kept for the next thread as they are.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    #[inline(never)]
    fn deep_down<T>(work: impl FnOnce() -> T) -> T {
        let depth = std::hint::black_box([0_u8; 1 << 16]);
        let done = work();
        std::hint::black_box(&depth);
        done
    }
    let ended = std::thread::scope(|scope| scope.spawn(|| deep_down(work)).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The secret is in memory while `make`'s value lives, and not any more once it has been dropped.
fn is_erased<T: Send + 'static>(what: &str, make: impl FnOnce(&[u8]) -> T + Send) {
    let mut secret = [0; 32];
    let name = what.as_bytes();
    // Different for every value, and like nothing else.
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = name[at % name.len()].rotate_left(3) ^ (at as u8).wrapping_mul(37) ^ 0x5a;
    }
    let wanted = [Wanted::new(what, &secret)];
    secret.zeroize();
    let value = elsewhere(|| wanted[0].with(|secret| Box::new(make(secret))));
    let [there] = found(&wanted)[..] else { panic!("one count") };
    assert!(there >= 1, "{what} does not hold the secret as it is, so this shows nothing");
    elsewhere(|| drop(value));
    let [left] = found(&wanted)[..] else { panic!("one count") };
    assert_eq!(left, 0, "{what} leaves its secret behind");
}

fn share(secret: &[u8]) -> KeyShare {
    KeyShare {
        curve: Curve::Ed25519,
        threshold: 2,
        index: 0,
        secret: Secret::new(secret.to_vec()),
        public_key: vec![1; 32],
        public_shares: vec![vec![1; 32]; 3],
        checked: Checked::default(),
    }
}

#[test]
fn what_holds_a_secret_erases_it() {
    let id = NodeId::from_bytes([1; 16]);
    is_erased("Secret", |secret| Secret::new(secret.to_vec()));
    is_erased("a clone of a Secret", |secret| Secret::new(secret.to_vec()).clone());
    is_erased("KeyShare", share);
    is_erased("Identity", move |secret| Identity::new(id, secret.try_into().expect("32 bytes")));
    is_erased("Run", |secret| Run {
        execution_id: [1; 32],
        index: 0,
        parties: 2,
        seed: secret.try_into().expect("32 bytes"),
    });
    is_erased("Batch", |secret| {
        let mut batch = Batch::default();
        batch.put(Keyspace::Shares, b"name".to_vec(), secret.to_vec());
        batch
    });
}

#[test]
fn what_is_not_erased_is_found() {
    let wanted = [Wanted::new("a vector", b"a vector that erases nothing....")];
    let kept = elsewhere(|| wanted[0].with(<[u8]>::to_vec));
    assert_eq!(found(&wanted), [1]);
    drop(kept);
}

/// Makes a key and lets two of three members sign with it, on a thread of their own; what is left of the shares? Tests
/// run side by side, so each has an `occasion` and thereby keys of its own.
fn left_after_signing(suite: &(dyn SigningSuite + Sync), curve: Curve, occasion: u8) {
    let wanted = elsewhere(|| {
        let parties =
            runs(3, occasion).into_iter().map(|run| DistributedKeyGeneration.start(run, 2).expect("possible"));
        let shares: Vec<Arc<KeyShare>> = pump_honestly(parties.collect())
            .into_iter()
            .map(|outcome| {
                let Outcome::Keys(shares) = outcome else { panic!("no keys") };
                Arc::new(shares.into_iter().find(|share| share.curve == curve).expect("both curves"))
            })
            .collect();
        let sets: Vec<_> = match suite.auxiliary() {
            None => Vec::new(),
            Some(auxiliary) => {
                let parties =
                    runs(2, occasion + 1).into_iter().map(|run| auxiliary.start(run, Vec::new()).expect("fits"));
                pump_honestly(parties.collect())
                    .into_iter()
                    .map(|outcome| {
                        let Outcome::Auxiliary(set) = outcome else { panic!("no auxiliary set") };
                        set
                    })
                    .collect()
            }
        };
        let parties =
            runs(2, occasion + 2).into_iter().zip(&shares).enumerate().map(|(at, (run, share))| -> Box<dyn Party> {
                let auxiliary = sets.get(at).map(|set| AuxiliaryView {
                    secret: set.secret.clone(),
                    rows: set.rows.clone(),
                    opened: None,
                });
                let signing = Signing {
                    key: share.clone(),
                    signers: vec![0, 1],
                    message: vec![7; 32],
                    auxiliary: auxiliary.into_iter().collect(),
                };
                suite.start(run, signing).expect("fits")
            });
        let outcomes = pump_honestly(parties.collect());
        assert!(matches!(outcomes[..], [Outcome::Signature(_), Outcome::Signature(_)]));
        let mut wanted = Vec::new();
        for (member, share) in shares.iter().enumerate() {
            let bytes = share.secret.expose();
            wanted.push(Wanted::new(&format!("share {member}"), bytes));
            let mut reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            wanted.push(Wanted::new(&format!("share {member}, last byte first"), &reversed));
            reversed.zeroize();
        }
        wanted
    });
    let left: Vec<String> = wanted
        .iter()
        .zip(found(&wanted))
        .filter(|(_, count)| *count > 0)
        .map(|(wanted, count)| format!("{} at {count} places", wanted.what))
        .collect();
    assert!(left.is_empty(), "still in memory: {}", left.join(", "));
}

#[test]
fn nothing_is_left_of_ed25519_shares_after_a_signature() {
    left_after_signing(&Frost, Curve::Ed25519, 10);
}

#[test]
fn nothing_is_left_of_secp256k1_shares_after_a_dkls23_signature() {
    left_after_signing(&Dkls, Curve::Secp256k1, 20);
}

//! A memory for good signatures and for what several nodes compute alike, for processes that run many nodes in one thread.
//!
//! Every node verifies everything itself, so a simulation of `n` nodes verifies every signature `n` times, all of them
//! made in the same thread, and spends most of its time on that. A thread that asks for it ([`remember`]) verifies no
//! signature that it has made itself ([`made`]), and every other one once: what is remembered is the hash of scheme, key,
//! message and signature together, so nothing else ever passes for it, and what does not verify is never remembered. What
//! follows from known inputs alone is computed once ([`or_computed`]). A thread that does not ask verifies and computes
//! always, and no program that is shipped asks (`sim` has a test).

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use sha2::{Digest as _, Sha256};

thread_local! {
    static GOOD: RefCell<Option<BTreeSet<[u8; 32]>>> = const { RefCell::new(None) };
    static COMPUTED: RefCell<BTreeMap<[u8; 32], Box<dyn Any>>> = const { RefCell::new(BTreeMap::new()) };
}

/// How a signature is made and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Ed25519 with strict verification: between nodes, and by clients of what nodes attest.
    Node = 0,
    /// Ed25519 as Go verifies it: of requests.
    Ed25519 = 1,
    /// ECDSA over P-256: of requests.
    P256 = 2,
}

fn name(scheme: Scheme, key: &[u8], message: &[u8], signature: &[u8]) -> [u8; 32] {
    hash(&[scheme as u8], &[key, message, signature])
}

fn hash(prefix: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(prefix);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The owner of `key` has just made this signature, so it is good: remembered if this thread remembers.
pub fn made(scheme: Scheme, key: &[u8], message: &[u8], signature: &[u8]) {
    GOOD.with_borrow_mut(|good| {
        if let Some(good) = good {
            good.insert(name(scheme, key, message, signature));
        }
    });
}

/// From now on this thread remembers the signatures that it has verified, beginning with none.
pub fn remember() {
    GOOD.set(Some(BTreeSet::new()));
    COMPUTED.set(BTreeMap::new());
}

/// What `compute` gives, which follows from `inputs` alone and is of one kind for each `what`: computed, or remembered by
/// this thread if it remembers.
#[must_use]
pub fn or_computed<T: Clone + 'static>(what: &str, inputs: &[&[u8]], compute: impl FnOnce() -> T) -> T {
    if GOOD.with_borrow(Option::is_none) {
        return compute();
    }
    let name = hash(what.as_bytes(), inputs);
    let known = COMPUTED.with_borrow(|known| known.get(&name).and_then(|known| known.downcast_ref().cloned()));
    known.unwrap_or_else(|| {
        let computed = compute();
        COMPUTED.with_borrow_mut(|known| known.insert(name, Box::new(computed.clone())));
        computed
    })
}

/// Whether a signature is good: `verify` says so, or this thread remembers one with exactly this `scheme`, `key`,
/// `message` and `signature`.
#[must_use]
pub fn or_remembered(
    scheme: Scheme,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
    verify: impl FnOnce() -> bool,
) -> bool {
    let remembers = GOOD.with_borrow(Option::is_some);
    if !remembers {
        return verify();
    }
    let name = name(scheme, key, message, signature);
    if GOOD.with_borrow(|good| good.as_ref().is_some_and(|good| good.contains(&name))) {
        return true;
    }
    let is_good = verify();
    if is_good {
        GOOD.with_borrow_mut(|good| good.get_or_insert_default().insert(name));
    }
    is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(key: &[u8], message: &[u8], is_good: bool) -> (bool, bool) {
        let mut verified = false;
        let good = or_remembered(Scheme::Node, key, message, b"signature", || {
            verified = true;
            is_good
        });
        (good, verified)
    }

    #[test]
    fn only_good_signatures_are_remembered_and_only_where_somebody_asked() {
        assert_eq!((asked(b"k", b"m", true), asked(b"k", b"m", true)), ((true, true), (true, true)));
        remember();
        assert_eq!((asked(b"k", b"m", true), asked(b"k", b"m", false)), ((true, true), (true, false)));
        assert_eq!((asked(b"k", b"n", false), asked(b"k", b"n", false)), ((false, true), (false, true)));
        assert_eq!(asked(b"km", b"", false), (false, true), "the parts are kept apart");
        made(Scheme::P256, b"k", b"made", b"signature");
        assert_eq!(asked(b"k", b"made", false), (false, true), "in another scheme");
        made(Scheme::Node, b"k", b"made", b"signature");
        assert_eq!(asked(b"k", b"made", false), (true, false));
        let elsewhere = || {
            made(Scheme::Node, b"k", b"m", b"signature");
            assert_eq!(asked(b"k", b"m", false), (false, true));
        };
        std::thread::spawn(elsewhere).join().expect("another thread");
    }

    #[test]
    fn what_follows_from_the_same_inputs_is_computed_once_and_only_where_somebody_asked() {
        let computed = std::cell::Cell::new(0);
        let ask = |what: &str, inputs: &[&[u8]]| {
            or_computed(what, inputs, || {
                computed.set(computed.get() + 1);
                computed.get()
            })
        };
        assert_eq!((ask("sum", &[b"a", b"b"]), ask("sum", &[b"a", b"b"])), (1, 2), "nobody asked");
        remember();
        assert_eq!((ask("sum", &[b"a", b"b"]), ask("sum", &[b"a", b"b"])), (3, 3));
        assert_eq!((ask("sum", &[b"ab", b""]), ask("product", &[b"a", b"b"])), (4, 5), "all is kept apart");
        remember();
        assert_eq!(ask("sum", &[b"a", b"b"]), 6, "a new memory");
    }
}

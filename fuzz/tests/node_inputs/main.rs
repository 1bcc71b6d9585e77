//! Three real nodes get every input that there is, valid and invalid, in any order. They never panic, stay within every
//! limit, publish nothing before it is durable where it must be, publish nothing that is wrong, and do the same again
//! when the same happens again.
//!
//! Nodes run with ideal suites (trivial mathematics, real signatures), so that wallets and signatures are reached in
//! milliseconds. One of the three may be replaced by a liar who holds its identity: its links are real, and it says
//! over them, altered and at the wrong moment, what the others told it before. Counters show that the deep states are
//! reached.

mod checks;
mod cluster;
mod inputs;
mod liar;
mod seeds;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use proptest::{prelude::*, test_runner::TestRunner};

use self::{cluster::Cluster, inputs::Step};

/// States that a run of the test must have reached, or it says less than it seems to.
const REACHED: [&str; 26] = [
    "a batch became durable",
    "a datagram was altered",
    "a delivery was acknowledged",
    "a delivery was taken back by the queue",
    "a message was ignored",
    "a node left",
    "a node was restarted",
    "a node was rolled back behind its peers' backs",
    "a presignature was used",
    "a proposal was declined",
    "a query was answered with a wallet",
    "a query was refused",
    "a request waits",
    "a session failed",
    "a wallet was published",
    "an Ed25519 signature was published",
    "an auxiliary set is ready",
    "an error was published",
    "an old datagram came back",
    "a secp256k1 signature was published",
    "a clock went backwards",
    "inputs for unknown ids",
    "link down",
    "link up",
    "the liar heard something",
    "the liar was heard",
];

/// How far it has come, how many presignatures it keeps, and what happens.
fn plan() -> impl Strategy<Value = (inputs::Depth, usize, Vec<Step>)> {
    (inputs::depth(), 0..3_usize, prop::collection::vec(inputs::step(), 10..90))
}

/// Runs a plan; the hash over everything that came out of the nodes, and what was reached.
fn run(depth: inputs::Depth, presignatures: usize, steps: &[Step]) -> (String, BTreeMap<&'static str, u64>) {
    let mut cluster = Cluster::new(presignatures);
    inputs::begin(&mut cluster, depth);
    for step in steps {
        inputs::apply(&mut cluster, step);
        cluster.check();
    }
    cluster.run_for(2_000);
    cluster.check();
    cluster.end()
}

#[test]
fn any_inputs_in_any_order_break_nothing() {
    let counters: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) };
    let result = TestRunner::new(config).run(&plan(), |(depth, presignatures, steps)| {
        let (first, reached) = run(depth, presignatures, &steps);
        let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, count) in reached {
            *counters.entry(what).or_default() += count;
        }
        drop(counters);
        let (second, _) = run(depth, presignatures, &steps);
        prop_assert_eq!(first, second, "the same inputs gave other outputs");
        Ok(())
    });
    let counters = counters.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{counters:#?}");
    if let Err(error) = result {
        panic!("{error}");
    }
    let never: Vec<&str> = REACHED.into_iter().filter(|what| !counters.contains_key(what)).collect();
    assert!(never.is_empty(), "never reached: {never:?}");
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

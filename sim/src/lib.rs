//! Simulated clusters: the real core and the real driver over a simulated world, decided by one number.
//!
//! [`scenario`] draws what happens, [`world`] lets it happen, [`invariants`] say what must hold, [`run`] executes.
//! `docs/simulation.md` explains how to use it.
#![forbid(unsafe_code)]

#[cfg(not(madsim))]
compile_error!(
    "the simulator needs `--cfg madsim`, which `.cargo/config.toml` of this workspace sets; a RUSTFLAGS variable or \
     another configuration has overridden it: add `--cfg madsim` there"
);

pub mod changes;
pub mod counters;
pub mod dice;
pub mod frozen;
pub mod ideal;
pub mod invariants;
pub mod kept;
pub mod log;
pub mod planted;
pub mod rare;
pub mod reached;
pub mod records;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod small;
pub mod suite;
pub mod view;
pub mod world;

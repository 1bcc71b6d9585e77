//! Whole nodes with real protocols at the toy level, on a bus without faults or with a few chosen ones: the main job,
//! one behaviour a test. Faults by the thousand are the simulator's business.

mod answers;
mod attestations;
mod bans;
mod contradiction;
mod deadlines;
mod decisions;
mod durable;
mod full_signatures;
mod load;
mod presignatures;
mod queries;
mod quorums;
mod rollback;
mod situations;
mod switching;
#[allow(dead_code, reason = "the tests with a lying member share it and use the rest")]
mod world;

//! Whole nodes with real protocols at the toy level, on a bus without faults or with a few chosen ones: the main job,
//! one behaviour a test. Faults by the thousand are the simulator's business.

mod answers;
mod attestations;
mod bans;
mod contradiction;
mod full_signatures;
mod queries;
mod rollback;
mod situations;
mod switching;
mod world;

//! What operators rely on: the README's first five minutes, `mpcium doctor`, probes and metrics, and starting on the files
//! of the Go system.
//!
//! Each test has servers and nodes of its own; none needs auxiliary data that takes long.
#![forbid(unsafe_code)]

mod doctor;
mod left_behind;
mod probes;
mod quick_start;
mod swap;
mod threshold;

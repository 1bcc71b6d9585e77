//! What operators rely on: `mpcium doctor`, probes and metrics, and starting on the files of the Go system.
//!
//! Each test has servers and nodes of its own; none needs auxiliary data, so none takes long.
#![forbid(unsafe_code)]

mod doctor;
mod probes;
mod swap;
mod threshold;

//! Buses that are more than one server, and buses that are not one cluster's alone.
//!
//! Each test has servers and nodes of its own; they take turns, because the machine is small.
#![forbid(unsafe_code)]

mod clusters;
mod nats_cluster;

/// One test at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

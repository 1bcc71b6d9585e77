//! The mpcium node: command line, configuration and start-up.
//!
//! [`cli`] is where the program begins. [`start`] runs a node, [`demo`] a whole cluster in one process, [`wallet`] talks
//! to a running cluster ([`cluster`] says whether an answer is its own), [`provision`] makes the files that a cluster needs, [`doctor`] says what is wrong. [`health`] and
//! [`monitor`] are what machines ask.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod benchmark;
pub mod change_password;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod discovery;
pub mod doctor;
pub mod files;
pub mod health;
pub mod http;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod monitor;
pub mod passwords;
pub mod primes;
pub mod provision;
pub mod recover;
pub mod secret_text;
pub mod start;
pub mod status;
pub mod verify;
pub mod wallet;

//! The harness of the end-to-end tests: real node processes, a real nats-server, a real Consul, real clients.
//!
//! Everything runs on free ports and in temporary folders, and every process is in a group of its own that is killed
//! when its owner is dropped. Waiting is always for a condition, with a deadline that only says when to give up.
#![forbid(unsafe_code)]

pub mod alone;
pub mod bare;
pub mod bus;
pub mod cluster;
pub mod docs;
pub mod filled;
pub mod floor;
pub mod go;
pub mod http;
pub mod kms;
pub mod load;
pub mod measure;
pub mod node;
pub mod process;
pub mod programs;
pub mod secrets;
pub mod servers;
pub mod store;
pub mod verify;
pub mod wait;

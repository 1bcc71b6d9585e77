//! The in-process network of `tests/common_protocol`, for unit tests of the suites.

/// What [`common_protocol`] calls the protocol module.
mod api {
    pub(super) use crate::protocol::{Abort, Incoming, KeyShare, Outcome, Party, Run, Status};
}

#[path = "../../tests/common_protocol/mod.rs"]
pub(super) mod common_protocol;

//! Answers clients: from a delivery to its one answer.

pub(crate) mod admission;
pub(crate) mod answers;
pub(crate) mod deliveries;
pub(crate) mod keygen;
pub(crate) mod ledger;
pub(crate) mod signing;

//! An ordered list of members and a threshold.

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Who holds shares of a key, and how many of them sign together. A member's position is its share's index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committee {
    /// The members, sorted by id, each once.
    pub members: Vec<NodeId>,
    /// How many sign together; `⌊n/2⌋ + 1 ..= n`.
    pub threshold: u16,
}

impl Committee {
    /// A member's position.
    #[must_use]
    pub fn position(&self, id: NodeId) -> Option<u16> {
        self.members.binary_search(&id).ok().and_then(|p| u16::try_from(p).ok())
    }

    /// How many members have one in common with any `t`, and an honest one among them if only `n − t` lie: `n − t + 1`.
    #[must_use]
    pub fn meeting_quorum(&self) -> usize {
        self.members.len() + 1 - usize::from(self.threshold)
    }

    /// Whether the numbers and the order are as the documentation of the fields says.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let n = self.members.len();
        (2..=crate::limits::NODES_MAX).contains(&n)
            && self.members.is_sorted_by(|a, b| a < b)
            && usize::from(self.threshold) > n / 2
            && usize::from(self.threshold) <= n
    }
}

//! What `mpc_threshold` means.
//!
//! The documentation of the system that this one replaces says that the number counts signers; its code used it as
//! the degree of a polynomial, so that one more had to sign. Both kinds of configuration exist. This is the one place
//! that turns the number into signers, and no reading with fewer than ⌊n/2⌋ + 1 signers ever passes.

/// How the configured number is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// The number of nodes that sign together.
    Signers,
    /// The degree of the polynomial: one more than this sign together.
    Degree,
}

impl Counting {
    /// Parses the value of `threshold_counts`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "signers" => Some(Self::Signers),
            "degree" => Some(Self::Degree),
            _ => None,
        }
    }

    fn signers(self, configured: u16) -> u16 {
        match self {
            Self::Signers => configured,
            Self::Degree => configured.saturating_add(1),
        }
    }
}

/// The threshold that was settled on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// How many nodes sign together.
    pub signers: u16,
    /// Which reading that is.
    pub counting: Counting,
    /// What the operator should be told, if anything.
    pub remark: Option<Remark>,
}

/// Something to tell the operator about the reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Only one reading was legal.
    Note(String),
    /// Both readings are legal and the old system took the other one.
    Warning(String),
}

/// Turns the configured number into signers for a cluster of `nodes` nodes.
///
/// # Errors
/// If no reading that may be used lies between ⌊n/2⌋ + 1 and n; the message names both readings.
pub fn settle(configured: u16, counting: Option<Counting>, nodes: usize) -> Result<Settled, String> {
    let legal = |counting: Counting| {
        let signers = usize::from(counting.signers(configured));
        (nodes / 2 + 1..=nodes).contains(&signers)
    };
    let settled = |counting: Counting, remark| Settled { signers: counting.signers(configured), counting, remark };
    let refused = || {
        format!(
            "mpc_threshold {configured} with {nodes} nodes: between {} and {nodes} nodes must sign together; \
             read as signers (threshold_counts: signers) it means {configured}, \
             read as degree (threshold_counts: degree) it means {}",
            nodes / 2 + 1,
            Counting::Degree.signers(configured)
        )
    };
    match (counting, legal(Counting::Signers), legal(Counting::Degree)) {
        (Some(chosen), ..) if legal(chosen) => Ok(settled(chosen, None)),
        (Some(_), ..) | (None, false, false) => Err(refused()),
        (None, true, false) => Ok(settled(
            Counting::Signers,
            Some(Remark::Note(format!(
                "mpc_threshold {configured} is read as the number of signers, the only legal reading for {nodes} nodes"
            ))),
        )),
        (None, false, true) => Ok(settled(
            Counting::Degree,
            Some(Remark::Note(format!(
                "mpc_threshold {configured} is read as the polynomial's degree, the only legal reading for {nodes} \
                 nodes: {} sign together",
                Counting::Degree.signers(configured)
            ))),
        )),
        (None, true, true) => Ok(settled(
            Counting::Signers,
            Some(Remark::Warning(format!(
                "mpc_threshold {configured} is read as the number of signers: {configured} of {nodes} sign together, \
                 where the Go system needed {}; say threshold_counts: signers or degree to settle it",
                Counting::Degree.signers(configured)
            ))),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_reading_the_only_legal_one_is_taken_and_noted() {
        let settled = settle(1, None, 3).expect("degree is legal");
        assert_eq!((settled.signers, settled.counting), (2, Counting::Degree));
        assert!(matches!(settled.remark, Some(Remark::Note(_))));
        let settled = settle(3, None, 3).expect("signers is legal");
        assert_eq!((settled.signers, settled.counting), (3, Counting::Signers));
        assert!(matches!(settled.remark, Some(Remark::Note(_))));
    }

    #[test]
    fn without_a_reading_signers_win_with_a_warning() {
        let settled = settle(2, None, 3).expect("both are legal");
        assert_eq!(settled.signers, 2);
        assert!(matches!(settled.remark, Some(Remark::Warning(_))));
    }

    #[test]
    fn a_stated_reading_is_taken_silently() {
        assert_eq!(settle(2, Some(Counting::Degree), 3).map(|s| (s.signers, s.remark)), Ok((3, None)));
        assert_eq!(settle(2, Some(Counting::Signers), 3).map(|s| (s.signers, s.remark)), Ok((2, None)));
    }

    #[test]
    fn fewer_than_a_majority_never_passes_and_the_error_names_both_readings() {
        for (configured, counting, nodes) in [
            (0, None, 3),
            (1, Some(Counting::Signers), 3),
            (3, Some(Counting::Degree), 3),
            (4, None, 3),
            (u16::MAX, None, 3),
            (1, None, 5),
        ] {
            let error = settle(configured, counting, nodes).expect_err("illegal");
            assert!(error.contains("signers") && error.contains("degree"), "{error}");
        }
        for nodes in 2..=32_usize {
            for configured in 0..=34 {
                for counting in [None, Some(Counting::Signers), Some(Counting::Degree)] {
                    if let Ok(settled) = settle(configured, counting, nodes) {
                        assert!(usize::from(settled.signers) > nodes / 2 && usize::from(settled.signers) <= nodes);
                    }
                }
            }
        }
    }
}

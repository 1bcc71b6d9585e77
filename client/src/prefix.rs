//! The prefix of a cluster that shares its NATS with others: in front of every subject and of every stream's name.
//!
//! Invariant: two different prefixes (the empty one among them) have no subject and no stream in common, and no stream
//! of one captures a subject of the other. Subjects differ because no prefix contains a token with which our own names
//! begin, so the first such token tells where the prefix ends. Streams' names cannot hold dots; a dot becomes two
//! hyphens, of which a token never has two in a row, nor one at its ends.
//!
//! Consumers need no prefix: their names only count within their stream.

/// Bytes of a prefix: with them every stream's name stays far below the server's 255.
pub const PREFIX_BYTES_MAX: usize = 100;
/// The tokens with which our own subjects begin.
const OURS: [&str; 2] = ["mpc", "mpcium"];

/// What stands before a cluster's names; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Longer than [`PREFIX_BYTES_MAX`].
    TooLong(usize),
    /// A part between dots that is not made of letters, digits, `_` and single hyphens inside.
    Token(String),
    /// A part with which the cluster's own names begin.
    Taken(String),
}

impl std::fmt::Display for PrefixError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(bytes) => write!(f, "a prefix has at most {PREFIX_BYTES_MAX} bytes, got {bytes}"),
            Self::Token(token) => write!(
                f,
                "expected parts of ASCII letters, digits, _ and - separated by dots, beginning with a letter or digit, \
                 without - at their ends or twice in a row; got {token:?}"
            ),
            Self::Taken(token) => write!(f, "{token:?} cannot be a part of a prefix: the cluster's own names begin so"),
        }
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// Reads a prefix; the empty text is the default.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > PREFIX_BYTES_MAX {
            return Err(PrefixError::TooLong(text.len()));
        }
        for token in text.split('.') {
            let plain = token.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
            let begins = token.starts_with(|first: char| first.is_ascii_alphanumeric());
            if !plain || !begins || token.ends_with('-') || token.contains("--") {
                return Err(PrefixError::Token(token.to_owned()));
            }
            if OURS.contains(&token) {
                return Err(PrefixError::Taken(token.to_owned()));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A subject of this cluster: `mpc.wallet_query` becomes `PREFIX.mpc.wallet_query`.
    #[must_use]
    pub fn subject(&self, subject: &str) -> String {
        if self.0.is_empty() { subject.to_owned() } else { format!("{}.{subject}", self.0) }
    }

    /// A stream of this cluster: `mpc-keygen` becomes `PREFIX-mpc-keygen`, with two hyphens for each dot of the prefix.
    #[must_use]
    pub fn stream(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}-{name}", self.0.replace('.', "--")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::subjects;

    #[test]
    fn names_carry_the_prefix() {
        let prefix = Prefix::parse("eu.team-1").expect("a prefix");
        assert_eq!(prefix.subject("mpc:reshare"), "eu.team-1.mpc:reshare");
        assert_eq!(prefix.stream("mpc-keygen"), "eu--team-1-mpc-keygen");
        assert_eq!(Prefix::default().subject("mpc:reshare"), "mpc:reshare");
        assert_eq!(Prefix::parse("").map(|none| none.stream("mpc")), Ok("mpc".to_owned()));
    }

    #[test]
    fn only_plain_parts_that_are_not_ours_are_taken() {
        for good in ["a", "A1", "team_blue", "team-blue", "eu.team-blue.2", "mpc2", "mpc_blue"] {
            assert!(Prefix::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(PREFIX_BYTES_MAX + 1);
        for bad in [
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a*",
            ">",
            "é",
            "-a",
            "a-",
            "a--b",
            "_INBOX",
            "$JS",
            "mpc",
            "a.mpcium",
            "a/b",
            "mpc:reshare",
            "a\n",
            &long,
        ] {
            assert!(Prefix::parse(bad).is_err(), "{bad:?}");
        }
    }

    /// Every stream and filter that a prefix leads to.
    fn names(prefix: &str) -> (BTreeSet<String>, Vec<String>) {
        let prefix = Prefix::parse(prefix).expect("a prefix");
        let streams = subjects::STREAMS.iter().map(|spec| prefix.stream(spec.name)).collect();
        let filters = subjects::STREAMS.iter().flat_map(|spec| spec.subjects).map(|subject| prefix.subject(subject));
        (streams, filters.collect())
    }

    /// Whether some subject matches both filters.
    fn overlap(one: &str, other: &str) -> bool {
        let (mut one, mut other) = (one.split('.'), other.split('.'));
        loop {
            match (one.next(), other.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn no_two_prefixes_have_a_stream_or_a_subject_in_common() {
        let mut parts = vec![String::new()];
        for _ in 0..3 {
            let longer: Vec<String> = ["a", "a-a", "mpc-keygen", "mpc_keygen_result", "keygen_request", "b"]
                .iter()
                .flat_map(|token| parts.iter().map(move |part| format!("{part}.{token}")))
                .map(|part| part.trim_start_matches('.').to_owned())
                .collect();
            parts.extend(longer);
        }
        let all: BTreeSet<String> = parts.into_iter().collect();
        let named: Vec<(BTreeSet<String>, Vec<String>)> = all.iter().map(|prefix| names(prefix)).collect();
        for (at, (streams, filters)) in named.iter().enumerate() {
            for (other_streams, other_filters) in &named[at + 1..] {
                assert!(streams.is_disjoint(other_streams), "{streams:?} {other_streams:?}");
                for filter in filters {
                    assert!(!other_filters.iter().any(|other| overlap(filter, other)), "{filter}: {other_filters:?}");
                }
            }
        }
    }
}

//! Where everything is on NATS: streams, subjects, consumers and de-duplication ids, as plain data. Clusters that share
//! a NATS put a [`Prefix`](crate::prefix::Prefix) before subjects and streams.
//!
//! Names, filters and retention are those of the existing system and may not change: its clients send their own
//! configuration as an update when they start, and the server refuses to change a stream's retention.
//! Invariant: ids of any content make exactly one subject token, plain ids themselves, different ids different tokens.

use std::time::Duration;

use crate::request::Kind;

/// Header with the client's id on requests. Case matters.
pub const CLIENT_ID_HEADER: &str = "ClientID";
/// Where clients of the existing system send resharing requests: core NATS, so possibly lost.
pub const RESHARE_CORE_SUBJECT: &str = "mpc:reshare";
/// Bytes of a client id: the server takes names of at most 255 bytes for the consumers that carry it.
pub const CLIENT_ID_BYTES_MAX: usize = 255 - "mpc_signing_result_".len();

/// How a stream forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// By age and size; acknowledged messages stay.
    Limits,
    /// When acknowledged.
    WorkQueue,
}

/// A stream. All of them: file storage, oldest discarded first, duplicates recognised for two minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: &'static str,
    /// Its description, as the existing system writes it.
    pub description: &'static str,
    /// What it captures.
    pub subjects: &'static [&'static str],
    /// How it forgets. Can never be changed.
    pub retention: Retention,
    /// Messages older than this are dropped; `None`: never for their age.
    pub max_age: Option<Duration>,
    /// Bytes beyond which the oldest messages are dropped.
    pub max_bytes: i64,
    /// How long `Nats-Msg-Id` is remembered.
    pub duplicate_window: Duration,
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const STREAM_BYTES_MAX: i64 = 100_000_000;
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

const fn request_stream(
    name: &'static str,
    description: &'static str,
    subjects: &'static [&'static str],
) -> StreamSpec {
    StreamSpec {
        name,
        description,
        subjects,
        retention: Retention::Limits,
        max_age: Some(WEEK),
        max_bytes: STREAM_BYTES_MAX,
        duplicate_window: DUPLICATE_WINDOW,
    }
}

/// Key generation requests.
pub const KEYGEN_STREAM: StreamSpec = request_stream("mpc-keygen", "Stream for mpc-keygen", &["mpc.keygen_request.*"]);
/// Signing requests.
pub const SIGNING_STREAM: StreamSpec =
    request_stream("mpc-signing", "Stream for mpc-signing", &["mpc.signing_request.*"]);
/// Resharing requests: not in the existing system, which sends them over core NATS.
pub const RESHARE_STREAM: StreamSpec =
    request_stream("mpc-reshare", "Stream for mpc-reshare", &["mpc.reshare_request.*"]);
/// All results.
pub const RESULT_STREAM: StreamSpec = StreamSpec {
    name: "mpc",
    description: "Stream for mpc",
    subjects: &["mpc.mpc_keygen_result.>", "mpc.mpc_signing_result.>", "mpc.mpc_reshare_result.>"],
    retention: Retention::WorkQueue,
    max_age: None,
    max_bytes: STREAM_BYTES_MAX,
    duplicate_window: DUPLICATE_WINDOW,
};
/// Every stream.
pub const STREAMS: &[StreamSpec] = &[KEYGEN_STREAM, SIGNING_STREAM, RESHARE_STREAM, RESULT_STREAM];

/// Deliveries of one result before the server gives up on a client.
pub const RESULT_MAX_DELIVER: i64 = 3;
/// How long a client has to acknowledge a result.
pub const RESULT_ACK_WAIT: Duration = Duration::from_secs(30);
/// Results that a client may leave unacknowledged at once.
pub const RESULT_MAX_ACK_PENDING: i64 = 1000;

/// The stream that holds requests of a kind.
#[must_use]
pub const fn request_stream_of(kind: Kind) -> &'static StreamSpec {
    match kind {
        Kind::Keygen => &KEYGEN_STREAM,
        Kind::Sign => &SIGNING_STREAM,
        Kind::Reshare => &RESHARE_STREAM,
    }
}

/// What the nodes' consumer of a kind filters: everything that the stream captures. Clients put a literal `*`, an id or
/// the word `undefined` in the last token; only the document counts.
#[must_use]
pub const fn request_filter(kind: Kind) -> &'static str {
    match kind {
        Kind::Keygen => "mpc.keygen_request.*",
        Kind::Sign => "mpc.signing_request.*",
        Kind::Reshare => "mpc.reshare_request.*",
    }
}

/// The durable consumer that all nodes share for requests of a kind.
#[must_use]
pub const fn request_durable(kind: Kind) -> &'static str {
    match kind {
        Kind::Keygen => "mpc_keygen_consumer",
        Kind::Sign => "mpc_signing_consumer",
        Kind::Reshare => "mpc_reshare_consumer",
    }
}

/// Where the Rust client publishes a request.
#[must_use]
pub fn request_subject(kind: Kind, request_id: &str) -> String {
    let prefix = request_filter(kind).trim_end_matches('*');
    format!("{prefix}{}", escape_token(request_id))
}

const fn result_prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Keygen => "mpc.mpc_keygen_result",
        Kind::Sign => "mpc.mpc_signing_result",
        Kind::Reshare => "mpc.mpc_reshare_result",
    }
}

/// Where a result is published. `client_id` is the request's unauthenticated header: an id that no client can listen
/// for (see [`check_client_id`]) is escaped, a longer one than [`CLIENT_ID_BYTES_MAX`] or an empty one is as none.
#[must_use]
pub fn result_subject(kind: Kind, client_id: Option<&str>, request_id: &str) -> String {
    let prefix = result_prefix(kind);
    let last = if kind == Kind::Sign { "complete".to_owned() } else { escape_token(request_id) };
    match usable(client_id) {
        None => format!("{prefix}.{last}"),
        Some(client) if check_client_id(client).is_ok() => format!("{prefix}.{client}.{last}"),
        Some(client) => format!("{prefix}.{}.{last}", escape_token(client)),
    }
}

/// What a client's consumer of results filters. The client id must have passed [`check_client_id`].
#[must_use]
pub fn result_filter(kind: Kind, client_id: Option<&str>) -> String {
    let prefix = result_prefix(kind);
    let last = if kind == Kind::Sign { "complete" } else { "*" };
    match usable(client_id) {
        None => format!("{prefix}.{last}"),
        Some(client) => format!("{prefix}.{client}.{last}"),
    }
}

/// The name of a client's durable consumer of results. Ids that differ only in what [`sanitize_consumer`] replaces
/// share a name: an inheritance of the existing system.
#[must_use]
pub fn result_durable(kind: Kind, client_id: Option<&str>) -> String {
    let base = result_prefix(kind).trim_start_matches("mpc.");
    match usable(client_id) {
        None => base.to_owned(),
        Some(client) => sanitize_consumer(&format!("{base}.{client}")),
    }
}

/// The existing system's rule for consumer names.
#[must_use]
pub fn sanitize_consumer(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        out.push('_');
    }
    for character in name.chars() {
        match character {
            '.' | ':' | ' ' | '-' => out.push('_'),
            '>' => out.push_str("all"),
            '*' => out.push_str("any"),
            other => out.push(other),
        }
    }
    out
}

fn usable(client_id: Option<&str>) -> Option<&str> {
    client_id.filter(|client| !client.is_empty() && client.len() <= CLIENT_ID_BYTES_MAX)
}

/// Makes one subject token of an id of any content: dots, white space, wildcards, control characters and the percent
/// sign become `%XX`, white space beyond U+00FF `%uXXXX`; the empty id becomes `%`. Everything else stays.
///
/// The server divides its lines at ASCII white space only, but client libraries do at any.
#[must_use]
pub fn escape_token(id: &str) -> String {
    if id.is_empty() {
        return "%".to_owned();
    }
    let mut out = String::with_capacity(id.len());
    for character in id.chars() {
        match character {
            '.' | '*' | '>' | '%' | '\0'..=' ' | '\u{7f}' | '\u{85}' | '\u{a0}' => {
                out.push_str(&format!("%{:02X}", character as u32));
            }
            space if space.is_whitespace() => out.push_str(&format!("%u{:04X}", space as u32)),
            other => out.push(other),
        }
    }
    out
}

/// The id that [`escape_token`] made a token of; `None` if it did not make it.
#[must_use]
pub fn unescape_token(token: &str) -> Option<String> {
    if token == "%" {
        return Some(String::new());
    }
    let mut pieces = token.split('%');
    let mut id = pieces.next()?.to_owned();
    for piece in pieces {
        let (digits, rest) = match piece.strip_prefix('u') {
            Some(wide) => wide.split_at_checked(4)?,
            None => piece.split_at_checked(2)?,
        };
        id.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        id.push_str(rest);
    }
    (escape_token(&id) == token).then_some(id)
}

/// Why a client id cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdError {
    /// Nothing but white space.
    Blank,
    /// It would not be one subject token.
    Character(char),
    /// Longer than [`CLIENT_ID_BYTES_MAX`].
    TooLong(usize),
}

impl std::fmt::Display for ClientIdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank => f.write_str("a client id must not be blank"),
            Self::Character(character) => write!(f, "a client id must not contain {character:?}"),
            Self::TooLong(bytes) => write!(f, "a client id has at most {CLIENT_ID_BYTES_MAX} bytes, got {bytes}"),
        }
    }
}

impl std::error::Error for ClientIdError {}

/// Whether a client may use this id.
///
/// # Errors
/// If it is blank, too long, or contains white space, a dot or a wildcard.
pub fn check_client_id(id: &str) -> Result<(), ClientIdError> {
    if id.trim().is_empty() {
        return Err(ClientIdError::Blank);
    }
    if let Some(character) = id.chars().find(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\0' | '.' | '*' | '>')) {
        return Err(ClientIdError::Character(character));
    }
    if id.len() > CLIENT_ID_BYTES_MAX {
        return Err(ClientIdError::TooLong(id.len()));
    }
    Ok(())
}

/// The de-duplication id (`Nats-Msg-Id`) of a delivery's result: the existing system's form with the place of the
/// request in its stream instead of a random session id. So a redelivery collides, and a client's own retry does not.
///
/// `timestamp_ms`: when the stream took the request, in milliseconds since 1970; a stream that was made anew starts
/// counting again.
#[must_use]
pub fn dedup_id(
    kind: Kind,
    request_id: &str,
    client_id: Option<&str>,
    stream: &str,
    sequence: u64,
    timestamp_ms: u64,
) -> String {
    let prefix = result_prefix(kind);
    let client = usable(client_id).map(|client| escape_token(client) + ":").unwrap_or_default();
    let (id, stream) = (escape_token(request_id), escape_token(stream));
    format!("{prefix}.{client}{id}:{stream}-{sequence}-{timestamp_ms}")
}

/// The sequence of the request in its stream that a result with this [`dedup_id`] answers; `None` for ids of other
/// systems and other streams.
#[must_use]
pub fn answered_sequence(kind: Kind, dedup_id: &str) -> Option<u64> {
    let (_, place) = dedup_id.rsplit_once(':')?;
    let place = place.strip_prefix(request_stream_of(kind).name)?.strip_prefix('-')?;
    place.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_subjects_are_those_of_the_contract() {
        assert_eq!(result_subject(Kind::Keygen, None, "w"), "mpc.mpc_keygen_result.w");
        assert_eq!(result_subject(Kind::Keygen, Some("c"), "w:1"), "mpc.mpc_keygen_result.c.w:1");
        assert_eq!(result_subject(Kind::Sign, None, "t"), "mpc.mpc_signing_result.complete");
        assert_eq!(result_subject(Kind::Sign, Some("c"), "t"), "mpc.mpc_signing_result.c.complete");
        assert_eq!(result_subject(Kind::Reshare, None, "s"), "mpc.mpc_reshare_result.s");
        assert_eq!(result_subject(Kind::Reshare, Some("c"), "s"), "mpc.mpc_reshare_result.c.s");
        assert_eq!(result_subject(Kind::Keygen, Some(""), "w"), "mpc.mpc_keygen_result.w");
        assert_eq!(result_subject(Kind::Keygen, Some("a.b *"), "c.w"), "mpc.mpc_keygen_result.a%2Eb%20%2A.c%2Ew");
        assert_eq!(
            result_subject(Kind::Sign, Some(&"c".repeat(CLIENT_ID_BYTES_MAX + 1)), ""),
            "mpc.mpc_signing_result.complete"
        );
    }

    #[test]
    fn consumers_are_those_of_the_contract() {
        assert_eq!(result_durable(Kind::Keygen, None), "mpc_keygen_result");
        assert_eq!(result_durable(Kind::Sign, Some("svc-a")), "mpc_signing_result_svc_a");
        assert_eq!(result_filter(Kind::Sign, Some("svc-a")), "mpc.mpc_signing_result.svc-a.complete");
        assert_eq!(result_filter(Kind::Keygen, Some("svc-a")), "mpc.mpc_keygen_result.svc-a.*");
        assert_eq!(result_filter(Kind::Reshare, None), "mpc.mpc_reshare_result.*");
        assert_eq!(sanitize_consumer("1.a:b c-d>*"), "_1_a_b_c_dallany");
    }

    #[test]
    fn ids_become_one_token_and_back() {
        for (id, token) in
            [("plain-1:2_é", "plain-1:2_é"), ("", "%"), ("%", "%25"), ("a.b c*>\n", "a%2Eb%20c%2A%3E%0A")]
                .into_iter()
                .chain([("a\u{2028}\u{3000}b\u{a0}\u{85}", "a%u2028%u3000b%A0%85"), ("%u2028", "%25u2028")])
        {
            assert_eq!(escape_token(id), token);
            assert_eq!(unescape_token(token).as_deref(), Some(id));
        }
        for forged in ["%2e", "a%41", "%2", "%zz", "a.b", "%%", "%u20", "%u0041", "%u00A0"] {
            assert_eq!(unescape_token(forged), None, "{forged}");
        }
    }

    #[test]
    fn client_ids_are_checked_like_the_existing_client_does() {
        for good in ["svc-a", "a:b", "é", "a%b"] {
            assert_eq!(check_client_id(good), Ok(()));
        }
        for bad in ["", " ", "\u{2003}", "a b", "a\tb", "a\n", "a.b", "*", ">", "a>b"] {
            assert!(check_client_id(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_redelivery_collides_and_another_delivery_does_not() {
        let id = |sequence, time| dedup_id(Kind::Keygen, "w", Some("c"), "mpc-keygen", sequence, time);
        assert_eq!(id(7, 9), "mpc.mpc_keygen_result.c:w:mpc-keygen-7-9");
        assert_eq!(answered_sequence(Kind::Keygen, &id(7, 9)), Some(7));
        assert_eq!(answered_sequence(Kind::Sign, &id(7, 9)), None);
        assert_eq!(
            answered_sequence(Kind::Sign, "mpc.mpc_signing_result.t:9d5ba96f-24a4-4a4e-b0a6-1b3d6a0c0c11"),
            None
        );
        assert_ne!(id(7, 9), id(8, 9));
        assert_ne!(id(7, 9), id(7, 10));
        assert_eq!(dedup_id(Kind::Sign, "t\r\n", None, "s", 1, 2), "mpc.mpc_signing_result.t%0D%0A:s-1-2");
    }
}

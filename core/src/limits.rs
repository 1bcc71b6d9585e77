//! The limits of core in one place: no queue, buffer or table that others can fill grows without one of these.

use crate::Duration;

/// Members of a cluster.
pub const NODES_MAX: usize = 32;
/// Bytes of a wallet id, transaction id or network code.
pub const ID_BYTES_MAX: usize = 256;
/// Bytes of a request document.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a record's name in the store.
pub const RECORD_KEY_BYTES_MAX: usize = 512;

/// Bytes of one datagram, headers included.
pub const DATAGRAM_BYTES_MAX: usize = 66 * 1024;
/// Payload bytes of one packet: larger messages are cut.
pub const FRAGMENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one message between peers.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a message that is not of a session: the longest have a request document, and verdicts of a few hundred KiB.
pub const PLAIN_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that may wait unacknowledged in one lane of one link.
pub const LANE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Packets in flight per lane before the sender waits for acknowledgements.
pub const LANE_WINDOW_PACKETS: usize = 256;

/// A link says something at least this often.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// A link that heard nothing for this long is down.
pub const LINK_SILENCE_MAX: Duration = Duration::from_secs(3);
/// First wait before a packet is sent again; doubles up to [`RESEND_MAX`].
pub const RESEND_MIN: Duration = Duration::from_millis(200);
/// Longest wait before a packet is sent again.
pub const RESEND_MAX: Duration = Duration::from_secs(2);
/// First wait before a handshake is tried again; doubles up to [`HANDSHAKE_RETRY_MAX`].
pub const HANDSHAKE_RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest wait before a handshake is tried again.
pub const HANDSHAKE_RETRY_MAX: Duration = Duration::from_secs(4);
/// How long a hello that nobody answers is said again as it is, before one with other keys takes its place.
pub const HELLO_LASTS: Duration = Duration::from_secs(15);
/// How long an answer to a hello is kept from being displaced by one to an older hello: longer than the hello is said.
pub const ANSWER_LASTS: Duration = Duration::from_secs(30);
/// Handshakes of one peer that are answered per second; and repetitions of old ones, whoever sends them.
pub const HANDSHAKES_PER_SECOND: u32 = 8;
/// A peer's mark that no other write has taken along is written after this long.
pub const MARK_WAIT: Duration = Duration::from_secs(1);

/// Sessions of all kinds that this node takes part in at once.
pub const SESSIONS_MAX: usize = 512;
/// Sessions of one coordinator that this node takes part in at once.
pub const SESSIONS_PER_COORDINATOR: usize = 128;
/// Proposals of one coordinator that may come to nothing at once: as many as it may have requests.
pub const PROPOSALS_BURST: u32 = REQUESTS_MAX as u32;
/// Proposals of one coordinator that may come to nothing per second in the long run.
pub const PROPOSALS_PER_SECOND: u32 = 64;
/// Messages of one participant in one session: the longest protocol has ten rounds. How many bytes they may have is said
/// by the suite.
pub const SESSION_MESSAGES_MAX: usize = 16;
/// Bytes of one peer's messages that wait for the workers of all sessions: no honest one comes near.
pub const PEER_INBOX_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Deliveries of one request that one attempt answers; further ones are answered by looking the result up.
pub const PROPOSAL_DELIVERIES_MAX: usize = 16;
/// Deliveries of one request that one peer may be the first to name, in all its ballots, until they are forgotten: that
/// many verdicts of a request it can have stored.
pub const DELIVERIES_NAMED_MAX: usize = 64;
/// After this long it is forgotten who has named what: some clients repeat their requests for ever.
pub const NAMES_FORGOTTEN: Duration = Duration::from_secs(600);
/// Ballots about one request that one peer may begin at once.
pub const REQUEST_BALLOTS_BURST: u32 = 8;
/// How often one peer may begin a further ballot about one request: between them others sign, also slowly.
pub const REQUEST_BALLOT_EVERY: Duration = Duration::from_secs(5);
/// Ballots without a signature that one peer may begin at once, about all requests: it takes no more of them.
pub const BALLOTS_BURST: u32 = 2 * REQUESTS_MAX as u32;
/// Ballots without a signature that one peer may begin per second in the long run.
pub const BALLOTS_PER_SECOND: u32 = 64;
/// What of the ledger's room a peer's verdicts take up is counted in units of so many bytes.
pub const VERDICT_UNIT: usize = 128;
/// Units that one peer may have stored at once: 16 MiB.
pub const VERDICT_UNITS_BURST: u32 = 16 * 1024 * 1024 / VERDICT_UNIT as u32;
/// Units that one peer may have stored per second in the long run: 16 KiB, or a hundred verdicts that say success.
pub const VERDICT_UNITS_PER_SECOND: u32 = 16 * 1024 / VERDICT_UNIT as u32;
/// Bytes of an error that is stored as a verdict.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Levels of the grounds on which an acceptor votes: one, but for ballots that competed with votes for different things.
pub const GROUNDS_LEVELS_MAX: usize = 4;
/// How many slots a closing may lie ahead of the one that is open here: no liars can use slots up.
pub const SLOT_LEAD_MAX: u32 = 1024;
/// Undecided wallets that one member may name to a node which catches up; each is remembered for ever.
pub const SAT_OUT_PER_MEMBER_MAX: usize = 65_536;
/// Pages that one peer which catches up may be read at once: it asks for the next one only when it has the last.
pub const CATCH_UP_PAGES_BURST: u32 = 256;
/// Pages that one peer may be read per second in the long run, 32 certificates each: what a node misses that knows nothing
/// of 300,000 wallets comes before its requests from before the restore are over.
pub const CATCH_UP_PAGES_PER_SECOND: u32 = 64;
/// How soon an acceptor promises another ballot of the same member; doubles with each, up to [`BALLOT_WAIT_MAX`].
pub const BALLOT_WAIT_MIN: Duration = Duration::from_millis(25);
/// The longest such wait: so long other members are left alone, whatever one of them does.
pub const BALLOT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Sessions for which messages of one peer wait that overtook their proposal.
pub const EARLY_SESSIONS_MAX: usize = 64;
/// Bytes of one peer's messages that overtook their proposal.
pub const EARLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long they wait; and how long a proposal waits for records of this node's own store.
pub const EARLY_WAIT: Duration = Duration::from_secs(10);

/// Wallets of another system that this node remembers.
pub const WALLETS_ELSEWHERE_MAX: usize = 1_000_000;
/// Queries for wallets that are looked at in a second, whoever sent them.
pub const QUERIES_CHECKED_PER_SECOND: u32 = 1000;
/// Queries for wallets of the initiator that are served in a second.
pub const QUERIES_PER_SECOND: u32 = 100;
/// Queries for wallets that wait for records or peers.
pub const QUERIES_OPEN_MAX: usize = 256;
/// How long a query waits before it is answered with what is missing.
pub const QUERY_WAIT: Duration = Duration::from_secs(3);
/// Requests that wait or run at this node as coordinator.
pub const REQUESTS_MAX: usize = 1024;
/// Prepared, undecided sessions per wallet and slot.
pub const PREPARED_PER_SLOT_MAX: usize = 16;
/// How long a coordinator waits for the answers to a proposal.
pub const PROPOSAL_WAIT: Duration = Duration::from_secs(3);
/// How long a peer that was blamed or silent is left out where others can do its work.
pub const BLAME_LASTS: Duration = Duration::from_secs(30);
/// First wait before a failed attempt is repeated; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait before a failed attempt is repeated.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a delivery that waits or runs is kept alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How often recovery asks again about a half-finished key generation.
pub const RECOVERY_INTERVAL: Duration = Duration::from_secs(5);
/// Auxiliary sets of committees that are kept: one serves everybody, others come from times when nodes were away.
pub const AUXILIARY_SETS_MAX: usize = 16;
/// Longest wait before a run for auxiliary data that its proposer's last ones were not agreed to after all: a run costs
/// each member minutes of computing.
pub const AUXILIARY_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Rows of auxiliary data from which something is computed in advance: 0.4 MB of memory each for CGGMP24.
pub const PRECOMPUTED_ROWS_MAX: usize = 64;
/// Presignatures in memory, a kilobyte each, those that are being made included.
pub const PRESIGNATURES_MAX: usize = 1024;
/// Presignatures under one wallet's key at a node, whoever their signers are: who looks for a forgery has as many more
/// chances as public nonces of the key are known before their messages.
pub const PRESIGNATURES_PER_WALLET_MAX: usize = 64;
/// Presignatures that a node may be told to keep ready per wallet and signers.
pub const PRESIGNATURES_PER_GROUP_MAX: usize = 16;
/// Wallets with signers and leader for which presignatures may be made.
pub const PRESIGNATURE_GROUPS_MAX: usize = 256;
/// How long after a request that could have used one presignatures are still made for its wallet and signers.
pub const PRESIGNATURES_WANTED: Duration = Duration::from_secs(600);
/// How long a presignature may lie before it is dropped unused.
pub const PRESIGNATURE_AGE_MAX: Duration = Duration::from_secs(3600);
/// Wallets whose certificates and shares stay in memory.
pub const WALLETS_CACHED: usize = 4096;
/// Stopped wallets that a status names.
pub const STOPPED_SHOWN: usize = 64;
/// Answered requests that stay in memory.
pub const LEDGER_CACHED: usize = 8192;
/// Verdicts of deliveries that stay in memory.
pub const VERDICTS_CACHED: usize = 4096;
/// Requests for which this node's promises are remembered.
pub const PROMISES_MAX: usize = 65_536;
/// How long a coordinator waits for a quorum before it does something else.
pub const QUORUM_WAIT: Duration = Duration::from_secs(20);

// Links, further limits.

/// Fragments that may wait in one lane of one link, so that small messages cannot pile up below the limit of bytes.
pub const LANE_FRAGMENTS_MAX: usize = 16 * 1024;
/// Unacknowledged bytes of the bulk lane, so that a signature never queues behind more than this.
pub const BULK_WINDOW_BYTES: usize = 1024 * 1024;
/// Unacknowledged bytes of each other lane.
pub const LANE_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of fragments that overtook an earlier one, per lane.
pub const LANE_HELD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long an acknowledgement waits for data that can carry it.
pub const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(5);
/// Fragments that are acknowledged without waiting for data.
pub const ACKNOWLEDGE_FRAGMENTS: usize = 16;
/// Bytes that are acknowledged without waiting for data.
pub const ACKNOWLEDGE_BYTES: usize = 128 * 1024;
/// Unfinished handshakes per peer that this node answered.
pub const HANDSHAKES_OPEN_MAX: usize = 4;
/// How often a handshake's last message is sent before the handshake starts over.
pub const CONFIRMS_MAX: u32 = 4;
/// Parts of the configuration that peers compare.
pub const FACETS_MAX: usize = 32;
/// Bytes of the name of such a part.
pub const FACET_NAME_BYTES_MAX: usize = 64;
/// Earlier incarnations of one peer that are kept to notice their return.
pub const PEER_INCARNATIONS_KEPT: usize = 32;
/// The same trouble with the same peer is told at most this often.
pub const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);
/// Messages of one peer that are ignored and told one by one at once; in the long run one each [`TROUBLE_INTERVAL`], and
/// how many were not told.
pub const IGNORED_BURST: u32 = 16;

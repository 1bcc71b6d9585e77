//! Every metric: its name, what kind it is, and what it means. The one place to add one.

/// What can be done with a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Kind {
    /// Its word in the text format.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What can be done with it.
    pub kind: Kind,
    /// What it means, in one line.
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, help }
}

/// All metrics, in the order in which they are written.
pub const FAMILIES: &[Family] = &[
    gauge("mpcium_build_info", "Always 1; the labels say which program this is."),
    gauge("mpcium_node_info", "Always 1; the labels say which node and which start of it this is."),
    gauge("mpcium_starting", "1 until the node exists: it waits for its store, for NATS or for JetStream."),
    gauge("mpcium_node_ready", "1 while enough nodes answer and requests are being taken."),
    counter("mpcium_not_ready_total", "How often the node stopped being ready."),
    gauge("mpcium_unfit_reasons", "Reasons for which the node neither promises, votes nor signs: damage, rollback."),
    counter("mpcium_alarms_total", "Reports that somebody must look at."),
    counter("mpcium_caught_up_total", "How often a rolled-back node was brought up to date."),
    gauge("mpcium_test_primes", "1 if published safe primes are in use: nothing this node does is secret."),
    gauge("mpcium_nats_connected", "1 while the connection to NATS is up."),
    counter("mpcium_nats_connects_total", "How often the connection to NATS was made."),
    gauge("mpcium_consul_connected", "1 if Consul answered with a leader just now."),
    gauge("mpcium_threshold", "Nodes that sign together."),
    gauge("mpcium_nodes", "Nodes of the cluster."),
    gauge("mpcium_nodes_reachable", "Nodes that answer, this one included."),
    gauge("mpcium_peer_up", "1 while the peer answers."),
    gauge("mpcium_peer_registered", "1 while Consul lists the peer."),
    counter("mpcium_link_up_total", "How often the link to the peer came up."),
    counter("mpcium_link_down_total", "How often the link to the peer went down."),
    counter("mpcium_link_trouble_total", "Wrong things that arrived from peers, or in their names."),
    counter("mpcium_peer_restarts_total", "How often the peer came back as another start of itself."),
    counter("mpcium_messages_ignored_total", "Messages of the peer that were not understood or not allowed."),
    gauge("mpcium_requests_open", "Requests that this node coordinates now."),
    gauge("mpcium_requests_oldest_seconds", "Age of the oldest request that this node coordinates."),
    counter("mpcium_requests_taken_total", "Deliveries of requests to this node."),
    counter("mpcium_requests_redelivered_total", "Deliveries that were not the first of their request."),
    counter("mpcium_requests_waited_total", "How often a request began to wait for something."),
    counter("mpcium_requests_answered_total", "Requests that this node answered; code is success or the error's code."),
    histogram("mpcium_request_duration_seconds", "From a request's arrival at this node to its answer."),
    gauge("mpcium_queue_waiting", "Requests in the queue that no node has taken (the same at every node)."),
    gauge("mpcium_queue_unanswered", "Requests that some node has taken and not settled (the same at every node)."),
    gauge("mpcium_sessions_running", "Runs of protocols in which this node takes part now."),
    counter("mpcium_sessions_started_total", "Runs of protocols that this node joined."),
    counter("mpcium_sessions_retried_total", "Those of them that were not the first attempt."),
    counter("mpcium_sessions_ended_total", "Runs of protocols that ended here."),
    histogram("mpcium_session_duration_seconds", "From a run's start to its end at this node."),
    counter("mpcium_session_culprits_total", "Failed runs for which the evidence names the peer."),
    counter("mpcium_session_silent_total", "Failed runs in which the peer said nothing."),
    counter("mpcium_proposals_declined_total", "Proposals that the peer did not accept."),
    counter("mpcium_wallets_activated_total", "Wallets whose creation this node saw."),
    gauge("mpcium_wallets_undecided", "Wallets whose creation is prepared here and not decided."),
    gauge("mpcium_wallets_without_share", "Wallets that this node knows and has no share of: it lost them."),
    gauge("mpcium_safe_primes", "Safe primes in store."),
    gauge("mpcium_safe_primes_wanted", "Safe primes that should be in store."),
    gauge("mpcium_safe_primes_making", "1 while safe primes are being made."),
    counter("mpcium_safe_primes_made_total", "Safe primes that were made."),
    gauge("mpcium_auxiliary_sets", "Sets of auxiliary data; those that are agreed can be used for ECDSA."),
    gauge("mpcium_pairs_ready", "DKLs23: other nodes with which this one can sign."),
    gauge("mpcium_pairs_missing", "DKLs23: other nodes with which it has no auxiliary data yet."),
    gauge("mpcium_pairs_banned", "DKLs23: other nodes with which its auxiliary data is banned."),
    gauge("mpcium_presignatures_ready", "CGGMP24: presignatures in memory in which this node has a part."),
    gauge("mpcium_presignatures_making", "CGGMP24: presignatures that are being made."),
    counter("mpcium_pair_bans_total", "Bans of auxiliary data with the peer: a consistency check failed."),
    gauge("mpcium_store_bytes", "Size of the store's files."),
    gauge("mpcium_store_created_timestamp_seconds", "When the store was made."),
    gauge("mpcium_store_written_timestamp_seconds", "When a file of the store was last written."),
    gauge("mpcium_disk_free_bytes", "Space that is left for the store."),
    gauge("process_start_time_seconds", "When the process began."),
    counter("process_cpu_seconds_total", "Processor time that the process has used."),
    gauge("process_resident_memory_bytes", "Memory that the process occupies."),
    gauge("process_open_fds", "Files and sockets that the process has open."),
];

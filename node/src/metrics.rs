//! What Prometheus scrapes: numbers that follow from the core's reports, and the state at the moment of the scrape.
//!
//! Reports are the only source of counts: nothing is counted twice or beside the log. Labels come from the
//! configuration (peers) or from fixed lists (kinds, protocols, error codes), never from what a client sends, and the
//! number of series has a limit. [`FAMILIES`] is the list that `docs/operations.md` documents.

mod families;
mod machine;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use mpcium_core::{node::PairState, report::Report};

pub use families::{FAMILIES, Family, Kind};
pub use machine::{Machine, disk_free};

use crate::{cli, status::Answer};

/// Series that are kept; more than a cluster of the largest size needs.
const SERIES_MAX: usize = 4096;

/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 300.0, 900.0];

/// Counters without labels.
const PLAIN: [&str; 6] = [
    "mpcium_not_ready_total",
    "mpcium_alarms_total",
    "mpcium_caught_up_total",
    "mpcium_link_trouble_total",
    "mpcium_wallets_activated_total",
    "mpcium_safe_primes_made_total",
];
/// Counters by peer.
const OF_PEERS: [&str; 8] = [
    "mpcium_link_up_total",
    "mpcium_link_down_total",
    "mpcium_peer_restarts_total",
    "mpcium_messages_ignored_total",
    "mpcium_session_culprits_total",
    "mpcium_session_silent_total",
    "mpcium_proposals_declined_total",
    "mpcium_pair_bans_total",
];
/// Counters by kind of request.
const OF_KINDS: [&str; 3] =
    ["mpcium_requests_taken_total", "mpcium_requests_redelivered_total", "mpcium_requests_waited_total"];
/// Answers that alerts compare; other codes appear with their first answer.
const CODES: [&str; 3] = ["success", "ERROR_NETWORK_TIMEOUT", "ERROR_UNKNOWN"];
/// Counters by protocol.
const OF_PROTOCOLS: [&str; 2] = ["mpcium_sessions_started_total", "mpcium_sessions_retried_total"];
const KINDS: [&str; 3] = ["keygen", "sign", "reshare"];
const PROTOCOLS: [&str; 4] = ["keygen", "sign secp256k1", "sign ed25519", "auxiliary"];

/// Label names and values of one series.
type Labels = Vec<(&'static str, String)>;

/// Everything that has been counted since the process began. A counter is there, at zero, before its first event: where
/// a series begins with 1, Prometheus sees no increase.
#[derive(Debug)]
pub struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counters: BTreeMap<(&'static str, Labels), u64>,
    durations: BTreeMap<(&'static str, Labels), Histogram>,
    /// The last incarnation seen of each peer.
    incarnations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Histogram {
    /// Observations per bucket, not yet summed up.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    millis: u64,
}

impl Counts {
    /// The counters whose labels are known beforehand.
    fn at_zero() -> Self {
        let mut counts = Self::default();
        PLAIN.iter().for_each(|name| counts.begin(name, Vec::new()));
        for kind in KINDS {
            let kind = ("kind", kind.to_owned());
            OF_KINDS.iter().for_each(|name| counts.begin(name, vec![kind.clone()]));
            for code in CODES {
                counts.begin("mpcium_requests_answered_total", vec![kind.clone(), ("code", code.to_owned())]);
            }
        }
        for protocol in PROTOCOLS {
            let protocol = ("protocol", protocol.to_owned());
            OF_PROTOCOLS.iter().for_each(|name| counts.begin(name, vec![protocol.clone()]));
            for outcome in ["success", "failure"] {
                counts.begin("mpcium_sessions_ended_total", vec![protocol.clone(), ("outcome", outcome.to_owned())]);
            }
        }
        counts
    }

    fn begin(&mut self, name: &'static str, labels: Labels) {
        self.counters.entry((name, labels)).or_default();
    }

    fn add(&mut self, name: &'static str, labels: Labels) {
        self.add_many(name, labels, 1);
    }

    fn add_many(&mut self, name: &'static str, labels: Labels, events: u64) {
        let full = self.counters.len() >= SERIES_MAX;
        match self.counters.get_mut(&(name, labels.clone())) {
            Some(count) => *count += events,
            None if full => {}
            None => drop(self.counters.insert((name, labels), events)),
        }
    }

    fn observe(&mut self, name: &'static str, labels: Labels, millis: u64) {
        if self.durations.len() >= SERIES_MAX && !self.durations.contains_key(&(name, labels.clone())) {
            return;
        }
        let histogram = self.durations.entry((name, labels)).or_default();
        let seconds = seconds(millis);
        if let Some((bucket, _)) = histogram.buckets.iter_mut().zip(BUCKETS).find(|(_, bound)| seconds <= *bound) {
            *bucket += 1;
        }
        histogram.count += 1;
        histogram.millis = histogram.millis.saturating_add(millis);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Mutex::new(Counts::at_zero()))
    }
}

impl Metrics {
    /// These are the other nodes: what is counted of them is there from now on.
    pub fn knows<'a>(&self, peers: impl IntoIterator<Item = &'a str>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in peers {
            OF_PEERS.iter().for_each(|name| counts.begin(name, vec![("peer", peer.to_owned())]));
        }
    }

    /// Takes one fact.
    pub fn record(&self, report: &Report) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        match report {
            Report::LinkUp { peer, incarnation } => {
                counts.add("mpcium_link_up_total", vec![("peer", peer.clone())]);
                let before = counts.incarnations.insert(peer.clone(), incarnation.clone());
                if before.is_some_and(|before| before != *incarnation) {
                    counts.add("mpcium_peer_restarts_total", vec![("peer", peer.clone())]);
                }
            }
            Report::LinkDown { peer, .. } => counts.add("mpcium_link_down_total", vec![("peer", peer.clone())]),
            Report::LinkTrouble { alarm: false, .. } => counts.add("mpcium_link_trouble_total", Vec::new()),
            Report::LinkTrouble { alarm: true, .. } | Report::Alarm { .. } => {
                counts.add("mpcium_alarms_total", Vec::new());
            }
            Report::PairBanned { peer, .. } => {
                counts.add("mpcium_alarms_total", Vec::new());
                counts.add("mpcium_pair_bans_total", vec![("peer", peer.clone())]);
            }
            Report::NotReady { .. } => counts.add("mpcium_not_ready_total", Vec::new()),
            Report::RequestTaken { kind, delivery, .. } => {
                counts.add("mpcium_requests_taken_total", vec![("kind", (*kind).to_owned())]);
                if *delivery > 1 {
                    counts.add("mpcium_requests_redelivered_total", vec![("kind", (*kind).to_owned())]);
                }
            }
            Report::RequestWaits { kind, .. } => {
                counts.add("mpcium_requests_waited_total", vec![("kind", (*kind).to_owned())]);
            }
            Report::RequestAnswered { kind, error_code, took_ms, .. } => {
                let code = if error_code.is_empty() { "success" } else { error_code };
                let kind = ("kind", (*kind).to_owned());
                counts.add("mpcium_requests_answered_total", vec![kind.clone(), ("code", code.to_owned())]);
                let outcome = if error_code.is_empty() { "success" } else { "error" };
                let labels = vec![kind, ("outcome", outcome.to_owned())];
                counts.observe("mpcium_request_duration_seconds", labels, *took_ms);
            }
            Report::SessionStarted { protocol, attempt, .. } => {
                counts.add("mpcium_sessions_started_total", vec![("protocol", protocol.clone())]);
                if *attempt > 1 {
                    counts.add("mpcium_sessions_retried_total", vec![("protocol", protocol.clone())]);
                }
            }
            Report::SessionEnded { protocol, reason, culprits, silent, took_ms, .. } => {
                let outcome = if reason.is_empty() { "success" } else { "failure" };
                let labels = vec![("protocol", protocol.clone()), ("outcome", outcome.to_owned())];
                counts.add("mpcium_sessions_ended_total", labels.clone());
                counts.observe("mpcium_session_duration_seconds", labels, *took_ms);
                for peer in culprits {
                    counts.add("mpcium_session_culprits_total", vec![("peer", peer.clone())]);
                }
                for peer in silent {
                    counts.add("mpcium_session_silent_total", vec![("peer", peer.clone())]);
                }
            }
            Report::Declined { by, .. } => counts.add("mpcium_proposals_declined_total", vec![("peer", by.clone())]),
            Report::WalletActivated { .. } => counts.add("mpcium_wallets_activated_total", Vec::new()),
            Report::IngredientMade { .. } => counts.add("mpcium_safe_primes_made_total", Vec::new()),
            Report::CaughtUp => counts.add("mpcium_caught_up_total", Vec::new()),
            Report::Ignored { peer, .. } => {
                counts.add("mpcium_messages_ignored_total", vec![("peer", peer.clone())]);
            }
            Report::IgnoredUntold { peer, messages } => {
                counts.add_many("mpcium_messages_ignored_total", vec![("peer", peer.clone())], *messages);
            }
            // Their state is in the status, or they say nothing that can be counted.
            _ => {}
        }
    }

    /// The text of a scrape.
    #[must_use]
    pub fn render(&self, answer: &Answer, machine: &Machine) -> String {
        let mut page = Page::default();
        page.state(answer);
        page.machine(machine);
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((name, labels), count) in &counts.counters {
            page.put(name, labels.clone(), number(*count));
        }
        for ((name, labels), histogram) in &counts.durations {
            page.histogram(name, labels, histogram);
        }
        drop(counts);
        page.text()
    }
}

/// The samples of one scrape, by family.
#[derive(Default)]
struct Page(BTreeMap<&'static str, Vec<String>>);

impl Page {
    fn put(&mut self, family: &'static str, labels: Labels, value: f64) {
        let line = format!("{family}{} {value}", braces(&labels));
        self.0.entry(family).or_default().push(line);
    }

    fn truth(&mut self, family: &'static str, labels: Labels, value: bool) {
        self.put(family, labels, f64::from(u8::from(value)));
    }

    fn count(&mut self, family: &'static str, labels: Labels, value: usize) {
        self.put(family, labels, number(u64::try_from(value).unwrap_or(u64::MAX)));
    }

    fn histogram(&mut self, family: &'static str, labels: &Labels, histogram: &Histogram) {
        let lines = self.0.entry(family).or_default();
        let mut sum = 0;
        for (bucket, bound) in histogram.buckets.iter().zip(BUCKETS) {
            sum += bucket;
            let labels: Labels = labels.iter().cloned().chain([("le", bound.to_string())]).collect();
            lines.push(format!("{family}_bucket{} {sum}", braces(&labels)));
        }
        let all: Labels = labels.iter().cloned().chain([("le", "+Inf".to_owned())]).collect();
        lines.push(format!("{family}_bucket{} {}", braces(&all), histogram.count));
        lines.push(format!("{family}_sum{} {}", braces(labels), seconds(histogram.millis)));
        lines.push(format!("{family}_count{} {}", braces(labels), histogram.count));
    }

    /// What `mpcium status` shows.
    fn state(&mut self, answer: &Answer) {
        let build = [("version", answer.version.as_str()), ("compatible_with", cli::COMPATIBLE_WITH)];
        let build = build.into_iter().chain([("arithmetic", cli::arithmetic())]);
        self.put("mpcium_build_info", build.map(|(name, value)| (name, value.to_owned())).collect(), 1.0);
        self.truth("mpcium_test_primes", Vec::new(), answer.test_primes);
        self.truth("mpcium_starting", Vec::new(), answer.node.is_none());
        self.truth("mpcium_nats_connected", Vec::new(), answer.nats_connected.unwrap_or(false));
        self.truth("mpcium_consul_connected", Vec::new(), answer.consul_connected.unwrap_or(false));
        self.truth("mpcium_node_ready", Vec::new(), answer.node.as_ref().is_some_and(|node| node.ready));
        if let Some(lost) = answer.wallets_without_share {
            self.count("mpcium_wallets_without_share", Vec::new(), lost);
        }
        let Some(node) = &answer.node else { return };
        let labels = [("node", &node.name), ("node_id", &node.id), ("incarnation", &node.incarnation)];
        self.put("mpcium_node_info", labels.map(|(name, value)| (name, value.clone())).to_vec(), 1.0);
        self.put("mpcium_threshold", Vec::new(), f64::from(node.threshold));
        self.count("mpcium_nodes", Vec::new(), node.peers.len() + 1);
        self.count("mpcium_nodes_reachable", Vec::new(), node.peers.iter().filter(|peer| peer.up).count() + 1);
        for peer in &node.peers {
            self.truth("mpcium_peer_up", vec![("peer", peer.name.clone())], peer.up);
            self.truth("mpcium_peer_registered", vec![("peer", peer.name.clone())], peer.registered);
        }
        self.count("mpcium_safe_primes", Vec::new(), node.ingredients.pieces);
        self.count("mpcium_safe_primes_wanted", Vec::new(), node.ingredients.wanted);
        self.truth("mpcium_safe_primes_making", Vec::new(), node.ingredients.making);
        for agreed in [true, false] {
            let usable = node.auxiliary_sets.iter().filter(|set| set.banned.is_empty());
            let sets = usable.filter(|set| set.agreed == agreed).count();
            self.count("mpcium_auxiliary_sets", vec![("agreed", agreed.to_string())], sets);
        }
        let families = ["mpcium_pairs_ready", "mpcium_pairs_missing", "mpcium_pairs_banned"];
        for (family, state) in families.into_iter().zip(PairState::ALL) {
            self.count(family, Vec::new(), node.pairs.iter().filter(|pair| pair.state == state).count());
        }
        self.count("mpcium_presignatures_ready", Vec::new(), node.presignatures.ready);
        self.count("mpcium_presignatures_making", Vec::new(), node.presignatures.making);
        let mut sessions: BTreeMap<&str, usize> = BTreeMap::new();
        for session in &node.sessions {
            *sessions.entry(&session.protocol).or_default() += 1;
        }
        for (protocol, running) in sessions {
            self.count("mpcium_sessions_running", vec![("protocol", protocol.to_owned())], running);
        }
        for kind in KINDS {
            let ages = node.requests.iter().filter(|request| request.kind == kind).map(|request| request.age_ms);
            self.count("mpcium_requests_open", vec![("kind", kind.to_owned())], ages.clone().count());
            let oldest = ages.max().unwrap_or(0);
            self.put("mpcium_requests_oldest_seconds", vec![("kind", kind.to_owned())], seconds(oldest));
        }
        self.count("mpcium_wallets_undecided", Vec::new(), node.undecided.len());
        self.count("mpcium_unfit_reasons", Vec::new(), node.alarms.len());
    }

    fn machine(&mut self, machine: &Machine) {
        for queue in &machine.queues {
            let labels = vec![("kind", queue.kind.to_owned())];
            self.put("mpcium_queue_waiting", labels.clone(), number(queue.waiting));
            self.put("mpcium_queue_unanswered", labels, number(queue.unacknowledged));
        }
        let numbers = [
            ("mpcium_nats_connects_total", machine.nats_connects.map(number)),
            ("mpcium_store_bytes", machine.store_bytes.map(number)),
            ("mpcium_store_created_timestamp_seconds", machine.store_created),
            ("mpcium_store_written_timestamp_seconds", machine.store_written),
            ("mpcium_disk_free_bytes", machine.disk_free.map(number)),
            ("process_start_time_seconds", Some(machine.started)),
            ("process_cpu_seconds_total", machine.cpu_seconds),
            ("process_resident_memory_bytes", machine.resident_bytes.map(number)),
            ("process_open_fds", machine.open_files.map(number)),
        ];
        for (family, value) in numbers {
            if let Some(value) = value {
                self.put(family, Vec::new(), value);
            }
        }
    }

    fn text(self) -> String {
        let mut text = String::new();
        for family in FAMILIES {
            let Some(lines) = self.0.get(family.name) else { continue };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {} {}", family.name, family.help);
            let _ = writeln!(text, "# TYPE {} {}", family.name, family.kind.word());
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

/// Labels as the format wants them, with backslash, quote and newline escaped.
fn braces(labels: &Labels) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Exact up to 2⁵³, which no count here reaches.
fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(millis: u64) -> f64 {
    number(millis) / 1000.0
}

#[cfg(test)]
mod tests;

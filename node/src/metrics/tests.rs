//! What is counted, and the form in which it is told.

use mpcium_core::node::{PeerStatus, RequestStatus};
use mpcium_io::nats::QueueDepth;

use super::*;
use crate::status::tests::{answer, status};

fn text(value: &str) -> String {
    value.to_owned()
}

fn answered(code: &str, took_ms: u64) -> Report {
    Report::RequestAnswered {
        kind: "sign",
        wallet: text("w\nmpcium_forged 1"),
        id: text("tx"),
        error_code: text(code),
        reason: String::new(),
        took_ms,
    }
}

fn session(reason: &str, culprits: &[&str]) -> Report {
    Report::SessionEnded {
        session: text("s"),
        protocol: text("sign ed25519"),
        wallet: text("w"),
        reason: text(reason),
        culprits: culprits.iter().map(|name| text(name)).collect(),
        silent: vec![text("node2")],
        took_ms: 7,
    }
}

fn scraped(metrics: &Metrics) -> String {
    metrics.render(&answer(Some(status())), &Machine::default())
}

#[track_caller]
fn has(page: &str, line: &str) {
    assert!(page.lines().any(|got| got == line), "{line} in:\n{page}");
}

#[test]
fn answers_are_counted_by_code_and_timed_by_outcome() {
    let metrics = Metrics::default();
    for report in [answered("", 7), answered("", 30), answered("ERROR_NETWORK_TIMEOUT", 180_000)] {
        metrics.record(&report);
    }
    let page = scraped(&metrics);
    has(&page, "mpcium_requests_answered_total{kind=\"sign\",code=\"success\"} 2");
    has(&page, "mpcium_requests_answered_total{kind=\"sign\",code=\"ERROR_NETWORK_TIMEOUT\"} 1");
    let bucket = |le: &str, count| {
        format!("mpcium_request_duration_seconds_bucket{{kind=\"sign\",outcome=\"success\",le=\"{le}\"}} {count}")
    };
    has(&page, &bucket("0.005", 0));
    has(&page, &bucket("0.01", 1));
    has(&page, &bucket("0.05", 2));
    has(&page, &bucket("900", 2));
    has(&page, &bucket("+Inf", 2));
    has(&page, "mpcium_request_duration_seconds_sum{kind=\"sign\",outcome=\"success\"} 0.037");
    has(&page, "mpcium_request_duration_seconds_count{kind=\"sign\",outcome=\"error\"} 1");
    has(&page, "# TYPE mpcium_request_duration_seconds histogram");
    assert!(!page.contains("forged"), "no text of clients is told");
}

#[test]
fn sessions_links_and_alarms_are_counted() {
    let metrics = Metrics::default();
    let up = |incarnation: &str| Report::LinkUp { peer: text("node1"), incarnation: text(incarnation) };
    for report in [
        session("", &[]),
        session("a proof is wrong", &["node1"]),
        up("a"),
        up("a"),
        up("b"),
        Report::LinkDown { peer: text("node1"), reason: String::new() },
        Report::Alarm { what: text("look") },
        Report::PairBanned {
            peer: text("node1"),
            set: text("s"),
            by: text("node0"),
            reason: text("a check failed"),
            wait_s: 600,
        },
        Report::LinkTrouble { what: text("twins"), alarm: true },
        Report::LinkTrouble { what: text("garbage"), alarm: false },
        Report::RequestTaken { kind: "sign", wallet: text("w"), id: text("t"), delivery: 2 },
        Report::Declined { session: text("s"), by: text("node2"), reason: text("busy") },
    ] {
        metrics.record(&report);
    }
    let page = scraped(&metrics);
    for line in [
        "mpcium_sessions_ended_total{protocol=\"sign ed25519\",outcome=\"success\"} 1",
        "mpcium_sessions_ended_total{protocol=\"sign ed25519\",outcome=\"failure\"} 1",
        "mpcium_session_culprits_total{peer=\"node1\"} 1",
        "mpcium_session_silent_total{peer=\"node2\"} 2",
        "mpcium_link_up_total{peer=\"node1\"} 3",
        "mpcium_peer_restarts_total{peer=\"node1\"} 1",
        "mpcium_link_down_total{peer=\"node1\"} 1",
        "mpcium_alarms_total 3",
        "mpcium_pair_bans_total{peer=\"node1\"} 1",
        "mpcium_link_trouble_total 1",
        "mpcium_requests_redelivered_total{kind=\"sign\"} 1",
        "mpcium_proposals_declined_total{peer=\"node2\"} 1",
    ] {
        has(&page, line);
    }
}

#[test]
fn what_is_counted_is_there_at_zero_before_it_happens_for_the_first_time() {
    let metrics = Metrics::default();
    metrics.knows(["node1", "node2"]);
    // Also while the node waits for its store.
    let page = metrics.render(&answer(None), &Machine::default());
    for line in [
        "mpcium_alarms_total 0",
        "mpcium_not_ready_total 0",
        "mpcium_session_culprits_total{peer=\"node1\"} 0",
        "mpcium_session_culprits_total{peer=\"node2\"} 0",
        "mpcium_pair_bans_total{peer=\"node2\"} 0",
        "mpcium_requests_taken_total{kind=\"sign\"} 0",
        "mpcium_requests_answered_total{kind=\"sign\",code=\"ERROR_UNKNOWN\"} 0",
        "mpcium_sessions_ended_total{protocol=\"sign ed25519\",outcome=\"failure\"} 0",
    ] {
        has(&page, line);
    }
    let counted = |family: &&Family| {
        // What the machine is asked for is there once it can be told.
        let asked = ["mpcium_nats_connects_total", "process_cpu_seconds_total"];
        family.kind == Kind::Counter && !asked.contains(&family.name)
    };
    for family in FAMILIES.iter().filter(counted) {
        assert!(page.contains(&format!("# TYPE {} counter", family.name)), "{} is missing at zero", family.name);
    }
    metrics.record(&Report::Alarm { what: text("look") });
    has(&scraped(&metrics), "mpcium_alarms_total 1");
}

#[test]
fn the_state_is_told_as_the_status_shows_it() {
    let mut node = status();
    node.peers.push(PeerStatus {
        name: text("a\"b\\c\nd"),
        id: String::new(),
        up: false,
        registered: true,
        detail: String::new(),
    });
    node.requests.push(RequestStatus {
        kind: text("sign"),
        wallet: text("w"),
        id: text("u"),
        age_ms: 2500,
        state: String::new(),
    });
    let machine = Machine {
        queues: vec![QueueDepth { kind: "sign", waiting: 4, unacknowledged: 2 }],
        store_bytes: Some(1000),
        ..Machine::default()
    };
    let page = Metrics::default().render(&answer(Some(node)), &machine);
    for line in [
        "mpcium_node_ready 0",
        "mpcium_starting 0",
        "mpcium_test_primes 1",
        "mpcium_threshold 2",
        "mpcium_nodes 3",
        "mpcium_nodes_reachable 2",
        "mpcium_peer_up{peer=\"node1\"} 1",
        "mpcium_peer_up{peer=\"a\\\"b\\\\c\\nd\"} 0",
        "mpcium_safe_primes 1",
        "mpcium_safe_primes_wanted 4",
        "mpcium_auxiliary_sets{agreed=\"true\"} 1",
        "mpcium_auxiliary_sets{agreed=\"false\"} 0",
        "mpcium_pairs_ready 0",
        "mpcium_pairs_missing 0",
        "mpcium_pairs_banned 1",
        "mpcium_presignatures_ready 3",
        "mpcium_presignatures_making 1",
        "mpcium_sessions_running{protocol=\"keygen\"} 1",
        "mpcium_requests_open{kind=\"sign\"} 2",
        "mpcium_requests_open{kind=\"reshare\"} 0",
        "mpcium_requests_oldest_seconds{kind=\"sign\"} 2.5",
        "mpcium_unfit_reasons 1",
        "mpcium_wallets_undecided 1",
        "mpcium_wallets_without_share 6",
        "mpcium_queue_waiting{kind=\"sign\"} 4",
        "mpcium_queue_unanswered{kind=\"sign\"} 2",
        "mpcium_store_bytes 1000",
    ] {
        has(&page, line);
    }
}

#[test]
fn a_page_is_well_formed_and_every_family_is_documented() {
    let metrics = Metrics::default();
    metrics.record(&answered("", 7));
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(folder.path().join("store")).expect("folder");
    std::fs::write(folder.path().join("store/envelope"), b"12345").expect("file");
    let machine = Machine::look(Some(folder.path()), std::time::SystemTime::now());
    assert_eq!(machine.store_bytes, Some(5));
    assert!(machine.disk_free.is_some() && machine.resident_bytes.is_some_and(|bytes| bytes > 100_000));
    let page = metrics.render(&answer(Some(status())), &machine);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap_or_default();
        let known = |family: &Family| {
            let suffixes = ["_bucket", "_sum", "_count"];
            name == family.name
                || (family.kind == Kind::Histogram && suffixes.iter().any(|s| name == format!("{}{s}", family.name)))
        };
        assert!(FAMILIES.iter().any(known), "{line}");
    }
    let documented = include_str!("../../../docs/operations.md");
    for family in FAMILIES {
        assert!(documented.contains(&format!("`{}`", family.name)), "{} is not in docs/operations.md", family.name);
        assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{}", family.name);
    }
}

#[test]
fn messages_that_are_ignored_are_counted_whether_they_are_told_or_not() {
    let metrics = Metrics::default();
    let ignored = Report::Ignored { peer: text("node1"), what: text("nonsense") };
    for report in [ignored.clone(), Report::IgnoredUntold { peer: text("node1"), messages: 40 }, ignored] {
        metrics.record(&report);
    }
    has(&scraped(&metrics), "mpcium_messages_ignored_total{peer=\"node1\"} 42");
}

#[test]
fn the_number_of_series_has_a_limit() {
    let metrics = Metrics::default();
    let before = Counts::at_zero().counters.len();
    for number in 0..2 * SERIES_MAX {
        metrics.record(&Report::Ignored { peer: format!("p{number}"), what: String::new() });
    }
    let lines = scraped(&metrics).lines().filter(|line| line.starts_with("mpcium_messages_ignored")).count();
    assert_eq!(lines, SERIES_MAX - before);
}

//! Nodes that are slow, that hang, or that have more to say than their links take: nobody is blamed for what is only
//! slow, and nothing fails but what wrote too much.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use mpcium_core::{
    Duration, limits,
    protocol::{
        Abort, AuxiliarySuite, Cggmp, Curve, DistributedKeyGeneration, Frost, Incoming, Outgoing, Pace, Party, Run,
        Signing, SigningSuite, Step, Suites,
    },
    report::Report,
};

use crate::world::{Toy, World, attested_by, code, keygen, sign};

/// Nobody is blamed for what is only slow, and no signature that will be good is given up: neither by those who wait for
/// a message, nor by those who have the signature and wait for the others' last step.
#[test]
fn a_session_that_waits_for_a_slow_worker_is_not_given_up() {
    for coordinator in [1, 2] {
        let mut world = World::quiet(3, 2, |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        world.kill(0);
        world.run_for(Duration::from_secs(5));
        world.reports.clear();
        // Two steps are longer than a run may go without progress, and all three together shorter than the cap.
        world.work.insert(2, Some(9_000_000));
        world.request_to(coordinator, &sign("w", "ed25519", "t", b"m", &[]));
        assert_eq!(code(&world.result("w", Some("t"))), "");
        let sessions = |of: fn(&Report) -> bool| world.reports.iter().filter(|(_, report)| of(report)).count();
        assert_eq!(sessions(|report| matches!(report, Report::SessionStarted { .. })), 2, "one attempt, two parties");
        assert_eq!(sessions(|report| matches!(report, Report::SessionEnded { reason, .. } if !reason.is_empty())), 0);
    }
}

/// As above: the coordinator has its share long before the others.
#[test]
fn a_wallet_that_waits_for_slow_workers_is_made_in_one_attempt() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    world.work.insert(2, Some(11_000_000));
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    let started = |report: &Report| matches!(report, Report::SessionStarted { protocol, .. } if protocol == "keygen");
    assert_eq!(world.reports.iter().filter(|(_, report)| started(report)).count(), 3, "one attempt, three parties");
}

#[test]
fn a_node_whose_worker_hangs_is_replaced_by_another() {
    let mut world = World::quiet(3, 2, |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.work.insert(2, None);
    // Not those that node 2 takes itself: as long as it can be heard they are its own to answer.
    for number in 0..6 {
        let tx = format!("t{number}");
        world.request_to(number % 2, &sign("w", "ed25519", &tx, b"m", &[]));
        let result = world.result("w", Some(&tx));
        assert_eq!(code(&result), "", "{result}");
        assert!(!attested_by(&result).contains(&world.id(2).to_string()));
    }
}

/// Signs Ed25519, and does what a test asks for.
#[derive(Clone, Default)]
struct Watched(Arc<Orders>);

#[derive(Default)]
struct Orders {
    /// The next run says too much.
    flood: AtomicBool,
    /// Runs so far.
    runs: AtomicUsize,
}

impl Watched {
    fn suites(&self) -> Suites {
        Suites {
            keygen: Arc::new(DistributedKeyGeneration),
            secp256k1: Arc::new(Cggmp::<Toy>::new()),
            ed25519: Arc::new(self.clone()),
        }
    }
}

impl SigningSuite for Watched {
    fn name(&self) -> &'static str {
        Frost.name()
    }
    fn curve(&self) -> Curve {
        Frost.curve()
    }
    fn pace(&self, parties: u16) -> Pace {
        Frost.pace(parties)
    }
    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        None
    }
    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        Frost.verify(public_key, message, signature)
    }
    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        let honest = Frost.start(run, signing)?;
        self.0.runs.fetch_add(1, Ordering::Relaxed);
        let floods = self.0.flood.swap(false, Ordering::Relaxed);
        Ok(if floods { Box::new(FloodingParty(honest)) } else { honest })
    }
}

struct FloodingParty(Box<dyn Party>);

impl Party for FloodingParty {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let mut step = self.0.advance(inbox);
        // More than a lane holds, in messages that it takes.
        step.messages.extend((0..5).map(|_| Outgoing { to: None, bytes: vec![0; 7 << 20] }));
        step
    }
}

#[test]
fn a_session_that_says_more_than_its_lane_takes_fails_alone() {
    let watched = Watched::default();
    let mut world = World::with_suites(2, vec![watched.suites(); 3], |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.run_for(Duration::from_secs(5));
    world.reports.clear();
    watched.0.flood.store(true, Ordering::Relaxed);
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    assert_eq!(code(&world.result("w", Some("t"))), "", "another attempt is made");
    let failed =
        |report: &Report| matches!(report, Report::SessionEnded { reason, .. } if reason.contains("cannot be reached"));
    assert!(world.reports.iter().any(|(_, report)| failed(report)), "{:#?}", world.last_reports());
    assert!(!world.reports.iter().any(|(_, report)| matches!(report, Report::LinkDown { .. })), "a link fails with it");
}

#[test]
fn a_session_that_ends_while_its_job_waits_for_a_worker_is_not_computed() {
    let watched = [Watched::default(), Watched::default(), Watched::default()];
    let mut world = World::with_suites(2, watched.iter().map(Watched::suites).collect(), |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.kill(2);
    world.run_for(Duration::from_secs(5));
    world.work.insert(1, Some(10_000_000));
    world.request_to(0, &sign("w", "ed25519", "t", b"m", &[]));
    let joined = |w: &mut World| {
        let started =
            |report: &Report| matches!(report, Report::SessionStarted { protocol, .. } if protocol == "sign ed25519");
        w.reports.iter().any(|(node, report)| *node == 1 && started(report))
    };
    assert!(world.run_until(Duration::from_secs(2), joined), "{:#?}", world.last_reports());
    world.kill(0);
    world.run_for(Duration::from_secs(30));
    assert_eq!(watched[1].0.runs.load(Ordering::Relaxed), 0, "nobody wants it any more");
}

/// Others do its work before they would have missed it.
#[test]
fn a_node_that_is_stopped_says_so_and_is_replaced_at_once() {
    let mut world = World::quiet(3, 2, |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.run_for(Duration::from_secs(5));
    // Whichever of the two others is asked first has not finished when it is stopped.
    world.work.extend([(1, None), (2, None)]);
    world.request_to(0, &sign("w", "ed25519", "t", b"m", &[]));
    let joined = |w: &World| {
        let started =
            |report: &Report| matches!(report, Report::SessionStarted { protocol, .. } if protocol == "sign ed25519");
        (1..3).find(|by| w.reports.iter().any(|(node, report)| node == by && started(report)))
    };
    assert!(world.run_until(Duration::from_secs(2), |w| joined(w).is_some()), "{:#?}", world.last_reports());
    let stopped = joined(&world).expect("just seen");
    world.work.clear();
    world.stop(stopped);
    let answered = |w: &mut World| w.results.iter().any(|result| result.2["tx_id"] == "t");
    assert!(world.run_until(limits::LINK_SILENCE_MAX / 2, answered), "{:#?}", world.last_reports());
    assert_eq!(code(&world.result("w", Some("t"))), "");
}

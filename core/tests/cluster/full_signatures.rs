//! Signatures over everything: when they are demanded, what they cover, and that nobody works after their expiry.

use mpcium_core::{Duration, input::RequestKind};

use crate::world::{World, code, in_full, keygen, sign};

const HOUR_MS: i64 = 3_600_000;

fn strict() -> World {
    World::with(3, 2, |config| config.authorization.full_signature_required = true)
}

#[test]
fn where_it_is_required_only_requests_with_it_are_served() {
    let mut world = strict();
    world.request(&keygen("w"));
    let refused = world.result("w", None);
    assert_eq!(code(&refused), "ERROR_INVALID_INITIATOR_SIGNATURE");
    assert!(refused["error_reason"].as_str().expect("a reason").contains("require_full_signature"), "{refused}");
    world.results.clear();
    world.request(&in_full(keygen("w"), HOUR_MS, None));
    assert_eq!(code(&world.result("w", None)), "");
    world.request(&sign("w", "ed25519", "classic", b"m", &[]));
    assert_eq!(code(&world.result("w", Some("classic"))), "ERROR_INVALID_INITIATOR_SIGNATURE");
    world.request(&in_full(sign("w", "ed25519", "full", b"m", &[7]), HOUR_MS, None));
    assert_eq!(code(&world.result("w", Some("full"))), "");
}

#[test]
fn a_derivation_path_that_was_changed_on_its_way_is_refused() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    let request = in_full(sign("w", "ed25519", "t", b"m", &[7]), HOUR_MS, None);
    let body = String::from_utf8(request.to_json()).expect("text").replace("[7]", "[8]");
    world.raw_request(RequestKind::Sign, body.into_bytes());
    let refused = world.result("w", Some("t"));
    assert_eq!(code(&refused), "ERROR_INVALID_INITIATOR_SIGNATURE");
    assert!(refused["error_reason"].as_str().expect("a reason").contains("full_signature"), "{refused}");
}

#[test]
fn an_expired_request_is_refused_by_name_and_within_the_allowed_skew_it_is_served() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.request(&in_full(sign("w", "ed25519", "old", b"m", &[]), -HOUR_MS, None));
    let refused = world.result("w", Some("old"));
    assert_eq!(code(&refused), "ERROR_SESSION_STALE");
    assert!(refused["error_reason"].as_str().expect("a reason").contains("expires_at"), "{refused}");
    // The client's clock may be behind by the allowance.
    let now = i64::try_from(world.now().time.0 / 1000).expect("small");
    world.request(&in_full(sign("w", "ed25519", "skewed", b"m", &[]), now - 2_000, None));
    assert_eq!(code(&world.result("w", Some("skewed"))), "");
    world.request(&in_full(keygen("never"), -HOUR_MS, None));
    assert_eq!(code(&world.result("never", None)), "ERROR_SESSION_STALE");
}

#[test]
fn a_request_that_expires_while_it_waits_is_given_up_then_and_not_later() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    for node in [1, 2] {
        for other in 0..3 {
            world.cut.insert((node, other));
            world.cut.insert((other, node));
        }
    }
    let now = i64::try_from(world.now().time.0 / 1000).expect("small");
    world.request(&in_full(sign("w", "ed25519", "t", b"m", &[]), now + 20_000, None));
    world.run_for(Duration::from_secs(40));
    world.cut.clear();
    let refused = world.result("w", Some("t"));
    assert_eq!(code(&refused), "ERROR_SESSION_STALE", "{refused}");
    assert!(world.now().time.0 / 1000 < 120_000, "long before the signing deadline");
}

#[test]
fn a_replay_after_the_expiry_gets_the_stored_result_and_nothing_is_signed_again() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    let now = i64::try_from(world.now().time.0 / 1000).expect("small");
    let request = in_full(sign("w", "ed25519", "t", b"m", &[]), now + 10_000, None);
    world.request(&request);
    let first = world.result("w", Some("t"));
    assert_eq!(code(&first), "");
    world.run_for(Duration::from_secs(60));
    world.results.clear();
    world.request(&request);
    assert_eq!(world.result("w", Some("t")), first);
}

#[test]
fn a_signed_client_id_decides_where_the_answer_goes_whatever_the_header_says() {
    let mut world = World::new(3, 2);
    let request = in_full(keygen("w"), HOUR_MS, Some("svc"));
    world.request_from(Some("thief"), RequestKind::Keygen, request.to_json());
    assert_eq!(code(&world.result("w", None)), "");
    assert_eq!(world.results[0].0, "mpc.mpc_keygen_result.svc.w");
    world.results.clear();
    world.request_from(Some("other"), RequestKind::Keygen, in_full(keygen("w"), HOUR_MS, None).to_json());
    world.result("w", None);
    assert_eq!(world.results[0].0, "mpc.mpc_keygen_result.other.w", "without one the header counts");
}

/// What the two deliveries of one id are told, first those that are told an error.
fn told(world: &mut World) -> [String; 2] {
    let both = world.run_until(Duration::from_secs(1200), |w| w.results.len() >= 2);
    assert!(both, "{:#?}", world.last_reports());
    let mut codes: Vec<String> = world.results.iter().map(|result| code(&result.2).to_owned()).collect();
    codes.sort_by_key(String::is_empty);
    codes.try_into().expect("two answers")
}

#[test]
fn who_asks_again_with_more_time_gets_it_and_who_had_less_is_told_in_time() {
    for longer_first in [false, true] {
        let mut world = World::quiet(3, 2, |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        world.results.clear();
        for node in [1, 2] {
            for other in 0..3 {
                world.cut.insert((node, other));
                world.cut.insert((other, node));
            }
        }
        let now = i64::try_from(world.now().time.0 / 1000).expect("small");
        let mut requests =
            [20_000, 100_000].map(|left| in_full(sign("w", "ed25519", "t", b"m", &[]), now + left, None));
        if longer_first {
            requests.reverse();
        }
        requests.iter().for_each(|request| world.request_to(0, request));
        world.run_for(Duration::from_secs(40));
        assert!(world.results.is_empty());
        world.cut.clear();
        assert_eq!(told(&mut world), ["ERROR_SESSION_STALE", ""], "longer first: {longer_first}");
    }
}

#[test]
fn a_wallet_is_still_made_for_who_asks_again_with_more_time() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    world.kill(2);
    let now = i64::try_from(world.now().time.0 / 1000).expect("small");
    for left in [20_000, 200_000] {
        world.request_to(0, &in_full(keygen("w"), now + left, None));
    }
    let first = world.run_until(Duration::from_secs(100), |w| !w.results.is_empty());
    assert!(first, "{:#?}", world.last_reports());
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.results.len(), 1, "the other one has time left: {:#?}", world.last_reports());
    world.start(2);
    assert_eq!(told(&mut world), ["ERROR_SESSION_STALE", ""]);
}

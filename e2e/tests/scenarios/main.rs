//! The cluster at production strength: three node processes, two of which sign, with real NATS, Consul and clients.
//!
//! Making auxiliary data takes a minute or two, so all scenarios share one cluster and run in a fixed order; each one
//! begins with everything running and may leave anything killed behind. All scenarios run, also after a failure, and
//! every failure is reported with the ends of the logs. `E2E_ONLY=word,word` runs those whose names hold a word.

mod clients;
mod damage;
mod requests;
mod restarts;
mod secrets;
mod servers;
mod signing;
mod strangers;
mod typescript;
mod wire;
mod world;

use std::{
    io::Write as _,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use futures::future::LocalBoxFuture;
use mpcium_core::protocol::EcdsaProtocol;
use world::{Outcome, World};

type Scenario = (&'static str, for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, Outcome>);

macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        &[$((stringify!($name), |world| Box::pin($module::$name(world)))),*]
    };
}

const SCENARIOS: &[Scenario] = scenarios![
    // While auxiliary data is being made, ECDSA signatures wait; these need none.
    signing::ed25519_is_signed_while_ecdsa_waits_for_auxiliary_data,
    requests::a_request_signed_with_another_key_is_refused,
    requests::a_wallet_that_exists_is_answered_again,
    requests::an_unknown_wallet_is_refused,
    damage::a_wrong_password_is_refused,
    damage::a_second_process_on_one_store_is_refused,
    signing::ecdsa_is_signed_once_auxiliary_data_is_there,
    requests::the_same_request_has_one_answer,
    requests::the_same_id_with_another_payload_is_refused,
    signing::messages_are_hashed_by_the_nodes,
    signing::a_message_is_signed_with_a_presignature,
    signing::the_command_line_signs,
    signing::each_pair_signs,
    signing::the_other_ecdsa_protocol_signs_with_the_same_keys,
    wire::ids_of_any_text_are_served,
    wire::too_many_queries_are_refused_and_later_ones_answered,
    wire::resharing_is_refused_in_words,
    clients::go_clients_are_served,
    clients::a_go_client_signs_on_both_curves,
    clients::a_go_client_signs_requests_with_p256,
    clients::initiators_keys_stay_in_kms,
    clients::authorizers_approve_requests,
    clients::the_examples_run,
    clients::a_go_client_comes_before_the_nodes,
    typescript::typescript_clients_are_served,
    typescript::a_typescript_client_signs_every_field,
    typescript::a_typescript_client_comes_before_the_nodes,
    strangers::garbage_and_replays_change_nothing,
    restarts::a_node_is_killed_in_the_middle_of_200_signatures,
    restarts::every_node_is_killed_and_restarted_under_load,
    servers::nats_is_restarted_under_load,
    servers::consul_is_restarted_under_load,
    damage::a_damaged_store_is_named,
    damage::a_copied_store_raises_an_alarm,
    secrets::no_secret_is_told,
];

/// What differs with the other ECDSA protocol, or leans on its speed.
const WITH_DKLS23: &[Scenario] = scenarios![
    signing::ecdsa_is_signed_once_auxiliary_data_is_there,
    requests::the_same_request_has_one_answer,
    signing::messages_are_hashed_by_the_nodes,
    signing::the_command_line_signs,
    signing::each_pair_signs,
    wire::ids_of_any_text_are_served,
    restarts::a_node_is_killed_in_the_middle_of_200_signatures,
    restarts::every_node_is_killed_and_restarted_under_load,
    secrets::no_secret_is_told,
];

/// One cluster at a time: the machine is small.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_cluster_of_processes_keeps_its_promises() {
    run_all(EcdsaProtocol::Cggmp24, SCENARIOS);
}

#[test]
fn a_cluster_that_signs_with_dkls23_keeps_its_promises() {
    run_all(EcdsaProtocol::Dkls23, WITH_DKLS23);
}

fn run_all(ecdsa: EcdsaProtocol, scenarios: &[Scenario]) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let failures = runtime.block_on(run(ecdsa, scenarios));
    assert!(failures.is_empty(), "{} scenarios failed:\n{}", failures.len(), failures.join("\n"));
}

async fn run(ecdsa: EcdsaProtocol, scenarios: &[Scenario]) -> Vec<String> {
    let began = Instant::now();
    let mut world = match World::start(ecdsa).await {
        Ok(world) => world,
        Err(failure) => return vec![failure],
    };
    say(&format!("a cluster with {ecdsa} that was started before NATS is ready ({} s)", began.elapsed().as_secs()));
    let only = std::env::var("E2E_ONLY").ok();
    let chosen = |name: &str| only.as_ref().is_none_or(|words| words.split(',').any(|word| name.contains(word)));
    let mut failures = Vec::new();
    for (name, scenario) in scenarios.iter().filter(|(name, _)| chosen(name)) {
        let began = Instant::now();
        let mut outcome = scenario(&mut world).await;
        if outcome.is_ok() {
            outcome = world.heal().await;
        }
        if outcome.is_ok() {
            outcome = world.queues_are_settled().await;
        }
        let took = began.elapsed().as_secs();
        match outcome {
            Ok(()) => say(&format!("{name} ({took} s)")),
            Err(failure) => {
                say(&format!("FAILED {name} ({took} s): {failure}"));
                failures.push(format!("{name}: {failure}\n{}", world.logs()));
                if let Err(failure) = world.heal().await {
                    failures.push(format!("after {name} the cluster did not come back: {failure}"));
                    break;
                }
            }
        }
    }
    failures
}

/// Says how far the run has come, past the test harness, which would show it only after a failure.
fn say(line: &str) {
    // Where nobody listens nothing is lost.
    let _ = writeln!(std::io::stderr(), "e2e: {line}");
}

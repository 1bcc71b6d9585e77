//! The bus through its ports, without any runtime.

use std::time::Duration;

use futures::{StreamExt as _, executor::block_on};
use mpcium_core::{
    Input, NodeId,
    input::{Delivery, RequestKind},
    output::{Publication, PublishId, Settlement},
};

use super::{Bus, BusOptions};
use crate::ports::{Datagrams as _, Event, Events, Inbox, Requests as _, Results as _};

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn short() -> BusOptions {
    BusOptions { acknowledge_wait: Duration::from_millis(50), ..BusOptions::default() }
}

fn input(events: &mut Events) -> Input {
    match block_on(events.next()) {
        Some(Event::Input(input)) => input,
        other => panic!("an input was expected, not {other:?}"),
    }
}

fn delivery(events: &mut Events) -> Delivery {
    match input(events) {
        Input::Request(delivery) => delivery,
        other => panic!("a request was expected, not {other:?}"),
    }
}

fn result(number: u64, dedup: &str) -> Publication {
    let subject = "mpc.mpc_keygen_result.w".to_owned();
    Publication { id: PublishId(number), subject, dedup: dedup.to_owned(), body: b"{}".to_vec() }
}

#[test]
fn a_silent_nodes_delivery_goes_to_another_without_anybody_asking() {
    let bus = Bus::new(short());
    let ((inbox_one, mut one), (inbox_two, mut two)) = (Inbox::new(), Inbox::new());
    let (member_one, member_two) = (bus.join(id(1), inbox_one), bus.join(id(2), inbox_two));
    let sequence = bus.request(RequestKind::Sign, b"x".to_vec(), Some("shop".to_owned()));
    member_one.intake(RequestKind::Sign, true);
    let first = delivery(&mut one);
    assert_eq!((first.sequence, first.deliveries, first.client.as_deref()), (sequence, 1, Some("shop")));

    member_one.intake(RequestKind::Sign, false);
    member_two.intake(RequestKind::Sign, true);
    let second = delivery(&mut two);
    assert_eq!((second.sequence, second.deliveries), (sequence, 2));
    member_two.settle(second.id, Settlement::Acknowledge);
    assert_eq!(bus.pending(RequestKind::Sign), 0);
}

#[test]
fn a_released_delivery_comes_again_by_itself() {
    let bus = Bus::new(BusOptions::default());
    let (inbox, mut events) = Inbox::new();
    let member = bus.join(id(1), inbox);
    member.intake(RequestKind::Keygen, true);
    bus.request(RequestKind::Keygen, vec![], None);
    let first = delivery(&mut events);
    member.settle(first.id, Settlement::Release(Duration::from_millis(20)));
    assert_eq!(delivery(&mut events).deliveries, 2);
}

#[test]
fn datagrams_reach_members_only_and_a_former_self_is_mute() {
    let bus = Bus::new(BusOptions::default());
    let ((inbox_one, _one), (inbox_two, mut two)) = (Inbox::new(), Inbox::new());
    let former = bus.join(id(1), inbox_one.clone());
    let _two = bus.join(id(2), inbox_two);
    let current = bus.join(id(1), inbox_one);
    current.send(id(9), b"nobody".to_vec());
    former.send(id(2), b"former".to_vec());
    current.send(id(2), b"current".to_vec());
    assert!(matches!(input(&mut two), Input::Datagram(bytes) if bytes == b"current"));
}

#[test]
fn a_result_is_in_the_log_once_for_early_and_late_readers() {
    let bus = Bus::new(BusOptions::default());
    let (inbox, mut events) = Inbox::new();
    let member = bus.join(id(1), inbox);
    let early = bus.results(1);
    for (number, dedup) in [(1, "a"), (2, "a"), (3, "b")] {
        member.publish(result(number, dedup));
        assert!(matches!(input(&mut events), Input::Published(PublishId(n)) if n == number));
    }
    for reader in [early, bus.results(1)] {
        let sequences: Vec<u64> = block_on(reader.take(2).map(|result| result.sequence).collect());
        assert_eq!(sequences, [1, 2]);
    }
    let late: Vec<u64> = block_on(bus.results(2).take(1).map(|result| result.sequence).collect());
    assert_eq!(late, [2]);
}

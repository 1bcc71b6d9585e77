//! A liar and a node that catches up: what it is told, and what it makes others read.

use super::{Liar, world::World, world::keygen};
use crate::{
    Duration, NodeId, limits,
    link::Lane,
    message::Message,
    node::{CatchUpCursor, CatchUpMessage as CatchUp},
};

const LIAR: usize = 2;

/// A node whose store was put back asks what is undecided. What it is told it writes for ever, so nobody tells it more
/// than it asks.
#[test]
fn a_node_that_catches_up_writes_no_more_than_it_asks_for() {
    let mut world = World::quiet(3, 2, |_| {});
    let mut liar = Liar::new(&mut world, LIAR);
    let older = world.disk(0).clone();
    liar.restart(&mut world, 0);
    world.kill(0);
    *world.disk(0) = older;
    world.start(0);
    let ask = |message: &Message| match message {
        Message::CatchUp(CatchUp::Ask { after }) => Some(after.clone()),
        _ => None,
    };
    let asked = |liar: &Liar| liar.heard.iter().filter(|(_, message)| ask(message).is_some()).count();
    assert!(liar.until(&mut world, |liar, _| asked(liar) > 0), "{:#?}", world.last_reports());
    // It is asked again every few seconds; meanwhile it says the same page, further ones, and smaller names.
    for round in 0..40_u32 {
        let undecided: Vec<String> =
            (0..200).map(|name| format!("w{}", 100_000 + 1000 * (round % 20) + name)).collect();
        let next = Some(CatchUpCursor::new(undecided.last().cloned().unwrap_or_default()));
        let page = Message::CatchUp(CatchUp::Page { certificates: Vec::new(), undecided, next });
        liar.say(&mut world, 0, Lane::Bulk, &page);
        liar.run_for(&mut world, Duration::from_millis(1));
    }
    let sat_out = world.disk(0).keys().filter(|(_, key)| key.starts_with(b"sits out")).count();
    assert!(sat_out > 0 && sat_out <= 200 * asked(&liar), "{sat_out} for {} questions", asked(&liar));
    let before = asked(&liar);
    // What does not go on is no answer.
    let small = vec!["a".to_owned()];
    let next = Some(CatchUpCursor::new("a".to_owned()));
    let page = Message::CatchUp(CatchUp::Page { certificates: Vec::new(), undecided: small, next });
    liar.say(&mut world, 0, Lane::Bulk, &page);
    liar.run_for(&mut world, Duration::from_millis(50));
    assert!(!world.disk(0).keys().any(|(_, key)| key == b"sits out a"));
    assert_eq!(asked(&liar), before);
}

/// Whoever asks for pages as fast as it can has one read at a time, and so many in a second; an honest node that asks for
/// one after the other is not slowed down.
#[test]
fn a_member_that_asks_for_pages_without_end_is_read_one_at_a_time() {
    let mut world = World::quiet(3, 2, |_| {});
    let mut liar = Liar::new(&mut world, LIAR);
    let ask = Message::CatchUp(CatchUp::Ask { after: CatchUpCursor::new(String::new()) });
    let pages = |liar: &Liar| {
        let page = |(_, message): &&(NodeId, Message)| matches!(message, Message::CatchUp(CatchUp::Page { .. }));
        liar.heard.iter().filter(page).count()
    };
    // So many questions arrive in one packet.
    let (now, node) = (world.now().time, world.id(0));
    for _ in 0..limits::LANE_WINDOW_PACKETS {
        liar.links.send(now, node, Lane::Bulk, ask.encode()).expect("the link takes it");
    }
    liar.run_for(&mut world, Duration::from_secs(1));
    assert_eq!(pages(&liar), 1);
    // And so many one after the other.
    let (before, mut asked) = (world.now().time, 0);
    let answered = |liar: &Liar, asked| pages(liar) > asked;
    while asked < 2 * limits::CATCH_UP_PAGES_BURST as usize {
        let known = pages(&liar);
        liar.say(&mut world, 0, Lane::Bulk, &ask);
        let end = world.now().time.after(Duration::from_millis(20));
        while !answered(&liar, known) && world.now().time < end {
            liar.run_for(&mut world, Duration::from_millis(1));
        }
        asked += 1;
    }
    let seconds = world.now().time.since(before).as_secs() as usize + 1;
    let (burst, rate) = (limits::CATCH_UP_PAGES_BURST as usize, limits::CATCH_UP_PAGES_PER_SECOND as usize);
    let told = pages(&liar) - 1;
    assert!((burst - 1..=burst + seconds * rate).contains(&told), "{told} pages in {seconds} s");
    assert!(told < asked, "every question is answered");
    // What is asked for with names that no wallet has is not read at all.
    liar.run_for(&mut world, Duration::from_secs(2));
    let known = pages(&liar);
    let after = CatchUpCursor::new("w".repeat(limits::ID_BYTES_MAX + 1));
    liar.say(&mut world, 0, Lane::Bulk, &Message::CatchUp(CatchUp::Ask { after }));
    liar.run_for(&mut world, Duration::from_secs(1));
    assert_eq!(pages(&liar), known);
}

/// The names of wallets in a page are whatever its sender likes, until the certificates have been verified.
#[test]
fn a_node_that_catches_up_survives_names_that_no_wallet_can_have() {
    let mut world = World::quiet(3, 2, |_| {});
    let older = world.disk(0).clone();
    world.request(&keygen("w"));
    world.result("w", None);
    let mut liar = Liar::new(&mut world, LIAR);
    let mut certificate = liar.certificate_of(&mut world, 1, "w");
    certificate.value.session.facts.wallet = "w".repeat(usize::from(u16::MAX) + 1);
    world.kill(0);
    *world.disk(0) = older;
    world.start(0);
    let asked = |liar: &Liar| liar.heard.iter().any(|(_, m)| matches!(m, Message::CatchUp(CatchUp::Ask { .. })));
    assert!(liar.until(&mut world, |liar, _| asked(liar)), "{:#?}", world.last_reports());
    let page = CatchUp::Page { certificates: vec![certificate], undecided: Vec::new(), next: None };
    liar.say(&mut world, 0, Lane::Bulk, &Message::CatchUp(page));
    liar.run_for(&mut world, Duration::from_millis(50));
    assert!(world.node(0).status(world.now()).alarms.iter().any(|alarm| alarm.contains("brought up to date")));
}

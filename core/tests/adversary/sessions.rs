//! A liar inside the runs of protocols: what it repeats, and what it may learn from how runs end.

use super::world::World;
use crate::{
    Duration, Identity, Incarnation, NodeId, Output,
    auxiliary::{Auxiliary, Message},
    context::{After, Context, Event},
    link::Lane,
    node::PairState,
    protocol::{Abort, Dkls, Priority},
    session::{Owner, Plan, SessionId, Sessions},
    store::Keyspace,
};

const PEER: NodeId = NodeId::from_bytes([2; 16]);

/// A node's parts, of which the others hear nothing.
struct Parts {
    ctx: Context,
    sessions: Sessions,
    auxiliary: Auxiliary,
}

impl Parts {
    fn new() -> Self {
        let world = World::quiet(3, 2, |_| {});
        let mut suites = world.suites(0).clone();
        suites.secp256k1 = std::sync::Arc::new(Dkls);
        let config = world.config(0).clone();
        let identity = Identity::new(config.me, &[1; 32]);
        let ctx = Context::new(config, identity, suites, 0, [1; 32], world.now());
        Self { ctx, sessions: Sessions::default(), auxiliary: Auxiliary::default() }
    }

    /// A run with a peer begins that uses this set of theirs.
    fn run_with(&mut self, session: u8, set: [u8; 32]) {
        let pace = self.ctx.suites.secp256k1.pace(2);
        let plan = Plan {
            id: SessionId([session; 32]),
            owner: Owner::Signing,
            protocol: "sign secp256k1".to_owned(),
            wallet: "w".to_owned(),
            attempt: 1,
            coordinator: PEER,
            participants: vec![(self.ctx.me, self.ctx.incarnation), (PEER, Incarnation([2; 16]))],
            execution_id: [session; 32],
            pace,
            deadline: None,
            pairs: vec![(PEER, set)],
            priority: Priority::Signing,
            lane: Lane::Signing,
            start: Box::new(|_| Err(Abort::new("no worker takes it"))),
        };
        self.sessions.start(&mut self.ctx, plan);
    }

    /// What became durable under a set's name, and which runs were over after that, but not before.
    fn banned(&mut self, set: [u8; 32]) -> (usize, usize) {
        let over = |event: &Event| matches!(event, Event::SessionEnded { .. });
        let mut events = std::iter::from_fn(|| self.ctx.next_event());
        assert!(!events.any(|event| over(&event)), "nobody hears of it before it is durable");
        let (mut records, mut ended) = (0, 0);
        while let Some(output) = self.ctx.poll() {
            let Output::Persist { id, batch } = output else { continue };
            let of_set = |write: &&crate::store::Write| write.keyspace == Keyspace::Auxiliary && write.key == set;
            records += batch.writes.iter().filter(of_set).filter(|write| write.value.is_some()).count();
            if let Some(After::Auxiliary(after)) = self.ctx.persisted(id) {
                self.auxiliary.on_persisted(&mut self.ctx, after);
            }
            while let Some(event) = self.ctx.next_event() {
                ended += usize::from(over(&event));
            }
        }
        (records, ended)
    }
}

/// A newer set of the pair has replaced the one that runs began with: they hold its secrets still, and whether each of
/// them ends by itself tells something about these.
#[test]
fn a_failed_check_bans_a_set_that_was_replaced_and_ends_all_that_began_with_it() {
    let set = [7; 32];
    for found_here in [true, false] {
        let mut parts = Parts::new();
        parts.run_with(1, set);
        parts.run_with(2, set);
        parts.run_with(3, [8; 32]);
        let Parts { ctx, sessions, auxiliary } = &mut parts;
        if found_here {
            let me = ctx.me;
            auxiliary.ban(ctx, sessions, &[(PEER, set)], me, "a check failed", Vec::new());
        } else {
            let (sets, agreed, pairs) = (Vec::new(), Vec::new(), Vec::new());
            // Nobody uses the other one: whoever invents names fills nothing.
            let banned = vec![set, [9; 32]];
            let state = Message::State { has_ingredient: false, sets, agreed, pairs, banned };
            auxiliary.on_message(ctx, sessions, PEER, state);
        }
        assert!(!sessions.uses(PEER, set) && sessions.uses(PEER, [8; 32]));
        let signers = [ctx.me, PEER];
        let refused = |set| auxiliary.view(ctx, &[set], &signers).map(|_| ()).unwrap_err();
        assert!(refused(set).contains("banned"), "{}", refused(set));
        assert!(!refused([9; 32]).contains("banned"), "{}", refused([9; 32]));
        assert_eq!(parts.banned(set), (1, 2), "found here: {found_here}");
    }
}

/// What is stored says when the ban began, by a clock that was a year ahead then.
#[test]
fn a_ban_lasts_no_longer_than_it_says_whatever_the_clock_was() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    let set = [7; 32];
    let mut parts = Parts::new();
    parts.ctx.now.wall.0 += YEAR_MS;
    let Parts { ctx, sessions, auxiliary } = &mut parts;
    let me = ctx.me;
    auxiliary.ban(ctx, sessions, &[(PEER, set)], me, "a check failed", Vec::new());
    let record = std::iter::from_fn(|| ctx.poll()).find_map(|output| match output {
        Output::Persist { batch, .. } => batch.writes.into_iter().find(|write| write.key == set)?.value,
        _ => None,
    });
    let stored = [(Keyspace::Auxiliary, set.to_vec(), record.expect("it is stored"))];
    let waits = |auxiliary: &Auxiliary, ctx: &Context| {
        let peer = ctx.name(PEER);
        let pairs = auxiliary.pairs_status(ctx);
        let of_peer = pairs.iter().find(|pair| pair.peer == peer).expect("a pair");
        (of_peer.state == PairState::Banned).then(|| of_peer.detail.clone())
    };
    // The clock is put right while the node runs, or before it starts again.
    ctx.now.wall.0 -= YEAR_MS;
    let mut restarted = Auxiliary::default();
    restarted.restore(ctx, &stored);
    for auxiliary in [auxiliary, &mut restarted] {
        let detail = waits(auxiliary, ctx).expect("it is banned");
        assert!(detail.contains("a new one in 600 s"), "{detail}");
    }
    ctx.now.time = ctx.now.time.after(Duration::from_secs(600));
    ctx.now.wall.0 += 600_000;
    for auxiliary in [&parts.auxiliary, &restarted] {
        assert_eq!(waits(auxiliary, &parts.ctx), None);
    }
}

//! The inputs: what happens next, as plain data that can be shrunk.

use mpcium_client::MessageHash;
use mpcium_core::{
    Input, NodeId, Now, Secret, Time, WallTime,
    input::{Delivery, DeliveryId, QueryId, RequestKind},
    output::{LoadId, PersistId, PublishId},
    protocol::{Abort, Computed, Done, JobId, KeyShare, Outcome, Status, Step as JobStep},
};
use proptest::{prelude::*, sample::Index};

use crate::cluster::{Cluster, LIAR, NODES, keygen, sign, sign_hashed, wallet};

/// How far the cluster has come before anything odd happens.
#[derive(Clone, Copy, Debug)]
pub enum Depth {
    /// Nodes have just been made.
    Fresh,
    /// They know each other and have auxiliary data.
    Linked,
    /// There is a wallet.
    Wallet,
    /// It has signed.
    Signed,
    /// And then one of the nodes became a liar, whom the others know.
    Lied,
}

pub fn depth() -> impl Strategy<Value = Depth> {
    prop_oneof![
        1 => Just(Depth::Fresh),
        1 => Just(Depth::Linked),
        3 => Just(Depth::Wallet),
        3 => Just(Depth::Signed),
        3 => Just(Depth::Lied),
    ]
}

/// Brings a cluster there.
pub fn begin(cluster: &mut Cluster, depth: Depth) {
    let far = match depth {
        Depth::Fresh => 0,
        Depth::Linked => 1,
        Depth::Wallet => 2,
        Depth::Signed => 3,
        Depth::Lied => 4,
    };
    if far >= 1 {
        cluster.run_for(10_000);
    }
    if far >= 2 {
        ask(cluster, &Ask::Keygen { number: 0 });
        cluster.run_for(3_000);
    }
    if far >= 3 {
        for ecdsa in [true, false] {
            ask(
                cluster,
                &Ask::Sign { number: 0, ecdsa, transaction: usize::from(ecdsa), message: 1, path: Vec::new() },
            );
        }
        cluster.run_for(2_000);
        // Whoever is asked first wants presignatures of its own then, and has them when it is asked again: by one request more
        // than there are nodes somebody is.
        for transaction in 10..=10 + NODES {
            ask(cluster, &Ask::SignHashed { number: 0, transaction, message: 1 });
            cluster.run_for(2_000);
        }
    }
    if far >= 4 {
        cluster.replace_by_liar();
        cluster.run_for(5_000);
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    Keygen {
        number: usize,
    },
    Sign {
        number: usize,
        ecdsa: bool,
        transaction: usize,
        message: u8,
        path: Vec<u32>,
    },
    /// Over a message that the nodes hash.
    SignHashed {
        number: usize,
        transaction: usize,
        message: u8,
    },
    ForgedKeygen {
        number: usize,
    },
    ForgedSign {
        number: usize,
        ecdsa: bool,
    },
    /// A good document in the queue of another kind.
    WrongQueue {
        reshare: bool,
    },
    /// A good document with some bytes changed.
    Altered {
        changes: Vec<(Index, u8)>,
    },
    Bytes(Vec<u8>),
    Huge,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// Everything goes its way for so many milliseconds.
    Run(u64),
    /// Something that is on its way arrives, before what is due earlier.
    Arrive {
        node: usize,
        which: Index,
    },
    /// A datagram that is on its way is lost.
    Lose {
        node: usize,
        which: Index,
    },
    /// A copy of a datagram arrives with some bytes changed, cut or appended.
    Altered {
        node: usize,
        which: Index,
        changes: Vec<(Index, u8)>,
        cut: Option<Index>,
        append: Vec<u8>,
    },
    /// An old datagram arrives, whoever it was for.
    Old {
        node: usize,
        which: Index,
    },
    /// Bytes that nobody sent.
    Garbage {
        node: usize,
        bytes: Vec<u8>,
    },
    /// A confirmation, a record or a computation for an id that nobody gave out, or that is used up.
    Unknown {
        node: usize,
        what: u8,
        id: u64,
        bytes: Vec<u8>,
    },
    /// A client asks.
    Ask(Ask),
    /// A delivery with odd particulars.
    Odd {
        node: usize,
        timestamp: u64,
        deliveries: u64,
        client: Option<String>,
        stream: String,
    },
    /// The queue gives a message out once more.
    Redeliver {
        node: usize,
        which: usize,
    },
    /// Discovery says something.
    Peers {
        node: usize,
        ids: Vec<u8>,
    },
    /// A wake that nobody wanted.
    Wake {
        node: usize,
    },
    /// A monotonic clock that goes back, and a wall clock that jumps within the skew.
    Clock {
        node: usize,
        back: u64,
        offset: i64,
    },
    Kill {
        node: usize,
    },
    Start {
        node: usize,
    },
    Drain {
        node: usize,
    },
    /// A process says that it ends, and ends.
    Leave {
        node: usize,
    },
    /// The initiator asks for a wallet, or for one that was never made.
    Query {
        node: usize,
        number: usize,
    },
    Cut {
        from: usize,
        to: usize,
    },
    Mend,
    /// The last node becomes a liar.
    Replace,
    /// The liar says again what it heard, altered or not, in whatever lane.
    Lie {
        to: usize,
        lane: usize,
        which: Index,
        changes: Vec<(Index, u8)>,
        cut: Option<Index>,
    },
    /// The liar says what nobody ever said.
    Babble {
        to: usize,
        lane: usize,
        bytes: Vec<u8>,
    },
}

fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
    prop::collection::vec((any::<Index>(), any::<u8>()), 0..4)
}

fn asks() -> impl Strategy<Value = Ask> {
    let path = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u32>(), 1..4)];
    let sign = (0..3_usize, any::<bool>(), 0..6_usize, 0..3_u8, path);
    prop_oneof![
        3 => (0..3_usize).prop_map(|number| Ask::Keygen { number }),
        8 => sign.prop_map(|(number, ecdsa, transaction, message, path)| {
            Ask::Sign { number, ecdsa, transaction, message, path }
        }),
        3 => (0..2_usize, 6..9_usize, 0..3_u8).prop_map(|(number, transaction, message)| {
            Ask::SignHashed { number, transaction, message }
        }),
        1 => (10..12_usize).prop_map(|number| Ask::ForgedKeygen { number }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(number, ecdsa)| Ask::ForgedSign { number, ecdsa }),
        1 => any::<bool>().prop_map(|reshare| Ask::WrongQueue { reshare }),
        2 => changes().prop_map(|changes| Ask::Altered { changes }),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Ask::Bytes),
        1 => Just(Ask::Huge),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let number = || prop_oneof![any::<u64>(), 0..200_u64];
    let bytes = || prop::collection::vec(any::<u8>(), 0..120);
    let cut = || prop::option::weighted(0.2, any::<Index>());
    prop_oneof![
        10 => prop_oneof![6 => 1..600_u64, 2 => 600..5_000_u64, 1 => 5_000..90_000_u64].prop_map(Step::Run),
        12 => (node(), any::<Index>()).prop_map(|(node, which)| Step::Arrive { node, which }),
        3 => (node(), any::<Index>()).prop_map(|(node, which)| Step::Lose { node, which }),
        3 => (node(), any::<Index>(), changes(), cut(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(
            |(node, which, changes, cut, append)| Step::Altered { node, which, changes, cut, append }
        ),
        3 => (node(), any::<Index>()).prop_map(|(node, which)| Step::Old { node, which }),
        1 => (node(), bytes()).prop_map(|(node, bytes)| Step::Garbage { node, bytes }),
        3 => (node(), 0..10_u8, number(), bytes()).prop_map(|(node, what, id, bytes)| Step::Unknown { node, what, id, bytes }),
        8 => asks().prop_map(Step::Ask),
        1 => (node(), prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)], number(), any::<Option<String>>(), any::<String>())
            .prop_map(|(node, timestamp, deliveries, client, stream)| {
                Step::Odd { node, timestamp, deliveries, client, stream }
            }),
        3 => (node(), any::<usize>()).prop_map(|(node, which)| Step::Redeliver { node, which }),
        1 => (node(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(node, ids)| Step::Peers { node, ids }),
        2 => node().prop_map(|node| Step::Wake { node }),
        1 => (node(), number(), -900..900_i64).prop_map(|(node, back, offset)| Step::Clock { node, back, offset }),
        1 => node().prop_map(|node| Step::Kill { node }),
        2 => node().prop_map(|node| Step::Start { node }),
        1 => node().prop_map(|node| Step::Drain { node }),
        1 => node().prop_map(|node| Step::Leave { node }),
        3 => (node(), 0..5_usize).prop_map(|(node, number)| Step::Query { node, number }),
        1 => (node(), node()).prop_map(|(from, to)| Step::Cut { from, to }),
        1 => Just(Step::Mend),
        1 => Just(Step::Replace),
        12 => (0..LIAR, 0..3_usize, any::<Index>(), changes(), cut()).prop_map(|(to, lane, which, changes, cut)| {
            Step::Lie { to, lane, which, changes, cut }
        }),
        1 => (0..LIAR, 0..3_usize, bytes()).prop_map(|(to, lane, bytes)| Step::Babble { to, lane, bytes }),
    ]
}

fn alter(bytes: &mut Vec<u8>, changes: &[(Index, u8)], cut: Option<&Index>) {
    for (at, value) in changes {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= *value;
        }
    }
    if let Some(cut) = cut
        && !bytes.is_empty()
    {
        bytes.truncate(cut.index(bytes.len()));
    }
}

fn ask(cluster: &mut Cluster, ask: &Ask) {
    match ask {
        Ask::Keygen { number } => {
            cluster.checks.asked.entry((wallet(*number), String::new())).or_default();
            cluster.request(RequestKind::Keygen, keygen(*number, true).to_json(), None);
        }
        Ask::Sign { number, ecdsa, transaction, message, path } => {
            let message = vec![*message; 32];
            let name = (wallet(*number), format!("tx-{transaction}"));
            // Child keys have other public keys: whether their signatures verify is the concern of other tests.
            let transaction = if path.is_empty() { *transaction } else { transaction + 100 };
            if path.is_empty() {
                cluster.checks.asked.entry(name).or_default().push(message.clone());
            } else {
                return cluster.request(
                    RequestKind::Sign,
                    sign(number + 20, *ecdsa, transaction, message, path.clone(), true).to_json(),
                    None,
                );
            }
            let request = sign(*number, *ecdsa, transaction, message, path.clone(), true);
            cluster.request(RequestKind::Sign, request.to_json(), Some("client-1".to_owned()));
        }
        Ask::SignHashed { number, transaction, message } => {
            let (hash, message) = (MessageHash::Sha256, vec![*message; 40]);
            let name = (wallet(*number), format!("tx-{transaction}"));
            cluster.checks.asked.entry(name).or_default().push(hash.digest(&message).to_vec());
            let request = sign_hashed(*number, *transaction, hash, message);
            cluster.request(RequestKind::Sign, request.to_json(), None);
        }
        Ask::ForgedKeygen { number } => {
            cluster.request(RequestKind::Keygen, keygen(*number, false).to_json(), None);
        }
        Ask::ForgedSign { number, ecdsa } => {
            let request = sign(*number, *ecdsa, 900, vec![3; 32], Vec::new(), false);
            cluster.request(RequestKind::Sign, request.to_json(), None);
        }
        Ask::WrongQueue { reshare } => {
            let kind = if *reshare { RequestKind::Reshare } else { RequestKind::Keygen };
            let request = sign(0, false, 901, vec![4; 32], Vec::new(), true);
            // A signing request is no key generation, whatever its signature is worth.
            cluster.request(kind, request.to_json(), None);
        }
        Ask::Altered { changes } => {
            let mut body = sign(0, false, 902, vec![5; 32], Vec::new(), true).to_json();
            cluster.checks.asked.entry((wallet(0), "tx-902".to_owned())).or_default().push(vec![5; 32]);
            alter(&mut body, changes, None);
            cluster.request(RequestKind::Sign, body, None);
        }
        Ask::Bytes(bytes) => cluster.request(RequestKind::Sign, bytes.clone(), None),
        Ask::Huge => {
            let body = vec![b' '; mpcium_core::limits::REQUEST_BYTES_MAX + 1];
            cluster.request(RequestKind::Keygen, body, None);
        }
    }
}

/// Lets one thing happen.
pub fn apply(cluster: &mut Cluster, step: &Step) {
    match step {
        Step::Run(millis) => cluster.run_for(*millis),
        Step::Arrive { node, which } => {
            let flying = &mut cluster.hosts[*node].flying;
            if !flying.is_empty() {
                let input = flying.remove(which.index(flying.len())).input;
                cluster.give(*node, input);
            }
        }
        Step::Lose { node, which } => {
            let flying = &mut cluster.hosts[*node].flying;
            if !flying.is_empty() && matches!(flying[which.index(flying.len())].input, Input::Datagram(_)) {
                flying.remove(which.index(flying.len()));
            }
        }
        Step::Altered { node, which, changes, cut, append } => {
            let flying = &cluster.hosts[*node].flying;
            let datagrams: Vec<&Vec<u8>> = flying
                .iter()
                .filter_map(|flying| if let Input::Datagram(bytes) = &flying.input { Some(bytes) } else { None })
                .collect();
            if datagrams.is_empty() {
                return;
            }
            let mut bytes = datagrams[which.index(datagrams.len())].clone();
            alter(&mut bytes, changes, cut.as_ref());
            bytes.extend_from_slice(append);
            cluster.count("a datagram was altered");
            cluster.give(*node, Input::Datagram(bytes));
        }
        Step::Old { node, which } => {
            if !cluster.old.is_empty() {
                let bytes = cluster.old[which.index(cluster.old.len())].clone();
                cluster.count("an old datagram came back");
                cluster.give(*node, Input::Datagram(bytes));
            }
        }
        Step::Garbage { node, bytes } => cluster.give(*node, Input::Datagram(bytes.clone())),
        Step::Unknown { node, what, id, bytes } => {
            cluster.count("inputs for unknown ids");
            unknown(cluster, *node, *what, *id, bytes);
        }
        Step::Ask(what) => ask(cluster, what),
        Step::Odd { node, timestamp, deliveries, client, stream } => {
            if cluster.hosts[*node].node.is_none() {
                return;
            }
            cluster.checks.asked.entry((wallet(0), "tx-903".to_owned())).or_default().push(vec![6; 32]);
            let delivery = Delivery {
                id: DeliveryId(0),
                kind: RequestKind::Sign,
                body: sign(0, false, 903, vec![6; 32], Vec::new(), true).to_json(),
                client: client.clone(),
                stream: stream.clone(),
                sequence: 0,
                timestamp: WallTime(*timestamp),
                deliveries: *deliveries,
            };
            cluster.odd_delivery(*node, delivery);
        }
        Step::Redeliver { node, which } => cluster.redeliver(*which, *node),
        Step::Peers { node, ids } => {
            let ids = ids.iter().map(|id| NodeId::from_bytes([*id; 16])).collect();
            cluster.give(*node, Input::Peers(ids));
        }
        Step::Wake { node } => cluster.give(*node, Input::Wake),
        Step::Clock { node, back, offset } => {
            cluster.wall_offset[*node] = *offset;
            let now = cluster.clock(*node);
            let back = Now { time: Time(now.time.0.saturating_sub(*back)), ..now };
            cluster.count("a clock went backwards");
            cluster.give_at(*node, back, Input::Wake);
        }
        Step::Kill { node } => cluster.kill(*node),
        Step::Start { node } => cluster.start(*node),
        Step::Drain { node } => cluster.give(*node, Input::Drain),
        Step::Leave { node } => cluster.leave(*node),
        Step::Query { node, number } => cluster.query(*node, *number),
        Step::Cut { from, to } => {
            cluster.cut.insert((*from, *to));
        }
        Step::Mend => cluster.cut.clear(),
        Step::Replace => cluster.replace_by_liar(),
        Step::Lie { to, lane, which, changes, cut } => {
            let Some(heard) = cluster.liar.as_ref().map(|liar| &liar.heard).filter(|heard| !heard.is_empty()) else {
                return;
            };
            let mut bytes = heard[which.index(heard.len())].clone();
            alter(&mut bytes, changes, cut.as_ref());
            cluster.lie(*to, *lane, bytes);
        }
        Step::Babble { to, lane, bytes } => cluster.lie(*to, *lane, bytes.clone()),
    }
}

/// Inputs that name what this process never ordered, or that come a second time.
fn unknown(cluster: &mut Cluster, node: usize, what: u8, id: u64, bytes: &[u8]) {
    // Far above everything that core has given out, unless small on purpose: then it is used up, or of another kind.
    let id = id | 1 << 40;
    let secret = Secret::new(bytes.to_vec());
    let step = |status| JobStep { messages: Vec::new(), status };
    let computed = |done| Input::Computed(Computed { id: JobId(id), done });
    let key = KeyShare {
        curve: mpcium_core::protocol::Curve::Ed25519,
        threshold: 2,
        index: 0,
        secret: secret.clone(),
        public_key: bytes.to_vec(),
        public_shares: vec![bytes.to_vec()],
        checked: mpcium_core::protocol::Checked::default(),
    };
    let input = match what {
        0 => Input::Persisted(PersistId(id)),
        1 => Input::Loaded(LoadId(id), Some(secret)),
        2 => Input::Loaded(LoadId(id), None),
        3 => Input::Scanned(LoadId(id), vec![(bytes.to_vec(), secret)]),
        4 => computed(Done::Piece(secret)),
        5 => computed(Done::Party(None, step(Status::Done(Outcome::Keys(vec![key]))))),
        6 => computed(Done::Party(None, step(Status::Failed(Abort::blaming(7, "made up"))))),
        7 => Input::Query { query: QueryId(id), body: bytes.to_vec() },
        8 => Input::WalletsElsewhere([String::from_utf8_lossy(bytes).into_owned()].into()),
        _ => Input::Published(PublishId(id)),
    };
    // Nothing becomes durable or published because of it.
    cluster.give_false(node, input);
}

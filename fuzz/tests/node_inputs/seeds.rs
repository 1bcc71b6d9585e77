//! What nodes say and keep, as seeds for the fuzzers: records are gathered from three nodes that make a wallet and sign,
//! messages from simulated clusters in which somebody cheats, because whoever cheats hears them in clear.
//!
//! The decoders must understand all of it. `FUZZ_SEEDS=write` puts some of it into `fuzz/corpus`, in the place of what is
//! no longer understood there, for when a format has changed (`tests/corpus.rs` says so).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use mpcium_core::{
    Time,
    link::{LinkOutput, Links},
    store::Keyspace,
};
use sim::{
    run,
    scenario::{Profile, Scenario},
};

use crate::{
    cluster::Cluster,
    inputs::{Depth, begin},
};

/// Runs in which nodes say nearly everything that there is to be said.
const SIMULATED: std::ops::Range<u64> = 1..25;
/// Longer inputs fuzzers do not make (`scripts/fuzz.sh`).
const LENGTH_MAX: usize = 8_192;

/// Seeds by target and name.
type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// Targets whose seeds' names say what they are.
const NAMED: [&str; 5] = ["handshake", "datagram", "proposal", "statement", "certificate"];

fn understands(target: &str, bytes: &[u8]) -> bool {
    // What becomes of a datagram links say themselves, and runs and keys of what concerns them: `tests/corpus.rs`.
    let mut decoders = fuzz::decoders().filter(|(name, _)| *name == target).peekable();
    decoders.peek().is_none() || decoders.any(|(_, decoder)| decoder(bytes))
}

/// Of which two seeds are one too many: a message's kind, and of anything else everything.
fn kind(target: &str, bytes: &[u8]) -> String {
    // In proposals of presignatures, a wallet's name follows the first byte.
    let length = if bytes.first() == Some(&6) { 1 } else { 2 };
    if target == "message" { hex::encode(&bytes[..length.min(bytes.len())]) } else { String::new() }
}

fn gather() -> Seeds {
    let mut seeds = Seeds::new();
    handshakes(&mut seeds);
    made(&mut seeds);
    let mut cluster = Cluster::new(0);
    cluster.written = Some(Vec::new());
    begin(&mut cluster, Depth::Signed);
    let written = cluster.written.take().unwrap_or_default();
    let disks = cluster.hosts.iter().flat_map(|host| &host.durable);
    let kept = disks.map(|((keyspace, _), value)| (*keyspace, value.expose().to_vec()));
    for (keyspace, value) in written.into_iter().chain(kept) {
        if let Some(target) = target_of(keyspace, &value) {
            seeds.entry((target, format!("written-{}", value.len()))).or_insert(value);
        }
    }
    for seed in SIMULATED {
        let heard = run::overhear(Scenario::draw(seed, Profile::Byzantine)).expect("a run that passes");
        for message in heard.into_iter().filter(|message| message.len() <= LENGTH_MAX) {
            let kind = kind("message", &message);
            let proposal = match kind.as_str() {
                "0100" => Some(("signing", 2)),
                "0200" => Some(("wallet", 2)),
                "0301" => Some(("auxiliary", 2)),
                "06" => Some(("presigning", 1)),
                _ => None,
            };
            if let Some((name, begins)) = proposal {
                seeds.entry(("proposal", name.to_owned())).or_insert_with(|| message[begins..].to_vec());
            }
            seeds.entry(("message", kind)).or_insert(message);
        }
    }
    seeds
}

/// Where a record belongs; `None`: it has no decoder of its own.
fn target_of(keyspace: Keyspace, value: &[u8]) -> Option<&'static str> {
    match keyspace {
        Keyspace::Pending => Some("pending_record"),
        Keyspace::Decisions => Some("acceptor_record"),
        // The number of a wallet's newest epoch stands there too.
        Keyspace::Certificates => (value.len() > 4).then_some("certificate_record"),
        Keyspace::Shares => Some("share_record"),
        Keyspace::Auxiliary => Some("auxiliary_record"),
        Keyspace::Ledger if understands("ledger_record", value) => Some("ledger_record"),
        Keyspace::Ledger => Some("verdict_record"),
        Keyspace::Meta => ["commits_record", "start_record"].into_iter().find(|target| understands(target, value)),
        Keyspace::Peers => Some("mark_record"),
        Keyspace::Ingredients => None,
    }
}

/// What is made for the purpose, because nodes keep it sealed, or say it too seldom.
fn made(seeds: &mut Seeds) {
    let store = mpcium_io::fjall::decode::samples().expect("entropy");
    let store = store.into_iter().map(|(target, bytes)| (target, "sample".to_owned(), bytes));
    for (target, name, bytes) in fuzz::rounds::seeds().into_iter().chain(fuzz::statements::seeds()).chain(store) {
        seeds.insert((target, name), bytes);
    }
}

/// Two nodes greet each other: the first one, which target *datagram* drives, hears the other's hello, and the answer to
/// its own.
fn handshakes(seeds: &mut Seeds) {
    fn said(links: &mut Links) -> Vec<u8> {
        let datagram = |output| match output {
            LinkOutput::Datagram { bytes, .. } => Some(bytes),
            _ => None,
        };
        std::iter::from_fn(|| links.poll()).find_map(datagram).expect("a datagram")
    }
    let (mut first, mut second) = (fuzz::links(0), fuzz::links(1));
    let (hello, other_hello) = (said(&mut first), said(&mut second));
    while second.poll().is_some() {}
    second.handle_datagram(Time(1_000), &hello);
    let reply = said(&mut second);
    for (target, name, datagram) in [
        ("handshake", "hello", &hello),
        ("handshake", "reply", &reply),
        ("datagram", "hello", &other_hello),
        ("datagram", "reply", &reply),
    ] {
        seeds.insert((target, name.to_owned()), datagram.clone());
    }
}

#[test]
fn what_nodes_say_and_keep_makes_seeds() {
    let seeds = gather();
    for ((target, name), bytes) in &seeds {
        assert!(understands(target, bytes), "{target} does not understand {name}: {}", hex::encode(bytes));
    }
    let targets: BTreeSet<&str> = seeds.keys().map(|(target, _)| *target).collect();
    for (target, _) in fuzz::decoders() {
        // Frames travel in sealed packets.
        let inside = *target == "frame";
        assert!(inside || targets.contains(target), "nothing for {target}");
    }
    if std::env::var("FUZZ_SEEDS").is_ok_and(|value| value == "write") {
        write(&seeds).expect("the corpus can be written");
    }
}

/// Removes what is no longer understood, and adds what there is nothing of.
fn write(seeds: &Seeds) -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let targets: BTreeSet<&str> = seeds.keys().map(|(target, _)| *target).collect();
    let mut kinds = BTreeSet::new();
    for target in targets {
        fs::create_dir_all(corpus.join(target))?;
        for entry in fs::read_dir(corpus.join(target))? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            if understands(target, &bytes) {
                kinds.insert((target, kind(target, &bytes)));
            } else {
                fs::remove_file(path)?;
            }
        }
    }
    for ((target, name), bytes) in seeds {
        // Of what is gathered one of each kind is enough.
        let gathered = fuzz::decoders().any(|(name, _)| name == target) && !name.starts_with("sample");
        let named = NAMED.contains(target) || !gathered;
        if named || kinds.insert((*target, kind(target, bytes))) {
            fs::write(corpus.join(target).join(name), bytes)?;
        }
    }
    Ok(())
}

//! What the bus and the disk cost a node by themselves: the client library of NATS and the store, as in a node, with
//! nothing around them. No operation through a cluster can cost less than its mathematics, its messages and its commits.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, executor::block_on};
use mpcium_core::{
    Secret,
    output::PersistId,
    store::{Batch, Keyspace},
};
use mpcium_io::{
    fjall::{Options, PasswordCost, open},
    ports::{Inbox, Store as _},
};

use crate::measure::own_cpu;

/// Messages that are on their way at any time, and commits that are.
const IN_FLIGHT: u64 = 16;
/// How often each of these messages is passed on.
const HOPS: u64 = 1_000;
/// Bytes of a message: about those of a packet of an Ed25519 signature.
const MESSAGE_BYTES: usize = 300;
/// Commits that are measured.
const COMMITS: u64 = 2_000;
/// Bytes of a stored result.
const RECORD_BYTES: usize = 400;
/// When to give up on a message.
const GIVE_UP: Duration = Duration::from_secs(120);

/// CPU time of one of each, with [`IN_FLIGHT`] of them at once.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Publishing one message and receiving it.
    pub message: Duration,
    /// Making one small record durable.
    pub commit: Duration,
}

/// Measures both; this process should do nothing else meanwhile.
///
/// # Errors
/// If the bus or the store fails.
pub fn measure(nats: &str) -> Result<Floor, String> {
    Ok(Floor { message: messages(nats)?, commit: commits()? })
}

/// Two connections, each on a thread of its own as in a node, pass messages to and fro.
fn messages(nats: &str) -> Result<Duration, String> {
    let subscribed = Barrier::new(2);
    let before = thread::scope(|scope| {
        let answering = scope.spawn(|| pass(nats, ["floor.b", "floor.a"], &subscribed));
        let asking = pass(nats, ["floor.a", "floor.b"], &subscribed);
        let answering = answering.join().map_err(|_| "a thread panicked".to_owned())?;
        asking.and_then(|before| answering.map(|_| before))
    })?;
    Ok((own_cpu() - before) / u32::try_from(IN_FLIGHT * HOPS).unwrap_or(u32::MAX))
}

/// Passes on what comes on the first subject to the second one, until nothing more will come. Whoever listens on `a`
/// begins. Returns the CPU time of this process when both were ready.
fn pass(nats: &str, [from, to]: [&'static str; 2], subscribed: &Barrier) -> Result<Duration, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let connected = runtime.block_on(async {
        let client = async_nats::connect(nats).await.map_err(|error| error.to_string())?;
        let mut subscription = client.subscribe(from).await.map_err(|error| error.to_string())?;
        // What comes back from the server shows that it knows of the subscription.
        client.publish(from, "here".into()).await.map_err(|error| error.to_string())?;
        subscription.next().await.ok_or("the connection was closed")?;
        Ok::<_, String>((client, subscription))
    });
    // Also after a failure: the other one waits here.
    subscribed.wait();
    let (client, mut subscription) = connected?;
    let before = own_cpu();
    let passing = async {
        let publish = async |hops_left: u64| {
            let mut message = vec![0; MESSAGE_BYTES];
            message[..8].copy_from_slice(&hops_left.to_le_bytes());
            client.publish(to, message.into()).await.map_err(|error| error.to_string())
        };
        if from.ends_with('a') {
            for _ in 0..IN_FLIGHT {
                publish(HOPS - 1).await?;
            }
        }
        for _ in 0..IN_FLIGHT * HOPS / 2 {
            let message = subscription.next().await.ok_or("the connection was closed")?;
            let hops_left = message.payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if hops_left > 0 {
                publish(hops_left - 1).await?;
            }
        }
        client.flush().await.map_err(|error| error.to_string())
    };
    let passed = runtime.block_on(async { tokio::time::timeout(GIVE_UP, passing).await });
    passed.map_err(|_| "messages on the bus were lost".to_owned())??;
    Ok(before)
}

/// A store in a folder of its own makes records durable, as many at a time.
fn commits() -> Result<Duration, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let password = Secret::new(b"password".to_vec());
    let options = Options::create_if_absent(PasswordCost::TRIVIAL);
    let opened = open(&folder.path().join("store"), &password, options).map_err(|error| error.to_string())?;
    let (inbox, mut events) = Inbox::new();
    let store = opened.store.start(inbox).map_err(|error| error.to_string())?;
    let persist = |number: u64| {
        let mut batch = Batch::default();
        batch.put(Keyspace::Ledger, number.to_be_bytes().to_vec(), vec![7; RECORD_BYTES]);
        store.persist(PersistId(number), batch);
    };
    let (before, began) = (own_cpu(), Instant::now());
    (0..IN_FLIGHT).for_each(persist);
    for number in 0..COMMITS {
        block_on(events.next()).ok_or("the store does not answer")?;
        if number + IN_FLIGHT < COMMITS {
            persist(number + IN_FLIGHT);
        }
        if began.elapsed() > GIVE_UP {
            return Err("the disk is too slow to be measured".to_owned());
        }
    }
    Ok((own_cpu() - before) / u32::try_from(COMMITS).unwrap_or(u32::MAX))
}

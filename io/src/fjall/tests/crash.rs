//! The process is killed in the middle of writes: what was acknowledged is there, and no damage is invented.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use mpcium_core::{
    Input,
    output::PersistId,
    store::{Batch, Keyspace},
};

use crate::ports::Store as _;

use super::{Running, open};

/// Tells the child process where to write.
const CHILD_PATH: &str = "MPCIUM_STORE_CRASH_PATH";
/// How often the child is killed.
const KILLS: u64 = 12;
/// Batches that are under way at once in the child.
const WINDOW: u64 = 8;
const NUMBERS: &str = "number ";

fn batch(number: u64) -> Batch {
    let mut batch = Batch::default();
    let name = format!("{:08}", number).into_bytes();
    for keyspace in [Keyspace::Shares, Keyspace::Certificates] {
        batch.put(keyspace, name.clone(), number.to_be_bytes().to_vec());
    }
    if let Some(old) = number.checked_sub(20) {
        batch.remove(Keyspace::Shares, format!("{old:08}").into_bytes());
    }
    batch.put(Keyspace::Meta, b"latest".to_vec(), number.to_be_bytes().to_vec());
    batch
}

fn latest(running: &mut Running) -> Option<u64> {
    let value = running.load(Keyspace::Meta, b"latest")?;
    Some(u64::from_be_bytes(value.try_into().expect("eight bytes")))
}

/// The child: writes until it is killed. Does nothing when the tests are run as usual.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = env::var_os(CHILD_PATH) else { return };
    let mut running = Running::start(open(&PathBuf::from(path)));
    let first = latest(&mut running).map_or(0, |latest| latest + 1);
    for number in first..first + WINDOW {
        running.store.persist(PersistId(number), batch(number));
    }
    loop {
        let Input::Persisted(PersistId(number)) = running.next() else { panic!("expected an acknowledgement") };
        let mut out = std::io::stdout().lock();
        // The parent has gone: nothing to write for.
        if writeln!(out, "\n{NUMBERS}{number}").and_then(|()| out.flush()).is_err() {
            return;
        }
        running.store.persist(PersistId(number + WINDOW), batch(number + WINDOW));
    }
}

#[test]
fn acknowledged_batches_survive_a_kill_and_none_is_torn() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    for kill in 0..KILLS {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "fjall::tests::crash::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_PATH, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
        let mut acknowledged = None;
        let mut seen = 0;
        while seen < 3 + kill * 7 % 40 {
            let line = lines.next().expect("the child writes on").expect("a line");
            if let Some(number) = line.strip_prefix(NUMBERS) {
                acknowledged = Some(number.parse::<u64>().expect("a number"));
                seen += 1;
            }
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix(NUMBERS).and_then(|number| number.parse().ok()) {
                acknowledged = Some(number);
            }
        }
        let opened = open(&path);
        assert_eq!(opened.boot.damage, Vec::<String>::new(), "kill {kill}");
        let mut running = Running::start(opened);
        let latest = latest(&mut running).expect("something was written");
        assert!(Some(latest) >= acknowledged, "kill {kill}: {latest} is there, {acknowledged:?} was acknowledged");
        let certificates = running.scan(Keyspace::Certificates, b"", usize::MAX);
        assert_eq!(certificates.len() as u64, latest + 1, "kill {kill}");
        let shares = running.scan(Keyspace::Shares, b"", usize::MAX);
        assert_eq!(shares.len() as u64, (latest + 1).min(20), "kill {kill}");
        for (name, value) in certificates.iter().chain(&shares) {
            let number = u64::from_be_bytes(value.expose().try_into().expect("eight bytes"));
            assert_eq!(*name, format!("{number:08}").into_bytes());
        }
    }
}

//! What the encrypted store promises: durable batches in order, names and values sealed, damage said in words.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    fjall::{self, OpenError, Options, PasswordCost},
    ports::{Event, Store as _},
};
use mpcium_core::{
    Input, Secret,
    output::{LoadId, PersistId},
    store::{Batch, Keyspace},
};

use super::{Running, all_files, open, password, reopen_with};

fn batch(writes: &[(Keyspace, &str, Option<&str>)]) -> Batch {
    let mut batch = Batch::default();
    for (keyspace, name, value) in writes {
        match value {
            Some(value) => batch.put(*keyspace, name.as_bytes().to_vec(), value.as_bytes().to_vec()),
            None => batch.remove(*keyspace, name.as_bytes().to_vec()),
        }
    }
    batch
}

#[test]
fn records_of_every_keyspace_survive_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    for keyspace in Keyspace::ALL {
        running.persist(batch(&[(keyspace, "b", Some("old")), (keyspace, "a", Some("first"))]));
        running.persist(batch(&[(keyspace, "b", Some("new")), (keyspace, "c", Some("gone"))]));
        running.persist(batch(&[(keyspace, "c", None)]));
    }
    running.close();

    let opened = open(&path);
    assert_eq!(opened.boot.damage, Vec::<String>::new());
    assert!(!opened.created);
    let expected: Vec<_> = Keyspace::ALL
        .into_iter()
        .filter(|keyspace| keyspace.loaded_at_boot())
        .flat_map(|keyspace| [(keyspace, "a", "first"), (keyspace, "b", "new")])
        .map(|(keyspace, name, value)| (keyspace, name.as_bytes().to_vec(), Secret::new(value.as_bytes().to_vec())))
        .collect();
    assert_eq!(opened.boot.records, expected);
    let mut running = Running::start(opened);
    for keyspace in Keyspace::ALL {
        assert_eq!(running.load(keyspace, b"b"), Some(b"new".to_vec()));
        assert_eq!(running.load(keyspace, b"c"), None);
        assert_eq!(running.names(keyspace), [b"a".to_vec(), b"b".to_vec()]);
    }
}

#[test]
fn wallets_whose_shares_are_lost_are_counted() {
    use mpcium_core::{
        protocol::Curve,
        session::SessionId,
        wallet::record::{certificate_key, head_key, share_key},
    };
    const VALUE: &[u8] = b"value";
    let share = |wallet: &str, curve| share_key(wallet, curve, 0, SessionId([7; 32]));
    let put_certificate = |batch: &mut Batch, wallet: &str| {
        batch.put(Keyspace::Certificates, certificate_key(wallet, 0), VALUE.to_vec());
        batch.put(Keyspace::Certificates, head_key(wallet), vec![0; 4]);
    };
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    let census = running.store.census();
    // Shares are there before the certificate, as wallets are made.
    let mut made = Batch::default();
    for wallet in ["a", "ab", "b"] {
        for curve in [Curve::Secp256k1, Curve::Ed25519] {
            made.put(Keyspace::Shares, share(wallet, curve), VALUE.to_vec());
        }
        put_certificate(&mut made, wallet);
    }
    running.persist(made);
    assert_eq!(census.wallets_without_share(), 0);
    // What peers told a node whose store was empty.
    let mut told = Batch::default();
    put_certificate(&mut told, "told");
    put_certificate(&mut told, "aa");
    running.persist(told);
    assert_eq!(census.wallets_without_share(), 2);
    let mut lost = Batch::default();
    lost.remove(Keyspace::Shares, share("ab", Curve::Secp256k1));
    running.persist(lost);
    assert_eq!(census.wallets_without_share(), 2);
    let mut lost = Batch::default();
    lost.remove(Keyspace::Shares, share("ab", Curve::Ed25519));
    running.persist(lost);
    assert_eq!(census.wallets_without_share(), 3);
    running.close();

    let opened = open(&path);
    assert_eq!(opened.store.wallets_without_share(), 3);
    let mut running = Running::start(opened);
    let mut back = Batch::default();
    back.put(Keyspace::Shares, share("told", Curve::Ed25519), VALUE.to_vec());
    back.remove(Keyspace::Certificates, certificate_key("aa", 0));
    running.persist(back);
    assert_eq!(running.store.census().wallets_without_share(), 1);
}

#[test]
fn opening_again_and_again_without_a_commit_finds_no_damage() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    running.persist(batch(&[(Keyspace::Ingredients, "used up", Some("x")), (Keyspace::Meta, "stays", Some("y"))]));
    running.persist(batch(&[(Keyspace::Ingredients, "used up", None)]));
    running.close();
    for _ in 0..3 {
        assert_eq!(open(&path).boot.damage, Vec::<String>::new());
    }
}

#[test]
fn reads_see_exactly_the_batches_before_them_and_answers_keep_their_order() {
    let folder = tempfile::tempdir().expect("folder");
    let mut running = Running::start(open(&folder.path().join("store")));
    for number in 0..200_u64 {
        running.store.persist(PersistId(number), batch(&[(Keyspace::Ledger, "x", Some(&number.to_string()))]));
        running.store.load(LoadId(number), Keyspace::Ledger, b"x".to_vec());
    }
    for number in 0..200_u64 {
        assert!(matches!(running.next(), Input::Persisted(PersistId(id)) if id == number));
        match running.next() {
            Input::Loaded(LoadId(id), Some(value)) => {
                assert_eq!(id, number);
                assert_eq!(value.expose(), number.to_string().as_bytes());
            }
            other => panic!("expected load {number}, got {other:?}"),
        }
    }
}

#[test]
fn listings_come_in_pages_in_the_order_of_names() {
    let folder = tempfile::tempdir().expect("folder");
    let mut running = Running::start(open(&folder.path().join("store")));
    for number in (0..25).rev() {
        running.persist(batch(&[(Keyspace::Shares, &format!("wallet{number:02}"), Some("share"))]));
    }
    let page = running.scan(Keyspace::Shares, b"wallet09", 3);
    let names: Vec<_> = page.into_iter().map(|(name, _)| String::from_utf8(name).expect("text")).collect();
    assert_eq!(names, ["wallet10", "wallet11", "wallet12"]);
    assert_eq!(running.scan(Keyspace::Shares, b"wallet24", 3).len(), 0);
}

#[test]
fn a_wrong_password_is_named_and_the_new_one_works_after_a_change() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    running.persist(batch(&[(Keyspace::Meta, "a", Some("value"))]));
    running.close();
    let new = Secret::new(b"another".to_vec());
    let error = fjall::open(&path, &new, Options::existing()).expect_err("wrong password");
    assert!(matches!(error, OpenError::WrongPassword { .. }), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()));
    fjall::change_password(&path, &password(), &new, PasswordCost::TRIVIAL).expect("changed");
    let error = fjall::open(&path, &password(), Options::existing()).expect_err("old password");
    assert!(matches!(error, OpenError::WrongPassword { .. }), "{error}");
    let opened = fjall::open(&path, &new, Options::existing()).expect("opened");
    assert_eq!((opened.boot.records.len(), opened.boot.damage.len()), (1, 0));
}

#[test]
fn a_second_open_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let running = Running::start(open(&path));
    let error = fjall::open(&path, &password(), Options::existing()).expect_err("in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()));
    running.close();
    open(&path);
}

#[test]
fn something_elses_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("node0");
    fs::create_dir(&path).expect("made");
    for name in ["MANIFEST", "KEYREGISTRY", "000001.vlog"] {
        fs::write(path.join(name), b"badger").expect("written");
    }
    let options = Options::create_if_absent(PasswordCost::TRIVIAL);
    let error = fjall::open(&path, &password(), options).expect_err("foreign");
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found.contains("Badger")), "{error}");
    assert_eq!(all_files(&path).len(), 3, "left alone");
    let error = fjall::open(&folder.path().join("none"), &password(), Options::existing()).expect_err("missing");
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn the_files_hold_no_name_and_no_value_in_clear_and_are_private() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    for keyspace in Keyspace::ALL {
        running.persist(batch(&[(keyspace, "visible-wallet-name", Some("visible-secret-value"))]));
    }
    running.close();
    assert_eq!(fs::metadata(&path).expect("folder").permissions().mode() & 0o777, 0o700);
    for (file, bytes) in all_files(&path) {
        for clear in [b"visible-wallet-name".as_slice(), b"visible-secret-value"] {
            assert!(!bytes.windows(clear.len()).any(|window| window == clear), "{} tells", file.display());
        }
    }
}

#[test]
fn an_erased_record_stays_unreadable_even_when_its_row_is_put_back() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    running.persist(batch(&[(Keyspace::Shares, "wallet", Some("share"))]));
    running.persist(batch(&[(Keyspace::Shares, "other", Some("share"))]));
    running.close();
    let before = all_files(&path.join("records"));
    let mut running = Running::start(open(&path));
    running.persist(batch(&[(Keyspace::Shares, "wallet", None)]));
    running.close();
    // Whoever kept the database, and even the password, has no key for it any more.
    fs::remove_dir_all(path.join("records")).expect("removed");
    for (file, bytes) in before {
        fs::create_dir_all(file.parent().expect("parent")).expect("folder");
        fs::write(file, bytes).expect("put back");
    }
    let opened = open(&path);
    let said = opened.boot.damage.join("\n");
    assert!(said.contains("shares") && said.contains("its key is not in the key table"), "{said}");
    let mut running = Running::start(opened);
    assert_eq!(running.names(Keyspace::Shares), [b"other".to_vec()]);
}

#[test]
fn a_database_put_back_to_an_earlier_state_is_named_and_stays_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    running.persist(batch(&[(Keyspace::Certificates, "one", Some("1"))]));
    running.close();
    let before = all_files(&path.join("records"));
    let mut running = Running::start(open(&path));
    for name in ["two", "three"] {
        running.persist(batch(&[(Keyspace::Certificates, name, Some("2"))]));
    }
    running.close();
    fs::remove_dir_all(path.join("records")).expect("removed");
    for (file, bytes) in before {
        fs::create_dir_all(file.parent().expect("parent")).expect("folder");
        fs::write(file, bytes).expect("put back");
    }
    let opened = open(&path);
    let said = opened.boot.damage.join("\n");
    assert!(said.contains("certificates: 2 of 3 records are missing"), "{said}");
    assert!(said.contains("lost its last 2 commits"), "{said}");
    // Writing goes on, but the damage is not forgotten by it.
    let mut running = Running::start(opened);
    running.persist(batch(&[(Keyspace::Certificates, "four", Some("4"))]));
    running.close();
    let again = open(&path).boot.damage.join("\n");
    assert!(again.contains("certificates: 2 of 3 records are missing"), "{again}");
}

#[test]
fn a_lost_part_is_named() {
    for (part, named_by_error) in [("envelope", true), ("records", true), ("keys", true), ("integrity", false)] {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("store");
        let mut running = Running::start(open(&path));
        running.persist(batch(&[(Keyspace::Shares, "wallet", Some("share"))]));
        running.close();
        let lost = path.join(part);
        if lost.is_dir() { fs::remove_dir_all(&lost) } else { fs::remove_file(&lost) }.expect("removed");
        let options = Options::create_if_absent(PasswordCost::TRIVIAL);
        let said = match reopen_with(&path, options) {
            Ok(opened) => {
                assert!(!named_by_error, "{part} was not missed");
                opened.boot.damage.join("\n")
            }
            Err(error) => error.to_string(),
        };
        assert!(said.contains(&lost.display().to_string()), "{part}: {said}");
    }
}

#[test]
fn after_a_failed_write_the_node_is_stopped_and_nothing_more_is_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    fs::remove_dir_all(path.join("keys")).expect("removed");
    running.store.persist(PersistId(1), batch(&[(Keyspace::Shares, "wallet", Some("share"))]));
    match running.next_event() {
        Event::Fatal(reason) => assert!(reason.contains("keys"), "{reason}"),
        other => panic!("expected the end, got {other:?}"),
    }
    running.store.persist(PersistId(2), batch(&[(Keyspace::Meta, "a", Some("b"))]));
    assert!(running.ends(), "something was acknowledged after the failure");
}

/// Set for the copy of this program that may mount because it has a namespace of its own.
const IN_A_NAMESPACE: &str = "MPCIUM_TEST_IN_A_NAMESPACE";

/// Runs the test below once more where whoever is nobody may mount; where there is no such place either, says past the
/// harness, which hides what tests print that pass, that nothing was shown.
fn in_a_namespace(why_not_here: &str) {
    use std::io::Write as _;
    let again = std::env::current_exe().expect("this program");
    let outcome = std::env::var_os(IN_A_NAMESPACE).is_none().then(|| {
        std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(again)
            .args([
                "--exact",
                "fjall::tests::behaviour::a_full_disk_stops_the_node_and_loses_nothing_that_was_acknowledged",
            ])
            .env(IN_A_NAMESPACE, "yes")
            .output()
    });
    match outcome {
        // The copy tells by failing.
        None => panic!("{NO_MOUNT}: {why_not_here}"),
        Some(Ok(output)) => {
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.success() {
                assert!(said.contains("1 passed"), "the test was not run: {said}");
                return;
            }
            assert!(said.contains("unshare: ") || said.contains(NO_MOUNT), "{said}");
        }
        Some(Err(_)) => {}
    }
    let line = format!(
        "SKIPPED a_full_disk_stops_the_node_and_loses_nothing_that_was_acknowledged: no small filesystem can be mounted here, \
         nor in a namespace (run it as root): {}",
        why_not_here.trim()
    );
    // Where nobody listens nothing is lost.
    let _ = writeln!(std::io::stderr(), "{line}");
}

const NO_MOUNT: &str = "nothing can be mounted here either";

#[test]
fn a_full_disk_stops_the_node_and_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(folder.path())
        .output()
        .expect("mount can be run");
    if !mounted.status.success() {
        return in_a_namespace(&String::from_utf8_lossy(&mounted.stderr));
    }
    let filler = folder.path().join("filler");
    fs::write(&filler, vec![0; 60 << 20]).expect("room for something else");
    let path = folder.path().join("store");
    let mut running = Running::start(open(&path));
    let value = "x".repeat(64 * 1024);
    let mut acknowledged = 0;
    let reason = loop {
        let name = format!("{acknowledged:04}");
        running.store.persist(PersistId(acknowledged), batch(&[(Keyspace::Ledger, &name, Some(&value))]));
        match running.next_event() {
            Event::Input(Input::Persisted(_)) => acknowledged += 1,
            Event::Fatal(reason) => break reason,
            other => panic!("expected an acknowledgement or the end, got {other:?}"),
        }
    };
    running.close();
    assert!(acknowledged > 0 && reason.contains("write"), "{acknowledged}: {reason}");
    // With room again everything is there.
    fs::remove_file(&filler).expect("what filled the disk");
    let outcome = std::panic::catch_unwind(|| {
        let opened = open(&path);
        assert_eq!(opened.boot.damage, Vec::<String>::new());
        let mut running = Running::start(opened);
        assert!(running.names(Keyspace::Ledger).len() as u64 >= acknowledged);
    });
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    outcome.expect("everything is there");
}

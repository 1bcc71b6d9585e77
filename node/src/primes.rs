//! Safe primes from a file: for demonstrations and tests, where waiting a minute for fresh ones would teach nothing.
//!
//! The file holds one prime per line in hexadecimal, big-endian; empty lines and lines that begin with `#` are passed
//! over. The primes published with this project are known to everybody, so a key whose auxiliary data is made of them
//! protects nothing: they are recognised by their hash and refused unless [`TEST_PRIMES_VARIABLE`] says that this is
//! a test, and `mpcium status` then shows TEST PRIMES.

use std::path::Path;

use mpcium_core::{
    Secret,
    output::PersistId,
    protocol::{Suites, test_primes},
    store::{Batch, Keyspace},
};
use mpcium_io::{
    fjall::{self, PasswordCost},
    ports::{Inbox, Store as _},
};
use zeroize::Zeroizing;

use crate::{files, keys};

/// The environment variable that must be `yes` for the published primes to be accepted.
pub const TEST_PRIMES_VARIABLE: &str = "MPCIUM_ACCEPT_PUBLISHED_TEST_PRIMES";

/// A file in a store's folder: published primes were put into this store.
const MARK: &str = "TEST-PRIMES";
const MARK_TEXT: &str = "The safe primes of this store are published. Whatever its node does protects nothing.\n";

/// Bits of a safe prime at security level 128.
const PRIME_BITS: usize = 1536;

/// Primes from a file.
#[derive(Debug)]
pub struct Primes {
    /// The primes, big-endian.
    pub primes: Vec<Secret>,
    /// Whether any of them is published.
    pub published: bool,
}

/// Reads a file of primes. Checks their form and size; that they are safe primes is checked where they are used.
///
/// # Errors
/// If the file is unreadable, or a line is not a number of the right size, or a prime stands twice.
pub fn read(path: &Path) -> Result<Primes, String> {
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{}: is not text", path.display()))?;
    let mut primes: Vec<Secret> = Vec::new();
    let mut published = false;
    for (number, line) in (1..).zip(text.lines()) {
        let digits = line.trim();
        if digits.is_empty() || digits.starts_with('#') {
            continue;
        }
        let at = || format!("{}:{number}", path.display());
        let prime = Zeroizing::new(hex::decode(digits).map_err(|_| format!("{}: expected hexadecimal digits", at()))?);
        let bits = bits(&prime);
        if bits != PRIME_BITS {
            return Err(format!("{}: expected a prime of {PRIME_BITS} bits, got {bits}", at()));
        }
        published |= test_primes::is_published(&prime);
        let prime = Secret::new(prime.to_vec());
        if primes.contains(&prime) {
            return Err(format!("{}: this prime stands a second time", at()));
        }
        primes.push(prime);
    }
    if primes.is_empty() {
        return Err(format!("{}: holds no prime", path.display()));
    }
    Ok(Primes { primes, published })
}

/// Refuses published primes in any process that does not say that it is a test.
///
/// # Errors
/// If they are published and [`TEST_PRIMES_VARIABLE`] is not `yes`.
pub fn refuse_published(primes: &Primes, variable: Option<&str>) -> Result<(), String> {
    if primes.published && variable != Some("yes") {
        return Err(format!(
            "these primes are published with the project and protect nothing; they are for tests only, \
             which set {TEST_PRIMES_VARIABLE}=yes"
        ));
    }
    Ok(())
}

impl Primes {
    /// The primes of the member at `position` of a cluster, as many as one auxiliary set consumes: every member takes
    /// others, so that one file can serve them all.
    ///
    /// # Errors
    /// If the file holds too few.
    pub fn share_of(&self, position: usize, suites: &Suites) -> Result<Vec<Secret>, String> {
        let each = suites.secp256k1.auxiliary().map_or(0, |auxiliary| usize::from(auxiliary.ingredient_pieces()));
        let from = position.saturating_mul(each);
        self.primes.get(from..from.saturating_add(each)).map(<[Secret]>::to_vec).ok_or_else(|| {
            format!(
                "the file holds {} primes; each member needs {each}, and this is member number {}",
                self.primes.len(),
                position.saturating_add(1)
            )
        })
    }
}

/// Whether published primes were put into the store at `path`, at whichever start.
#[must_use]
pub fn are_marked(path: &Path) -> bool {
    path.join(MARK).exists()
}

/// Puts primes into a store that is new, as if the node had made them itself. A store that has lived already is left
/// alone: its node may have used them before.
///
/// # Errors
/// If the store cannot be opened or written.
pub fn import(
    path: &Path,
    password: &Secret,
    cost: PasswordCost,
    primes: &[Secret],
    published: bool,
) -> Result<(), String> {
    let opened =
        fjall::open(path, password, fjall::Options::create_if_absent(cost)).map_err(|error| error.to_string())?;
    if !opened.created {
        return Ok(());
    }
    if published {
        // Before the primes themselves: no crash leaves them without it.
        files::write(&path.join(MARK), MARK_TEXT.as_bytes(), files::Overwrite::Allow)?;
        let folder = std::fs::File::open(path).and_then(|folder| folder.sync_all());
        folder.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let (inbox, events) = Inbox::new();
    let store = opened.store.start(inbox).map_err(|error| format!("no thread for the store: {error}"))?;
    let mut batch = Batch::default();
    for prime in primes {
        batch.put(Keyspace::Ingredients, keys::random_bytes::<16>()?.to_vec(), prime.expose().to_vec());
    }
    store.persist(PersistId(0), batch);
    // Dropping the store finishes what it was told.
    drop(store);
    drop(events);
    Ok(())
}

fn bits(big_endian: &[u8]) -> usize {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    big_endian.get(zeros).map_or(0, |first| (big_endian.len() - zeros) * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/fixtures/test-primes.txt");

    fn write(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("primes");
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    #[test]
    fn every_published_prime_is_recognised_and_refused() {
        let all = read(Path::new(FIXTURE)).expect("the project's test primes");
        assert_eq!(all.primes.len(), 12);
        for prime in &all.primes {
            let (_folder, path) = write(&hex::encode_upper(prime.expose()));
            let one = read(&path).expect("one prime");
            assert!(one.published);
            assert!(refuse_published(&one, None).is_err());
            assert!(refuse_published(&one, Some("no")).is_err());
            assert!(refuse_published(&one, Some("yes")).is_ok());
        }
    }

    #[test]
    fn other_numbers_of_the_right_size_are_not_published() {
        let (_folder, path) = write(&format!("# mine\n\n{}\n", "f".repeat(384)));
        let mine = read(&path).expect("one number");
        assert!(!mine.published && refuse_published(&mine, None).is_ok());
    }

    #[test]
    fn every_member_takes_other_primes() {
        let all = read(Path::new(FIXTURE)).expect("the project's test primes");
        let suites = Suites::production(mpcium_core::protocol::EcdsaProtocol::Cggmp24);
        let shares: Vec<Vec<Secret>> =
            (0..3).map(|position| all.share_of(position, &suites).expect("enough")).collect();
        assert!(shares.iter().all(|share| share.len() == 4));
        assert!(shares[0].iter().all(|prime| !shares[1].contains(prime) && !shares[2].contains(prime)));
        assert!(all.share_of(3, &suites).expect_err("too few").contains("member number 4"));
    }

    #[test]
    fn primes_are_imported_into_a_new_store_only() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("store");
        let password = Secret::new(b"p".to_vec());
        let primes = [Secret::new(vec![7; 192]), Secret::new(vec![9; 192])];
        let stored = || {
            let opened = fjall::open(&path, &password, fjall::Options::existing()).expect("opens");
            assert_eq!(opened.boot.damage, Vec::<String>::new());
            let mut values: Vec<Vec<u8>> = opened
                .boot
                .records
                .iter()
                .filter(|(keyspace, ..)| *keyspace == Keyspace::Ingredients)
                .map(|(_, _, value)| value.expose().to_vec())
                .collect();
            values.sort();
            values
        };
        import(&path, &password, PasswordCost::TRIVIAL, &primes, true).expect("imported");
        assert!(are_marked(&path), "every later start says so too");
        assert_eq!(stored(), [vec![7; 192], vec![9; 192]]);
        import(&path, &password, PasswordCost::TRIVIAL, &[Secret::new(vec![8; 192])], false).expect("left alone");
        assert!(are_marked(&path));
        assert_eq!(stored().len(), 2);
    }

    #[test]
    fn malformed_files_are_refused_with_the_line() {
        let good = "f".repeat(384);
        for (text, part) in [
            (String::new(), "holds no prime"),
            ("# only words\n".to_owned(), "holds no prime"),
            ("xyz\n".to_owned(), ":1: expected hexadecimal"),
            (format!("{good}\nff\n"), ":2: expected a prime of 1536 bits, got 8"),
            (format!("7{}\n", &good[1..]), ":1: expected a prime of 1536 bits, got 1535"),
            (format!("{good}\n{good}\n"), ":2: this prime stands a second time"),
        ] {
            let (_folder, path) = write(&text);
            let error = read(&path).expect_err("malformed");
            assert!(error.contains(part), "{error}");
        }
    }
}

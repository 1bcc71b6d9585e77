//! The open store: engine, key table, index of names and integrity record, and how a group of batches becomes durable.
//!
//! A commit takes these steps, each durable before the next: new keys into the key table; rows and integrity record
//! into the engine; keys of what was removed or replaced out of the key table. Then it may be acknowledged. The integrity
//! record goes into the file beside ([`Beside`]) after that and before the next commit.
//! A crash after any step is healed at the next start: keys that nothing needs are destroyed, and the file beside may
//! be one commit behind.
//!
//! Listings need the order of real names, which the engine does not know. All names are therefore kept in memory (about
//! a hundred bytes per record, see [`Names`]); opening reads, opens and checks every record anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use mpcium_core::{
    Secret,
    output::Record,
    store::{BootRecord, Keyspace},
    wallet::record::is_certificate_key,
};

use super::{
    OpenError,
    beside::Beside,
    files,
    integrity::{self, State},
    keytable::{BucketId, KeyTable},
    seal::{self, KeyId, Keys, ROW_NAME_BYTES, Reason, RowName},
};

/// Name of the integrity record's row: no keyspace has this number.
const STATE_ROW: [u8; 1] = [0xff];
/// Unreadable records that are described; what is beyond is only counted.
const DESCRIBED_MAX: usize = 16;

/// Folder of the engine's files.
pub(super) const ENGINE_FOLDER: &str = "records";
/// Folder of the key table.
pub(super) const KEYS_FOLDER: &str = "keys";
/// The integrity record beside the engine.
pub(super) const INTEGRITY_FILE: &str = "integrity";

/// Changes by keyspace and name; `None` removes.
pub(super) type Changes = BTreeMap<(Keyspace, Vec<u8>), Option<Secret>>;

/// The names of all records, as they are after everything that has been ordered.
#[derive(Debug, Default)]
pub(super) struct Names {
    existing: BTreeMap<Keyspace, BTreeSet<Box<[u8]>>>,
    /// How many ordered removals of a record are not durable yet.
    removing: BTreeMap<(Keyspace, Box<[u8]>), usize>,
    /// Names of certificates with which no share's name begins.
    without_share: BTreeSet<Box<[u8]>>,
}

/// What is known of a record without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    /// It exists.
    Exists,
    /// It has been removed, and that is not durable yet.
    Removing,
    /// It does not exist.
    Absent,
}

impl Names {
    /// A record exists from now on.
    pub(super) fn added(&mut self, keyspace: Keyspace, name: &[u8]) {
        self.existing.entry(keyspace).or_default().insert(name.into());
        match keyspace {
            Keyspace::Certificates if is_certificate_key(name) && !self.has_share(name) => {
                self.without_share.insert(name.into());
            }
            Keyspace::Shares => {
                if let Some(certificate) = beginning(&self.without_share, name).map(<[u8]>::to_vec) {
                    self.without_share.remove(certificate.as_slice());
                }
            }
            _ => {}
        }
    }

    /// A record's removal has been ordered.
    pub(super) fn removed(&mut self, keyspace: Keyspace, name: &[u8]) {
        self.existing.entry(keyspace).or_default().remove(name);
        match keyspace {
            Keyspace::Certificates => drop(self.without_share.remove(name)),
            Keyspace::Shares => {
                let certificates = self.existing.get(&Keyspace::Certificates);
                let certificate = certificates.and_then(|names| beginning(names, name)).map(Box::from);
                if let Some(certificate) =
                    certificate.filter(|certificate| is_certificate_key(certificate) && !self.has_share(certificate))
                {
                    self.without_share.insert(certificate);
                }
            }
            _ => {}
        }
        *self.removing.entry((keyspace, name.into())).or_default() += 1;
    }

    /// A record's removal has become durable.
    pub(super) fn removal_is_durable(&mut self, keyspace: Keyspace, name: &[u8]) {
        let key = (keyspace, name.into());
        if let Some(orders) = self.removing.get_mut(&key) {
            *orders -= 1;
            if *orders == 0 {
                self.removing.remove(&key);
            }
        }
    }

    pub(super) fn existence(&self, keyspace: Keyspace, name: &[u8]) -> Existence {
        if self.existing.get(&keyspace).is_some_and(|names| names.contains(name)) {
            Existence::Exists
        } else if !self.removing.is_empty() && self.removing.contains_key(&(keyspace, name.into())) {
            Existence::Removing
        } else {
            Existence::Absent
        }
    }

    /// How many certificates have no share beside them.
    pub(super) fn without_share(&self) -> usize {
        self.without_share.len()
    }

    /// Whether there is a share of a certificate's wallet and epoch: the certificate's name begins those of its shares.
    fn has_share(&self, certificate: &[u8]) -> bool {
        let from = (Bound::Included(certificate), Bound::Unbounded);
        let shares = self.existing.get(&Keyspace::Shares);
        let next = shares.and_then(|names| names.range::<[u8], _>(from).next());
        next.is_some_and(|share| share.starts_with(certificate))
    }

    /// The first names above `after`, in their order.
    pub(super) fn above(&self, keyspace: Keyspace, after: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let above = (if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) }, Bound::Unbounded);
        let names = self.existing.get(&keyspace).into_iter().flat_map(|names| names.range::<[u8], _>(above));
        names.take(limit).map(|name| name.to_vec()).collect()
    }
}

/// The longest name with which another one begins.
fn beginning<'a>(names: &'a BTreeSet<Box<[u8]>>, name: &[u8]) -> Option<&'a [u8]> {
    let before = names.range::<[u8], _>((Bound::Unbounded, Bound::Included(name))).next_back()?;
    Some(&**before).filter(|beginning| name.starts_with(beginning))
}

/// The engine with its one table of rows.
struct Engine {
    database: ::fjall::Database,
    rows: ::fjall::Keyspace,
}

impl Engine {
    /// Opens or creates the engine's files.
    fn open(folder: &Path, write_buffer_bytes: u64) -> Result<Self, OpenError> {
        let damaged = |reason: String| OpenError::Damaged { path: folder.to_owned(), reason };
        // The engine is known to panic over some damaged files.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = ::fjall::Database::builder(folder).worker_threads(1).open()?;
            let rows = database
                .keyspace("rows", || ::fjall::KeyspaceCreateOptions::default().max_memtable_size(write_buffer_bytes))?;
            Ok::<_, ::fjall::Error>(Self { database, rows })
        }));
        match opened {
            Ok(Ok(engine)) => Ok(engine),
            Ok(Err(error)) => Err(damaged(format!("the engine cannot open it: {error}"))),
            Err(_) => Err(damaged("the engine broke down over it".to_owned())),
        }
    }

    fn row(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        let row = self.rows.get(name).map_err(|error| format!("a record cannot be read: {error}"))?;
        Ok(row.map(|row| row.to_vec()))
    }
}

/// The open store.
pub(super) struct Vault {
    folder: PathBuf,
    keys: Keys,
    engine: Engine,
    table: KeyTable,
    pub(super) state: State,
    beside: Beside,
    /// The integrity record of the last commit, sealed, which the file beside does not hold yet.
    pending: Option<Vec<u8>>,
    names: Names,
    /// Held for as long as the store is open.
    _lock: File,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.folder.display())
    }
}

/// What reading every row found.
#[derive(Default)]
struct Survey {
    found: State,
    inside: Option<State>,
    names: Names,
    boot: Vec<(Keyspace, Vec<u8>, Secret)>,
    needed: BTreeSet<KeyId>,
    unreadable: Vec<String>,
    unreadable_count: usize,
}

impl Survey {
    fn unreadable(&mut self, words: String) {
        self.unreadable_count += 1;
        if self.unreadable.len() < DESCRIBED_MAX {
            self.unreadable.push(words);
        }
    }
}

impl Vault {
    /// Makes the parts of a new store in an empty folder, so that an existing store always has all of them.
    pub(super) fn create(folder: &Path, keys: &Keys, write_buffer_bytes: u64) -> Result<(), OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        for part in [ENGINE_FOLDER, KEYS_FOLDER] {
            let path = folder.join(part);
            files::make_folder(&path).map_err(failed(&path))?;
        }
        let path = folder.join(ENGINE_FOLDER);
        let engine = Engine::open(&path, write_buffer_bytes)?;
        let state = State::first();
        let sealed = state.seal(keys).map_err(|reason| OpenError::Damaged { path: path.clone(), reason })?;
        let mut batch = engine.database.batch().durability(Some(::fjall::PersistMode::SyncAll));
        batch.insert(&engine.rows, STATE_ROW.as_slice(), sealed.as_slice());
        batch.commit().map_err(|error| OpenError::Damaged { path, reason: error.to_string() })?;
        let path = folder.join(INTEGRITY_FILE);
        let mut beside = Beside::new(path.clone());
        beside.write(state.sequence, &sealed).map_err(|reason| OpenError::Damaged { path, reason })
    }

    /// Opens the parts of an existing store, reads and checks every record.
    pub(super) fn open(
        folder: &Path,
        keys: Keys,
        lock: File,
        write_buffer_bytes: u64,
    ) -> Result<(Self, BootRecord), OpenError> {
        let io = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
        let integrity_path = folder.join(INTEGRITY_FILE);
        let engine_folder = folder.join(ENGINE_FOLDER);
        let keys_folder = folder.join(KEYS_FOLDER);
        for path in [&engine_folder, &keys_folder] {
            if !path.is_dir() {
                return Err(OpenError::Damaged { path: path.clone(), reason: "the folder is missing".to_owned() });
            }
        }
        files::remove_unfinished(folder).map_err(|source| io(folder, source))?;
        files::remove_unfinished(&keys_folder).map_err(|source| io(&keys_folder, source))?;
        let mut damage = Vec::new();
        let engine = Engine::open(&engine_folder, write_buffer_bytes)?;
        let mut table = KeyTable::new(keys_folder);
        let survey = survey(&engine, &keys, &mut table, &engine_folder)?;
        let file = Beside::new(integrity_path.clone());
        let inside = survey.inside.as_ref().map(|inside| inside.sequence);
        let beside = file.read(&keys, inside).map_err(|source| io(&integrity_path, source))?;
        damage.extend(beside.damage.iter().map(|reason| format!("{}: {reason}", integrity_path.display())));
        damage.extend(integrity::compare(&survey.found, survey.inside.as_ref(), beside.state.as_ref()));
        let unneeded = match table.unneeded(&keys, &survey.needed) {
            Ok(unneeded) => unneeded,
            Err((path, reason)) => {
                damage.push(format!("{}: {reason}", path.display()));
                Vec::new()
            }
        };

        let mut state = survey.found;
        let known = [survey.inside.as_ref(), beside.state.as_ref()];
        state.sequence = known.iter().flatten().map(|known| known.sequence).max().unwrap_or(0);
        known.iter().flatten().for_each(|known| state.note(&known.noted));
        state.note(&damage);
        let earlier: Vec<String> = state.noted.iter().filter(|words| !damage.contains(words)).cloned().collect();
        damage.extend(earlier.into_iter().map(|words| format!("found at an earlier start: {words}")));
        damage.extend(survey.unreadable.iter().cloned());
        if survey.unreadable_count > survey.unreadable.len() {
            damage.push(format!("{} records cannot be read in all", survey.unreadable_count));
        }

        let (folder, names) = (folder.to_owned(), survey.names);
        let mut vault = Self { folder, keys, engine, table, state, beside: file, pending: None, names, _lock: lock };
        if damage.is_empty() {
            // What a crash left open. After damage nothing is destroyed.
            let path = vault.folder.clone();
            let damaged = |reason| OpenError::Damaged { path: path.clone(), reason };
            vault.table.destroy(&vault.keys, &unneeded).map_err(damaged)?;
            let put_right = vault.beside.put_right(&vault.keys, &beside, &vault.state);
            put_right.map_err(|source| io(&integrity_path, source))?.map_err(damaged)?;
        }
        Ok((vault, BootRecord { records: survey.boot, damage }))
    }

    /// Makes changes durable as a whole: they may be acknowledged. After an error nothing more may be written.
    pub(super) fn commit(&mut self, changes: &Changes) -> Result<(), Reason> {
        self.settle()?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = self.engine.database.batch().durability(Some(::fjall::PersistMode::SyncAll));
        let mut added = Vec::new();
        let mut destroyed = Vec::new();
        for ((keyspace, name), value) in changes {
            let row_name = self.keys.row_name(*keyspace, name);
            let bucket = BucketId::of(&row_name);
            let old = self.engine.row(&row_name)?;
            // A row without a header was damaged before it was ever counted.
            if let Some(header) = old.as_deref().and_then(|row| seal::header(row).ok()) {
                let element = self.keys.element(&row_name, &header);
                self.state.sum(seal::number(*keyspace)).remove(&element);
                destroyed.extend(header.own_key.map(|id| (bucket, id)));
            }
            match value {
                Some(value) => {
                    let own = if keyspace.erasable() { Some((seal::fresh()?, seal::fresh_key()?)) } else { None };
                    let borrowed = own.as_ref().map(|(id, key)| (id, key));
                    let row = self.keys.seal_record(&row_name, name, value.expose(), borrowed)?;
                    let element = self.keys.element(&row_name, &seal::header(&row)?);
                    self.state.sum(seal::number(*keyspace)).add(&element);
                    batch.insert(&self.engine.rows, row_name.as_slice(), row);
                    added.extend(own.map(|(id, key)| (bucket, id, key)));
                }
                None if old.is_some() => batch.remove(&self.engine.rows, row_name.as_slice()),
                None => {}
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.state.sequence += 1;
        let sealed = self.state.seal(&self.keys)?;
        batch.insert(&self.engine.rows, STATE_ROW.as_slice(), sealed.as_slice());
        let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", self.folder.display());
        self.table.add(&self.keys, &added)?;
        batch.commit().map_err(|error| named(&format_args!("the engine cannot write: {error}")))?;
        self.table.destroy(&self.keys, &destroyed)?;
        self.pending = Some(sealed);
        Ok(())
    }

    /// Brings the file beside to the last commit. Nobody waits for it.
    pub(super) fn settle(&mut self) -> Result<(), Reason> {
        let Some(sealed) = self.pending.take() else { return Ok(()) };
        self.beside
            .write(self.state.sequence, &sealed)
            .map_err(|error| format!("{}: the integrity file cannot be written: {error}", self.folder.display()))
    }

    /// How many certificates have no share beside them, until the names are taken.
    pub(super) fn without_share(&self) -> usize {
        self.names.without_share()
    }

    /// The names of all records, for whoever orders.
    pub(super) fn take_names(&mut self) -> Names {
        std::mem::take(&mut self.names)
    }

    /// Reads a record that exists, as it will be after `changes`.
    pub(super) fn load(
        &mut self,
        changes: &Changes,
        keyspace: Keyspace,
        name: &[u8],
    ) -> Result<Option<Secret>, Reason> {
        if let Some(value) = changes.get(&(keyspace, name.to_vec())) {
            return Ok(value.clone());
        }
        let row_name = self.keys.row_name(keyspace, name);
        let failed = |reason: Reason| format!("a record of {} cannot be read: {reason}", keyspace.name());
        let row = self.engine.row(&row_name)?.ok_or_else(|| failed("it is gone".to_owned()))?;
        let (_, value) = open_row(&self.keys, &mut self.table, &row_name, &row).map_err(failed)?;
        Ok(Some(value))
    }

    /// Reads records that exist, as they will be after `changes`.
    pub(super) fn read_all(
        &mut self,
        changes: &Changes,
        keyspace: Keyspace,
        names: Vec<Vec<u8>>,
    ) -> Result<Vec<Record>, Reason> {
        let mut records = Vec::with_capacity(names.len());
        for name in names {
            if let Some(value) = self.load(changes, keyspace, &name)? {
                records.push((name, value));
            }
        }
        Ok(records)
    }
}

/// Opens a row with the key that it asks for.
fn open_row(keys: &Keys, table: &mut KeyTable, row_name: &RowName, row: &[u8]) -> Result<(Vec<u8>, Secret), Reason> {
    let header = seal::header(row)?;
    let own_key = match &header.own_key {
        Some(id) => table.key(keys, BucketId::of(row_name), id)?,
        None => None,
    };
    let (name, value) = keys.open_record(row_name, &header, own_key.as_ref())?;
    let belongs = seal::keyspace(row_name[0]).is_some_and(|keyspace| keys.row_name(keyspace, &name) == *row_name);
    if belongs { Ok((name, value)) } else { Err("its name is another's".to_owned()) }
}

/// Reads and opens every row.
fn survey(engine: &Engine, keys: &Keys, table: &mut KeyTable, folder: &Path) -> Result<Survey, OpenError> {
    let surveyed = catch_unwind(AssertUnwindSafe(|| survey_rows(engine, keys, table)));
    let damaged = |reason| OpenError::Damaged { path: folder.to_owned(), reason };
    match surveyed {
        Ok(survey) => survey.map_err(damaged),
        Err(_) => Err(damaged("the engine broke down while it read all records".to_owned())),
    }
}

fn survey_rows(engine: &Engine, keys: &Keys, table: &mut KeyTable) -> Result<Survey, Reason> {
    let mut survey = Survey::default();
    let mut last = "the first record".to_owned();
    for guard in engine.rows.iter() {
        let (row_name, row) = guard.into_inner().map_err(|error| format!("it cannot be read after {last}: {error}"))?;
        if *row_name == STATE_ROW {
            match State::open(keys, &row) {
                Ok(state) => survey.inside = Some(state),
                Err(reason) => survey.unreadable(format!("the integrity record in the database: {reason}")),
            }
            continue;
        }
        let named = <RowName>::try_from(&*row_name).ok().and_then(|name| Some((name, seal::keyspace(name[0])?)));
        let Some((row_name, keyspace)) = named else {
            survey.unreadable(format!(
                "a record has a name of {} bytes that belongs to no keyspace, expected {ROW_NAME_BYTES}",
                row_name.len()
            ));
            continue;
        };
        last = format!("record {} of {}", hex::encode(&row_name[1..9]), keyspace.name());
        if let Ok(header) = seal::header(&row) {
            survey.found.sum(row_name[0]).add(&keys.element(&row_name, &header));
            survey.needed.extend(header.own_key);
        }
        match open_row(keys, table, &row_name, &row) {
            Ok((name, value)) => {
                survey.names.added(keyspace, &name);
                if keyspace.loaded_at_boot() {
                    survey.boot.push((keyspace, name, value));
                }
            }
            Err(reason) => survey.unreadable(format!("{last} cannot be read: {reason}")),
        }
    }
    survey.boot.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    Ok(survey)
}

//! Typed access to the file and the environment, collecting problems instead of stopping at the first.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    ConfigErrors, consul,
    yaml::{self, Entries, Value},
};

/// Every key that a configuration may hold. `authorization.authorizer_public_keys` holds further keys by id.
pub const KEYS: &[&str] = &[
    "environment",
    "nats.url",
    "nats.urls",
    "nats.replicas",
    "nats.prefix",
    "nats.idle_consumer_days",
    "nats.username",
    "nats.password",
    "nats.credentials",
    "nats.tls.client_cert",
    "nats.tls.client_key",
    "nats.tls.ca_cert",
    "consul.address",
    "consul.username",
    "consul.password",
    "consul.token",
    "consul.prefix",
    "consul.tls.client_cert",
    "consul.tls.client_key",
    "consul.tls.ca_cert",
    "mpc_threshold",
    "threshold_counts",
    "ecdsa_protocol",
    "store_password",
    "badger_password",
    "event_initiator_pubkey",
    "event_initiator_algorithm",
    "chain_code",
    "db_path",
    "backup_enabled",
    "backup_period_seconds",
    "backup_dir",
    "max_concurrent_keygen",
    "max_concurrent_signing",
    "presignatures",
    "healthcheck.enabled",
    "healthcheck.address",
    "metrics.enabled",
    "metrics.address",
    "authorization.enabled",
    "authorization.required_authorizers",
    "workers",
    "signing_deadline_seconds",
    "keygen_deadline_seconds",
    "clock_skew_seconds",
    "require_full_signature",
];

/// Keys whose values are for the file's owner only.
const PASSWORDS: &[&str] = &["store_password", "badger_password", "nats.password", "consul.password", "consul.token"];

/// Keys of existing templates that nothing ever read; they are passed over in silence.
const WITHOUT_EFFECT: &[&str] = &["session_warm_up_delay_ms", "mpcium_version", "aws.kms_key_id", "aws.region"];

/// Variables of Consul's own tools that say what a key says. They count where neither the file nor the key's own variable
/// says anything, the first one first. What the others say is no key's value.
const CONSULS_OWN: &[(&str, &str)] = &[
    ("consul.address", "CONSUL_HTTP_ADDR"),
    ("consul.tls.ca_cert", "CONSUL_CACERT"),
    ("consul.tls.ca_cert", "CONSUL_CAPATH"),
    ("consul.tls.client_cert", "CONSUL_CLIENT_CERT"),
    ("consul.tls.client_key", "CONSUL_CLIENT_KEY"),
];

/// The section with the authorizers' keys, by their ids.
const AUTHORIZERS: &str = "authorization.authorizer_public_keys";
const AUTHORIZER_KEYS: &str = "authorization.authorizer_public_keys.";
const REQUIRED_AUTHORIZERS: &str = "authorization.required_authorizers";

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `config.yaml:7`, `environment variable NATS_URL`, or the file alone.
    pub place: String,
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.what)
    }
}

/// One configuration while it is being read. `Debug` shows no values: some are passwords.
pub struct Reader {
    path: PathBuf,
    entries: Entries,
    /// By key: the variable's name and its value.
    environment: BTreeMap<String, (String, String)>,
    /// Variables that are no key's.
    variables: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}, {} keys)", self.path.display(), self.entries.len() + self.environment.len())
    }
}

impl Reader {
    /// Takes the file's text and the environment, of which only the variables of known keys are looked at.
    ///
    /// # Errors
    /// If the text is not YAML of the right shape.
    pub fn new(path: &Path, source: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let entries = yaml::parse(source).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut reader = Self {
            path: path.to_owned(),
            entries,
            environment: BTreeMap::new(),
            variables: consul::VARIABLES
                .iter()
                .filter_map(|name| Some((*name, variable(name).filter(|value| !value.is_empty())?)))
                .collect(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        KEYS.iter().for_each(|key| reader.look_for(key, variable));
        // The variables of authorizers have the authorizers' ids in their names.
        let mut ids = reader.children(AUTHORIZERS);
        ids.extend(reader.list(REQUIRED_AUTHORIZERS).unwrap_or_default());
        for id in ids {
            for part in ["public_key", "algorithm"] {
                reader.look_for(&format!("{AUTHORIZERS}.{id}.{part}"), variable);
            }
        }
        reader.find_unknown();
        Ok(reader)
    }

    /// Takes the variable of a key, if it is set. An empty one counts as not set, as it always did.
    fn look_for(&mut self, key: &str, variable: &dyn Fn(&str) -> Option<String>) {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value));
        let consuls_own = || {
            let mut names = CONSULS_OWN.iter().filter(|(of, _)| *of == key && !self.is_in_file(of));
            names.find_map(|(_, name)| set(name))
        };
        if let Some(named) = set(&variable_name(key)).or_else(consuls_own) {
            self.environment.insert(key.to_lowercase(), named);
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// The names of the environment's variables that say what the file's keys say, or would.
    #[must_use]
    pub fn variables_used(&self) -> Vec<&str> {
        self.environment.values().map(|(name, _)| name.as_str()).collect()
    }

    /// Whether a password is written in the file.
    #[must_use]
    pub fn holds_password(&self) -> bool {
        PASSWORDS.iter().any(|key| self.is_in_file(key))
    }

    /// Whether the key has a value in the file, whatever the environment says.
    #[must_use]
    pub fn is_in_file(&self, key: &str) -> bool {
        let entry = self.entries.get(&key.to_lowercase());
        entry.is_some_and(|entry| !matches!(&entry.value, Value::Null) && entry.value != Value::Scalar(String::new()))
    }

    /// What the operator should be told although it stops nothing.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All problems, in the order in which they were found.
    pub fn finish(&self) -> Result<(), ConfigErrors> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigErrors(self.problems.clone())) }
    }

    /// Notes a problem with a key.
    pub fn problem(&mut self, key: &str, what: String) {
        let problem = Problem { place: self.place(key), key: key.to_owned(), what };
        if !self.problems.iter().any(|known| known.key == problem.key) {
            self.problems.push(problem);
        }
    }

    /// Notes a warning about a key.
    pub fn warn(&mut self, key: &str, what: String) {
        let warning = Problem { place: self.place(key), key: key.to_owned(), what };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// A variable that is no key's, if it is set.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Notes a problem with such a variable, which concerns a key.
    pub fn problem_of(&mut self, variable: &str, key: &str, what: String) {
        self.problems.push(Self::of(variable, key, what));
    }

    /// Notes a warning about such a variable.
    pub fn warn_of(&mut self, variable: &str, key: &str, what: String) {
        self.warnings.push(Self::of(variable, key, what));
    }

    fn of(variable: &str, key: &str, what: String) -> Problem {
        Problem { place: format!("environment variable {variable}"), key: key.to_owned(), what }
    }

    /// Notes that a required key is missing, unless its value has been found wrong already.
    pub fn required(&mut self, key: &str) {
        self.problem(key, format!("is required (in the file, or as environment variable {})", variable_name(key)));
    }

    /// Whether the key has a value anywhere.
    #[must_use]
    pub fn written(&self, key: &str) -> bool {
        self.raw(key).is_some_and(|value| !matches!(value, Value::Null) && value != Value::Scalar(String::new()))
    }

    /// A text that is not empty.
    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.raw(key)? {
            Value::Scalar(text) if text.is_empty() => None,
            Value::Scalar(text) => Some(text),
            Value::Null => None,
            Value::List(_) => {
                self.problem(key, "expected one value, got a list".to_owned());
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice(&mut self, key: &str, words: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        self.problem(key, format!("expected {}, got {text:?}", words.join(" or ")));
        None
    }

    /// A whole number within bounds.
    pub fn number(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(key)?;
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.problem(key, format!("expected a whole number from {min} to {max}, got {text:?}"));
                None
            }
        }
    }

    /// Yes or no.
    pub fn switch(&mut self, key: &str) -> Option<bool> {
        let text = self.text(key)?;
        match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => {
                self.problem(key, format!("expected true or false, got {text:?}"));
                None
            }
        }
    }

    /// A path, as given.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A list, or one text with commas between the items.
    pub fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let items = match self.raw(key)? {
            Value::Null => return None,
            Value::List(items) => items,
            Value::Scalar(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
        };
        Some(items.into_iter().filter(|item| !item.is_empty()).collect())
    }

    /// The items of a list that may be given under several keys, each once. Variables win over the file, whichever of the
    /// keys either uses.
    pub fn joint_list(&mut self, keys: &[&str]) -> Vec<String> {
        let variables = keys.iter().any(|key| self.environment.contains_key(*key));
        let mut items: Vec<String> = Vec::new();
        for key in keys {
            if variables && !self.environment.contains_key(*key) {
                continue;
            }
            for item in self.list(key).unwrap_or_default() {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
        }
        items
    }

    /// The names one level below a section, in the case in which they are written.
    #[must_use]
    pub fn children(&self, section: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (key, entry) in &self.entries {
            if key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
                && let Some((name, _)) = entry.written.get(section.len() + 1..).and_then(|rest| rest.rsplit_once('.'))
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
            }
        }
        names
    }

    fn raw(&self, key: &str) -> Option<Value> {
        let key = key.to_lowercase();
        if let Some((_, text)) = self.environment.get(&key) {
            return Some(Value::Scalar(text.clone()));
        }
        self.entries.get(&key).map(|entry| entry.value.clone())
    }

    fn place(&self, key: &str) -> String {
        let key = key.to_lowercase();
        if let Some((name, _)) = self.environment.get(&key) {
            return format!("environment variable {name}");
        }
        match self.entries.get(&key) {
            Some(entry) => format!("{}:{}", self.path.display(), entry.line),
            None => self.path.display().to_string(),
        }
    }

    fn find_unknown(&mut self) {
        let unknown: Vec<(String, String)> = self
            .entries
            .iter()
            .filter(|(key, _)| {
                !KEYS.contains(&key.as_str())
                    && !WITHOUT_EFFECT.contains(&key.as_str())
                    && !(key.starts_with(AUTHORIZER_KEYS)
                        && (key.ends_with(".public_key") || key.ends_with(".algorithm")))
                    // `nats:` with nothing below it.
                    && !KEYS.iter().any(|known| known.strip_prefix(key.as_str()).is_some_and(|r| r.starts_with('.')))
            })
            .map(|(key, entry)| (key.clone(), entry.written.clone()))
            .collect();
        for (key, written) in unknown {
            let what = match nearest(&key) {
                Some(known) => format!("{written} is no known key and has no effect; did you mean {known}?"),
                None => format!("{written} is no known key and has no effect"),
            };
            self.warn(&key, what);
        }
    }
}

/// The environment variable that overrides a key.
#[must_use]
pub fn variable_name(key: &str) -> String {
    key.to_uppercase().replace(['.', '-'], "_")
}

/// The known key with the smallest edit distance, if it is near enough to be a slip of the finger.
fn nearest(key: &str) -> Option<&'static str> {
    let name = key.rsplit('.').next().unwrap_or(key);
    KEYS.iter()
        .map(|known| {
            let short = known.rsplit('.').next().unwrap_or(known);
            // A key in the wrong section is as likely a mistake as a misspelt one.
            (distance(key, known).min(distance(name, short) + 1), *known)
        })
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .map(|(_, known)| known)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, (y, above)) in b.iter().zip(row.windows(2)).enumerate() {
            let [diagonal, up] = above else { continue };
            let left = next.get(j).copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(x != *y)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_nearest_key_is_suggested_only_if_it_is_near() {
        assert_eq!(nearest("mpc_treshold"), Some("mpc_threshold"));
        assert_eq!(nearest("nats.uri"), Some("nats.url"));
        assert_eq!(nearest("consul.adress"), Some("consul.address"));
        assert_eq!(nearest("healthcheck_enabled"), Some("healthcheck.enabled"));
        assert_eq!(nearest("completely_different_thing"), None);
    }
}

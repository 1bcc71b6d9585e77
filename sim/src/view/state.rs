//! What a log lets one know about the cluster at one of its lines: a tree of facts, each a path and a text.
//!
//! It is reconstructed from the lines alone, so it shows what could be seen from outside a node: processes, links,
//! sessions, records, open writes and reads, what nodes say about themselves; and of requests their way through the
//! queue and their answers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::recording::{Line, plain, seconds};

/// What a process takes with it when it ends.
const OF_PROCESS: [&str; 13] = [
    "alarm",
    "answering",
    "computing",
    "declined",
    "ended",
    "intake",
    "link",
    "paused",
    "publishing",
    "read",
    "ready",
    "session",
    "write",
];

/// A record's path and its text once a batch is durable; no text if the batch removes it.
type Change = (String, Option<String>);

/// What is known after some lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    facts: BTreeMap<String, String>,
    /// Batches that were ordered and are not durable: node and id, with their records' paths and texts once durable.
    batches: BTreeMap<(String, u64), Vec<Change>>,
    /// Computations that run, by node.
    computing: BTreeMap<String, u64>,
    /// Requests by wallet and transaction.
    requests: BTreeMap<(String, String), Vec<String>>,
}

/// One difference between two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only in the later state.
    Added(String, String),
    /// Only in the earlier state.
    Removed(String, String),
    /// In both, but not the same: before and after.
    Changed(String, String, String),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added(path, text) => write!(f, "+ {path}: {text}"),
            Self::Removed(path, text) => write!(f, "- {path}: {text}"),
            Self::Changed(path, before, after) => write!(f, "~ {path}: {before}\n    now: {after}"),
        }
    }
}

impl State {
    /// All facts at or below a path; if there is no such path, all whose path contains the text.
    #[must_use]
    pub fn at(&self, path: &str) -> Vec<(&str, &str)> {
        let path = path.trim_matches('/');
        let below: Vec<(&str, &str)> = self
            .iter()
            .filter(|(name, _)| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            .collect();
        if below.is_empty() { self.iter().filter(|(name, _)| name.contains(path)).collect() } else { below }
    }

    /// All facts, in order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.facts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// One fact.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        self.facts.get(path).map(String::as_str)
    }

    /// What is different in a later state, in order of paths.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<Difference> {
        let mut paths: Vec<&String> = self.facts.keys().chain(later.facts.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
            .into_iter()
            .filter_map(|path| match (self.facts.get(path), later.facts.get(path)) {
                (None, Some(after)) => Some(Difference::Added(path.clone(), after.clone())),
                (Some(before), None) => Some(Difference::Removed(path.clone(), before.clone())),
                (Some(before), Some(after)) if before != after => {
                    Some(Difference::Changed(path.clone(), before.clone(), after.clone()))
                }
                _ => None,
            })
            .collect()
    }

    /// The whole cluster on a page: one line per node, per open request and per fault.
    #[must_use]
    pub fn overview(&self) -> Vec<String> {
        let mut page: Vec<String> = self.at("run").into_iter().map(|(path, text)| format!("{path}: {text}")).collect();
        for (path, process) in self.iter().filter(|(path, _)| path.ends_with("/process")) {
            let node = path.trim_end_matches("/process");
            let count = |part: &str| {
                let below = format!("{node}/{part}/");
                self.facts.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below)).count()
            };
            let links = self.at(&format!("{node}/link")).iter().filter(|(_, text)| text.starts_with("up")).count();
            let ready = self.get(&format!("{node}/ready")).unwrap_or("not known");
            let paused = if self.get(&format!("{node}/paused")).is_some() { ", PAUSED" } else { "" };
            page.push(format!(
                "{node}: {process}{paused}; ready: {ready}; {links} links up, {} sessions, {} requests, {} records, \
                 {} writes and {} reads open",
                count("session"),
                count("answering"),
                count("record"),
                count("write"),
                count("read")
            ));
        }
        let open = |path: &str, text: &str| {
            path.starts_with("request/") && path.matches('/').count() == 2 && !text.contains("acknowledged at")
        };
        page.extend(self.iter().filter(|(path, text)| open(path, text)).map(|(path, text)| format!("{path}: {text}")));
        page.extend(
            self.at("fault/")
                .into_iter()
                .filter(|(path, _)| path.starts_with("fault/"))
                .map(|(path, text)| format!("{path}: {text}")),
        );
        page
    }

    /// Takes a line into account.
    pub fn apply(&mut self, line: &Line) {
        let value = line.value();
        let at = seconds(line.at);
        let at = at.trim_start();
        let node = line.node.as_str();
        match line.kind.as_str() {
            "scenario" => self.scenario(&value["scenario"]),
            "boot" => {
                self.process_ends(node);
                self.set(
                    format!("{node}/process"),
                    format!("runs since {at}, its process {}", plain(&value["process"])),
                );
            }
            "kill" => self.down(node, &format!("down since {at}, killed")),
            "exit" => self.down(node, &format!("down since {at}, ended by itself: {}", plain(&value["reason"]))),
            "pause" => self.set(format!("{node}/paused"), format!("stands still since {at}")),
            "resume" => self.remove(&format!("{node}/paused")),
            "intake" => {
                let open = if value["open"] == true { "open" } else { "closed" };
                self.set(format!("{node}/intake/{}", plain(&value["of"])), format!("{open} since {at}"));
            }
            "persist" => self.persist(node, at, &value),
            "durable" => self.durable(node, value["id"].as_u64().unwrap_or_default()),
            "persisted" => self.remove(&format!("{node}/write/{}", plain(&value["id"]))),
            "disk" => self.disk(node, &value["records"]),
            "load" | "scan" => {
                let keyspace = plain(&value["in"]);
                let what = value.get("key").map_or("a page".to_owned(), |key| record_name(&keyspace, &plain(key)));
                self.set(format!("{node}/read/{}", plain(&value["id"])), format!("{keyspace} {what}, ordered at {at}"));
            }
            "loaded" | "scanned" => self.remove(&format!("{node}/read/{}", plain(&value["id"]))),
            "compute" => self.computing(node, 1),
            "computed" => self.computing(node, -1),
            "publish" => {
                self.set(
                    format!("{node}/publishing/{}", plain(&value["id"])),
                    format!("since {at} {}", plain(&value["dedup"])),
                );
            }
            "published" => self.remove(&format!("{node}/publishing/{}", plain(&value["id"]))),
            "report" => self.report(node, at, &value["report"]),
            "status" => self.status(node, &value["status"]),
            "enqueue" | "deliver" | "settled" | "acknowledgement missing" | "lost" => self.queue(line, at, &value),
            "answer" => self.answer(node, at, &value),
            "fault begins" => {
                self.set(format!("fault/{}", plain(&value["fault"])), format!("since {at}: {}", value["what"]));
            }
            "fault ends" => self.remove(&format!("fault/{}", plain(&value["fault"]))),
            "heal" => self.set("run/phase".into(), format!("healed at {at}: only nodes {} live", value["core"])),
            "violation" => self.set(
                "run/violation".into(),
                format!("at {at}, {}: {}", plain(&value["invariant"]), plain(&value["what"])),
            ),
            _ => {}
        }
    }

    fn set(&mut self, path: String, text: String) {
        self.facts.insert(path, text);
    }

    fn remove(&mut self, path: &str) {
        self.facts.remove(path);
    }

    fn remove_below(&mut self, path: &str) {
        self.facts
            .retain(|name, _| !name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    }

    fn scenario(&mut self, scenario: &Value) {
        let text = |name: &str| plain(&scenario[name]);
        self.set(
            "run/scenario".into(),
            format!(
                "seed {}, profile {}: {} nodes, {} sign; {} steps, {} faults",
                text("seed"),
                text("profile"),
                text("nodes"),
                text("threshold"),
                scenario["steps"].as_array().map_or(0, Vec::len),
                scenario["faults"].as_array().map_or(0, Vec::len)
            ),
        );
        if !scenario["planted"].is_null() {
            self.set("run/planted".into(), scenario["planted"].to_string());
        }
        self.set("run/phase".into(), "under faults".into());
        for node in 0..scenario["nodes"].as_u64().unwrap_or_default() {
            self.set(format!("node{node}/process"), "not started yet".into());
        }
    }

    fn process_ends(&mut self, node: &str) {
        for part in OF_PROCESS {
            self.remove_below(&format!("{node}/{part}"));
        }
        self.remove_below(&format!("{node}/says"));
        self.batches.retain(|(other, _), _| other != node);
        self.computing.remove(node);
    }

    fn down(&mut self, node: &str, text: &str) {
        self.process_ends(node);
        self.set(format!("{node}/process"), text.to_owned());
    }

    fn persist(&mut self, node: &str, at: &str, value: &Value) {
        let mut batch = Vec::new();
        for write in value["writes"].as_array().into_iter().flatten() {
            let keyspace = plain(&write["in"]);
            let path = format!("{node}/record/{keyspace}/{}", record_name(&keyspace, &plain(&write["key"])));
            let durable = write["bytes"].as_u64().map(|bytes| format!("{bytes} bytes"));
            let text = match &durable {
                Some(text) => format!("{text}, ordered at {at}, not durable yet"),
                None => format!("its removal was ordered at {at} and is not durable yet"),
            };
            self.set(path.clone(), text);
            batch.push((path, durable));
        }
        let id = value["id"].as_u64().unwrap_or_default();
        self.set(format!("{node}/write/{id}"), format!("{} records, ordered at {at}", batch.len()));
        self.batches.insert((node.to_owned(), id), batch);
    }

    fn durable(&mut self, node: &str, id: u64) {
        for (path, text) in self.batches.remove(&(node.to_owned(), id)).unwrap_or_default() {
            // A later batch changes the same record once more.
            let mut later = self.batches.iter().filter(|((other, _), _)| other == node).flat_map(|(_, batch)| batch);
            if later.any(|(again, _)| *again == path) {
                continue;
            }
            match text {
                Some(text) => self.set(path, text),
                None => self.remove(&path),
            }
        }
        if let Some(text) = self.facts.get_mut(&format!("{node}/write/{id}")) {
            text.push_str(", durable, the node does not know it yet");
        }
    }

    /// What a crash or a rollback left.
    fn disk(&mut self, node: &str, records: &Value) {
        self.remove_below(&format!("{node}/record"));
        for (keyspace, keys) in records.as_object().into_iter().flatten() {
            for (key, bytes) in keys.as_object().into_iter().flatten() {
                let path = format!("{node}/record/{keyspace}/{}", record_name(keyspace, key));
                self.set(path, format!("{} bytes", plain(bytes)));
            }
        }
    }

    fn computing(&mut self, node: &str, change: i64) {
        let count = self.computing.entry(node.to_owned()).or_default();
        *count = count.saturating_add_signed(change);
        let count = *count;
        let path = format!("{node}/computing");
        if count == 0 { self.remove(&path) } else { self.set(path, format!("{count} jobs")) }
    }

    fn report(&mut self, node: &str, at: &str, report: &Value) {
        let text = |name: &str| plain(&report[name]);
        let list = |name: &str| {
            let items: Vec<String> = report[name].as_array().into_iter().flatten().map(plain).collect();
            items.join(", ")
        };
        let request = format!("{node}/answering/{} {} {}", text("kind"), text("wallet"), text("id"));
        match text("event").as_str() {
            "started" => self.set(format!("{node}/incarnation"), text("incarnation")),
            "ready" => self.set(format!("{node}/ready"), format!("yes since {at}, {} nodes answer", text("reachable"))),
            "not_ready" => self.set(format!("{node}/ready"), format!("no, waits for {}", text("waiting_for"))),
            "link_up" => {
                self.set(
                    format!("{node}/link/{}", text("peer")),
                    format!("up since {at}, incarnation {}", text("incarnation")),
                );
            }
            "link_down" => {
                self.set(format!("{node}/link/{}", text("peer")), format!("down since {at}: {}", text("reason")))
            }
            "link_trouble" => self.set(format!("{node}/trouble"), format!("last at {at}: {}", text("what"))),
            "request_taken" => self.set(request, format!("taken at {at}, delivery {}", text("delivery"))),
            "request_waits" => self.set(request, format!("since {at} waits for {}", text("waiting_for"))),
            "request_answered" => self.remove(request.trim_end()),
            "session_started" => self.set(
                format!("{node}/session/{}", text("session")),
                format!(
                    "{} {} since {at}, attempt {} of {} with {}",
                    text("protocol"),
                    text("wallet"),
                    text("attempt"),
                    text("coordinator"),
                    list("participants")
                ),
            ),
            "session_ended" => {
                let session = text("session");
                self.remove(&format!("{node}/session/{session}"));
                let mut how = if text("reason").is_empty() { "done".to_owned() } else { text("reason") };
                for (name, what) in [("culprits", "misbehaved"), ("silent", "silent")] {
                    if !list(name).is_empty() {
                        how = format!("{how}; {what}: {}", list(name));
                    }
                }
                self.set(
                    format!("{node}/ended/{session}"),
                    format!("{} {} at {at}: {how}", text("protocol"), text("wallet")),
                );
            }
            "declined" => {
                self.set(
                    format!("{node}/declined/{}", text("session")),
                    format!("by {} at {at}: {}", text("by"), text("reason")),
                );
            }
            "wallet_activated" => self.set(
                format!("wallet/{}/{node}", text("wallet")),
                format!("epoch {} of {} since {at}", text("epoch"), list("members")),
            ),
            "ingredient_made" => {
                self.set(format!("{node}/primes"), format!("{} of {}", text("pieces"), text("wanted")))
            }
            "auxiliary_ready" => self.set(format!("{node}/auxiliary/{}", text("set")), list("members")),
            "ignored" => {
                self.set(format!("{node}/ignored"), format!("last at {at} from {}: {}", text("peer"), text("what")))
            }
            "alarm" => self.set(format!("{node}/alarm/{}", text("what")), format!("at {at}")),
            _ => {}
        }
    }

    /// What a node says about itself when it is asked, every other second: what a session or a request waits for.
    fn status(&mut self, node: &str, status: &Value) {
        self.remove_below(&format!("{node}/says"));
        let list = |value: &Value| {
            let items: Vec<String> = value.as_array().into_iter().flatten().map(plain).collect();
            items.join(", ")
        };
        for name in ["waiting_for", "undecided", "alarms"] {
            let text = list(&status[name]);
            if !text.is_empty() {
                self.set(format!("{node}/says/{name}"), text);
            }
        }
        for session in status["sessions"].as_array().into_iter().flatten() {
            let path = format!("{node}/says/session/{}", plain(&session["session"]));
            self.set(path, format!("{} waits for {}", plain(&session["protocol"]), list(&session["waits_for"])));
        }
        for request in status["requests"].as_array().into_iter().flatten() {
            let text = |name: &str| plain(&request[name]);
            let path = format!("{node}/says/request/{} {} {}", text("kind"), text("wallet"), text("id"));
            self.set(path.trim_end().to_owned(), text("state"));
        }
    }

    fn queue(&mut self, line: &Line, at: &str, value: &Value) {
        if value.get("stream").is_none() {
            return;
        }
        let number = value["sequence"].as_u64().unwrap_or_default();
        let path = format!("request/{}/{number:03}", plain(&value["stream"]));
        let node = &line.node;
        let text = match line.kind.as_str() {
            "enqueue" => {
                let body: Value = serde_json::from_str(&plain(&value["body"])).unwrap_or(Value::Null);
                let field = |name: &str| body.get(name).map(plain).unwrap_or_default();
                let name = (field("wallet_id"), field("tx_id"));
                let what = if name.0.is_empty() {
                    "something that is no request".into()
                } else {
                    format!("{} {}", name.0, name.1)
                };
                self.requests.entry(name).or_default().push(path.clone());
                self.set(format!("{path}/what"), what.trim_end().to_owned());
                format!("waits in the queue since {at}")
            }
            "deliver" => {
                let many = format!("{node} at {at}");
                let given = format!("{path}/given to");
                let before = self.get(&given).map(|before| format!("{before}; ")).unwrap_or_default();
                self.set(given, before + &many);
                format!("out at {node} since {at}, delivery {}", plain(&value["delivery"]))
            }
            "lost" => format!("{} lost at {at}", plain(&value["what"])),
            "acknowledgement missing" => format!("waits in the queue since {at}: nobody acknowledged it in time"),
            _ => match plain(&value["how"]).as_str() {
                "Acknowledge" => format!("acknowledged at {at}"),
                "KeepAlive" => return,
                _ => format!("given back at {at}"),
            },
        };
        let what = self.get(&format!("{path}/what")).unwrap_or_default().to_owned();
        self.set(path, format!("{what}: {text}"));
    }

    fn answer(&mut self, node: &str, at: &str, value: &Value) {
        let name = (plain(&value["wallet"]), plain(&value["transaction"]));
        let how = if value["success"] == true { "success".to_owned() } else { plain(&value["error_code"]) };
        let again = if value["fresh"] == true { "" } else { ", again" };
        for path in self.requests.get(&name).cloned().unwrap_or_default() {
            let path = format!("{path}/answer/{}", plain(&value["dedup"]));
            self.set(path, format!("{how} from {node} at {at}{again}"));
        }
    }
}

/// A record's name as far as it can be read: names of records that belong to a wallet begin with the length of its id
/// and the id, then the epoch, then the session, then the curve.
fn record_name(keyspace: &str, key: &str) -> String {
    let bytes = hex::decode(key).unwrap_or_default();
    let of_wallet = ["certificates", "decisions", "pending", "shares"].contains(&keyspace);
    if of_wallet && let Some(name) = wallet_record(&bytes) {
        return name;
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) => text.to_owned(),
        _ => key.to_owned(),
    }
}

fn wallet_record(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (wallet, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let wallet = std::str::from_utf8(wallet).ok()?;
    let Some((epoch, rest)) = rest.split_first_chunk::<4>() else {
        return rest.is_empty().then(|| format!("{wallet} newest epoch"));
    };
    let mut name = format!("{wallet} epoch {}", u32::from_be_bytes(*epoch));
    if let Some((session, rest)) = rest.split_at_checked(32) {
        name = format!("{name} session {}", hex::encode(session.get(..4)?));
        match rest {
            [] => {}
            [0] => name.push_str(" secp256k1"),
            [1] => name.push_str(" ed25519"),
            _ => return None,
        }
    } else if !rest.is_empty() {
        return None;
    }
    Some(name)
}

//! The commands of the viewer, without terminal: each is a line of text and gives a text back.

use std::{collections::BTreeMap, collections::BTreeSet, path::Path};

use super::{
    recording::{Filter, Recording, seconds},
    state::State,
};

/// Lines between states that are kept, so that going back is quick.
const KEPT_EVERY: usize = 4096;
/// Lines that `find` shows at most.
const FOUND_MAX: usize = 50;
/// Kinds of event that are passed over at first: they are most of a log and say least.
const NOISE: [&str; 9] = ["send", "datagram", "lost", "peers", "wake", "status", "load", "loaded", "computed"];

const HELP: &str = "\
moving (an empty line repeats the last command)
  next [N], n          the next event, or the Nth
  back [N], b          the event before
  until FILTER, u      the next event that matches
  until TIME           the last event at or before a time
  continue, c          to the next breakpoint, the violation, or the end
  goto PLACE, g        to a place: a line number, a time (12.5s, 300ms, 42us), start, end, violation, or a mark
breakpoints
  break FILTER         stop there: break node=node1 kind=report event=session_ended, break session=ab12, break wallet-0
  breaks               list them
  delete N | all       remove one, or all
looking
  list [N], l          N events before and after this one
  find FILTER, f       every event that matches, wherever it is
  line                 this event with everything that the log has
  show, s              the whole cluster on a page
  show PATH            everything at a path: show node1, show node1/session, show request, show fault, show wallet
  show all             everything that is known
  mark NAME            remember this place
  marks                list them
  diff PLACE [PLACE]   what changed between a place and this one (or the second one)
  info                 what the log holds
  compare FILE         the first line at which another log is different
  hide KIND…           pass over events of these kinds; without a kind, say which
  unhide KIND… | all   do not pass over them any more
  quit, q
FILTER: name=value (node, kind, event, session, wallet, stream, any field) must begin so, a word must occur; all must hold";

/// What follows from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A text to be shown.
    Tell(String),
    /// The end.
    Quit,
}

/// A log and a place in it.
#[derive(Debug)]
pub struct Viewer {
    recording: Recording,
    /// How many lines have happened; the last of them is the current one.
    place: usize,
    state: State,
    /// The state after every so many lines.
    kept: Vec<State>,
    breakpoints: BTreeMap<usize, Filter>,
    hidden: BTreeSet<String>,
    marks: BTreeMap<String, usize>,
}

impl Viewer {
    /// Stands before the first line.
    #[must_use]
    pub fn new(recording: Recording) -> Self {
        Self {
            recording,
            place: 0,
            state: State::default(),
            kept: vec![State::default()],
            breakpoints: BTreeMap::new(),
            hidden: NOISE.into_iter().map(str::to_owned).collect(),
            marks: BTreeMap::new(),
        }
    }

    /// Where it stands, in a few characters.
    #[must_use]
    pub fn prompt(&self) -> String {
        let at = self.place.checked_sub(1).and_then(|last| self.recording.lines.get(last)).map_or(0, |line| line.at);
        format!("#{} {}", self.place, seconds(at).trim_start())
    }

    /// What the log holds.
    #[must_use]
    pub fn summary(&self) -> String {
        let lines = &self.recording.lines;
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for line in lines {
            *kinds.entry(&line.kind).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let mut text = format!(
            "{} events in {}: {}",
            lines.len(),
            seconds(lines.last().map_or(0, |line| line.at)).trim_start(),
            kinds.join(", ")
        );
        let mut first = State::default();
        lines.iter().take_while(|line| line.kind == "scenario").for_each(|line| first.apply(line));
        for (path, what) in first.at("run") {
            text.push_str(&format!("\n{path}: {what}"));
        }
        match lines.iter().position(|line| line.kind == "violation") {
            Some(at) => text.push_str(&format!("\nviolation at {}", self.describe(at))),
            None => text.push_str("\nno violation in it"),
        }
        if self.recording.cut_off {
            text.push_str("\nthe last line is cut off, as when a run ends in a panic");
        }
        text
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub fn command(&mut self, line: &str) -> Result<Flow, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((name, arguments)) = words.split_first() else { return Ok(Flow::Tell(String::new())) };
        let text = match *name {
            "next" | "n" => self.next(number(arguments, 1)?)?,
            "back" | "b" => self.back(number(arguments, 1)?)?,
            "until" | "u" => self.until(arguments)?,
            "continue" | "c" => self.run_on(),
            "goto" | "g" => {
                let place = self.place(one(arguments)?)?;
                self.go(place);
                self.current()
            }
            "break" => self.set_breakpoint(arguments)?,
            "breaks" => {
                let list: Vec<String> = self.breakpoints.iter().map(|(n, filter)| format!("{n}: {filter}")).collect();
                if list.is_empty() { "no breakpoints".into() } else { list.join("\n") }
            }
            "delete" => self.delete_breakpoint(one(arguments)?)?,
            "list" | "l" => self.list(number(arguments, 8)?),
            "find" | "f" => self.find(arguments)?,
            "line" => self.whole_line()?,
            "show" | "s" => self.show(arguments),
            "mark" => {
                let name = one(arguments)?;
                self.marks.insert(name.to_owned(), self.place);
                format!("{name} is #{}", self.place)
            }
            "marks" => {
                let list: Vec<String> = self.marks.iter().map(|(name, place)| format!("{name}: #{place}")).collect();
                if list.is_empty() { "no marks".into() } else { list.join("\n") }
            }
            "diff" | "d" => self.diff(arguments)?,
            "info" => self.summary(),
            "compare" => self.compare(Path::new(one(arguments)?))?,
            "hide" => {
                self.hidden.extend(arguments.iter().map(|kind| (*kind).to_owned()));
                let hidden: Vec<&str> = self.hidden.iter().map(String::as_str).collect();
                format!("passed over: {}", hidden.join(", "))
            }
            "unhide" => self.unhide(arguments)?,
            "help" | "h" | "?" => HELP.into(),
            "quit" | "q" | "exit" => return Ok(Flow::Quit),
            other => return Err(format!("no command {other:?}; `help` lists them")),
        };
        Ok(Flow::Tell(text))
    }

    /// Moves to a place and makes its state.
    fn go(&mut self, place: usize) {
        let place = place.min(self.recording.lines.len());
        if place < self.place {
            let from = place / KEPT_EVERY;
            self.state = self.kept.get(from).cloned().unwrap_or_default();
            self.place = from * KEPT_EVERY;
        }
        while self.place < place {
            if let Some(line) = self.recording.lines.get(self.place) {
                self.state.apply(line);
            }
            self.place += 1;
            if self.place == self.kept.len() * KEPT_EVERY {
                self.kept.push(self.state.clone());
            }
        }
    }

    fn state_at(&mut self, place: usize) -> State {
        let here = self.place;
        self.go(place);
        let state = self.state.clone();
        self.go(here);
        state
    }

    fn describe(&self, at: usize) -> String {
        self.recording.lines.get(at).map_or(String::new(), |line| format!("#{:<6} {}", at + 1, line.describe()))
    }

    fn current(&self) -> String {
        match self.place.checked_sub(1) {
            Some(at) => self.describe(at),
            None => "before the first event".into(),
        }
    }

    fn visible(&self, at: usize) -> bool {
        self.recording.lines.get(at).is_some_and(|line| !self.hidden.contains(&line.kind))
    }

    fn next(&mut self, count: usize) -> Result<String, String> {
        let mut told = Vec::new();
        for _ in 0..count {
            let Some(at) = (self.place..self.recording.lines.len()).find(|at| self.visible(*at)) else {
                if told.is_empty() {
                    return Err("there is no further event".into());
                }
                break;
            };
            self.go(at + 1);
            told.push(self.current());
        }
        Ok(told.join("\n"))
    }

    fn back(&mut self, count: usize) -> Result<String, String> {
        for _ in 0..count {
            let before = self.place.saturating_sub(1);
            let Some(at) = (0..before).rev().find(|at| self.visible(*at)) else {
                return Err("there is no earlier event".into());
            };
            self.go(at + 1);
        }
        Ok(self.current())
    }

    fn until(&mut self, words: &[&str]) -> Result<String, String> {
        if let [word] = words
            && let Some(at) = time(word)
        {
            self.go(self.recording.until(at));
            return Ok(self.current());
        }
        let filter = Filter::parse(words)?;
        let lines = &self.recording.lines;
        let Some(at) = (self.place..lines.len()).find(|at| lines.get(*at).is_some_and(|line| filter.matches(line)))
        else {
            return Err(format!("no further event matches {filter}"));
        };
        self.go(at + 1);
        Ok(self.current())
    }

    fn run_on(&mut self) -> String {
        let lines = &self.recording.lines;
        let stops = |at: &usize| {
            lines.get(*at).is_some_and(|line| {
                line.kind == "violation" || self.breakpoints.values().any(|filter| filter.matches(line))
            })
        };
        match (self.place..lines.len()).find(stops) {
            Some(at) => {
                self.go(at + 1);
                self.current()
            }
            None => {
                self.go(lines.len());
                format!("the end: {}", self.current())
            }
        }
    }

    /// A place from its name.
    fn place(&self, word: &str) -> Result<usize, String> {
        match word {
            "start" => return Ok(0),
            "end" => return Ok(self.recording.lines.len()),
            "here" => return Ok(self.place),
            "violation" => {
                let at = self.recording.lines.iter().position(|line| line.kind == "violation");
                return at.map(|at| at + 1).ok_or_else(|| "the log has no violation".into());
            }
            _ => {}
        }
        if let Some(place) = self.marks.get(word) {
            return Ok(*place);
        }
        if let Some(at) = time(word) {
            return Ok(self.recording.until(at));
        }
        match word.trim_start_matches('#').parse() {
            Ok(place) if place <= self.recording.lines.len() => Ok(place),
            Ok(place) => Err(format!("there is no line {place}: the log has {}", self.recording.lines.len())),
            Err(_) => {
                Err(format!("{word:?} is no place: a line number, a time (12.5s), start, end, violation, or a mark"))
            }
        }
    }

    fn set_breakpoint(&mut self, words: &[&str]) -> Result<String, String> {
        let filter = Filter::parse(words)?;
        let number = self.breakpoints.last_key_value().map_or(1, |(last, _)| last + 1);
        let hits = self.recording.lines.iter().filter(|line| filter.matches(line)).count();
        let told = format!("breakpoint {number}: {filter} ({hits} events in the log)");
        self.breakpoints.insert(number, filter);
        Ok(told)
    }

    fn delete_breakpoint(&mut self, word: &str) -> Result<String, String> {
        if word == "all" {
            self.breakpoints.clear();
            return Ok("no breakpoints".into());
        }
        let number: usize = word.parse().map_err(|_| format!("{word:?} is no number of a breakpoint"))?;
        match self.breakpoints.remove(&number) {
            Some(filter) => Ok(format!("removed {number}: {filter}")),
            None => Err(format!("there is no breakpoint {number}")),
        }
    }

    fn list(&self, count: usize) -> String {
        let here = self.place.saturating_sub(1);
        let mut before: Vec<usize> = (0..here).rev().filter(|at| self.visible(*at)).take(count).collect();
        before.reverse();
        let after = (here + 1..self.recording.lines.len()).filter(|at| self.visible(*at)).take(count);
        let lines: Vec<String> = before
            .into_iter()
            .chain(std::iter::once(here))
            .chain(after)
            .map(|at| format!("{} {}", if at == here { ">" } else { " " }, self.describe(at)))
            .collect();
        lines.join("\n")
    }

    fn find(&self, words: &[&str]) -> Result<String, String> {
        let filter = Filter::parse(words)?;
        let found: Vec<usize> = self
            .recording
            .lines
            .iter()
            .enumerate()
            .filter(|(_, line)| filter.matches(line))
            .map(|(at, _)| at)
            .collect();
        if found.is_empty() {
            return Err(format!("nothing matches {filter}"));
        }
        // What is nearest to the current place is shown.
        let from = found.partition_point(|at| *at < self.place).saturating_sub(FOUND_MAX / 2);
        let from = from.min(found.len().saturating_sub(FOUND_MAX));
        let mut lines: Vec<String> = found.iter().skip(from).take(FOUND_MAX).map(|at| self.describe(*at)).collect();
        if found.len() > FOUND_MAX {
            lines.push(format!(
                "{} of {}, those around #{}; say more to see fewer",
                lines.len(),
                found.len(),
                self.place
            ));
        }
        Ok(lines.join("\n"))
    }

    fn whole_line(&self) -> Result<String, String> {
        let line = self.place.checked_sub(1).and_then(|at| self.recording.lines.get(at));
        let line = line.ok_or("before the first event")?;
        Ok(serde_json::to_string_pretty(&line.value()).unwrap_or_default())
    }

    fn show(&self, words: &[&str]) -> String {
        let path = words.join(" ");
        let facts: Vec<String> = match path.as_str() {
            "" => self.state.overview(),
            "all" => self.state.iter().map(|(path, text)| format!("{path}: {text}")).collect(),
            path => self.state.at(path).into_iter().map(|(path, text)| format!("{path}: {text}")).collect(),
        };
        if facts.is_empty() { format!("nothing is known of {path:?} at #{}", self.place) } else { facts.join("\n") }
    }

    fn diff(&mut self, words: &[&str]) -> Result<String, String> {
        let (from, to) = match words {
            [from] => (self.place(from)?, self.place),
            [from, to] => (self.place(from)?, self.place(to)?),
            _ => return Err("say from where: diff PLACE [PLACE]".into()),
        };
        let (before, after) = (self.state_at(from), self.state_at(to));
        let differences: Vec<String> = before.differences(&after).iter().map(ToString::to_string).collect();
        let many = differences.len();
        let mut text = format!("from #{from} to #{to}: {many} differences");
        for difference in differences {
            text.push('\n');
            text.push_str(&difference);
        }
        Ok(text)
    }

    fn compare(&self, path: &Path) -> Result<String, String> {
        let other = Recording::read(path)?;
        let (ours, theirs) = (&self.recording.lines, &other.lines);
        let differs = ours.iter().zip(theirs).position(|(a, b)| a.raw != b.raw);
        Ok(match differs {
            Some(at) => {
                let there = theirs.get(at).map(super::recording::Line::describe).unwrap_or_default();
                format!(
                    "the first difference is line {}:\n{}\nand there\n#{:<6} {there}",
                    at + 1,
                    self.describe(at),
                    at + 1
                )
            }
            None if ours.len() == theirs.len() => "the logs are the same".into(),
            None => format!("the same up to the end of the shorter: {} lines here, {} there", ours.len(), theirs.len()),
        })
    }

    fn unhide(&mut self, words: &[&str]) -> Result<String, String> {
        if words == ["all"] {
            self.hidden.clear();
            return Ok("nothing is passed over".into());
        }
        for kind in words {
            if !self.hidden.remove(*kind) {
                return Err(format!("{kind} is not passed over"));
            }
        }
        let hidden: Vec<&str> = self.hidden.iter().map(String::as_str).collect();
        Ok(format!("passed over: {}", hidden.join(", ")))
    }
}

fn number(arguments: &[&str], otherwise: usize) -> Result<usize, String> {
    match arguments {
        [] => Ok(otherwise),
        [word] => word.parse().map_err(|_| format!("{word:?} is no number")),
        _ => Err("one number is enough".into()),
    }
}

fn one<'a>(arguments: &[&'a str]) -> Result<&'a str, String> {
    match arguments {
        [word] => Ok(word),
        [] => Err("something is missing; `help` says what".into()),
        _ => Err("one word is enough".into()),
    }
}

/// A time as people write it, in microseconds: `12.5s`, `300ms`, `42us`.
fn time(word: &str) -> Option<u64> {
    let (digits, unit) = if let Some(digits) = word.strip_suffix("us") {
        (digits, 1)
    } else if let Some(digits) = word.strip_suffix("ms") {
        (digits, 1_000)
    } else {
        (word.strip_suffix('s')?, 1_000_000)
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if part.len() > 6 || !part.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let millionths: u64 = format!("{part:0<6}").parse().ok()?;
    whole.checked_mul(unit)?.checked_add(millionths * unit / 1_000_000)
}

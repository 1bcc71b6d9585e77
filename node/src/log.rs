//! Reports and notices as log lines: coloured text on stderr in development, one JSON object per line on stdout in
//! production (fields `level`, `time`, `message`, then the report's own).
//!
//! Nothing here makes facts up: a line is a report of the core, a notice of an adapter, or a remark of the start-up.
//! None of them can hold a secret by construction. Text from outside cannot break a line in two.

use std::{
    fmt::{self, Write as _},
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mpcium_core::report::{Level, Report};
use mpcium_io::notice::{Notice, Notices};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{config::Environment, keys};

/// An adapter's notice that follows its equal within this time is not written again.
const SAME_WITHIN: Duration = Duration::from_secs(1);

/// Sends this process's log to where the environment wants it. Later calls change nothing.
pub fn start(environment: Environment, debug: bool) {
    let level = if debug { "mpcium=debug,async_nats=info,warn" } else { "mpcium=info,async_nats=off,warn" };
    let registry = tracing_subscriber::registry().with(EnvFilter::new(level));
    // The first caller in a process has decided; a second one (in tests) logs to the same place.
    let _ = match environment {
        Environment::Production => registry
            .with(tracing_subscriber::fmt::layer().event_format(Lines::Json).with_writer(std::io::stdout))
            .try_init(),
        Environment::Development => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .event_format(Lines::Text)
                    .with_ansi(colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()))
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
}

/// Whether to colour: on a terminal, unless `NO_COLOR` is set to anything (<https://no-color.org>).
fn colours(terminal: bool, no_color: Option<&std::ffi::OsStr>) -> bool {
    terminal && no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// Writes one report.
pub fn report(report: &Report) {
    // A report is a flat structure of text and numbers: it always has a JSON form.
    let fields = serde_json::to_string(report).unwrap_or_default();
    line(report.level(), &fields, &report.to_string());
}

/// A sink for one adapter's notices.
#[must_use]
pub fn notices(part: &'static str) -> Notices {
    let last = Mutex::new(None::<(String, Instant)>);
    Notices::new(part, move |notice: Notice| {
        let now = Instant::now();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // Several tasks may wait for the same server and say the same; once is enough.
        if last.as_ref().is_some_and(|(text, at)| *text == notice.text && now.duration_since(*at) < SAME_WITHIN) {
            return;
        }
        *last = Some((notice.text.clone(), now));
        drop(last);
        let mut fields = Map::new();
        fields.insert("part".to_owned(), Value::from(notice.part));
        line(notice.level, &Value::Object(fields).to_string(), &format!("{}: {}", notice.part, notice.text));
    })
}

/// Part of the node's life that only the shell knows.
pub fn info(text: &str) {
    line(Level::Info, "", text);
}

/// Something that the operator should look at.
pub fn warn(text: &str) {
    line(Level::Warn, "", text);
}

/// The reason for which the process ends.
pub fn fatal(text: &str) {
    line(Level::Alarm, "", text);
}

fn line(level: Level, fields: &str, text: &str) {
    match level {
        Level::Debug => tracing::debug!(target: "mpcium", fields, "{text}"),
        Level::Info => tracing::info!(target: "mpcium", fields, "{text}"),
        Level::Warn => tracing::warn!(target: "mpcium", fields, "{text}"),
        Level::Alarm => tracing::error!(target: "mpcium", fields, "{text}"),
    }
}

/// The two shapes of a line.
#[derive(Clone, Copy)]
enum Lines {
    Json,
    Text,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &tracing::Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = *event.metadata().level();
        let text = match self {
            Self::Json => as_json(level, SystemTime::now(), &parts),
            Self::Text => as_text(level, SystemTime::now(), &parts, out.has_ansi_escapes()),
        };
        writeln!(out, "{text}")
    }
}

/// What one event consists of.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Map<String, Value>,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "fields" {
            if let Ok(Value::Object(fields)) = serde_json::from_str(value) {
                self.fields.extend(fields);
            }
        } else {
            self.fields.insert(field.name().to_owned(), Value::from(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.insert(field.name().to_owned(), Value::from(format!("{value:?}")));
        }
    }
}

fn as_json(level: tracing::Level, at: SystemTime, parts: &Parts) -> String {
    let mut object = Map::new();
    object.insert("level".to_owned(), Value::from(level.as_str().to_lowercase()));
    object.insert("time".to_owned(), Value::from(keys::timestamp_millis(at)));
    object.insert("message".to_owned(), Value::from(parts.message.as_str()));
    for (name, value) in &parts.fields {
        object.entry(name.as_str()).or_insert_with(|| value.clone());
    }
    Value::Object(object).to_string()
}

fn as_text(level: tracing::Level, at: SystemTime, parts: &Parts, colours: bool) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs() % 86_400, since.subsec_millis());
    let (name, colour) = match level {
        tracing::Level::ERROR => ("ERR", "31"),
        tracing::Level::WARN => ("WRN", "33"),
        tracing::Level::INFO => ("INF", "32"),
        _ => ("DBG", "36"),
    };
    let clock = format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let message = one_line(&parts.message);
    if colours {
        format!("\x1b[90m{clock}\x1b[0m \x1b[{colour}m{name}\x1b[0m {message}")
    } else {
        format!("{clock} {name} {message}")
    }
}

/// Control characters, which could come from a client's ids, written out.
fn one_line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            // Writing to a string does not fail.
            let _ = write!(clean, "{}", character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(fact: &Report) -> Parts {
        let Ok(Value::Object(fields)) = serde_json::to_value(fact) else { panic!("a report is an object") };
        Parts { message: fact.to_string(), fields }
    }

    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(12 * 3_600_000 + 7)
    }

    #[test]
    fn a_json_line_holds_every_field_of_the_report() {
        let fact = Report::LinkDown { peer: "node1".to_owned(), reason: "silent".to_owned() };
        let line = as_json(tracing::Level::WARN, noon(), &parts(&fact));
        let object: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(object["level"], "warn");
        assert_eq!(object["time"], "1970-01-01T12:00:00.007Z");
        assert_eq!(object["event"], "link_down");
        assert_eq!(object["peer"], "node1");
        assert_eq!(object["reason"], "silent");
        assert_eq!(object["message"], fact.to_string());
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_text_line_begins_with_time_and_level() {
        let line = as_text(tracing::Level::INFO, noon(), &parts(&Report::Ready { reachable: 3 }), false);
        assert!(line.starts_with("12:00:00.007 INF [READY] Node is ready"), "{line}");
    }

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        assert!(colours(true, None) && colours(true, Some("".as_ref())));
        assert!(!colours(true, Some("1".as_ref())) && !colours(false, None));
    }

    #[test]
    fn text_from_outside_cannot_forge_a_line() {
        let fact = Report::Ignored { peer: "x\n12:00 INF [READY]\x1b[2J".to_owned(), what: "y".to_owned() };
        for line in [
            as_text(tracing::Level::WARN, noon(), &parts(&fact), false),
            as_json(tracing::Level::WARN, noon(), &parts(&fact)),
        ] {
            assert!(!line.contains('\n') && !line.contains('\x1b'), "{line:?}");
        }
    }
}

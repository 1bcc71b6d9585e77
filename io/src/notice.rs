//! What adapters tell people: what a part of the node waits for, and that it goes on.
//!
//! Notices are the adapters' counterpart of the core's reports. They never hold a secret, and a trouble that repeats
//! is not repeated in the log at every attempt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mpcium_core::report::Level;

/// One fact about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The adapter: `nats`, `consul`.
    pub part: &'static str,
    /// How loud it is.
    pub level: Level,
    /// For people.
    pub text: String,
}

/// Takes notices. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    part: &'static str,
    sink: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl Notices {
    /// Sends the notices of `part` to `sink`, which must not block.
    pub fn new(part: &'static str, sink: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self { part, sink: Arc::new(sink) }
    }

    /// Says nothing to anybody.
    #[must_use]
    pub fn silent() -> Self {
        Self::new("", |_| {})
    }

    /// Part of the node's life.
    pub fn info(&self, text: impl Into<String>) {
        (self.sink)(Notice { part: self.part, level: Level::Info, text: text.into() });
    }

    /// Something went wrong and is being dealt with.
    pub fn warn(&self, text: impl Into<String>) {
        (self.sink)(Notice { part: self.part, level: Level::Warn, text: text.into() });
    }

    /// Somebody must look.
    pub fn alarm(&self, text: impl Into<String>) {
        (self.sink)(Notice { part: self.part, level: Level::Alarm, text: text.into() });
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notices({})", self.part)
    }
}

/// First wait of a [`Retry`]; doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait of a [`Retry`].
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The same trouble is told again after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Something that is tried without end: how long to wait, and what to tell.
#[derive(Debug)]
pub struct Retry {
    notices: Notices,
    what: String,
    wait: Duration,
    told: Option<(String, Instant)>,
}

impl Retry {
    /// For something that people know as `what` (`the NATS server at …`).
    #[must_use]
    pub fn new(notices: &Notices, what: impl Into<String>) -> Self {
        Self { notices: notices.clone(), what: what.into(), wait: WAIT_MIN, told: None }
    }

    /// An attempt failed: says so, unless it just did, and returns how long to wait before the next.
    pub fn failed(&mut self, reason: &str) -> Duration {
        let now = Instant::now();
        let new = match &self.told {
            None => true,
            Some((text, at)) => text != reason || now.duration_since(*at) >= REPEAT_AFTER,
        };
        if new {
            self.notices.warn(format!("waits for {}: {reason}", self.what));
            self.told = Some((reason.to_owned(), now));
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait
    }

    /// An attempt succeeded: says so if a failure was told before.
    pub fn succeeded(&mut self) {
        if self.told.take().is_some() {
            self.notices.info(format!("{}: works again", self.what));
        }
        self.wait = WAIT_MIN;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn repeated_trouble_is_told_once_and_its_end_too() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notices = Notices::new("nats", {
            let heard = heard.clone();
            move |notice| heard.lock().unwrap().push(notice.text)
        });
        let mut retry = Retry::new(&notices, "the server");
        assert_eq!(retry.failed("refused"), WAIT_MIN);
        assert_eq!(retry.failed("refused"), WAIT_MIN * 2);
        retry.failed("no route");
        retry.succeeded();
        retry.succeeded();
        assert_eq!(retry.failed("refused"), WAIT_MIN);
        let expected = [
            "waits for the server: refused",
            "waits for the server: no route",
            "the server: works again",
            "waits for the server: refused",
        ];
        assert_eq!(*heard.lock().unwrap(), expected);
    }

    #[test]
    fn the_wait_has_an_upper_bound() {
        let mut retry = Retry::new(&Notices::silent(), "anything");
        let longest = (0..20).map(|_| retry.failed("no")).max();
        assert_eq!(longest, Some(WAIT_MAX));
    }
}

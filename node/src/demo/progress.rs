//! How the demonstration shows what takes long: a bar on a terminal, a line per step elsewhere.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Making auxiliary data: first the primes, then the proofs about them.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    wanted: usize,
    shown: Cell<Option<usize>>,
    proving: Cell<bool>,
}

impl Progress {
    /// Nothing is shown yet.
    #[must_use]
    pub fn new(wanted: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::try_from(wanted).unwrap_or(u64::MAX));
            set_style(&bar, "   safe primes [{bar:40}] {pos} of {len}, {elapsed}");
            bar
        });
        Self { bar, wanted, shown: Cell::new(None), proving: Cell::new(false) }
    }

    /// So many primes are made, at all nodes together.
    pub fn primes(&self, made: usize) {
        if self.proving.get() || self.shown.replace(Some(made)) == Some(made) {
            return;
        }
        match &self.bar {
            Some(bar) => {
                bar.enable_steady_tick(Duration::from_millis(500));
                bar.set_position(u64::try_from(made).unwrap_or(u64::MAX));
            }
            None => println!("   safe primes: {made} of {}", self.wanted),
        }
    }

    /// All primes are there; the nodes prove to each other that their numbers are sound.
    pub fn proving(&self) {
        if self.proving.replace(true) {
            return;
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(u64::try_from(self.wanted).unwrap_or(u64::MAX));
                set_style(bar, "   {spinner} the nodes prove to each other that their numbers are sound, {elapsed}");
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            None => println!("   The nodes prove to each other that their numbers are sound."),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    // The templates are constants; one that were none would leave the plain bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// The time since then, as people say it.
#[must_use]
pub fn lasted(since: Instant) -> String {
    said(since.elapsed())
}

fn said(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_the_unit_that_fits() {
        assert_eq!(said(Duration::from_millis(43)), "43 ms");
        assert_eq!(said(Duration::from_millis(1660)), "1.7 s");
        assert_eq!(said(Duration::from_secs(125)), "2 min 5 s");
    }
}

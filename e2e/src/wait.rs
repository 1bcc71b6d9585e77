//! Waiting for conditions. A deadline says when a test gives up; nothing is ever asserted about how long it took.

use std::time::{Duration, Instant};

/// How long a test waits for what should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` gives a value, and returns it.
///
/// # Errors
/// If it does not within `patience`: what was awaited, and what was seen last.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => {
                return Err(format!("waited {} s for {what}; last seen: {seen}", patience.as_secs()));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// As [`until`], for what needs no asynchronous look.
///
/// # Errors
/// As [`until`].
pub async fn until_sync<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    until(what, patience, async move || look()).await
}

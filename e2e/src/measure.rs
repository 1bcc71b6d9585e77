//! What the system counts for a process, and what the bus counts for everybody.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often the system counts a second of CPU in `/proc/PID/stat`: 100 on every Linux.
const TICKS_PER_SECOND: u32 = 100;

/// User and system time of this process so far.
#[must_use]
pub fn own_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// User and system time of a process so far, to a hundredth of a second.
///
/// # Errors
/// If there is no such process.
pub fn cpu_of(process: u32) -> Result<Duration, String> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The fields after the program's name, which may hold spaces: state is number 3, utime 14 and stime 15.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u32>().ok());
    let (user, system) = ticks(14).zip(ticks(15)).ok_or_else(|| format!("{path}: {text:?}"))?;
    Ok(Duration::from_secs(1) * (user + system) / TICKS_PER_SECOND)
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// If there is no such process.
pub fn memory_of(process: u32) -> Result<u64, String> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1024).ok_or_else(|| format!("{path}: no VmRSS"))
}

/// What has been published on a bus so far, by everybody: the clients' requests, JetStream's own messages and what the
/// nodes say to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// Their payloads and headers.
    pub bytes: u64,
}

/// Asks the monitoring port of a nats-server on this machine.
///
/// # Errors
/// If it does not answer as expected.
pub fn traffic(port: u16) -> Result<Traffic, String> {
    let (_, body) = crate::http::get(port, "/varz")?;
    let page: serde_json::Value =
        serde_json::from_str(&body).map_err(|error| format!("the bus's statistics: {error}"))?;
    let number = |name: &str| page[name].as_u64().ok_or_else(|| format!("the bus's statistics have no {name}"));
    Ok(Traffic { messages: number("in_msgs")?, bytes: number("in_bytes")? })
}

/// The value below which `percent` of a hundred lie. Sorts.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

/// A duration in milliseconds, for people.
#[must_use]
pub fn shown(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        ..100.0 => format!("{millis:.1} ms"),
        ..10_000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to_work() {
        let (before, began) = (own_cpu(), std::time::Instant::now());
        while own_cpu() < before + Duration::from_millis(50) {
            assert!(began.elapsed() < Duration::from_secs(60), "the clock of this process stands still");
        }
        assert!(cpu_of(std::process::id()).expect("itself") >= Duration::from_millis(40));
        assert!(memory_of(std::process::id()).expect("itself") > 0);
    }

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut values: Vec<Duration> = [5, 1, 4, 2, 3].map(Duration::from_millis).to_vec();
        assert_eq!(percentile(&mut values, 50), Duration::from_millis(3));
        assert_eq!(percentile(&mut values, 99), Duration::from_millis(4));
        assert_eq!(percentile(&mut values, 100), Duration::from_millis(5));
    }
}

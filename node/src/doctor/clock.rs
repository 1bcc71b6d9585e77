//! Times as servers tell them, compared with this machine's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970 of a time in UTC like `2026-11-25T01:02:44.1234Z` (RFC 3339).
pub(super) fn rfc3339(text: &str) -> Option<f64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?.parse().ok()?, date.next()?.parse().ok()?, date.next()?.parse().ok()?);
    Some(days(year, month, day)? as f64 * 86_400.0 + time_of_day(time)?)
}

/// Seconds since 1970 of a time like `Wed, 25 Nov 2026 01:02:44 GMT` (HTTP's `Date`).
pub(super) fn http_date(text: &str) -> Option<f64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.strip_suffix(" GMT")?.split(' ').skip(1);
    let day = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year = words.next()?.parse().ok()?;
    Some(days(year, month, day)? as f64 * 86_400.0 + time_of_day(words.next()?)?)
}

/// This machine's clock, in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

fn time_of_day(text: &str) -> Option<f64> {
    let mut parts = text.split(':');
    let (hours, minutes): (f64, f64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    let all = hours * 3600.0 + minutes * 60.0 + seconds;
    (parts.next().is_none() && (0.0..86_401.0).contains(&all)).then_some(all)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: whole years since a first of March are counted, so that
/// the leap day is the last of a year.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(rfc3339("2024-02-29T12:34:56.5Z"), Some(1_709_210_096.5));
        assert_eq!(rfc3339("2100-03-01T00:00:00Z"), Some(4_107_542_400.0));
        assert_eq!(http_date("Thu, 29 Feb 2024 12:34:56 GMT"), Some(1_709_210_096.0));
        for bad in ["", "2024-02-29", "2024-13-01T00:00:00Z", "2024-02-29T25:00:00Z", "2024-02-29T1:2Z"] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
        for bad in ["", "Thu, 29 Feb 2024 12:34:56", "Thu, 29 Foo 2024 12:34:56 GMT"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}

//! Key material for people and machines: random bytes, initiator keys in their file forms, names and dates.

use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::files::Algorithm;

/// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point (RFC 5480).
const P256_SPKI: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// ECPrivateKey (RFC 5915) up to the secret scalar.
const P256_SEC1_HEAD: [u8; 7] = [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
/// ECPrivateKey between the secret scalar and the public point.
const P256_SEC1_MIDDLE: [u8; 17] =
    [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00];

/// Fresh bytes from the machine's generator.
///
/// # Errors
/// If the machine has none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("the machine gives no random bytes: {error}"))?;
    Ok(bytes)
}

/// A fresh initiator or authorizer key: the text of its key file and the text of its public key.
///
/// # Errors
/// If the machine gives no random bytes.
pub fn new_client_key(algorithm: Algorithm) -> Result<(Zeroizing<String>, String), String> {
    match algorithm {
        Algorithm::Ed25519 => {
            let seed = Zeroizing::new(random_bytes::<32>()?);
            let public = SigningKey::from_bytes(&seed).verifying_key();
            Ok((Zeroizing::new(hex::encode(seed.as_slice())), hex::encode(public.as_bytes())))
        }
        Algorithm::P256 => loop {
            let scalar = Zeroizing::new(random_bytes::<32>()?);
            // All but one in 2^32 candidates are below the group's order.
            if let Some(texts) = p256_texts(&scalar) {
                return Ok(texts);
            }
        },
    }
}

fn p256_texts(scalar: &[u8; 32]) -> Option<(Zeroizing<String>, String)> {
    let key = p256::ecdsa::SigningKey::from_slice(scalar).ok()?;
    let point = key.verifying_key().to_sec1_point(false);
    let mut private = Zeroizing::new(Vec::with_capacity(121));
    private.extend_from_slice(&P256_SEC1_HEAD);
    private.extend_from_slice(scalar);
    private.extend_from_slice(&P256_SEC1_MIDDLE);
    private.extend_from_slice(point.as_bytes());
    let mut public = P256_SPKI[..26].to_vec();
    public.extend_from_slice(point.as_bytes());
    Some((Zeroizing::new(hex::encode(private.as_slice())), hex::encode(public)))
}

/// RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn timestamp_millis(at: SystemTime) -> String {
    let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    format!("{}.{millis:03}Z", timestamp(at).trim_end_matches('Z'))
}

/// RFC 3339 in UTC, to the second.
#[must_use]
pub fn timestamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970-01-01: years that begin in March make the leap day the last day.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The user who runs this program.
#[must_use]
pub fn user_name() -> String {
    let id = rustix::process::getuid().as_raw();
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .or_else(|| user_of(&std::fs::read_to_string("/etc/passwd").ok()?, id))
        .unwrap_or_else(|| format!("uid {id}"))
}

/// The user with this id in the text of `/etc/passwd`.
fn user_of(passwd: &str, id: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// The name of this machine.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn p256_key_files_are_as_the_vectors_say() {
        let scalar: Vec<u8> = (1..=32).collect();
        let (private, public) = p256_texts(&scalar.try_into().expect("32 bytes")).expect("a scalar");
        assert_eq!(
            public,
            "3059301306072a8648ce3d020106082a8648ce3d030107034200\
             04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
        );
        assert_eq!(
            private.as_str(),
            "307702010104200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20a00a06082a8648ce3d030107a144034200\
             04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
        );
    }

    #[test]
    fn timestamps_know_leap_years() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn fresh_keys_differ() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let one = new_client_key(algorithm).expect("key");
            let two = new_client_key(algorithm).expect("key");
            assert_ne!(one, two);
        }
    }
}

//! The few HTTP calls that are needed of Consul's API (version 1), with their errors.

use std::{path::Path, time::Duration};

use reqwest::{Certificate, ClientBuilder, Identity, Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{ANSWER_BYTES_MAX, CALL_TIMEOUT, Consul, ConsulError, ConsulOptions, ConsulTls};
use crate::notice::{Notices, Retry};

/// Bytes of a list of names that are read: those of a million wallets.
const NAMES_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of a refusal's text that are shown.
const SHOWN_MAX: usize = 200;

/// An answer with the position of the change it reflects.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    /// `X-Consul-Index`; zero if there is none.
    pub index: u64,
    /// Its clock: the `Date` header.
    pub date: Option<String>,
    pub body: Vec<u8>,
}

/// One entry of the key-value store, as Consul writes it.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "Key")]
    pub key: String,
    /// Base64; `None` for an empty value.
    #[serde(rename = "Value")]
    pub value: Option<String>,
}

impl Consul {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`ConsulError::Options`] when the address is no URL, [`ConsulError::File`] when a certificate cannot be used.
    pub fn new(options: ConsulOptions, notices: Notices) -> Result<Self, ConsulError> {
        // Fails when the process has chosen a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = if options.address.contains("://") {
            options.address.trim_end_matches('/').to_owned()
        } else {
            format!("http://{}", options.address.trim_end_matches('/'))
        };
        let url = reqwest::Url::parse(&base)
            .map_err(|error| ConsulError::Options(format!("address {}: {error}", without_password(&base))))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            let shown = without_password(&base);
            return Err(ConsulError::Options(format!("address {shown}: expected host:port, http://… or https://…")));
        }
        let http = with_certificates(reqwest::Client::builder().connect_timeout(CALL_TIMEOUT), &options.tls)?
            .build()
            .map_err(|error| ConsulError::Options(error.to_string()))?;
        Ok(Self { http, base, options, notices })
    }

    /// The address of the cluster's leader, if it has one now.
    ///
    /// # Errors
    /// When Consul does not answer, or refuses.
    pub async fn leader(&self) -> Result<Option<String>, ConsulError> {
        let answer = self.call(Method::GET, "status/leader", None, CALL_TIMEOUT).await?;
        let leader: String = json(&answer.expect_success("the leader")?)?;
        Ok(Some(leader).filter(|leader| !leader.is_empty()))
    }

    /// Whether the token counts for nothing although Consul asks for one: then lists are empty instead of refused.
    ///
    /// # Errors
    /// When Consul does not answer.
    pub async fn is_stranger(&self) -> Result<bool, ConsulError> {
        // Without access control lists this is refused too, with another status.
        let answer = self.call(Method::GET, "acl/token/self", None, CALL_TIMEOUT).await?;
        Ok(answer.status == StatusCode::FORBIDDEN)
    }

    /// Consul's clock, to the second, in the form of HTTP's `Date` header.
    ///
    /// # Errors
    /// When Consul does not answer.
    pub async fn date(&self) -> Result<Option<String>, ConsulError> {
        self.call(Method::GET, "status/leader", None, CALL_TIMEOUT).await.map(|answer| answer.date)
    }

    /// Waits until Consul answers and has a leader.
    pub async fn wait_for_leader(&self) {
        let mut retry = self.retry("Consul");
        loop {
            let reason = match self.leader().await {
                Ok(Some(_)) => {
                    retry.succeeded();
                    return;
                }
                Ok(None) => "it has no leader".to_owned(),
                Err(error) => error.to_string(),
            };
            tokio::time::sleep(retry.failed(&reason)).await;
        }
    }

    pub(super) fn retry(&self, what: &str) -> Retry {
        Retry::new(&self.notices, format!("{what} at {}", without_password(&self.options.address)))
    }

    /// One value; `None`: there is no such key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ConsulError> {
        let path = format!("kv/{}?raw", escape(key));
        let answer = self.call(Method::GET, &path, None, CALL_TIMEOUT).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.expect_success(key).map(Some)
    }

    /// The names of all keys below a prefix, without it. With an index, waits up to `wait` for something newer.
    pub(super) async fn names(
        &self,
        prefix: &str,
        newer_than: Option<(u64, Duration)>,
    ) -> Result<(u64, Vec<String>), ConsulError> {
        let (path, timeout) = waiting(format!("kv/{}?keys", escape(prefix)), newer_than);
        let answer = self.call_up_to(Method::GET, &path, None, timeout, NAMES_BYTES_MAX).await?;
        let index = answer.index;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok((index, Vec::new()));
        }
        let keys: Vec<String> = json(&answer.expect_success(prefix)?)?;
        Ok((index, keys.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()))
    }

    /// All entries below a prefix. With an index, waits up to `wait` for something newer.
    pub(super) async fn list(
        &self,
        prefix: &str,
        newer_than: Option<(u64, Duration)>,
    ) -> Result<(u64, Vec<(String, Vec<u8>)>), ConsulError> {
        // Consistent: a leader that has just started may not have read its own log yet, and would say "nothing".
        let (path, timeout) = waiting(format!("kv/{}?recurse&consistent", escape(prefix)), newer_than);
        let answer = self.call(Method::GET, &path, None, timeout).await?;
        let index = answer.index;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok((index, Vec::new()));
        }
        let entries: Vec<Entry> = json(&answer.expect_success(prefix)?)?;
        let decoded = entries.into_iter().map(|entry| {
            let value = decode_base64(entry.value.as_deref().unwrap_or_default())
                .ok_or_else(|| ConsulError::Answer(format!("the value of {} is not base64", entry.key)))?;
            Ok((entry.key, value))
        });
        Ok((index, decoded.collect::<Result<_, _>>()?))
    }

    /// Writes a value.
    pub(super) async fn put(&self, key: &str, value: &str) -> Result<(), ConsulError> {
        let path = format!("kv/{}", escape(key));
        self.call(Method::PUT, &path, Some(value.to_owned()), CALL_TIMEOUT).await?.expect_success(key).map(drop)
    }

    /// Writes a value unless the key exists; says whether it did.
    pub(super) async fn create(&self, key: &str, value: &str) -> Result<bool, ConsulError> {
        let path = format!("kv/{}?cas=0", escape(key));
        let answer = self.call(Method::PUT, &path, Some(value.to_owned()), CALL_TIMEOUT).await?;
        json(&answer.expect_success(key)?)
    }

    /// Removes a key, if it is there.
    pub(super) async fn delete(&self, key: &str) -> Result<(), ConsulError> {
        let path = format!("kv/{}", escape(key));
        self.call(Method::DELETE, &path, None, CALL_TIMEOUT).await?.expect_success(key).map(drop)
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<Answer, ConsulError> {
        self.call_up_to(method, path, body, timeout, ANSWER_BYTES_MAX).await
    }

    /// As [`Consul::call`], with another limit for the answer's bytes.
    async fn call_up_to(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Answer, ConsulError> {
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.base)).timeout(timeout);
        if let Some(token) = &self.options.token {
            request = request.header("X-Consul-Token", token.as_str());
        }
        if let Some((user, password)) = &self.options.user {
            request = request.basic_auth(user, Some(password.as_str()));
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let index = response
            .headers()
            .get("X-Consul-Index")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let date =
            response.headers().get("Date").and_then(|value| value.to_str().ok()).map(|text| text.trim().to_owned());
        let status = response.status();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if body.len() + piece.len() > bytes_max {
                return Err(ConsulError::Answer(format!("more than {bytes_max} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, index, date, body })
    }
}

impl Answer {
    pub(super) fn expect_success(self, what: &str) -> Result<Vec<u8>, ConsulError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let text: String = String::from_utf8_lossy(&self.body).trim().chars().take(SHOWN_MAX).collect();
        Err(ConsulError::Refused { what: what.to_owned(), status: self.status.as_u16(), text })
    }
}

/// Takes the files of certificates, and names the one that is none.
fn with_certificates(mut builder: ClientBuilder, tls: &ConsulTls) -> Result<ClientBuilder, ConsulError> {
    if let Some(path) = &tls.authority {
        builder = builder.tls_certs_only(authorities(path)?);
    }
    if let Some((certificate, key)) = &tls.client {
        let both = Zeroizing::new([read(certificate)?.as_slice(), b"\n", read(key)?.as_slice()].concat());
        let what = format!("no certificate and key in PEM, with the key in {}", key.display());
        let identity = Identity::from_pem(&both).map_err(|error| unusable(certificate, &format!("{what}: {error}")))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// The certificates in a file, or in all files of a folder.
fn authorities(path: &Path) -> Result<Vec<Certificate>, ConsulError> {
    let io = |error: std::io::Error| unusable(path, &error.to_string());
    let files = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(io)?;
        let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        paths.map_err(io)?.into_iter().filter(|path| path.is_file()).collect()
    } else {
        vec![path.to_owned()]
    };
    let mut found = Vec::new();
    for file in files {
        let all = Certificate::from_pem_bundle(&read(&file)?).map_err(|error| unusable(&file, &causes(&error)))?;
        found.extend(all);
    }
    if found.is_empty() {
        return Err(unusable(path, "there is no certificate in PEM in it"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConsulError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, reason: &str) -> ConsulError {
    ConsulError::File { path: path.to_owned(), reason: reason.to_owned() }
}

/// What people can do about failures that TLS names in its own words.
const ADVICE: [(&str, &str); 5] = [
    (
        "UnknownIssuer",
        "Consul's certificate does not come from an authority that is trusted here; consul.tls.ca_cert names the file \
         with the right one",
    ),
    ("certificate not valid for name", "Consul's certificate is for another host than the one in consul.address"),
    ("CertificateRequired", DEMANDED),
    // What older versions say also where none was shown.
    ("fatal alert: BadCertificate", DEMANDED),
    ("InvalidContentType", "Consul speaks plain HTTP at this port; consul.address begins with https://"),
];

const DEMANDED: &str = "Consul demands a client certificate that it accepts; consul.tls.client_cert and \
                        consul.tls.client_key name its files";

/// Why no answer came, with what to do about it where that is known.
fn unreachable(error: reqwest::Error) -> ConsulError {
    let failure = causes(&error.without_url());
    let advice = ADVICE.iter().find(|(words, _)| failure.contains(words));
    ConsulError::Unreachable(match advice {
        Some((_, advice)) => format!("{failure}: {advice}"),
        None => failure,
    })
}

/// A path that waits for something newer than an index, and how long the call may then take.
fn waiting(mut path: String, newer_than: Option<(u64, Duration)>) -> (String, Duration) {
    let Some((index, wait)) = newer_than else { return (path, CALL_TIMEOUT) };
    path.push_str(&format!("&index={index}&wait={}s", wait.as_secs()));
    // Consul adds up to a sixteenth to spread the answers.
    (path, wait + wait / 16 + CALL_TIMEOUT)
}

/// The error and what it comes from: the library's own text stops at the first layer.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConsulError> {
    serde_json::from_slice(bytes).map_err(|error| ConsulError::Answer(error.to_string()))
}

/// Percent-encodes a key for a path; slashes stay.
pub(super) fn escape(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Standard base64 with padding (RFC 4648, section 4), as Go writes it.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let digits = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(bytes);
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for &digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x00ff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(decoded)
}

/// An address may carry `user:password@`.
pub(super) fn without_password(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_vectors_of_rfc_4648() {
        for (text, decoded) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            assert_eq!(decode_base64(text).as_deref(), Some(decoded.as_bytes()), "{text}");
        }
        assert_eq!(decode_base64("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        for bad in ["Zg", "Z===", "Zm9v\n", "Zm9*"] {
            assert_eq!(decode_base64(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn keys_are_escaped_but_slashes_stay() {
        assert_eq!(escape("threshold_keyinfo/ecdsa:a b?é"), "threshold_keyinfo/ecdsa%3Aa%20b%3F%C3%A9");
    }

    #[test]
    fn no_secret_is_shown() {
        let options = ConsulOptions {
            token: Some("hunter2".to_owned().into()),
            user: Some(("me".to_owned(), "swordfish".to_owned().into())),
            ..ConsulOptions::new("http://a:b@localhost:8500")
        };
        let shown = format!("{options:?}");
        assert!(shown.contains("http://localhost:8500") && shown.contains("me"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("swordfish") && !shown.contains("a:b"), "{shown}");
    }

    #[test]
    fn only_http_addresses_are_taken() {
        for good in ["localhost:8500", "http://localhost:8500/", "https://consul.example"] {
            assert!(Consul::new(ConsulOptions::new(good), Notices::silent()).is_ok(), "{good}");
        }
        for bad in ["", "ftp://localhost", "http://"] {
            assert!(Consul::new(ConsulOptions::new(bad), Notices::silent()).is_err(), "{bad}");
        }
    }
}

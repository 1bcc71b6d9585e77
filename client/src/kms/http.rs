//! Calls over HTTP with limits: on time, and on the size of an answer.

use std::time::Duration;

use zeroize::Zeroizing;

use super::KmsError;

/// How long reaching a service may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long the machine's own services may take: they are near, or not there.
const LOCAL_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Two clients: one for AWS, which may go through a proxy, and one for what is on this machine, which must not.
#[derive(Clone)]
pub(super) struct Http {
    far: reqwest::Client,
    near: reqwest::Client,
}

/// A whole answer.
pub(super) struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Http {
    pub(super) fn new() -> Result<Self, KmsError> {
        // Fails when the process has chosen a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |error: reqwest::Error| KmsError::Settings(format!("HTTP: {}", causes(&error)));
        let builder = || reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            far: builder().connect_timeout(CONNECT_MAX).timeout(CALL_MAX).build().map_err(wrong)?,
            near: builder().no_proxy().connect_timeout(LOCAL_MAX).timeout(LOCAL_MAX).build().map_err(wrong)?,
        })
    }

    pub(super) async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> Result<Answer, KmsError> {
        call(self.far.post(url).body(body.to_vec()), headers).await
    }

    pub(super) async fn get_local(&self, url: &str, headers: &[(&'static str, String)]) -> Result<Answer, KmsError> {
        call(self.near.get(url), headers).await
    }

    pub(super) async fn put_local(&self, url: &str, headers: &[(&'static str, String)]) -> Result<Answer, KmsError> {
        call(self.near.put(url), headers).await
    }
}

async fn call(mut request: reqwest::RequestBuilder, headers: &[(&'static str, String)]) -> Result<Answer, KmsError> {
    for (name, value) in headers {
        let mut value = reqwest::header::HeaderValue::from_str(value)
            .map_err(|_| KmsError::Credentials(format!("a value of the header {name} cannot be sent")))?;
        value.set_sensitive(true);
        request = request.header(*name, value);
    }
    let unreachable = |error: reqwest::Error| KmsError::Unreachable(causes(&error));
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(KmsError::Unreachable(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body })
}

/// An error with everything that led to it, without what the address may hold.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}

/// Host and port of an address, as the header `host` spells it. The address has to end there.
pub(super) fn host(endpoint: &str) -> Result<String, KmsError> {
    let wrong = |what: &str| KmsError::Settings(format!("endpoint {endpoint}: {what}"));
    let url = reqwest::Url::parse(endpoint).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("expected http://… or https://…"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(wrong("expected nothing but a scheme, a host and a port"));
    }
    let host = url.host_str().ok_or_else(|| wrong("no host"))?;
    Ok(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// A form's body.
pub(super) fn query(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_spelled_as_it_is_sent() {
        assert_eq!(host("https://kms.eu-west-1.amazonaws.com").unwrap(), "kms.eu-west-1.amazonaws.com");
        assert_eq!(host("http://127.0.0.1:4566/").unwrap(), "127.0.0.1:4566");
        assert_eq!(host("https://h:443").unwrap(), "h");
        for bad in ["h", "ftp://h", "http://h/path", "http://h?q", "http://user@h"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(query(&[("A", "b c"), ("D", "é&=~")]).as_str(), "A=b%20c&D=%C3%A9%26%3D~");
    }
}

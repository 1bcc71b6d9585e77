//! Signature version 4 of AWS, as far as a POST without a query needs it.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>. Checked against AWS's
//! published example, against botocore, and by an emulator that verifies it.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request that is to be signed: `POST /`, with nothing after it.
pub(super) struct Post<'a> {
    /// Host and, where it is not the scheme's own, port.
    pub host: &'a str,
    /// `kms` or `sts`.
    pub service: &'a str,
    /// As in `us-east-1`.
    pub region: &'a str,
    /// Headers to sign besides `host` and those that are added here, with their names in lower case.
    pub headers: &'a [(&'static str, &'a str)],
    pub body: &'a [u8],
}

/// The headers to send besides `host`: all that are signed, and the signature.
pub(super) fn signed_headers(post: &Post<'_>, by: &Credentials, now: OffsetDateTime) -> Vec<(&'static str, String)> {
    let moment = moment(now);
    let date = moment.get(..8).unwrap_or_default();
    let mut headers: Vec<(&'static str, String)> =
        post.headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    headers.push(("host", post.host.to_owned()));
    headers.push(("x-amz-date", moment.clone()));
    if let Some(token) = &by.session_token {
        headers.push(("x-amz-security-token", token.to_string()));
    }
    headers.sort();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical_headers: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("POST\n/\n\n{canonical_headers}\n{names}\n{}", hex::encode(Sha256::digest(post.body)));

    let scope = format!("{date}/{}/{}/aws4_request", post.region, post.service);
    let to_sign = format!("{ALGORITHM}\n{moment}\n{scope}\n{}", hex::encode(Sha256::digest(&canonical)));
    let mut key = mac(format!("AWS4{}", by.secret_access_key.as_str()).as_bytes(), date.as_bytes());
    for part in [post.region, post.service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex::encode(mac(&key, to_sign.as_bytes()));
    let authorization =
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", by.access_key_id);
    headers.retain(|(name, _)| *name != "host");
    headers.push(("authorization", authorization));
    headers
}

/// A moment as AWS writes it: `20150830T123600Z`.
fn moment(now: OffsetDateTime) -> String {
    let now = now.to_offset(time::UtcOffset::UTC);
    let (date, (hour, minute, second)) = (now.date(), now.to_hms());
    format!("{:04}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", date.year(), u8::from(date.month()), date.day())
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC refuses no key") };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `post-vanilla` and `post-sts-header-before` of AWS's published test suite for signature version 4.
    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let now = OffsetDateTime::from_unix_timestamp(1_440_938_160).unwrap();
        let post =
            Post { host: "example.amazonaws.com", service: "service", region: "us-east-1", headers: &[], body: b"" };
        let mut by = Credentials::fixed("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None);
        assert_eq!(
            authorization(&signed_headers(&post, &by, now)),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        by.session_token = Some(zeroize::Zeroizing::new(
            "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==".to_owned(),
        ));
        assert!(authorization(&signed_headers(&post, &by, now)).ends_with(
            "SignedHeaders=host;x-amz-date;x-amz-security-token, \
             Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
        ));
    }

    fn authorization(headers: &[(&str, String)]) -> String {
        headers.iter().find(|(name, _)| *name == "authorization").unwrap().1.clone()
    }
}

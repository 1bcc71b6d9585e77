//! A signer whose key is in AWS KMS and never leaves it.
//!
//! The key is one of P-256 (`ECC_NIST_P256`, `SIGN_VERIFY`): KMS has no Ed25519 that a cluster would accept. It is named
//! by its id, its ARN, an alias or an alias's ARN. The public key is read once, and every signature is verified with it
//! before it is used, so that an alias that was pointed at another key shows here and not as a refusal by the cluster.
//!
//! This speaks the three calls that are needed (`Sign`, `GetPublicKey`, and STS for roles) over the HTTP client that
//! the workspace has anyway. AWS's own crates would do the same and more, but building them takes about as long as the
//! rest of the workspace.

mod credentials;
mod http;
mod profile;
mod sigv4;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use self::{
    credentials::{Credentials, Environment, Source},
    http::{Answer, Http},
    profile::Profiles,
    sigv4::{Post, signed_headers},
};
use crate::{
    auth::{Algorithm, InitiatorKey, PublicKey},
    signer::{Signer, SignerError},
};

/// Bytes of a message that KMS hashes itself; of a longer one the digest is sent.
pub const RAW_BYTES_MAX: usize = 4096;
const TRIES: u32 = 4;
const RETRY_MIN: Duration = Duration::from_millis(200);

/// Which key, and who asks.
#[derive(Clone, Default)]
pub struct KmsOptions {
    /// The key: its id, its ARN, `alias/NAME`, or an alias's ARN.
    pub key_id: String,
    /// As in `us-east-1`. Without it: that of the key's ARN, of `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile.
    pub region: Option<String>,
    /// Another address than AWS's own: an emulator, a private endpoint. Without it: `AWS_ENDPOINT_URL_KMS` or
    /// `AWS_ENDPOINT_URL`, if set.
    pub endpoint: Option<String>,
    /// Fixed credentials. Without them those are used that AWS's tools would find: environment variables, the shared
    /// files, a web identity, the role of the container or of the machine.
    pub credentials: Option<StaticCredentials>,
}

impl std::fmt::Debug for KmsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KmsOptions")
            .field("key_id", &self.key_id)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Credentials that somebody wrote down. For development: in production use a role.
#[derive(Clone)]
pub struct StaticCredentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The access key's secret.
    pub secret_access_key: zeroize::Zeroizing<String>,
    /// For temporary ones.
    pub session_token: Option<zeroize::Zeroizing<String>>,
}

impl StaticCredentials {
    /// Permanent ones.
    #[must_use]
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: zeroize::Zeroizing::new(secret_access_key.to_owned()),
            session_token: None,
        }
    }
}

impl std::fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticCredentials({})", self.access_key_id)
    }
}

/// Why KMS did not sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KmsError {
    /// An option cannot be used, or is missing.
    Settings(String),
    /// There are no credentials, or the place that has them refuses.
    Credentials(String),
    /// The service does not answer.
    Unreachable(String),
    /// The service refuses.
    Refused {
        /// Its name for the reason, as in `AccessDeniedException` or `NotFoundException`.
        code: String,
        /// Its words.
        message: String,
    },
    /// The key cannot sign for an initiator: of another kind, for another use.
    Key(String),
    /// The answer is not what the service promises: no key or signature, or one that does not verify.
    Answer(String),
}

impl std::fmt::Display for KmsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Settings(problem) => f.write_str(problem),
            Self::Credentials(problem) => write!(f, "AWS credentials: {problem}"),
            Self::Unreachable(problem) => write!(f, "the service does not answer: {problem}"),
            Self::Refused { code, message } => write!(f, "KMS refuses: {code}: {message}"),
            Self::Key(problem) => write!(f, "the key in KMS: {problem}"),
            Self::Answer(problem) => write!(f, "the answer of KMS: {problem}"),
        }
    }
}

impl std::error::Error for KmsError {}

impl From<KmsError> for SignerError {
    fn from(error: KmsError) -> Self {
        Self::Service(error.to_string())
    }
}

/// Signs with a key in KMS. Cloning is cheap; the clones share their credentials.
#[derive(Clone)]
pub struct KmsSigner {
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    key_id: String,
    public: p256::ecdsa::VerifyingKey,
}

impl std::fmt::Debug for KmsSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KmsSigner({})", self.inner.key_id)
    }
}

impl KmsSigner {
    /// Reads the public key, which shows that the key exists, is of the right kind, and may be used by the caller.
    ///
    /// Needs the permissions `kms:GetPublicKey` and `kms:Sign`.
    ///
    /// # Errors
    /// If an option is wrong, there are no credentials, or KMS does not answer or refuses.
    pub async fn connect(options: KmsOptions) -> Result<Self, KmsError> {
        Self::connect_from(options, Environment::of_process()).await
    }

    async fn connect_from(options: KmsOptions, environment: Environment) -> Result<Self, KmsError> {
        if options.key_id.is_empty() {
            return Err(KmsError::Settings("key_id: expected a key's id, ARN or alias, got nothing".to_owned()));
        }
        let service = Service::new(&options, environment)?;
        let shown = service.call("GetPublicKey", &json!({"KeyId": options.key_id})).await?;
        let public = usable_key(&shown)?;
        Ok(Self { inner: Arc::new(Inner { service, key_id: options.key_id, public }) })
    }

    /// The public key that a cluster has to know.
    #[must_use]
    pub fn public_key(&self) -> InitiatorKey {
        InitiatorKey(PublicKey::P256(self.inner.public))
    }

    /// The public key as a cluster's configuration spells it (`event_initiator_pubkey`): the hexadecimal digits of the
    /// SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_text(&self) -> String {
        self.inner.public.to_public_key_der().map(|der| hex::encode(der.as_bytes())).unwrap_or_default()
    }

    /// Signs; see [`Signer::sign`], which reports the same errors as text.
    ///
    /// # Errors
    /// If KMS does not answer or refuses, or its signature does not verify under the key that [`KmsSigner::connect`]
    /// saw.
    pub async fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KmsError> {
        let digest = Sha256::digest(message);
        let (kind, sent) =
            if message.len() <= RAW_BYTES_MAX { ("RAW", message) } else { ("DIGEST", digest.as_slice()) };
        let request = json!({
            "KeyId": self.inner.key_id,
            "Message": STANDARD.encode(sent),
            "MessageType": kind,
            "SigningAlgorithm": "ECDSA_SHA_256",
        });
        let answer = self.inner.service.call("Sign", &request).await?;
        let signature = bytes(&answer, "Signature")?;
        if self.public_key().0.verifies(message, &signature) {
            return Ok(signature);
        }
        let key = &self.inner.key_id;
        Err(KmsError::Answer(format!("the signature is not by the key that {key} named when this signer was made")))
    }
}

impl Signer for KmsSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::P256
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        Box::pin(async move { Ok(self.sign_message(message).await?) })
    }
}

/// The public key in an answer, if it can sign for an initiator.
fn usable_key(shown: &Value) -> Result<p256::ecdsa::VerifyingKey, KmsError> {
    // The second name is the older one, which some emulators still use alone.
    let kind = shown["KeySpec"].as_str().or_else(|| shown["CustomerMasterKeySpec"].as_str());
    if let Some(kind) = kind.filter(|kind| *kind != "ECC_NIST_P256") {
        return Err(KmsError::Key(format!("expected one of P-256 (ECC_NIST_P256), it is {kind}")));
    }
    if let Some(usage) = shown["KeyUsage"].as_str().filter(|usage| *usage != "SIGN_VERIFY") {
        return Err(KmsError::Key(format!("expected one for SIGN_VERIFY, it is for {usage}")));
    }
    p256::ecdsa::VerifyingKey::from_public_key_der(&bytes(shown, "PublicKey")?)
        .map_err(|_| KmsError::Key("its public key is no point on P-256".to_owned()))
}

fn bytes(answer: &Value, field: &str) -> Result<Vec<u8>, KmsError> {
    answer[field]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .ok_or_else(|| KmsError::Answer(format!("no {field}, or not in base64")))
}

/// Where a service of AWS is in a region.
fn endpoint_of(service: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{domain}")
}

/// KMS in one region.
struct Service {
    endpoint: String,
    host: String,
    region: String,
    http: Http,
    credentials: Source,
}

impl Service {
    fn new(options: &KmsOptions, environment: Environment) -> Result<Self, KmsError> {
        let region = region(options, &environment)?;
        let named = || ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"].iter().find_map(|name| environment.get(name));
        let endpoint = options.endpoint.clone().or_else(named).unwrap_or_else(|| endpoint_of("kms", &region));
        let host = http::host(&endpoint)?;
        let http = Http::new()?;
        let given = options.credentials.as_ref().map(|given| {
            let token = given.session_token.as_ref().map(|token| token.as_str());
            Credentials::fixed(&given.access_key_id, &given.secret_access_key, token)
        });
        let credentials = Source::new(given, environment, region.clone(), http.clone());
        Ok(Self { endpoint, host, region, http, credentials })
    }

    /// Calls until there is an answer that will not change: what may pass is tried again, and expired credentials are
    /// replaced once.
    async fn call(&self, operation: &str, request: &Value) -> Result<Value, KmsError> {
        let body = request.to_string();
        let mut wait = RETRY_MIN;
        let mut renewed = false;
        let mut tries = 1;
        loop {
            let outcome = self.call_once(operation, &body).await;
            let again = match &outcome {
                Ok(answer) if answer.is_success() => return read(&answer.body),
                Ok(answer) => {
                    let (code, _) = refusal(answer);
                    let expired = matches!(code.as_str(), "ExpiredTokenException" | "UnrecognizedClientException");
                    if expired && !renewed && self.credentials.renew().await {
                        renewed = true;
                        continue;
                    }
                    answer.status >= 500 || answer.status == 429 || is_passing(&code)
                }
                Err(KmsError::Unreachable(_)) => true,
                Err(_) => false,
            };
            if !again || tries >= TRIES {
                let (code, message) = refusal(&outcome?);
                return Err(KmsError::Refused { code, message });
            }
            tries += 1;
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    async fn call_once(&self, operation: &str, body: &str) -> Result<Answer, KmsError> {
        let target = format!("TrentService.{operation}");
        let post = Post {
            host: &self.host,
            service: "kms",
            region: &self.region,
            headers: &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &target)],
            body: body.as_bytes(),
        };
        let credentials = self.credentials.get().await?;
        let headers = signed_headers(&post, &credentials, OffsetDateTime::now_utc());
        self.http.post(&self.endpoint, &headers, body.as_bytes()).await
    }
}

fn region(options: &KmsOptions, environment: &Environment) -> Result<String, KmsError> {
    let of_key = || {
        let mut parts = options.key_id.split(':');
        (parts.next() == Some("arn")).then(|| parts.nth(2).map(str::to_owned)).flatten()
    };
    let of_environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| environment.get(name));
    let mut region = options.region.clone().or_else(of_key).or_else(of_environment);
    if region.is_none() {
        let profiles = Profiles::read(environment)?;
        region = profiles.value(profiles.chosen(), "region").map(str::to_owned);
    }
    let region = region.ok_or_else(|| {
        KmsError::Settings("region: neither given nor in the key's ARN, AWS_REGION or the profile".to_owned())
    })?;
    // It becomes part of a host's name.
    if region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(KmsError::Settings(format!("region: expected one as us-east-1, got {region:?}")));
    }
    Ok(region)
}

fn read(body: &[u8]) -> Result<Value, KmsError> {
    serde_json::from_slice(body).map_err(|error| KmsError::Answer(format!("not JSON: {error}")))
}

/// The service's name for the reason, and its words. What stands before the service (and some emulators) may answer in
/// XML.
fn refusal(answer: &Answer) -> (String, String) {
    let document = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let xml = String::from_utf8_lossy(&answer.body);
    let text = |names: [&str; 2], element: &str| {
        let found = names.iter().find_map(|&name| document[name].as_str());
        found.or_else(|| credentials::element(&xml, element)).unwrap_or_default().to_owned()
    };
    let code = text(["__type", "code"], "Code").rsplit('#').next().unwrap_or_default().to_owned();
    let code = if code.is_empty() { format!("status {}", answer.status) } else { code };
    (code, text(["message", "Message"], "Message"))
}

/// Whether a refusal may pass by itself.
fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "LimitExceededException"
            | "DependencyTimeoutException"
            | "KMSInternalException"
            | "KeyUnavailableException"
            | "RequestTimeoutException"
            | "ServiceUnavailableException"
    )
}

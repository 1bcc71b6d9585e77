//! Who calls AWS: credentials given by the caller, or those that AWS's own tools would find.
//!
//! Looked for in the order of AWS's SDKs: environment variables, the shared configuration files, a web identity
//! (Kubernetes), a container's role (ECS, EKS Pod Identity), the machine's role (EC2, IMDSv2 only). Temporary ones are
//! renewed five minutes before they expire; while renewing fails, those that are still valid serve.
//! Invariant: a secret is in no `Debug` output and in no error.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use super::{
    KmsError,
    http::{Http, query},
    profile::Profiles,
    sigv4::{Post, signed_headers},
};

/// How long before they expire credentials are renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// How many profiles may refer to each other.
const PROFILES_MAX: u32 = 5;
/// How long a program that prints credentials may take.
const PROCESS_MAX: Duration = Duration::from_secs(60);
const CONTAINER_HOST: &str = "http://169.254.170.2";
const MACHINE_HOST: &str = "http://169.254.169.254";
/// Hosts to which a container's credentials may be asked for without TLS, besides this machine's own addresses.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Reads an environment variable; empty ones count as missing.
#[derive(Clone)]
pub(super) struct Environment(Arc<Lookup>);

impl Environment {
    /// The process's own.
    pub(super) fn of_process() -> Self {
        Self(Arc::new(|name| std::env::var(name).ok()))
    }

    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        let variables: std::collections::BTreeMap<String, String> =
            variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self(Arc::new(move |name| variables.get(name).cloned()))
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }
}

/// What a call is signed with.
#[derive(Clone)]
pub(super) struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: Zeroizing<String>,
    pub session_token: Option<Zeroizing<String>>,
    /// When they end; `None`: never.
    pub expires: Option<OffsetDateTime>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

impl Credentials {
    /// Credentials that do not expire by themselves.
    pub(super) fn fixed(id: &str, secret: &str, token: Option<&str>) -> Self {
        Self {
            access_key_id: id.to_owned(),
            secret_access_key: Zeroizing::new(secret.to_owned()),
            session_token: token.map(|token| Zeroizing::new(token.to_owned())),
            expires: None,
        }
    }

    fn remaining(&self, now: OffsetDateTime) -> Duration {
        self.expires.map_or(Duration::MAX, |expires| Duration::try_from(expires - now).unwrap_or(Duration::ZERO))
    }

    /// From a JSON document as containers, machines and programs give it; they differ in the names of two fields.
    fn from_json(document: &[u8], whose: &str) -> Result<Self, KmsError> {
        // The document is secret: errors say nothing of its content.
        let wrong = |what: &str| KmsError::Credentials(format!("{whose}: {what}"));
        let document: Value = serde_json::from_slice(document).map_err(|_| wrong("the answer is not JSON"))?;
        let text = |names: &[&str]| names.iter().find_map(|&name| document[name].as_str()).filter(|t| !t.is_empty());
        let id = text(&["AccessKeyId"]).ok_or_else(|| wrong("no AccessKeyId in the answer"))?;
        let secret = text(&["SecretAccessKey"]).ok_or_else(|| wrong("no SecretAccessKey in the answer"))?;
        let mut made = Self::fixed(id, secret, text(&["Token", "SessionToken"]));
        if let Some(expires) = text(&["Expiration"]) {
            made.expires = Some(parse_time(expires).ok_or_else(|| wrong("Expiration is no RFC 3339 time"))?);
        }
        Ok(made)
    }

    /// From the XML that STS answers with.
    fn from_xml(document: &str, whose: &str) -> Result<Self, KmsError> {
        let text = |name: &str| element(document, name);
        let wrong = |what: &str| KmsError::Credentials(format!("{whose}: no {what} in the answer"));
        let id = text("AccessKeyId").ok_or_else(|| wrong("AccessKeyId"))?;
        let secret = text("SecretAccessKey").ok_or_else(|| wrong("SecretAccessKey"))?;
        let token = text("SessionToken").ok_or_else(|| wrong("SessionToken"))?;
        let expires = text("Expiration").and_then(parse_time).ok_or_else(|| wrong("Expiration"))?;
        Ok(Self { expires: Some(expires), ..Self::fixed(id, secret, Some(token)) })
    }
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// The text of the first element of a name. What STS sends in them needs no unescaping.
pub(super) fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let from = document.split_once(&format!("<{name}>"))?.1;
    Some(from.split_once(&format!("</{name}>"))?.0.trim())
}

/// Where credentials come from, with those that were found last.
pub(super) struct Source {
    given: Option<Credentials>,
    environment: Environment,
    region: String,
    http: Http,
    found: tokio::sync::Mutex<Option<Credentials>>,
}

impl Source {
    pub(super) fn new(given: Option<Credentials>, environment: Environment, region: String, http: Http) -> Self {
        Self { given, environment, region, http, found: tokio::sync::Mutex::new(None) }
    }

    /// Credentials that are valid now.
    pub(super) async fn get(&self) -> Result<Credentials, KmsError> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        let mut found = self.found.lock().await;
        let remaining = found.as_ref().map_or(Duration::ZERO, |found| found.remaining(OffsetDateTime::now_utc()));
        if let Some(found) = found.as_ref().filter(|_| remaining > RENEW_BEFORE) {
            return Ok(found.clone());
        }
        match self.find().await {
            Ok(credentials) => {
                *found = Some(credentials.clone());
                Ok(credentials)
            }
            Err(error) => found.clone().filter(|_| !remaining.is_zero()).ok_or(error),
        }
    }

    /// Forgets what was found: the service says that it is no longer valid. Whether there is something else to find.
    pub(super) async fn renew(&self) -> bool {
        *self.found.lock().await = None;
        self.given.is_none()
    }

    async fn find(&self) -> Result<Credentials, KmsError> {
        if let Some(found) = self.of_environment()? {
            return Ok(found);
        }
        let profiles = Profiles::read(&self.environment)?;
        if let Some(found) = self.of_profile(&profiles, profiles.chosen(), PROFILES_MAX).await? {
            return Ok(found);
        }
        let variable = |name| self.environment.get(name);
        if let (Some(file), Some(role)) = (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN")) {
            return self.web_identity(&file, &role, variable("AWS_ROLE_SESSION_NAME")).await;
        }
        if let Some(found) = self.container().await? {
            return Ok(found);
        }
        self.machine().await
    }

    fn of_environment(&self) -> Result<Option<Credentials>, KmsError> {
        let (id, secret) = (self.environment.get("AWS_ACCESS_KEY_ID"), self.environment.get("AWS_SECRET_ACCESS_KEY"));
        match (id, secret) {
            (Some(id), Some(secret)) => {
                let token = self.environment.get("AWS_SESSION_TOKEN");
                Ok(Some(Credentials::fixed(&id, &secret, token.as_deref())))
            }
            (None, None) => Ok(None),
            _ => {
                Err(KmsError::Credentials("only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set".to_owned()))
            }
        }
    }

    /// What a profile of the shared files says; `None`: nothing about credentials.
    async fn of_profile(&self, profiles: &Profiles, name: &str, further: u32) -> Result<Option<Credentials>, KmsError> {
        let wrong = |what: String| KmsError::Credentials(format!("profile {name}: {what}"));
        let value = |key| profiles.value(name, key);
        if !profiles.has(name) {
            // The default profile need not be there; one that was asked for has to.
            let asked = profiles.is_asked_for(name);
            return if asked { Err(wrong("there is no such profile".to_owned())) } else { Ok(None) };
        }
        if let Some(role) = value("role_arn") {
            if let Some(file) = value("web_identity_token_file") {
                return self.web_identity(file, role, value("role_session_name").map(str::to_owned)).await.map(Some);
            }
            let Some(further) = further.checked_sub(1) else {
                return Err(wrong("its source profiles go round in a circle, or are too many".to_owned()));
            };
            let by = match (value("source_profile"), value("credential_source")) {
                // A profile that names itself takes its own keys.
                (Some(source), None) if source == name => Self::fixed_of(profiles, name),
                (Some(source), None) => Box::pin(self.of_profile(profiles, source, further)).await?,
                (None, Some("Environment")) => self.of_environment()?,
                (None, Some("EcsContainer")) => self.container().await?,
                (None, Some("Ec2InstanceMetadata")) => Some(self.machine().await?),
                _ => return Err(wrong("role_arn needs one of source_profile and credential_source".to_owned())),
            };
            let by = by.ok_or_else(|| wrong("the source of its role has no credentials".to_owned()))?;
            return self.role(&by, role, value("role_session_name"), value("external_id")).await.map(Some);
        }
        if let Some(fixed) = Self::fixed_of(profiles, name) {
            return Ok(Some(fixed));
        }
        if let Some(command) = value("credential_process") {
            return process(command).await.map(Some);
        }
        if value("sso_session").or(value("sso_start_url")).is_some() {
            let how = format!("aws configure export-credentials --profile {name} --format process");
            return Err(wrong(format!("single sign-on is not spoken here; use credential_process = {how}")));
        }
        Ok(None)
    }

    fn fixed_of(profiles: &Profiles, name: &str) -> Option<Credentials> {
        let value = |key| profiles.value(name, key);
        let (id, secret) = (value("aws_access_key_id")?, value("aws_secret_access_key")?);
        Some(Credentials::fixed(id, secret, value("aws_session_token")))
    }

    fn sts(&self) -> String {
        let named = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"].iter().find_map(|name| self.environment.get(name));
        named.unwrap_or_else(|| super::endpoint_of("sts", &self.region))
    }

    /// A role for the bearer of a token that the platform keeps fresh in a file.
    async fn web_identity(&self, file: &str, role: &str, session: Option<String>) -> Result<Credentials, KmsError> {
        let whose = format!("web identity for {role}");
        let token = read_secret(&whose, file).await?;
        let session = session.unwrap_or_else(session_name);
        let body = query(&[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", &session),
            ("WebIdentityToken", &token),
        ]);
        let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        self.ask_sts(&whose, &self.sts(), headers, body).await
    }

    /// A role for somebody who has credentials already.
    async fn role(
        &self,
        by: &Credentials,
        role: &str,
        session: Option<&str>,
        external_id: Option<&str>,
    ) -> Result<Credentials, KmsError> {
        let whose = format!("role {role}");
        let session = session.map_or_else(session_name, str::to_owned);
        let mut fields = vec![
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session.as_str()),
        ];
        fields.extend(external_id.map(|id| ("ExternalId", id)));
        let (endpoint, body) = (self.sts(), query(&fields));
        let post = Post {
            host: &super::http::host(&endpoint)?,
            service: "sts",
            region: &self.region,
            headers: &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
            body: body.as_bytes(),
        };
        let headers = signed_headers(&post, by, OffsetDateTime::now_utc());
        self.ask_sts(&whose, &endpoint, headers, body).await
    }

    async fn ask_sts(
        &self,
        whose: &str,
        endpoint: &str,
        headers: Vec<(&'static str, String)>,
        body: Zeroizing<String>,
    ) -> Result<Credentials, KmsError> {
        let answer = self.http.post(endpoint, &headers, body.as_bytes()).await?;
        let text = Zeroizing::new(String::from_utf8_lossy(&answer.body).into_owned());
        if !answer.is_success() {
            let code = element(&text, "Code").unwrap_or("no code");
            let message = element(&text, "Message").unwrap_or_default();
            return Err(KmsError::Credentials(format!("{whose}: STS answered {} {code}: {message}", answer.status)));
        }
        Credentials::from_xml(&text, whose)
    }

    /// The role of the container; `None`: there is no sign of one.
    async fn container(&self) -> Result<Option<Credentials>, KmsError> {
        let variable = |name| self.environment.get(name);
        let url = match (
            variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => format!("{CONTAINER_HOST}/{}", path.trim_start_matches('/')),
            (None, Some(url)) => checked_container_url(url)?,
            (None, None) => return Ok(None),
        };
        let whose = "the container's role";
        let token =
            match (variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")) {
                (Some(file), _) => Some(read_secret(whose, &file).await?),
                (None, token) => token.map(Zeroizing::new),
            };
        let headers: Vec<_> = token.iter().map(|token| ("authorization", token.to_string())).collect();
        let answer = self.http.get_local(&url, &headers).await?;
        if !answer.is_success() {
            return Err(KmsError::Credentials(format!("{whose}: {url} answered {}", answer.status)));
        }
        Credentials::from_json(&answer.body, whose).map(Some)
    }

    /// The role of the machine.
    async fn machine(&self) -> Result<Credentials, KmsError> {
        let nothing = |why: &str| {
            KmsError::Credentials(format!(
                "none found: not in the options, the environment, the shared files, a web identity or a container, and \
                 {why}"
            ))
        };
        if self.environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(nothing("AWS_EC2_METADATA_DISABLED forbids to ask the machine"));
        }
        let base = self.environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| MACHINE_HOST.to_owned());
        let base = base.trim_end_matches('/');
        let lifetime = [("x-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned())];
        let token = self
            .http
            .put_local(&format!("{base}/latest/api/token"), &lifetime)
            .await
            .map_err(|error| nothing(&format!("the machine has no metadata service ({error})")))?;
        if !token.is_success() {
            return Err(nothing(&format!("the machine's metadata service answered {} to a token", token.status)));
        }
        let token = [("x-aws-ec2-metadata-token", String::from_utf8_lossy(&token.body).into_owned())];
        let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
        let answer = self.http.get_local(&roles, &token).await?;
        let names = String::from_utf8_lossy(&answer.body).into_owned();
        let role = names.lines().next().map(str::trim).filter(|role| answer.is_success() && !role.is_empty());
        let Some(role) = role else { return Err(nothing("the machine has no role")) };
        let answer = self.http.get_local(&format!("{roles}{role}"), &token).await?;
        if !answer.is_success() {
            return Err(KmsError::Credentials(format!("the machine's role {role}: answered {}", answer.status)));
        }
        Credentials::from_json(&answer.body, &format!("the machine's role {role}"))
    }
}

/// Credentials travel in clear only inside the machine, or where the container's platform serves them.
fn checked_container_url(url: String) -> Result<String, KmsError> {
    let wrong = |what: &str| KmsError::Credentials(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {what}"));
    let parsed = reqwest::Url::parse(&url).map_err(|error| wrong(&error.to_string()))?;
    let host = parsed.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if parsed.scheme() == "https" || local || CONTAINER_HOSTS.contains(&host) {
        return Ok(url);
    }
    Err(wrong(&format!("{host} is neither this machine nor a container platform, and not asked over TLS")))
}

/// What a program prints (`credential_process`).
async fn process(command: &str) -> Result<Credentials, KmsError> {
    let whose = "credential_process";
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", command]).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let wrong = |what: String| KmsError::Credentials(format!("{whose}: {what}"));
    let output = tokio::time::timeout(PROCESS_MAX, shell.output())
        .await
        .map_err(|_| wrong(format!("took more than {} s", PROCESS_MAX.as_secs())))?
        .map_err(|error| wrong(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(wrong(format!("ended with {}: {}", output.status, said.trim())));
    }
    Credentials::from_json(&Zeroizing::new(output.stdout), whose)
}

async fn read_secret(whose: &str, file: &str) -> Result<Zeroizing<String>, KmsError> {
    let content = tokio::fs::read_to_string(PathBuf::from(file)).await.map(Zeroizing::new);
    let content = content.map_err(|error| KmsError::Credentials(format!("{whose}: {file}: {error}")))?;
    Ok(Zeroizing::new(content.trim().to_owned()))
}

/// A name for a session in AWS's audit trail.
fn session_name() -> String {
    format!("mpcium-client-{}", OffsetDateTime::now_utc().unix_timestamp())
}

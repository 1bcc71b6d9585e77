//! The signer against a small server that answers as AWS does, and keeps what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::auth::verify_initiator;

/// What the server was asked.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    headers: String,
    body: String,
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request with what the function makes of it: a status and a body.
    async fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let keep = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let (head, body) = loop {
                    let mut chunk = [0; 4096];
                    let read = stream.read(&mut chunk).await.unwrap();
                    bytes.extend_from_slice(&chunk[..read]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                let (line, headers) = head.split_once("\r\n").unwrap();
                let request = Asked { line: line.to_owned(), headers: headers.to_owned(), body };
                let (status, body) = answer(&request);
                keep.lock().unwrap().push(request);
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                drop(stream.write_all((head + &body).as_bytes()).await);
            }
        });
        Self { url, asked, task }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Who signed the calls of KMS, in their order.
    fn callers(&self) -> Vec<String> {
        let who = |asked: &Asked| {
            let by = asked.headers.split_once("Credential=")?.1.split_once('/')?.0;
            asked.headers.contains("TrentService").then(|| by.to_owned())
        };
        self.asked().iter().filter_map(who).collect()
    }
}

fn key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap()
}

/// What KMS answers to a call.
fn kms(asked: &Asked) -> (u16, String) {
    let request: Value = serde_json::from_str(&asked.body).unwrap();
    let public = key().verifying_key().to_public_key_der().unwrap();
    let answer = if asked.headers.contains("TrentService.GetPublicKey") {
        json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "PublicKey": STANDARD.encode(public.as_bytes())})
    } else {
        let message = STANDARD.decode(request["Message"].as_str().unwrap()).unwrap();
        let digest = match request["MessageType"].as_str().unwrap() {
            "RAW" if message.len() <= 4096 => Sha256::digest(&message).to_vec(),
            "DIGEST" if message.len() == 32 => message,
            _ => return (400, json!({"__type": "ValidationException"}).to_string()),
        };
        let signature: p256::ecdsa::Signature = key().sign_prehash(&digest).unwrap();
        json!({"Signature": STANDARD.encode(signature.to_der().as_bytes())})
    };
    (200, answer.to_string())
}

fn options(server: &Server) -> KmsOptions {
    KmsOptions {
        key_id: "alias/initiator".to_owned(),
        region: Some("eu-west-1".to_owned()),
        endpoint: Some(server.url.clone()),
        credentials: Some(StaticCredentials::new("AKIASTATIC", "secret")),
    }
}

/// An environment in which nothing of this machine is found.
fn environment(more: &[(&str, &str)]) -> Environment {
    let mut variables = vec![("HOME", "/nonexistent"), ("AWS_EC2_METADATA_DISABLED", "true")];
    variables.extend_from_slice(more);
    Environment::of(&variables)
}

#[tokio::test]
async fn long_messages_are_signed_by_their_digest() {
    let server = Server::start(kms).await;
    let signer = KmsSigner::connect_from(options(&server), environment(&[])).await.unwrap();
    for length in [0, 1, RAW_BYTES_MAX, RAW_BYTES_MAX + 1, 100_000] {
        let message = vec![b'm'; length];
        let signature = signer.sign(&message).await.unwrap();
        assert!(signer.public_key().0.verifies(&message, &signature));
    }
    let kinds: Vec<Value> = server.asked()[1..]
        .iter()
        .map(|asked| serde_json::from_str::<Value>(&asked.body).unwrap()["MessageType"].clone())
        .collect();
    assert_eq!(kinds, ["RAW", "RAW", "RAW", "DIGEST", "DIGEST"]);
    assert!(!format!("{signer:?} {:?}", options(&server)).contains("secret"));
}

#[tokio::test]
async fn a_request_is_signed_with_the_key() {
    let server = Server::start(kms).await;
    let signer = KmsSigner::connect_from(options(&server), environment(&[])).await.unwrap();
    let mut request: crate::Request =
        crate::KeygenRequest { wallet_id: "w".to_owned(), ..crate::KeygenRequest::default() }.into();
    request.set_signature(signer.sign(&request.canonical()).await.unwrap());
    let configured = InitiatorKey::parse("p256", &signer.public_key_text()).unwrap();
    verify_initiator(&configured, &request).unwrap();
}

#[tokio::test]
async fn keys_of_other_kinds_are_refused() {
    for (field, value) in [("KeySpec", "ECC_SECG_P256K1"), ("KeyUsage", "KEY_AGREEMENT"), ("PublicKey", "AAAA")] {
        let server = Server::start(move |asked| {
            let (status, body) = kms(asked);
            let mut body: Value = serde_json::from_str(&body).unwrap();
            body[field] = value.into();
            (status, body.to_string())
        })
        .await;
        let refused = KmsSigner::connect_from(options(&server), environment(&[])).await.unwrap_err();
        assert!(matches!(&refused, KmsError::Key(_)), "{field}: {refused}");
    }
}

#[tokio::test]
async fn a_signature_by_another_key_is_not_used() {
    let server = Server::start(|asked| {
        let (status, body) = kms(asked);
        let other = p256::ecdsa::SigningKey::from_slice(&[8; 32]).unwrap();
        let signature: p256::ecdsa::Signature = other.sign_prehash(&Sha256::digest(b"m")).unwrap();
        let wrong = json!({"Signature": STANDARD.encode(signature.to_der().as_bytes())}).to_string();
        (status, if asked.headers.contains("TrentService.Sign") { wrong } else { body })
    })
    .await;
    let signer = KmsSigner::connect_from(options(&server), environment(&[])).await.unwrap();
    assert!(matches!(signer.sign_message(b"m").await, Err(KmsError::Answer(_))));
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_reported() {
    let script = Mutex::new(VecDeque::from([(500, "{}"), (400, r#"{"__type":"com.amazonaws#ThrottlingException"}"#)]));
    let server = Server::start(move |asked| match script.lock().unwrap().pop_front() {
        Some((status, body)) => (status, body.to_owned()),
        None => kms(asked),
    })
    .await;
    KmsSigner::connect_from(options(&server), environment(&[])).await.unwrap();
    assert_eq!(server.asked().len(), 3);

    let server = Server::start(|_| {
        (400, r#"{"__type":"NotFoundException","message":"Alias arn:aws:kms:x is not found."}"#.to_owned())
    })
    .await;
    let refused = KmsSigner::connect_from(options(&server), environment(&[])).await.unwrap_err();
    assert_eq!(refused.to_string(), "KMS refuses: NotFoundException: Alias arn:aws:kms:x is not found.");
    assert_eq!(server.asked().len(), 1);
    assert!(matches!(
        KmsSigner::connect_from(KmsOptions { key_id: String::new(), ..options(&server) }, environment(&[])).await,
        Err(KmsError::Settings(_))
    ));
}

#[tokio::test]
async fn the_region_is_found_and_checked() {
    let of = |key: &str, region: Option<&str>, variables: &[(&str, &str)]| {
        let options = KmsOptions { key_id: key.to_owned(), region: region.map(str::to_owned), ..KmsOptions::default() };
        region_of(&options, &environment(variables))
    };
    let arn = "arn:aws:kms:ap-southeast-1:123456789012:key/1";
    assert_eq!(of(arn, None, &[("AWS_REGION", "us-east-2")]).unwrap(), "ap-southeast-1");
    assert_eq!(of(arn, Some("eu-west-1"), &[]).unwrap(), "eu-west-1");
    assert_eq!(of("alias/x", None, &[("AWS_DEFAULT_REGION", "us-east-2")]).unwrap(), "us-east-2");
    assert!(matches!(of("alias/x", None, &[]), Err(KmsError::Settings(_))));
    assert!(matches!(of("alias/x", Some("evil.example/"), &[]), Err(KmsError::Settings(_))));
    assert_eq!(endpoint_of("kms", "eu-west-1"), "https://kms.eu-west-1.amazonaws.com");
    assert_eq!(endpoint_of("sts", "cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
}

fn region_of(options: &KmsOptions, environment: &Environment) -> Result<String, KmsError> {
    super::region(options, environment)
}

/// A document of credentials as containers and machines serve it.
fn temporary(id: &str, seconds: i64) -> String {
    let expires = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    let expires = expires.format(&time::format_description::well_known::Rfc3339).unwrap();
    json!({"AccessKeyId": id, "SecretAccessKey": "s", "Token": "t", "Expiration": expires}).to_string()
}

async fn signer_of(server: &Server, variables: &[(&str, &str)]) -> Result<KmsSigner, KmsError> {
    let options = KmsOptions { credentials: None, ..options(server) };
    KmsSigner::connect_from(options, environment(variables)).await
}

#[tokio::test]
async fn credentials_of_the_environment_and_of_profiles_are_used() {
    let server = Server::start(kms).await;
    let folder = tempfile::tempdir().unwrap();
    let (shared, config) = (folder.path().join("credentials"), folder.path().join("config"));
    std::fs::write(&shared, "[default]\naws_access_key_id=AKIAFILE\naws_secret_access_key=s\n").unwrap();
    let printed = temporary("ASIAPROCESS", 3600).replace('"', "\\\"");
    let process = format!("[profile ops]\ncredential_process = echo \"{printed}\"\n[profile sso]\nsso_session = x\n");
    std::fs::write(&config, process).unwrap();
    let files =
        [("AWS_SHARED_CREDENTIALS_FILE", shared.to_str().unwrap()), ("AWS_CONFIG_FILE", config.to_str().unwrap())];
    let keys = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "tok")];
    signer_of(&server, &[&files[..], &keys[..]].concat()).await.unwrap();
    signer_of(&server, &files).await.unwrap();
    signer_of(&server, &[&files[..], &[("AWS_PROFILE", "ops")]].concat()).await.unwrap();
    assert_eq!(server.callers(), ["AKIAENV", "AKIAFILE", "ASIAPROCESS"]);
    assert!(server.asked()[0].headers.contains("x-amz-security-token: tok"));

    for (profile, says) in [("sso", "single sign-on"), ("absent", "no such profile")] {
        let refused = signer_of(&server, &[&files[..], &[("AWS_PROFILE", profile)]].concat()).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
    }
    let refused = signer_of(&server, &keys[..1]).await.unwrap_err();
    assert!(refused.to_string().contains("only one of"), "{refused}");
    let refused = signer_of(&server, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("none found"), "{refused}");
}

#[tokio::test]
async fn a_machines_role_is_asked_with_a_token_and_renewed_before_it_ends() {
    let given = Mutex::new(0);
    let server = Server::start(move |asked| match asked.line.as_str() {
        "PUT /latest/api/token HTTP/1.1" => (200, "the-token".to_owned()),
        line if line.starts_with("GET ") && !asked.headers.contains("x-aws-ec2-metadata-token: the-token") => {
            (401, String::new())
        }
        "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1" => (200, "custody\n".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/custody HTTP/1.1" => {
            let mut given = given.lock().unwrap();
            *given += 1;
            // The first ones are about to end.
            (200, temporary(&format!("ASIA{given}"), if *given == 1 { 120 } else { 3600 }))
        }
        _ => kms(asked),
    })
    .await;
    let url = server.url.clone();
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")];
    let signer = signer_of(&server, &variables).await.unwrap();
    signer.sign_message(b"1").await.unwrap();
    signer.sign_message(b"2").await.unwrap();
    assert_eq!(server.callers(), ["ASIA1", "ASIA2", "ASIA2"]);
}

#[tokio::test]
async fn a_containers_role_is_asked_only_where_it_is_safe() {
    let server = Server::start(|asked| {
        if asked.line.starts_with("GET /role ") {
            let allowed = asked.headers.contains("authorization: the-token");
            return if allowed { (200, temporary("ASIACONTAINER", 3600)) } else { (403, String::new()) };
        }
        kms(asked)
    })
    .await;
    let url = format!("{}/role", server.url);
    let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the-token");
    signer_of(&server, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), token]).await.unwrap();
    assert_eq!(server.callers(), ["ASIACONTAINER"]);
    let refused = signer_of(&server, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    let far = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/role"), token];
    let refused = signer_of(&server, &far).await.unwrap_err();
    assert!(refused.to_string().contains("example.com is neither"), "{refused}");
}

#[tokio::test]
async fn a_web_identity_and_a_role_of_a_profile_are_exchanged_for_credentials() {
    let server = Server::start(|asked| {
        if !asked.body.starts_with("Action=") {
            return kms(asked);
        }
        let signed = asked.headers.contains("Credential=AKIABASE/") && asked.headers.contains("/sts/aws4_request");
        let id = match asked.body.split('&').next().unwrap() {
            "Action=AssumeRoleWithWebIdentity" if asked.body.contains("WebIdentityToken=a.b-c_d") => "ASIAWEB",
            "Action=AssumeRole" if signed && asked.body.contains("ExternalId=x1") => "ASIAROLE",
            _ => {
                let refusal =
                    "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
                return (403, refusal.to_owned());
            }
        };
        let body = format!(
            "<R><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>"
        );
        (200, body)
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (token, config) = (folder.path().join("token"), folder.path().join("config"));
    std::fs::write(&token, "a.b-c_d\n").unwrap();
    std::fs::write(
        &config,
        "[profile base]\naws_access_key_id=AKIABASE\naws_secret_access_key=s\n\
         [profile custody]\nrole_arn=arn:aws:iam::1:role/custody\nsource_profile=base\nexternal_id=x1\n\
         [profile plain]\nrole_arn=arn:aws:iam::1:role/custody\nsource_profile=base\n\
         [profile circle]\nrole_arn=arn:aws:iam::1:role/c\nsource_profile=round\n\
         [profile round]\nrole_arn=arn:aws:iam::1:role/r\nsource_profile=circle\n",
    )
    .unwrap();
    let sts = ("AWS_ENDPOINT_URL_STS", server.url.as_str());
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
    signer_of(&server, &[sts, role, ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())]).await.unwrap();
    let config = ("AWS_CONFIG_FILE", config.to_str().unwrap());
    signer_of(&server, &[sts, config, ("AWS_PROFILE", "custody")]).await.unwrap();
    assert_eq!(server.callers(), ["ASIAWEB", "ASIAROLE"]);
    for (profile, says) in [("plain", "AccessDenied: no"), ("circle", "circle")] {
        let refused = signer_of(&server, &[sts, config, ("AWS_PROFILE", profile)]).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[tokio::test]
async fn credentials_that_the_service_calls_expired_are_replaced_once() {
    let given = Mutex::new(0);
    let server = Server::start(move |asked| {
        if asked.line.starts_with("GET /role ") {
            let mut given = given.lock().unwrap();
            *given += 1;
            return (200, temporary(&format!("ASIA{given}"), 3600));
        }
        if asked.headers.contains("Credential=ASIA1/") {
            return (400, r#"{"__type":"ExpiredTokenException"}"#.to_owned());
        }
        kms(asked)
    })
    .await;
    let url = format!("{}/role", server.url);
    signer_of(&server, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]).await.unwrap();
    assert_eq!(server.callers(), ["ASIA1", "ASIA2"]);
}

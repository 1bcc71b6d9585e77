//! Who gets in, against a real nats-server: TLS with certificates on both sides, credentials files, and what people are
//! told when something of it is wrong.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mpcium_core::{Input, NodeId, input::RequestKind, output::Settlement};
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::{Deadlines, Nats, NatsError, NatsOptions, NatsTls};
use crate::{
    notice::Notices,
    ports::{Inbox, Requests as _},
    test_servers::{Authority, Server, eventually, heard, next_input},
};

/// A server that demands a client's certificate, and all that is needed to satisfy it or not.
struct Guarded {
    server: Server,
    authority: Authority,
    stranger: Authority,
    folder: tempfile::TempDir,
}

impl Guarded {
    fn start(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new(folder.path(), "authority");
        let stranger = Authority::new(folder.path(), "stranger");
        let (certificate, key) = authority.issue(folder.path(), "server", host);
        let paths = [&certificate, &key, &authority.certificate].map(|path| path.to_string_lossy().into_owned());
        let server = Server::nats()
            .with(&["--tlsverify", "--tlscert", &paths[0], "--tlskey", &paths[1], "--tlscacert", &paths[2]])
            .started();
        Self { server, authority, stranger, folder }
    }

    fn options(&self, tls: NatsTls) -> NatsOptions {
        let mut options = NatsOptions::new(format!("tls://{}:{}", Ipv4Addr::LOCALHOST, self.server.port), "test");
        options.tls = Some(tls);
        options
    }

    fn client(&self, by: &Authority) -> Option<(PathBuf, PathBuf)> {
        Some(by.issue(self.folder.path(), "node", "node0"))
    }

    fn trusts(&self) -> Option<PathBuf> {
        Some(self.authority.certificate.clone())
    }
}

/// Waits until a connection that cannot be made says so with these words.
async fn says(options: NatsOptions, words: &str) {
    let (notices, texts) = heard();
    let connecting = tokio::spawn(async move { Nats::connect(&options, notices).await.map(drop) });
    eventually(words, async || {
        let texts = texts.lock().expect("whole");
        assert!(!connecting.is_finished(), "it gave up, or got in: {texts:?}");
        texts.iter().any(|text| text.contains(words)).then_some(())
    })
    .await;
    connecting.abort();
}

/// A node can do with this connection what it must.
async fn works(options: &NatsOptions) {
    let nats = Nats::connect(options, Notices::silent()).await.expect("connects");
    let (inbox, mut events) = Inbox::new();
    let day = Duration::from_secs(3600);
    let deadlines = Deadlines { keygen: day, signing: day, reshare: day };
    let ports = nats.ports(NodeId::from_bytes([1; 16]), &inbox, deadlines).await.expect("ports");
    ports.requests.intake(RequestKind::Sign, true);
    nats.context.publish("mpc.signing_request.x", "{}".into()).await.expect("sent").await.expect("taken");
    let Input::Request(delivery) = next_input(&mut events).await else { panic!("a request was expected") };
    ports.requests.settle(delivery.id, Settlement::Acknowledge);
    nats.close().await;
}

#[tokio::test]
async fn certificates_on_both_sides_open_a_server_that_demands_them() {
    let guarded = Guarded::start("127.0.0.1");
    let tls = NatsTls { authority: guarded.trusts(), client: guarded.client(&guarded.authority) };
    works(&guarded.options(tls.clone())).await;
    // The address need not say that it is TLS.
    let mut plain = guarded.options(tls);
    plain.url = plain.url.replace("tls://", "nats://");
    works(&plain).await;
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_told() {
    let guarded = Guarded::start("127.0.0.1");
    let client = guarded.client(&guarded.authority);
    says(guarded.options(NatsTls { authority: None, client: client.clone() }), "nats.tls.ca_cert").await;
    let strangers = Some(guarded.stranger.certificate.clone());
    says(guarded.options(NatsTls { authority: strangers, client }), "does not come from an authority that").await;
    says(guarded.options(NatsTls { authority: guarded.trusts(), client: None }), "demands a client certificate").await;
    let forged = guarded.client(&guarded.stranger);
    says(guarded.options(NatsTls { authority: guarded.trusts(), client: forged }), "does not accept this client's")
        .await;
}

#[tokio::test]
async fn a_server_without_tls_is_told_where_tls_is_demanded() {
    let server = Server::nats().started();
    says(NatsOptions::new(format!("tls://127.0.0.1:{}", server.port), "test"), "does not speak TLS").await;
}

#[tokio::test]
async fn a_certificate_of_another_host_is_told() {
    let guarded = Guarded::start("nats.example");
    let tls = NatsTls { authority: guarded.trusts(), client: guarded.client(&guarded.authority) };
    says(guarded.options(tls), "is for another host").await;
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "authority");
    let (certificate, key) = authority.issue(folder.path(), "node", "node0");
    let (missing, garbage) = (folder.path().join("missing"), folder.path().join("garbage"));
    std::fs::write(&garbage, "neither a certificate nor a key nor credentials").expect("written");
    for bad in [&missing, &garbage] {
        for tls in [
            NatsTls { authority: Some(bad.clone()), client: None },
            NatsTls { authority: None, client: Some((bad.clone(), key.clone())) },
            NatsTls { authority: None, client: Some((certificate.clone(), bad.clone())) },
        ] {
            let mut options = NatsOptions::new("nats://127.0.0.1:1", "test");
            options.tls = Some(tls);
            let error = Nats::connect(&options, Notices::silent()).await.expect_err("a bad file");
            assert!(matches!(&error, NatsError::File { path, .. } if path == bad), "{error}");
        }
        let mut options = NatsOptions::new("nats://127.0.0.1:1", "test");
        options.credentials = Some(bad.clone());
        let error = Nats::connect(&options, Notices::silent()).await.expect_err("a bad file");
        assert!(matches!(&error, NatsError::File { path, .. } if path == bad), "{error}");
    }
}

/// A token as NATS's tools write it (version 2): what `issuer` says of `subject`.
fn token(issuer: &KeyPair, subject: &str, name: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({"jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name, "sub": subject, "nats": claims});
    let signed = [header, body].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).expect("signed"));
    format!("{signed}.{signature}")
}

/// A user's credentials file.
fn credentials(path: &Path, account: &KeyPair) {
    let user = KeyPair::new_user();
    let claims = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    let jwt = token(account, &user.public_key(), "node", &claims);
    let seed = user.seed().expect("its own seed");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(path, text).expect("written");
}

#[tokio::test]
async fn a_credentials_file_opens_a_server_that_trusts_its_operator() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (operator, account, stranger) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let says_so = json!({"type": "operator", "version": 2});
    let of_operator = token(&operator, &operator.public_key(), "operator", &says_so);
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let claims =
        json!({"type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}}});
    let of_account = token(&operator, &account.public_key(), "account", &claims);
    let system = KeyPair::new_account();
    let of_system = token(
        &operator,
        &system.public_key(),
        "system",
        &json!({"type": "account", "version": 2, "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        }}),
    );
    let configuration = folder.path().join("nats.conf");
    let text = format!(
        "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {account}: {of_account}, {system}: {of_system} }}\n",
        account = account.public_key(),
        system = system.public_key(),
    );
    std::fs::write(&configuration, text).expect("written");
    let server = Server::nats().with(&["-c", &configuration.to_string_lossy()]).started();
    let mut options = NatsOptions::new(format!("nats://127.0.0.1:{}", server.port), "test");
    says(options.clone(), "nats.credentials").await;
    let path = folder.path().join("node.creds");
    credentials(&path, &stranger);
    options.credentials = Some(path.clone());
    says(options.clone(), "are not accepted").await;
    credentials(&path, &account);
    works(&options).await;
}

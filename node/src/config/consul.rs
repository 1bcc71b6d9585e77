//! How to reach Consul.
//!
//! Besides the configuration's own keys the variables of Consul's tools count, because the Go system took them through
//! Consul's library: those that say what a key says (the reader knows them) where neither the file nor the key's own
//! variable speaks, and the others as Consul's library reads them. What cannot be done is said.

use std::path::Path;

use mpcium_io::consul::{ConsulTls, KeyPrefix};

use super::{ConsulSettings, Reader, client_certificate, parsed};
use crate::{passwords, secret_text::SecretText};

const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const AUTH: &str = "CONSUL_HTTP_AUTH";
const SSL: &str = "CONSUL_HTTP_SSL";
const SSL_VERIFY: &str = "CONSUL_HTTP_SSL_VERIFY";
const SERVER_NAME: &str = "CONSUL_TLS_SERVER_NAME";
const NAMESPACE: &str = "CONSUL_NAMESPACE";
const PARTITION: &str = "CONSUL_PARTITION";

/// Variables of Consul's tools that are read here.
pub(super) const VARIABLES: &[&str] = &[TOKEN, TOKEN_FILE, AUTH, SSL, SSL_VERIFY, SERVER_NAME, NAMESPACE, PARTITION];

/// Reads how to reach Consul; problems stay in the reader.
pub fn consul(reader: &mut Reader) -> ConsulSettings {
    let address = reader.text("consul.address");
    if address.is_none() {
        reader.required("consul.address");
    }
    let address = match address {
        Some(address) if switch(reader, SSL) == Some(true) => encrypted(&address),
        other => other.unwrap_or_default(),
    };
    let tls = ConsulTls {
        authority: reader.path("consul.tls.ca_cert"),
        client: client_certificate(reader, "consul.tls.client_cert", "consul.tls.client_key"),
    };
    if address.starts_with("https://") {
        warn_of_what_is_not_done(reader);
    } else if !address.is_empty() && (tls.authority.is_some() || tls.client.is_some()) {
        let what = "https:// does not stand before it, so the certificates in consul.tls are not used";
        reader.warn("consul.address", what.to_owned());
    }
    for (name, what) in [(NAMESPACE, "namespace"), (PARTITION, "partition")] {
        if reader.variable(name).is_some() {
            reader.warn_of(name, "consul.prefix", format!("has no effect: keys are in the default {what}"));
        }
    }
    let (username, password) = access(reader);
    ConsulSettings {
        address,
        username,
        password,
        token: token(reader),
        prefix: parsed(reader, "consul.prefix", KeyPrefix::parse),
        tls,
    }
}

/// An address that is to be reached over HTTPS, also where it says `http://`: so Consul's library has it.
fn encrypted(address: &str) -> String {
    match address.split_once("://") {
        None => format!("https://{address}"),
        Some(("http", rest)) => format!("https://{rest}"),
        Some(_) => address.to_owned(),
    }
}

fn warn_of_what_is_not_done(reader: &mut Reader) {
    if switch(reader, SSL_VERIFY) == Some(false) {
        let what = "has no effect: Consul's certificate is always checked; consul.tls.ca_cert (or CONSUL_CACERT) names \
                    the authority that it comes from";
        reader.warn_of(SSL_VERIFY, "consul.tls", what.to_owned());
    }
    if reader.variable(SERVER_NAME).is_some() {
        let what = "has no effect: Consul's certificate has to be for the host in consul.address";
        reader.warn_of(SERVER_NAME, "consul.tls", what.to_owned());
    }
}

/// User and password for basic authentication.
fn access(reader: &mut Reader) -> (Option<String>, Option<SecretText>) {
    let (username, password) = (reader.text("consul.username"), reader.text("consul.password"));
    let (username, password) = match (username, password, reader.variable(AUTH)) {
        (None, None, Some(both)) => match both.split_once(':') {
            Some((username, password)) => (Some(username.to_owned()), Some(password.to_owned())),
            None => (Some(both.to_owned()), None),
        },
        (username, password, _) => (username, password),
    };
    (username, password.map(SecretText::new))
}

/// The access token. Of Consul's own variables the one that names a file comes first, as in Consul's library.
fn token(reader: &mut Reader) -> Option<SecretText> {
    if let Some(token) = reader.text("consul.token") {
        return Some(SecretText::new(token));
    }
    let Some(file) = reader.variable(TOKEN_FILE).map(str::to_owned) else {
        return reader.variable(TOKEN).map(|token| SecretText::new(token.to_owned()));
    };
    passwords::from_file(Path::new(&file))
        .map_err(|problem| reader.problem_of(TOKEN_FILE, "consul.token", problem))
        .ok()
}

/// A variable that says yes or no, in Go's spellings.
fn switch(reader: &mut Reader, name: &str) -> Option<bool> {
    match reader.variable(name)? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        other => {
            let what = format!("expected true or false, got {other:?}: it has no effect");
            reader.warn_of(name, "consul.tls", what);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(file: &str, variables: &[(&str, &str)]) -> Reader {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, to)| (*to).to_owned());
        Reader::new(Path::new("config.yaml"), file, &variable).expect("YAML")
    }

    fn read(file: &str, variables: &[(&str, &str)]) -> ConsulSettings {
        let mut reader = reader(file, variables);
        let settings = consul(&mut reader);
        assert_eq!(reader.finish(), Ok(()));
        settings
    }

    fn warnings(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let mut reader = reader(file, variables);
        consul(&mut reader);
        reader.warnings().iter().map(ToString::to_string).collect()
    }

    fn secret(text: &str) -> Option<SecretText> {
        Some(SecretText::new(text.to_owned()))
    }

    #[test]
    fn variables_of_consuls_own_tools_count_where_nothing_else_speaks() {
        let all = [
            ("CONSUL_HTTP_ADDR", "theirs:1"),
            ("CONSUL_HTTP_TOKEN", "T"),
            ("CONSUL_HTTP_AUTH", "user:pass:word"),
            ("CONSUL_CACERT", "R"),
            ("CONSUL_CAPATH", "folder"),
            ("CONSUL_CLIENT_CERT", "C"),
            ("CONSUL_CLIENT_KEY", "K"),
        ];
        let settings = read("", &all);
        assert_eq!((settings.address.as_str(), settings.token), ("theirs:1", secret("T")));
        assert_eq!((settings.username.as_deref(), settings.password), (Some("user"), secret("pass:word")));
        assert_eq!(settings.tls.authority, Some("R".into()));
        assert_eq!(settings.tls.client, Some(("C".into(), "K".into())));
        assert_eq!(read("", &[all[0], all[4]]).tls.authority, Some("folder".into()));
        assert_eq!(read("", &[all[0], ("CONSUL_HTTP_AUTH", "user")]).username.as_deref(), Some("user"));

        let own = [
            ("CONSUL_ADDRESS", "mine:1"),
            ("CONSUL_TOKEN", "mine"),
            ("CONSUL_USERNAME", "me"),
            ("CONSUL_TLS_CA_CERT", "mine"),
        ];
        let settings = read("", &[&all[..], &own].concat());
        assert_eq!((settings.address.as_str(), settings.token), ("mine:1", secret("mine")));
        assert_eq!((settings.username.as_deref(), settings.password), (Some("me"), None));
        assert_eq!(settings.tls.authority, Some("mine".into()));
        let file = "consul: {address: 'file:1', token: file, password: file, tls: {ca_cert: file}}";
        let settings = read(file, &all);
        assert_eq!((settings.address.as_str(), settings.token), ("file:1", secret("file")));
        assert_eq!((settings.username, settings.password), (None, secret("file")));
        assert_eq!(settings.tls.authority, Some("file".into()));
    }

    #[test]
    fn a_token_in_a_file_comes_before_one_in_a_variable() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "T\n").expect("written");
        let at = path.to_str().expect("text");
        let variables = [("CONSUL_HTTP_ADDR", "h:1"), ("CONSUL_HTTP_TOKEN_FILE", at), ("CONSUL_HTTP_TOKEN", "other")];
        assert_eq!(read("", &variables).token, secret("T"));
        assert_eq!(read("consul: {token: mine}", &variables).token, secret("mine"));
        std::fs::remove_file(&path).expect("removed");
        let mut reader = reader("", &variables);
        consul(&mut reader);
        let told = reader.finish().expect_err("no such file").to_string();
        assert!(told.starts_with("environment variable CONSUL_HTTP_TOKEN_FILE: consul.token: "), "{told}");
    }

    #[test]
    fn https_is_spoken_where_consuls_own_variable_wants_it() {
        let address = |address: &str, ssl: &str| {
            read("", &[("CONSUL_ADDRESS", address), ("CONSUL_HTTP_SSL", ssl), ("CONSUL_CACERT", "R")]).address
        };
        for given in ["h:1", "http://h:1", "https://h:1"] {
            assert_eq!(address(given, "true"), "https://h:1");
        }
        assert_eq!(address("http://h:1", "0"), "http://h:1");
        assert_eq!(address("h:1", "perhaps"), "h:1");
        let with = |ssl: &str| {
            warnings("", &[("CONSUL_ADDRESS", "h:1"), ("CONSUL_HTTP_SSL", ssl), ("CONSUL_TLS_CA_CERT", "R")])
        };
        assert!(with("1").is_empty());
        assert!(matches!(&with("0")[..], [only] if only.contains("https:// does not stand before it")));
        assert!(matches!(&with("perhaps")[..], [first, _] if first.contains("CONSUL_HTTP_SSL: ")));
    }

    #[test]
    fn what_is_not_done_is_said() {
        let variables = [
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
            ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
            ("CONSUL_NAMESPACE", "custody"),
            ("CONSUL_PARTITION", "p"),
        ];
        let told = warnings("consul: {address: 'https://h:1'}", &variables);
        for ((name, _), warning) in variables.iter().zip(&told) {
            assert!(warning.starts_with(&format!("environment variable {name}: consul.")), "{warning}");
            assert!(warning.contains(" has no effect: "), "{warning}");
        }
        assert_eq!(told.len(), variables.len());
        // Without TLS the first two say nothing that could be missed.
        assert_eq!(warnings("consul: {address: 'h:1'}", &variables).len(), 2);
        assert!(warnings("consul: {address: 'https://h:1'}", &[("CONSUL_HTTP_SSL_VERIFY", "true")]).is_empty());
    }
}

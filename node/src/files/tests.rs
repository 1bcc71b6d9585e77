//! Formats byte for byte, permissions, refusals.

use super::*;

const ID: &str = "123e4567-e89b-42d3-a456-426614174000";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

fn peers() -> BTreeMap<String, NodeId> {
    BTreeMap::from([("node0".to_owned(), NodeId::parse(ID).expect("UUID"))])
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn peers_are_sorted_indented_and_without_a_final_newline() {
    let folder = folder();
    let path = folder.path().join("peers.json");
    let peers = BTreeMap::from([("node1".to_owned(), ID.replace('1', "2")), ("node0".to_owned(), ID.to_owned())]);
    write_peers(&path, &peers).expect("written");
    let expected = format!("{{\n  \"node0\": \"{ID}\",\n  \"node1\": \"{}\"\n}}", ID.replace('1', "2"));
    assert_eq!(std::fs::read_to_string(&path).expect("read"), expected);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(read_peers(&path).expect("read back").len(), 2);
    assert!(write_peers(&path, &peers).expect_err("exists").contains("exists already"));
    assert_eq!(std::fs::read_to_string(&path).expect("read"), expected);
}

#[test]
fn new_peers_have_different_version_4_ids() {
    let peers = new_peers(12);
    assert_eq!(peers.len(), 12);
    assert!(peers.contains_key("node11"));
    let ids: std::collections::BTreeSet<&String> = peers.values().collect();
    assert_eq!(ids.len(), 12);
    assert!(ids.iter().all(|id| NodeId::parse(id).is_some() && id.as_bytes()[14] == b'4'));
}

#[test]
fn malformed_peers_are_refused_by_name() {
    let folder = folder();
    let path = folder.path().join("peers.json");
    for (text, part) in [
        ("{}".to_owned(), "names no node"),
        ("[]".to_owned(), "expected an object"),
        ("{\"a\": \"x\"}".to_owned(), "not a UUID"),
        (format!("{{\"a\": \"{ID}\", \"b\": \"{ID}\"}}"), "a and b have the same id"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = read_peers(&path).expect_err("malformed");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn identity_files_have_the_documented_form() {
    let folder = folder();
    let inner = folder.path().join("identity");
    write_identity(&inner, "node0", ID, None, Overwrite::Refuse).expect("written");
    let text = std::fs::read_to_string(identity_path(&inner, "node0")).expect("read");
    let file: IdentityFile = serde_json::from_str(&text).expect("JSON");
    let expected = format!(
        "{{\n  \"node_name\": \"node0\",\n  \"node_id\": \"{ID}\",\n  \"public_key\": \"{}\",\n  \"created_at\": \"{}\"\n}}",
        file.public_key, file.created_at
    );
    assert_eq!(text, expected);
    assert!(file.created_at.len() == 20 && file.created_at.ends_with('Z'), "{}", file.created_at);
    let key = std::fs::read_to_string(private_key_path(&inner, "node0", false)).expect("read");
    assert_eq!(key.len(), 128);
    assert_eq!(key[64..], file.public_key);
    assert_eq!(mode(&private_key_path(&inner, "node0", false)), 0o600);
    assert_eq!(mode(&identity_path(&inner, "node0")), 0o600);
    assert_eq!(mode(&inner) & 0o007, 0);
    let known = read_identities(&inner, &peers()).expect("read back");
    assert_eq!(read_identity(&inner, &known[0], None).expect("private key").public(), known[0].key);
}

#[test]
fn existing_identities_are_kept_unless_overwriting_is_asked_for() {
    let folder = folder();
    write_identity(folder.path(), "node0", ID, None, Overwrite::Refuse).expect("written");
    let before = std::fs::read(private_key_path(folder.path(), "node0", false)).expect("read");
    assert!(write_identity(folder.path(), "node0", ID, None, Overwrite::Refuse).is_err());
    assert_eq!(std::fs::read(private_key_path(folder.path(), "node0", false)).expect("read"), before);
    write_identity(folder.path(), "node0", ID, None, Overwrite::Allow).expect("replaced");
    assert_ne!(std::fs::read(private_key_path(folder.path(), "node0", false)).expect("read"), before);
}

#[test]
fn a_private_key_is_read_strictly_but_for_a_final_newline() {
    let folder = folder();
    write_identity(folder.path(), "node0", ID, None, Overwrite::Refuse).expect("written");
    let known = read_identities(folder.path(), &peers()).expect("read back");
    let path = private_key_path(folder.path(), "node0", false);
    let text = std::fs::read_to_string(&path).expect("read");
    for good in [format!("{text}\n"), format!("{text}\r\n"), text.to_uppercase()] {
        std::fs::write(&path, good).expect("written");
        assert!(read_identity(folder.path(), &known[0], None).is_ok());
    }
    let flipped = if text.starts_with('0') { "1" } else { "0" };
    for (bad, part) in [
        (format!(" {text}"), "expected 128"),
        (format!("{text}\n\n"), "expected 128"),
        (text[..64].to_owned(), "expected 128"),
        (format!("{flipped}{}", &text[1..]), "does not belong"),
    ] {
        std::fs::write(&path, bad).expect("written");
        let problem = read_identity(folder.path(), &known[0], None).expect_err("malformed");
        let KeyProblem::NoKey(error) = problem else { panic!("{problem:?}") };
        assert!(error.contains(part) && !error.contains(&text[..32]), "{error}");
    }
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let folder = folder();
    let passphrase = SecretText::new("a long passphrase!".to_owned());
    write_identity(folder.path(), "node0", ID, Some(&passphrase), Overwrite::Refuse).expect("written");
    assert!(!private_key_path(folder.path(), "node0", false).exists());
    let sealed = std::fs::read(private_key_path(folder.path(), "node0", true)).expect("read");
    assert!(sealed.starts_with(b"age-encryption.org/v1\n-> scrypt "));
    let known = read_identities(folder.path(), &peers()).expect("read back");
    assert!(read_identity(folder.path(), &known[0], Some(&passphrase)).is_ok());
    let wrong = SecretText::new("another passphrase!".to_owned());
    let problem = read_identity(folder.path(), &known[0], Some(&wrong)).expect_err("wrong");
    assert!(matches!(&problem, KeyProblem::WrongPassphrase(text) if text.contains("wrong passphrase")), "{problem:?}");
    let path = private_key_path(folder.path(), "node0", true);
    std::fs::write(&path, "no key").expect("written");
    let problem = read_identity(folder.path(), &known[0], Some(&passphrase)).expect_err("no key");
    assert!(matches!(problem, KeyProblem::NoKey(_)), "{problem:?}");
    std::fs::remove_file(&path).expect("removed");
    let problem = read_identity(folder.path(), &known[0], Some(&passphrase)).expect_err("missing");
    assert!(matches!(problem, KeyProblem::Missing(_)), "{problem:?}");
}

#[test]
fn a_file_that_others_may_read_is_told_from_one_that_they_may_not() {
    let folder = folder();
    let path = folder.path().join("key");
    assert_eq!(open_to_others(&path), None);
    write(&path, b"secret", Overwrite::Refuse).expect("written");
    assert_eq!(open_to_others(&path), None);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).expect("permissions");
    assert!(open_to_others(&path).is_some_and(|found| found.contains("mode 604")));
}

#[test]
fn an_identity_that_differs_from_the_peers_is_refused() {
    let folder = folder();
    write_identity(folder.path(), "node0", &ID.replace('1', "2"), None, Overwrite::Refuse).expect("written");
    let error = read_identities(folder.path(), &peers()).expect_err("other id");
    assert!(error.contains("peers.json says"), "{error}");
}

#[test]
fn initiator_files_have_the_documented_form() {
    let folder = folder();
    let public = write_initiator(folder.path(), "event_initiator", Algorithm::Ed25519, None, Overwrite::Refuse)
        .expect("written");
    let text = std::fs::read_to_string(folder.path().join("event_initiator.identity.json")).expect("read");
    let names: Vec<&str> = text.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(
        names,
        ["node_name", "algorithm", "public_key", "created_at", "created_by", "machine_os", "machine_name"]
    );
    assert!(!text.ends_with('\n'));
    let key = std::fs::read_to_string(folder.path().join("event_initiator.key")).expect("read");
    let seed: [u8; 32] = hex::decode(&key).expect("hex").try_into().expect("32 bytes");
    assert_eq!(hex::encode(SigningKey::from_bytes(&seed).verifying_key().as_bytes()), public);
}

#[test]
fn authorizer_files_have_the_documented_form() {
    let folder = folder();
    write_authorizer(folder.path(), "bob", Algorithm::P256, None, Overwrite::Refuse).expect("written");
    let text = std::fs::read_to_string(folder.path().join("bob.authorizer.identity.json")).expect("read");
    let file: AuthorizerFile = serde_json::from_str(&text).expect("JSON");
    assert_eq!((file.name.as_str(), file.algorithm.as_str()), ("bob", "p256"));
    assert!(folder.path().join("bob.authorizer.key").exists());
}

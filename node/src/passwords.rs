//! Passwords and passphrases: from the configuration, from systemd, from files and from the terminal.
//!
//! Order for the store's password: configuration and environment, then systemd's credential, then `--password-file`,
//! then the prompt; the last one that speaks wins.

use std::{io::IsTerminal as _, path::Path};

use crate::{cli::Passwords, files, secret_text::SecretText};

/// The credential (`LoadCredential=` or `LoadCredentialEncrypted=` in a systemd unit) with the store's password.
pub const STORE_CREDENTIAL: &str = "store_password";
/// The credential with the passphrase of the identity's private key.
pub const IDENTITY_CREDENTIAL: &str = "identity_passphrase";

/// Shortest passphrase for an encrypted key file, in bytes.
const PASSPHRASE_BYTES_MIN: usize = 12;

/// The store's password, from whatever speaks last.
///
/// # Errors
/// If a source is named and cannot be used, or none is.
pub fn store(configured: Option<&SecretText>, options: &Passwords) -> Result<SecretText, String> {
    let mut password = configured.cloned();
    if let Some(found) = credential(STORE_CREDENTIAL)? {
        password = Some(found);
    }
    if let Some(path) = &options.password_file {
        password = Some(from_file(path)?);
    }
    if options.prompt_credentials {
        password = Some(prompt_store_password()?);
    }
    password.ok_or_else(|| {
        format!(
            "no password for the store: set store_password (or the variable STORE_PASSWORD), use --password-file or \
             --prompt-credentials, or let systemd load the credential {STORE_CREDENTIAL}"
        )
    })
}

/// The passphrase of the identity's private key; `None`: it is not encrypted.
///
/// # Errors
/// If a source is named and cannot be used.
pub fn identity(options: &Passwords) -> Result<Option<SecretText>, String> {
    if !options.decrypt_private_key {
        return Ok(None);
    }
    if let Some(path) = &options.identity_password_file {
        return from_file(path).map(Some);
    }
    match credential(IDENTITY_CREDENTIAL)? {
        Some(found) => Ok(Some(found)),
        None => prompt_identity_passphrase().map(Some),
    }
}

/// A credential that systemd has put into this service's folder.
fn credential(name: &str) -> Result<Option<SecretText>, String> {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let path = Path::new(&folder).join(name);
    if path.exists() { from_file(&path).map(Some) } else { Ok(None) }
}

/// Reads a password from a file; white space around it is no part of it.
///
/// # Errors
/// If the file is missing, empty or not text.
pub fn from_file(path: &Path) -> Result<SecretText, String> {
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{}: is not UTF-8 text", path.display()))?.trim();
    if text.is_empty() {
        return Err(format!("{}: the password file is empty", path.display()));
    }
    Ok(SecretText::new(text.to_owned()))
}

/// Asks for the store's password twice, until both are equal and not empty.
///
/// # Errors
/// If there is no terminal.
pub fn prompt_store_password() -> Result<SecretText, String> {
    println!("IMPORTANT: keep a safe copy of this password. Without it nothing in this node's store can be read.");
    loop {
        let first = ask("Enter Badger DB password: ")?;
        let second = ask("Confirm Badger DB password: ")?;
        if first.expose().is_empty() {
            println!("The password cannot be empty. Please try again.");
        } else if first != second {
            println!("The passwords do not match. Please try again.");
        } else {
            // That system shows the first and the last character and the length here, which is too much.
            println!("Password set: ********");
            return Ok(first);
        }
    }
}

/// Asks for the passphrase of an existing identity key.
///
/// # Errors
/// If there is no terminal.
pub fn prompt_identity_passphrase() -> Result<SecretText, String> {
    ask("Enter passphrase to decrypt private key: ")
}

/// Asks for a new passphrase twice.
///
/// # Errors
/// If there is no terminal, the two differ, or it is too weak.
pub fn prompt_new_passphrase() -> Result<SecretText, String> {
    let first = ask("Enter passphrase to encrypt private key: ")?;
    let second = ask("Confirm passphrase: ")?;
    if first != second {
        return Err("the passphrases do not match".to_owned());
    }
    check_passphrase(first.expose())?;
    Ok(first)
}

/// Whether a new passphrase is strong enough.
///
/// # Errors
/// What it lacks.
pub fn check_passphrase(text: &str) -> Result<(), String> {
    if text.len() < PASSPHRASE_BYTES_MIN {
        return Err(format!("the passphrase has {} bytes, expected at least {PASSPHRASE_BYTES_MIN}", text.len()));
    }
    if text.chars().all(char::is_alphanumeric) {
        return Err("the passphrase needs at least one character that is neither a letter nor a digit".to_owned());
    }
    Ok(())
}

fn ask(prompt: &str) -> Result<SecretText, String> {
    if !std::io::stdin().is_terminal() {
        return Err(format!("cannot ask \"{}\": there is no terminal", prompt.trim_end_matches([':', ' '])));
    }
    rpassword::prompt_password(prompt).map(SecretText::new).map_err(|error| format!("no password was read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_trimmed_and_must_not_be_empty() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "  with space inside \n").expect("written");
        assert_eq!(from_file(&path).expect("read").expose(), "with space inside");
        std::fs::write(&path, " \n").expect("written");
        assert!(from_file(&path).expect_err("empty").contains("empty"));
    }

    #[test]
    fn a_new_passphrase_needs_length_and_a_sign() {
        assert!(check_passphrase("short!").is_err());
        assert!(check_passphrase("onlylettersandd1g1ts").is_err());
        assert!(check_passphrase("long enough!").is_ok());
    }
}

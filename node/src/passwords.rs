//! Passwords and passphrases from files and from the terminal.
//!
//! Order for the store's password: configuration and environment, then `--password-file`, then the prompt; the last
//! one that speaks wins.

use std::{io::IsTerminal as _, path::Path};

use crate::{files, secret_text::SecretText};

/// Shortest passphrase for an encrypted key file, in bytes.
const PASSPHRASE_BYTES_MIN: usize = 12;

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
            println!("Password set: {}", masked(first.expose()));
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

/// First and last character, stars between.
fn masked(text: &str) -> String {
    let count = text.chars().count();
    match (text.chars().next(), text.chars().last()) {
        (Some(first), Some(last)) if count > 2 => format!("{first}{}{last}", "*".repeat(count - 2)),
        _ => "*".repeat(count),
    }
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

    #[test]
    fn a_shown_password_hides_the_middle() {
        assert_eq!(masked("abcd"), "a**d");
        assert_eq!(masked("ab"), "**");
    }
}

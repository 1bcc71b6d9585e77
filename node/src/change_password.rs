//! `mpcium change-password`: another password for the store of a node that does not run.
//!
//! One small file with the data key is replaced, so it takes a second whatever the store holds, and a crash leaves
//! either password valid.

use std::path::Path;

use mpcium_core::Secret;
use mpcium_io::fjall::{self, PasswordCost};

use crate::{cli::ChangePassword, config, passwords, secret_text::SecretText, start};

/// `change-password`.
///
/// # Errors
/// If the present password is wrong, there is no store, or a node has it open.
pub fn run(config: Option<&Path>, options: &ChangePassword) -> Result<(), String> {
    let mut reader = config::open(config)?;
    let settings = config::settings(&mut reader).map_err(|errors| errors.to_string())?;
    let path = start::node_folder(&settings.db_path, &options.name).join("store");
    let old = passwords::store(settings.store_password.as_ref(), &options.passwords)?;
    let new = match &options.new_password_file {
        Some(path) => passwords::from_file(path)?,
        None => passwords::prompt_store_password()?,
    };
    if old == new {
        return Err("the new password is the present one".to_owned());
    }
    change(&path, &old, &new, PasswordCost::STANDARD)?;
    println!("The store {} has a new password.", path.display());
    println!(
        "Give the node the new one before it is started. Copies of the store from before still open with the old."
    );
    Ok(())
}

fn change(path: &Path, old: &SecretText, new: &SecretText, cost: PasswordCost) -> Result<(), String> {
    let secret = |text: &SecretText| Secret::new(text.expose().as_bytes().to_vec());
    fjall::change_password(path, &secret(old), &secret(new), cost).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_new_password_opens_the_store_afterwards() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("store");
        let text = |text: &str| SecretText::new(text.to_owned());
        let open = |password: &str, options: fjall::Options| {
            fjall::open(&path, &Secret::new(password.as_bytes().to_vec()), options).map(drop)
        };
        assert!(change(&path, &text("one"), &text("two"), PasswordCost::TRIVIAL).is_err(), "there is none");
        open("one", fjall::Options::create_if_absent(PasswordCost::TRIVIAL)).expect("made");
        assert!(change(&path, &text("wrong"), &text("two"), PasswordCost::TRIVIAL).is_err());
        change(&path, &text("one"), &text("two"), PasswordCost::TRIVIAL).expect("changed");
        assert!(open("one", fjall::Options::existing()).is_err());
        open("two", fjall::Options::existing()).expect("opened");
    }
}

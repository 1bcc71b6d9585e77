//! The configuration files that AWS's tools share: `~/.aws/config` and `~/.aws/credentials`.

use std::collections::BTreeMap;

use super::{KmsError, credentials::Environment};

type Section = BTreeMap<String, String>;

/// The profiles of both files. A value in the credentials file wins over one in the other.
#[derive(Default)]
pub(super) struct Profiles {
    sections: BTreeMap<String, Section>,
    asked: Option<String>,
}

impl Profiles {
    /// Reads both files; one that is missing is empty.
    pub(super) fn read(environment: &Environment) -> Result<Self, KmsError> {
        let mut profiles = Self { asked: environment.get("AWS_PROFILE"), ..Self::default() };
        let home = environment.get("HOME").unwrap_or_default();
        for (variable, name, prefixed) in
            [("AWS_CONFIG_FILE", "config", true), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", false)]
        {
            let path = environment.get(variable).unwrap_or_else(|| format!("{home}/.aws/{name}"));
            match std::fs::read_to_string(&path) {
                Ok(text) => profiles.add(&zeroize::Zeroizing::new(text), prefixed),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(KmsError::Credentials(format!("{path}: {error}"))),
            }
        }
        Ok(profiles)
    }

    /// Takes a file's sections in. In the configuration file all but the default profile have the word `profile`
    /// before their name; other kinds of sections are of no interest here.
    fn add(&mut self, text: &str, prefixed: bool) {
        let mut current: Option<String> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name)
            {
                let name = header.trim();
                current = match name.split_once(char::is_whitespace) {
                    Some(("profile", name)) if prefixed => Some(name.trim().to_owned()),
                    None if !prefixed || name == "default" => Some(name.to_owned()),
                    _ => None,
                };
                if let Some(name) = &current {
                    self.sections.entry(name.clone()).or_default();
                }
            } else if let (Some(name), Some((key, value))) = (&current, trimmed.split_once('='))
                // Lines with white space before them belong to a nested value.
                && !line.starts_with(char::is_whitespace)
            {
                let section = self.sections.entry(name.clone()).or_default();
                section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }

    /// The profile to use.
    pub(super) fn chosen(&self) -> &str {
        self.asked.as_deref().unwrap_or("default")
    }

    /// Whether somebody names this profile, so that it has to be there.
    pub(super) fn is_asked_for(&self, name: &str) -> bool {
        self.asked.as_deref() == Some(name) || name != "default"
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.sections.contains_key(name)
    }

    pub(super) fn value(&self, profile: &str, key: &str) -> Option<&str> {
        self.sections.get(profile)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_both_files_are_one() {
        let mut profiles = Profiles::default();
        profiles.add(
            "# comment\n[default]\nregion = eu-west-1\n[profile custody]\nrole_arn = arn:aws:iam::1:role/x\n\
             source_profile=default\ns3 =\n  region = nested\n[sso-session corp]\nregion = other\n[stray]\nregion = x\n",
            true,
        );
        profiles.add("[default]\naws_access_key_id = AKIA\nAWS_SECRET_ACCESS_KEY = a=b\n; done\n[ops]\nx=1\n", false);
        assert_eq!(profiles.value("default", "region"), Some("eu-west-1"));
        assert_eq!(profiles.value("default", "aws_secret_access_key"), Some("a=b"));
        assert_eq!(profiles.value("custody", "source_profile"), Some("default"));
        assert_eq!(profiles.value("custody", "region"), None);
        assert!(profiles.has("ops") && !profiles.has("corp") && !profiles.has("stray"));
        assert_eq!((profiles.chosen(), profiles.is_asked_for("default")), ("default", false));
    }
}

//! An emulator of AWS KMS (moto's server, from PyPI), with keys that are made by AWS's own command line.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    process::Process,
    programs,
    servers::free_port,
    wait::{self, PATIENCE},
};

/// The region in which keys are made.
pub const REGION: &str = "us-east-1";
/// The account that the emulator gives to callers without one.
const ACCOUNT: &str = "123456789012";

/// A running emulator.
#[derive(Debug)]
pub struct Kms {
    port: u16,
    _process: Process,
}

/// A key of P-256 in the emulator.
#[derive(Clone, Debug)]
pub struct KmsKey {
    /// Its id.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// Its alias, with the prefix `alias/`.
    pub alias: String,
    /// The public key as a cluster's configuration spells it.
    pub public: String,
}

impl Kms {
    /// Starts the emulator on a free port, with its log in `folder`. `variables` are added to its environment.
    ///
    /// # Errors
    /// If it is not installed or does not answer in time.
    pub async fn start(folder: &Path, variables: &[(&str, &str)]) -> Result<Self, String> {
        let port = free_port()?;
        let mut command = Command::new(program("moto_server")?);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).envs(variables.iter().copied());
        let mut process = Process::start("moto_server", command, folder, &folder.join("kms.log"))?;
        wait::until_sync("the emulator of KMS to listen", PATIENCE, || {
            if let Some(status) = process.ended()? {
                return Err(format!("it ended with {status}: {}", crate::process::tail(process.log())));
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        })
        .await?;
        Ok(Self { port, _process: process })
    }

    /// Its address.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls AWS's command line on the emulator, as anybody, and returns the JSON that it prints.
    ///
    /// # Errors
    /// If it fails: what it said.
    pub fn aws(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = aws()?
            .args(["--endpoint-url", &self.endpoint(), "--output", "json"])
            .args(arguments)
            .output()
            .map_err(|error| format!("aws: {error}"))?;
        if !output.status.success() {
            return Err(format!("aws {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
        }
        if output.stdout.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("aws {}: {error}", arguments.join(" ")))
    }

    /// Makes a key of P-256 and an alias for it.
    ///
    /// # Errors
    /// If the emulator refuses.
    pub fn create_key(&self, alias: &str) -> Result<KmsKey, String> {
        let made = self.aws(&["kms", "create-key", "--key-usage", "SIGN_VERIFY", "--key-spec", "ECC_NIST_P256"])?;
        let text = |name: &str| {
            made.pointer(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("no {name} in {made}"))
        };
        let (id, arn) = (text("/KeyMetadata/KeyId")?, text("/KeyMetadata/Arn")?);
        if !arn.contains(ACCOUNT) {
            return Err(format!("the key's ARN {arn} is not of account {ACCOUNT}"));
        }
        let alias = format!("alias/{alias}");
        self.aws(&["kms", "create-alias", "--alias-name", &alias, "--target-key-id", &id])?;
        let shown = self.aws(&["kms", "get-public-key", "--key-id", &id])?;
        let public = shown["PublicKey"]
            .as_str()
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| format!("no public key in {shown}"))?;
        Ok(KmsKey { id, arn, alias, public: hex::encode(public) })
    }
}

/// AWS's command line, in an environment in which no setting of the caller's counts.
///
/// # Errors
/// If it is not installed.
pub fn aws() -> Result<Command, String> {
    let mut command = Command::new(program("aws")?);
    command.env_clear().stdin(Stdio::null());
    for (name, value) in [
        ("PATH", std::env::var("PATH").unwrap_or_default().as_str()),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", REGION),
        // Nobody's settings, and no search for a role on a machine that has none.
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        command.env(name, value);
    }
    Ok(command)
}

fn program(name: &str) -> Result<PathBuf, String> {
    programs::tool(&Path::new("kms/bin").join(name), "make kms-emulator (scripts/fetch-kms-emulator.sh)")
}

//! What all examples begin with: a command line, a connection, a client.

use std::{collections::BTreeMap, error::Error, fmt, time::Duration};

use mpcium_client::{
    Prefix,
    client::{Client, Options},
    signer::Signer,
};

/// Why an example ends early.
pub struct Failure(Box<dyn Error>);

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// What `main` returns is shown with `Debug`, and people want words.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(next) = cause {
            write!(f, ": {next}")?;
            cause = next.source();
        }
        Ok(())
    }
}
/// How long an example waits for the cluster's answer.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The command line: options with a value, as in `--wallet treasury-1`, each with a default.
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Reads them. `known` names the options of this example, besides those of all.
    pub fn read(known: &[&str]) -> Result<Self, Failure> {
        let common = ["--nats", "--nats-prefix", "--initiator", "--algorithm", "--passphrase-file"];
        let mut given = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            if ["--help", "-h"].contains(&name.as_str()) {
                println!("Options, each with a value after it: {}", [known, &common].concat().join(" "));
                std::process::exit(0);
            }
            if !known.contains(&name.as_str()) && !common.contains(&name.as_str()) {
                return Err(format!("{name}: expected one of {}", [known, &common].concat().join(", ")).into());
            }
            let value = arguments.next().ok_or_else(|| format!("{name}: expected a value after it"))?;
            given.insert(name, value);
        }
        Ok(Self(given))
    }

    /// An option's value, or its default.
    pub fn get<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    /// A client of the cluster behind `--nats URL`, and behind `--nats-prefix PREFIX` where clusters share it.
    pub async fn client(&self, signer: impl Signer) -> Result<Client, Failure> {
        let url = self.get("--nats", "nats://127.0.0.1:4222");
        let nats = async_nats::connect(url).await.map_err(|error| format!("the NATS server at {url}: {error}"))?;
        let prefix = Prefix::parse(self.get("--nats-prefix", ""))?;
        Ok(Client::new(nats, signer, Options { prefix, ..Options::default() }).await?)
    }
}

//! The command line. The same program is installed as `mpcium` and as `mpcium-cli`, and both know every command.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{config, demo, files::Algorithm, provision, start, status, wallet};

/// A node of a threshold-signature cluster, and the tools around it.
#[derive(Debug, Parser)]
#[command(version, disable_version_flag = true)]
pub struct Cli {
    /// Prints the version.
    #[arg(short = 'v', long = "version", action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Configuration file (otherwise config.yaml in ., /etc/mpcium/ or ~/.mpcium/).
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node.
    Start(Start),
    /// Shows how a running node is.
    Status {
        /// The node's name.
        #[arg(short, long)]
        name: String,
        /// Print the JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Creates wallets.
    #[command(subcommand)]
    Wallet(Wallet),
    /// Signs with a wallet.
    Sign(Sign),
    /// Runs a whole cluster in this process, creates a wallet and signs with it.
    Demo(Demo),
    /// Prints the version.
    Version,
    /// Makes peers.json with fresh node ids.
    GeneratePeers {
        /// How many nodes.
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=32))]
        number: u16,
        /// Where to write it.
        #[arg(short, long, default_value = "peers.json")]
        output: PathBuf,
    },
    /// Writes the nodes of peers.json into Consul.
    RegisterPeers {
        /// The file.
        #[arg(short, long, default_value = "peers.json")]
        peers: PathBuf,
        /// `production` or `development`.
        #[arg(short, long, env = "ENVIRONMENT")]
        environment: Option<String>,
    },
    /// Makes a node's identity.
    GenerateIdentity {
        /// The node's name in peers.json.
        #[arg(short, long)]
        node: String,
        /// The file with the nodes' ids.
        #[arg(short, long, default_value = "peers.json")]
        peers: PathBuf,
        /// Where to write the identity.
        #[arg(short, long, default_value = "identity")]
        output_dir: PathBuf,
        #[command(flatten)]
        how: KeyFile,
    },
    /// Makes the key whose owner may create wallets and sign.
    GenerateInitiator {
        /// Base name of the files.
        #[arg(short, long, default_value = "event_initiator")]
        node_name: String,
        #[command(flatten)]
        client: ClientKey,
        #[command(flatten)]
        how: KeyFile,
    },
    /// Makes the key of somebody who approves requests.
    GenerateAuthorizer {
        /// The authorizer's id: letters, digits, _ and -.
        #[arg(short, long)]
        name: String,
        #[command(flatten)]
        client: ClientKey,
        #[command(flatten)]
        how: KeyFile,
    },
    /// Makes the folders of a whole cluster on this machine.
    GenerateConfigs(GenerateConfigs),
}

/// `mpcium start`.
#[derive(Clone, Debug, Args)]
pub struct Start {
    /// The node's name in peers.json.
    #[arg(short, long)]
    pub name: String,
    /// The identity's private key is encrypted (.age).
    #[arg(short, long)]
    pub decrypt_private_key: bool,
    /// Ask for the store's password.
    #[arg(short, long)]
    pub prompt_credentials: bool,
    /// File with the store's password.
    #[arg(short = 'f', long)]
    pub password_file: Option<PathBuf>,
    /// File with the passphrase of the identity's private key.
    #[arg(short = 'k', long)]
    pub identity_password_file: Option<PathBuf>,
    /// Register the nodes of this file in Consul first.
    #[arg(long)]
    pub peers: Option<PathBuf>,
    /// Log more.
    #[arg(long)]
    pub debug: bool,
    /// Safe primes from a file instead of fresh ones. For tests.
    #[arg(long, hide = true)]
    pub primes: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct KeyFile {
    /// Encrypt the private key with a passphrase.
    #[arg(short, long)]
    encrypt: bool,
    /// Replace existing files.
    #[arg(short = 'f', long)]
    overwrite: bool,
}

#[derive(Debug, Args)]
struct ClientKey {
    /// Where to write the files.
    #[arg(short, long, default_value = ".")]
    output_dir: PathBuf,
    /// The kind of key.
    #[arg(short, long, value_enum, default_value = "ed25519")]
    algorithm: Algorithm,
}

/// How the commands that talk to a cluster reach it.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// NATS server (otherwise nats.url of the configuration).
    #[arg(long)]
    pub nats: Option<String>,
    /// The initiator's private key; a name that ends in .age asks for its passphrase.
    #[arg(long, default_value = "event_initiator.key")]
    pub key_path: PathBuf,
    /// The kind of the initiator's key.
    #[arg(long, value_enum, default_value = "ed25519")]
    pub key_algorithm: Algorithm,
    /// Give up after this many seconds.
    #[arg(short, long, default_value_t = 900)]
    pub timeout: u64,
    /// Print the JSON document.
    #[arg(long)]
    pub json: bool,
}

impl Reach {
    /// How long to wait for an answer.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

#[derive(Debug, Subcommand)]
enum Wallet {
    /// Creates a wallet and shows its addresses.
    Create {
        /// The wallet's id (otherwise a fresh UUID).
        wallet: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
}

/// `mpcium sign`.
#[derive(Clone, Debug, Args)]
pub struct Sign {
    /// The wallet's id.
    #[arg(short, long)]
    pub wallet: String,
    /// The curve to sign on.
    #[arg(short = 'k', long, value_parser = ["secp256k1", "ed25519"])]
    pub key_type: String,
    /// The message in hexadecimal: for secp256k1 the 32-byte digest, for ed25519 the message itself.
    #[arg(long, required_unless_present = "message", conflicts_with = "message")]
    pub hex: Option<String>,
    /// A text message; for secp256k1 its SHA-256 is signed.
    #[arg(short, long)]
    pub message: Option<String>,
    /// The transaction's id (otherwise a fresh UUID). Repeating an id gives the stored signature again.
    #[arg(long)]
    pub tx_id: Option<String>,
    /// The network code that is echoed in the result.
    #[arg(long, default_value = "")]
    pub network: String,
    /// Child key, for example 44/60/0/0/0 (needs chain_code in the nodes' configuration).
    #[arg(long)]
    pub path: Option<String>,
    /// The wallet's public key as `wallet create` prints it: the signature is verified before it is shown. With --path
    /// the child key is derived from it, with chain_code of the configuration.
    #[arg(long, value_name = "HEX")]
    pub public_key: Option<String>,
    /// How to reach the cluster.
    #[command(flatten)]
    pub reach: Reach,
}

/// `mpcium demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Safe primes from a file: seconds instead of minutes.
    #[arg(long)]
    pub primes: Option<PathBuf>,
    /// Keep the cluster running afterwards, with a prompt.
    #[arg(long)]
    pub keep: bool,
    /// Write the nodes' logs here.
    #[arg(long)]
    pub log: Option<PathBuf>,
}

/// `mpcium generate-configs`.
#[derive(Clone, Debug, Args)]
pub struct GenerateConfigs {
    /// Folder to make.
    #[arg(short, long, default_value = "dev")]
    pub output_dir: PathBuf,
    /// How many nodes.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=32))]
    pub number: u16,
    /// How many of them sign together (otherwise the smallest majority).
    #[arg(short, long)]
    pub threshold: Option<u16>,
    /// NATS server.
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    pub nats: String,
    /// Consul.
    #[arg(long, default_value = "127.0.0.1:8500")]
    pub consul: String,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, String> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Start(options) => return start::start(config, &options),
        Command::Status { name, json } => block_on(show_status(config, &name, json)),
        Command::Wallet(Wallet::Create { wallet, reach }) => block_on(wallet::create(config, wallet, &reach)),
        Command::Sign(options) => block_on(wallet::sign(config, &options)),
        Command::Demo(options) => demo::run(&options),
        Command::Version => {
            println!("{} version {}", program_name(), env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::GeneratePeers { number, output } => provision::generate_peers(number, &output),
        Command::RegisterPeers { peers, environment } => {
            block_on(provision::register_peers(config, &peers, environment.as_deref()))
        }
        Command::GenerateIdentity { node, peers, output_dir, how } => {
            provision::generate_identity(&node, &peers, &output_dir, how.encrypt, how.overwrite)
        }
        Command::GenerateInitiator { node_name, client, how } => {
            provision::generate_initiator(&node_name, &client.output_dir, client.algorithm, how.encrypt, how.overwrite)
        }
        Command::GenerateAuthorizer { name, client, how } => {
            provision::generate_authorizer(&name, &client.output_dir, client.algorithm, how.encrypt, how.overwrite)
        }
        Command::GenerateConfigs(options) => provision::generate_configs(&options),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The name under which the program was called.
fn program_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "mpcium".to_owned())
}

/// Runs one command that waits for others.
fn block_on(command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?
        .block_on(command)
}

async fn show_status(config: Option<&Path>, name: &str, json: bool) -> Result<(), String> {
    let mut reader = config::open(config)?;
    let db_path = reader.path("db_path").unwrap_or_else(|| PathBuf::from(config::DB_PATH_DEFAULT));
    let answer = status::ask(&start::node_folder(&db_path, name)).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&answer).map_err(|error| error.to_string())?);
    } else {
        print!("{}", status::render(&answer));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_lines_of_the_go_system_parse() {
        for line in [
            "mpcium start -n node0",
            "mpcium start --name node0 --config c.yaml --decrypt-private-key --prompt-credentials",
            "mpcium start -n node0 -c c.yaml -d -k pass -f password --peers peers.json --debug",
            "mpcium version",
            "mpcium-cli version",
            "mpcium-cli generate-peers -n 3",
            "mpcium-cli generate-peers --number 3 --output other.json",
            "mpcium-cli -c config.yaml register-peers",
            "mpcium-cli register-peers --peers p.json --environment production --config config.yaml",
            "mpcium-cli generate-identity --node node0 --peers peers.json --output-dir identity --encrypt --overwrite",
            "mpcium-cli generate-identity -n node0 -p peers.json -o identity -e -f",
            "mpcium-cli generate-initiator",
            "mpcium-cli generate-initiator -n event_initiator -o . -e -f -a p256",
            "mpcium-cli generate-authorizer --name bob --algorithm ed25519",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in ["mpcium start", "mpcium-cli generate-peers", "mpcium-cli generate-peers -n 0", "mpcium"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}

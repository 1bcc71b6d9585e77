//! The command line. The same program is installed as `mpcium` and as `mpcium-cli`, and both know every command.
//!
//! Commands, flags and their short forms are those of the Go system's two programs, and more. Results go to stdout,
//! errors to stderr, and whatever fails ends with exit code 1, wrong usage included.

mod version;
mod words;

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use mpcium_client::MessageHash;
use mpcium_core::protocol::EcdsaProtocol;

pub use version::{COMPATIBLE_WITH, VERSION, arithmetic};

use crate::{
    benchmark, change_password, config, demo, doctor, files::Algorithm, provision, recover, start, status, wallet,
};

/// What `--help` says after the commands.
const EXAMPLES: &str = "\
Examples:
  mpcium demo                                  a whole cluster in one process, to see what it does
  mpcium generate-configs -o dev               the folders of a cluster on this machine
  mpcium start -n node0                        runs a node; its files are in the current folder
  mpcium status -n node0                       how a running node is
  mpcium doctor -n node0                       what is wrong, and what to do about it
  mpcium wallet create treasury                creates a wallet and shows its addresses
  mpcium sign -w treasury -k ed25519 -m hello  signs with it

Every key of the configuration can also be given as an environment variable: nats.url is NATS_URL.
Colours are left out where the output is no terminal, or NO_COLOR is set.";

/// A node of a threshold-signature cluster, and the tools around it.
#[derive(Debug, Parser)]
#[command(version = version::LINE, disable_version_flag = true, arg_required_else_help = true, after_help = EXAMPLES)]
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
    /// Checks everything that a node needs, and says what to do about what is wrong.
    Doctor(Doctor),
    /// Creates wallets and shows them.
    #[command(subcommand)]
    Wallet(Wallet),
    /// Signs with a wallet.
    Sign(Sign),
    /// Measures a running cluster from outside.
    Benchmark(Benchmark),
    /// Runs a whole cluster in this process, creates a wallet and signs with it.
    Demo(Demo),
    /// Prints the version.
    Version {
        /// Print the JSON document, which names this program's own version too.
        #[arg(long)]
        json: bool,
    },
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
    /// Changes the password of the store of a node that does not run.
    ChangePassword(ChangePassword),
    /// Reads backups of the Go system. Not possible in this version: says what is.
    Recover {
        /// The folder with the backup files.
        #[arg(short, long)]
        backup_dir: PathBuf,
        /// Where the database would be made.
        #[arg(short, long)]
        recovery_path: PathBuf,
        /// Replace an existing database.
        #[arg(short, long)]
        force: bool,
    },
    /// Prints a script that completes commands and flags in a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `mpcium start`.
#[derive(Clone, Debug, Args)]
pub struct Start {
    /// The node's name in peers.json.
    #[arg(short, long)]
    pub name: String,
    /// Where its password and passphrase come from.
    #[command(flatten)]
    pub passwords: Passwords,
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

/// Where a node's password and passphrase come from.
#[derive(Clone, Debug, Default, Args)]
pub struct Passwords {
    /// The identity's private key is encrypted (.age).
    #[arg(short, long)]
    pub decrypt_private_key: bool,
    /// Ask for the store's password.
    #[arg(short, long)]
    pub prompt_credentials: bool,
    /// File with the store's password.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// File with the passphrase of the identity's private key.
    #[arg(short = 'k', long, value_name = "FILE")]
    pub identity_password_file: Option<PathBuf>,
}

/// `mpcium doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// The node's name in peers.json.
    #[arg(short, long)]
    pub name: String,
    /// Where its password and passphrase come from.
    #[command(flatten)]
    pub passwords: Passwords,
    /// Print the JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `mpcium change-password`.
#[derive(Clone, Debug, Args)]
pub struct ChangePassword {
    /// The node's name in peers.json.
    #[arg(short, long)]
    pub name: String,
    /// Where the present password comes from.
    #[command(flatten)]
    pub passwords: Passwords,
    /// File with the new password (otherwise it is asked for).
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
}

/// `mpcium benchmark`.
#[derive(Clone, Debug, Args)]
pub struct Benchmark {
    /// How it is run and reported.
    #[command(flatten)]
    pub options: BenchmarkOptions,
    /// What it does.
    #[command(subcommand)]
    pub what: BenchmarkKind,
}

/// How a benchmark is run and reported.
#[derive(Clone, Debug, Args)]
pub struct BenchmarkOptions {
    /// The initiator's private key (Ed25519) [default: ./event_initiator.key].
    #[arg(long, global = true, value_name = "FILE")]
    pub key_path: Option<PathBuf>,
    /// The key is encrypted: ask for its passphrase.
    #[arg(short, long, global = true)]
    pub prompt_password: bool,
    /// Accepted for existing scripts: the results of a benchmark are always its own.
    #[arg(long, global = true, value_name = "ID")]
    pub client_id: Option<String>,
    /// Say more on stderr.
    #[arg(long, global = true)]
    pub debug: bool,
    /// The report is also added to this file [default: benchmark/output.txt].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the cluster is.
    #[command(flatten)]
    pub bus: Bus,
    /// Print the JSON document instead of the text.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What a benchmark does.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchmarkKind {
    /// Creates wallets.
    Keygen(Load),
    /// Signs random digests on secp256k1.
    SignEcdsa {
        /// How much of it.
        #[command(flatten)]
        load: Load,
        /// The wallet.
        wallet: String,
    },
    /// Signs random messages on Ed25519.
    SignEddsa {
        /// How much of it.
        #[command(flatten)]
        load: Load,
        /// The wallet.
        wallet: String,
    },
    /// Reshares the wallet's secp256k1 key again and again.
    Reshare {
        /// How much of it.
        #[command(flatten)]
        load: Load,
        /// The wallet.
        wallet: String,
        /// The threshold afterwards.
        #[arg(long, alias = "nt", default_value_t = 2)]
        new_threshold: i64,
        /// The ids (not names) of the nodes that hold the key afterwards.
        #[arg(short, long, required = true, value_delimiter = ',')]
        node_ids: Vec<String>,
    },
}

/// How much a benchmark does.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// How many operations.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub n: u32,
    /// Seconds per operation; all together may take N times as long.
    #[arg(short, long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// How many operations the report analyses by themselves.
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
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

/// On which bus a cluster is, for the commands that talk to it.
#[derive(Clone, Debug, Default, Args)]
pub struct Bus {
    /// NATS servers, separated by commas (otherwise nats.urls of the configuration).
    #[arg(long, global = true, value_name = "URL")]
    pub nats: Option<String>,
    /// The prefix of a cluster that shares its NATS (otherwise nats.prefix of the configuration).
    #[arg(long, global = true, value_name = "PREFIX")]
    pub nats_prefix: Option<String>,
}

/// How the commands that talk to a cluster reach it.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// Where the cluster is.
    #[command(flatten)]
    pub bus: Bus,
    /// The initiator's private key; a name that ends in .age asks for its passphrase.
    #[arg(long, default_value = "event_initiator.key")]
    pub key_path: PathBuf,
    /// The kind of the initiator's key.
    #[arg(long, value_enum, default_value = "ed25519")]
    pub key_algorithm: Algorithm,
    /// The nodes of the cluster: with their identities and mpc_threshold of the configuration, only answers that
    /// enough of them have signed are believed (otherwise peers.json, if it is here).
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// The folder with the nodes' public identities (otherwise identity, if it is here).
    #[arg(long, value_name = "FOLDER")]
    pub identities: Option<PathBuf>,
    /// Give up after this many seconds.
    #[arg(short, long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Shows a wallet that exists: its keys, its addresses, and who signs.
    Show {
        /// The wallet's id.
        wallet: String,
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
    /// For secp256k1: let the nodes hash the message, of any length, in this way: sha256, sha256d (Bitcoin) or keccak256
    /// (Ethereum).
    #[arg(long, value_parser = message_hash)]
    pub hash: Option<MessageHash>,
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
    /// the child key is derived from it, with chain_code of the configuration. Without it the key is taken that the
    /// cluster's nodes have signed for the wallet, where --peers and --identities tell who they are.
    #[arg(long, value_name = "HEX")]
    pub public_key: Option<String>,
    /// How to reach the cluster.
    #[command(flatten)]
    pub reach: Reach,
}

/// `mpcium demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Which protocol makes ECDSA signatures: dkls23, or cggmp24 (slow, and needs minutes of preparation).
    #[arg(long, default_value = "dkls23", value_parser = ecdsa_protocol)]
    pub ecdsa: EcdsaProtocol,
    /// Safe primes from a file, for cggmp24: seconds instead of minutes.
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
    /// Which protocol makes ECDSA signatures: dkls23 or cggmp24.
    #[arg(long, default_value = "dkls23", value_parser = ecdsa_protocol)]
    pub ecdsa: EcdsaProtocol,
    /// Whose requests the nodes take.
    #[arg(long, value_enum, default_value_t = Clients::Existing)]
    pub clients: Clients,
    /// NATS server, or several of one NATS cluster, separated by commas.
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    pub nats: String,
    /// Copies of each stream in a NATS cluster: 1, 3 or 5.
    #[arg(long, value_parser = ["1", "3", "5"])]
    pub nats_replicas: Option<String>,
    /// What stands before the cluster's names on a NATS that it shares with other clusters.
    #[arg(long, value_name = "PREFIX")]
    pub nats_prefix: Option<String>,
    /// What stands before the cluster's keys in a Consul that it shares with other clusters.
    #[arg(long, value_name = "PREFIX")]
    pub consul_prefix: Option<String>,
    /// Consul.
    #[arg(long, default_value = "127.0.0.1:8500")]
    pub consul: String,
}

/// The clients that a generated cluster serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Clients {
    /// All, those of the Go system among them.
    Existing,
    /// Only those whose requests carry a signature over every field, an id and an expiry: this project's.
    Full,
}

fn ecdsa_protocol(name: &str) -> Result<EcdsaProtocol, String> {
    EcdsaProtocol::parse(name)
        .ok_or_else(|| format!("expected {}", EcdsaProtocol::ALL.map(EcdsaProtocol::name).join(" or ")))
}

fn message_hash(name: &str) -> Result<MessageHash, String> {
    MessageHash::from_name(name)
        .ok_or_else(|| format!("expected one of {}", MessageHash::ALL.map(MessageHash::as_str).join(", ")))
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    start::disable_core_dumps();
    end_quietly_where_nobody_reads();
    let cli = match parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(message) => {
            // Help and versions are answers, on stdout; everything else is an error, on stderr.
            let code = if message.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            // Whoever closed the other end does not want to read it.
            let _ = message.print();
            return code;
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever closes the other end of a pipe, as `head` does, has read enough: that ends a command without a word, as it ends
/// other programs. The standard library makes a panic of it, which is no bug of ours to be told of.
fn end_quietly_where_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload().downcast_ref::<String>();
        if words.is_some_and(|words| words.starts_with("failed printing to stdout: Broken pipe")) {
            std::process::exit(1);
        }
        usual(panic);
    }));
}

/// Parses a command line, in which long flags may begin with one dash, as the Go system's programs allow.
fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let name = words::program_name(arguments.first());
    let command = Cli::command().name(name).bin_name(name);
    let arguments = words::with_two_dashes(arguments, &command);
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn run(cli: Cli) -> Result<ExitCode, String> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Start(options) => return start::start(config, &options),
        Command::Status { name, json } => block_on(show_status(config, &name, json)),
        Command::Doctor(options) => return doctor::run(config, &options),
        Command::Wallet(Wallet::Create { wallet, reach }) => block_on(wallet::create(config, wallet, &reach)),
        Command::Wallet(Wallet::Show { wallet, reach }) => block_on(wallet::show(config, &wallet, &reach)),
        Command::Sign(options) => block_on(wallet::sign(config, &options)),
        Command::Benchmark(options) => block_on(benchmark::run(config, &options)),
        Command::Demo(options) => demo::run(&options),
        Command::Version { json } => version::print(words::program_name(std::env::args_os().next().as_ref()), json),
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
        Command::ChangePassword(options) => change_password::run(config, &options),
        Command::GenerateConfigs(options) => provision::generate_configs(&options),
        Command::Recover { backup_dir, recovery_path, force } => recover::recover(&backup_dir, &recovery_path, force),
        Command::Completions { shell } => complete(shell),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Prints the completion script for the name under which the program was called.
fn complete(shell: clap_complete::Shell) -> Result<(), String> {
    let name = words::program_name(std::env::args_os().next().as_ref());
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
    std::io::stdout().write_all(&script).map_err(|error| format!("stdout: {error}"))
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
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from).collect())
    }

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
            "mpcium-cli generate-authorizer -n bob -o keys -e -f -a p256",
            "mpcium-cli recover -b backups -r restored -f",
            "mpcium-cli recover --backup-dir backups --recovery-path restored --force",
            "mpcium-cli -c config.yaml benchmark keygen 100",
            "mpcium-cli benchmark -c config.yaml --key-path k.key --client-id me --output o.txt keygen 100 -t 30 -b 5",
            "mpcium-cli benchmark sign-ecdsa 10 wallet --timeout 90 --batch-size 2 --debug -o o.txt",
            "mpcium-cli benchmark sign-eddsa --timeout 90 10 wallet -p",
            "mpcium-cli benchmark reshare 3 wallet -nt 2 -n a,b -n c",
            "mpcium-cli benchmark reshare 3 wallet --new-threshold 2 --node-ids a,b,c",
            "mpcium start -name node0 -config c.yaml",
        ] {
            if let Err(error) = parsed(line) {
                panic!("{line}: {error}");
            }
        }
        for line in ["mpcium start", "mpcium-cli generate-peers", "mpcium-cli generate-peers -n 0", "mpcium"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_benchmark_takes_its_options_on_either_side_of_what_it_does() {
        for line in
            ["mpcium benchmark --key-path k -o o keygen 7 -t 30", "mpcium benchmark keygen 7 --key-path k -o o -t 30"]
        {
            let Command::Benchmark(benchmark) = parsed(line).expect("valid").command else { panic!("{line}") };
            assert_eq!(benchmark.options.key_path.as_deref(), Some(Path::new("k")), "{line}");
            assert_eq!(benchmark.options.output.as_deref(), Some(Path::new("o")), "{line}");
            let BenchmarkKind::Keygen(load) = benchmark.what else { panic!("{line}") };
            assert_eq!((load.n, load.timeout, load.batch_size), (7, 30, 10));
        }
        let line = "mpcium benchmark reshare 3 w -nt=3 -n a,b -n c";
        let Command::Benchmark(benchmark) = parsed(line).expect("valid").command else { panic!("{line}") };
        let BenchmarkKind::Reshare { new_threshold, node_ids, .. } = benchmark.what else { panic!("{line}") };
        assert_eq!((new_threshold, node_ids.join(" ")), (3, "a b c".to_owned()));
    }
}

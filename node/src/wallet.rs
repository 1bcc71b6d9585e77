//! `wallet create`, `wallet show` and `sign`: the commands that talk to a running cluster as a client.

use std::{path::Path, time::Duration};

use mpcium_client::{
    ErrorCode, KeygenResult, Kind, Prefix, SignRequest, SigningResult,
    auth::Algorithm as SignerAlgorithm,
    client::{Client, ClientError, Options},
    query::WalletReply,
    signer::LocalSigner,
};
use mpcium_io::{nats::Nats, notice::Notices};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    addresses,
    cli::{Bus, Reach, Sign},
    cluster::Cluster,
    config::{self, NatsSettings},
    files::Algorithm,
    passwords, start,
    verify::PublicKey,
};

/// How long the command tries to reach NATS.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long `sign` waits to be told the wallet's key, under which it verifies.
const KEY_MAX: Duration = Duration::from_secs(10);

/// A wallet's public keys and its addresses, as shown and as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalletView {
    /// The wallet.
    pub wallet_id: String,
    /// secp256k1: compressed point in hexadecimal.
    pub secp256k1_public_key: String,
    /// Ed25519, in hexadecimal.
    pub ed25519_public_key: String,
    /// EIP-55.
    pub ethereum_address: String,
    /// P2WPKH on main net.
    pub bitcoin_address: String,
    /// Base58.
    pub solana_address: String,
    /// The nodes whose signatures under the answer are good; absent where it is not known who the nodes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attested_by: Option<Vec<String>>,
}

impl WalletView {
    /// From the result of a key generation.
    ///
    /// # Errors
    /// If a key is missing or of the wrong length.
    pub fn new(result: &KeygenResult) -> Result<Self, String> {
        let (secp256k1, ed25519) = public_keys(result)?;
        Ok(Self {
            wallet_id: result.wallet_id.clone(),
            secp256k1_public_key: hex::encode(addresses::compressed(&secp256k1)),
            ed25519_public_key: hex::encode(ed25519),
            ethereum_address: addresses::ethereum(&secp256k1),
            bitcoin_address: addresses::bitcoin(&secp256k1),
            solana_address: addresses::solana(&ed25519),
            attested_by: None,
        })
    }

    fn print(&self) {
        println!("wallet     {}", self.wallet_id);
        println!("secp256k1  {}", self.secp256k1_public_key);
        println!("ed25519    {}", self.ed25519_public_key);
        println!("Ethereum   {}", self.ethereum_address);
        println!("Bitcoin    {}", self.bitcoin_address);
        println!("Solana     {}", self.solana_address);
    }
}

/// A wallet that exists, as JSON.
#[derive(Debug, Serialize)]
struct ExistingView {
    #[serde(flatten)]
    wallet: WalletView,
    /// How many of the members sign together.
    threshold: u32,
    /// How often the wallet has moved to another committee.
    epoch: u32,
    /// The members, by name where it is known.
    committee: Vec<String>,
}

/// Both public keys of a new wallet: X ‖ Y on secp256k1, and the Ed25519 key.
///
/// # Errors
/// If one is missing or of the wrong length.
pub fn public_keys(result: &KeygenResult) -> Result<(addresses::SecpPoint, [u8; 32]), String> {
    let secp256k1 = result.ecdsa_pub_key.as_deref().unwrap_or_default();
    let ed25519 = result.eddsa_pub_key.as_deref().unwrap_or_default();
    let wrong = |curve: &str, got: usize, expected: usize| {
        format!("the result's {curve} key has {got} bytes, expected {expected}")
    };
    Ok((
        secp256k1.try_into().map_err(|_| wrong("secp256k1", secp256k1.len(), 64))?,
        ed25519.try_into().map_err(|_| wrong("Ed25519", ed25519.len(), 32))?,
    ))
}

/// A signature as JSON.
#[derive(Debug, Serialize)]
struct SignatureView<'a> {
    wallet_id: &'a str,
    tx_id: &'a str,
    key_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// The public key under which the signature verified; absent if none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_under: Option<String>,
    /// The nodes whose signatures under the answer are good; absent where it is not known who the nodes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    attested_by: Option<Vec<String>>,
}

/// `wallet create`.
///
/// # Errors
/// If the cluster cannot be reached, refuses, or does not answer in time.
pub async fn create(config: Option<&Path>, wallet: Option<String>, reach: &Reach) -> Result<(), String> {
    let cluster = Cluster::find(config, reach)?;
    let connection = Connection::open(config, reach).await?;
    let wallet = wallet.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let result = connection
        .client
        .create_wallet_and_wait(&wallet, reach.patience())
        .await
        .map_err(|error| connection.words(&error))?;
    connection.close().await;
    let mut view = WalletView::new(&result)?;
    view.attested_by = attested(cluster.as_ref(), |cluster| cluster.check(&result))?;
    if reach.json {
        return print_json(&view);
    }
    view.print();
    print_attested(view.attested_by.as_deref());
    Ok(())
}

/// `wallet show`.
///
/// # Errors
/// If the cluster cannot be reached or does not answer in time, there is no such wallet, or the answer is not signed by
/// the cluster's nodes.
pub async fn show(config: Option<&Path>, wallet: &str, reach: &Reach) -> Result<(), String> {
    let cluster = Cluster::find(config, reach)?;
    let connection = Connection::open(config, reach).await?;
    let reply = connection.client.wallet(wallet, reach.patience()).await.map_err(|error| error.to_string())?;
    connection.close().await;
    let name = |id: &String| cluster.as_ref().map_or_else(|| id.clone(), |cluster| cluster.name(id));
    let mut committee: Vec<String> = reply.committee.iter().map(name).collect();
    committee.sort();
    let mut view = ExistingView {
        wallet: WalletView::new(&keys(&reply))?,
        threshold: reply.threshold,
        epoch: reply.epoch,
        committee,
    };
    view.wallet.attested_by = attested(cluster.as_ref(), |cluster| cluster.check_reply(&reply))?;
    if reach.json {
        return print_json(&view);
    }
    view.wallet.print();
    println!("signers    {} of {}", view.threshold, view.committee.join(", "));
    println!("epoch      {}", view.epoch);
    print_attested(view.wallet.attested_by.as_deref());
    Ok(())
}

/// The keys of a wallet that exists, in the form in which they are announced when it is made.
fn keys(reply: &WalletReply) -> KeygenResult {
    KeygenResult {
        wallet_id: reply.wallet_id.clone(),
        ecdsa_pub_key: reply.ecdsa_pub_key.clone(),
        eddsa_pub_key: reply.eddsa_pub_key.clone(),
        ..KeygenResult::default()
    }
}

/// Applies a check if it is known who the nodes are.
fn attested(
    cluster: Option<&Cluster>,
    check: impl FnOnce(&Cluster) -> Result<Vec<String>, String>,
) -> Result<Option<Vec<String>>, String> {
    cluster
        .map(|cluster| {
            check(cluster).map_err(|problem| {
                format!("an answer arrived that is not the cluster's ({problem}): somebody else may have published it")
            })
        })
        .transpose()
}

fn print_attested(nodes: Option<&[String]>) {
    match nodes {
        Some(nodes) => println!("attested   by {}", nodes.join(", ")),
        None => println!("attested   not checked: --peers and --identities say who the nodes are"),
    }
}

/// `sign`.
///
/// # Errors
/// If the message is none for the curve, the cluster cannot be reached, refuses, or does not answer in time, or the
/// signature does not verify under the given key.
pub async fn sign(config: Option<&Path>, options: &Sign) -> Result<(), String> {
    let request = request(options)?;
    let message = match options.hash {
        Some(_) => request.digest().map_err(|invalid| invalid.to_string())?.to_vec(),
        None => request.tx.clone().unwrap_or_default(),
    };
    let path = request.derivation_path.clone();
    let given = options
        .public_key
        .as_ref()
        .map(|text| PublicKey::parse(&options.key_type, text).map_err(|error| format!("--public-key: {error}")))
        .transpose()?;
    let cluster = Cluster::find(config, &options.reach)?;
    let chain_code = chain_code(config, given.is_some() && !path.is_empty())?;
    let connection = Connection::open(config, &options.reach).await?;
    let result = connection
        .client
        .sign_and_wait(request, options.reach.patience())
        .await
        .map_err(|error| connection.words(&error))?;
    let attested_by = attested(cluster.as_ref(), |cluster| cluster.check(&result))?;
    let wallet_key = match (given, &cluster) {
        (Some(key), _) => Ok(key),
        (None, Some(cluster)) => attested_key(&connection.client, cluster, options).await,
        (None, None) => Err("--public-key says under which key it must verify".to_owned()),
    };
    connection.close().await;
    let key = wallet_key.and_then(|key| match (path.as_slice(), &chain_code) {
        ([], _) => Ok(key),
        (path, Some(chain_code)) => key.child(chain_code, path),
        (_, None) => Err("the configuration here has no chain_code, from which child keys follow".to_owned()),
    });
    if let Ok(key) = &key {
        key.verify(&message, &result)
            .map_err(|error| format!("what the cluster returned does not verify under {key}: {error}"))?;
    }
    let view = view(&options.key_type, &result, key.as_ref().ok(), attested_by);
    if options.reach.json {
        return print_json(&view);
    }
    println!("tx id      {}", view.tx_id);
    for (name, value) in [("r", &view.r), ("s", &view.s), ("signature", &view.signature)] {
        if let Some(value) = value {
            println!("{name:9}  {value}");
        }
    }
    if let Some(recovery) = view.recovery {
        println!("recovery   {recovery}");
    }
    match &key {
        Ok(key) => println!("verified   under {key}"),
        Err(problem) => println!("verified   no: {problem}"),
    }
    print_attested(view.attested_by.as_deref());
    Ok(())
}

/// The wallet's key as enough of its members have signed it.
async fn attested_key(client: &Client, cluster: &Cluster, options: &Sign) -> Result<PublicKey, String> {
    let reply = client
        .wallet(&options.wallet, KEY_MAX)
        .await
        .map_err(|error| format!("the cluster does not tell the wallet's key: {error}"))?;
    cluster.check_reply(&reply).map_err(|problem| format!("the wallet's key is not the cluster's word: {problem}"))?;
    let (secp256k1, ed25519) = public_keys(&keys(&reply))?;
    Ok(match options.key_type.as_str() {
        "ed25519" => PublicKey::Ed25519(ed25519),
        _ => PublicKey::Secp256k1(secp256k1),
    })
}

/// The master chain code of the configuration, if there is one; `needed` makes its absence an error.
fn chain_code(config: Option<&Path>, needed: bool) -> Result<Option<[u8; 32]>, String> {
    let mut reader = match config::open(config) {
        Ok(reader) => reader,
        Err(_) if config.is_none() && !needed => return Ok(None),
        Err(problem) => return Err(problem),
    };
    let chain_code = config::chain_code(&mut reader);
    reader.finish().map_err(|errors| errors.to_string())?;
    if needed && chain_code.is_none() {
        return Err(
            "--public-key with --path: the configuration needs chain_code, from which child keys follow".to_owned()
        );
    }
    Ok(chain_code)
}

fn view<'a>(
    key_type: &'a str,
    result: &'a SigningResult,
    key: Option<&PublicKey>,
    attested_by: Option<Vec<String>>,
) -> SignatureView<'a> {
    let hex = |bytes: &Option<Vec<u8>>| bytes.as_ref().filter(|bytes| !bytes.is_empty()).map(hex::encode);
    SignatureView {
        wallet_id: &result.wallet_id,
        tx_id: &result.tx_id,
        key_type,
        r: hex(&result.r),
        s: hex(&result.s),
        recovery: result.signature_recovery.as_ref().and_then(|bytes| bytes.first().copied()),
        signature: hex(&result.signature),
        verified_under: key.map(ToString::to_string),
        attested_by,
    }
}

fn request(options: &Sign) -> Result<SignRequest, String> {
    let secp256k1 = options.key_type == "secp256k1" && options.hash.is_none();
    let tx = match (&options.hex, &options.message) {
        (Some(digits), _) => hex::decode(digits.strip_prefix("0x").unwrap_or(digits))
            .map_err(|_| "--hex: expected hexadecimal digits".to_owned())?,
        (None, Some(text)) if secp256k1 => Sha256::digest(text).to_vec(),
        (None, Some(text)) => text.clone().into_bytes(),
        (None, None) => return Err("a message is needed: --message or --hex".to_owned()),
    };
    if secp256k1 && tx.len() != 32 {
        let found = tx.len();
        return Err(format!("--hex: secp256k1 signs a digest of 32 bytes, got {found}; --hash lets the nodes hash it"));
    }
    Ok(SignRequest {
        key_type: options.key_type.clone(),
        wallet_id: options.wallet.clone(),
        network_internal_code: options.network.clone(),
        tx_id: options.tx_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        tx: Some(tx),
        hash: options.hash.map(|hash| hash.as_str().to_owned()).unwrap_or_default(),
        derivation_path: options.path.as_deref().map_or_else(|| Ok(Vec::new()), derivation_path)?,
        ..SignRequest::default()
    })
}

/// Parses `44/60/0/0/0`, with or without `m/` before it.
fn derivation_path(text: &str) -> Result<Vec<u32>, String> {
    let text = text.strip_prefix("m/").unwrap_or(text);
    text.split('/')
        .map(|item| {
            item.parse::<u32>().ok().filter(|index| *index < 1 << 31).ok_or_else(|| {
                format!("--path: {item:?} is no index below 2147483648 (hardened ones cannot be derived)")
            })
        })
        .collect()
}

fn print_json<T: Serialize>(view: &T) -> Result<(), String> {
    println!("{}", serde_json::to_string_pretty(view).map_err(|error| error.to_string())?);
    Ok(())
}

/// A client and the connection under it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    nats: Nats,
    /// The public key under which requests are signed here.
    key: String,
}

impl Connection {
    async fn open(config: Option<&Path>, reach: &Reach) -> Result<Self, String> {
        Self::with_signer(config, &reach.bus, signer(reach)?).await
    }

    /// Connects to the given server, or to that of the configuration.
    pub(crate) async fn with_signer(config: Option<&Path>, bus: &Bus, signer: LocalSigner) -> Result<Self, String> {
        let settings = nats_settings(config, bus)?;
        let options = start::nats_options(&settings, "client");
        let connecting = Nats::connect(&options, Notices::silent());
        let nats = tokio::time::timeout(CONNECT_MAX, connecting)
            .await
            .map_err(|_| format!("the NATS server at {} does not answer", settings.urls.join(", ")))?
            .map_err(|error| error.to_string())?;
        let options = Options { prefix: settings.prefix, ..Options::default() };
        let key = signer.public_key_text();
        let client = Client::new(nats.client(), signer, options).await.map_err(|error| error.to_string())?;
        Ok(Self { client, nats, key })
    }

    /// Why something failed, with what is known here and not there.
    fn words(&self, error: &ClientError) -> String {
        match error {
            ClientError::Refused { code: Some(ErrorCode::InvalidInitiatorSignature), .. } => {
                let key = &self.key;
                format!("{error}: the nodes' event_initiator_pubkey is another key than the one that signs here, {key}")
            }
            ClientError::Timeout { kind, request_id, .. } => format!("{error}{}", again(*kind, request_id)),
            _ => error.to_string(),
        }
    }

    pub(crate) async fn close(self) {
        self.client.close().await;
        self.nats.close().await;
    }
}

/// How to ask again for what was not answered in time.
fn again(kind: Kind, id: &str) -> String {
    match kind {
        Kind::Sign => format!(" (--tx-id {id})"),
        Kind::Keygen => format!(" (mpcium wallet create {id})"),
        Kind::Reshare => String::new(),
    }
}

fn nats_settings(config: Option<&Path>, bus: &Bus) -> Result<NatsSettings, String> {
    let urls: Option<Vec<String>> =
        bus.nats.as_ref().map(|urls| urls.split(',').map(|url| url.trim().to_owned()).collect());
    let mut settings = match urls {
        Some(urls) if config.is_none() => NatsSettings::plain(urls),
        urls => {
            let mut reader = config::open(config)?;
            let settings = config::nats(&mut reader);
            reader.finish().map_err(|errors| errors.to_string())?;
            NatsSettings { urls: urls.unwrap_or(settings.urls), ..settings }
        }
    };
    if let Some(prefix) = &bus.nats_prefix {
        settings.prefix = Prefix::parse(prefix).map_err(|error| format!("--nats-prefix: {error}"))?;
    }
    Ok(settings)
}

fn signer(reach: &Reach) -> Result<LocalSigner, String> {
    let algorithm = match reach.key_algorithm {
        Algorithm::Ed25519 => SignerAlgorithm::Ed25519,
        Algorithm::P256 => SignerAlgorithm::P256,
    };
    let encrypted = reach.key_path.extension().is_some_and(|extension| extension == "age");
    let passphrase = if encrypted { Some(passwords::prompt_identity_passphrase()?) } else { None };
    LocalSigner::read(algorithm, &reach.key_path, passphrase.as_ref().map(|text| text.expose()))
        .map_err(|error| format!("{}: {error}", reach.key_path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key_type: &str, hex: Option<&str>, message: Option<&str>) -> Sign {
        Sign {
            wallet: "w".to_owned(),
            key_type: key_type.to_owned(),
            hex: hex.map(str::to_owned),
            message: message.map(str::to_owned),
            hash: None,
            tx_id: None,
            network: String::new(),
            path: Some("m/44/60/0".to_owned()),
            public_key: None,
            reach: Reach {
                bus: Bus::default(),
                key_path: "event_initiator.key".into(),
                key_algorithm: Algorithm::Ed25519,
                peers: None,
                identities: None,
                timeout: 1,
                json: false,
            },
        }
    }

    #[test]
    fn text_is_hashed_for_ecdsa_and_signed_whole_for_ed25519() {
        let ecdsa = request(&options("secp256k1", None, Some("hello"))).expect("valid");
        assert_eq!(ecdsa.tx, Some(Sha256::digest("hello").to_vec()));
        assert_eq!(ecdsa.derivation_path, [44, 60, 0]);
        let eddsa = request(&options("ed25519", None, Some("hello"))).expect("valid");
        assert_eq!(eddsa.tx, Some(b"hello".to_vec()));
        assert_ne!(ecdsa.tx_id, eddsa.tx_id);
    }

    #[test]
    fn ecdsa_takes_digests_only() {
        assert!(request(&options("secp256k1", Some("0xabcd"), None)).expect_err("short").contains("32 bytes, got 2"));
        assert!(request(&options("secp256k1", Some("zz"), None)).is_err());
        assert!(request(&options("secp256k1", Some(&"ab".repeat(32)), None)).is_ok());
    }

    #[test]
    fn with_a_hash_the_whole_message_is_sent() {
        let hash = Some(mpcium_client::MessageHash::Keccak256);
        let text = request(&Sign { hash, ..options("secp256k1", None, Some("hello")) }).expect("valid");
        assert_eq!((text.tx.as_deref(), text.hash.as_str()), (Some(b"hello".as_slice()), "keccak256"));
        let bytes = request(&Sign { hash, ..options("secp256k1", Some("0xabcd"), None) }).expect("any length");
        assert_eq!(bytes.tx, Some(vec![0xab, 0xcd]));
    }

    #[test]
    fn hardened_indices_are_refused() {
        assert_eq!(derivation_path("0/2147483647"), Ok(vec![0, 2_147_483_647]));
        for bad in ["2147483648", "1'", "", "a", "-1"] {
            assert!(derivation_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn after_a_timeout_it_is_said_how_to_ask_again() {
        assert_eq!(again(Kind::Sign, "tx-7"), " (--tx-id tx-7)");
        assert_eq!(again(Kind::Keygen, "treasury"), " (mpcium wallet create treasury)");
    }

    #[test]
    fn a_result_without_a_key_is_an_error() {
        let mut result = KeygenResult::success("w", &[1; 64], &[2; 32]);
        assert!(WalletView::new(&result).is_ok());
        result.eddsa_pub_key = None;
        assert!(WalletView::new(&result).expect_err("missing").contains("Ed25519 key has 0 bytes"));
    }
}

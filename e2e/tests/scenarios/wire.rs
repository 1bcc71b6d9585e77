//! What passes between clients and nodes over a real NATS: ids of any text, queries that are too many, resharing.

use e2e::{
    load::{Asker, Order},
    programs,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use futures::future;
use mpcium_client::{
    KeyType, ReshareRequest, ReshareResult,
    auth::Algorithm,
    client::{Client, ClientId, Options},
    query::{WALLET_QUERY_SUBJECT, WalletQuery, WalletReply},
    result::ErrorCode,
    signer::{LocalSigner, Signer as _},
    subjects,
};

use crate::world::{Outcome, World, check, words};

/// Ids with which a subject, a shell or a path would do something else.
const IDS: [&str; 7] =
    ["dots.and.more", "two words\tand\r\nlines", "*", ">", "a.*.>", "%2E..%", "кошелёк-財布 🔑\u{2028}\u{a0}\"<&>\\"];
/// Queries that are sent at once: more than all nodes together answer in a second.
const QUERIES: usize = 900;

/// Wallets and requests are called whatever clients like, also with a client id of letters that are not ASCII; the
/// answers reach whoever waits and whoever listens.
pub async fn ids_of_any_text_are_served(world: &mut World) -> Outcome {
    let client_id = ClientId::Named("magasin-élégant:1".to_owned());
    let listener = client(world, Options { client_id, ..Options::default() }).await?;
    let mut created = listener.keygen_results().await.map_err(words)?;
    let mut signed = listener.signing_results().await.map_err(words)?;
    for id in IDS {
        let told = |error: String| format!("{id:?}: {error}");
        let result = world.asker.client.create_wallet_and_wait(id, PATIENCE).await.map_err(words).map_err(told)?;
        let wallet = Wallet::new(&result)?;
        check(wallet.id == id, || format!("{id:?} is called {:?}", wallet.id))?;
        let asker = Asker { client: world.asker.client.clone(), wallet: wallet.clone() };
        let order = Order { tx_id: format!("{id} {}", uuid::Uuid::new_v4()), ..Order::new(KeyType::Ed25519) };
        let first = asker.sign(&order).await.map_err(told)?;

        listener.create_wallet(id).await.map_err(words)?;
        let (heard, token) = next(&mut created, id).await?;
        token.ack().await.map_err(words)?;
        check(heard.request_id.as_deref() == Some(id), || format!("{id:?}: its subject says {:?}", heard.request_id))?;
        check(Wallet::new(&heard.result)? == wallet, || format!("{id:?}: a listener hears of other keys"))?;
        listener.sign(order.request(&wallet)).await.map_err(words)?;
        let (heard, token) = next(&mut signed, id).await?;
        token.ack().await.map_err(words)?;
        check(heard.result == first, || format!("{id:?}: a listener hears {:?}, not {first:?}", heard.result))?;
    }
    Ok(())
}

struct Heard<T> {
    result: T,
    request_id: Option<String>,
}

async fn next<T: mpcium_client::listen::ResultDocument>(
    results: &mut mpcium_client::listen::Results<T>,
    id: &str,
) -> Result<(Heard<T>, mpcium_client::listen::Token), String> {
    let heard =
        tokio::time::timeout(PATIENCE, results.next()).await.map_err(|_| format!("{id:?}: nothing is heard"))?;
    let received = heard.ok_or("the listener has ended")?.map_err(words)?;
    let request_id = received.request_id.clone();
    let (result, token) = received.into_parts();
    Ok((Heard { result, request_id }, token))
}

async fn client(world: &World, options: Options) -> Result<Client, String> {
    Client::new(world.cluster.nats().await?, signer(world)?, options).await.map_err(words)
}

fn signer(world: &World) -> Result<LocalSigner, String> {
    LocalSigner::read(Algorithm::Ed25519, &world.cluster.initiator_key(), None).map_err(|error| error.to_string())
}

/// Whoever asks too much is told so, at once and by the right code; a moment later it is answered again.
pub async fn too_many_queries_are_refused_and_later_ones_answered(world: &mut World) -> Outcome {
    let signer = signer(world)?;
    let wallet = &world.asker.wallet;
    let burst = || async {
        let mut queries = Vec::new();
        for number in 0..QUERIES {
            let mut query = WalletQuery {
                wallet_id: wallet.id.clone(),
                request_id: format!("query {number}"),
                expires_at: u64::MAX >> 11,
                signature: None,
            };
            query.signature = Some(signer.sign(&query.signed_bytes()).await.map_err(|error| error.to_string())?);
            queries.push(query.to_json());
        }
        let asked = queries.into_iter().map(|query| world.nats.request(WALLET_QUERY_SUBJECT, query.into()));
        let replies = future::join_all(asked).await.into_iter().flatten();
        let replies = replies.map(|message| WalletReply::from_json(&message.payload));
        replies.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
    };
    // On a machine that is slow enough a burst is none.
    wait::until("a burst of queries to be too much", PATIENCE, async || {
        let replies = burst().await?;
        let (good, bad): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.error_code.is_empty());
        check(good.iter().all(|reply| reply.eddsa_pub_key.as_deref() == Some(&wallet.ed25519)), || {
            format!("a reply has another key: {good:?}")
        })?;
        let exhausted = ErrorCode::ResourceExhausted.as_str();
        let others: Vec<_> = bad.iter().filter(|reply| reply.error_code != exhausted).collect();
        check(others.is_empty(), || format!("refused otherwise: {others:?}"))?;
        check(!bad.is_empty() && !good.is_empty(), || format!("{} good, {} refused", good.len(), bad.len()))?;
        check(bad.iter().all(|reply| reply.error_reason.contains("ask again")), || format!("{bad:?}"))
    })
    .await?;
    wait::until("a query to be answered again", PATIENCE, async || {
        let reply = world.asker.client.wallet(&wallet.id, PATIENCE).await.map_err(words)?;
        check(reply.eddsa_pub_key.as_deref() == Some(&wallet.ed25519), || format!("{reply:?}"))
    })
    .await
}

/// Resharing is not there yet. However it is asked for, the answer comes, and says so.
pub async fn resharing_is_refused_in_words(world: &mut World) -> Outcome {
    let nodes: Vec<String> = world.cluster.nodes.iter().map(|node| node.id.clone()).collect();
    let request = |session: &str| ReshareRequest {
        session_id: session.to_owned(),
        node_ids: Some(nodes.clone()),
        new_threshold: 2,
        key_type: KeyType::Ed25519.as_str().to_owned(),
        wallet_id: world.asker.wallet.id.clone(),
        ..ReshareRequest::default()
    };
    let refused = |how: &str, result: &ReshareResult| {
        let good = result.code() == Some(ErrorCode::ReshareFailure)
            && result.wallet_id == world.asker.wallet.id
            && result.error_reason.contains("not available");
        check(good, || format!("{how}: {result:?}"))
    };
    let listener = client(world, Options { client_id: ClientId::Named("resharer".to_owned()), ..Options::default() });
    let listener = listener.await?;
    let mut results = listener.reshare_results().await.map_err(words)?;

    listener.reshare(request("durable.1")).await.map_err(words)?;
    let (heard, token) = next(&mut results, "durable.1").await?;
    token.ack().await.map_err(words)?;
    refused("the durable subject", &heard.result)?;
    check(heard.request_id.as_deref() == Some("durable.1"), || format!("{:?}", heard.request_id))?;

    // As existing clients do it: core NATS, the classic signature alone, the client's id in a header.
    let mut classic = request("core");
    let canonical = mpcium_client::Request::from(classic.clone()).canonical();
    classic.signature = Some(signer(world)?.sign(&canonical).await.map_err(|error| error.to_string())?);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(subjects::CLIENT_ID_HEADER, "resharer");
    let document = mpcium_client::Request::from(classic).to_json();
    let sent = world.nats.publish_with_headers(subjects::RESHARE_CORE_SUBJECT, headers, document.into());
    sent.await.map_err(|error| error.to_string())?;
    let (heard, token) = next(&mut results, "core").await?;
    token.ack().await.map_err(words)?;
    refused("core NATS", &heard.result)?;
    check(heard.request_id.as_deref() == Some("core"), || format!("{:?}", heard.request_id))?;

    let nodes = nodes.join(",");
    let wallet = &world.asker.wallet.id;
    let command = ["benchmark", "reshare", "1", wallet, "--node-ids", &nodes, "--key-path", "event_initiator.key"];
    let said = programs::run(&world.cluster.folder, &command);
    let told =
        said.as_ref().is_err_and(|said| said.contains("ERROR_RESHARE_FAILURE") && said.contains("not available"));
    check(told, || format!("the command line: {said:?}"))
}

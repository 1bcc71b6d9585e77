//! Consumers as the server writes them. The client library reads a consumer's configuration into the fields that it
//! knows; whoever changes one member of it has to send all others back as they were.

use async_nats::jetstream::{Context, ErrorCode, response::Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// What the server says of a consumer that is not there, when asked for it and when it is to be changed.
const GONE: [ErrorCode; 2] = [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::CONSUMER_DOES_NOT_EXIST];

/// A consumer's configuration, with whatever is in it.
pub(super) type Config = Map<String, Value>;

/// Looks at a consumer; `None`: there is no such one.
pub(super) async fn look<V: DeserializeOwned>(
    context: &Context,
    stream: &str,
    name: &str,
) -> Result<Option<V>, String> {
    ask(context, format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await
}

/// Changes a consumer, and never makes one: whoever removed it meanwhile wanted that. `None`: there is no such one.
pub(super) async fn update<V: DeserializeOwned>(
    context: &Context,
    stream: &str,
    name: &str,
    config: &Config,
) -> Result<Option<V>, String> {
    let request = json!({"stream_name": stream, "config": config, "action": "update"});
    ask(context, format!("CONSUMER.CREATE.{stream}.{name}"), &request).await
}

async fn ask<V: DeserializeOwned>(context: &Context, subject: String, request: &Value) -> Result<Option<V>, String> {
    match context.request(subject, request).await.map_err(|error| error.to_string())? {
        Response::Ok(answer) => Ok(Some(answer)),
        Response::Err { error } if GONE.contains(&error.error_code()) => Ok(None),
        Response::Err { error } => Err(error.to_string()),
    }
}

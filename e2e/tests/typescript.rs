//! The client in TypeScript by itself: the contract's vectors, and a scripted cluster on a real nats-server.

use e2e::{
    kms::{self, Kms},
    node::Node,
};
use serde_json::json;

#[test]
fn the_client_in_typescript_keeps_the_contract() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        match Node::ready().await? {
            Some(node) => node.test("test/", None).await,
            None => Ok(()),
        }
    });
    assert_eq!(outcome, Ok(()));
}

#[test]
fn the_client_in_typescript_signs_with_kms() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome: Result<(), String> = runtime.block_on(async {
        let Some(node) = Node::ready().await? else { return Ok(()) };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let kms = Kms::start(folder.path(), &[]).await?;
        let key = kms.create_key("initiator")?;
        let world = json!({
            "endpoint": kms.endpoint(), "region": kms::REGION, "id": key.id, "arn": key.arn, "alias": key.alias,
            "public": key.public,
        });
        node.test("test-kms/", Some(&world)).await
    });
    assert_eq!(outcome, Ok(()));
}

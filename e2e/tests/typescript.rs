//! The client in TypeScript by itself: the contract's vectors, and a scripted cluster on a real nats-server.

use e2e::node::Node;

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

//! The signer for AWS KMS against an emulator that checks who calls: that the call's signature is right, and that IAM
//! allows it.

use e2e::kms::{self, Kms};
use mpcium_client::kms::{KmsError, KmsOptions, KmsSigner, StaticCredentials};
use serde_json::json;

/// Calls before the emulator begins to check: those that set it up.
const SET_UP_CALLS: &str = "6";

#[tokio::test]
async fn only_who_may_sign_signs() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = Kms::start(folder.path(), &[("INITIAL_NO_AUTH_ACTION_COUNT", SET_UP_CALLS)]).await.expect("an emulator");
    kms.aws(&["iam", "create-user", "--user-name", "initiator"]).expect("a user");
    let made = kms.aws(&["iam", "create-access-key", "--user-name", "initiator"]).expect("an access key");
    let text = |name: &str| made["AccessKey"][name].as_str().expect("a text").to_owned();
    let (id, secret) = (text("AccessKeyId"), text("SecretAccessKey"));
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["kms:GetPublicKey", "kms:Sign"], "Resource": "*"},
    ]});
    let policy = policy.to_string();
    let put = ["iam", "put-user-policy", "--user-name", "initiator", "--policy-name", "sign", "--policy-document"];
    kms.aws(&[&put[..], &[&policy]].concat()).expect("a policy");
    let key = kms.create_key("initiator").expect("a key");

    let options = |key_id: &str, secret: &str| KmsOptions {
        key_id: key_id.to_owned(),
        region: Some(kms::REGION.to_owned()),
        endpoint: Some(kms.endpoint()),
        credentials: Some(StaticCredentials::new(&id, secret)),
    };
    for name in [&key.id, &key.arn, &key.alias] {
        let signer = KmsSigner::connect(options(name, &secret)).await.expect("the emulator accepts the call");
        assert_eq!(signer.public_key_text(), key.public);
        for message in [b"w".to_vec(), "é\u{2028}".as_bytes().to_vec(), vec![0; 4096]] {
            // Verified by the signer itself; an error otherwise.
            let signature = signer.sign_message(&message).await.expect("a signature");
            assert!(signer.public_key().0.verifies(&message, &signature));
        }
    }
    let refused = KmsSigner::connect(options(&key.id, "another secret")).await.expect_err("a wrong secret");
    assert!(matches!(&refused, KmsError::Refused { code, .. } if code == "SignatureDoesNotMatch"), "{refused}");

    let absent = KmsSigner::connect(options("alias/nobody", &secret)).await.expect_err("no such key");
    assert!(matches!(&absent, KmsError::Refused { code, .. } if code == "NotFoundException"), "{absent}");
}

//! The contract with existing clients: signed bytes, decoding, authorization. Vectors were computed independently.

use ed25519_dalek::{Signer as _, SigningKey};
use mpcium_client::{
    AuthorizerSignature, ErrorCode, FullSignature, KeygenRequest, Kind, MessageHash, Request, ReshareRequest,
    SignRequest,
    auth::{AuthError, Authorization, AuthorizerKey, InitiatorKey, authorize, verify_initiator},
    gojson::decode_base64,
};

const INITIATOR: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
const AUTHORIZER: &str = "2543b92ff1095511476adc8369db6ddc933665a11978dda1404ee1066ca9559d";
const P256_SPKI: &str = concat!(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca",
    "515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
);

fn key(first: u8) -> SigningKey {
    SigningKey::from_bytes(&std::array::from_fn(|at| first + u8::try_from(at).unwrap()))
}

fn initiator() -> InitiatorKey {
    InitiatorKey::parse("ed25519", INITIATOR).unwrap()
}

fn keygen() -> Request {
    KeygenRequest { wallet_id: "wallet-1".into(), ..KeygenRequest::default() }.into()
}

fn sign() -> Request {
    SignRequest {
        key_type: "secp256k1".into(),
        wallet_id: "wallet-1".into(),
        network_internal_code: "ethereum-mainnet".into(),
        tx_id: "tx-1".into(),
        tx: Some(hex::decode("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824").unwrap()),
        ..SignRequest::default()
    }
    .into()
}

fn reshare() -> Request {
    ReshareRequest {
        session_id: "sess-1".into(),
        node_ids: Some(vec!["n-a".into(), "n-b".into()]),
        new_threshold: 1,
        key_type: "secp256k1".into(),
        wallet_id: "wallet-1".into(),
        ..ReshareRequest::default()
    }
    .into()
}

fn check(mut request: Request, bytes: &str, signature: &str) {
    assert_eq!(String::from_utf8(request.canonical()).unwrap(), bytes);
    let signature = decode_base64(signature).unwrap();
    assert_eq!(key(0).sign(&request.canonical()).to_bytes().to_vec(), signature);
    assert_eq!(verify_initiator(&initiator(), &request), Err(AuthError::SignatureEmpty));
    request.set_signature(signature.clone());
    assert_eq!(verify_initiator(&initiator(), &request), Ok(()));
    let mut changed = signature;
    changed[10] ^= 1;
    request.set_signature(changed);
    assert!(matches!(verify_initiator(&initiator(), &request), Err(AuthError::InvalidSignature { .. })));
}

#[test]
fn signed_bytes_of_keygen() {
    check(
        keygen(),
        "wallet-1",
        "uTuFKE+YmnIR1tE4m8mqv65NlTuudAGR3zrz71f/BeQyCoIQ4cwSv/npBe+OpFbgSUNnq6iNrIbfKj9MYNWzDw==",
    );
}

#[test]
fn signed_bytes_of_sign() {
    check(
        sign(),
        concat!(
            r#"{"key_type":"secp256k1","wallet_id":"wallet-1","network_internal_code":"ethereum-mainnet","#,
            r#""tx_id":"tx-1","tx":"LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}"#
        ),
        "A41u5TzB+Nowg8ef2NlT5wNF29Q/B7dAapF/YEB7fp5U1j0s/cr2/QCg7bJgHQ5ice+LRLtxgjx0MtAbfPFHCQ==",
    );
    check(
        SignRequest {
            key_type: "ed25519".into(),
            wallet_id: "a<b>&c\"\\/\u{2028}\u{7f}\u{1}é".into(),
            network_internal_code: "solana".into(),
            tx_id: "tx 2".into(),
            ..SignRequest::default()
        }
        .into(),
        concat!(
            r#"{"key_type":"ed25519","wallet_id":"a\u003cb\u003e\u0026c\"\\/\u2028"#,
            "\u{7f}",
            r#"\u0001é","network_internal_code":"solana","tx_id":"tx 2","tx":null}"#
        ),
        "4wWgEfG0U2RupGf4Fx39vPdWZOPJS1JgvwFhpdsoi23jSZGjqSoAmQXaSUrpV6/Bfyf111S2qNkl+mvDmBmZCw==",
    );
    check(
        SignRequest {
            key_type: "ed25519".into(),
            wallet_id: "wallet-1".into(),
            tx_id: "tx-3".into(),
            tx: Some(Vec::new()),
            ..SignRequest::default()
        }
        .into(),
        r#"{"key_type":"ed25519","wallet_id":"wallet-1","network_internal_code":"","tx_id":"tx-3","tx":""}"#,
        "lYDHuuQqt7QJB0l/YioE7Bj8GUOFR2QbsD72E32pAQfLj4BPglvE5HgvU3tYYi4LSp4nsF/xgPXiyDteMlj6BQ==",
    );
}

#[test]
fn signed_bytes_of_reshare() {
    check(
        reshare(),
        concat!(
            r#"{"session_id":"sess-1","node_ids":["n-a","n-b"],"new_threshold":1,"#,
            r#""key_type":"secp256k1","wallet_id":"wallet-1"}"#
        ),
        "fwJQwSxe66XOsQJ6s2kuSVw2Z0V0iBQTFWCzYyHF1HO1oq/Gla6pSJadLUGlPqgTT01e2lLqm7B6u+c+gYwkBA==",
    );
    check(
        ReshareRequest {
            session_id: "sess-2".into(),
            key_type: "ed25519".into(),
            wallet_id: "wallet-1".into(),
            ..ReshareRequest::default()
        }
        .into(),
        r#"{"session_id":"sess-2","node_ids":null,"new_threshold":0,"key_type":"ed25519","wallet_id":"wallet-1"}"#,
        "Y4PNpPTqCGrKwEEjyV0GBqsWaIabatkfAPT3hcPqH0c5URzuMgQzdmoP36YZTILMi9aMymPrx4aFOWvZ26ZVAQ==",
    );
}

fn signed(mut request: Request) -> Request {
    let signature = key(0).sign(&request.canonical()).to_bytes().to_vec();
    request.set_signature(signature);
    request
}

fn approved(mut request: Request, id: &str, by: &SigningKey) -> Request {
    let signature = Some(by.sign(&request.authorizer_bytes()).to_bytes().to_vec());
    let item = AuthorizerSignature { authorizer_id: id.into(), signature };
    match &mut request {
        Request::Keygen(r) => r.authorizer_signatures.push(item),
        Request::Sign(r) => r.authorizer_signatures.push(item),
        Request::Reshare(r) => r.authorizer_signatures.push(item),
    }
    request
}

#[test]
fn signed_bytes_of_authorizers() {
    let request = signed(sign());
    assert_eq!(
        String::from_utf8(request.authorizer_bytes()).unwrap(),
        concat!(
            r#"{"initiator_id":"tx-1","initiator_raw":"eyJrZXlfdHlwZSI6InNlY3AyNTZrMSIsIndhbGxldF9pZCI6IndhbGxldC0xIiwi"#,
            "bmV0d29ya19pbnRlcm5hbF9jb2RlIjoiZXRoZXJldW0tbWFpbm5ldCIsInR4X2lkIjoidHgtMSIsInR4IjoiTFBKTnVsK3dvdzRtNkRzc",
            "XhibmluaHNXSGx3ZnAwSmVjd1F6WXBPTG1DUT0ifQ==",
            r#"","initiator_sig":"A41u5TzB+Nowg8ef2NlT5wNF29Q/B7dAapF/YEB7fp5U1j0s/cr2/QCg7bJgHQ5ice+LRLtxgjx0MtAbfPFHCQ=="}"#
        )
    );
    let expected = "ud+VN4hrl/eVFazZPO2WNqyQuDhpIkCrTHCUAAtClmeuWlVfZKZbhbkwSk9Z1nxvxP3d7CIh4hsz09LQU6LIBA==";
    let signature = approved(request, "a", &key(0x40)).authorizer_signatures()[0].signature.clone();
    assert_eq!(signature, decode_base64(expected).ok());

    let request = signed(keygen());
    assert_eq!(
        String::from_utf8(request.authorizer_bytes()).unwrap(),
        concat!(
            r#"{"initiator_id":"wallet-1","initiator_raw":"d2FsbGV0LTE=","initiator_sig":"#,
            r#""uTuFKE+YmnIR1tE4m8mqv65NlTuudAGR3zrz71f/BeQyCoIQ4cwSv/npBe+OpFbgSUNnq6iNrIbfKj9MYNWzDw=="}"#
        )
    );
    let expected = "4zBvNq825n4hDiHRj8NriGEh+XLQOGvLFXnF/Q3s/pnkHbn8S1N1nCV+dCGl1pUPhLg8y1Bbw61Uq70wa2SFAg==";
    let signature = approved(request, "a", &key(0x40)).authorizer_signatures()[0].signature.clone();
    assert_eq!(signature, decode_base64(expected).ok());
}

#[test]
fn p256_initiators_sign_in_der_with_high_or_low_s() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let der = hex::decode(P256_SPKI).unwrap();
    let expected = InitiatorKey::parse("p256", P256_SPKI).unwrap();
    for text in [format!("0x{P256_SPKI}"), STANDARD.encode(&der)] {
        assert_eq!(InitiatorKey::parse("p256", &text).unwrap(), expected);
    }
    let high_s = concat!(
        "304502207d3f6b742946a0d270375f82691317d28ea7e5bbfed9dbee16b70b5f2b263a08022100838198817edf306e3538d5a7",
        "7554dd656bd0978f815951888932b5a5787bced0"
    );
    let mut request = keygen();
    request.set_signature(hex::decode(high_s).unwrap());
    assert_eq!(verify_initiator(&expected, &request), Ok(()));
    for bad in [&high_s[..high_s.len() - 2], &format!("{high_s}00"), &format!("{}01{}", &high_s[..4], &high_s[6..])] {
        request.set_signature(hex::decode(bad).unwrap());
        let error = verify_initiator(&expected, &request).unwrap_err();
        assert_eq!(error.reason(), "Failed to verify initiator message: invalid signature");
    }
    let raw_point = &P256_SPKI[52..];
    for (algorithm, text) in [
        ("p256", raw_point),
        ("p256", INITIATOR),
        ("ed25519", P256_SPKI),
        ("rsa", INITIATOR),
        ("ed25519", &"00".repeat(32)),
    ] {
        assert!(InitiatorKey::parse(algorithm, text).is_err(), "{algorithm} {text} was accepted");
    }
    assert!(AuthorizerKey::parse("p256", &STANDARD.encode(&der)).is_err(), "authorizers have no base64 form");
    assert!(AuthorizerKey::parse("p256", &format!("0x{P256_SPKI}")).is_ok());
}

#[test]
fn authorizers_are_checked_in_order() {
    let authorization = |enabled, required: &[&str], names: &[&str]| Authorization {
        enabled,
        required: required.iter().map(|&id| id.to_owned()).collect(),
        keys: names.iter().map(|&id| (id.to_owned(), AuthorizerKey::parse("ed25519", AUTHORIZER).unwrap())).collect(),
        full_signature_required: false,
    };
    let by = key(0x40);
    let none = signed(sign());
    let good = approved(none.clone(), "Alice", &by);
    let forged = approved(none.clone(), "Alice", &key(9));
    let check = |a: &Authorization, r: &Request| authorize(&initiator(), a, r);

    assert_eq!(check(&Authorization::default(), &forged), Ok(()), "ignored when disabled");
    assert_eq!(check(&authorization(true, &[], &["Alice"]), &none), Ok(()));
    let required = authorization(true, &["Alice"], &["Alice", "bob"]);
    assert_eq!(check(&required, &good), Ok(()), "upper case works");
    let error = check(&required, &none).unwrap_err();
    assert_eq!(error.code(), ErrorCode::MissingAuthorizerSignature);
    assert_eq!(error.reason(), "Failed to authorize initiator message: missing required authorizer signature: Alice");
    let error = check(&required, &forged).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidAuthorizerSignature);
    assert_eq!(error.to_string(), "authorizer Alice verification failed: ed25519 verification failed for Alice");
    let stranger = approved(good.clone(), "eve", &by);
    let error = check(&required, &stranger).unwrap_err();
    assert_eq!(error.to_string(), "authorizer eve verification failed: authorizer eve not found in cache");
    assert_eq!(check(&required, &approved(good.clone(), "Alice", &by)), Ok(()), "repeated ids are all verified");
    assert!(check(&required, &approved(good.clone(), "bob", &key(9))).is_err(), "those not required are verified too");
    assert_eq!(check(&authorization(true, &["alice"], &["Alice"]), &approved(none.clone(), "alice", &by)), Ok(()));

    let mut unsigned = good;
    unsigned.set_signature(vec![1; 64]);
    let error = check(&required, &unsigned).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidInitiatorSignature, "the initiator comes first");
    assert_eq!(error.reason(), "Failed to verify initiator message: invalid signature from initiator");
}

fn in_full(mut request: Request, client_id: Option<&str>) -> Request {
    *request.full_signature_mut() = Some(FullSignature {
        request_id: "request-1".into(),
        expires_at: 1_764_000_000_000,
        client_id: client_id.map(str::to_owned),
        signature: None,
    });
    let signature = key(0).sign(&request.full_bytes().unwrap()).to_bytes().to_vec();
    request.full_signature_mut().as_mut().unwrap().signature = Some(signature);
    signed(request)
}

/// Computed independently of this crate.
#[test]
fn full_signatures_are_those_of_the_vectors() {
    let Request::Sign(child) = sign() else { panic!("another kind") };
    let child = SignRequest { derivation_path: vec![44, 60, 0, 0, 1], ..child };
    let no_message = SignRequest {
        key_type: "ed25519".into(),
        wallet_id: "wallet-1".into(),
        tx_id: "tx-3".into(),
        ..SignRequest::default()
    };
    let nil = ReshareRequest {
        session_id: "sess-2".into(),
        key_type: "ed25519".into(),
        wallet_id: "wallet-1".into(),
        ..ReshareRequest::default()
    };
    for (request, client, digest, signature) in [
        (
            keygen(),
            None,
            "fddfb1525dc63f58a6fbf6f6f8b59c8225915a1e631e83923f9d5edcf07bc278",
            "uspv7Xpql4b2VEhl0Eb/wRas1CGT6CWDPur/lCjtP6kX2UzrczyfwzLrZ0g549SqtqSysscO05Jc/o1O6oSGBQ==",
        ),
        (
            child.into(),
            Some("svc-a"),
            "5197a41990ac804d79daedc09bf227a56368be72e38ba20675f5717ebe9d7c61",
            "Mit4+1LXvxsbnqSgSBEaOy7ug+KcJiqAzEGcXTPA4iTTwhr9h0Sc0XBibEH1pudShgfu9iKo2tb3VaMPdbxgAg==",
        ),
        (
            no_message.into(),
            None,
            "e4000b3696e3fd0fd285dc51a50ab7539af82adc9c8a49e1defacbcc634dc328",
            "qwm6OptdwP7zHEmH9Es+UZ+DTZDTxsuRgVLtSQ8JQn0iztUp8lo0kPrfmtJP8yN05/oYY3pkgnZbGmUTCA2AAA==",
        ),
        (
            reshare(),
            None,
            "9d9f4305c66b2725772c2be59530e982513cfda1edacec493668bbc286267f5f",
            "+VOjV4uHqwnGyw7bBUXISJFZZcURNEHqcN606nUWGf7PF6yKblkE6eOzxWsRisWYoVKgWwz4DDr11FcwjZL7Dw==",
        ),
        (
            nil.into(),
            None,
            "2ed0288cadcb6ad8ee71d0725756f650e42ad9f87be0f77d55d17b9cd1ebb2b9",
            "M7VVTUvW7dyzeNRNC+p91RfA6XSvGff6By0suj3U/9rGVqMd70xfVQFM8oys5IIwURsUQZ3M7IKBu9xO785fCg==",
        ),
    ] {
        let request = in_full(request, client);
        let text = format!(r#"{{"mpcium_request_v1":"{digest}"}}"#);
        assert_eq!(request.full_bytes(), Some(text.into_bytes()));
        assert_eq!(request.full_signature().unwrap().signature, decode_base64(signature).ok());
    }
    let document = String::from_utf8(in_full(keygen(), Some("svc-a")).to_json()).unwrap();
    let expected =
        r#","full_signature":{"request_id":"request-1","expires_at":1764000000000,"client_id":"svc-a","signature":""#;
    assert!(document.contains(expected), "{document}");
}

#[test]
fn a_full_signature_covers_every_field_and_is_checked_wherever_it_is() {
    let open = Authorization::default();
    let strict = Authorization { full_signature_required: true, ..Authorization::default() };
    let check = |a: &Authorization, r: &Request| authorize(&initiator(), a, r);
    assert_eq!(check(&open, &signed(sign())), Ok(()), "existing clients work");
    assert_eq!(check(&strict, &signed(sign())), Err(AuthError::FullSignatureMissing));
    let good = in_full(sign(), Some("svc"));
    assert_eq!(check(&strict, &good), Ok(()));

    let changes: [fn(&mut SignRequest); 5] = [
        |r| r.derivation_path.push(0),
        |r| r.full_signature.as_mut().unwrap().expires_at += 1,
        |r| r.full_signature.as_mut().unwrap().request_id.push('x'),
        |r| r.full_signature.as_mut().unwrap().client_id = None,
        |r| r.full_signature.as_mut().unwrap().signature = None,
    ];
    for (number, change) in changes.iter().enumerate() {
        let Request::Sign(mut changed) = good.clone() else { panic!("another kind") };
        change(&mut changed);
        for authorization in [&open, &strict] {
            let outcome = check(authorization, &changed.clone().into());
            assert_eq!(outcome, Err(AuthError::InvalidFullSignature), "change {number}");
        }
    }
    // The classic signature does not count for less where the full one is good.
    let mut unsigned = good;
    unsigned.set_signature(vec![1; 64]);
    assert!(matches!(check(&strict, &unsigned), Err(AuthError::InvalidSignature { .. })));
}

/// A request for a signature over a message that the nodes hash.
fn sign_message() -> Request {
    let Request::Sign(request) = sign() else { panic!("another kind") };
    SignRequest { tx_id: "tx-4".into(), ..request }.with_message(MessageHash::Keccak256, "hello").into()
}

/// Computed independently of this crate.
#[test]
fn a_named_hash_is_part_of_what_is_signed() {
    check(
        sign_message(),
        concat!(
            r#"{"key_type":"secp256k1","wallet_id":"wallet-1","network_internal_code":"ethereum-mainnet","#,
            r#""tx_id":"tx-4","tx":"aGVsbG8=","hash":"keccak256"}"#
        ),
        "/PPrZOaBPDaR2Zn5dRkp+wMd/YGfRRkQ159IAyBauOdj0d50njM0HJh2f30HwZecQyvoGv0pPdh+CebR7Fd4AA==",
    );
    let bitcoin = SignRequest {
        key_type: "secp256k1".into(),
        wallet_id: "wallet-1".into(),
        network_internal_code: "bitcoin-mainnet".into(),
        tx_id: "tx-5".into(),
        derivation_path: vec![7],
        ..SignRequest::default()
    };
    for (request, digest, signature) in [
        (
            sign_message(),
            "af6afdbe0c77b7d090a9f4e7c3a354cdb3ba23e3c27efbb11f9f0067d2323047",
            "3wA8bvOdRa6dp8693HJLRFXiTYbFjGqTtkmGW4lH23yM0xfBgvZbzP5hJ6H9FS8SyQxHfJUg05photkd4TK3Aw==",
        ),
        (
            bitcoin.with_message(MessageHash::Sha256d, "").into(),
            "7811394d257f2539ec324da08271599da6f725658c06579378f1c33b74ed831e",
            "+VrbYu/5yw/BXMz1ZGzezL9K/7k/8JLSnopbn3huqCdOD+aE+ewVmtmJmqp9JaD38KAw2i/qIQTXAV0+EJmWBg==",
        ),
    ] {
        let request = in_full(request, None);
        let text = format!(r#"{{"mpcium_request_v1":"{digest}"}}"#);
        assert_eq!(request.full_bytes(), Some(text.into_bytes()));
        assert_eq!(request.full_signature().unwrap().signature, decode_base64(signature).ok());
    }
}

#[test]
fn messages_are_hashed_as_the_request_says() {
    for (hash, digest) in [
        (MessageHash::Sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        (MessageHash::Sha256d, "9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50"),
        (MessageHash::Keccak256, "1c8aff950685c2ed4bc3174f3472287b56d9517b9c948127319a09a7a36deac8"),
    ] {
        let request = SignRequest { key_type: "secp256k1".into(), ..SignRequest::default() };
        assert_eq!(hex::encode(request.with_message(hash, "hello").digest().unwrap()), digest);
        assert_eq!(MessageHash::from_name(hash.as_str()), Some(hash));
    }
}

#[test]
fn a_message_that_nodes_hash_needs_the_full_signature_and_loses_all_without_its_hash() {
    let check = |r: &Request| authorize(&initiator(), &Authorization::default(), r);
    let good = in_full(sign_message(), None);
    assert_eq!(check(&good), Ok(()));

    let classic = signed(sign_message());
    assert_eq!(check(&classic), Err(AuthError::HashWithoutFullSignature));
    assert!(AuthError::HashWithoutFullSignature.reason().contains("full_signature"));

    // Whoever cannot sign cannot make a digest of the message, nor another hash's message of it.
    let Request::Sign(good) = good else { panic!("another kind") };
    let stripped = SignRequest { hash: String::new(), full_signature: None, ..good.clone() };
    assert_eq!(Request::from(stripped.clone()).validate(), Ok(()), "five bytes can pass for a digest");
    assert!(matches!(check(&stripped.into()), Err(AuthError::InvalidSignature { .. })));
    let other = SignRequest { hash: "sha256".into(), ..good.clone() };
    assert!(matches!(check(&other.into()), Err(AuthError::InvalidSignature { .. })));

    // Nor a message of a digest, whether that was signed in full or not.
    for request in [signed(sign()), in_full(sign(), None)] {
        let Request::Sign(request) = request else { panic!("another kind") };
        let added = SignRequest { hash: "sha256".into(), ..request };
        assert!(matches!(check(&added.into()), Err(AuthError::InvalidSignature { .. })));
    }
    // Even the initiator's classic signature over it does not make up for the full one of another request.
    let Request::Sign(digest) = in_full(sign(), None) else { panic!("another kind") };
    let borrowed = SignRequest { full_signature: digest.full_signature, ..good };
    assert_eq!(check(&borrowed.into()), Err(AuthError::InvalidFullSignature));
}

#[test]
fn only_known_hashes_of_messages_for_secp256k1_are_accepted() {
    let Request::Sign(good) = sign_message() else { panic!("another kind") };
    let problem = |request: SignRequest| Request::from(request).validate().map_err(|invalid| invalid.to_string());
    assert_eq!(problem(good.clone()), Ok(()));
    let unknown = problem(SignRequest { hash: "SHA256".into(), ..good.clone() }).unwrap_err();
    assert_eq!(unknown, r#"hash: unknown hash function "SHA256", expected one of sha256, sha256d, keccak256"#);
    assert!(problem(SignRequest { key_type: "ed25519".into(), ..good.clone() }).unwrap_err().starts_with("hash: "));
    let long = |bytes| SignRequest { tx: Some(vec![1; bytes]), ..good.clone() };
    assert_eq!(problem(long(256 * 1024)), Ok(()));
    assert!(problem(long(256 * 1024 + 1)).unwrap_err().starts_with("tx: "));
    let null = Request::decode(Kind::Sign, br#"{"hash":null,"HASH":""}"#).unwrap();
    assert_eq!(null, SignRequest::default().into());
}

#[test]
fn authorizers_sign_the_same_full_bytes_and_must_where_full_signatures_are_required() {
    let by = key(0x40);
    let authorization = |required| Authorization {
        enabled: true,
        required: vec!["Alice".into()],
        keys: [("Alice".to_owned(), AuthorizerKey::parse("ed25519", AUTHORIZER).unwrap())].into(),
        full_signature_required: required,
    };
    let request = in_full(sign(), None);
    let mut full = request.clone();
    full.approve("Alice", by.sign(&request.approval_bytes()).to_bytes().to_vec());
    let classic = approved(request, "Alice", &by);
    let check = |required, r: &Request| authorize(&initiator(), &authorization(required), r);
    assert_eq!(check(false, &full), Ok(()));
    assert_eq!(check(true, &full), Ok(()));
    assert_eq!(check(false, &classic), Ok(()), "authorizers of the existing system");
    assert!(matches!(check(true, &classic), Err(AuthError::InvalidAuthorizer { .. })));
    let mut other = full.clone();
    if let Request::Sign(r) = &mut other {
        r.derivation_path = vec![7];
    }
    let other = in_full(other, None);
    assert!(matches!(check(true, &other), Err(AuthError::InvalidAuthorizer { .. })), "they approved another path");
}

/// The existing client cannot do this: it signs twice, and such signatures differ.
#[test]
fn authorizers_work_with_a_p256_initiator() {
    use p256::ecdsa::{Signature, SigningKey as P256Key, signature::hazmat::PrehashSigner as _};
    use sha2::{Digest as _, Sha256};

    let secret: [u8; 32] = std::array::from_fn(|at| 1 + u8::try_from(at).unwrap());
    let secret = P256Key::from_slice(&secret).unwrap();
    let sign_p256 = |bytes: &[u8]| {
        let signature: Signature = secret.sign_prehash(&Sha256::digest(bytes)).unwrap();
        signature.to_der().as_bytes().to_vec()
    };
    let initiator = InitiatorKey::parse("p256", P256_SPKI).unwrap();
    let authorization = Authorization {
        enabled: true,
        required: vec!["Ops".into(), "bob".into()],
        keys: [
            ("Ops".to_owned(), AuthorizerKey::parse("p256", P256_SPKI).unwrap()),
            ("bob".to_owned(), AuthorizerKey::parse("ed25519", AUTHORIZER).unwrap()),
        ]
        .into(),
        full_signature_required: false,
    };
    for full in [false, true] {
        let mut request = sign();
        if full {
            request = in_full(request, None);
            let signature = sign_p256(&request.full_bytes().unwrap());
            request.full_signature_mut().as_mut().unwrap().signature = Some(signature);
        }
        request.set_signature(sign_p256(&request.canonical()));
        let bytes = request.approval_bytes();
        request.approve("Ops", sign_p256(&bytes));
        request.approve("bob", key(0x40).sign(&bytes).to_bytes().to_vec());
        assert_eq!(authorize(&initiator, &authorization, &request), Ok(()), "full: {full}");
        let Request::Sign(r) = &mut request else { panic!("another kind") };
        r.authorizer_signatures[0].signature = Some(sign_p256(b"something else"));
        let error = authorize(&initiator, &authorization, &request).unwrap_err();
        assert_eq!(
            error.to_string(),
            "authorizer Ops verification failed: p256 verification failed for Ops: invalid signature"
        );
    }
}

fn decoded(kind: Kind, document: &str) -> Request {
    Request::decode(kind, document.as_bytes()).unwrap()
}

#[test]
fn documents_are_decoded_like_go_does() {
    let Request::Sign(request) = decoded(
        Kind::Sign,
        concat!(
            " {\"KEY_TYPE\":\"ed25519\",\"wallet_id\":\"x\",\"wallet_id\":\"w\\ud800\",\"tx_id\":null,\"new\":[{}],",
            "\"tx\":\"aG\\nk=\",\"derivation_path\":[1,null,4294967295],\"\u{17f}ignature\":[1,2,255],",
            "\"authorizer_signatures\":[null,{\"authorizer_id\":\"a\",\"signature\":\"\"}]}\n"
        ),
    ) else {
        panic!("another kind");
    };
    assert_eq!(request.key_type, "ed25519");
    assert_eq!(request.wallet_id, "w\u{fffd}");
    assert_eq!(request.tx_id, "");
    assert_eq!(request.tx.as_deref(), Some(&b"hi"[..]));
    assert_eq!(request.derivation_path, [1, 0, u32::MAX]);
    assert_eq!(request.signature.as_deref(), Some(&[1, 2, 255][..]));
    assert_eq!(request.authorizer_signatures.len(), 2);
    assert_eq!(request.authorizer_signatures[1].signature, Some(Vec::new()));

    let absent = decoded(Kind::Sign, "{}");
    assert_eq!(absent, decoded(Kind::Sign, r#"{"tx":null,"derivation_path":null}"#));
    assert_eq!(absent, decoded(Kind::Sign, "null"));
    assert_ne!(absent.canonical(), decoded(Kind::Sign, r#"{"tx":""}"#).canonical());
    let nil = decoded(Kind::Reshare, r#"{"node_ids":null}"#);
    let empty = decoded(Kind::Reshare, r#"{"node_ids":[]}"#);
    assert_ne!(nil.canonical(), empty.canonical());
    assert_ne!(nil.payload_bytes(), empty.payload_bytes());
}

#[test]
fn wrong_types_are_refused_and_the_rest_is_still_read() {
    for (kind, document) in [
        (Kind::Keygen, "[]"),
        (Kind::Keygen, ""),
        (Kind::Keygen, r#"{"wallet_id":7}"#),
        (Kind::Keygen, r#"{"wallet_id":"w"} x"#),
        (Kind::Sign, r#"{"tx":"aGk"}"#),
        (Kind::Sign, r#"{"tx":[256]}"#),
        (Kind::Sign, r#"{"derivation_path":[-1]}"#),
        (Kind::Sign, r#"{"derivation_path":[4294967296]}"#),
        (Kind::Sign, r#"{"derivation_path":[1.0]}"#),
        (Kind::Reshare, r#"{"new_threshold":1e0}"#),
        (Kind::Reshare, r#"{"new_threshold":"1"}"#),
        (Kind::Reshare, r#"{"new_threshold":9223372036854775808}"#),
        (Kind::Reshare, r#"{"node_ids":"a"}"#),
        (Kind::Reshare, r#"{"authorizer_signatures":[1]}"#),
    ] {
        assert!(Request::decode(kind, document.as_bytes()).is_err(), "{document} was accepted");
    }
    let error = Request::decode(Kind::Sign, br#"{"tx":5,"tx_id":"t","wallet_id":"w"}"#).unwrap_err();
    assert_eq!(error.reason, "tx: expected base64 text, got number 5");
    assert_eq!((error.partial.wallet_id(), error.partial.request_id()), ("w", "t"));
    let long = format!(r#"{{"wallet_id":"{}"}}"#, "w".repeat(600_000));
    assert!(Request::decode(Kind::Keygen, long.as_bytes()).is_err());
}

fn field_of(request: impl Into<Request>) -> Option<&'static str> {
    request.into().validate().err().map(|invalid| invalid.field)
}

#[test]
fn impossible_values_are_refused_by_name() {
    assert_eq!([keygen(), sign(), reshare()].map(|request| request.validate()), [Ok(()), Ok(()), Ok(())]);
    let wallet = |id: &str| KeygenRequest { wallet_id: id.to_owned(), ..KeygenRequest::default() };
    for id in ["", "{", "{\"key_type\"", &"w".repeat(257)] {
        assert_eq!(field_of(wallet(id)), Some("wallet_id"), "{id}");
    }
    for id in ["a b.c", "[", "é", &"w".repeat(256), " {"] {
        assert_eq!(field_of(wallet(id)), None, "{id}");
    }

    let Request::Sign(good) = sign() else { panic!("another kind") };
    assert_eq!(field_of(SignRequest { tx_id: String::new(), ..good.clone() }), Some("tx_id"));
    assert_eq!(field_of(SignRequest { key_type: "p256".into(), ..good.clone() }), Some("key_type"));
    assert_eq!(field_of(SignRequest { derivation_path: vec![0; 256], ..good.clone() }), Some("derivation_path"));
    assert_eq!(field_of(SignRequest { derivation_path: vec![1 << 31], ..good.clone() }), Some("derivation_path"));
    assert_eq!(field_of(SignRequest { derivation_path: vec![(1 << 31) - 1; 255], ..good.clone() }), None);
    assert_eq!(
        field_of(SignRequest { network_internal_code: "n".repeat(257), ..good.clone() }),
        Some("network_internal_code")
    );
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut below = order.clone();
    below[31] -= 1;
    for (tx, refused) in
        [(order, true), (vec![1; 33], true), (below, false), (vec![0; 40], false), (b"Hello".to_vec(), false)]
    {
        let request = SignRequest { tx: Some(tx.clone()), ..good.clone() };
        assert_eq!(field_of(request), refused.then_some("tx"), "{tx:02x?}");
    }
    let message = SignRequest { key_type: "ed25519".into(), tx: Some(vec![0; 256 * 1024]), ..good.clone() };
    assert_eq!(field_of(message.clone()), None);
    assert_eq!(field_of(SignRequest { tx: Some(vec![0; 256 * 1024 + 1]), ..message }), Some("tx"));
    assert_eq!(field_of(SignRequest { signature: Some(vec![0; 129]), ..good.clone() }), Some("signature"));
    let approvals = vec![AuthorizerSignature::default(); 65];
    assert_eq!(field_of(SignRequest { authorizer_signatures: approvals, ..good }), Some("authorizer_signatures"));

    let Request::Reshare(good) = reshare() else { panic!("another kind") };
    assert_eq!(field_of(ReshareRequest { session_id: String::new(), ..good.clone() }), Some("session_id"));
    assert_eq!(field_of(ReshareRequest { node_ids: None, ..good.clone() }), Some("node_ids"));
    let twice = Some(vec!["n-a".into(), "n-a".into()]);
    assert_eq!(field_of(ReshareRequest { node_ids: twice, ..good.clone() }), Some("node_ids"));
    for threshold in [-1, 3, i64::MAX] {
        assert_eq!(field_of(ReshareRequest { new_threshold: threshold, ..good.clone() }), Some("new_threshold"));
    }
}

#[test]
fn short_digests_are_padded() {
    let Request::Sign(mut request) = sign() else { panic!("another kind") };
    request.tx = Some(b"Hello".to_vec());
    let mut expected = [0; 32];
    expected[27..].copy_from_slice(b"Hello");
    assert_eq!(request.digest(), Ok(expected));
    request.tx = Some([&[0; 9][..], b"Hello"].concat());
    assert_eq!(request.digest(), Ok(expected));
    request.tx = None;
    assert_eq!(request.digest(), Ok([0; 32]));
}

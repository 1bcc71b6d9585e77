//! What holds for every request, whatever is in it.

use mpcium_client::{
    AuthorizerSignature, FullSignature, KeygenRequest, Kind, Request, ReshareRequest, SignRequest,
    query::{QUERY_BYTES_MAX, WalletQuery},
};
use proptest::prelude::*;

/// Text with what JSON and subjects treat specially.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(
            prop_oneof![
                any::<char>(),
                proptest::sample::select(vec![
                    '{', '}', '"', '\\', '<', '.', '\u{2028}', '\u{7f}', '\n', ':', 'w', '1'
                ]),
            ],
            0..12
        )
        .prop_map(|characters| characters.into_iter().collect()),
        Just(r#"{"key_type":"ed25519","wallet_id":"w","network_internal_code":"","tx_id":"t","tx":null}"#.to_owned()),
    ]
}

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))
}

fn approvals() -> impl Strategy<Value = Vec<AuthorizerSignature>> {
    let item =
        (text(), bytes()).prop_map(|(authorizer_id, signature)| AuthorizerSignature { authorizer_id, signature });
    proptest::collection::vec(item, 0..3)
}

fn full() -> impl Strategy<Value = Option<FullSignature>> {
    let any = (text(), any::<u64>(), proptest::option::of(text()), bytes());
    let usable = ("[a-z{.]{1,8}", 0..1_u64 << 53, proptest::option::of("[a-z:]{1,4}"), bytes());
    let full = prop_oneof![1 => any.boxed(), 9 => usable.boxed()];
    proptest::option::of(full.prop_map(|(request_id, expires_at, client_id, signature)| FullSignature {
        request_id,
        expires_at,
        client_id,
        signature,
    }))
}

fn key_type() -> impl Strategy<Value = String> {
    prop_oneof![Just("secp256k1".to_owned()), Just("ed25519".to_owned()), text()]
}

fn hash() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(String::new()), 1 => Just("sha256".to_owned()), 1 => text()]
}

/// Some with the text of everything else that initiators sign.
fn any_query() -> impl Strategy<Value = WalletQuery> {
    let id = prop_oneof![4 => text().boxed(), 1 => "[a-z{.]{1,8}".boxed()];
    (id, text(), any::<u64>(), bytes()).prop_map(|(wallet_id, request_id, expires_at, signature)| WalletQuery {
        wallet_id,
        request_id,
        expires_at,
        signature,
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (text(), bytes(), approvals(), full()).prop_map(
            |(wallet_id, signature, authorizer_signatures, full_signature)| {
                KeygenRequest { wallet_id, signature, authorizer_signatures, full_signature }.into()
            }
        ),
        (
            (key_type(), text(), text(), text(), bytes(), hash()),
            (bytes(), proptest::collection::vec(any::<u32>(), 0..4), approvals(), full())
        )
            .prop_map(|(signed, rest)| {
                let (key_type, wallet_id, network_internal_code, tx_id, tx, hash) = signed;
                let (signature, derivation_path, authorizer_signatures, full_signature) = rest;
                SignRequest {
                    key_type,
                    wallet_id,
                    network_internal_code,
                    tx_id,
                    tx,
                    hash,
                    signature,
                    derivation_path,
                    authorizer_signatures,
                    full_signature,
                }
                .into()
            }),
        (
            (text(), proptest::option::of(proptest::collection::vec(text(), 0..4)), any::<i64>()),
            (key_type(), text(), bytes(), approvals(), full())
        )
            .prop_map(|(first, rest)| {
                let (session_id, node_ids, new_threshold) = first;
                let (key_type, wallet_id, signature, authorizer_signatures, full_signature) = rest;
                // Go leaves an empty signature out, so it comes back as nil.
                let signature = signature.filter(|signature| !signature.is_empty());
                ReshareRequest {
                    session_id,
                    node_ids,
                    new_threshold,
                    key_type,
                    wallet_id,
                    signature,
                    authorizer_signatures,
                    full_signature,
                }
                .into()
            }),
    ]
}

proptest! {
    // Most requests of any content are not valid, which one of these properties is about.
    #![proptest_config(ProptestConfig { max_global_rejects: 65_536, ..ProptestConfig::default() })]

    #[test]
    fn documents_survive_a_round_trip(request in any_request()) {
        let again = Request::decode(request.kind(), &request.to_json());
        prop_assert_eq!(again.as_ref(), Ok(&request));
        let again = again.unwrap();
        prop_assert_eq!(again.canonical(), request.canonical());
        prop_assert_eq!(again.all_bytes(), request.all_bytes());
    }

    #[test]
    fn written_documents_are_json_for_others_too(request in any_request()) {
        let document: serde_json::Value = serde_json::from_slice(&request.to_json()).unwrap();
        prop_assert_eq!(document["wallet_id"].as_str(), Some(request.wallet_id()));
    }

    #[test]
    fn equal_encodings_mean_equal_requests(a in any_request(), b in any_request()) {
        prop_assert_eq!(a.all_bytes() == b.all_bytes(), a == b);
        let same_payload = a.payload_bytes() == b.payload_bytes();
        prop_assert!(!same_payload || a.canonical() == b.canonical());
    }

    #[test]
    fn signatures_are_no_part_of_the_payload(request in any_request(), signature in bytes()) {
        let mut other = request.clone();
        other.set_signature(signature.unwrap_or_default());
        prop_assert_eq!(other.payload_bytes(), request.payload_bytes());
        prop_assert_eq!(other.canonical(), request.canonical());
    }

    #[test]
    fn no_signed_bytes_are_valid_as_two_kinds(request in any_request()) {
        prop_assume!(request.validate().is_ok());
        let signed = request.canonical();
        for kind in [Kind::Keygen, Kind::Sign, Kind::Reshare] {
            let other = match kind {
                Kind::Keygen => String::from_utf8(signed.clone())
                    .map(|wallet_id| KeygenRequest { wallet_id, ..KeygenRequest::default() }.into()).ok(),
                kind => Request::decode(kind, &signed).ok(),
            };
            if let Some(other) = other && other.validate().is_ok() && other.canonical() == signed {
                prop_assert_eq!(kind, request.kind());
            }
        }
    }

    #[test]
    fn what_is_signed_in_full_is_signed_for_nothing_else(a in any_request(), b in any_request()) {
        if let Some(signed) = a.full_bytes() {
            prop_assert!(b.validate().is_err() || signed != b.canonical());
            prop_assert_ne!(&signed, &b.authorizer_bytes());
            let as_wallet = KeygenRequest { wallet_id: String::from_utf8(signed.clone()).unwrap(), ..KeygenRequest::default() };
            prop_assert!(Request::from(as_wallet).validate().is_err());
            if b.full_bytes() == Some(signed) {
                prop_assert_eq!(a.payload_bytes(), b.payload_bytes());
            }
        }
    }

    #[test]
    fn what_is_signed_of_a_query_is_signed_for_nothing_else(query in any_query(), other in any_query(), b in any_request()) {
        let signed = query.signed_bytes();
        prop_assert!(b.validate().is_err() || signed != b.canonical());
        prop_assert_ne!(&signed, &b.authorizer_bytes());
        prop_assert_ne!(Some(signed.clone()), b.full_bytes());
        // The signed bytes of a key generation are the wallet's name, whatever it is.
        let as_wallet = KeygenRequest { wallet_id: String::from_utf8(signed.clone()).unwrap(), ..KeygenRequest::default() };
        prop_assert!(Request::from(as_wallet).validate().is_err());
        for kind in [Kind::Sign, Kind::Reshare] {
            let read = Request::decode(kind, &signed).ok().filter(|read| read.validate().is_ok());
            prop_assert!(read.is_none_or(|read| read.canonical() != signed));
        }
        if other.signed_bytes() == signed {
            let covered = |query: &WalletQuery| (query.wallet_id.clone(), query.request_id.clone(), query.expires_at);
            prop_assert_eq!(covered(&query), covered(&other));
        }
    }

    #[test]
    fn queries_survive_a_round_trip(query in any_query()) {
        let document = query.to_json();
        prop_assume!(document.len() <= QUERY_BYTES_MAX);
        prop_assert_eq!(WalletQuery::from_json(&document), Ok(query));
    }

    #[test]
    fn approvals_are_no_part_of_what_is_signed_in_full(request in any_request(), more in approvals()) {
        let mut other = request.clone();
        for item in more {
            other.approve(item.authorizer_id, item.signature.unwrap_or_default());
        }
        other.set_signature(vec![1]);
        prop_assert_eq!(other.full_bytes(), request.full_bytes());
    }

    #[test]
    fn no_bytes_make_decoding_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in [Kind::Keygen, Kind::Sign, Kind::Reshare] {
            drop(Request::decode(kind, &body));
        }
    }

    #[test]
    fn different_ids_make_different_tokens(a in text(), b in text()) {
        use mpcium_client::subjects::{escape_token, unescape_token};
        let token = escape_token(&a);
        prop_assert!(!token.is_empty() && !token.contains(['.', '*', '>', '\0']) && !token.contains(char::is_whitespace));
        prop_assert_eq!(unescape_token(&token), Some(a.clone()));
        prop_assert_eq!(token == escape_token(&b), a == b);
    }
}

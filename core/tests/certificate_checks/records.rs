//! What is written to disk: every version of it is read, and nothing else is.

use super::*;

#[test]
fn the_hashes_and_records_are_these() {
    let (first, second) = (first_certificate(), second_certificate());
    let [.., share] = shares(first.facts(), node(1)).try_into().map(|s: [KeyShare; 2]| s).unwrap();
    let share = ShareRecord { session: SessionId([2; 32]), share };
    let refused = PendingRecord::Refused(RefusedRecord { statement: one_of_each().3 });
    assert_eq!(
        [
            hex::encode(first.value.hash()),
            hex::encode(first.hash()),
            hex::encode(public_shares_hash(&first.value.public_shares)),
            digest(&CertificateRecord { certificate: second, vote: None }.encode()),
            digest(&voted_record().encode()),
            digest(&PendingRecord::Prepared(prepared_record().into()).encode()),
            digest(&refused.encode()),
            digest(&share.encode()),
        ],
        GOLDEN_HASHES,
    );
}

fn prepared_record() -> PreparedRecord {
    let facts = facts(1..=3, 2);
    let public_shares = value(&facts).public_shares;
    PreparedRecord { statement: statements(&facts).swap_remove(1), public_shares, request: b"{}".to_vec() }
}

fn cast_vote() -> CastVote {
    voted_record().cast_vote().unwrap()
}

/// A certificate as it was written before votes were kept with it.
#[test]
fn a_certificate_of_the_first_schema_version_is_read() {
    let certificate = second_certificate();
    let written = postcard::to_allocvec(&(0_u8, &certificate)).unwrap();
    // As that version pinned it.
    assert_eq!(digest(&written), GOLDEN_CERTIFICATE_V1);
    assert_eq!(CertificateRecord::decode(&written), Ok(CertificateRecord { certificate, vote: None }));
}

/// What a version without slots wrote is in the first slot, and keeps its word about sessions that it refused.
#[test]
fn an_acceptor_of_the_first_schema_version_is_read() {
    let value = value(&facts(1..=3, 2));
    let acceptor = (Some(ballot(1)), Some((ballot(1), value)));
    let written =
        |refused: &[SessionId]| postcard::to_allocvec(&(0_u8, "wallet-1", 0_u32, &acceptor, refused)).unwrap();
    // As that version pinned it.
    assert_eq!(digest(&written(&[])), "f4d704b3a17f85d1bc552bd5585c0ee5d706d857b76bb9c4104a06be0dc8afbc");
    let refused = vec![SessionId([7; 32])];
    let expected = AcceptorRecord { refused: refused.clone(), ..without_grounds() };
    assert_eq!(AcceptorRecord::decode(&written(&refused)), Ok(expected));
}

/// The second one's votes have no grounds either.
#[test]
fn an_acceptor_of_the_second_schema_version_is_read() {
    let choice = Choice::Session(Box::new(value(&facts(1..=3, 2))));
    let acceptor = (Some(ballot(1)), Some((ballot(1), choice)));
    let written = postcard::to_allocvec(&(1_u8, slot(0), None::<Closing>, &acceptor, Vec::<SessionId>::new())).unwrap();
    // As that version pinned it.
    assert_eq!(digest(&written), GOLDEN_ACCEPTOR_V2);
    assert_eq!(AcceptorRecord::decode(&written), Ok(without_grounds()));
}

fn without_grounds() -> AcceptorRecord {
    let choice = Choice::Session(Box::new(value(&facts(1..=3, 2))));
    let acceptor = Acceptor::without_grounds(Some(ballot(1)), Some((ballot(1), choice)));
    AcceptorRecord { acceptor, ..AcceptorRecord::new("wallet-1", 0) }
}

#[test]
fn an_acceptor_of_a_later_slot_holds_the_closing_of_the_one_before() {
    let mut record = AcceptorRecord::after(closing(0, &[1, 2]), None).unwrap();
    assert_eq!(record.slot, slot(1));
    assert!(record.acceptor.prepare(ballot(4)).is_err(), "of the slot before");
    let mut later = AcceptorRecord::after(closing(0, &[1, 2]), Some(ballot(6))).unwrap();
    assert!(later.acceptor.prepare(ballot(6)).is_err() && later.acceptor.prepare(ballot(7)).is_ok());
    assert!(record.acceptor.prepare(ballot(5)).is_ok());
    assert_eq!(AcceptorRecord::decode(&record.encode()), Ok(record.clone()));
    let wrong = Err(FormError::Closing { slot: 1 });
    for closing in [None, Some(closing(1, &[1, 2]))] {
        let record = AcceptorRecord { closing, ..record.clone() };
        let Err(RecordError::Content { error: CertificateError::Form(error), .. }) =
            AcceptorRecord::decode(&record.encode())
        else {
            panic!("it was read")
        };
        assert_eq!(Err::<(), _>(error), wrong);
    }
    assert_eq!(AcceptorRecord::after(closing(u32::MAX, &[1]), None), None);
}

#[test]
fn records_come_back_as_they_were() {
    let certificate = CertificateRecord { certificate: second_certificate(), vote: Some(cast_vote()) };
    assert_eq!(CertificateRecord::decode(&certificate.encode()).as_ref(), Ok(&certificate));
    let mut acceptor = AcceptorRecord::decode(&voted_record().encode()).unwrap();
    assert_eq!(acceptor, voted_record());
    assert_eq!(acceptor.acceptor.prepare(ballot(2)), Ok(()));
    assert!(
        matches!(acceptor.acceptor.voted(), Some(voted) if voted.ballot == ballot(1) && voted.grounds == grounds())
    );
    let prepared = PendingRecord::Prepared(prepared_record().into());
    assert_eq!(PendingRecord::decode(&prepared.encode()), Ok(prepared));
    let refused = PendingRecord::Refused(RefusedRecord { statement: one_of_each().3 });
    assert_eq!(PendingRecord::decode(&refused.encode()), Ok(refused));
    let blank = AcceptorRecord::new("w", 3);
    assert_eq!(AcceptorRecord::decode(&blank.encode()), Ok(blank));
}

#[test]
fn preparing_is_one_batch_with_every_share_in_the_erasable_keyspace() {
    let (record, facts) = (prepared_record(), facts(1..=3, 2));
    let mut batch = Batch::default();
    record.clone().store(shares(&facts, node(2)), &mut batch).unwrap();
    let at = |curve| (Keyspace::Shares, share_key("wallet-1", curve, 0, facts.session));
    let names: Vec<_> = batch.writes.iter().map(|write| (write.keyspace, write.key.clone())).collect();
    assert_eq!(
        names,
        [at(Curve::Secp256k1), at(Curve::Ed25519), (Keyspace::Pending, pending_key("wallet-1", 0, facts.session))]
    );
    for (write, share) in batch.writes.iter().zip(shares(&facts, node(2))) {
        let stored = ShareRecord::decode(write.value.as_ref().unwrap().expose());
        assert_eq!(stored, Ok(ShareRecord { session: facts.session, share }));
    }
    let secret = [77; 32];
    let pending = batch.writes[2].value.as_ref().unwrap().expose();
    assert!(!pending.windows(32).any(|bytes| bytes == secret), "a secret outside the erasable keyspace");

    let mut untouched = Batch::default();
    assert_eq!(record.store(shares(&facts, node(1)), &mut untouched), Err(FormError::KeyShare("index").into()));
    assert_eq!(untouched, Batch::default());
}

#[test]
fn damaged_records_are_refused() {
    let bytes = voted_record().encode();
    let encoding = Err(RecordError::Encoding { what: AcceptorRecord::WHAT });
    assert_eq!(AcceptorRecord::decode(&bytes[..bytes.len() - 1]), encoding);
    assert_eq!(AcceptorRecord::decode(&[&bytes[..], &[0]].concat()), encoding, "trailing bytes");
    let mut future = bytes.clone();
    future[0] = 9;
    assert_eq!(AcceptorRecord::decode(&future), encoding, "unknown schema version");
    assert_eq!(
        AcceptorRecord::decode(&vec![0; AcceptorRecord::BYTES_MAX + 1]),
        Err(RecordError::TooLong {
            what: AcceptorRecord::WHAT,
            limit: AcceptorRecord::BYTES_MAX,
            got: AcceptorRecord::BYTES_MAX + 1
        })
    );
    let other = AcceptorRecord { slot: Slot { wallet: "wallet-2".into(), ..slot(0) }, ..voted_record() };
    assert!(matches!(
        AcceptorRecord::decode(&other.encode()),
        Err(RecordError::Content { error: CertificateError::VoteForOther(_), .. })
    ));
    let mut short = prepared_record();
    short.public_shares[0].pop();
    assert!(matches!(
        PendingRecord::decode(&PendingRecord::Prepared(short.into()).encode()),
        Err(RecordError::Content { error: CertificateError::Form(FormError::Count { .. }), .. })
    ));
    let mut certificate = first_certificate();
    certificate.value.session.facts.committee.threshold = 1;
    assert!(matches!(
        CertificateRecord::decode(&CertificateRecord { certificate, vote: None }.encode()),
        Err(RecordError::Content { error: CertificateError::Form(FormError::Committee { .. }), .. })
    ));
}

/// A number has many encodings in postcard (trailing empty groups of bits); only the shortest is read.
#[test]
fn only_the_one_encoding_is_read() {
    let record = AcceptorRecord::new("w", 3);
    let bytes = record.encode();
    assert_eq!(bytes, [2, 1, b'w', 3, 0, 0, 0, 0, 0, 0]);
    let padded = [2, 1, b'w', 0x83, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(AcceptorRecord::decode(&padded), Err(RecordError::Encoding { what: AcceptorRecord::WHAT }));
}

#[test]
fn the_largest_records_fit_their_limits() {
    let facts = SessionFacts { wallet: "w".repeat(limits::ID_BYTES_MAX), ..facts(1..=32, 17) };
    let value = value(&facts);
    let votes: Vec<_> = (1..=32).map(|number| vote(&value, ballot(u64::MAX), number)).collect();
    let certificate = Certificate::assemble(value.clone(), &votes, None, &keys).unwrap();
    let bytes = CertificateRecord { certificate, vote: None }.encode();
    assert!(bytes.len() * 5 < CertificateRecord::BYTES_MAX, "{} bytes", bytes.len());
    assert!(CertificateRecord::decode(&bytes).is_ok());
    let statement = statements(&facts).swap_remove(31);
    let request = vec![1; limits::REQUEST_BYTES_MAX];
    let record = PreparedRecord { statement, public_shares: value.public_shares, request };
    let record = PendingRecord::Prepared(record.into());
    assert!(PendingRecord::decode(&record.encode()).is_ok());
    assert!(share_key(&facts.wallet, Curve::Ed25519, 0, facts.session).len() <= limits::RECORD_KEY_BYTES_MAX);
}

#[test]
fn names_of_records_are_distinct_and_sort_by_epoch() {
    let (session, wallets) = (SessionId([255; 32]), ["a", "aa", "a\0", "b", "\u{1}a"]);
    let mut names = BTreeSet::new();
    for wallet in wallets {
        for epoch in [0, 1, 255, 256, u32::MAX] {
            assert!(names.insert(certificate_key(wallet, epoch)));
            assert_eq!(decision_key(wallet, epoch), certificate_key(wallet, epoch));
            assert!(names.insert(pending_key(wallet, epoch, session)));
            for curve in Curve::ALL {
                assert!(names.insert(share_key(wallet, curve, epoch, session)));
            }
            assert!(certificate_key(wallet, epoch) <= certificate_key(wallet, epoch.saturating_add(1)));
        }
        let mine = names.iter().filter(|name| name.starts_with(&wallet_prefix(wallet))).count();
        assert_eq!(mine, 5 * 4, "exactly the names of wallet {wallet:?} begin with its prefix");
    }
}

const GOLDEN_CERTIFICATE_V1: &str = "c935d79fd1fea2dc453289c2d33546343e3bebcc9e8a7de0e76b897170316e93";

const GOLDEN_ACCEPTOR_V2: &str = "a43a23e13d00d7a6b67c263f6713bcfe6cb4861b6e2d31de54183dfa97b27733";

const GOLDEN_HASHES: [&str; 8] = [
    "3d443d944864c7e2c7795a4578cdd5e1a010ce1eb0d4650a7e6f04ac32e241a2",
    "72019c352b81bdc3e785a8c8ac8ecbe41301c6b7e71bd375f3a6c028925af628",
    "56a3fbcc407f822d47baef607f4d992d3bdec5d172862287bf28d697415da6ff",
    "d3c60c82c341c505302bbeabbb4b065d5dfb493940cafbf3f3a9ae583d170b9e",
    "e87e18c82737c8524cae38e72cba67339a38bc8e516c8fdfff19a771eac83cad",
    "eb3522ec3275d0cb94fdc0561c918cb7664c1402cabec2453f2fecf1e138b994",
    "d39485ef14547a92d7ab94c6175e3df6ac5b66cb46073fd7b7ca3cb2ba95c1ef",
    "28c6a65b4e3e4b44a5610af66346dce51b26762448a6a262ed5ff81550a580f2",
];

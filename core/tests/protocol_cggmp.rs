//! secp256k1 signing and its auxiliary data as core sees them, at a toy security level: messages in, messages out.

mod api {
    pub use mpcium_core::protocol::*;
}
mod common_protocol;
#[path = "common_protocol/toy.rs"]
mod toy;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use common_protocol::{Envelope, pump, pump_honestly, runs};
use mpcium_core::Secret;
use mpcium_core::protocol::{
    AuxiliarySet, AuxiliarySuite, AuxiliaryView, Cggmp, Curve, DistributedKeyGeneration, EcdsaProtocol, KeyGeneration,
    KeyShare, Opened, Outcome, Party, Run, Signing, SigningSuite, Status, Suites,
};
use toy::Toy;

fn suite() -> Box<dyn SigningSuite> {
    Box::new(Cggmp::<Toy>::new())
}

fn auxiliary_suite(suite: &dyn SigningSuite) -> &dyn AuxiliarySuite {
    suite.auxiliary().expect("CGGMP24 needs auxiliary data")
}

fn ingredients() -> &'static [Vec<Secret>] {
    static MADE: OnceLock<Vec<Vec<Secret>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let suite = suite();
        let auxiliary = auxiliary_suite(&*suite);
        (0..5u8)
            .map(|member| {
                (0..u8::try_from(auxiliary.ingredient_pieces()).expect("few"))
                    .map(|piece| auxiliary.make_ingredient_piece([16 * member + piece + 1; 32]))
                    .collect()
            })
            .collect()
    })
}

fn auxiliary_parties(members: u16, occasion: u8) -> Vec<Box<dyn Party>> {
    let suite = suite();
    runs(members, occasion)
        .into_iter()
        .zip(ingredients())
        .map(|(run, ingredient)| auxiliary_suite(&*suite).start(run, ingredient.clone()).expect("fits"))
        .collect()
}

/// The sets of the five members of one committee.
fn sets() -> &'static [AuxiliarySet] {
    static MADE: OnceLock<Vec<AuxiliarySet>> = OnceLock::new();
    MADE.get_or_init(|| {
        pump_honestly(auxiliary_parties(5, 1))
            .into_iter()
            .map(|outcome| {
                let Outcome::Auxiliary(set) = outcome else { panic!("no auxiliary set") };
                set
            })
            .collect()
    })
}

fn keys(members: u16, threshold: u16) -> Vec<Arc<KeyShare>> {
    let parties =
        runs(members, 2).into_iter().map(|run| DistributedKeyGeneration.start(run, threshold).expect("fits")).collect();
    pump_honestly(parties)
        .into_iter()
        .map(|outcome| {
            let Outcome::Keys(shares) = outcome else { panic!("no keys") };
            Arc::new(shares.into_iter().find(|share| share.curve == Curve::Secp256k1).expect("both curves"))
        })
        .collect()
}

/// `nodes[i]` is the row in the auxiliary sets of the member at committee position `i`.
fn view(nodes: &[usize], signers: &[u16], signer: u16) -> AuxiliaryView {
    let set = &sets()[nodes[usize::from(signer)]];
    AuxiliaryView {
        secret: set.secret.clone(),
        rows: signers.iter().map(|signer| set.rows[nodes[usize::from(*signer)]].clone()).collect(),
        opened: None,
    }
}

fn signing_parties(shares: &[Arc<KeyShare>], nodes: &[usize], signers: &[u16], digest: &[u8]) -> Vec<Box<dyn Party>> {
    signing_parties_with(None, shares, nodes, signers, digest)
}

fn signing_parties_with(
    tables: Option<&Opened>,
    shares: &[Arc<KeyShare>],
    nodes: &[usize],
    signers: &[u16],
    digest: &[u8],
) -> Vec<Box<dyn Party>> {
    runs(u16::try_from(signers.len()).expect("few"), 3)
        .into_iter()
        .zip(signers)
        .map(|(run, signer)| {
            let signing = Signing {
                key: shares[usize::from(*signer)].clone(),
                signers: signers.to_vec(),
                message: digest.to_vec(),
                auxiliary: vec![AuxiliaryView { opened: tables.cloned(), ..view(nodes, signers, *signer) }],
            };
            suite().start(run, signing).expect("fits")
        })
        .collect()
}

#[test]
fn all_members_hold_the_same_rows_and_their_own_secret() {
    let suite = suite();
    for (position, set) in sets().iter().enumerate() {
        let position = u16::try_from(position).expect("few");
        assert_eq!(set.rows, sets()[0].rows);
        auxiliary_suite(&*suite).check(set, position).expect("fits");
        let another = (position + 1) % 5;
        assert!(auxiliary_suite(&*suite).check(set, another).is_err());
        assert!(auxiliary_suite(&*suite).check(set, 5).is_err());
    }
}

#[test]
fn malformed_ingredients_are_refused() {
    let suite = suite();
    let start = |pieces: Vec<Secret>| {
        let run = Run { execution_id: [1; 32], index: 0, parties: 3, seed: [2; 32] };
        auxiliary_suite(&*suite).start(run, pieces).map(drop)
    };
    let good = ingredients()[0].clone();
    start(good.clone()).expect("fits");
    let mut composite = good[0].expose().to_vec();
    *composite.last_mut().expect("bytes") ^= 2;
    let mut short = good.clone();
    short.pop();
    let mut twice = good.clone();
    twice[3] = twice[0].clone();
    for (what, pieces) in [
        ("three pieces", short),
        ("the same prime twice", twice),
        ("a composite", [vec![Secret::new(composite)], good[1..].to_vec()].concat()),
        ("a short prime", [vec![Secret::new(vec![3])], good[1..].to_vec()].concat()),
        ("none", Vec::new()),
    ] {
        assert!(start(pieces).is_err(), "{what}");
    }
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    let record = |parties: Vec<Box<dyn Party>>| {
        let mut transcript = Vec::new();
        pump(parties, |envelope| {
            transcript.push((envelope.from, envelope.to, envelope.bytes.clone()));
            vec![envelope]
        });
        transcript
    };
    assert_eq!(record(auxiliary_parties(3, 5)), record(auxiliary_parties(3, 5)));
    assert_ne!(record(auxiliary_parties(3, 5)), record(auxiliary_parties(3, 6)));
    let shares = keys(3, 2);
    let sign = || record(signing_parties(&shares, &[0, 1, 2], &[0, 1], &[1; 32]));
    assert_eq!(sign(), sign());
}

#[test]
fn tables_change_nothing_that_is_said() {
    let shares = keys(3, 2);
    let transcript = |tables: Option<&Opened>| {
        let mut said = Vec::new();
        let ends = pump(signing_parties_with(tables, &shares, &[4, 1, 2], &[0, 2], &[7; 32]), |envelope| {
            said.push((envelope.from, envelope.to, envelope.bytes.clone()));
            vec![envelope]
        });
        assert!(ends.into_iter().all(|end| matches!(end, Some(Ok(Outcome::Signature(_))))));
        said
    };
    let suite = suite();
    let tables_of = |rows: &[Vec<u8>]| auxiliary_suite(&*suite).precompute(rows).and_then(|work| work());
    let plain = transcript(None);
    let of_all = tables_of(&sets()[0].rows).expect("good rows");
    assert_eq!(transcript(Some(&of_all)), plain);
    // Whatever is made of other rows is not used for these.
    let of_others = tables_of(&sets()[0].rows[..2]).expect("good rows");
    assert_eq!(transcript(Some(&of_others)), plain);
    assert!(tables_of(&[b"no row".to_vec()]).is_none());
}

#[test]
fn repeated_auxiliary_messages_are_harmless_and_different_ones_are_equivocation() {
    let mut other = Vec::new();
    pump(auxiliary_parties(3, 7), |envelope| {
        other.push(envelope.clone());
        vec![envelope]
    });
    for number in 0..3 {
        let meddled = |second: &dyn Fn(&Envelope) -> Envelope| {
            pump(auxiliary_parties(3, 8), |envelope| {
                let chosen = (envelope.from, envelope.to, envelope.number) == (1, 0, number);
                if chosen { vec![envelope.clone(), second(&envelope)] } else { vec![envelope] }
            })
            .remove(0)
        };
        let twice = meddled(&Envelope::clone);
        assert!(matches!(twice, Some(Ok(Outcome::Auxiliary(_)))), "message {number} twice: {twice:?}");
        let two = meddled(&|sent| {
            let same_place = |e: &&Envelope| (e.from, e.to, e.number) == (sent.from, sent.to, sent.number);
            other.iter().find(same_place).expect("sent").clone()
        });
        match two {
            Some(Err(abort)) => assert_eq!(abort.culprits, [1], "message {number}: {abort:?}"),
            other => panic!("two in place of message {number}: {other:?}"),
        }
    }
}

#[test]
fn full_size_primes_start_an_auxiliary_run() {
    let pieces: Vec<Secret> = include_str!("../../e2e/fixtures/test-primes.txt")
        .lines()
        .skip(1)
        .take(4)
        .map(|line| Secret::new(hex::decode(line).expect("hexadecimal")))
        .collect();
    let suites = Suites::production(EcdsaProtocol::Cggmp24);
    let auxiliary = suites.secp256k1.auxiliary().expect("CGGMP24 needs auxiliary data");
    let run = Run { execution_id: [1; 32], index: 0, parties: 3, seed: [2; 32] };
    let mut party = auxiliary.start(run, pieces).expect("fits");
    let step = party.advance(Vec::new());
    assert!(matches!(step.status, Status::Waiting), "{step:?}");
    assert_eq!(step.messages.len(), 1, "the commitment");
    assert!(step.messages[0].to.is_none());
}

#[test]
fn debug_shows_no_secret() {
    let view = view(&[0, 1, 2], &[0, 1], 0);
    for debug in [format!("{:?}", sets()[0]), format!("{view:?}"), format!("{:?}", ingredients()[0])] {
        assert!(debug.contains("Secret(..)"));
        assert!(!debug.contains(&format!("{:?}", view.secret.expose())));
    }
}

#[test]
fn production_suites_are_at_full_strength_and_refuse_the_toy_levels_data() {
    let suites = Suites::production(EcdsaProtocol::Cggmp24);
    assert_ne!(suites.secp256k1.name(), suite().name());
    let auxiliary = suites.secp256k1.auxiliary().expect("CGGMP24 needs auxiliary data");
    assert!(auxiliary.check(&sets()[0], 0).is_err());
    let run = Run { execution_id: [1; 32], index: 0, parties: 3, seed: [2; 32] };
    assert!(auxiliary.start(run, ingredients()[0].clone()).is_err());
    assert!(suites.ed25519.auxiliary().is_none());
}

/// What the product consists of, without what is compiled for tests only.
fn sources_of_the_product() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> =
        ["client", "core", "io", "node"].iter().map(|of| root.join(of).join("src")).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if is_for_tests(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                sources.push((path, text));
            }
        }
    }
    sources
}

/// Whether the parent module declares a file or folder under `#[cfg(test)]`.
fn is_for_tests(path: &Path) -> bool {
    let folder = path.parent().expect("a folder");
    let declaration = format!("mod {};", path.file_stem().and_then(|name| name.to_str()).expect("a name"));
    let parents = [folder.join("mod.rs"), folder.join("lib.rs"), folder.with_extension("rs")];
    parents.iter().filter_map(|parent| std::fs::read_to_string(parent).ok()).any(|parent| {
        let lines: Vec<&str> = parent.lines().collect();
        let at = lines.iter().position(|line| line.trim_start_matches("pub ").ends_with(&declaration));
        at.is_some_and(|at| {
            let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
            attributes.into_iter().any(|line| line.contains("cfg(test)"))
        })
    })
}

/// The level is a type parameter, so the product could only select a toy level by defining one or by including the file
/// that does. That no production crate depends on `sim` is another test's business.
#[test]
fn nothing_in_the_product_defines_or_includes_a_security_level() {
    let sources = sources_of_the_product();
    assert!(sources.len() > 100, "{} files are not the whole product", sources.len());
    assert!(sources.iter().any(|(_, text)| text.contains("Cggmp::<")), "the suites are made somewhere");
    for (path, text) in sources {
        for what in ["define_security_level", "impl SecurityLevel", "toy.rs", "Toy"] {
            assert!(!text.contains(what), "{} holds `{what}`", path.display());
        }
        // Whoever names a level outside of the suite names the strong one.
        for level in text.split("Cggmp::<").skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
            assert!(level.ends_with("SecurityLevel128"), "{}: {level}", path.display());
        }
    }
}

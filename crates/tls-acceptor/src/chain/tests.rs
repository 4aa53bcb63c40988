use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

use super::*;
use net_io::unix_now;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, until_days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(100);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(until_days);
    params
}

fn ca(name: &str, until_days: i64, with_ids: bool) -> CertificateParams {
    let mut params = params(name, until_days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = with_ids;
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(ca(name, 1000, true), KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(name: &str, by: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(ca(name, 500, true), KeyPair::generate().unwrap(), by).unwrap()
}

fn leaf_of(by: &Issuer, with_ids: bool) -> ChainLink {
    let mut params = params("a server", 90);
    params.use_authority_key_identifier_extension = with_ids;
    params.subject_alt_names = vec![rcgen::SanType::DnsName("a.test".try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    ChainLink::read(params.signed_by(&key, by).unwrap().der().clone()).unwrap()
}

fn link(issuer: &Issuer) -> ChainLink {
    ChainLink::read(issuer.der().clone()).unwrap()
}

fn built(own: &[&ChainLink], at: usize, pool: &[&ChainLink]) -> (Vec<String>, Vec<ChainFault>) {
    let copy = |link: &&ChainLink| ChainLink::read(link.der.clone()).unwrap();
    let own: Vec<ChainLink> = own.iter().map(copy).collect();
    let pool: Vec<ChainLink> = pool.iter().map(copy).collect();
    let chain = chain(&own, at, &IssuerPool::of(pool.iter()), unix_now());
    let name = |der: CertificateDer<'static>| ChainLink::read(der).unwrap().facts.subject_name;
    (chain.certs.into_iter().map(name).collect(), chain.faults)
}

#[track_caller]
fn check(own: &[&ChainLink], at: usize, pool: &[&ChainLink], sent: &[&str], faults: &[ChainFault]) {
    let (found, found_faults) = built(own, at, pool);
    assert_eq!(found, sent);
    assert_eq!(found_faults, faults);
}

fn no_issuer(issuer: &str) -> ChainFault {
    ChainFault::NoIssuer { issuer: issuer.to_owned() }
}

fn stray(name: &str) -> ChainFault {
    ChainFault::Stray { name: name.to_owned(), more: 0 }
}

/// With key identifiers and without, since then only the signature decides.
#[test]
fn chains_are_put_in_order_and_completed() {
    for with_ids in [true, false] {
        let root = root("Root");
        let (upper, other) = (intermediate("Upper", &root), intermediate("Other", &root));
        let lower = intermediate("Lower", &upper);
        let leaf = leaf_of(&lower, with_ids);
        let (root, upper, lower, other) = (link(&root), link(&upper), link(&lower), link(&other));
        let whole = ["a server", "Lower", "Upper"];
        check(&[&leaf, &lower, &upper], 0, &[], &whole, &[]);
        // Misordered, doubled, with the root.
        check(&[&leaf, &upper, &lower], 0, &[], &whole, &[]);
        check(&[&upper, &lower, &leaf], 2, &[], &whole, &[]);
        check(&[&leaf, &lower, &lower, &upper, &leaf, &upper], 0, &[], &whole, &[]);
        check(&[&root, &leaf, &lower, &upper], 1, &[], &["a server", "Lower", "Upper", "Root"], &[]);
        // What lies in the directory is used; its root is not sent.
        check(&[&leaf], 0, &[&other, &root, &upper, &lower], &whole, &[]);
        check(&[&leaf, &lower], 0, &[&root, &upper], &whole, &[]);
        // Missing, or another's.
        check(&[&leaf], 0, &[], &["a server"], &[no_issuer("Lower")]);
        check(&[&leaf], 0, &[&other, &root, &upper], &["a server"], &[no_issuer("Lower")]);
        check(&[&leaf, &other], 0, &[], &["a server"], &[no_issuer("Lower"), stray("Other")]);
        check(&[&leaf, &other, &lower, &upper, &other], 0, &[], &whole, &[stray("Other")]);
        let both = ChainFault::Stray { name: "Other".to_owned(), more: 1 };
        check(&[&leaf, &other, &root], 0, &[], &["a server"], &[no_issuer("Lower"), both]);
    }
}

/// Names of authorities may be written in two ways (RFC 5280 §7.1), and algorithms be unknown here.
#[test]
fn ids_and_signatures_decide_where_names_do_not() {
    let (root, namesake) = (root("Root"), root("Root"));
    for (with_ids, told) in [(true, true), (false, false)] {
        let mut leaf = leaf_of(&root, with_ids);
        leaf.facts.issuer = b"the same in other words".to_vec();
        assert_eq!(issued(&link(&root), &leaf), told, "the id, and the signature");
        assert!(!issued(&link(&namesake), &leaf));
    }
    // ecdsa-with-SHA256 becomes an unknown algorithm, in both places where a certificate names it.
    let leaf = leaf_of(&root, false);
    let known = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let mut der = leaf.der.to_vec();
    for at in 0..der.len() - known.len() {
        if der[at..].starts_with(&known) {
            der[at + known.len() - 1] = 0x70;
        }
    }
    let mut strange = ChainLink { der: der.into(), facts: leaf.facts };
    assert!(issued(&link(&root), &strange), "the name is all there is");
    strange.facts.authority_key_id = link(&namesake).facts.key_id;
    assert!(!issued(&link(&root), &strange), "the id is another one's");
}

/// The issuer's old key under the same name.
#[test]
fn an_issuer_of_the_same_name_with_another_key_is_not_it() {
    for with_ids in [true, false] {
        let root = root("Root");
        let (new, old) = (intermediate("Issuing", &root), intermediate("Issuing", &root));
        let leaf = leaf_of(&new, with_ids);
        let (root, new, old) = (link(&root), link(&new), link(&old));
        let faults = [no_issuer("Issuing"), stray("Issuing")];
        check(&[&leaf, &old], 0, &[&root], &["a server"], &faults);
        check(&[&leaf, &old, &new], 0, &[&root], &["a server", "Issuing"], &[stray("Issuing")]);
        let copy = |link: &ChainLink| ChainLink::read(link.der.clone()).unwrap();
        let (own, pool) = ([copy(&leaf)], [old, new]);
        assert_eq!(chain(&own, 0, &IssuerPool::of(pool.iter()), unix_now()).certs[1], pool[1].der);
    }
}

#[test]
fn signatures_of_every_usual_kind_are_understood() {
    let algorithms: [&SignatureAlgorithm; 2] = [&PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256];
    for algorithm in algorithms {
        let make = || {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertifiedIssuer::self_signed(ca("Root", 1000, false), key).unwrap()
        };
        let (root, other) = (make(), make());
        let leaf = leaf_of(&root, false);
        let key = |issuer| link(issuer).facts.public_key;
        assert_eq!(is_signed_by(&leaf.der, &key(&root)), Some(true));
        assert_eq!(is_signed_by(&leaf.der, &key(&other)), Some(false));
    }
    let leaf = leaf_of(&root("Root"), false);
    for junk in [&[][..], &[0x30, 0], &leaf.der[..20]] {
        assert_eq!(is_signed_by(junk, &leaf.facts.public_key), None);
    }
    assert_eq!(is_signed_by(&leaf.der, &[1, 2]), None);
}

#[test]
fn an_issuer_that_has_expired_is_the_last_choice_and_reported() {
    let root = root("Root");
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let old = CertifiedIssuer::signed_by(ca("Issuing", -1, true), key, &root).unwrap();
    let key = KeyPair::from_pem(&pem).unwrap();
    let new = CertifiedIssuer::signed_by(ca("Issuing", 500, true), key, &root).unwrap();
    let leaf = leaf_of(&new, true);
    let (old, new) = (link(&old), link(&new));
    let expired = ChainFault::Expired { name: "Issuing".to_owned() };
    check(&[&leaf, &old], 0, &[], &["a server", "Issuing"], &[expired]);
    let copy = |link: &ChainLink| ChainLink::read(link.der.clone()).unwrap();
    // Both are sent, the good one first; one that only lies in the directory is not added.
    let own = [copy(&leaf), copy(&old), copy(&new)];
    let both = chain(&own, 0, &IssuerPool::default(), unix_now());
    assert_eq!(both.certs, [leaf.der.clone(), new.der.clone(), old.der.clone()]);
    assert_eq!(both.faults, []);
    let mut early = copy(&old);
    (early.facts.not_before, early.facts.not_after) = (unix_now() + 1000, unix_now() + 2000);
    let (first, last) = (early.facts.not_before, early.facts.not_after);
    let own = [copy(&leaf), early];
    let name = || "Issuing".to_owned();
    for (now, faults) in [
        (first - 1, vec![ChainFault::NotYetValid { name: name() }]),
        (first, vec![]),
        (last, vec![]),
        (last + 1, vec![ChainFault::Expired { name: name() }]),
    ] {
        assert_eq!(chain(&own, 0, &IssuerPool::default(), now).faults, faults);
    }
}

#[test]
fn an_issuer_that_another_one_has_signed_too_stays() {
    let (root, older) = (root("Root"), root("Older Root"));
    let issuing = intermediate("Issuing", &root);
    let leaf = leaf_of(&issuing, true);
    let key = KeyPair::from_pem(&root.key().serialize_pem()).unwrap();
    let cross = CertifiedIssuer::signed_by(ca("Root", 500, true), key, &older).unwrap();
    let (root, issuing, cross) = (link(&root), link(&issuing), link(&cross));
    check(&[&leaf, &issuing, &cross], 0, &[], &["a server", "Issuing", "Root"], &[]);
    check(&[&leaf, &issuing, &root, &cross], 0, &[], &["a server", "Issuing", "Root", "Root"], &[]);
}

#[test]
fn strays_are_counted_for_people() {
    let said = |more| ChainFault::Stray { name: "Other".to_owned(), more }.to_string();
    assert!(said(0).starts_with("the certificate of Other in the file is not part"), "{}", said(0));
    assert!(said(2).contains("Other in the file, and 2 more, is not part"), "{}", said(2));
}

#[test]
fn what_signs_itself_needs_no_issuer() {
    let root = root("a server");
    check(&[&link(&root)], 0, &[], &["a server"], &[]);
    // Two authorities that have signed each other: the walk ends.
    let (a, b) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let pem = |key: &KeyPair| KeyPair::from_pem(&key.serialize_pem()).unwrap();
    let self_a = CertifiedIssuer::self_signed(ca("A", 10, true), pem(&a)).unwrap();
    let self_b = CertifiedIssuer::self_signed(ca("B", 10, true), pem(&b)).unwrap();
    let a_by_b = CertifiedIssuer::signed_by(ca("A", 10, true), a, &self_b).unwrap();
    let b_by_a = CertifiedIssuer::signed_by(ca("B", 10, true), b, &self_a).unwrap();
    let leaf = leaf_of(&a_by_b, true);
    check(&[&leaf, &link(&a_by_b), &link(&b_by_a)], 0, &[], &["a server", "A", "B"], &[]);
}

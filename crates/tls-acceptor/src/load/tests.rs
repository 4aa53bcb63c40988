//! Directories as people lay them out, and as they break them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::KeyPair;
use rustls::SignatureScheme;
use support::pki::{Issued, Key, Order, Pki, self_signed};
use tempfile::TempDir;

use super::*;
use crate::cert_set::{Selected, Why};
use crate::material::FileError;
use crate::reload::Certificates;

const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];

struct Directory {
    temp: TempDir,
    pki: Pki,
}

impl Directory {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o700)).unwrap(); // no other user may enter it
        Self { temp, pki: Pki::new() }
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    fn write(&self, file: &str, content: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn plan(&self) -> Plan {
        Plan::directory(self.path())
    }

    fn with_default(&self, name: &str) -> Plan {
        Plan { default: CertName::parse(name), ..self.plan() }
    }
}

/// The leaf that answers for `name`, if it is not the default's.
fn answer(set: &CertSet, name: &str) -> Option<Vec<u8>> {
    match set.resolve(Some(name), &[ECDSA, RSA].concat())? {
        (Selected::Own, key) => Some(key.cert[0].to_vec()),
        (Selected::Default, _) => None,
    }
}

#[track_caller]
fn serves(loaded: &Loaded, name: &str, issued: &Issued) {
    assert_eq!(answer(&loaded.set, name), Some(issued.der.to_vec()), "for {name}");
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn any_layout_will_do() {
    let d = Directory::new();
    let issue = |name: &str| d.pki.issue(&[name]);
    let (pair, single, certbot, der, reversed) = (
        issue("pair.test"),
        issue("single.test"),
        issue("certbot.test"),
        issue("der.test"),
        issue("rev.test"),
    );
    d.write("pair.crt", &pair.fullchain);
    d.write("pair.key", &pair.key);
    d.write("deep/down/single.pem", &(single.key.clone() + &single.fullchain));
    d.write("live/certbot.test/cert.pem", &certbot.leaf);
    d.write("live/certbot.test/chain.pem", &certbot.chain);
    d.write("live/certbot.test/fullchain.pem", &certbot.fullchain);
    d.write("live/certbot.test/privkey.pem", &certbot.key);
    d.write("live/README", "not a certificate");
    d.write("reversed.crt", &(reversed.chain.clone() + &reversed.leaf));
    d.write("elsewhere/reversed.KEY", &reversed.key);
    fs::write(d.path().join("der.cer"), &der.der).unwrap();
    d.write("der.key", &der.key);
    d.write(".hidden/old.pem", "-----BEGIN CERTIFICATE-----\nbroken");
    let loaded = load(&d.plan(), None).unwrap();
    assert_eq!(texts(&loaded.warnings), Vec::<String>::new());
    for (name, issued) in [
        ("pair.test", &pair),
        ("single.test", &single),
        ("certbot.test", &certbot),
        ("der.test", &der),
        ("rev.test", &reversed),
    ] {
        serves(&loaded, name, issued);
    }
    // The longest chain, leaf first.
    for name in ["certbot.test", "rev.test"] {
        let (_, key) = loaded.set.resolve(Some(name), ECDSA).unwrap();
        assert_eq!(key.cert.len(), 2, "{name}");
    }
}

#[test]
fn names_are_exact_then_wildcard_then_default() {
    let d = Directory::new();
    let exact = d.pki.issue(&["a.test.example", "Upper.Test.Example"]);
    let wildcard = d.pki.issue(&["*.test.example", "192.0.2.1"]);
    let default = d.pki.issue(&["default.example"]);
    exact.write(d.path(), "exact");
    wildcard.write(d.path(), "wildcard");
    default.write(d.path(), "default");
    let loaded = load(&d.with_default("DEFAULT.example."), None).unwrap();
    serves(&loaded, "a.test.example", &exact);
    serves(&loaded, "A.TEST.example.", &exact);
    serves(&loaded, "upper.test.example", &exact);
    serves(&loaded, "b.test.example", &wildcard);
    assert_eq!(answer(&loaded.set, "b.b.test.example"), None); // one label only
    assert_eq!(answer(&loaded.set, "test.example"), None);
    assert_eq!(answer(&loaded.set, ".test.example"), None);
    for unknown in [None, Some("other.example")] {
        let (selected, key) = loaded.set.resolve(unknown, ECDSA).unwrap();
        assert_eq!((selected, &key.cert[0]), (Selected::Default, &default.der));
    }
    let refusing = load(&d.plan(), None).unwrap();
    assert!(refusing.set.resolve(None, ECDSA).is_none());
    assert!(refusing.set.resolve(Some("other.example"), ECDSA).is_none());
    assert!(loaded.set.share("b.test.example", "c.test.example"));
    assert!(!loaded.set.share("a.test.example", "c.test.example"));
}

#[test]
fn an_address_may_be_the_default() {
    let d = Directory::new();
    d.pki.issue(&["192.0.2.1"]).write(d.path(), "ip");
    let plan = Plan { default: Some(CertName::Ip([192, 0, 2, 1].into())), ..d.plan() };
    assert!(load(&plan, None).unwrap().set.resolve(None, ECDSA).is_some());
}

#[test]
fn the_client_chooses_between_rsa_and_ecdsa() {
    let d = Directory::new();
    let ecdsa = d.pki.issue(&["both.test"]);
    let rsa = d.pki.issue_as(&Order { key: Key::Rsa, ..Order::new(&["both.test"]) });
    ecdsa.write(d.path(), "ecdsa");
    rsa.write(d.path(), "rsa");
    let loaded = load(&d.plan(), None).unwrap();
    assert!(loaded.lost.is_empty());
    let leaf = |schemes| loaded.set.resolve(Some("both.test"), schemes).unwrap().1.cert[0].clone();
    let both = [RSA, ECDSA].concat();
    assert_eq!(leaf(&both), ecdsa.der);
    assert_eq!(leaf(RSA), rsa.der);
    assert_eq!(leaf(ECDSA), ecdsa.der);
}

#[test]
fn of_two_for_one_name_the_valid_then_the_later_is_served() {
    let order = |from_days, until_days| Order { from_days, until_days, ..Order::new(&["two.test"]) };
    for (winner, loser, why) in [
        (order(-10, 80), order(-20, 70), Why::IssuedEarlier),
        (order(-20, 70), order(-10, -1), Why::NotValidNow),
        (order(-20, 70), order(1, 90), Why::NotValidNow),
    ] {
        let d = Directory::new();
        let (winner, loser) = (d.pki.issue_as(&winner), d.pki.issue_as(&loser));
        for (first, second) in [(&winner, &loser), (&loser, &winner)] {
            first.write(d.path(), "1");
            second.write(d.path(), "2");
            let loaded = load(&d.plan(), None).unwrap();
            serves(&loaded, "two.test", &winner);
            let [lost] = &loaded.lost[..] else { panic!("{:?}", loaded.lost) };
            assert_eq!((lost.loser.der(), lost.why), (&loser.der[..], why));
            assert!(loaded.warnings.is_empty(), "the loser's dates don't matter");
        }
    }
}

#[test]
fn one_key_may_have_two_certificates() {
    let d = Directory::new();
    let key = KeyPair::generate().unwrap();
    let (a, b) =
        (d.pki.issue_for(&Order::new(&["a.test"]), &key), d.pki.issue_for(&Order::new(&["b.test"]), &key));
    d.write("a.crt", &a.fullchain);
    d.write("b.crt", &b.fullchain);
    d.write("shared.key", &a.key);
    let loaded = load(&d.plan(), None).unwrap();
    serves(&loaded, "a.test", &a);
    serves(&loaded, "b.test", &b);
}

#[test]
fn expired_and_not_yet_valid_are_served() {
    let d = Directory::new();
    let expired = d.pki.issue_as(&Order { from_days: -90, until_days: -1, ..Order::new(&["old.test"]) });
    let early = d.pki.issue_as(&Order { from_days: 1, ..Order::new(&["new.test"]) });
    expired.write(d.path(), "old");
    early.write(d.path(), "new");
    let loaded = load(&d.plan(), None).unwrap();
    serves(&loaded, "old.test", &expired);
    serves(&loaded, "new.test", &early);
    let warnings = texts(&loaded.warnings).join("\n");
    let told =
        format!("{}: the certificate of new.test IS NOT VALID YET", d.path().join("new.crt").display());
    assert!(warnings.contains(&told), "{warnings}");
}

/// The most usual self-signed certificate is marked as a CA's.
#[test]
fn a_ca_certificate_that_names_hosts_is_served_and_reported() {
    let d = Directory::new();
    let (found, named) = (self_signed(&["found.test"]), self_signed(&["named.test", "192.0.2.1"]));
    found.write(d.path(), "found");
    let elsewhere = TempDir::new().unwrap();
    named.write(elsewhere.path(), "named");
    let file = |name| elsewhere.path().join(name);
    let plan = Plan {
        named: vec![Named { chain: vec![file("named.crt")], key: file("named.key"), client_auth: None }],
        ..d.plan()
    };
    let loaded = load(&plan, None).unwrap();
    serves(&loaded, "found.test", &found);
    serves(&loaded, "named.test", &named);
    let warnings = texts(&loaded.warnings);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for name in ["found.test", "named.test"] {
        let warning = warnings.iter().find(|warning| warning.contains(name)).unwrap();
        assert!(warning.contains("basicConstraints=critical,CA:FALSE"), "{warning}");
    }
    // One that is not served is not worth a word.
    d.pki.issue_as(&Order { until_days: 1, ..Order::new(&["found.test"]) }).write(d.path(), "proper");
    let loaded = load(&d.plan(), None).unwrap();
    assert_eq!((loaded.lost.len(), texts(&loaded.warnings).len()), (1, 0));
}

#[test]
fn an_authority_whose_key_is_there_stays_in_the_chain() {
    // The root names hosts, the intermediate doesn't; the leaf comes before, between and after.
    let root = self_signed(&["root.test"]);
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let d = Directory::new();
        let leaf = d.pki.issue(&["leaf.test"]);
        let certs = [&leaf.leaf, &leaf.chain, &root.leaf];
        d.write("leaf.crt", &order.map(|i| certs[i].as_str()).concat());
        d.write("leaf.key", &leaf.key);
        d.write("intermediate.key", &d.pki.intermediate_key());
        d.write("root.key", &root.key);
        let loaded = load(&d.plan(), None).unwrap();
        serves(&loaded, "leaf.test", &leaf);
        assert_eq!(answer(&loaded.set, "root.test"), None, "{order:?}");
        let named = Named {
            chain: vec![d.path().join("leaf.crt")],
            key: d.path().join("leaf.key"),
            client_auth: None,
        };
        serves(&load(&Plan { named: vec![named], ..Plan::default() }, None).unwrap(), "leaf.test", &leaf);
        // By itself an authority that names hosts is served, one that doesn't is not.
        d.write("root.crt", &root.leaf);
        d.write("intermediate.crt", &leaf.chain);
        let loaded = load(&d.plan(), None).unwrap();
        serves(&loaded, "root.test", &root);
        serves(&loaded, "leaf.test", &leaf);
        let warnings = texts(&loaded.warnings);
        let refused = "intermediate.crt: certificate 1 is a CA certificate that names no host";
        assert!(warnings.iter().any(|warning| warning.contains(refused)), "{warnings:?}");
    }
}

#[test]
fn files_that_are_of_no_use_are_reported_and_do_no_harm() {
    let d = Directory::new();
    let good = d.pki.issue(&["good.test"]);
    good.write(d.path(), "good");
    d.write("lonely.key", &d.pki.issue(&["x.test"]).key);
    d.write("lonely.crt", &d.pki.issue(&["y.test"]).fullchain);
    d.write("cut.pem", &good.fullchain[..300]);
    d.write("noise.cer", "\u{1}\u{2}\u{3}");
    d.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    d.write("request.pem", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    std::os::unix::fs::symlink("/nowhere/at/all", d.path().join("dangling.pem")).unwrap();
    let loaded = load(&d.plan(), None).unwrap();
    serves(&loaded, "good.test", &good);
    let mut warned: Vec<&str> = Vec::new();
    for warning in &loaded.warnings {
        let Warning::File(problem) = warning else { panic!("{warning}") };
        warned.push(problem.path.file_name().unwrap().to_str().unwrap());
    }
    warned.sort_unstable();
    assert_eq!(warned, ["cut.pem", "dangling.pem", "locked.key", "lonely.crt", "lonely.key", "noise.cer"]);
}

#[test]
fn a_named_certificate_must_be_good_and_every_problem_is_reported() {
    let d = Directory::new();
    let (a, b) = (d.pki.issue(&["a.test"]), d.pki.issue(&["b.test"]));
    d.write("a.leaf", &a.leaf);
    d.write("a.chain", &a.chain);
    d.write("a.key", &a.key);
    d.write("b.crt", &b.fullchain);
    let no_certificate = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    d.write("broken.crt", &(a.leaf.clone() + no_certificate));
    let file = |name: &str| d.path().join(name);
    let named = |chain: &[&str], key: &str| Named {
        chain: chain.iter().map(|c| file(c)).collect(),
        key: file(key),
        client_auth: None,
    };
    let good = Plan { named: vec![named(&["a.leaf", "a.chain"], "a.key")], ..Plan::default() };
    let loaded = load(&good, None).unwrap();
    serves(&loaded, "a.test", &a);
    assert_eq!(loaded.set.resolve(Some("a.test"), ECDSA).unwrap().1.cert.len(), 2);

    let bad = Plan {
        named: vec![
            named(&["a.leaf"], "a.key"),
            named(&["b.crt"], "a.key"),
            named(&["missing.crt"], "missing.key"),
            named(&["a.key"], "a.key"),
            named(&["broken.crt"], "a.key"),
            named(&["missing.pem"], "missing.pem"),
            named(&["b.crt"], "b.crt"),
        ],
        ..Plan::default()
    };
    let problems = load(&bad, None).unwrap_err();
    let kinds: Vec<(usize, &FileError)> = problems
        .iter()
        .map(|p| match p {
            CertificateProblem::Named { position, problem } => (*position, &problem.error),
            other => panic!("{other}"),
        })
        .collect();
    assert!(
        matches!(
            kinds[..],
            [
                (1, FileError::Mismatch { .. }),
                (2, FileError::Io(_)),
                (2, FileError::Io(_)),
                (3, FileError::NoCertificate),
                (4, FileError::Certificate { position: 2, .. }),
                (5, FileError::Io(_)), // once, although it is chain and key
                (6, FileError::NoKey),
            ]
        ),
        "{kinds:?}"
    );
    // Both files are named.
    let mismatch = problems[0].to_string();
    assert!(mismatch.contains("a.key") && mismatch.contains("b.crt"), "{mismatch}");
}

#[test]
fn no_certificate_and_a_default_without_one_are_problems() {
    let d = Directory::new();
    d.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA");
    let nothing = texts(&load(&d.plan(), None).unwrap_err());
    assert!(nothing[0].contains("no certificate was found") && nothing[0].contains("cut.pem"), "{nothing:?}");
    d.pki.issue(&["a.test"]).write(d.path(), "a");
    let default = texts(&load(&d.with_default("b.test"), None).unwrap_err());
    assert!(default[0].contains("default name b.test") && default[0].contains("cut.pem"), "{default:?}");
    let empty = TempDir::new().unwrap();
    let nothing = texts(&load(&Plan::directory(empty.path()), None).unwrap_err());
    let (directory, endings) = (empty.path().display().to_string(), ".pem, .crt, .cer or .key");
    assert!(nothing[0].contains(&directory) && nothing[0].contains(endings), "{nothing:?}");
    let gone = texts(&load(&Plan::directory(d.path().join("gone")), None).unwrap_err());
    assert!(gone[0].contains("gone: can't be read"), "{gone:?}");
}

#[test]
fn a_broken_file_keeps_the_last_good_certificate_and_stops_no_other() {
    for (what, file, content) in [
        ("a chain that is cut off", "a.crt", "-----BEGIN CERTIFICATE-----\nAAAA"),
        ("an empty chain", "a.crt", ""),
        ("a key that is cut off", "a.key", "-----BEGIN PRIVATE KEY-----\nAAAA"),
        ("an empty key", "a.key", ""),
    ] {
        let d = Directory::new();
        let (a, b, renewed) = (d.pki.issue(&["a.test"]), d.pki.issue(&["b.test"]), d.pki.issue(&["b.test"]));
        a.write(d.path(), "a");
        b.write(d.path(), "b");
        let certificates = Certificates::load(&d.with_default("a.test")).unwrap();
        d.write(file, content);
        renewed.write(d.path(), "b");
        for _ in 0..2 {
            let report = certificates.reload(&d.with_default("a.test")).unwrap();
            assert_eq!(report.kept, [CertName::parse("a.test").unwrap()], "{what}");
            let current = certificates.current();
            serves(&current.loaded, "a.test", &a);
            serves(&current.loaded, "b.test", &renewed);
            let warnings = texts(&current.loaded.warnings).join("\n");
            assert!(warnings.contains("last good certificate of a.test stays in use"), "{what}: {warnings}");
        }
        // At a start there is no last good one.
        assert!(load(&d.with_default("a.test"), None).is_err(), "{what}");
        // Mended, or removed on purpose.
        let mended = d.pki.issue(&["a.test"]);
        mended.write(d.path(), "a");
        assert_eq!(certificates.reload(&d.plan()).unwrap().kept, []);
        serves(&certificates.current().loaded, "a.test", &mended);
        fs::remove_file(d.path().join("a.crt")).unwrap();
        fs::remove_file(d.path().join("a.key")).unwrap();
        let report = certificates.reload(&d.plan()).unwrap();
        assert_eq!(report.removed, [CertName::parse("a.test").unwrap()], "{what}");
    }
}

/// A link to itself can't be followed by any user, not even by root, who may read everything.
#[test]
fn a_subdirectory_that_can_not_be_read_keeps_its_last_good_certificates() {
    let d = Directory::new();
    let (a, b, renewed) = (d.pki.issue(&["a.test"]), d.pki.issue(&["b.test"]), d.pki.issue(&["b.test"]));
    a.write(&d.path().join("sub/deep"), "a");
    b.write(d.path(), "b");
    // Beginning alike is not lying below.
    d.pki.issue(&["gone.test"]).write(&d.path().join("subway"), "gone");
    let certificates = Certificates::load(&d.with_default("b.test")).unwrap();
    let (sub, elsewhere) = (d.path().join("sub"), TempDir::new().unwrap());
    fs::rename(&sub, elsewhere.path().join("sub")).unwrap();
    std::os::unix::fs::symlink("sub", &sub).unwrap();
    fs::remove_dir_all(d.path().join("subway")).unwrap();
    renewed.write(d.path(), "b");
    for _ in 0..2 {
        let report = certificates.reload(&d.with_default("b.test")).unwrap();
        assert_eq!(report.kept, [CertName::parse("a.test").unwrap()]);
        let current = certificates.current();
        serves(&current.loaded, "a.test", &a);
        serves(&current.loaded, "b.test", &renewed);
        assert_eq!(answer(&current.loaded.set, "gone.test"), None);
        let warnings = texts(&current.loaded.warnings).join("\n");
        assert!(warnings.contains("/sub: can't be read"), "{warnings}");
        assert!(warnings.contains("last good certificate of a.test stays in use"), "{warnings}");
    }
    // Readable again, or removed on purpose.
    fs::remove_file(&sub).unwrap();
    fs::rename(elsewhere.path().join("sub"), &sub).unwrap();
    assert_eq!(certificates.reload(&d.plan()).unwrap().kept, []);
    serves(&certificates.current().loaded, "a.test", &a);
    fs::remove_dir_all(&sub).unwrap();
    assert_eq!(certificates.reload(&d.plan()).unwrap().removed, [CertName::parse("a.test").unwrap()]);
}

#[test]
fn a_chain_that_is_cut_short_anywhere_is_never_served() {
    let directory = Directory::new();
    let issued = directory.pki.issue(&["a.test"]);
    issued.write(directory.path(), "a");
    let whole = load(&directory.plan(), None).unwrap();
    let links = |loaded: &Loaded| loaded.set.certificates()[0].key.cert.len();
    assert_eq!(links(&whole), 2);
    // At this position it can't be decided.
    let between = issued.leaf.len() - 1..=issued.leaf.len();
    // A last line without its end is a whole one.
    for len in (0..issued.fullchain.len() - 1).filter(|len| !between.contains(len)) {
        directory.write("a.crt", &issued.fullchain[..len]);
        let cut = load(&directory.plan(), Some(&whole)).unwrap();
        assert_eq!(links(&cut), 2, "of {len} bytes: …{:?}", &issued.fullchain[len.saturating_sub(20)..len]);
        assert!(cut.warnings.iter().any(|warning| matches!(warning, Warning::Kept(_))), "{len}");
    }
}

#[test]
fn a_half_renewed_pair_keeps_the_last_good_certificate() {
    let d = Directory::new();
    let (old, new) = (d.pki.issue(&["a.test"]), d.pki.issue(&["a.test"]));
    old.write(d.path(), "a");
    let certificates = Certificates::load(&d.plan()).unwrap();
    d.write("a.crt", &new.fullchain);
    assert_eq!(certificates.reload(&d.plan()).unwrap().kept.len(), 1);
    serves(&certificates.current().loaded, "a.test", &old);
    d.write("a.key", &new.key);
    let report = certificates.reload(&d.plan()).unwrap();
    assert_eq!((report.kept.len(), report.replaced.len()), (0, 1));
    serves(&certificates.current().loaded, "a.test", &new);
}

#[test]
fn a_reload_that_can_not_be_leaves_everything() {
    let d = Directory::new();
    let a = d.pki.issue(&["a.test"]);
    a.write(d.path(), "a");
    let certificates = Certificates::load(&d.plan()).unwrap();
    assert!(certificates.reload(&d.with_default("b.test")).is_err());
    fs::remove_dir_all(d.path()).unwrap();
    assert!(certificates.reload(&d.plan()).is_err());
    let current = certificates.current();
    assert_eq!(current.generation, 1);
    serves(&current.loaded, "a.test", &a);
}

#[test]
fn the_report_names_what_changed() {
    let d = Directory::new();
    let issue = |names: &[&str]| d.pki.issue(names);
    issue(&["same.test"]).write(d.path(), "same");
    issue(&["renewed.test"]).write(d.path(), "renewed");
    issue(&["gone.test"]).write(d.path(), "gone");
    let certificates = Certificates::load(&d.plan()).unwrap();
    d.pki.issue_as(&Order { until_days: 5, ..Order::new(&["renewed.test"]) }).write(d.path(), "renewed");
    issue(&["fresh.test"]).write(d.path(), "fresh");
    fs::remove_file(d.path().join("gone.crt")).unwrap();
    fs::remove_file(d.path().join("gone.key")).unwrap();
    let name = |name| CertName::parse(name).unwrap();
    let report = certificates.reload(&d.plan()).unwrap();
    assert_eq!(report.generation, 2);
    assert_eq!(report.added, [name("fresh.test")]);
    assert_eq!(report.removed, [name("gone.test")]);
    assert_eq!(report.replaced, [name("renewed.test")]);
    assert_eq!((report.unchanged, report.kept), (1, vec![]));
    let (days, first) = report.nearest_expiry.unwrap();
    assert!((4..=5).contains(&days)); // five days, or a second less
    assert_eq!(first, name("renewed.test"));
}

#[test]
fn what_clients_have_asked_for_is_in_the_files_of_their_names() {
    let d = Directory::new();
    let plan = Plan { on_demand: Some(d.path().join("demand")), ..Plan::default() };
    let nothing = load(&plan, None).unwrap();
    assert!(nothing.set.certificates().is_empty() && nothing.warnings.is_empty());
    let now = unix_now();
    assert!(!nothing.set.is_served("a.test", now));
    let issued = d.pki.issue(&["a.test"]);
    let pem = issued.fullchain.clone() + &issued.key;
    // One that is being written, one of something else, and one of a name that no client asks for.
    for file in ["a.test.pem", ".b.test.new", "c.test.json", "*.d.test.pem"] {
        d.write(&format!("demand/{file}"), &pem);
        let file = d.path().join("demand").join(file);
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let there = renew(&plan, &nothing).unwrap();
    serves(&there, "a.test", &issued);
    assert_eq!((there.set.certificates().len(), texts(&there.warnings).len()), (1, 0));
    assert!(there.set.is_served("a.test", now) && !there.set.is_served("b.test", now));
    assert!(!there.set.is_served("a.test", now + 1000 * 86_400 * 365), "it has expired");
    d.write("demand/a.test.pem", "broken");
    serves(&renew(&plan, &there).unwrap(), "a.test", &issued);
}

#[test]
fn what_is_awaited_is_refused_until_it_is_there_and_kept_when_it_breaks() {
    let d = Directory::new();
    d.write("certs/default.pem", &{
        let issued = d.pki.issue(&["default.test"]);
        issued.fullchain + &issued.key
    });
    let file = d.path().join("awaited/a.pem");
    let names = ["a.test", "*.b.test"].iter().filter_map(|name| CertName::parse(name)).collect();
    let plan = Plan {
        directory: Some(d.path().join("certs")),
        awaited: vec![Awaited { names, file: file.clone() }],
        default: CertName::parse("default.test"),
        ..Plan::default()
    };
    let all = [ECDSA, RSA].concat();
    let nothing = load(&plan, None).unwrap();
    for (name, is_refused) in
        [("a.test", true), ("A.test.", true), ("x.b.test", true), ("b.test", false), ("c.test", false)]
    {
        assert_eq!(nothing.set.resolve(Some(name), &all).is_none(), is_refused, "{name}");
    }
    assert!(nothing.set.resolve(None, &all).is_some() && nothing.warnings.is_empty());

    let issued = d.pki.issue(&["a.test", "*.b.test"]);
    d.write("awaited/a.pem", &(issued.fullchain.clone() + &issued.key));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let there = renew(&plan, &nothing).unwrap();
    serves(&there, "x.b.test", &issued);
    d.write("awaited/a.pem", "broken");
    let kept = renew(&plan, &there).unwrap();
    serves(&kept, "a.test", &issued);
    assert!(matches!(kept.warnings[..], [Warning::File(_), Warning::Kept(_)]), "{:?}", texts(&kept.warnings));

    // Alone it may be missing, but what was served is not given up because of that.
    let alone = Plan { directory: None, default: None, ..plan };
    fs::remove_file(&file).unwrap();
    let none = load(&alone, None).unwrap();
    assert!(none.set.certificates().is_empty());
    assert!(renew(&alone, &none).is_ok());
    assert!(matches!(renew(&alone, &there).unwrap_err()[..], [CertificateProblem::Nothing { .. }]));
}

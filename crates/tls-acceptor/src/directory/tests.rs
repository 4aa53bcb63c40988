use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use support::pki::{Key, Order, Pki, self_signed};
use tempfile::TempDir;

use crate::cert_set::{Selected, Why};
use crate::certificate::{Flaw, leaf};
use crate::load::{Loaded, Named, Plan, Warning, load};
use crate::material::read;

/// What clients ask for that know everything.
const ALL: &[rustls::SignatureScheme] =
    &[rustls::SignatureScheme::ECDSA_NISTP256_SHA256, rustls::SignatureScheme::RSA_PSS_SHA256];

/// No other user may enter it.
fn closed_directory() -> TempDir {
    let temp = TempDir::new().unwrap();
    set_permissions(temp.path(), Permissions::from_mode(0o700)).unwrap();
    temp
}

struct Files {
    temp: TempDir,
    pki: Pki,
}

impl Files {
    /// With a good pair for `good.test`.
    fn new() -> Self {
        let files = Self { temp: closed_directory(), pki: Pki::new() };
        files.pki.issue(&["good.test"]).write(files.temp.path(), "good");
        files
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.temp.path().join(file), content).unwrap();
        self
    }

    #[track_caller]
    fn load(&self) -> Loaded {
        let loaded = load(&Plan::directory(self.temp.path()), None).unwrap();
        assert!(serves(&loaded, "good.test"), "{:?}", warnings(&loaded));
        loaded
    }
}

fn serves(loaded: &Loaded, name: &str) -> bool {
    matches!(loaded.set.resolve(Some(name), ALL), Some((Selected::Own, _)))
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// Each layout that loses a domain says so; those that mean one thing are served.
#[test]
fn no_domain_goes_without_a_word() {
    let pki = Pki::new();
    let issued = pki.issue(&["lost.test"]);
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let marked = |text: &str| format!("\u{feff}{text}");
    let (chain, key) = (&*issued.fullchain, &*issued.key);
    for (what, files) in [
        ("a key with a byte order mark", vec![("a.crt", chain.to_owned()), ("a.key", marked(key))]),
        ("both with one", vec![("a.crt", marked(chain)), ("a.key", marked(key))]),
        ("an indented key", vec![("a.crt", chain.to_owned()), ("a.key", indented(key))]),
        ("both indented", vec![("a.crt", indented(chain)), ("a.key", indented(key))]),
        ("chain and key in one", vec![("a.pem", format!("{chain}{key}"))]),
        (
            "an X509 CERTIFICATE",
            vec![("a.crt", chain.replace("CERT", "X509 CERT")), ("a.key", key.to_owned())],
        ),
        (
            "a TRUSTED CERTIFICATE",
            vec![("a.crt", chain.replace("CERT", "TRUSTED CERT")), ("a.key", key.to_owned())],
        ),
    ] {
        let directory = Files::new();
        for (file, text) in &files {
            directory.write(file, text);
        }
        let loaded = directory.load();
        assert!(serves(&loaded, "lost.test"), "{what}: {:?}", warnings(&loaded));
        assert_eq!(warnings(&loaded), Vec::<String>::new(), "{what}");
    }
    for (what, files, expect) in [
        ("a key of another name", vec![("a.crt", chain), ("a.priv", key)], "its key is in "),
        ("an empty key", vec![("a.crt", chain), ("a.key", "")], "no key in the directory matches"),
        ("an empty chain", vec![("a.crt", ""), ("a.key", key)], "matches no certificate"),
        ("both of another name", vec![("a.pem.ecdsa", chain), ("a.priv", key)], "is not read: rename it"),
        ("a forgotten key", vec![("a.crt", chain)], "no key in the directory matches"),
        ("a leaf alone", vec![("a.pem", &issued.leaf)], "no key in the directory matches"),
        ("a key that is none", vec![("a.crt", chain), ("a.key", "key")], "neither PEM nor"),
        ("another's key", vec![("a.crt", chain), ("a.key", &pki.issue(&["x.test"]).key)], "lost.test"),
    ] {
        let directory = Files::new();
        for (file, text) in files {
            directory.write(file, text);
        }
        let loaded = directory.load();
        assert!(!serves(&loaded, "lost.test"), "{what}");
        let said = warnings(&loaded).join("\n");
        assert!(said.contains(expect), "{what}: {said}");
    }
    // One that signs itself is one, too; an authority is not.
    let own = self_signed(&["own.test"]);
    let directory = Files::new();
    directory.write("own.crt", &own.leaf).write("root.pem", pki.root_pem()).write("int.crt", &issued.chain);
    let said = warnings(&directory.load());
    assert!(said.len() == 1 && said[0].contains("own.test"), "{said:?}");
}

/// A script joins files that lack a line end.
#[test]
fn joined_files_are_read_and_reported() {
    let directory = Files::new();
    let issued = directory.pki.issue(&["lost.test"]);
    let joined = format!("{}{}{}", issued.leaf.trim_end(), issued.chain.trim_end(), issued.key);
    directory.write("a.pem", joined);
    let loaded = directory.load();
    let served = loaded.set.resolve(Some("lost.test"), ALL).unwrap().1;
    assert_eq!(served.cert.len(), 2);
    let said = warnings(&loaded);
    assert!(
        said.len() == 1 && said[0].contains("a.pem: has an END and a BEGIN on the same line"),
        "{said:?}"
    );
}

#[test]
fn of_several_keys_the_one_that_fits_is_used() {
    let directory = Files::new();
    let issued = directory.pki.issue(&["a.test"]);
    let keys: String = (0..3).map(|_| directory.pki.issue(&["x.test"]).key).collect();
    let bad = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    directory.write("a.crt", &issued.fullchain).write("a.key", format!("{keys}{bad}{}{keys}", issued.key));
    let loaded = directory.load();
    assert!(serves(&loaded, "a.test"));
    assert!(warnings(&loaded).iter().any(|said| said.contains("a.key: holds a key that can't be used")));
    let file = |name| directory.temp.path().join(name);
    let named = Named { chain: vec![file("a.crt")], key: file("a.key"), client_auth: None };
    let loaded = load(&Plan { named: vec![named], ..Plan::default() }, None).unwrap();
    assert!(serves(&loaded, "a.test"));
    assert!(warnings(&loaded)[0].contains("can't be used"));
}

#[test]
fn each_leaf_of_a_file_is_served() {
    let directory = Files::new();
    let (a, b) = (directory.pki.issue(&["a.test"]), directory.pki.issue(&["b.test"]));
    directory.write("all.pem", format!("{}{}{}{}{}", a.leaf, b.leaf, a.chain, a.key, b.key));
    let loaded = directory.load();
    for name in ["a.test", "b.test"] {
        assert_eq!(loaded.set.resolve(Some(name), ALL).unwrap().1.cert.len(), 2, "{name}");
    }
    assert_eq!(warnings(&loaded), Vec::<String>::new());
}

#[test]
fn an_issuer_in_the_directory_completes_a_chain() {
    let directory = Files::new();
    let issued = directory.pki.issue(&["a.test"]);
    directory.write("a.crt", &issued.leaf).write("a.key", &issued.key);
    let files = closed_directory();
    std::fs::write(files.path().join("a.crt"), &issued.leaf).unwrap();
    std::fs::write(files.path().join("a.key"), &issued.key).unwrap();
    // The intermediate lies in good.crt.
    assert_eq!(directory.load().set.resolve(Some("a.test"), ALL).unwrap().1.cert.len(), 2);
    let alone = load(&Plan::directory(files.path()), None).unwrap();
    let said = warnings(&alone);
    assert!(said.len() == 1 && said[0].contains("issuer Test Intermediate is missing"), "{said:?}");
    std::fs::write(files.path().join("ca.pem"), &issued.chain).unwrap();
    let found = load(&Plan::directory(files.path()), None).unwrap();
    assert_eq!(found.set.certificates()[0].key.cert.len(), 2);
    assert_eq!(warnings(&found), Vec::<String>::new());
}

/// certbot's `cert.pem` has its issuer in `chain.pem`.
#[test]
fn a_named_leaf_is_completed_from_the_files_beside_it() {
    let files = closed_directory();
    let issued = Pki::new().issue(&["a.test"]);
    let file = |name: &str| files.path().join(name);
    std::fs::write(file("cert.pem"), &issued.leaf).unwrap();
    std::fs::write(file("privkey.pem"), &issued.key).unwrap();
    let named = Named { chain: vec![file("cert.pem")], key: file("privkey.pem"), client_auth: None };
    let plan = Plan { named: vec![named], ..Plan::default() };
    for (name, links) in [("other.txt", 1), (".hidden.pem", 1), ("chain.pem", 2)] {
        std::fs::write(file(name), &issued.chain).unwrap();
        let loaded = load(&plan, None).unwrap();
        assert_eq!(loaded.set.certificates()[0].key.cert.len(), links, "{name}");
        assert_eq!(loaded.warnings.len(), 2 - links, "{name}: {:?}", warnings(&loaded));
    }
}

/// Made with `openssl x509 -req -sha1`; its key was thrown away.
const SHA1: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBizCCATGgAwIBAgIUb97JCEVKQOJZ8KAUN333hoslsaowCQYHKoZIzj0EATAT\n\
MREwDwYDVQQDDAhPbGQgUm9vdDAgFw0yNjExMjkwNTI3MjZaGA8yMTI2MTEwNTA1\n\
MjcyNlowEzERMA8GA1UEAwwIb2xkLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMB\n\
BwNCAARV0/Fjiy8OcUgo8VEKei6hEVaTuWYRsbLB3Ig4XAkcf59Yf3/h5bFp5Kb3\n\
qBxwqScDsPeFnmgJOyIkon8mw2Hso2IwYDATBgNVHREEDDAKgghvbGQudGVzdDAJ\n\
BgNVHRMEAjAAMB0GA1UdDgQWBBQiOviM9hRDNed+lvqY/bRF/ODQ6TAfBgNVHSME\n\
GDAWgBRWIEAuTM18xAuz1tRyQ6deRDrNfTAJBgcqhkjOPQQBA0kAMEYCIQCCVbw4\n\
bi2/bOvK7ursGTt8udFPyKITK3t8am3cpcWDfwIhAL+M3wzFdX4qu3D5vOZmSZ6m\n\
HTSXGG+dzdqHIHArofch\n\
-----END CERTIFICATE-----\n";

#[test]
fn unfit_leaves_are_found() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("sha1.pem");
    std::fs::write(&path, SHA1).unwrap();
    let found = leaf(&read(&path).unwrap().chain[0]).unwrap();
    assert_eq!(found.flaws, [Flaw::WeakSignature("SHA-1")]);
    let pki = Pki::new();
    let key = KeyPair::generate().unwrap();
    let flaws = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        leaf(&pki.issue_changed(&Order::new(&["a.test"]), &key, change).der).unwrap().flaws
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    assert_eq!(flaws(&|_| {}), []);
    assert_eq!(flaws(&|p| p.extended_key_usages = vec![ClientAuth]), [Flaw::NotForServers]);
    for fit in [ServerAuth, Any] {
        assert_eq!(flaws(&|p| p.extended_key_usages = vec![ClientAuth, fit.clone()]), []);
    }
    assert_eq!(flaws(&|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), [Flaw::NotForSignatures]);
    assert_eq!(flaws(&|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]), []);
    let feature =
        |list: &[u8]| CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], list.to_vec());
    for (list, expect) in [
        (&[0x30, 3, 2, 1, 5][..], vec![Flaw::MustStaple]),
        (&[0x30, 6, 2, 1, 17, 2, 1, 5], vec![Flaw::MustStaple]),
        (&[0x30, 3, 2, 1, 17], vec![]),
        (&[0x30, 0], vec![]),
        (&[1], vec![]),
    ] {
        assert_eq!(flaws(&|p| p.custom_extensions = vec![feature(list)]), expect, "{list:?}");
    }
}

#[test]
fn an_unfit_leaf_is_never_preferred_to_a_fit_one() {
    let directory = Files::new();
    let key = KeyPair::generate().unwrap();
    let client_only = |p: &mut rcgen::CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    // Issued later, so that it would be preferred.
    let order = Order { from_days: 0, ..Order::new(&["a.test"]) };
    let unfit = directory.pki.issue_changed(&order, &key, client_only);
    let fit = directory.pki.issue_as(&Order { from_days: -50, ..Order::new(&["a.test"]) });
    unfit.write(directory.temp.path(), "a");
    let loaded = directory.load();
    assert!(serves(&loaded, "a.test"), "better than nothing");
    let said = warnings(&loaded);
    assert!(said.len() == 1 && said[0].contains("lacks serverAuth"), "{said:?}");
    assert!(matches!(loaded.warnings[0], Warning::Unfit(_, Flaw::NotForServers)));
    fit.write(directory.temp.path(), "b");
    let loaded = directory.load();
    assert_eq!(loaded.set.resolve(Some("a.test"), ALL).unwrap().1.cert[0], fit.der);
    assert_eq!(loaded.lost[0].why, Why::Unfit(Flaw::NotForServers));
    assert_eq!(warnings(&loaded), Vec::<String>::new());
    // Nor to one of another key type, although that one is dearer.
    let rsa = directory.pki.issue_as(&Order { key: Key::Rsa, ..Order::new(&["a.test"]) });
    rsa.write(directory.temp.path(), "b");
    let loaded = directory.load();
    assert_eq!(loaded.set.resolve(Some("a.test"), ALL).unwrap().1.cert[0], rsa.der);
    assert_eq!(loaded.set.resolve(Some("a.test"), &ALL[..1]).unwrap().1.cert[0], unfit.der);
    // Neither is one that has expired.
    let expired = Order { from_days: -90, until_days: -1, ..Order::new(&["a.test"]) };
    directory.pki.issue_as(&expired).write(directory.temp.path(), "a");
    let loaded = directory.load();
    assert_eq!(loaded.set.resolve(Some("a.test"), ALL).unwrap().1.cert[0], rsa.der);
}

#[test]
fn keys_that_all_users_can_read_are_reported() {
    let directory = Files::new();
    let set = |file: &str, mode| {
        set_permissions(directory.temp.path().join(file), Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o755);
    for mode in [0o600, 0o640, 0o400] {
        set("good.key", mode);
        assert_eq!(warnings(&directory.load()), Vec::<String>::new(), "{mode:o}");
    }
    for mode in [0o644, 0o604, 0o602] {
        set("good.key", mode);
        let said = warnings(&directory.load());
        assert!(
            said.len() == 1
                && said[0].contains(&format!(
                    "good.key: every user of this machine has access to the private key (mode {mode:04o});"
                )),
            "{said:?}"
        );
    }
    directory.pki.issue(&["a.test"]).write(directory.temp.path(), "a");
    set("a.key", 0o644);
    let said = warnings(&directory.load());
    assert!(said[0].contains("and to 1 more"), "{said:?}");
    // Other users can't reach it.
    set("", 0o750);
    assert_eq!(warnings(&directory.load()), Vec::<String>::new());
}

/// Whatever is done to a file with a secret, no message repeats it.
#[test]
fn no_message_repeats_a_secret() {
    let pki = Pki::new();
    let issued = pki.issue(&["a.test"]);
    let secrets: Vec<&str> = issued.key.lines().filter(|line| !line.starts_with('-')).collect();
    let body = secrets.concat();
    let key = &issued.key;
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(key.bytes().flat_map(|byte| [byte, 0])).collect();
    let mut broken: Vec<Vec<u8>> = vec![utf16];
    broken.extend(
        [
            key.replace('\n', "\\n"),
            key.replace('\n', " "),
            key.replace('\n', ""),
            format!("\"{}\"", key.replace('\n', "\\n")),
            format!("key: {key}"),
            format!("\u{feff}{key}").replace("BEGIN", "BEGAN"),
            key.replace("PRIVATE KEY", "CERTIFICATE"),
            key.replace("PRIVATE KEY", "RSA PRIVATE KEY"),
            key.replace("PRIVATE KEY", "EC PRIVATE KEY"),
            key.replace("PRIVATE KEY", &body),
            key.replacen("PRIVATE KEY", &body, 1),
            key.replace("-----\n", "---\n"),
            key.replace("-----B", "----B"),
            key.replace('=', "!").replace(&body[4..8], "!!!!"),
            key.replace(&body[..8], ""),
            body.clone(),
            format!("-----BEGIN PRIVATE KEY-----{body}"),
            format!("{body}-----END PRIVATE KEY-----"),
            format!("-----BEGIN {body}-----\nAAAA\n-----END {body}-----\n"),
            format!("----{body}-----BEGIN"),
            key.replace('\n', "\0"),
        ]
        .map(String::into_bytes),
    );
    broken.extend((0..key.len() - 1).map(|len| key.as_bytes()[..len].to_vec()));
    let pieces: Vec<&str> =
        secrets.iter().flat_map(|line| [&line[..8.min(line.len())], &line[line.len() / 2..]]).collect();
    for bytes in broken {
        let directory = Files::new();
        directory.write("a.crt", &issued.fullchain).write("a.key", &bytes).write("b.crt", &bytes);
        let file = |name| directory.temp.path().join(name);
        let named = |chain, key| Named { chain: vec![file(chain)], key: file(key), client_auth: None };
        let mut said = format!("{:?} {:?}", warnings(&directory.load()), directory.load().warnings);
        for named in [named("a.crt", "a.key"), named("a.key", "a.crt"), named("b.crt", "a.key")] {
            if let Err(problems) = load(&Plan { named: vec![named], ..Plan::default() }, None) {
                for problem in problems {
                    said += &format!("{problem} {problem:?}");
                }
            }
        }
        let said = said.replace(&directory.temp.path().display().to_string(), "");
        for piece in pieces.iter().filter(|piece| piece.len() >= 8) {
            assert!(!said.contains(piece), "{piece} of {:?}: {said}", String::from_utf8_lossy(&bytes));
        }
    }
}

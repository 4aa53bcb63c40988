//! Handshakes in which clients have to show a certificate, with rustls' own client over loopback.

use std::fs;

use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, version};
use rustls_pki_types::PrivateKeyDer;
use support::pki::{Issued, Pki};

use super::*;
use crate::load::{CertificateProblem, Named, Plan, Warning, load, renew};
use crate::name::CertName;
use crate::test_rig::{BOTH, Rig};
use crate::{AcceptError, Accepted, AcceptorSettings, Certificates};

/// `a.test` is open to all, `b.test` and everything below `w.test` ask for certificates.
struct Closed {
    rig: Rig,
    plan: Plan,
}

impl Closed {
    fn new(required: bool) -> Self {
        let rig = Rig::new();
        let d = rig.directory.path();
        fs::write(d.join("ca.txt"), rig.pki.intermediate_pem()).unwrap();
        fs::create_dir(d.join(".named")).unwrap();
        rig.pki.issue(&["b.test", "*.w.test", "127.0.0.1"]).write(&d.join(".named"), "b");
        let files =
            ClientAuthFiles { authorities: vec![d.join("ca.txt")], revocation_lists: Vec::new(), required };
        let plan = Plan { named: vec![named(&rig, "b", Some(files))], ..crate::test_rig::plan(d) };
        let closed = Self { rig, plan };
        closed.reload();
        closed
    }

    fn reload(&self) {
        self.rig.certificates.reload(&self.plan).unwrap();
    }

    fn files(&mut self) -> &mut ClientAuthFiles {
        self.plan.named[0].client_auth.as_mut().unwrap()
    }

    fn client(
        &self,
        certificate: Option<&Issued>,
        tls: &'static rustls::SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut client = self.rig.client(&[tls], &[]);
        if let Some(Issued { leaf, key, .. }) = certificate {
            let chain = CertificateDer::pem_slice_iter(leaf.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            client.client_auth_cert_resolver =
                Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        }
        client.resumption = Resumption::in_memory_sessions(8);
        Arc::new(client)
    }

    async fn meet(&self, client: &Arc<ClientConfig>, name: &str) -> Result<Accepted, AcceptError> {
        self.rig.meet(&AcceptorSettings::default(), client, name).await.0
    }
}

fn named(rig: &Rig, name: &str, client_auth: Option<ClientAuthFiles>) -> Named {
    let directory = rig.directory.path().join(".named");
    Named {
        chain: vec![directory.join(format!("{name}.crt"))],
        key: directory.join(format!("{name}.key")),
        client_auth,
    }
}

#[tokio::test]
async fn names_that_ask_for_a_certificate_get_one_and_others_are_not_asked() {
    let closed = Closed::new(true);
    let shown = closed.rig.pki.issue_client("device 7", 7);
    for tls in BOTH {
        let (with, without) = (closed.client(Some(&shown), tls), closed.client(None, tls));
        for name in ["b.test", "x.w.test", "B.Test"] {
            let accepted = closed.meet(&with, name).await.unwrap();
            let certificate = accepted.client_certificate.unwrap();
            assert_eq!(&*certificate.subject, "CN=device 7,O=Clients");
            assert_eq!(&*certificate.der, &*shown.der);
            assert!(accepted.client_rules.is_some());
            match closed.meet(&without, name).await.unwrap_err() {
                AcceptError::NoClientCertificate { server_name: Some(asked) } => {
                    assert_eq!(*asked, *name.to_ascii_lowercase());
                }
                other => panic!("{other}"),
            }
        }
        let open = closed.meet(&with, "a.test").await.unwrap();
        assert_eq!((open.client_certificate, open.client_rules), (None, None));
        closed.meet(&without, "a.test").await.unwrap();
        // Another authority's, with the same names.
        let stranger = closed.client(Some(&Pki::new().issue_client("device 7", 7)), tls);
        let refused = closed.meet(&stranger, "b.test").await.unwrap_err();
        assert!(matches!(refused, AcceptError::ClientCertificate(_)), "{refused}");
        // A certificate for servers only is none for clients.
        let mut order = support::pki::Order::new(&["x.test"]);
        order.serial = 8;
        let server = closed.rig.pki.issue_changed(&order, &rcgen::KeyPair::generate().unwrap(), |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        });
        let refused = closed.meet(&closed.client(Some(&server), tls), "b.test").await.unwrap_err();
        assert!(matches!(refused, AcceptError::ClientCertificate(_)), "{refused}");
    }
}

#[tokio::test]
async fn where_it_is_not_required_a_client_may_have_none_but_no_bad_one() {
    let closed = Closed::new(false);
    for tls in BOTH {
        let accepted = closed.meet(&closed.client(None, tls), "b.test").await.unwrap();
        assert!(accepted.client_certificate.is_none() && accepted.client_rules.is_some());
        let shown = closed.client(Some(&closed.rig.pki.issue_client("a", 1)), tls);
        assert!(closed.meet(&shown, "b.test").await.unwrap().client_certificate.is_some());
        let stranger = closed.client(Some(&Pki::new().issue_client("a", 1)), tls);
        assert!(closed.meet(&stranger, "b.test").await.is_err());
    }
}

#[tokio::test]
async fn revoked_certificates_and_expired_lists() {
    let mut closed = Closed::new(true);
    let list = closed.rig.directory.path().join("revoked.txt");
    closed.files().revocation_lists = vec![list.clone()];
    let [good, revoked] = [7, 8].map(|serial| closed.rig.pki.issue_client("device", serial));
    for tls in BOTH {
        fs::write(&list, closed.rig.pki.revocation_list(&[8], 9)).unwrap();
        closed.reload();
        assert!(closed.meet(&closed.client(Some(&good), tls), "b.test").await.is_ok());
        let refused = closed.meet(&closed.client(Some(&revoked), tls), "b.test").await.unwrap_err();
        assert!(refused.to_string().contains("Revoked"), "{refused}");
        // With an expired list no certificate is known to be good.
        fs::write(&list, closed.rig.pki.revocation_list(&[8], -1)).unwrap();
        closed.reload();
        let refused = closed.meet(&closed.client(Some(&good), tls), "b.test").await.unwrap_err();
        assert!(refused.to_string().contains("list expired"), "{refused}");
        let current = closed.rig.certificates.current();
        assert!(current.loaded.warnings.iter().any(|w| w.to_string().contains("HAS EXPIRED")));
    }
}

#[tokio::test]
async fn sessions_are_resumed_under_the_same_rules_only() {
    let mut closed = Closed::new(true);
    let list = closed.rig.directory.path().join("revoked.txt");
    closed.files().revocation_lists = vec![list.clone()];
    fs::write(&list, closed.rig.pki.revocation_list(&[], 9)).unwrap();
    closed.reload();
    let shown = closed.rig.pki.issue_client("device", 7);
    for tls in BOTH {
        let client = closed.client(Some(&shown), tls);
        let first = closed.meet(&client, "b.test").await.unwrap();
        let again = closed.meet(&client, "b.test").await.unwrap();
        assert_eq!((first.resumed, again.resumed), (false, true));
        assert_eq!(
            first.client_certificate, again.client_certificate,
            "a resumed session is the same client's"
        );
        // Lists and rules that have changed are asked at once.
        fs::write(&list, closed.rig.pki.revocation_list(&[7], 9)).unwrap();
        closed.reload();
        assert!(matches!(closed.meet(&client, "b.test").await, Err(AcceptError::ClientCertificate(_))));
        fs::write(&list, closed.rig.pki.revocation_list(&[], 9)).unwrap();
        closed.reload();
        // A session from before there were rules is none under them, and the other way round.
        let open = Plan { named: vec![named(&closed.rig, "b", None)], ..closed.plan.clone() };
        closed.rig.certificates.reload(&open).unwrap();
        let client = closed.client(None, tls);
        closed.meet(&client, "b.test").await.unwrap();
        assert!(closed.meet(&client, "b.test").await.unwrap().resumed);
        closed.reload();
        let refused = closed.meet(&client, "b.test").await.unwrap_err();
        assert!(matches!(refused, AcceptError::NoClientCertificate { .. }), "{refused}");
        let client = closed.client(Some(&shown), tls);
        closed.meet(&client, "b.test").await.unwrap();
        closed.rig.certificates.reload(&open).unwrap();
        let accepted = closed.meet(&client, "b.test").await.unwrap();
        assert!(!accepted.resumed && accepted.client_certificate.is_none());
        closed.reload();
    }
}

#[tokio::test]
async fn the_rules_of_the_default_are_those_of_clients_without_a_known_name() {
    let mut closed = Closed::new(true);
    closed.plan.default = CertName::parse("b.test");
    closed.reload();
    let client = closed.client(None, &version::TLS13);
    // rustls sends no name for an address.
    let refused = closed.meet(&client, "127.0.0.1").await.unwrap_err();
    assert!(matches!(refused, AcceptError::NoClientCertificate { server_name: None }), "{refused}");
    let current = closed.rig.certificates.current();
    for name in [None, Some("nobody.test"), Some("b.test")] {
        assert!(current.loaded.set.client_auth(name).is_some(), "{name:?}");
    }
    closed.meet(&client, "a.test").await.unwrap();
}

#[test]
fn a_name_has_its_rules_whichever_certificate_answers() {
    let closed = Closed::new(true);
    let d = closed.rig.directory.path();
    // A later one of the directory takes the name, and so does another of the plan, with another key.
    closed
        .rig
        .pki
        .issue_as(&support::pki::Order { from_days: 0, ..support::pki::Order::new(&["b.test"]) })
        .write(d, "later");
    let loaded = load(&closed.plan, None).unwrap();
    assert_eq!(loaded.lost.len(), 1);
    assert!(loaded.set.client_auth(Some("b.test")).is_some());
    let rsa = support::pki::Order { key: support::pki::Key::Rsa, ..support::pki::Order::new(&["b.test"]) };
    closed.rig.pki.issue_as(&rsa).write(&d.join(".named"), "rsa");
    let mut plan = closed.plan.clone();
    plan.named.insert(0, named(&closed.rig, "rsa", None));
    assert!(load(&plan, None).unwrap().set.client_auth(Some("b.test")).is_some());
    // A name of its own that isn't below the wildcard's rules.
    closed.rig.pki.issue(&["open.w.test"]).write(d, "open");
    let loaded = load(&closed.plan, None).unwrap();
    assert!(loaded.set.client_auth(Some("open.w.test")).is_none());
    assert!(loaded.set.client_auth(Some("x.w.test")).is_some());
    // Two rules for one name.
    plan.named[0].client_auth = plan.named[1].client_auth.clone();
    assert!(load(&plan, None).is_ok());
    plan.named[0].client_auth.as_mut().unwrap().required = false;
    let problems = load(&plan, None).unwrap_err();
    assert!(matches!(&problems[..], [CertificateProblem::ClientAuth { position: 1, .. }]), "{problems:?}");
}

#[test]
fn what_is_wrong_with_the_files() {
    let mut closed = Closed::new(true);
    let d = closed.rig.directory.path().to_owned();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(d.join(name), bytes).unwrap();
        d.join(name)
    };
    let key = closed.rig.pki.issue_client("a", 1).key;
    let list = closed.rig.pki.revocation_list(&[], 9);
    for (name, bytes, expect) in [
        ("gone", None, "can't be read"),
        ("empty", Some(&b"\n"[..]), "is empty"),
        ("key", Some(key.as_bytes()), "holds no certificate of an authority"),
        ("list", Some(list.as_bytes()), "holds no certificate of an authority"),
    ] {
        let path = bytes.map_or_else(|| d.join(name), |bytes| write(name, bytes));
        closed.files().authorities = vec![d.join("ca.txt"), path.clone()];
        let problems = load(&closed.plan, None).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let shown = problem.to_string();
        assert!(shown.starts_with(path.to_str().unwrap()) && shown.contains(expect), "{shown}");
    }
    closed.files().authorities.truncate(1);
    let der = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
    closed.files().revocation_lists = vec![write("list.der", &der)];
    load(&closed.plan, None).unwrap();
    for (name, bytes, expect) in [
        ("gone", None, "can't be read"),
        ("empty", Some(&b" "[..]), "is empty"),
        ("key", Some(key.as_bytes()), "holds no certificate revocation list"),
        ("cut", Some(&der[..der.len() / 2]), "holds no certificate revocation list"),
    ] {
        let path = bytes.map_or_else(|| d.join(name), |bytes| write(name, bytes));
        closed.files().revocation_lists = vec![path];
        let problems = load(&closed.plan, None).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.to_string().contains(expect), "{problem}");
    }
    assert!(!problems_show_keys(&closed.plan));
}

fn problems_show_keys(plan: &Plan) -> bool {
    load(plan, None).unwrap_err().iter().any(|problem| problem.to_string().contains("PRIVATE"))
}

#[test]
fn a_renewal_keeps_the_last_good_rules_and_a_change_of_them_is_news() {
    let closed = Closed::new(true);
    let served = load(&closed.plan, None).unwrap();
    let ca = closed.rig.directory.path().join("ca.txt");
    fs::write(&ca, "-----BEGIN").unwrap();
    let renewed = renew(&closed.plan, &served).unwrap();
    assert!(renewed.set.client_auth(Some("b.test")).is_some());
    assert!(renewed.warnings.iter().any(|warning| matches!(warning, Warning::Kept(_))));
    fs::write(&ca, Pki::new().intermediate_pem()).unwrap();
    let renewed = renew(&closed.plan, &served).unwrap();
    let cell = Certificates::new(served, 1);
    let report = cell.compare(&renewed, 2);
    assert!(report.is_change(), "{report:?}");
    assert_eq!(report.replaced.len(), 3);
    let rules = |set: &crate::CertSet| set.client_rules(Some("b.test"));
    assert_ne!(rules(&cell.current().loaded.set), rules(&renewed.set));
}

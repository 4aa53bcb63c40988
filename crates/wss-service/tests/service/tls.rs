//! Certificates.

use super::*;

/// The certificate that a client with this name is shown.
async fn served(running: &Running, name: &str) -> rustls_pki_types::CertificateDer<'static> {
    leaf(&Tls::new(name, &["http/1.1"]).connect(running.address).await.unwrap())
}

#[tokio::test]
async fn certificates_change_under_live_sessions() {
    let certs = Certs::new(&["a.test"]);
    let certificates = certs.load();
    let running = start(bind().certificates(certificates.clone()).on_message(echo));
    let io = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
    let mut live = WebSocket::connect(io, "a.test", "/", "").await.unwrap().0;
    live.echoes("before").await;

    let second = certs.pki.issue(&["a.test"]);
    second.write(certs.directory.path(), "a.test");
    until(async || served(&running, "a.test").await == second.der).await; // nobody has asked for it
    live.echoes("the files have changed").await;

    let third = certs.pki.issue(&["a.test"]);
    third.write(certs.directory.path(), "a.test");
    certs.pki.issue(&["b.test"]).write(certs.directory.path(), "b.test");
    certificates.reload().unwrap();
    assert_eq!(served(&running, "a.test").await, third.der);
    served(&running, "b.test").await;
    live.echoes("a reload").await;

    for file in ["a.test.crt", "b.test.crt"] {
        std::fs::write(certs.directory.path().join(file), "no certificate").unwrap();
    }
    let _ = certificates.reload();
    assert_eq!(served(&running, "a.test").await, third.der, "the last good one stays");
    live.echoes("to the end").await;
}

#[tokio::test]
async fn one_certificate_alone_answers_every_client() {
    let certs = Certs::new(&["a.test"]);
    let running = start(bind().certificates(certs.load()).on_message(echo));
    let tls = Tls::with(support::tls::BOTH, None, &["http/1.1"], &[]);
    let io = tls.connect(running.address).await.unwrap();
    WebSocket::connect(io, "127.0.0.1", "/", "").await.unwrap().0.echoes("no name").await;
}

#[tokio::test]
async fn what_can_not_be_loaded_is_an_error_that_names_it() {
    let directory = TempDir::new().unwrap();
    let error = Certificates::directory(directory.path()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains(directory.path().to_str().unwrap()), "{said}");
    assert_eq!(format!("{error:?}"), said, "a main that returns it says the same");
    let error = Certificates::files("/no/chain.pem", "/no/key.pem").unwrap_err().to_string();
    assert!(error.contains("/no/chain.pem"), "{error}");
}

/// A connection for a name whose clients show nothing is none for a name whose clients must.
#[tokio::test]
async fn a_host_with_other_rules_for_clients_is_misdirected() {
    use wss_service::{CertName, ClientAuthFiles, Named, Plan};
    let certs = Certs::new(&["a.test", "b.test"]);
    let at = |file: &str| certs.directory.path().join(file);
    std::fs::write(at("clients.pem"), certs.pki.intermediate_pem()).unwrap();
    let auth =
        ClientAuthFiles { authorities: vec![at("clients.pem")], revocation_lists: vec![], required: true };
    let named = |name: &str, client_auth| Named {
        chain: vec![at(&format!("{name}.crt"))],
        key: at(&format!("{name}.key")),
        client_auth,
    };
    let plan = Plan {
        named: vec![named("a.test", None), named("b.test", Some(auth))],
        default: CertName::parse("a.test"),
        ..Plan::default()
    };
    let running = start(bind().certificates(Certificates::load(plan).unwrap()).on_message(echo));
    let open = async |tls: Tls, host: &str| {
        let io = tls.connect(running.address).await.unwrap();
        WebSocket::connect(io, host, "/", "").await.map(|_| ()).map_err(|head| head.status())
    };
    let plain = || Tls::new("a.test", &["http/1.1"]);
    assert_eq!(open(plain(), "a.test").await, Ok(()));
    assert_eq!(open(plain(), "b.test:8443").await, Err(421));
    let showing = Tls::new("b.test", &["http/1.1"]).showing(&certs.pki.issue_client("ann", 7));
    assert_eq!(open(showing, "b.test").await, Ok(()));
}

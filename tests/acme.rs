//! Certificates that the gateway orders and renews by itself, from an authority that really looks at the names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rig::{Rig, rig, served};
use serde_json::Value;
use support::authority::{Authority, problem};
use support::backend::Backend;
use support::gateway::{Gateway, Setup};
use support::http1::ask;
use support::pki::Pki;
use support::tls::{TLS12, Tls, leaf};
use support::until;
use support::ws::WebSocket;
use tokio::net::TcpStream;

#[path = "acme/rig.rs"]
mod rig;

/// The gateway tries again at once what has failed, since its section is another one.
fn try_again(gateway: &Gateway, config: &str) {
    gateway.write_config(&config.replace("[acme]\n", "[acme]\ncontact = \"again@domain.test\"\n"));
    gateway.reload();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_name_is_refused_until_it_has_a_certificate_and_the_certificate_stays() {
    let authority = Authority::start();
    authority
        .rule(|rules| rules.refusal = Some(("/new-order", 503, problem("serverInternal", "busy"), "X: y")));
    let rig = rig(&authority, "names = [[\"domain.test\", \"www.domain.test\"]]");
    let (config, address) = (rig.config.clone(), rig.tls);
    let mut gateway = rig.start();
    let failed = gateway.wait("a certificate can't be ordered: its names have no valid one");
    assert_eq!(failed["problem"], "the authority has a fault of its own: it is asked again (it says: busy)");
    assert_eq!(failed["again_in_s"], 30);
    for client in [Tls::new("domain.test", &[]), Tls::with(TLS12, Some("www.domain.test"), &[], &[])] {
        let refused = client.connect(address).await.unwrap_err();
        assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    }
    assert_eq!(served(address, "other.test").await.unwrap(), ["default.test"]);
    until(async || gateway.metric("wssgate_acme_failures{name=\"domain.test\"}").await == 1).await;
    assert_eq!(gateway.metric("wssgate_acme_certificate_missing{name=\"domain.test\"}").await, 1);
    let io = Tls::new("default.test", &["http/1.1"]).connect(address).await.unwrap();
    let mut live = WebSocket::connect(io, "default.test", "/", "").await.unwrap().0;

    authority.rule(|rules| rules.refusal = None);
    try_again(&gateway, &config);
    gateway.wait("certificate issued");
    gateway.wait_for(|line| line["names_added"] == "domain.test, www.domain.test", 0, "the new certificate");
    assert_eq!(served(address, "www.domain.test").await.unwrap(), ["domain.test", "www.domain.test"]);
    live.echoes("still here").await;
    until(async || gateway.metric("wssgate_acme_certificate_missing{name=\"domain.test\"}").await == 0).await;
    assert_eq!(gateway.metric("wssgate_acme_orders_total{result=\"issued\"}").await, 1);
    let storage = gateway.path().join("acme");
    for (path, expect) in [("", 0o700), ("certificates", 0o700), ("certificates/domain.test.pem", 0o600)] {
        assert_eq!(mode(&storage.join(path)), expect, "{path}");
    }
    let left = |directory: &str| fs::read_dir(storage.join(directory)).unwrap().count();
    assert_eq!((left("challenges"), left("orders"), left("certificates")), (0, 0, 1));

    drop(live);
    gateway.signal("TERM");
    gateway.ends_well();
    assert_eq!(authority.count("/new-order"), 2);
}

/// The library sends a request three times by itself.
#[tokio::test]
async fn a_refused_nonce_is_no_failure_of_an_order() {
    let authority = Authority::start();
    authority.rule(|rules| rules.bad_nonces = 3);
    let gateway = rig(&authority, "names = [[\"a.test\", \"b.test\"]]").start();
    gateway.wait("certificate issued");
    assert!(gateway.lines("a certificate can't be ordered: its names have no valid one").is_empty());
    // What was refused was sent again where it stood: it is one order with one answer for each name.
    for (request, good) in [("/account", 1), ("/new-order", 1), ("/challenge", 2), ("/finalize", 1)] {
        assert_eq!(authority.count(request), 3 + good, "{request}");
    }
}

#[tokio::test]
async fn plain_http_proves_names_before_it_redirects() {
    let authority = Authority::start();
    let rig = rig(&authority, "names = [\"a.test\", \"b.test\"]\nchallenge = \"http-01\"");
    let (address, config) = (rig.tls, rig.config.clone());
    let gateway = rig.start();
    for n in 0..2 {
        gateway.wait_nth("certificate issued", n);
    }
    until(async || served(address, "b.test").await.is_ok_and(|names| names == ["b.test"])).await;
    // A token of nobody goes the way of every other request.
    let plain = config.split("[[listener]]\naddress = \"").nth(2).unwrap().split('"').next().unwrap();
    let mut io = TcpStream::connect(plain).await.unwrap();
    let request = "GET /.well-known/acme-challenge/unknown HTTP/1.1\r\nHost: a.test\r\n\r\n";
    assert_eq!(ask(&mut io, request).await.status(), 308);
}

#[tokio::test]
async fn the_dns_proves_names_by_a_command_of_the_users() {
    let authority = Authority::start();
    let rig = rig(
        &authority,
        "names = [[\"*.domain.test\", \"domain.test\"]]\nchallenge = \"dns-01\"\ndns_wait = \"0s\"\n\
         dns_command = [\"/bin/sh\", \"-c\", \"cd DIRECTORY; echo $2 $3 >> $1; echo $2 $3 >> $1-all\", \"sh\"]",
    );
    let records = rig.setup.path().join("present");
    authority.rule(|rules| rules.records.clone_from(&records));
    let config = rig.config.replace("DIRECTORY", rig.setup.path().to_str().unwrap());
    let gateway = Rig { config, ..rig }.start();
    gateway.wait("certificate issued");
    // The name has two records at the same time, and both were taken back.
    let present = fs::read_to_string(&records).unwrap();
    assert_eq!(present.lines().filter(|line| line.starts_with("_acme-challenge.domain.test ")).count(), 2);
    assert_eq!(fs::read_to_string(gateway.path().join("cleanup")).unwrap(), present);
    until(async || served(gateway.address(), "any.domain.test").await.is_ok_and(|names| names.len() == 2))
        .await;
}

#[tokio::test]
async fn a_command_that_fails_says_why() {
    let authority = Authority::start();
    let command = "dns_command = [\"/bin/sh\", \"-c\", \"echo no such zone >&2; exit 3\", \"sh\"]";
    let acme = format!("names = \"domain.test\"\nchallenge = \"dns-01\"\n{command}");
    let gateway = rig(&authority, &acme).start();
    let failed = gateway.wait("a certificate can't be ordered: its names have no valid one");
    assert_eq!(failed["problem"], "dns_command: /bin/sh present: exit status: 3: no such zone");
    assert_eq!(authority.count("/challenge"), 0);
}

#[tokio::test]
async fn what_the_file_says_of_an_order_is_ordered() {
    let authority = Authority::start();
    authority.rule(|rules| rules.external_key = Some("kid-1"));
    let rig = rig(
        &authority,
        "names = \"domain.test\"\ncontact = [\"a@domain.test\"]\nkey_type = \"rsa-2048\"\nprofile = \"shortlived\"\n\
         external_account = { key_id = \"kid-1\", hmac_key = \"AQIDBAUGBwgJCgsMDQ4PEA\" }",
    );
    let address = rig.tls;
    let gateway = rig.start();
    gateway.wait("certificate issued");
    until(async || served(address, "domain.test").await.is_ok_and(|names| names == ["domain.test"])).await;
    assert_eq!(authority.payloads("/account")[0]["contact"], serde_json::json!(["mailto:a@domain.test"]));
    assert_eq!(authority.payloads("/new-order")[0]["profile"], "shortlived");
    let stream = Tls::new("domain.test", &[]).connect(address).await.unwrap();
    let der = leaf(&stream);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(certificate.public_key().algorithm.algorithm.to_id_string(), "1.2.840.113549.1.1.1");
}

#[tokio::test]
async fn an_authority_that_wants_another_account_says_so() {
    let authority = Authority::start();
    authority.rule(|rules| rules.external_key = Some("kid-1"));
    let gateway = rig(&authority, "names = \"domain.test\"").start();
    let failed = gateway.wait("a certificate can't be ordered: its names have no valid one");
    assert!(failed["problem"].as_str().unwrap().contains("[acme.external_account]"), "{failed}");
    assert_eq!(failed["again_in_s"], 3600);
}

#[tokio::test]
async fn certificates_are_renewed_with_a_third_of_their_lifetime_left() {
    let authority = Authority::start();
    authority.rule(|rules| rules.lifetime = Duration::from_secs(9));
    let gateway = rig(&authority, "names = \"domain.test\"").start();
    gateway.wait_nth("certificate issued", 1);
    gateway.wait_for(|line| line["names_replaced"] == "domain.test", 0, "the renewal");
    assert!(gateway.lines("a certificate expires").is_empty(), "it is renewed in time");
    // The authority knows no suggestions, and no order says what it replaces.
    assert_eq!(authority.payloads("/new-order")[1].get("replaces"), None);
}

#[tokio::test]
async fn the_authority_says_when_to_renew() {
    let authority = Authority::start();
    // Good for days, but to be replaced at once, as after a mistake of the authority's.
    authority.rule(|rules| {
        rules.window = Some((1_000_000_000, 1_000_000_001));
        rules.lifetime = Duration::from_secs(30);
    });
    let gateway = rig(&authority, "names = \"domain.test\"").start();
    gateway.wait("certificate issued");
    let first = gateway.lines("certificate issued")[0].clone();
    let second = gateway.wait_nth("certificate issued", 1);
    assert_ne!(first, second);
    assert!(authority.payloads("/new-order")[1]["replaces"].as_str().unwrap().contains('.'));
    authority.rule(|rules| rules.window = Some((4_000_000_000, 4_000_000_001)));
}

#[tokio::test]
async fn failures_say_what_to_do_and_keep_the_old_certificate() {
    let authority = Authority::start();
    let rig = rig(&authority, "names = \"domain.test\"");
    let (config, address) = (rig.config.clone(), rig.tls);
    let gateway = rig.start();
    gateway.wait("certificate issued");
    until(async || served(address, "domain.test").await.is_ok()).await;
    let another_server = {
        let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
        setup.start(&support::gateway::config("", "[[route]]\npath = \"/\"\nservice = \"echo\"\n"))
    };
    // Names are added, which needs another certificate; what is there stays meanwhile.
    for (n, (place, kind, says)) in [
        (Backend::unreachable(), None, "www.domain.test can't be reached on port 443"),
        (another_server.address(), None, "www.domain.test can't be reached on port 443"),
        (address, Some(("caa", 403)), "a CAA record in the DNS forbids this authority"),
        (address, Some(("rateLimited", 429)), "a limit of the authority is reached"),
    ]
    .into_iter()
    .enumerate()
    {
        authority.rule(|rules| {
            rules.tls = vec![place];
            let refused = |(kind, status)| ("/new-order", status, problem(kind, "no"), "Retry-After: 7200");
            rules.refusal = kind.map(refused);
        });
        let names = format!("names = [[\"www.domain.test\", \"{n}.domain.test\"], \"domain.test\"]");
        gateway.write_config(&config.replace("names = \"domain.test\"", &names));
        gateway.reload();
        let failed = gateway.wait_nth("a certificate can't be ordered: its names have no valid one", n);
        assert!(failed["problem"].as_str().unwrap().starts_with(says), "{failed}");
        assert!(
            n < 3 || failed["again_in_s"].as_u64() >= Some(7200),
            "the authority says how long to wait: {failed}"
        );
    }
    assert_eq!(served(address, "domain.test").await.unwrap(), ["domain.test"]);
}

#[tokio::test]
async fn two_gateways_share_a_storage_and_one_of_them_orders() {
    let authority = Authority::start();
    let storage = tempfile::TempDir::new().unwrap();
    let acme = format!(
        "names = [\"a.test\", \"b.test\"]\nstorage = \"{}\"",
        storage.path().join("shared").display()
    );
    // The authority looks at both: each has to answer, whichever has ordered.
    let rigs = [rig(&authority, &acme), rig(&authority, &acme)];
    let addresses = [rigs[0].tls, rigs[1].tls];
    let gateways = rigs.map(Rig::start);
    for address in addresses {
        for name in ["a.test", "b.test"] {
            until(async || served(address, name).await.is_ok_and(|names| names == [name])).await;
        }
    }
    assert_eq!(authority.count("/new-order"), 2, "one order for each certificate");
    let count = |gateway: &Gateway, message| gateway.lines(message).len();
    let validated = |gateway: &Gateway| count(gateway, "a certificate authority has validated a name");
    until(async || gateways.each_ref().map(validated) == [2, 2]).await;
    until(async || gateways.iter().map(|gateway| count(gateway, "certificate issued")).sum::<usize>() == 2)
        .await;
}

#[tokio::test]
async fn an_order_goes_on_in_the_process_that_takes_over() {
    let authority = Authority::start();
    authority.rule(|rules| rules.held = Some("/finalize"));
    let rig = rig(&authority, "names = \"domain.test\"");
    let address = rig.tls;
    let gateway = rig.start();
    until(async || authority.count("/finalize") == 1).await;
    gateway.take_over();
    until(async || authority.count("/finalize") == 2).await;
    authority.rule(|rules| rules.held = None);
    gateway.wait("certificate issued");
    until(async || served(address, "domain.test").await.is_ok()).await;
    assert_eq!((authority.count("/new-order"), authority.count("/account")), (1, 1));
    assert_eq!(gateway.lines("certificate issued").len(), 1);
}

#[tokio::test]
async fn a_storage_that_can_not_be_used_is_said_once() {
    let authority = Authority::start();
    let rig = rig(&authority, "names = \"domain.test\"\nstorage = \"file\"");
    fs::write(rig.setup.path().join("file"), "").unwrap();
    let gateway = rig.start();
    let said = gateway.wait("certificates can't be ordered: their storage can't be used");
    assert!(said["cause"].as_str().unwrap().contains("file"), "{said}");
    assert_eq!(authority.count("/"), 0);
}

/// As when the disk is full at that moment. (That of an order that has not begun is `interop`'s.)
#[tokio::test]
async fn a_certificate_that_can_not_be_stored_is_not_ordered_again() {
    let authority = Authority::start();
    let rig = rig(&authority, "names = \"domain.test\"");
    let (address, config) = (rig.tls, rig.config.clone());
    let in_the_way = rig.setup.path().join("acme/certificates/domain.test.pem");
    fs::create_dir_all(in_the_way.join("any")).unwrap();
    let gateway = rig.start();
    let failed = gateway.wait("a certificate can't be ordered: its names have no valid one");
    assert!(failed["problem"].as_str().unwrap().starts_with(in_the_way.to_str().unwrap()), "{failed}");
    assert_eq!((authority.count("/new-order"), authority.count("/certificate")), (1, 1));
    fs::remove_dir_all(in_the_way).unwrap();
    try_again(&gateway, &config);
    gateway.wait("certificate issued");
    until(async || served(address, "domain.test").await.is_ok()).await;
    assert_eq!((authority.count("/new-order"), authority.count("/certificate")), (1, 2));
    assert_eq!(fs::read_dir(gateway.path().join("acme/orders")).unwrap().count(), 0);
}

/// A process that begins doesn't try at once what has failed before, but says so; with other settings it does.
#[tokio::test]
async fn what_has_failed_before_is_said_and_waits_unless_the_settings_are_others() {
    let authority = Authority::start();
    authority.rule(|rules| rules.refusal = Some(("/new-order", 403, problem("caa", "no"), "X: y")));
    let rig = rig(&authority, "names = \"domain.test\"");
    let config = rig.config.clone();
    let gateway = rig.start();
    gateway.wait("a certificate can't be ordered: its names have no valid one");
    gateway.take_over();
    let said = gateway
        .wait("an order has failed earlier: the next one waits, or is made when [acme] says something else");
    assert!(said["problem"].as_str().unwrap().starts_with("a CAA record"), "{said}");
    assert!((1..=120).contains(&said["again_in_s"].as_i64().unwrap()), "{said}");
    assert_eq!(authority.count("/new-order"), 1);
    authority.rule(|rules| rules.refusal = None);
    gateway.write_config(&config.replace("[acme]\n", "[acme]\ncontact = \"again@domain.test\"\n"));
    gateway.take_over();
    gateway.wait("certificate issued");
}

#[tokio::test]
async fn operators_see_how_certificates_stand() {
    let authority = Authority::start();
    authority.rule(|rules| rules.refusal = Some(("/new-order", 403, problem("caa", "no"), "X: y")));
    let rig = rig(&authority, "names = [[\"domain.test\", \"www.domain.test\"]]");
    let gateway = rig.start();
    gateway.wait("a certificate can't be ordered: its names have no valid one");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let output =
            command.args(arguments).arg("--config").arg(gateway.path().join("wssgate.toml")).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let mut status = String::new();
    until(async || {
        status = run(&["status", "--json"]);
        status.contains("\"failures\":1")
    })
    .await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let [info] = &status["status"]["acme"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!(info["names"], serde_json::json!(["domain.test", "www.domain.test"]));
    assert_eq!(info["state"], "missing");
    assert!(info["problem"].as_str().unwrap().starts_with("a CAA record"), "{info}");
    assert!(run(&["status"]).contains("Certificates of [acme]"));
    let checked = run(&["check"]);
    assert!(checked.contains("Certificates of [acme]") && checked.contains("not there yet"), "{checked}");
    assert!(checked.contains("asks on port 443 for tls-alpn-01"), "{checked}");
}

/// Another gateway's certificate for the name is used as long as the order takes.
#[tokio::test]
async fn a_certificate_of_a_file_is_served_until_there_is_a_newer_one() {
    let authority = Authority::start();
    authority.rule(|rules| rules.held = Some("/new-order"));
    let rig = rig(&authority, "names = \"domain.test\"");
    let issued = Pki::new().issue(&["domain.test"]);
    issued.write(&rig.setup.path().join("certs"), "domain");
    let address = rig.tls;
    let gateway = rig.start();
    let stream = Tls::new("domain.test", &[]).connect(address).await.unwrap();
    assert_eq!(leaf(&stream), issued.der);
    authority.rule(|rules| rules.held = None);
    gateway.wait_for(|line| line["names_replaced"] == "domain.test", 0, "the certificate of the authority");
}

#[tokio::test]
async fn an_attempt_orders_everything_and_keeps_nothing() {
    let authority = Authority::start();
    let rig = rig(&authority, "names = [\"a.test\", \"b.test\"]");
    let gateway = rig.start();
    gateway.wait_nth("certificate issued", 1);
    let certificates = || {
        let names =
            ["a.test", "b.test"].map(|name| gateway.path().join(format!("acme/certificates/{name}.pem")));
        names.map(|file| fs::read(file).unwrap())
    };
    let before = certificates();
    let attempt = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let output =
            command.args(["acme", "try", "--config"]).arg(gateway.path().join("wssgate.toml")).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let said = attempt();
    assert!(
        said.0 && said.1.contains("\nok: a.test: issued") && said.1.contains("\nok: b.test: issued"),
        "{said:?}"
    );
    authority.rule(|rules| rules.tls = vec![Backend::unreachable()]);
    let (is_good, said) = attempt();
    assert!(!is_good && said.contains("FAILED: a.test: a.test can't be reached on port 443"), "{said}");
    assert_eq!(certificates(), before);
}

//! Certificates for names that are in no configuration: ordered when a client asks for them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig::{Rig, rig, served};
use support::authority::{Authority, problem};
use support::backend::{Backend, Seen};
use support::gateway::Gateway;
use support::http1::read_head;
use support::until;
use tokio::io::AsyncWriteExt;

#[path = "acme/rig.rs"]
mod rig;

/// What a URL answers for each name, and what it was asked. It is silent about names that it doesn't know.
async fn asked(answers: &[(&str, u16)]) -> (Backend, Seen, Arc<Mutex<HashMap<String, u16>>>) {
    let answers = answers.iter().map(|(name, status)| ((*name).to_owned(), *status));
    let answers: Arc<Mutex<HashMap<_, _>>> = Arc::new(Mutex::new(answers.collect()));
    let (seen, known) = (Seen::default(), answers.clone());
    let heads = seen.clone();
    let backend = Backend::start(move |mut tcp| {
        let (heads, known) = (heads.clone(), known.clone());
        async move {
            let Some(head) = read_head(&mut tcp).await else { return };
            let name = head.line.split("domain=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            heads.push(head);
            let status = known.lock().unwrap().get(&name).copied();
            match status {
                Some(status) => {
                    let answer =
                        format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                    let _ = tcp.write_all(answer.as_bytes()).await;
                }
                None => std::future::pending().await,
            }
        }
    })
    .await;
    (backend, seen, answers)
}

async fn is_refused(rig: &std::net::SocketAddr, name: &str) -> bool {
    let refused = served(*rig, name).await;
    refused.is_err_and(|e| e.to_string().contains("UnrecognisedName"))
}

fn on_demand(options: &str) -> String {
    format!("[acme.on_demand]\n{options}")
}

#[tokio::test]
async fn the_first_client_waits_for_the_certificate_and_one_is_ordered_for_all() {
    let authority = Authority::start();
    let rig = rig(&authority, &on_demand("names = \"*.domain.test\""));
    let address = rig.tls;
    let gateway = rig.start();
    assert_eq!(served(address, "a.domain.test").await.unwrap(), ["a.domain.test"]);
    // Five that come while it is being ordered.
    authority.rule(|rules| rules.held = Some("/finalize"));
    let clients: Vec<_> = (0..5).map(|_| tokio::spawn(served(address, "b.domain.test"))).collect();
    until(async || authority.count("/finalize") == 2).await;
    authority.rule(|rules| rules.held = None);
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap(), ["b.domain.test"]);
    }
    assert_eq!(authority.count("/new-order"), 2);
    // Names that are not in the list, and those that no authority knows, are what they were before.
    for name in ["other.test", "x.y.domain.test", "domain.test", "localhost"] {
        assert_eq!(served(address, name).await.unwrap(), ["default.test"], "{name}");
    }
    let states =
        ["wssgate_acme_on_demand_names{state=\"valid\"}", "wssgate_acme_orders_total{result=\"issued\"}"];
    for state in states {
        until(async || gateway.metric(state).await == 2).await;
    }
    assert_eq!(gateway.metric("wssgate_acme_on_demand_total{result=\"ordered\"}").await, 2);
    let run = |command: &str| {
        let mut wssgate = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let output = wssgate.args([command, "--config"]).arg(gateway.path().join("wssgate.toml")).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(run("status").contains("a.domain.test (on demand)"), "{}", run("status"));
    assert!(run("check").contains("on demand, 2 there"), "{}", run("check"));

    // They are there after a takeover, and nothing is ordered again.
    gateway.take_over();
    assert_eq!(served(address, "b.domain.test").await.unwrap(), ["b.domain.test"]);
    // A client that the old process has accepted last is refused: it orders nothing any more.
    until(async || served(address, "c.domain.test").await.is_ok_and(|names| names == ["c.domain.test"]))
        .await;
    assert_eq!(authority.count("/new-order"), 3);
}

#[tokio::test]
async fn a_url_allows_names_or_forbids_them_and_its_silence_forbids() {
    let authority = Authority::start();
    let (url, seen, _) = asked(&[("good.test", 200), ("bad.test", 404), ("gone.test", 302)]).await;
    let options = format!("ask = \"http://{}/may?key=1\"\nask_timeout = \"500ms\"", url.address);
    let rig = rig(&authority, &on_demand(&options));
    let address = rig.tls;
    let gateway = rig.start();
    assert_eq!(served(address, "good.test").await.unwrap(), ["good.test"]);
    assert_eq!(seen.last().line, "GET /may?key=1&domain=good.test HTTP/1.1");
    // What it has forbidden is no name of ours, and it isn't asked again at once.
    for name in ["bad.test", "bad.test", "gone.test"] {
        assert_eq!(served(address, name).await.unwrap(), ["default.test"]);
    }
    assert_eq!(seen.count(), 3);
    assert!(is_refused(&address, "silent.test").await, "it may be a name of ours");
    let told =
        gateway.wait("no certificate is ordered on demand: ask does not say whether the name is allowed");
    assert_eq!(
        (&told["name"], &told["cause"]),
        (&"silent.test".into(), &"no answer within 500ms (timeout)".into())
    );
    drop(url);
    assert!(is_refused(&address, "other.test").await);
    assert_eq!(authority.count("/new-order"), 1);
    for (result, count) in [("ordered", 1), ("denied", 2), ("unknown", 2)] {
        let metric = format!("wssgate_acme_on_demand_total{{result=\"{result}\"}}");
        assert_eq!(gateway.metric(&metric).await, count, "{result}");
    }
}

#[tokio::test]
async fn a_name_that_has_failed_is_not_ordered_by_each_client() {
    let authority = Authority::start();
    authority.rule(|rules| rules.refusal = Some(("/new-order", 403, problem("caa", "no"), "X: y")));
    let rig = rig(&authority, &on_demand("names = \"*.domain.test\""));
    let (address, config) = (rig.tls, rig.config.clone());
    let gateway = rig.start();
    for _ in 0..3 {
        assert!(is_refused(&address, "a.domain.test").await, "and gets no other name's certificate");
    }
    let failed = gateway.wait("a certificate can't be ordered: its names have no valid one");
    assert!(failed["problem"].as_str().unwrap().starts_with("a CAA record"), "{failed}");
    assert_eq!(authority.count("/new-order"), 1);
    until(async || gateway.metric("wssgate_acme_on_demand_names{state=\"missing\"}").await == 1).await;
    // Other settings are another reason to try, as soon as the task that orders has heard of them.
    authority.rule(|rules| rules.refusal = None);
    gateway.write_config(&config.replace("[acme]\n", "[acme]\ncontact = \"again@domain.test\"\n"));
    gateway.reload();
    until(async || served(address, "a.domain.test").await.is_ok_and(|names| names == ["a.domain.test"]))
        .await;
}

/// The section doesn't say which names there will be.
#[tokio::test]
async fn an_attempt_orders_the_name_that_it_is_given() {
    let authority = Authority::start();
    let (url, _, _) = asked(&[("good.test", 200), ("bad.test", 404)]).await;
    let options = on_demand(&format!("ask = \"http://{}\"\nask_timeout = \"500ms\"", url.address));
    let gateway = rig(&authority, &options).start();
    let attempt = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let file = gateway.path().join("wssgate.toml");
        let output = command.args(["acme", "try"]).args(arguments).arg("--config").arg(file).output().await;
        let output = output.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (is_good, said) = attempt(&[]).await;
    assert!(!is_good && said.contains("wssgate acme try --name NAME\nFAILED: nothing was ordered"), "{said}");
    let names = ["good.test", "bad.test", "silent.test"].map(|name| ["--name", name]).concat();
    let (is_good, said) = attempt(&names).await;
    for line in [
        "\nok: good.test: issued after ",
        "FAILED: bad.test: ask of [acme.on_demand] does not allow the name\n",
        "FAILED: silent.test: ask of [acme.on_demand] does not say whether the name is allowed: no answer within 500ms",
    ] {
        assert!(!is_good && said.contains(line), "{line}: {said}");
    }
    assert!(attempt(&["--name", "Good.test"]).await.0);
    assert_eq!(authority.count("/new-order"), 2);
    assert_eq!(fs::read_dir(gateway.path().join("acme/on-demand")).unwrap().count(), 0);
}

#[tokio::test]
async fn clients_can_begin_so_many_orders_and_no_more() {
    let authority = Authority::start();
    let rig = rig(&authority, &on_demand("names = \"*.domain.test\"\norders = \"2/h\""));
    let address = rig.tls;
    let gateway = rig.start();
    for name in ["a.domain.test", "b.domain.test"] {
        assert_eq!(served(address, name).await.unwrap(), [name]);
    }
    assert!(is_refused(&address, "c.domain.test").await);
    let told =
        "no certificate is ordered on demand: clients have begun as many orders as [acme.on_demand] allows";
    assert_eq!(gateway.wait(told)["name"], "c.domain.test");
    assert_eq!(authority.count("/new-order"), 2);
    assert_eq!(served(address, "b.domain.test").await.unwrap(), ["b.domain.test"]);
}

#[tokio::test]
async fn as_many_names_are_remembered_as_the_section_says() {
    let authority = Authority::start();
    let rig = rig(&authority, &on_demand("names = \"*.domain.test\"\nmax_names = 1"));
    let address = rig.tls;
    let gateway = rig.start();
    assert!(served(address, "a.domain.test").await.is_ok());
    assert!(is_refused(&address, "b.domain.test").await);
    gateway.wait(
        "no certificate is ordered on demand: as many names have one as max_names of [acme.on_demand] allows",
    );
    assert_eq!(authority.count("/new-order"), 1);
}

#[tokio::test]
async fn an_order_that_a_client_has_begun_goes_on_after_a_takeover() {
    let authority = Authority::start();
    authority.rule(|rules| rules.held = Some("/finalize"));
    let rig = rig(&authority, &on_demand("names = \"*.domain.test\""));
    let address = rig.tls;
    let gateway = rig.start();
    let client = tokio::spawn(served(address, "a.domain.test"));
    until(async || authority.count("/finalize") == 1).await;
    gateway.take_over();
    until(async || authority.count("/finalize") == 2).await;
    authority.rule(|rules| rules.held = None);
    gateway.wait("certificate issued");
    until(async || served(address, "a.domain.test").await.is_ok()).await;
    assert_eq!(authority.count("/new-order"), 1);
    client.await.unwrap().unwrap_err(); // its process has handed the duty over
}

#[tokio::test]
async fn a_name_is_renewed_as_long_as_it_is_allowed() {
    let authority = Authority::start();
    authority.rule(|rules| rules.lifetime = Duration::from_secs(9));
    let (url, seen, answers) = asked(&[("a.test", 200)]).await;
    let rig = rig(&authority, &on_demand(&format!("ask = \"http://{}\"", url.address)));
    let address = rig.tls;
    let gateway = rig.start();
    assert_eq!(served(address, "a.test").await.unwrap(), ["a.test"]);
    // The URL is asked on this thread: it must not be held up.
    until(async || gateway.lines("renewed").iter().any(|line| line["names_replaced"] == "a.test")).await;
    assert_eq!(seen.count(), 2, "it is asked again");
    answers.lock().unwrap().insert("a.test".to_owned(), 403);
    let message = "a certificate can't be renewed: the old one stays in use";
    until(async || !gateway.lines(message).is_empty()).await;
    assert_eq!(gateway.lines(message)[0]["problem"], "[acme.on_demand] does not allow the name any more");
    assert_eq!(authority.count("/new-order"), 2);
}

#[tokio::test]
async fn clients_of_two_gateways_get_the_certificate_that_one_has_ordered() {
    let authority = Authority::start();
    let storage = tempfile::TempDir::new().unwrap();
    let shared = format!("storage = \"{}\"\n", storage.path().display());
    let acme = shared + &on_demand("names = \"*.domain.test\"");
    let rigs = [rig(&authority, &acme), rig(&authority, &acme)];
    let addresses = [rigs[0].tls, rigs[1].tls];
    let gateways = rigs.map(Rig::start);
    let clients = addresses.map(|address| tokio::spawn(served(address, "a.domain.test")));
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap(), ["a.domain.test"]);
    }
    assert_eq!(authority.count("/new-order"), 1);
    let issued = |gateway: &Gateway| gateway.lines("certificate issued").len();
    until(async || gateways.iter().map(issued).sum::<usize>() == 1).await;
    assert_eq!(fs::read_dir(storage.path().join("on-demand")).unwrap().count(), 1);
}

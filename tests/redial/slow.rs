//! Servers that take their time: no more handshakes are under way with one than `redial_rate` says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::backend::{Backend, Seen};
use support::http1::read_head;
use support::until;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use super::conversation::{Fate, Orders, converse, switching};
use super::server::Server;
use super::{EchoesAs, asked, open, redialling, start};

/// A server that answers repeated handshakes when it is allowed to.
async fn slow(told: watch::Receiver<Orders>) -> (Backend, Seen, Arc<Semaphore>) {
    let (seen, answers) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let (heads, allowed) = (seen.clone(), answers.clone());
    let server = Backend::start(move |mut tcp| {
        let (heads, allowed, told) = (heads.clone(), allowed.clone(), told.clone());
        async move {
            let Some(head) = read_head(&mut tcp).await else { return };
            heads.push(head.clone());
            if head.get("wssgate-resume").is_some() {
                allowed.acquire().await.unwrap().forget();
            }
            let count = told.borrow().count;
            if tcp.write_all(switching(&head, "").as_bytes()).await.is_ok() {
                converse("slow", tcp, (told, count), |_| {}).await;
            }
        }
    })
    .await;
    (server, seen, answers)
}

#[tokio::test]
async fn a_server_that_answers_slowly_has_no_more_handshakes_under_way_than_redial_rate_says() {
    let (orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies });
    let (server, seen, answers) = slow(told).await;
    let gateway = start(&[server.address], "redial_rate = \"10/s\"");
    let mut sockets = Vec::new();
    for _ in 0..25 {
        sockets.push(open(&gateway).await); // of both workers
    }
    orders.send_modify(|orders| orders.count += 1);
    let repeated = || seen.count() - 25;
    until(async || repeated() == 10).await;
    sleep(Duration::from_secs(1)).await; // which is time for ten more
    assert_eq!(repeated(), 10);
    assert_eq!(gateway.metric("wssgate_upstream_redialling").await, 25);
    // The log has a line a second, and not one for each session.
    let lost = || gateway.lines("a backend has lost sessions, which look for another one");
    let count = |lines: Vec<Value>| lines.iter().map(|line| line["sessions"].as_u64().unwrap()).sum::<u64>();
    until(async || count(lost()) == 25).await;
    let line = lost().remove(0);
    assert_eq!((&line["upstream"], &line["level"]), (&json!("pool"), &json!("INFO")));
    assert_eq!(line["backend"], server.address.to_string());
    assert!(lost().len() < 5, "{:?}", lost());
    answers.add_permits(1);
    until(async || repeated() == 11).await;
    answers.add_permits(24);
    until(async || repeated() == 25).await;
    for socket in &mut sockets {
        socket.echoes_as("slow", "hello").await;
    }
    assert_eq!(gateway.metric("wssgate_upstream_redialling").await, 0);
}

/// It is chosen first, by its weight, and holds up its session for half of `redial_timeout`.
#[tokio::test]
async fn a_server_that_never_answers_leaves_time_for_another_one() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let (_orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies });
    let (hung, seen, _answers) = slow(told).await;
    let lines = "redial_timeout = \"2s\"\nredial_interval = \"100ms\"";
    let gateway = start(&[a.address()], lines);
    let mut socket = open(&gateway).await;
    let weighted = redialling(&[hung.address, b.address()], lines, "");
    let first = format!("\"http://{}\"", hung.address);
    gateway.write_config(&weighted.replace(&first, &format!("{{ address = {first}, weight = 1000 }}")));
    gateway.reload();
    a.stop(Fate::Dies);
    asked(&b, 1).await;
    assert_eq!(seen.count(), 1);
    socket.echoes_as("b", "hello").await;
}

#[tokio::test]
async fn sessions_that_would_wait_for_a_server_that_answers_none_go_to_another_one() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let (_orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies });
    let (hung, seen, _answers) = slow(told).await;
    let lines = "redial_rate = \"4/s\"\nredial_interval = \"200ms\"";
    let gateway = start(&[a.address()], lines);
    let mut sockets = Vec::new();
    for _ in 0..12 {
        sockets.push(open(&gateway).await);
    }
    gateway.write_config(&redialling(&[hung.address, b.address()], lines, ""));
    gateway.reload();
    a.stop(Fate::Dies);
    asked(&b, 8).await;
    assert_eq!(seen.count(), 4);
}

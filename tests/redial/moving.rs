//! Sessions that outlive their servers go on in another process of the gateway.

use support::BoxIo;
use support::gateway::{MOVED, RETIRED};
use support::pki::Pki;
use support::tls::{TLS12, TLS13, Tls};

use super::*;

async fn talks(socket: &mut WebSocket, text: &str) {
    socket.text(text).await;
    let echo = socket.receive().await.expect("an echo");
    assert!(echo.payload.ends_with(format!(" {text}").as_bytes()), "{echo:?}");
}

#[track_caller]
fn takes_over(gateway: &Gateway, sessions: usize, nth: usize) {
    gateway.take_over();
    let moved = gateway.wait_nth(MOVED, nth);
    let counts = (&moved["sessions_moved"], &moved["sessions_left"]);
    assert_eq!(counts, (&json!(sessions), &json!(0)), "{moved}");
    gateway.wait_nth(RETIRED, nth);
}

#[tokio::test]
async fn sessions_outlive_their_servers_and_the_process() {
    let a = Server::start("a").await;
    let gateway = start(&[a.address()], "redial_interval = \"100ms\"");
    let mut sockets = Vec::new();
    for versions in [None, Some(TLS13), Some(TLS12)] {
        let io: BoxIo = match versions {
            None => gateway.connect_plain().await,
            Some(versions) => {
                let tls = Tls::with(versions, Some("default.test"), &["http/1.1"], &[]);
                Box::new(tls.connect(gateway.address()).await.unwrap())
            }
        };
        sockets.push(WebSocket::connect(io, "default.test", "/ws?room=1", "").await.unwrap().0);
    }
    for socket in &mut sockets {
        talks(socket, "one").await;
    }
    let names = |from: usize| -> Vec<_> {
        let mut names: Vec<_> =
            a.seen.all()[from..].iter().map(|head| head.get("wssgate-session").unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    let before = names(0);
    takes_over(&gateway, 3, 0);
    for socket in &mut sockets {
        talks(socket, "two").await;
    }
    a.restart(Fate::Closes(1012));
    asked(&a, 6).await;
    for socket in &mut sockets {
        talks(socket, "three").await;
    }
    assert_eq!(names(3), before, "the handshakes of before, with their names");
    let resumed = a.seen.last();
    assert_eq!((resumed.get("wssgate-resume"), resumed.get("wssgate-messages")), (Some("1"), Some("2")));
    takes_over(&gateway, 3, 1);
    a.restart(Fate::Dies);
    asked(&a, 9).await;
    for socket in &mut sockets {
        talks(socket, "four").await;
    }
    let resumed = a.seen.last();
    assert_eq!((resumed.get("wssgate-resume"), resumed.get("wssgate-messages")), (Some("2"), Some("3")));
    for (at, mut socket) in sockets.into_iter().enumerate() {
        socket.close(1000).await;
        socket.expect_close(1000).await;
        drop(socket);
        let line = gateway.wait_nth("session", at);
        assert_eq!((&line["redials"], &line["received_messages"]), (&json!(2), &json!(4)), "{line}");
    }
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_session_between_two_servers_moves_with_what_is_held_for_the_next() {
    let a = Server::start("a").await;
    let gateway = start(&[a.address()], "redial_interval = \"100ms\"");
    let mut socket = open(&gateway).await;
    talks(&mut socket, "one").await;
    a.stop(Fate::Dies);
    asked(&a, 3).await; // in vain
    socket.text("held").await;
    socket.send(PING, "are you there?").await;
    assert_eq!(socket.receive().await.unwrap().b0, PONG);
    takes_over(&gateway, 1, 0);
    gateway.wait_nth("control socket", 1);
    assert_eq!(session(&gateway).await["redials"], 0);
    a.serve();
    let echo = socket.receive().await.unwrap();
    assert!(echo.payload.ends_with(b" held"), "{echo:?}");
    talks(&mut socket, "three").await;
    assert_eq!(a.heard(), ["one", "held", "three"]);
    assert_eq!(session(&gateway).await["redials"], 1);
    drop(socket);
    gateway.ends_with_its_last_process();
}

/// The old process has had no time to tell the session; the new one doesn't close it, but has it leave the server.
#[tokio::test]
async fn a_session_leaves_its_drained_server_in_the_new_process() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let text = |window: &str| {
        let text = redialling(&[a.address(), b.address()], "redial_interval = \"100ms\"", "");
        format!("drain_window = \"{window}\"\ndrain_timeout = \"1000h\"\n{text}")
    };
    let gateway = setup().start(&text("500h"));
    let mut socket = open(&gateway).await;
    let (first, second) = if a.seen.count() == 1 { (&a, &b) } else { (&b, &a) };
    talks(&mut socket, "one").await;
    order(&gateway, json!({"command": "drain", "target": first.address().to_string()})).await;
    gateway.wait("drained by order");
    gateway.write_config(&text("1ms"));
    takes_over(&gateway, 1, 0);
    asked(second, 1).await;
    talks(&mut socket, "two").await;
    assert_eq!((first.heard(), second.heard()), (vec!["one".to_owned()], vec!["two".to_owned()]));
    drop(socket);
    gateway.ends_with_its_last_process();
}

/// What it is judged by before another server is asked goes along.
#[tokio::test]
async fn a_client_that_has_shown_a_certificate_is_judged_by_it_in_the_new_process() {
    for ca in ["clients.pem", "others.pem"] {
        let server = Server::start("a").await;
        let (setup, pki) = (setup(), Pki::new());
        let of = judged::asking_clients(&setup, &pki, &server);
        let gateway = setup.start(&of("clients.pem"));
        let tls = Tls::new("closed.test", &["http/1.1"]).showing(&pki.issue_client("device 7", 7));
        let io = tls.connect(gateway.address()).await.unwrap();
        let (mut socket, _) = WebSocket::connect(io, "closed.test", "/ws", "").await.unwrap();
        talks(&mut socket, "one").await;
        gateway.write_config(&of(ca));
        takes_over(&gateway, 1, 0);
        gateway.wait_nth("control socket", 1);
        assert_eq!(session(&gateway).await["subject"], "CN=device 7,O=Clients");
        takes_over(&gateway, 1, 1); // from a process that has not seen the handshake
        if ca == "others.pem" {
            judged::is_ended(&gateway, &server, socket).await;
        } else {
            server.restart(Fate::Dies);
            asked(&server, 2).await;
            talks(&mut socket, "two").await;
        }
    }
}

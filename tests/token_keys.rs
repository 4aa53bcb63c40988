//! Keys of tokens that change: those of a URL, and those of a file that is watched.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{ask, read_head};
use support::pki::Pki;
use support::tls::{TLS13, acceptor};
use support::ws::WebSocket;
use support::{Io, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

const SECRETS: [&str; 3] = [
    "the first secret of thirty-two b.",
    "the second secret of thirty-two b",
    "the third secret of thirty-two b.",
];

/// A set with these of the keys, which are called by their numbers.
fn keys(numbers: &[usize]) -> String {
    use base64::Engine;
    let key = |n: &usize| {
        let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(SECRETS[*n]);
        json!({ "kty": "oct", "kid": n.to_string(), "alg": "HS256", "k": secret })
    };
    json!({ "keys": numbers.iter().map(key).collect::<Vec<_>>() }).to_string()
}

/// A token that is signed with this key.
fn token(n: usize) -> String {
    let header = Header { kid: Some(n.to_string()), ..Header::new(Algorithm::HS256) };
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let claims = json!({ "sub": "alice", "exp": expiry });
    encode(&header, &claims, &EncodingKey::from_secret(SECRETS[n].as_bytes()).unwrap()).unwrap()
}

/// A server with keys.
struct Issuer {
    address: SocketAddr,
    /// What it answers, from the status line on; empty: nothing.
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

fn answer(keys: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len())
}

impl Issuer {
    fn start(tls: Option<TlsAcceptor>, first: String) -> Self {
        let (answer, asked) = (Arc::new(Mutex::new(first)), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (answer.clone(), asked.clone());
        let serve = move |tcp| {
            let (tls, told, count) = (tls.clone(), told.clone(), count.clone());
            async move {
                let mut io: Box<dyn Io> = match tls {
                    Some(tls) => match tls.accept(tcp).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                    None => Box::new(tcp),
                };
                let Some(head) = read_head(&mut io).await else { return };
                assert_eq!(head.line, "GET /keys?of=all HTTP/1.1");
                count.fetch_add(1, Ordering::SeqCst);
                let told = told.lock().unwrap().clone();
                let _ = io.write_all(told.as_bytes()).await;
                if !told.is_empty() {
                    let _ = io.shutdown().await;
                }
                let _ = io.read_to_end(&mut Vec::new()).await;
            }
        };
        // On a thread of its own: a gateway waits for it at its start, while the test waits for the gateway.
        let (tell, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = Backend::start(serve).await;
                tell.send(server.address).unwrap();
                std::future::pending::<()>().await; // as long as the test runs
            });
        });
        Self { address: address.recv().unwrap(), answer, asked }
    }

    fn set_answer(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it has been asked so often.
    async fn is_asked(&self, count: usize) {
        until(async || self.asked() >= count).await;
    }
}

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

async fn text(jwt: &str) -> String {
    let (backend, _) = echo().await;
    let address = backend.address;
    std::mem::forget(backend); // it serves as long as the test runs
    let route =
        format!("[[route]]\npath = \"/\"\nproxy = \"http://{address}\"\n[route.access]\njwt = {{ {jwt} }}\n");
    config("", &route)
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: default.test\r\nAuthorization: Bearer {token}\r\n\r\n");
    ask(&mut tcp, head).await.status()
}

/// A session whose token is signed with this key.
async fn open(gateway: &Gateway, n: usize) -> WebSocket {
    let io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", token(n));
    WebSocket::connect(io, "default.test", "/", &bearer).await.unwrap().0
}

#[tokio::test]
async fn keys_come_from_a_url_and_rotate() {
    let issuer = Issuer::start(None, answer(&keys(&[0])));
    let setup = setup();
    let text = text(&format!("jwks = \"http://{}/keys?of=all\"", issuer.address)).await;
    let gateway = setup.start(&text);
    assert_eq!((status(&gateway, &token(0)).await, issuer.asked()), (200, 1), "before the first request");
    // A key that is not known is looked for, once.
    issuer.set_answer(answer(&keys(&[0, 1])));
    assert_eq!((status(&gateway, &token(1)).await, issuer.asked()), (200, 2));
    issuer.set_answer(answer(&keys(&[1, 2])));
    for _ in 0..10 {
        assert_eq!((status(&gateway, &token(2)).await, issuer.asked()), (401, 2), "once a minute at most");
    }
    assert_eq!(status(&gateway, &token(0)).await, 200);
    // A reload fetches nothing, and loses nothing.
    for _ in 0..5 {
        gateway.reload();
    }
    let mut socket = open(&gateway, 1).await;
    gateway.reload();
    socket.echoes("still here").await;
    assert_eq!((status(&gateway, &token(1)).await, issuer.asked()), (200, 2));
    // Another URL, or other settings, are fetched.
    gateway.write_config(&text.replace("?of=all\"", "?of=all\", refresh = \"1s\""));
    gateway.reload();
    assert_eq!((status(&gateway, &token(2)).await, status(&gateway, &token(0)).await), (200, 401));
    // Again and again: the second key is taken back.
    issuer.set_answer(answer(&keys(&[2])));
    let asked = issuer.asked();
    issuer.is_asked(asked + 2).await;
    assert_eq!((status(&gateway, &token(2)).await, status(&gateway, &token(1)).await), (200, 401));
}

#[tokio::test]
async fn a_url_that_fails_keeps_its_keys_and_is_asked_again() {
    let issuer = Issuer::start(None, answer(&keys(&[0])));
    let jwt =
        format!("jwks = \"http://{}/keys?of=all\", refresh = \"1s\", timeout = \"500ms\"", issuer.address);
    let gateway = setup().start(&text(&jwt).await);
    for (n, (bad, says)) in [
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned(), "it answered 503 Service Unavailable"),
        (answer("{}"), "the answer holds no key that tokens can be signed with"),
        (answer("<html>"), "the answer is neither a set of keys in JSON"),
        ("nonsense\r\n\r\n".to_owned(), "it did not answer: "),
        (answer(&" ".repeat(1 << 21)), "its answer is longer than 1048576 bytes"),
        (String::new(), "no answer within 500ms (timeout)"),
    ]
    .into_iter()
    .enumerate()
    {
        issuer.set_answer(bad);
        let found = |line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|msg| msg.starts_with("the keys of tokens can't be fetched"))
                && line["cause"].as_str().is_some_and(|cause| cause.starts_with(says))
        };
        let line = gateway.wait_for(found, 0, says);
        let message = line["message"].as_str().unwrap();
        assert!(message.ends_with("those that there are stay in use"), "{line}");
        assert_eq!(line["url"], format!("http://{}/keys?of=all", issuer.address));
        assert_eq!(status(&gateway, &token(0)).await, 200, "{n}");
        issuer.set_answer(answer(&keys(&[0])));
        gateway.wait_nth("the keys of tokens can be fetched again", n);
    }
}

#[tokio::test]
async fn a_start_does_not_wait_long_for_keys_and_requests_get_503_until_they_come() {
    let issuer = Issuer::start(None, String::new());
    let jwt = format!("jwks = \"http://{}/keys?of=all\", timeout = \"200ms\"", issuer.address);
    let begin = Instant::now();
    let gateway = setup().start(&text(&jwt).await);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: default.test\r\nAuthorization: Bearer {}\r\n\r\n", token(0));
    let refused = ask(&mut tcp, head).await;
    assert_eq!((refused.status(), refused.head.get("retry-after")), (503, Some("5")));
    // Who sends no token is told that one is needed.
    assert_eq!(ask(&mut tcp, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status(), 401);
    issuer.set_answer(answer(&keys(&[0])));
    gateway.wait("the keys of tokens can be fetched again");
    assert_eq!(status(&gateway, &token(0)).await, 200);
}

#[tokio::test]
async fn a_url_with_tls_is_trusted_by_its_authorities_or_those_of_the_system() {
    let setup = setup();
    let pki = Pki::new();
    fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
    fs::write(setup.path().join("other.pem"), Pki::new().root_pem()).unwrap();
    let tls = acceptor(TLS13, &pki.issue(&["127.0.0.1"]), None);
    let issuer = Issuer::start(Some(tls), answer(&keys(&[0])));
    let url = format!("jwks = \"https://{}/keys?of=all\"", issuer.address);
    let with_ca = |ca: &str| format!("{url}, ca = \"{ca}\", timeout = \"1s\"");
    let system = setup.path().join("ca.pem");
    let gateway = setup.with("SSL_CERT_FILE", system).start(&text(&url).await);
    assert_eq!((status(&gateway, &token(0)).await, issuer.asked()), (200, 1));
    gateway.write_config(&text(&with_ca("other.pem")).await);
    gateway.reload();
    assert_eq!(status(&gateway, &token(0)).await, 503);
    let line = gateway.wait("the keys of tokens can't be fetched; requests get 503 until they can");
    assert!(line["cause"].as_str().unwrap().contains("certificate"), "{line}");
    assert!(line["again_in_ms"].as_u64().unwrap() <= 1100, "{line}");
    gateway.write_config(&text(&with_ca("ca.pem")).await);
    gateway.reload();
    assert_eq!((status(&gateway, &token(0)).await, issuer.asked()), (200, 2));
}

#[tokio::test]
async fn a_file_of_keys_that_changes_is_read_again() {
    let setup = setup();
    let file = setup.path().join("keys.json");
    fs::write(&file, keys(&[0])).unwrap();
    let gateway = setup.start(&text("jwks = \"keys.json\"").await);
    assert_eq!((status(&gateway, &token(0)).await, status(&gateway, &token(1)).await), (200, 401));
    fs::write(&file, keys(&[0, 1])).unwrap();
    gateway.wait("the keys of tokens were read again");
    assert_eq!((status(&gateway, &token(0)).await, status(&gateway, &token(1)).await), (200, 200));
    // One that is broken, or gone, changes nothing, and is told once.
    fs::write(&file, "{").unwrap();
    let line = gateway.wait("the keys of tokens can't be read again; those that there are stay in use");
    assert!(line["cause"].as_str().unwrap().starts_with("is neither a set of keys"), "{line}");
    fs::remove_file(&file).unwrap();
    let line =
        gateway.wait_nth("the keys of tokens can't be read again; those that there are stay in use", 1);
    assert!(line["cause"].as_str().unwrap().starts_with("can't be read"), "{line}");
    assert_eq!(status(&gateway, &token(1)).await, 200);
    // It is replaced, as deployments do it.
    fs::write(setup_path(&gateway, "new.json"), keys(&[2])).unwrap();
    fs::rename(setup_path(&gateway, "new.json"), &file).unwrap();
    gateway.wait_nth("the keys of tokens were read again", 1);
    assert_eq!((status(&gateway, &token(2)).await, status(&gateway, &token(1)).await), (200, 401));
}

/// Broken a second time before it is mended; that it has been looked at again shows by another file.
#[tokio::test]
async fn a_file_of_keys_that_is_broken_twice_is_told_once() {
    let setup = setup();
    let path = |name: &str| setup.path().join(name);
    let (first, second) = (path("first.json"), path("second.json"));
    fs::write(&first, keys(&[0])).unwrap();
    fs::write(&second, keys(&[1])).unwrap();
    let route = |path: &str, file: &str| {
        format!(
            "[[route]]\npath = \"{path}\"\nrespond = 200\n[route.access]\njwt = {{ jwks = \"{file}\" }}\n"
        )
    };
    let gateway = setup.start(&config("", &(route("/", "first.json") + &route("/second", "second.json"))));
    let says = "the keys of tokens can't be read again; those that there are stay in use";
    let warnings = |name: &str| {
        let of_file = |line: &&serde_json::Value| line["file"].as_str().unwrap().ends_with(name);
        gateway.lines(says).iter().filter(of_file).count()
    };
    fs::write(&first, "{").unwrap();
    gateway.wait(says);
    fs::write(&first, "broken again").unwrap();
    fs::write(&second, "{").unwrap();
    until(async || warnings("second.json") == 1).await;
    assert_eq!(warnings("first.json"), 1);
    assert_eq!(status(&gateway, &token(0)).await, 200);
    // Mended and broken once more.
    fs::write(&first, keys(&[1])).unwrap();
    gateway.wait("the keys of tokens were read again");
    assert_eq!((status(&gateway, &token(0)).await, status(&gateway, &token(1)).await), (401, 200));
    fs::write(&first, "{").unwrap();
    until(async || warnings("first.json") == 2).await;
}

/// It is gone when the URL is asked the next time: by `refresh`, or since a token names a key that is not known.
#[tokio::test]
async fn sessions_end_with_the_key_that_a_url_has_no_longer() {
    for refresh in [", refresh = \"1s\"", ""] {
        let issuer = Issuer::start(None, answer(&keys(&[0, 1])));
        let gateway =
            setup().start(&text(&format!("jwks = \"http://{}/keys?of=all\"{refresh}", issuer.address)).await);
        let (mut first, mut second) = (open(&gateway, 0).await, open(&gateway, 1).await);
        first.echoes("hello").await;
        issuer.set_answer(answer(&keys(&[1, 2])));
        if refresh.is_empty() {
            assert_eq!(issuer.asked(), 1, "a key that is gone is not looked for");
            assert_eq!(status(&gateway, &token(2)).await, 200);
        }
        first.expect_close(3000).await;
        second.echoes("still here").await;
        assert_eq!(status(&gateway, &token(0)).await, 401);
        if refresh.is_empty() {
            assert_eq!(issuer.asked(), 2);
        }
    }
}

/// What `wssgate check` says of keys at a URL.
#[tokio::test]
async fn check_fetches_keys() {
    let issuer = Issuer::start(None, answer(&keys(&[0])));
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("wssgate.toml");
    let check = |address: SocketAddr, more: &str| {
        let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
        let jwt = format!("jwt = {{ jwks = \"http://{address}/keys?of=all\"{more} }}");
        let route = format!("[[route]]\npath = \"/\"\nrespond = 200\n[route.access]\n{jwt}\n");
        fs::write(&file, format!("{listener}{route}")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let output = command.arg("check").arg(&file).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{shown}");
        shown.lines().filter(|line| line.starts_with("warning: ")).collect::<String>()
    };
    assert_eq!((check(issuer.address, ""), issuer.asked()), (String::new(), 1));
    let place = format!("warning: {}:8:16: jwks: the keys can't be fetched from http://", file.display());
    for (bad, says) in [
        (answer("{\"keys\":[]}"), "the answer holds no key that tokens can be signed with"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), "it answered 404 Not Found"),
        (String::new(), "no answer within 300ms (timeout)"),
    ] {
        issuer.set_answer(bad);
        let warning = check(issuer.address, ", timeout = \"300ms\"");
        assert!(warning.starts_with(&place) && warning.contains(says), "{warning}");
    }
    let warning = check(Backend::unreachable(), "");
    assert!(warning.starts_with(&place) && warning.contains("refused"), "{warning}");
}

/// A key that is gone ends the sessions whose tokens it has signed, without a reload.
#[tokio::test]
async fn sessions_end_with_the_key_of_their_token() {
    let setup = setup();
    let file = setup.path().join("keys.json");
    fs::write(&file, keys(&[0, 1])).unwrap();
    let gateway = setup.start(&text("jwks = \"keys.json\"").await);
    let (mut first, mut second) = (open(&gateway, 0).await, open(&gateway, 1).await);
    first.echoes("hello").await;
    fs::write(&file, keys(&[1, 2])).unwrap();
    first.expect_close(3000).await;
    second.echoes("still here").await;
    assert_eq!(status(&gateway, &token(0)).await, 401);
    let cause = gateway.wait("request")["cause"].clone();
    assert_eq!(cause, format!("the token is signed with a key that is not known: kid {:?}", "0"));
}

fn setup_path(gateway: &Gateway, name: &str) -> std::path::PathBuf {
    gateway.path().join(name)
}

//! The page of the admin listener: who may see it, what it shows, and what it changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use support::gateway::{Gateway, RETIRED, Setup, config, send_signal};
use support::http1::{Answer, ask};
use support::ws::{CLOSE, TEXT, WebSocket, handshake};
use support::{soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const ECHO: &str = "[[route]]\nname = \"chat\"\npath = \"/\"\nservice = \"echo\"\n";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Needs no token.
const HERE: &str = "[admin]\naddress = \"127.0.0.3:0\"\nhost = \"ops.test\"\n";
/// Markup that would show itself in many places.
const MARKUP: &str = "<img/src=x/onerror=alert(1)>'\"&";

fn start(routes: &str, admin: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    std::fs::write(setup.path().join("token"), format!("{TOKEN}\n")).unwrap();
    setup.start(&config("", &(routes.to_owned() + admin)))
}

/// With the token and all it is for.
fn with_actions(admin: &str) -> String {
    format!("{admin}token_file = \"token\"\nactions = true\n")
}

async fn request(admin: SocketAddr, line: &str, fields: &str, body: &str) -> Answer {
    let mut io = TcpStream::connect(admin).await.unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    ask(&mut io, format!("{line} HTTP/1.1\r\n{length}{fields}\r\n{body}")).await
}

/// As the address itself.
async fn get(admin: SocketAddr, path: &str) -> Answer {
    request(admin, &format!("GET {path}"), &format!("Host: {admin}\r\n"), "").await
}

async fn json_of(admin: SocketAddr, path: &str) -> Value {
    let answer = get(admin, path).await;
    assert_eq!((answer.status(), answer.head.get("content-type")), (200, Some("application/json")));
    serde_json::from_slice(&answer.body).unwrap()
}

async fn open(gateway: &Gateway, path: &str, fields: &str) -> WebSocket {
    let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    WebSocket::connect(tcp, "default.test", path, fields).await.unwrap().0
}

async fn live(admin: SocketAddr, fields: &str) -> Result<WebSocket, u16> {
    let tcp = TcpStream::connect(admin).await.unwrap();
    let opened = WebSocket::connect(tcp, &admin.to_string(), "/live", fields).await;
    opened.map(|(socket, _)| socket).map_err(|head| head.status())
}

/// The next message.
async fn message(socket: &mut WebSocket) -> Value {
    let frame = socket.receive().await.unwrap();
    assert_eq!(frame.b0, TEXT, "{frame:?}");
    serde_json::from_slice(&frame.payload).unwrap()
}

#[tokio::test]
async fn the_page_is_whole_without_scripts_and_lets_nothing_in() {
    let gateway = start(ECHO, HERE);
    let admin = gateway.admin();
    let mut socket = open(&gateway, "/", "").await;
    socket.echoes("tom").await;
    let page = get(admin, "/").await;
    assert_eq!((page.status(), page.head.get("content-type")), (200, Some("text/html; charset=utf-8")));
    for path in ["/", "/style.css", "/live.js", "/sessions", "/status.json"] {
        let answer = get(admin, path).await;
        for (field, expect) in [
            (
                "content-security-policy",
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                 frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
            ),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.head.get(field), Some(expect), "{path}");
        }
    }
    let text = page.text();
    assert!(text.contains("<title>ready: 1 session · wssgate</title>"), "{text}");
    assert!(text.contains("<a href=\"/sessions?q=chat\">chat</a>"), "{text}");
    for within in ["style=", "<script>", "<style", "onclick", "http://", "https://"] {
        assert!(!text.contains(within), "{within} in {text}");
    }
    assert!(get(admin, "/style.css").await.text().contains("prefers-color-scheme: dark"));
    assert_eq!(get(admin, "/nothing").await.status(), 404);
    for (line, allowed) in
        [("POST /", "GET, HEAD"), ("GET /actions", "POST"), ("POST /sessions", "GET, HEAD")]
    {
        let refused = request(admin, line, &format!("Host: {admin}\r\n"), "").await;
        assert_eq!((refused.status(), refused.head.get("allow")), (405, Some(allowed)), "{line}");
    }
    let head = request(admin, "HEAD /", &format!("Host: {admin}\r\n"), "").await;
    assert_eq!((head.status(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn other_names_and_other_sites_see_nothing() {
    let gateway = start(ECHO, HERE);
    let admin = gateway.admin();
    let port = admin.port();
    let page_like = ["/", "/sessions", "/sessions/1", "/status.json", "/sessions.json", "/sessions/1.json"];
    for host in ["attacker.test", &format!("attacker.test:{port}"), "127.0.0.3", &format!("127.0.0.2:{port}")]
    {
        for path in page_like {
            let answer = request(admin, &format!("GET {path}"), &format!("Host: {host}\r\n"), "").await;
            assert_eq!(answer.status(), 421, "{host} {path}");
            assert!(answer.text().contains("host in [admin]"), "{}", answer.text());
        }
        // Health and metrics are for all.
        let answer = request(admin, "GET /healthz", &format!("Host: {host}\r\n"), "").await;
        assert_eq!(answer.status(), 200);
    }
    let localhost = format!("Host: localhost:{port}\r\n");
    assert_eq!(request(admin, "GET /status.json", &localhost, "").await.status(), 200);
    for fields in ["Origin: http://attacker.test", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        for path in page_like {
            let fields = format!("Host: {admin}\r\n{fields}\r\n");
            let answer = request(admin, &format!("GET {path}"), &fields, "").await;
            assert_eq!(answer.status(), 403, "{fields} {path}");
        }
        assert_eq!(live(admin, &format!("{fields}\r\n")).await.err(), Some(403), "{fields}");
    }
    assert!(live(admin, &format!("Origin: http://{admin}\r\n")).await.is_ok());
    let mut io = TcpStream::connect(admin).await.unwrap();
    let refused = ask(&mut io, handshake("attacker.test", "/live", "Origin: http://attacker.test\r\n")).await;
    assert_eq!(refused.status(), 421);
}

#[tokio::test]
async fn elsewhere_the_token_is_needed() {
    let gateway = start(ECHO, &format!("{HERE}token_file = \"token\"\n"));
    let admin = gateway.admin();
    assert_eq!(get(admin, "/status.json").await.status(), 200, "a loopback address needs none");
    // As through a proxy, or by another name.
    let by_name = "Host: ops.test\r\n".to_owned();
    for fields in [by_name.clone(), format!("Host: {admin}\r\nX-Forwarded-For: 192.0.2.1\r\n")] {
        let refused = request(admin, "GET /status.json", &fields, "").await;
        assert_eq!(
            (refused.status(), refused.head.get("www-authenticate")),
            (401, Some("Bearer realm=\"wssgate\""))
        );
        let shell = request(admin, "GET /sessions", &fields, "").await;
        assert_eq!(shell.status(), 200);
        assert!(shell.text().contains("This page needs a token") && !shell.text().contains("chat"));
        let bearer = format!("{fields}Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(request(admin, "GET /status.json", &bearer, "").await.status(), 200);
        assert!(request(admin, "GET /", &bearer, "").await.text().contains("chat"));
    }
    // Not in a URL, and in no cookie.
    for elsewhere in [format!("{by_name}Cookie: token={TOKEN}\r\n"), format!("{by_name}X-Token: {TOKEN}\r\n")]
    {
        let refused = request(admin, &format!("GET /status.json?token={TOKEN}"), &elsewhere, "").await;
        assert_eq!(refused.status(), 401);
    }
    // Over the WebSocket it is in the first message.
    let viewer = async |first: Value| {
        let tcp = TcpStream::connect(admin).await.unwrap();
        let mut socket =
            WebSocket::connect(tcp, "ops.test", "/live", "Origin: https://ops.test\r\n").await.unwrap().0;
        socket.text(&first.to_string()).await;
        (message(&mut socket).await, socket)
    };
    let (shown, _viewer) = viewer(json!({ "open": "/", "token": TOKEN })).await;
    assert!(shown["main"].as_str().unwrap().contains("chat"));
    for first in [json!({ "open": "/" }), json!({ "open": "/", "token": "wrong" })] {
        let (denied, mut socket) = viewer(first).await;
        assert_eq!((&denied["wants_token"], &denied["main"]), (&json!(true), &Value::Null));
        socket.expect_close(3000).await;
    }
    // Guesses are counted, and then even the right one has to wait.
    let guess = async |token: &str| {
        let fields = format!("{by_name}Authorization: Bearer {token}\r\n");
        request(admin, "GET /status.json", &fields, "").await
    };
    let mut statuses = Vec::new();
    for n in 0..12 {
        statuses.push(guess(&format!("{n:032}")).await.status());
    }
    assert_eq!((statuses[0], *statuses.last().unwrap()), (401, 429), "{statuses:?}");
    let limited = guess(TOKEN).await;
    assert_eq!(limited.status(), 429);
    assert!(limited.head.get("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    assert!(!gateway.log().contains(TOKEN), "tokens are not logged");
}

#[tokio::test]
async fn a_viewer_whose_token_a_reload_has_changed_is_asked_again() {
    let gateway = start(ECHO, &format!("{HERE}token_file = \"token\"\n"));
    let tcp = TcpStream::connect(gateway.admin()).await.unwrap();
    let mut viewer = WebSocket::connect(tcp, "ops.test", "/live", "").await.unwrap().0;
    viewer.text(&json!({ "open": "/", "token": TOKEN }).to_string()).await;
    assert!(message(&mut viewer).await["main"].is_string());
    std::fs::write(gateway.path().join("token"), "f".repeat(32)).unwrap();
    gateway.reload();
    while let next = message(&mut viewer).await
        && next["main"].is_string()
    {}
    viewer.expect_close(3000).await;
}

#[tokio::test]
async fn without_a_token_in_the_configuration_the_page_stays_here() {
    let gateway = start(ECHO, HERE);
    for path in ["/", "/status.json"] {
        let refused = request(gateway.admin(), &format!("GET {path}"), "Host: ops.test\r\n", "").await;
        assert_eq!(refused.status(), 403);
        assert!(refused.text().contains("token_file"), "{}", refused.text());
    }
}

#[tokio::test]
async fn what_changes_something_needs_actions_and_the_token() {
    let order = |admin: SocketAddr, fields: String, body: Value| async move {
        let fields = format!("Host: {admin}\r\nContent-Type: application/json\r\n{fields}");
        request(admin, "POST /actions", &fields, &body.to_string()).await
    };
    let close = json!({ "command": "close", "id": 1 });
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let without = start(ECHO, &format!("{HERE}token_file = \"token\"\n"));
    let refused = order(without.admin(), bearer.clone(), close.clone()).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("actions = false"));
    assert!(!get(without.admin(), "/").await.text().contains("data-command"));

    let gateway = start(ECHO, &with_actions(HERE));
    let admin = gateway.admin();
    assert!(get(admin, "/").await.text().contains("data-command=\"drain\" data-target=\"chat\""));
    let mut session = open(&gateway, "/", "").await;
    let id = json_of(admin, "/sessions.json").await["sessions"][0]["session"]["id"].clone();
    let close = json!({ "command": "close", "id": id });
    assert_eq!(order(admin, String::new(), close.clone()).await.status(), 401, "also on a loopback address");
    let elsewhere = format!("{bearer}Origin: http://attacker.test\r\n");
    assert_eq!(order(admin, elsewhere, close.clone()).await.status(), 403);
    let wrong = "Authorization: Bearer ffffffffffffffffffffffffffffffff\r\n".to_owned();
    assert_eq!(order(admin, wrong, close.clone()).await.status(), 401);
    session.echoes("it lives").await;
    let done = order(admin, format!("{bearer}Origin: http://{admin}\r\n"), close.clone()).await;
    let report: Value = serde_json::from_slice(&done.body).unwrap();
    assert_eq!((done.status(), report), (200, json!({ "ok": true, "closed": id })));
    session.expect_close(1001).await;
    let line = gateway.wait("ordered by the page");
    assert_eq!((&line["command"], &line["id"], &line["ok"]), (&json!("close"), &id, &json!(true)));
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0."));

    // Drained and undrained, by the WebSocket.
    let mut viewer = live(admin, &format!("Origin: http://{admin}\r\n")).await.unwrap();
    viewer.text(&json!({ "open": "/" }).to_string()).await;
    assert!(message(&mut viewer).await["main"].is_string());
    let mut acted = async |message_: Value| {
        viewer.text(&message_.to_string()).await;
        loop {
            let answer = message(&mut viewer).await;
            if answer["main"].is_null() {
                return answer;
            }
        }
    };
    let drain = json!({ "command": "drain", "target": "chat" });
    assert_eq!(acted(json!({ "act": drain })).await["wants_token"], json!(true));
    assert_eq!(
        acted(json!({ "act": drain, "token": TOKEN })).await["acted"]["drain"]["drained"],
        json!(true)
    );
    assert_eq!(json_of(admin, "/status.json").await["status"]["routes"][0]["state"], "drained");
    let undrain = json!({ "command": "undrain", "target": "chat" });
    assert_eq!(acted(json!({ "act": undrain, "token": TOKEN })).await["acted"]["ok"], json!(true));
    let reload = json!({ "command": "reload" });
    assert_eq!(
        acted(json!({ "act": reload, "token": TOKEN })).await["acted"]["reload"]["generation"],
        json!(2)
    );
    let unknown = json!({ "command": "<b>" });
    assert_eq!(acted(json!({ "act": unknown, "token": TOKEN })).await["acted"]["ok"], json!(false));
    gateway.write_config("nothing");
    gateway.reload();
    soon(async {
        loop {
            let page = get(admin, "/").await.text(); // that of the last look, for two seconds
            if page.contains("The last reload was refused") && page.contains("this is not TOML") {
                break;
            }
        }
    })
    .await;
    assert!(!gateway.log().contains(TOKEN));
}

#[tokio::test]
async fn what_peers_send_is_never_markup() {
    let routes = format!(
        "[[route]]\nname = \"in\"\npath = \"/in\"\nservice = \"echo\"\n[route.access.basic]\nfile = \"users\"\n\
         {ECHO}"
    );
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    // Its password is "x".
    let user = "<svg/onload=alert(2)>";
    let hash = "{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=";
    std::fs::write(setup.path().join("users"), format!("{user}:{hash}\n")).unwrap();
    let gateway = setup.start(&config("trusted_proxies = [\"127.0.0.0/8\"]", &(routes + HERE)));
    let admin = gateway.admin();
    let password = base64(&format!("{user}:x"));
    let _live = open(&gateway, "/in", &format!("Authorization: Basic {password}\r\n")).await;
    let path = "/%3Cscript%3Ealert(3)%3C/script%3E<script>alert(4)</script>".replace(['<', '>'], "%3C");
    let path = path + "\"onmouseover='alert(8)'&";
    let fields =
        "Sec-WebSocket-Protocol: a.b'&\r\nUser-Agent: <b>\r\nX-Request-Id: <b>\r\nX-Forwarded-For: <b>\r\n";
    // What can't be a name is refused before it is shown anywhere.
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    assert_eq!(ask(&mut io, handshake("<b>", "/", fields)).await.status(), 400);
    let mut ended = open(&gateway, &path, fields).await;
    let reason = [&1000u16.to_be_bytes()[..], MARKUP.as_bytes()].concat();
    ended.send(CLOSE, reason).await;
    ended.receive().await;
    gateway.wait("session");
    let search = "/sessions?q=%3Cscript%3Ealert(5)%3C/script%3E%22%20autofocus%20onfocus=alert(6)%20x=%22&sort=%3Cb%3E";
    for path in ["/", "/sessions", "/sessions/1", "/sessions/2", "/sessions?q=svg", search] {
        let page = get(admin, path).await.text();
        for markup in
            ["<script>alert", "<img/src", "<svg/onload", "\" autofocus onfocus", "\"onmouseover", "<b>"]
        {
            assert!(!page.contains(markup), "{path}: {markup} in {page}");
        }
    }
    let page = get(admin, "/").await.text();
    assert!(page.contains("&lt;img/src=x/onerror=alert(1)&gt;"), "the reason of the Close is shown: {page}");
    assert!(page.contains("%3Cscript%3Ealert(3)"), "and the path, as it came: {page}");
    assert!(page.contains("&quot;onmouseover='alert(8)'&amp;"), "{page}");
    assert!(get(admin, "/sessions").await.text().contains("&lt;svg/onload=alert(2)&gt;"), "and the subject");
    let all = json_of(admin, "/status.json").await;
    assert!(all["ended"][0]["cause"].as_str().unwrap().contains("<img/src=x/onerror=alert(1)>"), "{all}");
    let one = json_of(admin, "/sessions.json?q=svg").await;
    assert_eq!(one["sessions"][0]["session"]["subject"], user);
}

fn base64(text: &str) -> String {
    let digits = |bytes: &[u8]| {
        let word =
            bytes.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |n: usize| {
            if n <= bytes.len() { char::from(all[(word >> (18 - 6 * n)) as usize & 63]) } else { '=' }
        };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(digits).collect()
}

#[tokio::test]
async fn sessions_are_searched_sorted_and_paged() {
    let gateway =
        start(&format!("{ECHO}[[route]]\nname = \"feed\"\npath = \"/feed\"\nservice = \"echo\"\n"), HERE);
    let admin = gateway.admin();
    let mut sessions = Vec::new();
    for n in 0..230 {
        sessions.push(open(&gateway, if n % 23 == 0 { "/feed" } else { "/" }, "").await);
    }
    sessions[7].echoes(&"x".repeat(5000)).await;
    let list = json_of(admin, "/sessions.json").await;
    assert_eq!(
        (&list["found"], &list["page"], list["sessions"].as_array().unwrap().len()),
        (&json!(230), &json!(1), 100)
    );
    let last = json_of(admin, "/sessions.json?page=99").await;
    assert_eq!((&last["page"], last["sessions"].as_array().unwrap().len()), (&json!(3), 30));
    assert_eq!(json_of(admin, "/sessions.json?q=FEED").await["found"], 10);
    let largest = json_of(admin, "/sessions.json?sort=-bytes").await["sessions"][0]["session"].clone();
    assert_eq!((&largest["received_bytes"], &largest["sent_bytes"]), (&json!(5000), &json!(5000)));
    let html = get(admin, "/sessions?q=chat&sort=-bytes&page=2").await.text();
    assert!(html.contains("Sessions 101 to 200 of 220"), "{html}");
    assert!(html.contains("aria-sort=\"descending\"><a href=\"/sessions?q=chat&amp;sort=bytes\">"), "{html}");
    assert!(html.contains("<a href=\"/sessions?q=chat&amp;sort=-bytes\" rel=\"prev\">"), "{html}");
    let id = &largest["id"];
    let one = get(admin, &format!("/sessions/{id}")).await.text();
    assert!(one.contains(&format!("<h1>Session {id}</h1>")) && one.contains("<dd>5.0 kB</dd>"), "{one}");
    assert!(get(admin, "/sessions/999999").await.text().contains("no live session 999999"));
    // A long query is no harm.
    let long = format!("/sessions.json?q={}", "%F0%9F%98%80".repeat(500));
    assert_eq!(json_of(admin, &long).await["found"], 0);
}

#[tokio::test]
async fn what_has_moved_and_what_has_ended_is_drawn() {
    let gateway = start(ECHO, HERE);
    let admin = gateway.admin();
    let mut viewer = live(admin, "").await.unwrap();
    viewer.text(&json!({ "open": "/", "number": 7 }).to_string()).await;
    assert_eq!(message(&mut viewer).await["number"], 7);
    let mut session = open(&gateway, "/", "").await;
    let mut lost = open(&gateway, "/", "").await;
    lost.echoes(&"y".repeat(30_000)).await;
    drop(lost);
    session.echoes(&"x".repeat(100_000)).await;
    gateway.wait("session");
    // The next looks have seen all of it.
    let sum = |all: &Value, what: &str| {
        let slots = all["history"]["routes"]["chat"].as_array().cloned().unwrap_or_default();
        slots.iter().map(|slot| slot[what].as_u64().unwrap()).sum::<u64>()
    };
    let all = loop {
        message(&mut viewer).await;
        let all = json_of(admin, "/status.json").await;
        if sum(&all, "received_bytes") >= 130_000 && sum(&all, "abnormal") == 1 {
            break all;
        }
    };
    assert_eq!(
        (sum(&all, "received_bytes"), sum(&all, "sent_bytes"), sum(&all, "messages")),
        (130_000, 130_000, 4)
    );
    assert_eq!(all["ended"][0]["close_code"], 1006);
    assert_eq!(all["history"]["slot_seconds"], 15);
    let page = get(admin, "/").await.text();
    assert!(
        page.contains("aria-label=\"chat, last 15 minutes: ") && page.contains("1 of them abnormally\""),
        "{page}"
    );
}

#[tokio::test]
async fn viewers_have_so_many_places_and_a_slow_one_holds_up_none() {
    let gateway = start(ECHO, HERE);
    let admin = gateway.admin();
    let mut viewers = Vec::new();
    let refused = loop {
        match live(admin, "").await {
            Ok(viewer) => viewers.push(viewer),
            Err(status) => break status,
        }
    };
    assert_eq!((viewers.len(), refused), (64, 503));
    assert_eq!(get(admin, "/healthz").await.status(), 200);
    assert_eq!(get(admin, "/").await.status(), 200);
    // Who says nothing, or nonsense, makes room.
    viewers[0].text("nonsense").await;
    viewers[0].expect_close(1008).await;
    let mut silent = viewers.pop().unwrap();
    silent.expect_close(1008).await;
    viewers.clear();
    // One that reads nothing asks for much, again and again.
    let mut slow = soon(async {
        loop {
            if let Ok(viewer) = live(admin, "").await {
                return viewer;
            }
        }
    })
    .await;
    let mut quick = live(admin, "").await.unwrap();
    quick.text(&json!({ "open": "/sessions" }).to_string()).await;
    message(&mut quick).await;
    let ask_again = support::ws::encode(TEXT, json!({ "open": "/" }).to_string().as_bytes(), true);
    while let Ok(sent) =
        tokio::time::timeout(std::time::Duration::from_millis(300), slow.io.write_all(&ask_again)).await
    {
        sent.unwrap();
    }
    message(&mut quick).await;
    message(&mut quick).await;
    assert_eq!(get(admin, "/healthz").await.status(), 200);
    // A message of any length is not waited for.
    let mut long = live(admin, "").await.unwrap();
    long.send_raw(&[TEXT, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]).await;
    long.expect_close(1009).await;
}

#[tokio::test]
async fn a_reload_closes_it_and_says_so_to_viewers() {
    let gateway = start(ECHO, HERE);
    let mut viewer = live(gateway.admin(), "").await.unwrap();
    viewer.text(&json!({ "open": "/" }).to_string()).await;
    message(&mut viewer).await;
    gateway.write_config(&config("", ECHO));
    gateway.reload();
    while let Some(frame) = viewer.receive().await
        && frame.b0 == TEXT
    {}
    let mut rest = Vec::new();
    soon(viewer.io.read_to_end(&mut rest)).await.unwrap();
    assert!(TcpStream::connect(gateway.admin()).await.is_err());
}

/// As [`get`], over a Unix socket and by another name.
async fn get_over(path: &Path, target: &str, fields: &str) -> Answer {
    let mut io = UnixStream::connect(path).await.unwrap();
    ask(&mut io, format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).await
}

#[tokio::test]
async fn over_a_unix_socket_it_is_for_this_machine() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    std::fs::write(setup.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let path = setup.path().join("admin.sock");
    let admin = format!(
        "[admin]\naddress = \"unix:{}\"\nhost = \"ops.test\"\ntoken_file = \"token\"\nactions = true\n",
        path.display()
    );
    let text = config("", &(ECHO.to_owned() + &admin));
    let gateway = setup.start(&text);
    assert_eq!(gateway.wait("admin listener")["address"], format!("unix:{}", path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let own = "Host: localhost\r\n";
    for open_to_all in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get_over(&path, open_to_all, "Host: any\r\n").await.status(), 200);
    }
    for (fields, status) in [
        (own, 200),
        ("Host: 127.0.0.1:9180\r\n", 200), // as ssh -L has it
        ("Host: attacker.test:9180\r\n", 421),
        ("Host: localhost:9180\r\nOrigin: http://attacker.test\r\n", 403),
        ("Host: ops.test\r\n", 401),
        ("Host: localhost\r\nX-Forwarded-Proto: https\r\n", 401),
    ] {
        let answer = get_over(&path, "/status.json", fields).await;
        assert_eq!(answer.status(), status, "{fields}: {}", answer.text());
    }
    let io = UnixStream::connect(&path).await.unwrap();
    let mut viewer =
        WebSocket::connect(io, "localhost", "/live", "Origin: http://localhost\r\n").await.unwrap().0;
    viewer.text(&json!({ "open": "/" }).to_string()).await;
    assert!(message(&mut viewer).await["main"].as_str().unwrap().contains("chat"));
    viewer
        .text(&json!({ "act": { "command": "drain", "target": "chat" }, "token": TOKEN }).to_string())
        .await;
    assert_eq!(gateway.wait("ordered by the page")["peer"], "unix");
    // One that is removed is missed, and made again.
    std::fs::remove_file(&path).unwrap();
    gateway.reload();
    gateway.wait("the socket has been removed or replaced: it is made again");
    assert_eq!(get_over(&path, "/readyz", own).await.status(), 200);
    // It outlives the process.
    let new = gateway.take_over();
    gateway.wait(RETIRED);
    assert_eq!(get_over(&path, "/status.json", own).await.status(), 200);
    // Where it goes, its path does.
    let other = gateway.path().join("other.sock");
    gateway.write_config(&text.replace("admin.sock", "other.sock"));
    send_signal(new, "HUP");
    gateway.wait_nth("admin listener", 3);
    assert_eq!(get_over(&other, "/readyz", own).await.status(), 200);
    until(async || !path.exists()).await;
    send_signal(new, "TERM");
    until(async || !other.exists()).await;
}

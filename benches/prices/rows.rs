//! A plain request over HTTP/1.1 for each option of a route, so that its price can be counted.

use std::fs;

use benches::pipe::pipe;
use benches::work::http::connection_of;
use gateway::config::Config;
use gateway::internals::http1;
use gateway::site::htpasswd::Htpasswd;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An option of a route, the lines that set it, and what a request with it is held against.
pub(crate) struct Priced {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// The same request without the option; `None`: its price is the whole request.
    pub(crate) base: Option<&'static str>,
    /// Of the route; empty: it has none.
    path: &'static str,
    /// More of the route.
    route: &'static str,
    /// More fields of the request, whole lines.
    fields: &'static str,
    /// What the backend answers; `None`: it is not asked.
    answer: Option<Answer>,
}

/// An answer of the backend.
enum Answer {
    /// A text of 24 bytes.
    Short,
    /// A page of 4 KiB.
    Page,
}

const PROXY: &str = "proxy = \"http://127.0.0.1:1\"\n"; // it is never dialled: the pool holds connections
const SHORT: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\r\nHello from the backend.\n";
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
/// The password is `secret`.
const USERS: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
/// 32 bytes, in base64.
const KEYS: &str = r#"{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}"#;
/// `{"alg":"HS256"}` and `{"sub":"alice","exp":32503680000}`, signed with that key.
const TOKEN: &str = "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MzI1MDM2ODAwMDB9\
                     .ky1bs3nzzGTOffbHsEBtYFJREE3VgyHuzYNfWjhYI1E\r\n";
const PLAIN: &str = "none";

const fn proxied(name: &'static str, route: &'static str) -> Priced {
    Priced { name, base: Some(PLAIN), path: "/", route, fields: "", answer: Some(Answer::Short) }
}

const fn asked(name: &'static str, fields: &'static str, route: &'static str) -> Priced {
    Priced { name, base: Some(PLAIN), path: "/", route, fields, answer: Some(Answer::Short) }
}

const fn whole(name: &'static str, route: &'static str) -> Priced {
    Priced { name, base: None, path: "/", route, fields: "", answer: None }
}

/// All of them; the first has no option.
pub(crate) const ALL: &[Priced] = &[
    Priced { name: PLAIN, base: None, path: "/", route: "", fields: "", answer: Some(Answer::Short) },
    proxied(
        "`when` with a method and a field, of the one route",
        "when = { method = [\"GET\"], header = { \"User-Agent\" = \"bench\" } }",
    ),
    Priced { path: "", ..proxied("`path_regex`, of the one route", "path_regex = \"/p(.*)\"") },
    Priced {
        path: "",
        ..proxied("the same with a group in `rewrite`", "path_regex = \"/p(.*)\"\nrewrite = \"/new/{1}\"")
    },
    Priced { path: "/page", ..proxied("`strip_prefix`", "strip_prefix = \"/page\"") },
    proxied("`rewrite`", "rewrite = \"/new{rest}\""),
    proxied("a field of the request set", "request_headers.set = { \"X-App\" = \"chat\" }"),
    proxied("the same with `{client}`", "request_headers.set = { \"X-App\" = \"{client}\" }"),
    proxied("a field of the request removed", "request_headers.remove = \"Accept\""),
    proxied("`request_id`", "request_headers.request_id = true"),
    proxied("`forwarded`", "request_headers.forwarded = true"),
    proxied("`forwarded_port`", "request_headers.forwarded_port = true"),
    proxied(
        "a field of the answer set (HSTS)",
        "response_headers.set = { \"Strict-Transport-Security\" = \"max-age=63072000\" }",
    ),
    asked(
        "`cors`, a request with `Origin`",
        "Origin: https://a.test\r\n",
        "cors = { origins = \"https://a.test\" }",
    ),
    proxied("`compress`, an answer that is too short", "compress = true"),
    Priced {
        name: "a page of 4 KiB",
        base: None,
        path: "/",
        route: "",
        fields: "Accept-Encoding: gzip\r\n",
        answer: Some(Answer::Page),
    },
    Priced {
        name: "`compress`, that page by gzip",
        base: Some("a page of 4 KiB"),
        path: "/",
        route: "compress = true",
        fields: "Accept-Encoding: gzip\r\n",
        answer: Some(Answer::Page),
    },
    Priced {
        name: "`compress`, that page by zstd",
        base: Some("a page of 4 KiB"),
        path: "/",
        route: "compress = true",
        fields: "Accept-Encoding: zstd\r\n",
        answer: Some(Answer::Page),
    },
    proxied("`error_pages`, no error", "error_pages = { 502 = \"page.html\" }"),
    proxied(
        "`allow` and `deny`, 10 networks",
        "access = { allow = [\"192.0.2.0/24\", \"10.0.0.0/8\", \"10.1.0.0/16\", \"10.2.0.0/16\", \"10.3.0.0/16\"], deny = [\"10.4.0.0/16\", \"10.5.0.0/16\", \"10.6.0.0/16\", \"10.7.0.0/16\", \"10.8.0.0/16\"] }",
    ),
    proxied("`requests`", "access.requests = \"1000000/s\""),
    proxied("`requests` by a field", "access = { requests = \"1000000/s\", per = \"header:User-Agent\" }"),
    proxied("`max_body`, no body", "access.max_body = \"1MiB\""),
    asked(
        "`basic`, verified a moment ago",
        ALICE,
        "access.basic = { file = \"htpasswd\", user_header = \"Remote-User\" }",
    ),
    asked("`jwt` with HS256", TOKEN, "access.jwt = { jwks = \"keys.json\", headers = { sub = \"X-User\" } }"),
    whole("`redirect`", "redirect = \"https://{host}{path}{query}\""),
    whole("`respond`", "respond = { body = \"pong\\n\" }"),
];

/// Requests to a route with this option, one after the other.
pub(crate) async fn run(priced: &Priced, rounds: u64) {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(directory.path().join(name), content).unwrap();
    write("page.html", b"<p>be back soon");
    write("htpasswd", USERS.as_bytes());
    write("keys.json", KEYS.as_bytes());
    let proxy = if priced.answer.is_none() { "" } else { PROXY };
    let listener = "[[listener]]\naddress = \"127.0.0.1:8080\"\ntls = false\n";
    let path = if priced.path.is_empty() { String::new() } else { format!("path = \"{}\"\n", priced.path) };
    let text = format!("{listener}[[route]]\n{path}{proxy}{}\n", priced.route);
    let (config, problems) = Config::parse(&directory.path().join("bench.toml"), &text);
    assert!(problems.is_empty(), "{}: {problems:?}", priced.name);
    prepare(&config);
    let answer: &'static str = match priced.answer {
        Some(Answer::Short) => SHORT,
        Some(Answer::Page) => page().leak(),
        None => "",
    };
    let (mut client, near) = pipe(256 << 10);
    tokio::spawn(http1::serve(connection_of(&config, answer.as_bytes(), 1), near));
    let fields = priced.fields;
    let request =
        format!("GET /page HTTP/1.1\r\nHost: a.test\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n");
    let mut answer = vec![0; 256 << 10];
    for _ in 0..=rounds {
        client.write_all(request.as_bytes()).await.unwrap();
        let mut len = 0;
        while !is_whole(&answer[..len]) {
            let n = client.read(&mut answer[len..]).await.unwrap();
            assert!(n > 0, "{}: the gateway has ended the connection", priced.name);
            len += n;
        }
        let good = answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.1 302 ");
        assert!(good, "{}: {}", priced.name, answer[..len].escape_ascii());
    }
}

/// What a start does besides reading the configuration.
fn prepare(config: &Config) {
    let Some(auth) = config.routes[0].access.as_ref().and_then(|access| access.auth.as_ref()) else { return };
    if let Some(basic) = &auth.basic {
        basic.users.prepare(Htpasswd::parse(USERS).unwrap(), false);
    }
    if let Some(jwt) = &auth.jwt {
        jwt.keys.use_text(KEYS.as_bytes(), Default::default()).unwrap();
    }
}

fn page() -> String {
    let body: String = (0..4096 / 16).map(|i| format!("<p>line {i:06}</p>")).collect();
    let body = &body[..4096];
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// By its Content-Length, or its last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&answer[..end]).unwrap().to_ascii_lowercase();
    match head.split_once("content-length: ") {
        Some((_, rest)) => {
            let len = rest.split("\r\n").next().unwrap().parse::<usize>().unwrap();
            answer.len() >= end + 4 + len
        }
        None => answer.ends_with(b"\r\n0\r\n\r\n"),
    }
}

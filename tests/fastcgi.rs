//! Scripts that a server of FastCGI runs, over HTTP/1.1 and HTTP/2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method;
use support::backend::Backend;
use support::both::{both, http1};
use support::fastcgi::Asked;
use support::gateway::{Gateway, Setup, config};
use support::http1::{ask, read_head};
use support::http2::{Http2, read};
use support::{PATIENCE, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

fn write(directory: &Path, name: &str, content: &str) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A gateway with these routes, beside a directory `www` with files and scripts.
fn start(routes: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let www = setup.path().join("www");
    for script in ["index.php", "admin/index.php", "a b.php", "info.PHP", ".hidden.php"] {
        write(&www, script, "<?php secret");
    }
    for (name, content) in [
        ("style.css", "a {}"),
        ("plain/index.html", "<p>plain"),
        ("empty/x", ""),
        ("config.php.bak", "<?php secret"),
        ("config.php~", "<?php secret"),
        ("old.phtml", "<?php secret"),
        ("index.php.gz", "<?php secret"),
    ] {
        write(&www, name, content);
    }
    write(setup.path(), "outside.php", "<?php secret");
    symlink("../outside.php", www.join("outside.php")).unwrap();
    symlink("index.php", www.join("inside.php")).unwrap();
    setup.start(&config("", routes))
}

/// A server that says which script it would run for which path.
async fn naming() -> Backend {
    Backend::start(async |tcp| {
        let mut asked = Asked::read(tcp).await;
        let body = asked.body().await;
        let variable = |name: &str| asked.variables.get(name).cloned().unwrap_or_default();
        let said = format!(
            "{} {} {} {}",
            variable("REQUEST_METHOD"),
            variable("SCRIPT_NAME"),
            variable("REQUEST_URI"),
            String::from_utf8(body).unwrap()
        );
        asked.out("Content-Type: text/plain\r\n\r\n").await;
        asked.out(said).await;
        asked.end(0).await;
    })
    .await
}

#[tokio::test]
async fn a_front_controller_beside_files() {
    let server = naming().await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = \"{}\"\n[route.files]\ndirectory = \"www\"\nfallback = \"/index.php\"\nprecompressed = true",
        server.address
    ));
    for (path, body) in [
        ("/", "GET /index.php / "),
        ("/?a=b", "GET /index.php /?a=b "),
        ("/index.php", "GET /index.php /index.php "),
        ("/admin/", "GET /admin/index.php /admin/ "),
        ("/a%20b.php?x", "GET /a b.php /a%20b.php?x "),
        ("/inside.php", "GET /inside.php /inside.php "),
        ("/info.PHP", "GET /info.PHP /info.PHP "),
        // What isn't there, and what goes on behind a script, is for the front controller.
        ("/no/such/page?id=1", "GET /index.php /no/such/page?id=1 "),
        ("/index.php/admin", "GET /index.php /index.php/admin "),
        ("/style.css/x.php", "GET /index.php /style.css/x.php "),
        ("/outside.php", "GET /index.php /outside.php "),
        ("/empty/", "GET /index.php /empty/ "),
        ("/plain/", "<p>plain"),
        ("/style.css", "a {}"),
    ] {
        both(&gateway, Method::GET, path, &[], |answer| {
            assert_eq!((answer.status, &*answer.text()), (200, body), "{path}");
        })
        .await;
    }
    for path in ["/config.php.bak", "/config.php~", "/old.phtml", "/index.php.gz", "/.hidden.php"] {
        both(&gateway, Method::GET, path, &[], |answer| {
            assert!(answer.status == 404 || answer.text().starts_with("GET /index.php "), "{path}");
            assert!(!answer.text().contains("secret"), "{path}");
        })
        .await;
    }
    // Scripts take every method, files don't.
    for (path, status) in [("/no/such", 200), ("/style.css", 405), ("/admin/", 200)] {
        both(&gateway, Method::DELETE, path, &[], |answer| assert_eq!(answer.status, status, "{path}")).await;
    }
    both(&gateway, Method::GET, "/admin", &[], |answer| {
        assert_eq!((answer.status, answer.get("location")), (308, Some("/admin/")));
    })
    .await;
    let mut io = gateway.connect_plain().await;
    let opening = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    assert_eq!(ask(&mut io, opening).await.status(), 404);
}

#[tokio::test]
async fn scripts_alone() {
    let server = naming().await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/under\"\n[route.fastcgi]\nserver = \"{0}\"\nroot = \"www\"\ndocument_root = \"/app/\"\n\
         [[route]]\npath_regex = '/.*\\.php'\nfastcgi = {{ server = \"{0}\", root = \"www\" }}\n\
         [[route]]\npath = \"/files\"\nfiles = \"www\"\n",
        server.address
    ));
    for (path, status, body) in [
        ("/under/", 200, "GET /under/index.php /under/ "),
        ("/under/admin/?q", 200, "GET /under/admin/index.php /under/admin/?q "),
        ("/under/style.css", 404, ""),
        ("/under/none.php", 404, ""),
        ("/under/index.php/x", 404, ""),
        ("/under/outside.php", 404, ""),
        ("/under/empty/", 404, ""),
        ("/admin/index.php", 200, "GET /admin/index.php /admin/index.php "),
        ("/none.php", 404, ""),
        // No text of a script leaves by a route that runs none.
        ("/files/index.php", 404, ""),
        ("/files/config.php.bak", 404, ""),
        ("/files/style.css", 200, "a {}"),
    ] {
        both(&gateway, Method::GET, path, &[], |answer| {
            assert_eq!(answer.status, status, "{path}");
            assert!(status == 404 || answer.text() == body, "{path}: {}", answer.text());
        })
        .await;
    }
    let told =
        gateway.wait_for(|line| line["path"] == "/files/index.php", 0, "the request of a script's text");
    assert!(told["cause"].as_str().unwrap().contains("no fastcgi runs this one"), "{told}");
}

#[tokio::test]
async fn what_a_script_hears() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("php.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn({
        let seen = seen.clone();
        async move {
            while let Ok((unix, _)) = listener.accept().await {
                let mut asked = Asked::read(unix).await;
                let body = asked.body().await;
                seen.lock().unwrap().push((asked.variables.clone(), body));
                asked.out("Status: 204 No Content\r\n\r\n").await;
                asked.end(0).await;
            }
        }
    });
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = {{ server = \"unix:{}\", root = \"www\", document_root = \"/app\" }}\n\
         [route.request_headers]\nset = {{ \"X-App\" = \"blog\" }}\nremove = [\"X-Debug\"]",
        path.display()
    ));
    let fields = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-app", "mine"),
        ("x_app", "mine"),
        ("x.app", "mine"),
        ("x-debug", "1"),
        ("proxy", "http://evil"),
        ("x-forwarded-for", "1.1.1.1"),
        ("authorization", "Basic eDp5"),
        ("content-type", "text/plain"),
    ];
    both(&gateway, Method::GET, "/?a=b%20c", &fields, |answer| assert_eq!(answer.status, 204)).await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    for ((told, body), over_http2) in seen.into_iter().zip([false, true]) {
        let port = if over_http2 { gateway.addresses()[0].port() } else { gateway.addresses()[1].port() };
        for (name, value) in [
            ("SCRIPT_FILENAME", "/app/index.php"),
            ("DOCUMENT_ROOT", "/app"),
            ("QUERY_STRING", "a=b%20c"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("SERVER_NAME", "default.test"),
            ("SERVER_PROTOCOL", if over_http2 { "HTTP/2.0" } else { "HTTP/1.1" }),
            ("REQUEST_SCHEME", if over_http2 { "https" } else { "http" }),
            ("SERVER_PORT", if over_http2 { "443" } else { "80" }),
            ("SERVER_ADDR", if over_http2 { "127.0.0.1" } else { "127.0.0.2" }),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REDIRECT_STATUS", "200"),
            ("CONTENT_TYPE", "text/plain"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_X_APP", "blog"),
            ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
            ("HTTP_AUTHORIZATION", "Basic eDp5"),
            ("HTTP_HOST", "default.test"),
        ] {
            assert_eq!(told.get(name).map(String::as_str), Some(value), "{name} {port}");
        }
        assert_eq!(told.get("HTTPS").map(String::as_str), over_http2.then_some("on"));
        for name in ["HTTP_PROXY", "HTTP_X_DEBUG", "PATH_INFO", "CONTENT_LENGTH", "HTTP_CONNECTION"] {
            assert!(!told.contains_key(name), "{name}");
        }
        assert!(body.is_empty());
    }
    server.abort();
}

#[tokio::test]
async fn bodies_go_both_ways_at_the_same_time() {
    // Answers each part of the body before it has seen the next one.
    let server = Backend::start(async |tcp| {
        let mut asked = Asked::read(tcp).await;
        let len = asked.variables["CONTENT_LENGTH"].clone();
        asked.out(format!("X-Length: {len}\n\n")).await;
        while let Some(part) = asked.part().await {
            asked.out(part).await;
        }
        asked.out("end").await;
        asked.end(0).await;
    })
    .await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = {{ server = \"{}\", root = \"www\" }}\nbuffer_request = \"1KiB\"",
        server.address
    ));
    let mut io = gateway.connect_plain().await;
    io.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\nfirst").await.unwrap();
    let head = read_head(&mut io).await.unwrap();
    assert_eq!((head.status(), head.get("x-length")), (200, Some("300000")));
    let mut client = tokio::io::split(io);
    let rest = vec![b'x'; 300_000 - 5];
    let sending = client.1.write_all(&rest);
    let receiving = async {
        let mut body = Vec::new();
        let mut buffer = vec![0; 65_536];
        // Chunks: what they carry is looked for, and how they end.
        while !body.ends_with(b"0\r\n\r\n") {
            let n = tokio::io::AsyncReadExt::read(&mut client.0, &mut buffer).await.unwrap();
            assert!(n > 0, "it has an end");
            body.extend_from_slice(&buffer[..n]);
        }
        body
    };
    let (sent, body) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
    sent.unwrap();
    assert_eq!(body.iter().filter(|byte| **byte == b'x').count(), rest.len());
    // Without a length the body is waited for, as far as that may be.
    for (len, status) in [(1000, 200), (5000, 411)] {
        let mut io = gateway.connect_plain().await;
        let body = "y".repeat(len);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"
        );
        let answer = ask(&mut io, request).await;
        assert_eq!(answer.status(), status);
        if status == 200 {
            assert_eq!((answer.head.get("x-length"), answer.text()), (Some("1000"), body + "end"));
        }
    }
    let mut client = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    let request = client.request(Method::POST, "/");
    let (answer, mut body) = client.begin(request, false).await;
    body.send_data(Bytes::from(vec![b'z'; 900]), true).unwrap();
    let answer = read(answer.await.unwrap()).await;
    assert_eq!(answer.head.headers["x-length"], "900");
}

#[tokio::test]
async fn a_slow_client_occupies_no_process() {
    // One process, which serves one request after the other.
    let process = Arc::new(tokio::sync::Mutex::new(()));
    let server = Backend::start(move |tcp| {
        let process = process.clone();
        async move {
            let _process = process.lock().await;
            let mut asked = Asked::read(tcp).await;
            let body = asked.body().await;
            asked.out("Content-Type: text/plain\n\n").await;
            asked.out(body).await;
            asked.end(0).await;
        }
    })
    .await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = {{ server = \"{}\", root = \"www\" }}\nbuffer_request = \"4KiB\"\n\
         [route.access]\nmax_body = \"2KiB\"",
        server.address
    ));
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let mut slow = gateway.connect_plain().await;
    slow.write_all(format!("{post}Content-Length: 10\r\n\r\nfirst").as_bytes()).await.unwrap();
    let mut tunnel = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    let mut request = tunnel.request(Method::POST, "/");
    request.headers_mut().insert("content-length", 10.into());
    let (answer, mut body) = tunnel.begin(request, false).await;
    body.send_data("third".into(), false).unwrap();
    let mut other = gateway.connect_plain().await;
    let quick = ask(&mut other, format!("{post}Content-Length: 6\r\n\r\nsecond")).await;
    assert_eq!((quick.status(), quick.text()), (200, "second".into()));
    assert_eq!(ask(&mut slow, "-half").await.text(), "first-half");
    body.send_data("-half".into(), true).unwrap();
    assert_eq!(read(answer.await.unwrap()).await.text(), "third-half");
    // What is too long is known while it is waited for.
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\nbb8\r\n{}\r\n0\r\n\r\n", "y".repeat(3000));
    assert_eq!(ask(&mut other, chunked).await.status(), 413);
}

#[tokio::test]
async fn statuses_heads_and_ends() {
    let server = Backend::start(async |tcp| {
        let mut asked = Asked::read(tcp).await;
        asked.body().await;
        let case = asked.variables["QUERY_STRING"].clone();
        match &*case {
            "missing" => asked.out("Status: 404 Nothing Here\r\nX-A: b\r\n\r\nnope").await,
            "moved" => asked.out("Location: /there\r\n\r\n").await,
            "length" => asked.out("Content-Length: 5\r\n\r\nhello").await,
            "pieces" => {
                for byte in b"Content-Type: a/b\r\nX-A: b\r\n\r\nbody" {
                    asked.out([*byte]).await;
                }
            }
            "error" => {
                asked.error("PHP Warning:  something\n").await;
                asked.out("X-A: b\r\n\r\n").await;
                asked.error("again\nand again").await;
            }
            "unopened" => {
                asked.error("Primary script unknown").await;
                asked.out("Status: 404 Not Found\r\n\r\nFile not found.").await;
            }
            "framed" => asked.out("Transfer-Encoding: chunked\r\nConnection: x\r\n\r\nplain").await,
            "empty" => {}
            "html" => asked.out("<html>\n\n").await,
            "interim" => asked.out("Status: 101 Switching\r\n\r\n").await,
            "cut-head" => asked.out("X-A: b\r\n").await,
            "cut" => return asked.out("X-A: b\r\n\r\nhalf").await,
            "short" => asked.out("Content-Length: 50\r\n\r\nhello").await,
            "http" => return asked.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
            "overloaded" => return asked.end(2).await,
            "refused" => return asked.end(3).await,
            other => panic!("{other}"),
        }
        asked.end(0).await;
        asked.closed().await;
    })
    .await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = {{ server = \"{}\", root = \"www\" }}\n",
        server.address
    ));
    for (case, status, body) in [
        ("missing", 404, "nope"),
        ("moved", 302, ""),
        ("length", 200, "hello"),
        ("pieces", 200, "body"),
        ("error", 200, ""),
        ("framed", 200, "plain"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let is_head = method == Method::HEAD;
            both(&gateway, method, &format!("/?{case}"), &[], |answer| {
                assert_eq!((answer.status, answer.whole), (status, true), "{case}");
                assert_eq!(answer.text(), if is_head { "" } else { body }, "{case}");
                assert_eq!(answer.get("location"), (case == "moved").then_some("/there"));
                assert_eq!(answer.get("status"), None);
            })
            .await;
        }
    }
    let said = gateway.wait_for(|line| line["text"] == "and again", 0, "a complaint");
    assert_eq!((said["route"].as_str(), said["script"].as_str()), (Some("/"), Some("index.php")), "{said}");
    both(&gateway, Method::GET, "/?unopened", &[], |answer| assert_eq!(answer.status, 404)).await;
    let line = gateway.wait_for(|line| line["cause"] == "the server can't open the script", 0, "a cause");
    assert_eq!(line["status"], 404, "{line}");
    gateway.wait_for(
        |line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("may its user read it") && line["script"] == "index.php"
        },
        0,
        "what to do",
    );
    for (case, cause) in [
        ("empty", "not valid FastCGI: the script ended without an answer"),
        ("html", "not valid FastCGI: its fields can't be read"),
        ("interim", "not valid FastCGI: its Status is not one of an answer"),
        ("cut-head", "not valid FastCGI: the script ended before the head"),
        ("http", "not valid FastCGI: it does not speak FastCGI"),
        ("overloaded", "it is overloaded"),
        ("refused", "not valid FastCGI: it refused the request with status 3"),
    ] {
        both(&gateway, Method::GET, &format!("/?{case}"), &[], |answer| {
            assert_eq!(answer.status, 502, "{case}");
        })
        .await;
        let line =
            gateway.wait_for(|line| line["cause"].as_str().is_some_and(|text| text.contains(cause)), 0, case);
        assert_eq!(line["status"], 502, "{line}");
    }
    for case in ["cut", "short"] {
        let answer = http1(&gateway, &Method::GET, &format!("/?{case}"), &[]).await;
        assert_eq!(
            (answer.status, answer.whole),
            (200, false),
            "{case}: a client must not take it for the whole"
        );
    }
}

#[tokio::test]
async fn servers_that_fail_and_servers_that_hang() {
    let good = naming().await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = {{ server = [\"{}\", \"{}\"], root = \"www\" }}\n\
         [[route]]\npath = \"/one\"\nfastcgi = {{ server = \"{0}\", root = \"www\" }}\n",
        Backend::unreachable(),
        good.address
    ));
    for _ in 0..4 {
        both(&gateway, Method::GET, "/", &[], |answer| assert_eq!(answer.status, 200)).await;
    }
    both(&gateway, Method::GET, "/one/", &[], |answer| assert_eq!(answer.status, 502)).await;
    // One that takes the request and says nothing.
    let (events, mut seen) = mpsc::unbounded_channel();
    let silent = Backend::start(move |tcp| {
        let events = events.clone();
        async move {
            let mut asked = Asked::read(tcp).await;
            asked.body().await;
            events.send("asked").unwrap();
            asked.closed().await;
            events.send("closed").unwrap();
        }
    })
    .await;
    let gateway = start(&format!(
        "[[route]]\npath = \"/\"\nfastcgi = {{ server = \"{}\", root = \"www\" }}\nresponse_timeout = \"300ms\"\n\
         [[route]]\npath = \"/long\"\nfastcgi = {{ server = \"{0}\", root = \"www\" }}\n",
        silent.address
    ));
    let answer = http1(&gateway, &Method::GET, "/", &[]).await;
    assert_eq!(answer.status, 504);
    let line = gateway.wait_for(|line| line["status"] == 504, 0, "504");
    assert!(line["cause"].as_str().unwrap().contains("response_timeout"), "{line}");
    assert_eq!((soon(seen.recv()).await, soon(seen.recv()).await), (Some("asked"), Some("closed")));
    // A client that goes away takes its script with it.
    let mut io = gateway.connect_plain().await;
    io.write_all(b"GET /long/ HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(soon(seen.recv()).await, Some("asked"));
    drop(io);
    assert_eq!(soon(seen.recv()).await, Some("closed"));
}

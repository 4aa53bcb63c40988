//! Files of a directory, over HTTP/1.1 and HTTP/2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::Method;
use support::BoxIo;
use support::both::{both, http1};
use support::gateway::{Gateway, Setup, config};
use support::http1::{ask, read_answer, read_head};
use support::http2::Http2;
use support::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A gateway with `options` for the directory `www`, which `fill` fills.
fn start(options: &str, fill: impl FnOnce(&Path)) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let www = setup.path().join("www");
    fs::create_dir(&www).unwrap();
    fill(&www);
    let routes = format!(
        "[[route]]\npath = \"/\"\n[route.files]\ndirectory = \"www\"\n{options}\n\
         [[route]]\npath = \"/under/a\"\nfiles = \"www\"\n"
    );
    setup.start(&config("", &routes))
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Of a time long ago, so that it can't change within its second.
fn write_old(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    write(directory, name, content);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    fs::File::options().write(true).open(directory.join(name)).unwrap().set_modified(old).unwrap();
}

const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn files_and_directories() {
    let large = numbers(300_000);
    let gateway = start("", |www| {
        write(www, "index.html", "<p>root");
        write(www, "a b.txt", "spaced");
        write(www, "sub/index.html", "<p>sub");
        write(www, "sub/x.css", "x {}");
        write(www, "none/y", "y");
        write(www, "empty.js", "");
        write(www, "large", &large);
        write(www, ".well-known/acme-challenge/token", "proof");
        symlink("sub/x.css", www.join("link.css")).unwrap();
    });
    for (path, content_type, body) in [
        ("/", "text/html; charset=utf-8", &b"<p>root"[..]),
        ("/index.html?x", "text/html; charset=utf-8", b"<p>root"),
        ("/a%20b.txt", "text/plain; charset=utf-8", b"spaced"),
        ("/sub/", "text/html; charset=utf-8", b"<p>sub"),
        ("/%73ub/x.css", "text/css; charset=utf-8", b"x {}"),
        ("/link.css", "text/css; charset=utf-8", b"x {}"),
        ("/empty.js", "text/javascript; charset=utf-8", b""),
        ("/large", "application/octet-stream", &large),
        ("/.well-known/acme-challenge/token", "application/octet-stream", b"proof"),
        ("/under/a/sub/x.css", "text/css; charset=utf-8", b"x {}"),
        ("/under/a/", "text/html; charset=utf-8", b"<p>root"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let is_head = method == Method::HEAD;
            both(&gateway, method, path, &[], |answer| {
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(answer.get("content-type"), Some(content_type), "{path}");
                assert_eq!(answer.get("content-length"), Some(&*body.len().to_string()), "{path}");
                assert_eq!(answer.get("accept-ranges"), Some("bytes"));
                assert!(answer.get("etag").unwrap().starts_with('"'));
                assert!(answer.get("vary").is_none() && answer.get("cache-control").is_none());
                assert!(answer.whole && answer.body == if is_head { b"" } else { body }, "{path}");
            })
            .await;
        }
    }
    for (path, location) in [
        ("/sub", "/sub/"),
        ("/sub?a=b", "/sub/?a=b"),
        ("/under/a", "/under/a/"),
        ("/under/a/%73ub", "/under/a/%73ub/"),
    ] {
        both(&gateway, Method::GET, path, &[], |answer| {
            assert_eq!((answer.status, answer.get("location")), (308, Some(location)), "{path}");
        })
        .await;
    }
    for path in ["/none/", "/nothing", "/sub/nothing", "/index.html/", "/sub/x.css/y", "/a%2520b.txt"] {
        both(&gateway, Method::GET, path, &[], |answer| assert_eq!(answer.status, 404, "{path}")).await;
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        both(&gateway, method, "/", &[], |answer| {
            assert_eq!((answer.status, answer.get("allow")), (405, Some("GET, HEAD")));
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_outside_and_nothing_hidden() {
    let gateway = start("listing = true", |www| {
        write(www, "../secret", "secret");
        write(www, ".git/config", "secret");
        write(www, "sub/.env", "secret");
        write(www, "sub/in", "in");
        symlink("../secret", www.join("out")).unwrap();
        symlink("../..", www.join("sub/parent")).unwrap();
        symlink(www.parent().unwrap(), www.join("absolute")).unwrap();
        symlink("/proc/self/root", www.join("magic")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            www.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
    });
    // What the gateway refuses before it looks for a file.
    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/.%2e/secret",
        "/%2E%2E%2Fsecret",
        "/..%2fsecret",
        "/sub/..%5c..%5csecret",
        "/..\\secret",
        "/sub/%2e%2e%2f%2e%2e%2fsecret",
        "/./secret",
        "/..;/secret",
        "/sub/..;x/secret",
    ] {
        assert_eq!(http1(&gateway, &Method::GET, path, &[]).await.status, 400, "{path}");
    }
    for path in [
        "/%252e%252e/secret",
        "/%c0%ae%c0%ae/secret",
        "//secret",
        "/sub//in",
        "/%2fsecret",
        "/sub%2fin",
        "/sub%5cin",
        "/%00",
        "/sub/in%00.html",
        "/in%0d%0aX: y",
        "/%",
        "/%zz",
        "/.git/config",
        "/.git/",
        "/.git",
        "/%2egit/config",
        "/sub/.env",
        "/sub/%2Eenv",
        "/.well-known",
        "/out",
        "/sub/parent/secret",
        "/absolute/secret",
        "/magic/etc/passwd",
        "/magic/",
        "/fifo",
        "/sub/in/",
        "/~root",
        "/CON",
        "/sub/in.",
        "/sub/in::$DATA",
        "/file:///etc/passwd",
        "/etc/passwd",
    ] {
        let path = path.replace(' ', "%20");
        let answer = http1(&gateway, &Method::GET, &path, &[]).await;
        assert!(answer.status == 404, "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret"), "{path}");
    }
    // A client may send the path in absolute form.
    let mut io: BoxIo = Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap());
    let answer =
        ask(&mut io, "GET http://default.test/%2egit/config HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!(answer.status(), 404);
    both(&gateway, Method::GET, "/", &[], |answer| {
        assert_eq!((answer.status, answer.get("content-type")), (200, Some("text/html; charset=utf-8")));
        let page = answer.text();
        assert!(
            page.contains("href=\"./sub/\"") && !page.contains("git") && !page.contains("fifo"),
            "{page}"
        );
    })
    .await;
    both(&gateway, Method::GET, "/sub/in", &[], |answer| assert_eq!(answer.text(), "in")).await;
}

#[tokio::test]
async fn conditions_and_ranges() {
    let content = numbers(200_000);
    let gateway = start("cache = \"1h\"", |www| write_old(www, "f.txt", &content));
    let first = http1(&gateway, &Method::GET, "/f.txt", &[]).await;
    assert_eq!(first.get("last-modified"), Some(OLD));
    assert_eq!(first.get("cache-control"), Some("max-age=3600"));
    let etag = first.get("etag").unwrap().to_owned();
    let weak = format!("W/{etag}");
    for (fields, status) in [
        (&[("if-none-match", &*etag)][..], 304),
        (&[("if-none-match", &weak)], 304),
        (&[("if-none-match", "\"x\""), ("if-modified-since", OLD)], 200),
        (&[("if-modified-since", OLD)], 304),
        (&[("if-match", "\"x\"")], 412),
        (&[("if-match", &etag), ("range", "bytes=0-1")], 206),
        (&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], 412),
        (&[("if-none-match", &etag), ("range", "bytes=0-1")], 304),
        (&[("if-range", &etag), ("range", "bytes=0-1")], 206),
        (&[("if-range", &weak), ("range", "bytes=0-1")], 200),
        (&[("if-range", OLD), ("range", "bytes=0-1")], 206),
        (&[("if-range", "\"x\""), ("range", "bytes=200000-")], 200),
        (&[("range", "bytes=200000-")], 416),
    ] {
        both(&gateway, Method::GET, "/f.txt", fields, |answer| {
            assert_eq!(answer.status, status, "{fields:?}");
            assert!(answer.whole);
            match status {
                304 => {
                    assert!(answer.body.is_empty() && answer.get("content-type").is_none());
                    assert_eq!(answer.get("etag"), Some(&*etag));
                    assert_eq!(answer.get("cache-control"), Some("max-age=3600"));
                }
                416 => assert_eq!(answer.get("content-range"), Some("bytes */200000")),
                200 => assert!(answer.body == content),
                _ => {}
            }
        })
        .await;
    }
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, 200_000),
        ("bytes=-5", 199_995, 200_000),
        ("bytes=65535-65536", 65_535, 65_537),
        ("bytes=199999-300000", 199_999, 200_000),
    ] {
        both(&gateway, Method::GET, "/f.txt", &[("range", range)], |answer| {
            assert_eq!(answer.status, 206, "{range}");
            let shown = format!("bytes {from}-{}/200000", to - 1);
            assert_eq!(answer.get("content-range"), Some(&*shown));
            assert_eq!(answer.get("content-length"), Some(&*(to - from).to_string()));
            assert!(answer.body == content[from..to], "{range}");
        })
        .await;
    }
    // RFC 9110 §14.2: a range means nothing to HEAD, and one that is no range is ignored.
    both(&gateway, Method::HEAD, "/f.txt", &[("range", "bytes=0-1")], |answer| {
        assert_eq!((answer.status, answer.get("content-length")), (200, Some("200000")));
    })
    .await;
    for range in ["bytes=5-1", "lines=1-2", "bytes=x", "bytes=0-,0-,0-"] {
        both(&gateway, Method::GET, "/f.txt", &[("range", range)], |answer| {
            assert_eq!((answer.status, answer.body.len()), (200, 200_000), "{range}");
        })
        .await;
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let content = numbers(200_000);
    let gateway = start("", |www| write(www, "f.css", &content));
    both(&gateway, Method::GET, "/f.css", &[("range", "bytes=0-1, 100000-170000,-3")], |answer| {
        assert_eq!(answer.status, 206);
        let content_type = answer.get("content-type").unwrap();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let part = |from: usize, to: usize| {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: text/css; charset=utf-8\r\nContent-Range: bytes {from}-{}/200000\r\n\r\n",
                to - 1
            );
            [head.as_bytes(), &content[from..to]].concat()
        };
        let expect = [
            part(0, 2),
            part(100_000, 170_001),
            part(199_997, 200_000),
            format!("\r\n--{boundary}--\r\n").into_bytes(),
        ];
        assert!(answer.body == expect.concat());
        assert_eq!(answer.get("content-length"), Some(&*answer.body.len().to_string()));
        assert!(answer.get("content-range").is_none());
    })
    .await;
}

#[tokio::test]
async fn files_that_are_compressed_already() {
    let gateway = start("precompressed = true", |www| {
        write_old(www, "a.js", "plain");
        write_old(www, "a.js.gz", "gzip!");
        write_old(www, "a.js.br", "brotli");
        write_old(www, "b.js", "plain");
        write_old(www, "sub/index.html", "plain");
        write_old(www, "sub/index.html.zst", "zstandard");
        symlink("../../secret.gz", www.join("b.js.gz")).unwrap();
        write(www, "../secret.gz", "secret");
    });
    let mut etags = Vec::new();
    for (path, accepts, coding, body) in [
        ("/a.js", "gzip, deflate, br, zstd", Some("br"), "brotli"),
        ("/a.js", "gzip", Some("gzip"), "gzip!"),
        ("/a.js", "gzip, br;q=0.5", Some("gzip"), "gzip!"),
        ("/a.js", "zstd", None, "plain"),
        ("/a.js", "br;q=0, *;q=0.1", Some("gzip"), "gzip!"),
        ("/a.js", "", None, "plain"),
        ("/b.js", "gzip, br", None, "plain"),
        ("/sub/", "zstd", Some("zstd"), "zstandard"),
    ] {
        both(&gateway, Method::GET, path, &[("accept-encoding", accepts)], |answer| {
            assert_eq!(answer.get("content-encoding"), coding, "{path} {accepts}");
            assert_eq!(answer.text(), body, "{path} {accepts}");
            assert_eq!(answer.get("vary"), Some("accept-encoding"));
            let content_type = if path == "/sub/" { "text/html" } else { "text/javascript" };
            assert!(answer.get("content-type").unwrap().starts_with(content_type), "{path}");
        })
        .await;
        let answer = http1(&gateway, &Method::GET, path, &[("accept-encoding", accepts)]).await;
        let etag = answer.get("etag").unwrap().to_owned();
        let again = [("accept-encoding", accepts), ("if-none-match", &*etag), ("range", "bytes=0-0")];
        let answer = http1(&gateway, &Method::GET, path, &again).await;
        assert_eq!((answer.status, answer.get("vary")), (304, Some("accept-encoding")));
        if path == "/a.js" {
            etags.push((coding, etag));
        }
    }
    // The same length and the same time, and yet other bytes.
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 3, "{etags:?}");
}

#[tokio::test]
async fn an_application_of_one_page() {
    let gateway = start("fallback = \"/app.html\"\ncache = \"0s\"", |www| {
        write(www, "app.html", "<p>app");
        write(www, "x.js", "x");
        fs::create_dir(www.join("d")).unwrap();
    });
    for path in ["/users/7", "/", "/d/", "/deep/er/", "/x.css"] {
        both(&gateway, Method::GET, path, &[], |answer| {
            assert_eq!((answer.status, answer.text()), (200, "<p>app".to_owned()), "{path}");
            assert_eq!(answer.get("content-type"), Some("text/html; charset=utf-8"));
            assert_eq!(answer.get("cache-control"), Some("no-cache"));
        })
        .await;
    }
    both(&gateway, Method::GET, "/x.js", &[], |answer| assert_eq!(answer.text(), "x")).await;
    for path in ["/.git/config", "/a%2fb"] {
        both(&gateway, Method::GET, path, &[], |answer| assert_eq!(answer.status, 404, "{path}")).await;
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_cut() {
    const LEN: usize = 16 << 20;
    for change in ["cut", "written"] {
        let gateway = start("", |www| write_old(www, "large", vec![1; LEN]));
        let change_file = || {
            let file = fs::File::options().write(true).open(gateway.path().join("www/large")).unwrap();
            match change {
                "cut" => file.set_len(1000).unwrap(),
                _ => std::os::unix::fs::FileExt::write_all_at(&file, b"2", LEN as u64 - 1).unwrap(),
            }
        };
        // A client that takes nothing yet, so that most of the file is still to be read.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut io = socket.connect(gateway.addresses()[1]).await.unwrap();
        io.write_all(b"GET /large HTTP/1.1\r\nHost: default.test\r\n\r\n").await.unwrap();
        let head = read_head(&mut io).await.unwrap();
        assert_eq!(head.get("content-length"), Some(&*LEN.to_string()));
        change_file();
        let mut body = Vec::new();
        let _ = support::soon(io.read_to_end(&mut body)).await;
        assert!(body.len() < LEN, "{change}: {} bytes", body.len());
        assert!(body.iter().all(|byte| *byte == 1));
        let line = gateway.wait_for(|line| line["path"] == "/large", 0, "the request");
        assert_eq!(line["cause"], "the file has changed while it was sent", "{line}");

        write_old(&gateway.path().join("www"), "large", vec![1; LEN]);
        let tls = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
        let mut client = Http2::connect(tls, "default.test").await;
        let request = client.request(Method::GET, "/large");
        let (response, _send) = client.send(request, true).await.unwrap();
        change_file();
        let answer = support::http2::read(response).await;
        assert!(answer.reset.is_some() && answer.body.len() < LEN, "{change}: {:?}", answer.reset);
    }
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_served() {
    let gateway = start("", |www| {
        write(www, "f", "one");
        write(www, "../next/f", "two");
    });
    let read = async || http1(&gateway, &Method::GET, "/f", &[]).await;
    assert_eq!(read().await.text(), "one");
    fs::rename(gateway.path().join("www"), gateway.path().join("old")).unwrap();
    fs::rename(gateway.path().join("next"), gateway.path().join("www")).unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while read().await.text() != "two" {
        assert!(std::time::Instant::now() < deadline, "the old directory is still served");
    }
}

#[tokio::test]
async fn requests_follow_each_other_on_a_connection() {
    let content = numbers(150_000);
    let gateway = start("", |www| {
        write(www, "small", "small");
        write(www, "large", &content);
    });
    let mut io: BoxIo = Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n");
    let together = get("/large") + &get("/small") + &get("/none") + &get("/large");
    io.write_all(together.as_bytes()).await.unwrap();
    for expect in [&content[..], b"small", b"404 Not Found: there is no such file\n", &content] {
        assert!(read_answer(&mut io, false).await.unwrap().body == expect);
    }
}

#[test]
fn a_directory_that_is_not_there_is_a_problem() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let file = setup.config_file();
    let text =
        "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n[[route]]\npath = \"/\"\nfiles = \"www\"\n";
    fs::write(&file, text).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_wssgate")).arg("check").arg(&file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("wssgate.toml:6:9: directory: ") && said.contains("www can't be read: No such file"),
        "{said}"
    );
}

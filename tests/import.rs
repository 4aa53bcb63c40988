//! `wssgate import`: files of other servers, and what the gateway then does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::backend::echo;
use support::gateway::Setup;
use support::http1::ask;
use support::ws::WebSocket;
use tempfile::TempDir;
use tokio::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/import").join(name)
}

/// Copies a directory, with these words in place of others.
fn copy(from: &Path, to: &Path, words: &[(&str, &str)]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, words);
        } else {
            let text = fs::read_to_string(path).unwrap();
            fs::write(target, words.iter().fold(text, |text, (word, value)| text.replace(word, value)))
                .unwrap();
        }
    }
}

fn import(arguments: &[&str], file: &Path) -> Output {
    Command::new(BINARY).arg("import").args(arguments).arg(file).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// The site of the fixture, with files and a password (`alice`, `secret`).
fn site(directory: &Path, server: &str, upstream: &str) {
    let shown = directory.to_str().unwrap();
    copy(
        &fixture(server),
        &directory.join(server),
        &[("DIRECTORY", shown), ("CONFIGURATION", server), ("PORT", "0"), ("UPSTREAM", upstream)],
    );
    for (name, content) in [
        ("www/index.html", "the page"),
        ("www/style.css", "body {}"),
        ("assets/logo.txt", "a logo"),
        ("php/style.css", "body {}"),
        ("htpasswd", "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"),
    ] {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[tokio::test]
async fn a_site_of_nginx_is_served() {
    let (backend, seen) = echo().await;
    let setup = Setup::new(BINARY);
    site(setup.path(), "nginx", &backend.address.to_string());
    let imported = import(&["nginx"], &setup.path().join("nginx/nginx.conf"));
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let gateway = setup.start(text(&imported.stdout));
    let get = async |host: &str, path: &str, fields: &str| {
        let mut io = TcpStream::connect(gateway.address()).await.unwrap();
        ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await
    };
    for (host, path, status, body) in [
        ("chat.test", "/", 200, "the page"),
        ("other.test", "/no/such/file", 200, "the page"),
        ("chat.test", "/style.css", 200, "body {}"),
        ("chat.test", "/static/logo.txt", 200, "a logo"),
        ("chat.test", "/version", 200, "{\"version\": 1}"),
        ("chat.test", "/app/x?y", 200, "GET /x?y HTTP/1.1\n"),
        ("chat.test", "/socket", 200, "GET /socket HTTP/1.1\n"),
        ("files.test", "/", 404, "nothing\n"),
        ("a.files.test", "/style.css", 200, "body {}"),
        ("order.test", "/apifoo", 200, "api\n"),
        ("order.test", "/apifoo.js", 200, "file\n"),
        ("order.test", "/static/x.js", 200, "static\n"),
        ("order.test", "/static/deep/x.js", 200, "file\n"),
        ("order.test", "/data/open/x.js", 200, "open\n"),
        ("order.test", "/a%20b/x", 200, "blank\n"),
        ("order.test", "/caf%c3%a9", 200, "letters\n"),
        ("order.test", "/to%20b/x", 200, "GET /c%20d/x HTTP/1.1\n"),
        ("blog.test", "/style.css", 200, "body {}"),
        ("files.test", "/api/v1/x", 200, "GET /api/v1/x HTTP/1.1\n"),
    ] {
        let answer = get(host, path, "").await;
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{host}{path}");
    }
    assert_eq!(seen.last().get("host"), Some("backend.test"));
    for (host, path, status, location) in [
        ("chat.test", "/old/x?y", 301, "/new/old/x?y"),
        ("chat.test", "/app", 301, "/app/"),
        ("files.test", "/moved/x", 301, "http://chat.test/x"),
    ] {
        let answer = get(host, path, "").await;
        assert_eq!((answer.status(), answer.head.get("location")), (status, Some(location)), "{path}");
    }
    for (host, path, status) in [
        ("chat.test", "/nobody/x", 403),
        ("chat.test", "/private/x", 401),
        ("files.test", "/.env", 403),
        ("order.test", "/database.log", 403),
        ("order.test", "/.env", 403),
        ("blog.test", "/uploads/evil.php", 403),
    ] {
        assert_eq!(get(host, path, "").await.status(), status, "{path}");
    }
    let private = get("chat.test", "/private/x", "Authorization: Basic YWxpY2U6c2VjcmV0\r\n").await;
    assert_eq!(private.text(), "GET /private/x HTTP/1.1\n");
    let app = get("chat.test", "/app/", "").await;
    assert_eq!((app.head.get("x-app"), app.head.get("x-frame-options")), (Some("one"), None));
    assert_eq!(seen.last().get("x-env"), Some("test \"1\""));
    let io = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "chat.test", "/socket", "").await.unwrap();
    socket.echoes("hello").await;
}

#[tokio::test]
async fn a_site_of_apache_is_served() {
    let (backend, seen) = echo().await;
    let setup = Setup::new(BINARY);
    site(setup.path(), "apache", &backend.address.to_string());
    let imported = import(&["apache"], &setup.path().join("apache/apache2.conf"));
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let gateway = setup.start(text(&imported.stdout));
    let get = async |host: &str, path: &str, fields: &str| {
        let mut io = TcpStream::connect(gateway.address()).await.unwrap();
        ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await
    };
    for (host, path, body) in [
        ("chat.test", "/", "the page"),
        ("chat.test", "/style.css", "body {}"),
        ("chat.test", "/static/logo.txt", "a logo"),
        ("chat.test", "/app/x?y", "GET /x?y HTTP/1.1\n"),
        ("chat.test", "/item/12.json", "GET /items/12 HTTP/1.1\n"),
        ("chat.test", "/private/open/x", "GET /private/open/x HTTP/1.1\n"),
        ("chat.test", "/here/x", "GET /here/x HTTP/1.1\n"),
        ("app.test", "/x", "GET /x HTTP/1.1\n"),
    ] {
        let answer = get(host, path, "").await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, body), "{host}{path}");
    }
    for (path, status) in [
        ("/style.css.map", 403),
        ("/secret/x", 403),
        ("/nobody/x", 403),
        ("/there/x", 403),
        ("/socket/data/x", 403),
        ("/private/x", 401),
        ("/lost/x", 410),
        ("/old/x", 301),
    ] {
        assert_eq!(get("chat.test", path, "").await.status(), status, "{path}");
    }
    let private = get("chat.test", "/private/x", "Authorization: Basic YWxpY2U6c2VjcmV0\r\n").await;
    assert_eq!(private.text(), "GET /private/x HTTP/1.1\n");
    assert_eq!(get("chat.test", "/app/", "").await.head.get("x-app"), Some("one"));
    assert_eq!(seen.last().get("x-env"), Some("test \"1\""));
    for path in ["/socket", "/live/x", "/both"] {
        let io = TcpStream::connect(gateway.address()).await.unwrap();
        let (mut socket, _) = WebSocket::connect(io, "chat.test", path, "").await.unwrap();
        socket.echoes("hello").await;
    }
}

#[test]
fn each_line_is_a_key_or_a_comment() {
    let temp = TempDir::new().unwrap();
    site(temp.path(), "nginx", "127.0.0.1:1");
    let file = temp.path().join("nginx/nginx.conf");
    let (imported, written) = (import(&["nginx"], &file), temp.path().join("wssgate.toml"));
    let toml = text(&imported.stdout);
    for line in [
        "proxy = \"chat\" # sites/chat.conf:14",
        "# sites/chat.conf:17: proxy_set_header Upgrade $http_upgrade: handshakes of WebSockets get what they need",
        "# nginx.conf:32: keepalive 8: connections to servers are kept",
        "path_regex = '(?i).*\\.(css|js)' # sites/chat.conf:70",
        "strip_prefix = \"/app\" # sites/chat.conf:25",
    ] {
        assert!(toml.contains(line), "{line} is not in\n{toml}");
    }
    let said = text(&imported.stderr);
    assert!(said.contains(" directives: ") && said.contains(" have no counterpart; the comments"), "{said}");
    // Into a file, but not over one.
    let to_file = ["nginx", "--write", written.to_str().unwrap()];
    assert!(import(&to_file, &file).stdout.is_empty());
    assert_eq!(fs::read_to_string(&written).unwrap(), toml);
    let again = import(&to_file, &file);
    assert!(!again.status.success() && text(&again.stderr).contains("can't be written"), "{again:?}");
    let checked = Command::new(BINARY).arg("check").arg(&written).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn what_can_not_be_imported_says_where_and_why() {
    let temp = TempDir::new().unwrap();
    let file = temp.path().join("nginx.conf");
    for (content, says) in [
        (&b"server {\n listen 80\n}"[..], "nginx.conf:2: the ; behind \"listen 80\" is missing"),
        (b"include nginx.conf;", "nginx.conf includes itself"),
        (b"a \"b", "nginx.conf:1: the \" that begins here has no end"),
        (b"\xef\xbb\xbfa;", "nginx.conf:1: a byte order mark"),
        (b"\n\0;", "nginx.conf:2: a NUL byte"),
    ] {
        fs::write(&file, content).unwrap();
        let imported = import(&["nginx"], &file);
        assert!(!imported.status.success() && text(&imported.stderr).contains(says), "{imported:?}");
        assert!(imported.stdout.is_empty());
    }
    // What `check` would refuse is said, beside what was made.
    fs::write(&file, "server { listen 443 ssl; return 204; }").unwrap();
    let imported = import(&["nginx"], &file);
    assert!(!imported.status.success() && text(&imported.stdout).contains("respond = 204"));
    let said = text(&imported.stderr);
    assert!(
        said.contains("to correct in the new file, line 5: a listener with TLS needs certificates"),
        "{said}"
    );
    let nowhere = import(&["nginx"], Path::new("/nowhere/nginx.conf"));
    assert!(!nowhere.status.success() && text(&nowhere.stderr).contains("/nowhere"), "{nowhere:?}");
}

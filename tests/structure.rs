//! What ARCHITECTURE.md promises about the shape of the code, held against the code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::path::{Path, PathBuf};

use imports::{circle, imports};

#[path = "structure/imports.rs"]
mod imports;

const LIBRARIES: [&str; 3] = ["tls-acceptor", "upgrade-handler", "frame-core"];
/// What is built from the libraries. Neither knows the other one.
const PROGRAMS: [&str; 2] = ["gateway", "wss-service"];
/// What the libraries and the gateway stand on.
const GROUND: &str = "net-io";

/// The floors of each crate, from the lowest to the highest: a module names none that stands higher. What stands in
/// a folder is written as the folder.
const FLOORS: [(&str, &[&[&str]]); 7] = [
    (
        "crates/net-io/src",
        &[&["clock", "count", "memory", "proxy_protocol", "state", "sweep"], &["pool", "proxied", "tcp"]],
    ),
    (
        "crates/tls-acceptor/src",
        &[
            &[
                "der",
                "name",
                "negotiated",
                "pem",
                "chain_fault",
                "client_auth",
                "demand",
                "error",
                "peer_certificate",
                "turn",
                "ticket_key",
                "waiting",
            ],
            &["certificate", "key_kind", "permits", "record", "ticket_file"],
            &["cert_set", "chain", "early_data", "hello", "material", "tickets"],
            &["assembly", "authorities", "challenge", "handshake", "signing"],
            &["directory", "stream"],
            &["named"],
            &["load"],
            &["expiry", "places", "reload"],
            &["resolver", "watch"],
            &["acceptor"],
            &["connector"],
        ],
    ),
    (
        "crates/upgrade-handler/src",
        &[
            &["casing", "fields", "flood", "handoff", "key", "queued", "resets", "turn"],
            &["extensions", "hop_by_hop", "origin", "refusal", "tunnel"],
            &["deflate", "request", "upstream"],
            &["named", "response"],
        ],
    ),
    (
        "benches/compare/src",
        &[
            &["access_log", "child", "frame", "job", "process", "setup", "stats", "template"],
            &["backend", "gateways", "rows", "syscalls"],
            &["load"],
            &["floor", "load_process"],
            &["harness"],
            &["report"],
            &["live_load"],
            &["restart"],
            &["broadcast", "flame", "reload", "scale"],
            &["compression"],
            &["main"],
        ],
    ),
    (
        "crates/frame-core/src",
        &[
            &["client", "clock", "fair_queue", "violation"],
            &["close", "head", "timer", "utf8"],
            &["deflate", "sequence"],
            &["tap"],
            &["frame_reader", "policy", "scanner"],
            &["keepalive", "outcome"],
            &["cause_state", "ledger", "measures"],
            &["handle"],
            &["deflated", "metered", "supervisor"],
            &["endpoint", "redial", "relay"],
            &["opaque"],
        ],
    ),
    (
        "crates/wss-service/src",
        &[
            &[
                "client",
                "closed",
                "compression",
                "host",
                "listening",
                "message",
                "panics",
                "patience",
                "totals",
                "unreached",
            ],
            &["body"],
            &["elsewhere", "refusal", "settings", "stream"],
            &["groups"],
            &["outbox"],
            &["session"],
            &["handler", "hub"],
            &["drive"],
            &["log"],
            &["certificates", "cluster"],
            &["shared"],
            &["drain", "opened", "otherwise", "threads"],
            &["answer"],
            &["upgraded"],
            &["attached", "http1", "http2"],
            &["connection", "hosted"],
            &["service"],
            &["serving"],
        ],
    ),
    (
        "crates/gateway/src",
        &[
            &["net"],
            &["site"],
            &["config", "upstream", "telemetry"],
            &["context"],
            &["session"],
            &["request"],
            &["edge"],
            &["worker"],
            &["ops"],
            &["lifecycle"],
            &["check", "doctor", "import", "quick"],
            &["trust"],
            &["cli"],
            &["main"],
        ],
    ),
];

/// What a message, a request or a connection passes through.
const DATA_PLANE: [&str; 8] =
    ["net", "site", "upstream", "context", "telemetry", "session", "request", "edge"];
/// What reads and changes how that is done.
const CONTROL_PLANE: [&str; 9] =
    ["config", "worker", "ops", "lifecycle", "check", "doctor", "import", "quick", "trust"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every source file below `directory`, tests left out, with its text up to its tests.
fn sources(directory: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.ends_with("tests.rs")
                && !path.ends_with("test_io.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                files.push((path, code.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(!files.is_empty(), "{directory}");
    files
}

fn source(file: &str) -> String {
    let directory = Path::new(file).parent().unwrap().to_str().unwrap();
    let all = sources(directory);
    all.into_iter().find(|(path, _)| path.ends_with(Path::new(file).file_name().unwrap())).unwrap().1
}

/// Files of the workspace's crates that contain any of `words`.
fn naming(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for name in LIBRARIES.iter().chain(&[GROUND]).chain(&PROGRAMS) {
        for (path, code) in sources(&format!("crates/{name}/src")) {
            if words.iter().any(|word| code.contains(word)) {
                let crates = root().join("crates");
                found.push(path.strip_prefix(crates).unwrap().to_str().unwrap().replace("/src/", "/"));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_three_libraries_know_nothing_of_each_other_nor_of_the_gateway() {
    let dependencies = |name| {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        manifest.split("[dependencies]").nth(1).unwrap().to_owned()
    };
    for name in LIBRARIES {
        let dependencies = dependencies(name);
        for other in LIBRARIES.iter().chain(&["wssgate"]).chain(&PROGRAMS) {
            assert!(!dependencies.contains(&format!("{other}.")), "{name} depends on {other}");
        }
    }
    for other in LIBRARIES.iter().chain(&["wssgate"]).chain(&PROGRAMS) {
        assert!(!dependencies(GROUND).contains(&format!("{other}.")), "{GROUND} depends on {other}");
    }
}

#[test]
fn every_module_stands_on_a_floor_and_looks_down() {
    for (crate_, floors) in FLOORS {
        let imports = imports(&root().join(crate_));
        let floor_of = |module: &str| {
            let top = module.split("::").next().unwrap();
            floors.iter().position(|floor| floor.contains(&top))
        };
        for (module, named) in imports.iter().filter(|(module, _)| !module.is_empty()) {
            let floor = floor_of(module).unwrap_or_else(|| panic!("{crate_}: {module} stands on no floor"));
            for other in named {
                assert!(
                    floor_of(other) <= Some(floor),
                    "{crate_}: {module} names {other}, which stands higher"
                );
            }
        }
        assert_eq!(circle(&imports), None, "{crate_}: a circle");
        let known = |top: &&str| imports.keys().any(|module| module.split("::").next() == Some(top));
        assert!(floors.iter().all(|floor| floor.iter().all(known)), "{crate_}: a floor of nothing");
    }
}

#[test]
fn the_data_plane_knows_nothing_of_the_control_plane() {
    let imports = imports(&root().join("crates/gateway/src"));
    let is_in = |module: &str, plane: &[&str]| plane.contains(&module.split("::").next().unwrap());
    let data = imports.iter().filter(|(module, _)| is_in(module, &DATA_PLANE));
    let arrows: Vec<_> = data
        .flat_map(|(module, named)| named.iter().map(move |other| (module, other)))
        .filter(|(_, other)| is_in(other, &CONTROL_PLANE))
        .collect();
    assert!(arrows.is_empty(), "{arrows:?}");
}

#[test]
fn pure_modules_know_neither_sockets_nor_clocks() {
    let pure = [
        "frame-core/src/head.rs",
        "frame-core/src/sequence.rs",
        "frame-core/src/utf8.rs",
        "frame-core/src/close.rs",
        "frame-core/src/violation.rs",
        "frame-core/src/deflate/mod.rs",
        "frame-core/src/deflate/deflater.rs",
        "frame-core/src/deflate/inflater.rs",
        "frame-core/src/scanner.rs",
        "frame-core/src/tap/walk.rs",
        "frame-core/src/keepalive.rs",
        "frame-core/src/measures.rs",
        "frame-core/src/redial/decide.rs",
        "frame-core/src/redial/walk.rs",
        "frame-core/src/relay/closing.rs",
        "frame-core/src/endpoint/assembly.rs",
        "frame-core/src/endpoint/compressed.rs",
        "frame-core/src/endpoint/shared_frame.rs",
        "tls-acceptor/src/name.rs",
        "tls-acceptor/src/cert_set.rs",
        "tls-acceptor/src/peer_certificate.rs",
        "tls-acceptor/src/hello.rs",
        "net-io/src/proxy_protocol.rs",
        "tls-acceptor/src/early_data.rs",
        "tls-acceptor/src/expiry.rs",
        "tls-acceptor/src/record/cipher.rs",
        "tls-acceptor/src/record/incoming.rs",
        "tls-acceptor/src/record/mod.rs",
        "upgrade-handler/src/request.rs",
        "upgrade-handler/src/refusal.rs",
        "upgrade-handler/src/extensions.rs",
        "upgrade-handler/src/deflate.rs",
        "upgrade-handler/src/fields.rs",
        "upgrade-handler/src/hop_by_hop.rs",
        "upgrade-handler/src/origin.rs",
        "upgrade-handler/src/upstream.rs",
        "upgrade-handler/src/response.rs",
        "upgrade-handler/src/named.rs",
        "wss-service/src/closed.rs",
        "wss-service/src/cluster/nats/frame.rs",
        "wss-service/src/cluster/nats/login.rs",
        "wss-service/src/cluster/nats/nkey.rs",
        "wss-service/src/cluster/nats/subject.rs",
        "wss-service/src/cluster/nats/url.rs",
        "wss-service/src/cluster/redis/resp.rs",
        "wss-service/src/cluster/redis/url.rs",
        "wss-service/src/elsewhere/channel.rs",
        "wss-service/src/elsewhere/line.rs",
        "wss-service/src/groups.rs",
        "wss-service/src/groups/changes.rs",
        "wss-service/src/host.rs",
        "wss-service/src/message.rs",
        "gateway/src/net/networks.rs",
        "gateway/src/site/access.rs",
        "gateway/src/site/auth.rs",
        "gateway/src/site/htpasswd/mod.rs",
        "gateway/src/site/rate.rs",
        "gateway/src/site/jwt/mod.rs",
        "gateway/src/site/jwt/keys.rs",
        "gateway/src/site/jwt/place.rs",
        "gateway/src/site/jwt/verify.rs",
        "gateway/src/site/route.rs",
        "gateway/src/site/route_id.rs",
        "gateway/src/site/routes.rs",
        "gateway/src/site/matcher.rs",
        "gateway/src/site/path.rs",
        "gateway/src/site/tcp.rs",
        "gateway/src/site/balance.rs",
        "gateway/src/site/health.rs",
        "gateway/src/site/retry.rs",
        "gateway/src/site/cookie.rs",
        "gateway/src/site/drained.rs",
        "gateway/src/site/hidden.rs",
        "gateway/src/site/host.rs",
        "gateway/src/site/names.rs",
        "gateway/src/site/resolved.rs",
        "gateway/src/site/rewrite.rs",
        "gateway/src/doctor/findings.rs",
        "gateway/src/doctor/proc.rs",
        "gateway/src/import/book.rs",
        "gateway/src/import/pattern.rs",
        "gateway/src/import/sheet.rs",
        "gateway/src/import/site.rs",
        "gateway/src/import/nginx/lexer.rs",
        "gateway/src/import/nginx/listen.rs",
        "gateway/src/import/nginx/location.rs",
        "gateway/src/import/nginx/parse.rs",
        "gateway/src/import/nginx/pass.rs",
        "gateway/src/import/nginx/variables.rs",
        "gateway/src/ops/control/tap/frame.rs",
        "gateway/src/ops/control/tap/inflate.rs",
        "gateway/src/ops/control/tap/pcapng.rs",
        "gateway/src/ops/control/tap/show.rs",
        "gateway/src/lifecycle/acme/schedule.rs",
        "gateway/src/lifecycle/acme/advice.rs",
        "gateway/src/site/answer.rs",
        "gateway/src/site/admin_token.rs",
        "gateway/src/ops/page/graph.rs",
        "gateway/src/ops/page/guard.rs",
        "gateway/src/ops/page/history.rs",
        "gateway/src/ops/page/shown.rs",
        "gateway/src/ops/page/table.rs",
        "gateway/src/ops/page/view.rs",
        "gateway/src/site/sources.rs",
        "gateway/src/site/sticky.rs",
        "gateway/src/site/extras.rs",
        "gateway/src/site/redial.rs",
        "gateway/src/upstream/edits.rs",
        "gateway/src/request/cors.rs",
        "gateway/src/site/template.rs",
        "gateway/src/site/written.rs",
        "gateway/src/request/coding.rs",
        "gateway/src/request/service/files/name.rs",
        "gateway/src/request/service/files/ranges.rs",
        "gateway/src/site/fastcgi.rs",
        "gateway/src/upstream/fastcgi/head.rs",
        "gateway/src/upstream/fastcgi/params.rs",
        "gateway/src/upstream/fastcgi/record.rs",
        "gateway/src/upstream/forward.rs",
        "gateway/src/upstream/location.rs",
        "gateway/src/upstream/h1/encode.rs",
        "gateway/src/upstream/h1/response.rs",
        "gateway/src/upstream/h1/decode.rs",
    ];
    for file in pure {
        let code = source(&format!("crates/{file}"));
        for word in ["tokio", "std::fs", "Instant", "SystemTime", "TcpStream", "async "] {
            assert!(!code.contains(word), "{file} names {word}");
        }
    }
}

#[test]
fn each_thing_is_done_in_its_place() {
    let only = |words: &[&str], places: &[&str]| {
        let found = naming(words);
        let strangers: Vec<_> = found.iter().filter(|f| !places.iter().any(|p| f.starts_with(p))).collect();
        assert!(strangers.is_empty(), "{words:?} in {strangers:?}");
        assert!(!found.is_empty(), "{words:?} nowhere: is the test still right?");
    };
    only(
        &["std::fs", "fs::read", "File::open"],
        &[
            "gateway/config/",
            "gateway/lifecycle/acme/storage.rs",
            "gateway/lifecycle/resolver/files.rs",
            "gateway/doctor/gather.rs",
            "gateway/import/disk.rs",
            "gateway/ops/control/socket.rs",
            "gateway/ops/metrics/process.rs",
            "gateway/ops/control/tap/watch.rs",
            "gateway/telemetry/log_file.rs",
            "gateway/quick/",
            "gateway/trust/",
            "gateway/site/challenges.rs",
            "tls-acceptor/directory.rs",
            "tls-acceptor/material.rs",
            "tls-acceptor/places.rs",
            "tls-acceptor/ticket_file.rs",
            "wss-service/cluster/nats/credentials.rs",
        ],
    );
    only(&["tokio::signal", "SignalKind"], &["gateway/lifecycle/", "wss-service/serving.rs"]);
    only(&["nix::sys"], &["gateway/net/options.rs", "net-io/tcp.rs"]);
    only(&["fastwebsockets", "zlib_rs"], &["frame-core/"]);
    only(&["rustls"], &["tls-acceptor/"]);
    only(&["aws_lc_rs"], &["tls-acceptor/", "wss-service/cluster/nats/nkey.rs"]);
    only(&["redis::", "use redis"], &["wss-service/cluster"]);
    only(&["httparse"], &["gateway/upstream/"]);
    only(&["hickory"], &["gateway/lifecycle/resolver/"]);
    only(&["anyhow"], &["gateway/main.rs"]);
    only(&["tracing"], &["gateway/", "wss-service/log.rs"]);
    only(&["UnixListener"], &["gateway/ops/control/", "gateway/edge/listener.rs"]);
    only(
        &["h2::"],
        &[
            "gateway/edge/http2.rs",
            "gateway/upstream/body.rs",
            "gateway/upstream/http2/",
            "upgrade-handler/",
            "wss-service/body.rs",
            "wss-service/http2.rs",
        ],
    );
}

/// A name of a module or a file, as documents write it, is that of something.
#[test]
fn what_the_documents_name_exists() {
    let mut crates = vec![GROUND];
    crates.extend(PROGRAMS);
    crates.extend(LIBRARIES);
    let sources = crates.iter().flat_map(|name| {
        let files = sources(&format!("crates/{name}/src")).into_iter().map(|(path, _)| path);
        files.chain(test_modules(&root().join("crates").join(name).join("src")))
    });
    // crates/gateway/src/edge/http2/open.rs is gateway/edge/http2/open; gateway/edge/http2 is a folder of it.
    let modules: Vec<String> = sources
        .map(|path| path.strip_prefix(root().join("crates")).unwrap().with_extension(""))
        .map(|path| format!("/{}", path.to_str().unwrap().replace("/src/", "/").trim_end_matches("/mod")))
        .collect();
    let is_module = |name: &str| {
        let (inside, end) = (format!("/{name}/"), format!("/{name}"));
        modules.iter().any(|module| module.contains(&inside) || module.ends_with(&end))
    };
    let folders = [".".to_owned(), "tests".to_owned()].into_iter();
    let folders: Vec<_> = folders.chain(crates.iter().map(|name| format!("crates/{name}"))).collect();
    let (mut seen, mut unknown) = (0, Vec::new());
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            seen += 1;
            let is_file = folders.iter().any(|folder| root().join(folder).join(name).exists());
            let module = name.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches('/');
            if !is_file && !is_module(module) {
                unknown.push((document, name.to_owned()));
            }
        }
    }
    assert!(unknown.is_empty(), "documents name what is not there: {unknown:?}");
    assert!(seen > 150, "{seen} names: is the test still right?");
}

/// Modules that only tests have.
fn test_modules(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(test_modules(&path));
        } else if path.ends_with("tests.rs") || path.ends_with("test_io.rs") {
            found.push(path);
        }
    }
    found
}

/// A path of this repository, and not a command, an option, or a URL.
fn is_path(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-/.".contains(&byte);
    name.contains('/') && !name.starts_with('/') && name.bytes().all(is_plain)
}

#[test]
fn nothing_is_unsafe_unfinished_or_loud() {
    for name in LIBRARIES.iter().chain(&[GROUND]).chain(&PROGRAMS) {
        for (path, code) in sources(&format!("crates/{name}/src")) {
            for word in ["unsafe ", "todo!", "unimplemented!", "println!", "dbg!", "#[ignore"] {
                assert!(!code.contains(word), "{} has {word}", path.display());
            }
        }
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}");
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}

#[test]
fn each_dependency_has_its_reason() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies =
        workspace.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in dependencies.lines().filter(|line| line.contains(" = ") && !line.contains("path = ")) {
        assert!(line.contains(" # "), "no reason beside: {line}");
    }
}

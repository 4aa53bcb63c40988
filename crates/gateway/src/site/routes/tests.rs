use std::path::Path;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::site::matcher::Matcher;
use crate::site::path::{RequestPath, RoutePath};
use crate::site::route::{Action, Service};

/// A plain GET.
fn get<'a>(host: &'a str, path: &'a RequestPath<'a>, headers: &'a HeaderMap) -> Criteria<'a> {
    Criteria { listener: "any", bound: false, host, path, method: &Method::GET, headers, upgrade: false }
}

fn route(host: &str, path: &str) -> Arc<Route> {
    let host = (!host.is_empty()).then(|| HostPattern::parse(host).unwrap());
    let matcher = Matcher::new(host, RoutePath::parse(path).unwrap());
    Arc::new(Route::new(matcher, Action::Service(Service::Echo)))
}

fn found(routes: &[(&str, &str)], host: &str, path: &str) -> Option<String> {
    let routes: Vec<_> = routes.iter().map(|(host, path)| route(host, path)).collect();
    let routes = Routes::new(&routes);
    let (path, headers) = (RequestPath::parse(path).unwrap(), HeaderMap::new());
    let found = routes.find(&get(host, &path, &headers)).unwrap();
    found.map(|route| route.id.to_string())
}

#[test]
fn prefixes_end_on_segment_borders() {
    let routes = [("", "/wss"), ("", "/wss/deep/er"), ("", "/trailing/")];
    let found = |path| found(&routes, "a", path);
    for path in ["/wss", "/wss/", "/wss/x", "/wss/deep", "/%77ss", "/wss%2Fx/../".trim_end_matches("/../")] {
        let expect = if path.contains("%2F") { None } else { Some("/wss") };
        assert_eq!(found(path).as_deref(), expect, "{path}");
    }
    assert_eq!(found("/wss/deep/er/est").as_deref(), Some("/wss/deep/er"));
    assert_eq!(found("/trailing").as_deref(), Some("/trailing"));
    for path in ["/wssx", "/", "", "*", "/WSS", "//wss"] {
        assert_eq!(found(path), None, "{path}");
    }
}

#[test]
fn exact_then_wildcard_then_any_with_fall_through() {
    let routes = [
        ("a.test", "/x"),
        ("a.test", "/x/y"),
        ("*.test", "/"),
        ("*.test", "/x/y/z"),
        ("", "/"),
        ("", "/x/y/z/longest"),
    ];
    let found = |host, path| found(&routes, host, path).unwrap();
    assert_eq!(found("a.test", "/x/y/z/longest"), "a.test/x/y");
    assert_eq!(found("a.test", "/x/q"), "a.test/x");
    assert_eq!(found("a.test", "/q"), "*.test/");
    assert_eq!(found("b.test", "/x/y/z"), "*.test/x/y/z");
    assert_eq!(found("b.b.test", "/q"), "/");
    assert_eq!(found("test", "/x/y/z/longest"), "/x/y/z/longest");
}

/// The routes of a configuration, and a request: `LISTENER METHOD HOST PATH FIELD: VALUE…`; `WS` is a method, too.
#[track_caller]
fn ask(toml: &str, request: &str) -> Option<String> {
    let routes = toml.split(";;").map(|keys| format!("[[route]]\nservice = \"echo\"\n{keys}\n"));
    let text: String = ["public", "other"]
        .iter()
        .enumerate()
        .map(|(i, name)| {
            format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:{}\"\ntls = false\n", i + 1)
        })
        .chain(routes)
        .collect();
    let (config, problems) = Config::parse(Path::new("wssgate.toml"), &text);
    assert_eq!(problems, []);
    let mut words = request.splitn(5, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (listener, method, host, path, field) = (word(), word(), word(), word(), word());
    let (upgrade, method) = (method == "WS", if method == "WS" { "GET" } else { method });
    let mut headers = HeaderMap::new();
    for line in field.split(" / ").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let path = RequestPath::parse(path).unwrap();
    let method = method.parse().unwrap();
    let asked =
        Criteria { listener, bound: false, host, path: &path, method: &method, headers: &headers, upgrade };
    let routes = Routes::new(&config.routes);
    let found = routes.find(&asked).unwrap();
    for route in &config.routes {
        // What is explained is what is done.
        assert!(found.is_none_or(|found| found.matcher.explain(&asked).is_none()), "{request}: {route:?}");
        assert!(found.is_some() || route.matcher.explain(&asked).is_some(), "{request}: {route:?}");
    }
    found.map(|route| route.id.to_string())
}

#[test]
fn exact_path_then_longest_prefix_then_patterns_in_the_order_of_the_file() {
    let toml = "name = \"number\"\npath_regex = '/a/(\\d+)'\n;;name = \"any\"\npath_regex = '/a/.*|/b'\n;;\
                name = \"exact\"\npath_exact = \"/a/1/\"\n;;name = \"prefix\"\npath = \"/a/1/2\"\n;;\
                name = \"deep\"\npath_exact = \"/a/1/2/3\"";
    for (path, expect) in [
        ("/a/1", Some("number")),
        ("/a/%31", Some("number")),
        ("/a/x", Some("any")),
        ("/a/1/", Some("exact")),
        ("/a/1/x", Some("any")),
        ("/a/1/2", Some("prefix")),
        ("/a/1/2/", Some("prefix")),
        ("/a/1/2/3", Some("deep")),
        ("/a/1/2/3/", Some("prefix")),
        ("/b", Some("any")),
        ("/b/", None),
        ("/x/a/1", None),
        ("/A/1", None),
    ] {
        assert_eq!(ask(toml, &format!("public GET a.test {path}")).as_deref(), expect, "{path}");
    }
}

#[test]
fn several_hosts_share_a_route_and_the_more_exact_host_wins() {
    let toml = "name = \"site\"\nhost = [\"a.test\", \"*.a.test\", \"::1\"]\npath = \"/\"\n;;\
                name = \"one\"\nhost = \"b.a.test\"\npath = \"/\"\n;;name = \"rest\"\npath = \"/\"\n";
    for (host, expect) in [
        ("a.test", "site"),
        ("www.a.test", "site"),
        ("[::1]", "site"),
        ("b.a.test", "one"),
        ("x.b.a.test", "rest"),
        (".a.test", "rest"),
        ("test", "rest"),
    ] {
        assert_eq!(ask(toml, &format!("public GET {host} /x")).as_deref(), Some(expect), "{host}");
    }
}

#[test]
fn a_condition_that_is_not_met_falls_through_to_fewer_and_to_shorter_paths() {
    let toml = "name = \"plain\"\npath = \"/x\"\n;;name = \"ws\"\npath = \"/x\"\nwhen = { upgrade = true }\n;;\
                name = \"mqtt\"\npath = \"/x\"\nwhen = { upgrade = true, subprotocol = [\"mqtt\", \"mqttv3.1\"] }\n;;\
                name = \"put\"\npath = \"/x\"\nwhen = { method = [\"PUT\", \"GET\"], header = { \"X-Api\" = [\"2\", \"3\"], \"X-B\" = \"b\" } }\n;;\
                name = \"other\"\nlistener = [\"other\"]\npath = \"/x\"\n;;\
                name = \"post\"\npath = \"/x/deep\"\nwhen = { method = \"POST\", upgrade = false }";
    for (request, expect) in [
        ("public GET a /x", Some("plain")),
        ("public WS a /x", Some("ws")),
        ("public WS a /x sec-websocket-protocol: chat, mqtt", Some("mqtt")),
        ("public WS a /x sec-websocket-protocol: chat / sec-websocket-protocol: mqttv3.1", Some("mqtt")),
        ("public WS a /x sec-websocket-protocol: MQTT", Some("ws")),
        ("public PUT a /x x-api: 2 / x-b: b", Some("put")),
        ("public HEAD a /x x-api: 1 / x-api: 3 / x-b: b", Some("put")),
        ("public POST a /x x-api: 2 / x-b: b", Some("plain")),
        ("public PUT a /x x-api: 2", Some("plain")),
        ("public PUT a /x x-api: 22 / x-b: b", Some("plain")),
        ("other GET a /x", Some("other")),
        // As many conditions, and later in the file.
        ("other WS a /x", Some("ws")),
        ("public POST a /x/deep", Some("post")),
        ("public GET a /x/deep", Some("plain")),
        ("public WS a /x/deep", Some("ws")),
        ("public GET a /y", None),
    ] {
        assert_eq!(ask(toml, request).as_deref(), expect, "{request}");
    }
}

#[test]
fn a_path_that_servers_read_as_an_exact_one_is_refused() {
    let routes = ["path_exact = \"/ws\"", "path_regex = '/\\w+/x'", "path = \"/\""];
    let text: String = routes.iter().map(|keys| format!("[[route]]\nservice = \"echo\"\n{keys}\n")).collect();
    let routes = Routes::new(&Config::parse(Path::new("wssgate.toml"), &text).0.routes);
    let chosen = |path: &str| {
        let path = RequestPath::parse(path).unwrap();
        routes.find(&get("a", &path, &HeaderMap::new())).map(|route| route.unwrap().id.to_string())
    };
    assert_eq!(chosen("/ws").as_deref(), Ok("=/ws"));
    assert_eq!(chosen("/ws/").as_deref(), Ok("/"));
    assert_eq!(chosen("/%2fws"), Err(TwoRoutes));
    assert_eq!(chosen("//ws"), Err(TwoRoutes));
}

/// Of routes for `/` and `/ws`: `None` if the path is refused.
fn chosen(path: &str) -> Option<String> {
    let routes = Routes::new(&[route("", "/"), route("", "/ws"), route("", "/caf%c3%a9")]);
    let path = RequestPath::parse(path).ok()?;
    routes.find(&get("a", &path, &HeaderMap::new())).ok().map(|route| route.unwrap().id.to_string())
}

#[test]
fn a_path_that_leads_to_two_routes_is_refused() {
    for path in [
        "//ws",
        "/%2fws",
        "/%2Fws/x",
        "/;/ws",
        "/;a=b/ws",
        "/\\ws",
        "/%5cws",
        "/ws;a",
        "/ws;a/b",
        "/ws%3Ba",
        "/ws%2fx",
        "/ws\\x",
        "/;%2fx/ws",
        "/;\\x/ws",
        "/;%5cx/ws",
        "/%2f;x%2f/%77s",
    ] {
        assert_eq!(chosen(path), None, "{path}");
    }
}

#[test]
fn a_path_that_leads_to_one_route_goes_there_whatever_is_in_it() {
    for path in [
        "/",
        "//",
        "/a//ws",
        "/a%2Fws",
        "/projects/a%2Fb;c=d//e\\f",
        "/%",
        "/%2",
        "/%zz",
        "/%252fws",
        "/%3Fws",
        "/%00",
        "/a%20b",
        "/wsx;/",
        "/.well-known/a",
    ] {
        assert_eq!(chosen(path).as_deref(), Some("/"), "{path}");
    }
    for path in ["/ws", "/ws/", "/ws//", "/%77s", "/ws/;a/b%2fc\\d", "/ws/%20"] {
        assert_eq!(chosen(path).as_deref(), Some("/ws"), "{path}");
    }
    for path in ["/caf%C3%A9", "/caf%c3%A9/x", "/caf\u{e9}"] {
        assert_eq!(chosen(path).as_deref(), Some("/caf%C3%A9"), "{path}");
    }
}

/// Steps that servers take, written in another way than above.
fn step(kind: u8, path: &str) -> String {
    match kind % 4 {
        0 => {
            let (mut out, mut rest) = (String::new(), path);
            while let Some(c) = rest.chars().next() {
                let code =
                    ["%2f", "%2F", "%5c", "%3b", "%77"].into_iter().find(|code| rest.starts_with(code));
                out.push(code.map_or(c, |code| char::from(u8::from_str_radix(&code[1..], 16).unwrap())));
                rest = &rest[code.map_or(c.len_utf8(), str::len)..];
            }
            out
        }
        1 => {
            let mut is_dropped = false;
            path.chars()
                .filter(|c| {
                    is_dropped = *c == ';' || is_dropped && *c != '/';
                    !is_dropped
                })
                .collect()
        }
        2 => path.chars().map(|c| if c == '\\' { '/' } else { c }).collect(),
        _ => {
            let mut path = path.to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            path
        }
    }
}

proptest! {
    #[test]
    fn no_server_sees_the_path_of_another_route_than_the_one_that_was_chosen(
        pieces in proptest::collection::vec(
            proptest::sample::select(
                vec!["/", "/", "\\", "%2f", "%2F", "%5c", ";", "%3b", "a", "ws", "%77s", "b", "..", "%", "%25"],
            ),
            0..10,
        ),
        steps in proptest::collection::vec(0_u8..4, 0..6),
    ) {
        let path = format!("/{}", pieces.concat());
        let routes = ["/", "/ws", "/ws/a", "/a", "/a/ws", "/a/b"].map(|path| route("", path));
        let routes = Routes::new(&routes);
        let Ok(parsed) = RequestPath::parse(&path) else { return Ok(()) };
        let Ok(Some(chosen)) = routes.find(&get("a", &parsed, &HeaderMap::new())) else { return Ok(()) };
        // Decoding twice is not reading but a fault, which no gateway can make good.
        let mut decoded = false;
        let mut seen = path.clone();
        for &kind in &steps {
            if kind == 0 && std::mem::replace(&mut decoded, true) {
                continue;
            }
            seen = step(kind, &seen);
            prop_assert!(!seen.split('/').any(|segment| segment == ".."), "{} {}", path, seen);
        }
        // How a server finds what a path names.
        let seen = step(3, &seen).replace("%77", "w");
        let found = routes.find_one(&get("a", &parsed, &HeaderMap::new()), &seen).unwrap();
        prop_assert_eq!(&found.id, &chosen.id, "{} is seen as {}", path, seen);
    }

    #[test]
    fn the_table_finds_what_a_walk_over_all_routes_finds(
        routes in proptest::collection::hash_set("(/[ab]{1,2}){0,3}", 0..8),
        path in "(/[ab]{1,2}){0,4}/?",
    ) {
        let routes: Vec<String> = routes.into_iter().map(|p| if p.is_empty() { "/".into() } else { p }).collect();
        let table: Vec<_> = routes.iter().map(|path| ("", path.as_str())).collect();
        let below = |r: &&String| r.as_str() == "/" && path.starts_with('/')
            || path == **r || path.starts_with(&format!("{r}/"));
        let expect = routes.iter().filter(below).max_by_key(|r| r.trim_end_matches('/').len()).cloned();
        prop_assume!(!path.is_empty());
        prop_assert_eq!(found(&table, "a", &path), expect);
    }
}

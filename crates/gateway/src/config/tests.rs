//! A file with most options, and every way to get it wrong.

use std::num::NonZeroU32;
use std::time::Duration;

use tls_acceptor::CertName;

use super::spec::{Default, Shape, TOP_LEVEL};
use super::*;
use crate::net::limits::ClientLimits;
use crate::site::jwt::source::KeySource;
use crate::site::redial::Redial;
use crate::site::route::{Action, Compression};
use crate::site::upstream::ProxyVersion;
use crate::site::{Drain, RemovedRoutes};

const SECOND: Duration = Duration::from_secs(1);

/// A file with most options. The commented ones are the defaults.
const DOCUMENTED: &str = r#"
workers = 2                          # default: one per core
drain_timeout = "30s"
trusted_proxies = ["10.0.0.0/8"]     # whose X-Forwarded-* are trusted; default: none

[[listener]]
address = "0.0.0.0:443"              # TLS; h2 and http/1.1
# tls = false                        # plain text, HTTP/1.1 only
# alpn = ["h2", "http/1.1"]
# min_version = "1.2"
# handshake_timeout = "10s"
# header_timeout = "10s"             # a request head, from its first byte on
# keep_alive_timeout = "75s"         # the wait for the next request
# body_rate = "500B/s"               # the least of a request's body, after its first 20 s; or "off"

[certificates]
directory = "/etc/wssgate/certs"     # every chain + key below it; names are read from the certificates
default = "domain.com"               # its certificate answers no SNI and unknown SNI; leave out to refuse such clients

[[certificate]]                      # or by name, beside or instead of the directory
chain = "/etc/ssl/other/fullchain.pem"   # or a list: ["leaf.pem", "chain.pem"]
key = "/etc/ssl/other/privkey.pem"

[[route]]
host = "domain.com"                  # optional; exact, or "*.domain.com"
path = "/wss"                        # prefix on segment borders
proxy = "http://127.0.0.1:8282"      # upgrades and plain HTTP alike; ws:// means http://
connect_timeout = "5s"

[route.websocket]
idle_timeout = "1h"                  # no message either way for so long: Close 1001 (default: none)
ping_interval = "30s"                # the gateway's own pings to a silent client (default 30s; "off")
pong_timeout = "10s"                 # then the client counts as gone
max_message = "16MiB"                # bytes on the wire of one message, all fragments; over it Close 1009 (default: none in relay, 16 MiB in endpoints)
origins = ["https://domain.com"]     # optional; another Origin gets 403 before any backend is touched; no Origin (not a browser) passes

[[route]]
path = "/"
proxy = "http://127.0.0.1:8080"

[[route]]
path = "/echo"
service = "echo"                     # ends at the gateway
"#;

fn parse(text: &str) -> (Config, Vec<String>) {
    let (config, problems) = Config::parse(Path::new("/etc/wssgate/wssgate.toml"), text);
    (config, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn the_documented_file() {
    let (config, problems) = parse(DOCUMENTED);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((config.workers, config.drain.timeout), (Some(2), 30 * SECOND));
    assert_eq!(config.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    let [listener] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!(listener.address, "0.0.0.0:443".parse().unwrap());
    assert_eq!(listener.tls, Some(tls_acceptor::AcceptorSettings::default()));
    assert_eq!(listener.limits, ClientLimits::DEFAULT);
    let plan = &config.certificates;
    assert_eq!(plan.directory.as_deref(), Some(Path::new("/etc/wssgate/certs")));
    assert_eq!(plan.default, CertName::parse("domain.com"));
    assert!(config.watch);
    assert_eq!(plan.named[0].chain, [Path::new("/etc/ssl/other/fullchain.pem")]);
    let ids: Vec<_> = config.routes.iter().map(|route| route.id.to_string()).collect();
    assert_eq!(ids, ["domain.com/wss", "/", "/echo"]);
    let wss = &config.routes[0];
    let Action::Proxy(upstream) = &wss.action else { panic!("{wss:?}") };
    assert_eq!(
        (upstream.to_string().as_str(), upstream.connector.connect_timeout),
        ("127.0.0.1:8282", 5 * SECOND)
    );
    assert_eq!(wss.policy.idle_timeout, Some(3600 * SECOND));
    assert_eq!((wss.policy.ping_interval, wss.policy.pong_timeout), (Some(30 * SECOND), 10 * SECOND));
    assert_eq!(wss.policy.limits.message_max, 16 * 1024 * 1024);
    assert_eq!(wss.origins.as_ref().unwrap().len(), 1);
    // Defaults: no limit in a relay, one in an endpoint.
    assert_eq!(config.routes[1].policy.limits.message_max, u64::MAX);
    assert_eq!(config.routes[2].policy.limits.message_max, 16 * 1024 * 1024);
    assert_eq!(config.routes[1].policy.ping_interval, Some(30 * SECOND));
}

#[test]
fn the_commented_keys_are_the_defaults() {
    let commented = DOCUMENTED.replace("# alpn", "alpn").replace("# min_version", "min_version");
    let commented = commented.replace("# handshake", "handshake").replace("# header", "header");
    let commented = commented.replace("# keep_alive", "keep_alive").replace("# body_rate", "body_rate");
    let (with, problems) = parse(&commented);
    assert_eq!(problems, Vec::<String>::new());
    let (without, _) = parse(DOCUMENTED);
    assert_eq!(with.listeners[0], without.listeners[0]);
}

#[test]
fn servers_behind_tcp_and_other_protocols() {
    const LISTENER: &str = "[[listener]]\naddress = \"0.0.0.0:80\"\ntls = false\n";
    let route = |lines: &str| parse(&format!("{LISTENER}[[route]]\npath = \"/x\"\n{lines}\n"));
    let (config, problems) = route(
        "proxy = \"TCP://vnc.internal:5900\"\nconnect_timeout = \"1s\"\nsubprotocols = [\"binary\", \"mqtt\"]",
    );
    assert_eq!(problems, Vec::<String>::new());
    let Action::Tcp(server) = &config.routes[0].action else { panic!("{config:?}") };
    assert_eq!((server.to_string().as_str(), server.subprotocols.len()), ("tcp://vnc.internal:5900", 2));
    assert_eq!(
        (server.upstream.connector.connect_timeout, server.upstream.connector.pooled),
        (SECOND, false)
    );
    assert_eq!(config.routes[0].policy.limits.message_max, u64::MAX, "messages are passed on in parts");
    let http = "proxy = \"http://a:1\"\n";
    let (config, problems) = route(&format!("{http}upgrade = [\"WebSocket\", \"SPDY/3.1\"]"));
    assert_eq!(problems, Vec::<String>::new());
    assert!(config.routes[0].takes_websockets() && config.routes[0].upgrades.is_some());
    let (config, _) = route(&format!("{http}upgrade = \"tcp\""));
    assert!(!config.routes[0].takes_websockets());
    let (config, _) = route(http);
    assert!(config.routes[0].takes_websockets() && config.routes[0].upgrades.is_none());
    for (lines, says) in [
        ("proxy = \"tcp://a\"", "the port is missing"),
        ("proxy = \"tcp://a:1/x\"", "a TCP stream has no path"),
        ("proxy = \"tcp://a:1\"\nresponse_timeout = \"1s\"", "no meaning for a backend behind tcp://"),
        ("proxy = \"tcp://a:1\"\nupgrade = \"tcp\"", "no meaning for a backend behind tcp://"),
        ("proxy = \"tcp://a:1\"\nsubprotocols = \"a b\"", "expected a name such as \"mqtt\""),
        ("proxy = \"http://a:1\"\nsubprotocols = \"binary\"", "subprotocols are for backends behind tcp://"),
        ("service = \"echo\"\nsubprotocols = \"binary\"", "subprotocols has no meaning for a service"),
        ("service = \"echo\"\nupgrade = \"tcp\"", "upgrade has no meaning for a service"),
        ("proxy = \"http://a:1\"\nupgrade = \"SPDY 3\"", "expected a protocol"),
        ("proxy = \"http://a:1\"\nupgrade = []", "an empty list"),
        ("proxy = \"http://a:1\"\nupgrade = \"h2c\"", "requests that no rule of the gateway sees"),
        ("proxy = \"http://a:1\"\nupgrade = \"TLS/1.2\"", "requests that no rule of the gateway sees"),
    ] {
        let (_, problems) = route(lines);
        assert!(problems.len() == 1 && problems[0].contains(says), "{lines}: {problems:?}");
    }
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let text = DOCUMENTED.replace("/etc/wssgate/certs", "certs").replace("/etc/ssl/other/", "other/");
    let (config, _) = parse(&text);
    assert_eq!(config.certificates.directory.as_deref(), Some(Path::new("/etc/wssgate/certs")));
    assert_eq!(config.certificates.named[0].key, Path::new("/etc/wssgate/other/privkey.pem"));
    let list = text.replace("\"other/fullchain.pem\"", "[\"leaf.pem\", \"/abs/chain.pem\"]");
    let (config, problems) = parse(&list);
    assert_eq!(problems, Vec::<String>::new());
    let chain = &config.certificates.named[0].chain;
    assert_eq!(chain, &[Path::new("/etc/wssgate/leaf.pem"), Path::new("/abs/chain.pem")]);
}

#[test]
fn durations_and_sizes_as_people_write_them() {
    for (text, expect) in [("1h", 3600), ("90m", 5400), ("1h 30m", 5400), ("2days", 172_800)] {
        let (config, problems) = parse(&DOCUMENTED.replace("\"1h\"", &format!("\"{text}\"")));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(config.routes[0].policy.idle_timeout, Some(expect * SECOND), "{text}");
    }
    for (text, expect) in [
        ("\"64KB\"", 64_000),
        ("\"64 KiB\"", 65_536),
        ("\"1.5 MiB\"", 1_572_864),
        ("\"1000B\"", 1000),
        ("4096", 4096),
        ("0x1000", 4096),
    ] {
        let (config, problems) = parse(&DOCUMENTED.replace("\"16MiB\"", text));
        assert_eq!(problems, Vec::<String>::new(), "{text}");
        assert_eq!(config.routes[0].policy.limits.message_max, expect, "{text}");
    }
    for (lines, expect, memory_max) in [
        ("", Compression::Pass, Some(64 << 20)),
        ("compression = \"pass\"", Compression::Pass, Some(64 << 20)),
        ("compression = \"terminate\"", Compression::Terminate { history_max: 4096 }, Some(1 << 20)),
        (
            "compression = \"terminate\"\ncompression_history = \"32KiB\"",
            Compression::Terminate { history_max: 32_768 },
            None,
        ),
        (
            "compression = \"terminate\"\ncompression_history = \"off\"",
            Compression::Terminate { history_max: 0 },
            Some(0),
        ),
    ] {
        let memory = match memory_max {
            Some(0x400_0000) => String::new(),
            Some(bytes) => format!("max_compression_memory = \"{bytes}B\"\n"),
            None => "max_compression_memory = \"off\"\n".to_owned(),
        };
        let text = DOCUMENTED
            .replace("max_message = \"16MiB\"", lines)
            .replace("workers = 2", &(memory + "workers = 2"));
        let (config, problems) = parse(&text);
        assert_eq!(problems, Vec::<String>::new(), "{lines}");
        assert_eq!(
            (config.routes[0].compression, config.compression_memory_max),
            (expect, memory_max),
            "{lines}"
        );
    }
    let (config, _) =
        parse(&DOCUMENTED.replace("\"30s\"                # the", "\"off\"                # the"));
    assert_eq!(config.routes[0].policy.ping_interval, None);
}

/// One replacement in the documented file, and the problems it makes.
#[track_caller]
fn check(from: &str, to: &str, expect: &[&str]) {
    assert!(DOCUMENTED.contains(from), "{from}");
    let (_, problems) = parse(&DOCUMENTED.replacen(from, to, 1));
    assert_eq!(problems.len(), expect.len(), "{problems:#?}");
    for (problem, expect) in problems.iter().zip(expect) {
        let problem = problem.strip_prefix("/etc/wssgate/wssgate.toml:").unwrap();
        let (place, what) = expect.split_once(' ').unwrap();
        assert!(problem.starts_with(place) && problem.contains(what), "{problem}\n  is not\n{expect}");
    }
}

#[test]
fn each_mistake_is_named_with_its_place() {
    check(
        "workers = 2",
        "workers = \"2\"",
        &["2:11: expected a number from 1 to 1024, found the string \"2\""],
    );
    check("workers = 2", "workers = 0", &["2:11: found 0"]);
    check("workers", "worker", &["2:1: did you mean workers?"]);
    check("drain_timeout = \"30s\"", "drain_timeout = 30", &["3:17: such as \"30s\", found the number 30"]);
    check("\"30s\"", "\"30\"", &["3:17: write \"30s\" for seconds"]);
    check("\"30s\"", "\"5M\"", &["3:17: write \"5m\" for minutes"]);
    check("\"30s\"", "\"0s\"", &["3:17: expected a duration"]);
    check("10.0.0.0/8", "10.0.0.0/33", &["4:20: expected an address or a network"]);
    check("0.0.0.0:443", "*:443", &["7:11: expected an IP address and a port"]);
    check("address = \"0.0.0.0:443\"", "", &["6:1: needs address"]);
    check("# tls = false", "tls = \"no\"", &["8:7: expected true or false"]);
    check("# alpn = [\"h2\"", "alpn = [\"h3\"", &["9:9: expected \"h2\" or \"http/1.1\""]);
    check("# alpn = [\"h2\", \"http/1.1\"]", "alpn = []", &["9:8: empty list"]);
    check("# min_version = \"1.2\"", "min_version = \"1.1\"", &["10:15: not safe"]);
    check(
        "# tls = false                        #",
        "tls = false\nalpn = [\"h2\"]\n#",
        &["9:8: has no meaning"],
    );
    check(
        "# tls = false                        #",
        "websocket_over_http2 = \"no\" #",
        &["8:24: expected \"on\" or \"off\""],
    );
    check(
        "# tls = false                        #",
        "tls = false\nwebsocket_over_http2 = \"off\"\n#",
        &["9:24: has no meaning"],
    );
    check("directory", "dir", &["17:1: unknown key \"dir\""]);
    check("default = \"domain.com\"", "default = \"https://a\"", &["18:11: expected a host name"]);
    check("key = \"/etc", "kye = \"/etc", &["20:1: needs key", "22:1: did you mean key?"]);
    check("host = \"domain.com\"", "host = \"domain.com:443\"", &["25:8: without a port"]);
    check("path = \"/wss\"", "path = \"wss\"", &["26:8: begins with a slash"]);
    check("path = \"/wss\"", "", &["24:1: needs path"]);
    check("connect_timeout = \"5s\"", "[route.tls]\nca = \"ca.pem\"", &["28:1: write https:// there"]);
    let empty = "connect_timeout = \"5s\"\n[route.tls]\nca = []";
    check("connect_timeout = \"5s\"", empty, &["29:1: write https:// there"]);
    check("http://127.0.0.1:8282", "http://127.0.0.1:8282/other?x", &["27:9: without ?"]);
    check("connect_timeout = \"5s\"", "proxy_protocol = \"v3\"", &["28:18: expected \"v1\" or \"v2\""]);
    check("connect_timeout = \"5s\"", "protocol = \"http2\"", &["28:12: expected \"http/1.1\" or \"h2\""]);
    let both = "protocol = \"h2\"\npool = \"off\"";
    check("connect_timeout = \"5s\"", both, &["27:9: pool = \"off\" gives each request its own; remove one"]);
    let both = "protocol = \"h2\"\nproxy_protocol = \"v2\"";
    check(
        "connect_timeout = \"5s\"",
        both,
        &["27:9: proxy_protocol names one client for a whole connection"],
    );
    check("service = \"echo\"", "service = \"echo\"\nprotocol = \"h2\"", &["44:12: has no meaning"]);
    check("connect_timeout = \"5s\"", "strip_prefix = \"/ws\"", &["28:16: expected the route's path (/wss)"]);
    check("connect_timeout = \"5s\"", "rewrite = \"/{path}\"", &["28:11: only placeholder"]);
    let both = "strip_prefix = \"/wss\"\nrewrite = \"/new{rest}\"";
    check("connect_timeout = \"5s\"", both, &["29:11: strip_prefix says already"]);
    let both = "http://127.0.0.1:8282/\"\nstrip_prefix = \"/wss";
    check("http://127.0.0.1:8282", both, &["28:16: the path behind the address in proxy says already"]);
    check("connect_timeout = \"5s\"", "rewrite_location = true", &["28:20: gets paths unchanged"]);
    let forgetful = "rewrite = \"/one\"\nrewrite_location = true";
    check("connect_timeout = \"5s\"", forgetful, &["29:20: only if rewrite ends with {rest}"]);
    check("service = \"echo\"", "service = \"echo\"\nstrip_prefix = \"/echo\"", &["44:16: has no meaning"]);
    check("http://127.0.0.1:8282", "127.0.0.1:8282", &["27:9: expected an address"]);
    check("proxy = \"http://127.0.0.1:8282\"", "", &["24:1: needs proxy"]);
    check("service = \"echo\"", "service = \"ecco\"", &["43:11: expected \"echo\" or \"console\""]);
    check("service = \"echo\"", "service = \"echo\"\nproxy = \"http://a\"", &["43:11: not both"]);
    check("service = \"echo\"", "service = \"echo\"\nconnect_timeout = \"1s\"", &["44:19: has no meaning"]);
    check("service = \"echo\"", "service = \"echo\"\npool = \"off\"", &["44:8: has no meaning"]);
    check("connect_timeout = \"5s\"", "pool = \"no\"", &["28:8: expected \"on\" or \"off\""]);
    check("service = \"echo\"", "service = \"echo\"\nfield_names = \"as-sent\"", &["44:15: has no meaning"]);
    check("connect_timeout = \"5s\"", "field_names = \"same\"", &["28:15: expected \"canonical\" or"]);
    check("http://127.0.0.1:8282", "http://$BACKEND", &["27:9: proxy: expected an address"]);
    check("path = \"/wss\"", "path = \"/wss/*\"", &["26:8: or \"/wss\""]);
    check("host = \"domain.com\"", "host = \"_\"", &["25:8: leave host out"]);
    check("connect_timeout = \"5s\"", "workers = 2", &["28:1: belongs to the top level"]);
    check("connect_timeout = \"5s\"", "ping_interval = \"5s\"", &["28:1: belongs to [route.websocket]"]);
    check("pong_timeout", "connect_timeout", &["33:1: write it above [route.websocket]"]);
    check("connect_timeout = \"5s\"", "proxy_pass = \"x\"", &["28:1: write proxy in [[route]]"]);
    check("idle_timeout = \"1h\"", "idle_timeout = \"soon\"", &["31:16: expected a duration"]);
    check("\"16MiB\"", "\"lots\"", &["34:15: expected a size"]);
    check("\"16MiB\"", "\"16m\"", &["34:15: write \"16MiB\", or \"16MB\""]);
    check("\"16MiB\"", "\"16\"", &["34:15: write \"16B\" for bytes"]);
    check("\"16MiB\"", "16", &["34:15: write \"16B\" for bytes"]);
    check(
        "service = \"echo\"",
        "service = \"echo\"\n[route.websocket]\nmax_message = \"off\"",
        &["45:15: held in memory"],
    );
    check("\"16MiB\"", "0", &["34:15: refuse every message"]);
    let deflate = |lines| format!("max_message = \"1MiB\"\n{lines}");
    let check_deflate = |lines, what| check("max_message = \"16MiB\"", &deflate(lines), &[what]);
    check_deflate("compression = \"end\"", "35:15: expected \"pass\" or \"terminate\"");
    check_deflate("compression_history = \"1KiB\"", "35:23: needs compression = \"terminate\"");
    check_deflate(
        "compression = \"terminate\"\ncompression_history = \"255B\"",
        "36:23: 256 B to 32 KiB, or \"off\"",
    );
    check_deflate("compression = \"terminate\"\ncompression_history = \"33KiB\"", "36:23: 256 B to 32 KiB");
    check(
        "service = \"echo\"",
        "service = \"console\"\n[route.websocket]\ncompression = \"terminate\"",
        &["45:15: only WebSocket servers behind proxy, and service = \"echo\""],
    );
    check("service = \"echo\"", "service = \"echo\"\n[route.websocket]\ncompression = \"terminate\"", &[]);
    check("\"16MiB\"", "-1", &["34:15: expected a size"]);
    check("https://domain.com", "domain.com", &["35:12: expected an origin"]);
    check("[route.websocket]", "[route.websockets]", &["30:8: did you mean websocket?"]);
    check("path = \"/echo\"", "path = \"/\"", &["41:1: the route / exists already (line 37)"]);
    check(
        "path = \"/echo\"",
        "path = \"/wss/\"\nhost = \"Domain.COM.\"",
        &["41:1: domain.com/wss exists already"],
    );
    check("# keep_alive_timeout = \"75s\"", "keep_alive_timeout = 75", &["13:22: such as \"75s\""]);
    check("# body_rate = \"500B/s\"", "body_rate = \"500B\"", &["14:13: expected a rate such as"]);
    check("# body_rate = \"500B/s\"", "body_rate = \"500/s\"", &["14:13: write \"500B\""]);
    check("# body_rate = \"500B/s\"", "body_rate = \"0B/s\"", &["14:13: expected a rate such as"]);
    check("[[listener]]", "[listener]", &["6:1: expected tables [[listener]] (two brackets)"]);
    check("[certificates]", "[[certificates]]", &["16:1: expected a table [certificates], found an array"]);
}

#[test]
fn sessions_may_have_a_lifetime() {
    let with = |value: &str| {
        let (config, problems) =
            parse(&DOCUMENTED.replace("idle_timeout = \"1h\"", &format!("lifetime = {value}")));
        (config.routes[0].policy.lifetime, problems)
    };
    assert_eq!(parse(DOCUMENTED).0.routes[0].policy.lifetime, None);
    assert_eq!(with("\"1d\""), (Some(86_400 * SECOND), vec![]));
    assert_eq!(with("\"off\""), (None, vec![]));
    check("idle_timeout = \"1h\"", "lifetime = \"0s\"", &["31:12: lifetime"]);
    check("idle_timeout = \"1h\"", "lifetime = 60", &["31:12: such as \"60s\""]);
    check("idle_timeout = \"1h\"", "messages = \"100\"", &["31:12: messages: expected"]);
    check("idle_timeout = \"1h\"", "bytes = \"1MiB\"", &["31:9: expected a rate such as"]);
    check("idle_timeout = \"1h\"", "on_limit = \"close\"", &["31:12: there is no limit"]);
    check("idle_timeout = \"1h\"", "messages = \"9/s\"\non_limit = \"drop\"", &["32:12: expected"]);
}

#[test]
fn tls_towards_servers() {
    let file = |tls: &str| {
        DOCUMENTED
            .replace("http://127.0.0.1:8282", "wss://10.0.0.1")
            .replace("[route.websocket]", &format!("{tls}\n[route.websocket]"))
    };
    let endpoint = |config: &Config| {
        let Action::Proxy(upstream) = &config.routes[0].action else { panic!("{:?}", config.routes[0]) };
        upstream.first().endpoint.clone()
    };
    let (config, problems) = parse(&file(""));
    assert_eq!(problems, Vec::<String>::new());
    let tls = endpoint(&config).tls.clone().unwrap();
    assert_eq!((tls.name.to_string().as_str(), tls.settings.authorities.len()), ("10.0.0.1", 0));
    let (config, problems) = parse(&file(
        "[route.tls]\nca = \"ca.pem\"\nserver_name = \"App.internal\"\nclient_certificate = { chain = \"c\", key = \"k\" }",
    ));
    assert_eq!(problems, Vec::<String>::new());
    let tls = endpoint(&config).tls.clone().unwrap();
    assert_eq!(
        (tls.name.to_string().as_str(), tls.written_at),
        ("app.internal", Place { file: 0, line: 30, column: 1 })
    );
    assert_eq!(tls.settings.authorities, [Path::new("/etc/wssgate/ca.pem")]);
    assert_eq!(tls.settings.client_certificate.as_ref().unwrap().key, Path::new("/etc/wssgate/k"));
    let (_, problems) = parse(&file("[route.tls]\nca = []\nserver_name = \"a b\""));
    assert!(problems[0].contains(":31:6: ca: an empty list would trust no backend"), "{problems:?}");
    assert!(problems[1].contains(":32:15: server_name: expected a host name"), "{problems:?}");
}

#[test]
fn tokens() {
    let jwt = |lines: &str| {
        parse(&format!(
            "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n[route.access]\njwt = {{ {lines} }}\n"
        ))
    };
    let (config, problems) =
        jwt("jwks = \"keys.json\", issuer = \"https://a.test\", audience = [\"a\", \"b\"], \
         from = [\"header\", \"query:t\"], headers = { sub = \"X-User\" }, pass_token = true");
    assert_eq!(problems, Vec::<String>::new());
    let auth = config.routes[0].access.as_ref().unwrap().auth.as_ref().unwrap();
    let jwt_read = auth.jwt.as_ref().unwrap();
    assert_eq!(jwt_read.keys.source, KeySource::File("/etc/wssgate/keys.json".into()));
    assert_eq!((jwt_read.audiences.len(), jwt_read.places.len(), jwt_read.is_passed), (2, 2, true));
    assert!(auth.reserved.covers(&http::HeaderName::from_static("x_user")));
    for (wrong, expect) in [
        ("issuer = \"a\"", "jwks"),
        ("jwks = \"ftp://a/keys\"", "expected a file, or an address with http:// or https://"),
        ("jwks = \"http://a b/keys\"", "jwks: expected an address"),
        ("jwks = \"http://a/keys\", ca = \"ca.pem\"", "ca: the address has no TLS"),
        ("jwks = \"https://a/keys\", ca = []", "ca: an empty list would trust no server"),
        ("jwks = \"a\", ca = \"ca.pem\"", "ca: a file of keys needs none"),
        ("jwks = \"a\", refresh = \"1m\"", "refresh: a file of keys needs none"),
        ("jwks = \"a\", timeout = \"5s\"", "timeout: a file of keys needs none"),
        ("jwks = \"a\", issuer = []", "issuer: an empty list would refuse every token"),
        ("jwks = \"a\", audience = []", "audience: an empty list would refuse every token"),
        ("jwks = \"a\", from = []", "from: an empty list would refuse every token"),
        ("jwks = \"a\", from = \"body\"", "expected \"header\", or a place such as"),
        (
            "jwks = \"a\", headers = { sub = \"Upgrade\" }",
            "headers: sub: this field belongs to the connection",
        ),
        ("jwks = \"a\", headers = { sub = 1 }", "expected the name of a field in quotes"),
        ("jwks = \"a\", headers = \"sub\"", "expected { sub = \"X-User\" }"),
    ] {
        let (_, problems) = jwt(wrong);
        assert!(problems.len() == 1 && problems[0].contains(expect), "{wrong}: {problems:?}");
    }
}

#[test]
fn certificates_of_clients() {
    let named = |client_auth: &str| {
        let key = "key = \"/etc/ssl/other/privkey.pem\"\n";
        assert!(DOCUMENTED.contains(key));
        parse(&DOCUMENTED.replace(key, &format!("{key}client_auth = {client_auth}\n")))
    };
    let (config, problems) = named("{ ca = \"ca.pem\", required = false, crl = [\"a.crl\", \"b.crl\"] }");
    assert_eq!(problems, Vec::<String>::new());
    let rules = config.certificates.named[0].client_auth.as_ref().unwrap();
    assert_eq!(rules.authorities, [Path::new("/etc/wssgate/ca.pem")]);
    assert_eq!((rules.required, rules.revocation_lists.len()), (false, 2));
    let (config, _) = named("{ ca = \"ca.pem\" }");
    assert!(config.certificates.named[0].client_auth.as_ref().unwrap().required);
    for (wrong, expect) in [
        ("{ ca = [] }", "ca: an empty list would refuse every client"),
        ("{ required = true }", "ca"),
        ("{ ca = \"a\", require = true }", "unknown key \"require\""),
        ("true", "client_auth"),
    ] {
        let (_, problems) = named(wrong);
        assert!(problems.len() == 1 && problems[0].contains(expect), "{wrong}: {problems:?}");
    }
}

#[test]
fn limits_that_may_be_lifted() {
    let text = DOCUMENTED.replace("\"16MiB\"", "\"off\"").replace("\"1h\"", "\"off\"");
    let text = text.replace("connect_timeout = \"5s\"", "response_timeout = \"off\"");
    let (config, problems) = parse(&text.replace("drain_timeout = \"30s\"", "takeover_timeout = \"off\""));
    assert_eq!(problems, Vec::<String>::new());
    let route = &config.routes[0];
    assert_eq!((route.policy.limits.message_max, route.policy.idle_timeout), (u64::MAX, None));
    let Action::Proxy(upstream) = &route.action else { panic!("{route:?}") };
    let year = 365 * 24 * 3600 * SECOND;
    assert!(upstream.response_timeout > year && config.takeover_timeout > year);
}

#[test]
fn memory_has_a_limit_of_its_own_or_the_machines() {
    let (config, _) = parse(DOCUMENTED);
    assert!(config.memory_max.unwrap() >= 8 << 20);
    let (config, problems) = parse(&format!("max_memory = \"off\"{DOCUMENTED}"));
    assert_eq!((config.memory_max, problems), (None, vec![]));
    let (config, problems) = parse(&format!("max_memory = \"8MiB\"{DOCUMENTED}"));
    assert_eq!((config.memory_max, problems), (Some(8 << 20), vec![]));
    let (_, problems) = parse(&format!("max_memory = \"7MiB\"{DOCUMENTED}"));
    assert!(
        problems[0].contains("1:14: max_memory: 7340032 bytes are too little for 2 workers"),
        "{problems:?}"
    );
}

#[test]
fn one_string_may_stand_for_a_list() {
    let text = DOCUMENTED.replace("[\"10.0.0.0/8\"]", "\"10.0.0.0/8\"");
    let (config, problems) = parse(&text.replace("[\"https://domain.com\"]", "\"https://domain.com\""));
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((config.trusted_proxies.len(), config.routes[0].origins.as_ref().unwrap().len()), (1, 1));
}

/// A file with every section, and one line more at the beginning of `section`: an option, or one in a comment, for a file
/// that is the same but for the option.
pub(super) fn with_line(section: &str, line: &str) -> String {
    const FILE: &str = "the top level\n[[listener]]\naddress = \"127.0.0.1:443\"\n[certificates]\ndirectory = \"certs\"\n\
        [[certificate]]\nchain = \"c.pem\"\nkey = \"k.pem\"\n[certificate.client_auth]\nca = \"ca.pem\"\n[[route]]\npath = \"/a\"\nproxy = \"http://a\"\n\
        [route.when]\n[route.websocket]\n[route.access]\nrequests = \"50/s\"\n[route.access.basic]\nfile = \"users\"\n[route.access.jwt]\njwks = \"keys.json\"\n[route.access.forward]\nurl = \"http://verify/\"\n[admin]\n[control]\n[dns]\n[log]\n[[route]]\npath = \"/b\"\n[route.redirect]\nto = \"/new\"\n\
         [[route]]\npath = \"/c\"\n[route.respond]\nbody = \"c\"\n\
         [[route]]\npath = \"/d\"\n[route.files]\ndirectory = \"www\"\n\
         [[route]]\npath = \"/g\"\n[route.fastcgi]\nserver = \"a:1\"\nroot = \"www\"\n\
        [[route]]\npath = \"/e\"\nproxy = \"https://e\"\n\
        [route.tls]\n[route.tls.client_certificate]\nchain = \"c.pem\"\nkey = \"k.pem\"\n\
        [[route]]\npath = \"/f\"\nproxy = \"http://f\"\n[route.request_headers]\n[route.response_headers]\n[route.compress]\n\
        [route.cors]\norigins = \"https://a.test\"\n\
         [[upstream]]\nname = \"u\"\nservers = \"http://u\"\n\
         [upstream.sticky]\n[upstream.retry]\n[upstream.queue]\nlength = 1\ntimeout = \"1s\"\n\
         [upstream.health]\nprobe = \"http\"\n[upstream.health.passive]\n\
         [[upstream]]\nname = \"v\"\n[[upstream.servers]]\naddress = \"http://v\"\n\
         [[upstream]]\nname = \"w\"\nservers = \"https://w\"\n\
         [upstream.tls]\n[upstream.tls.client_certificate]\nchain = \"c.pem\"\nkey = \"k.pem\"\n\
         [[route]]\npath = \"/u\"\nproxy = \"u\"\n[[route]]\npath = \"/v\"\nproxy = \"v\"\n\
         [[route]]\npath = \"/w\"\nproxy = \"w\"\n";
    let key = line.split('=').next().unwrap().trim_start_matches('#').trim();
    // Of these a route has one.
    let key = match key {
        "service" | "files" | "fastcgi" | "redirect" | "respond" => "proxy",
        "path_exact" | "path_regex" => "path",
        key => key,
    };
    let text = match key {
        "subprotocols" => FILE.replace("http://a", "tcp://a:1"), // only these servers have any
        "compression_history" => {
            FILE.replace("[route.websocket]\n", "[route.websocket]\ncompression = \"terminate\"\n")
        }
        _ => FILE.to_owned(),
    };
    // With these the certificates have to be watched.
    let acme = "[[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n[acme]\nnames = \"a.test\"\n\
                [acme.external_account]\nkey_id = \"k\"\nhmac_key = \"AQID\"\n\
                [acme.on_demand]\nnames = \"*.a.test\"\nask = \"http://ask/\"\n";
    let text = if section.starts_with("[acme") { text + acme } else { text };
    let mut file: Vec<String> = Vec::new();
    let mut is_here = false;
    for old in text.lines() {
        if old == TOP_LEVEL || old.starts_with('[') {
            is_here = old == section && !file.iter().any(|written| written == line);
            file.push(if old == TOP_LEVEL { String::new() } else { old.to_owned() });
            file.extend(is_here.then(|| line.to_owned()));
        } else if !(is_here && old.starts_with(&format!("{key} ="))) {
            file.push(old.to_owned());
        }
    }
    assert!(file.iter().any(|written| written == line), "no {section}");
    let file = file.join("\n") + "\n";
    if section == "[[listener]]" && line.starts_with("redirect =") {
        // For a listener without TLS, beside one with it.
        return file.replace(line, &format!("tls = false\n{line}"))
            + "[[listener]]\naddress = \"127.0.0.1:444\"\n";
    }
    if section == "[acme]" && (key.starts_with("dns_") || line.contains("dns-01")) {
        let command = if key == "dns_command" { "" } else { "dns_command = \"x\"\n" };
        let challenge = if key == "challenge" { "" } else { "challenge = \"dns-01\"\n" };
        return file.replace(line, &format!("{challenge}{command}{line}"));
    }
    if section == "[route.access.jwt]" && matches!(key, "ca" | "refresh" | "timeout") {
        return file.replace("jwks = \"keys.json\"", "jwks = \"https://issuer/keys\"");
    }
    if section == "[route.access.forward]" && key == "ca" {
        return file.replace("http://verify/", "https://verify/");
    }
    if section == "[[upstream]]" && key.starts_with("redial_") {
        return file.replace(line, &format!("session_lost = \"redial\"\n{line}"));
    }
    if section == "[[upstream]]" && key == "name" {
        return file.replace("[[route]]\npath = \"/u\"\nproxy = \"u\"\n", "");
    }
    file
}

/// Every option that is declared is read in its section.
#[test]
fn every_option_is_read_in_its_section() {
    let described = TopLevel::describe();
    let mut count = 0;
    for section in described.walk() {
        for option in section.options.iter().filter(|option| matches!(option.shape, Shape::Value { .. })) {
            let key = option.key;
            let (_, problems) = parse(&with_line(section.name, &format!("{key} = 1979-05-27"))); // none is a date
            assert!(
                problems.len() == 1 && problems[0].contains(&format!("{key}: expected")),
                "{key} in {}: {problems:#?}",
                section.name
            );
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn required_options_are_missed_and_their_examples_are_good() {
    for section in TopLevel::describe().walk() {
        for option in &section.options {
            if let Default::Required(example) = option.default {
                let good = with_line(section.name, &format!("{} = {example}", option.key));
                assert_eq!(parse(&good).1, Vec::<String>::new());
                let (_, problems) = parse(&good.replace(&format!("{} = {example}\n", option.key), ""));
                assert!(
                    problems.len() == 1 && problems[0].contains(&format!("needs {}", option.key)),
                    "{problems:#?}"
                );
            }
        }
    }
}

#[test]
fn a_configuration_is_read_from_a_file_or_a_text() {
    let text = "[[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n[control]\nsocket = \"x.sock\"\n\
                [[route]]\npath = \"/\"\nservice = \"echo\"\n";
    let config = Config::from_toml(text, Path::new("/etc/wssgate")).unwrap();
    assert_eq!(config.control.unwrap().path, Path::new("/etc/wssgate/x.sock"));
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("wssgate.toml");
    std::fs::write(&file, text).unwrap();
    assert_eq!(Config::from_file(&file).unwrap().routes.len(), 1);
    std::fs::write(&file, "workers = 0\nworker = 1\n").unwrap();
    let problems = Config::from_file(&file).unwrap_err();
    assert_eq!(problems.0.len(), 4, "{problems}");
    assert_eq!(problems.to_string().lines().count(), 4);
}

#[test]
fn all_problems_are_reported_at_once_and_in_order() {
    let text = "workers = 0\nworker = 1\n[[listener]]\naddress = \"x\"\ntsl = true\n[[route]]\npath = \"x\"\n\
                [[route]]\nproxy = 5\n[route.websocket]\npong_timeout = false\norigins = [\"a\", 5]\n";
    let (_, problems) = parse(text);
    let places: Vec<&str> = problems.iter().map(|p| p.split(':').nth(1).unwrap()).collect();
    assert_eq!(places, ["1", "2", "4", "5", "6", "7", "8", "9", "11", "12", "12"], "{problems:#?}");
}

#[test]
fn files_that_are_no_toml_or_not_there() {
    let (_, problems) = parse("workers = 0\n[[listener\naddress = \"x\"\n");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains(":1:11:") && problems[1].contains(":2:"), "{problems:#?}");
    assert!(problems[1].contains("this is not TOML"), "{problems:#?}");
    let (_, problems) = parse("");
    assert_eq!(problems.len(), 2, "{problems:#?}"); // no listener, no route
    let (_, problems) =
        parse("[[listener]]\naddress = \"127.0.0.1:443\"\n[[route]]\npath = \"/\"\nservice = \"echo\"\n");
    assert!(problems[0].contains(":2:11: a listener with TLS needs certificates"), "{problems:#?}");
    let (_, problems) = Config::read(Path::new("/nowhere/wssgate.toml"));
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.to_string().starts_with("/nowhere/wssgate.toml:1:1: can't be read"), "{problem}");
}

#[test]
fn ipv6_and_single_addresses() {
    let text = DOCUMENTED.replace("0.0.0.0:443", "[::]:443").replace("10.0.0.0/8", "2001:db8::1");
    let (config, problems) = parse(&text);
    assert_eq!(problems, Vec::<String>::new());
    assert!(config.listeners[0].address.ip().unwrap().is_ipv6());
    assert_eq!(config.trusted_proxies[0].prefix_len(), 128);
}

#[test]
fn no_address_is_listened_on_twice() {
    let listeners = |first: &str, second: &str| {
        let second = format!("[[listener]]\naddress = \"{second}\"\n[certificates]");
        parse(&DOCUMENTED.replace("0.0.0.0:443", first).replace("[certificates]", &second)).1
    };
    // Port 0 too: settings are found by the address that is written here.
    for (address, says) in [
        ("0.0.0.0:443", "is listened on already (line 7); keep one of the two"),
        ("[::1]:443", "is listened on already (line 7); keep one of the two"),
        (
            "127.0.0.1:0",
            "is there already (line 7), and a listener is known by the address that is written here",
        ),
        ("[::1]:0", "is there already (line 7), and a listener is known by the address that is written here"),
    ] {
        let problems = listeners(address, address);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(&format!(":17:11: address: {address} {says}")), "{problems:?}");
    }
    assert_eq!(listeners("127.0.0.1:0", "127.0.0.2:0"), Vec::<String>::new());
    // All addresses of the machine, and one of them.
    for (first, second) in
        [("0.0.0.0:443", "127.0.0.1:443"), ("127.0.0.1:443", "0.0.0.0:443"), ("[::]:443", "[::1]:443")]
    {
        let problems = listeners(first, second);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let expect = format!(":17:11: address: {second} overlaps with {first} (line 7)");
        assert!(problems[0].contains(&expect), "{problems:?}");
    }
    for (first, second) in
        [("0.0.0.0:443", "[::]:443"), ("0.0.0.0:443", "127.0.0.1:80"), ("0.0.0.0:0", "127.0.0.1:0")]
    {
        assert_eq!(listeners(first, second), Vec::<String>::new());
    }
}

#[test]
fn how_a_drain_goes() {
    let top = |keys: &str| parse(&DOCUMENTED.replace("drain_timeout = \"30s\"", keys));
    let (config, problems) = parse(DOCUMENTED);
    assert_eq!(problems, Vec::<String>::new());
    let default =
        Drain { delay: Duration::ZERO, window: 10 * SECOND, timeout: 30 * SECOND, close_code: 1001 };
    assert_eq!((config.drain, config.removed_routes), (default, RemovedRoutes::Drain));
    let keys = "drain_timeout = \"1m\"\ndrain_delay = \"15s\"\ndrain_window = \"20s\"\n\
                drain_close_code = 1012\nremoved_routes = \"keep\"";
    let (config, problems) = top(keys);
    assert_eq!(problems, Vec::<String>::new());
    let expect = Drain { delay: 15 * SECOND, window: 20 * SECOND, timeout: 60 * SECOND, close_code: 1012 };
    assert_eq!((config.drain, config.removed_routes), (expect, RemovedRoutes::Keep));
    for code in [1001, 1012, 1013, 3000, 4999] {
        assert_eq!(top(&format!("drain_close_code = {code}")).1, Vec::<String>::new());
    }
    // 1000 tells clients not to come again; 1006 is never sent; 1011 would be a lie.
    for code in [0, 1000, 1006, 1011, 2999, 5000] {
        let problems = top(&format!("drain_close_code = {code}")).1;
        assert!(problems.len() == 1 && problems[0].contains(":3:20: drain_close_code: "), "{problems:?}");
    }
    assert_eq!(top("drain_delay = \"0s\"").1, Vec::<String>::new());
    for (keys, expect) in [
        ("drain_delay = \"30s\"", ":3:15: drain_delay: it is a part of drain_timeout (30s)"),
        ("drain_delay = \"soon\"", ":3:15: drain_delay: expected a duration"),
        ("removed_routes = \"cut\"", ":3:18: removed_routes: expected \"drain\" or \"keep\""),
    ] {
        let problems = top(keys).1;
        assert!(problems.len() == 1 && problems[0].contains(expect), "{problems:?}");
    }
}

#[test]
fn the_admin_listener() {
    assert_eq!(parse(DOCUMENTED).0.admin, None);
    let admin = |section: &str| {
        let (config, problems) = parse(&DOCUMENTED.replace("[certificates]", section));
        (config.admin.map(|admin| admin.address.to_string()), problems)
    };
    let (address, problems) = admin("[admin]\n[certificates]");
    assert_eq!((address.as_deref(), problems), (Some("127.0.0.1:9180"), vec![]));
    let (address, problems) = admin("[admin]\naddress = \"[::1]:1\"\n[certificates]");
    assert_eq!((address.as_deref(), problems), (Some("[::1]:1"), vec![]));
    for (section, expect) in [
        ("[admin]\naddress = \"0.0.0.0:443\"\n[certificates]", ":17:11: address: 0.0.0.0:443 is listened on"),
        ("[admin]\naddress = \"127.0.0.1:443\"\n[certificates]", ":17:11: address: 127.0.0.1:443 overlaps"),
        ("[admin]\nadress = \"127.0.0.1:1\"\n[certificates]", ":17:1: unknown key \"adress\""),
    ] {
        let problems = admin(section).1;
        assert!(problems.len() == 1 && problems[0].contains(expect), "{problems:?}");
    }
}

#[test]
fn the_control_socket() {
    assert_eq!(parse(DOCUMENTED).0.control, None);
    let control = |section: &str| {
        let (config, problems) = parse(&DOCUMENTED.replace("[certificates]", section));
        (config.control.map(|control| control.path.display().to_string()), problems)
    };
    for (section, expect) in [
        ("[control]\n[certificates]", "/run/wssgate/control.sock"),
        ("[control]\nsocket = \"/tmp/x\"\n[certificates]", "/tmp/x"),
        ("[control]\nsocket = \"x.sock\"\n[certificates]", "/etc/wssgate/x.sock"),
    ] {
        assert_eq!(control(section), (Some(expect.to_owned()), vec![]));
    }
    for (section, expect) in [
        ("[control]\nsocket = \"\"\n[certificates]", ":17:10: socket: expected a path"),
        ("[control]\nsokcet = \"x\"\n[certificates]", ":17:1: unknown key \"sokcet\""),
        ("[control]\ntap = \"yes\"\n[certificates]", ":17:7: tap: expected true or false"),
    ] {
        let problems = control(section).1;
        assert!(problems.len() == 1 && problems[0].contains(expect), "{problems:?}");
    }
    let tap = |line: &str| {
        let section = format!("[control]\n{line}[certificates]");
        parse(&DOCUMENTED.replace("[certificates]", &section)).0.control.unwrap().tap
    };
    assert_eq!((tap(""), tap("tap = false\n"), tap("tap = true\n")), (false, false, true));
}

#[test]
fn redirects_and_fixed_answers() {
    let read = |line: &str| parse(&with_line("[[route]]", line));
    for line in [
        "redirect = \"https://{host}{path}{query}\"",
        "redirect = { to = \"/new{rest}\", status = 308 }",
        "respond = 404",
        "respond = { body = \"{\\\"ok\\\": true}\", content_type = \"application/json\" }",
        "respond = { status = 204 }",
    ] {
        assert_eq!(read(line).1, Vec::<String>::new(), "{line}");
    }
    for (line, says) in [
        ("redirect = 5", "redirect: expected text, or a table, found the number 5"),
        ("redirect = {}", "[route.redirect] needs to, for instance to ="),
        ("redirect = \"new\"", "to: expected a URL such as"),
        ("redirect = \"https://{path}\"", "to: expected a host behind \"https://\""),
        ("redirect = \"/{uri}\"", "to: the placeholder {uri} is not known here"),
        ("redirect = { to = \"/\", status = 300 }", "status: expected 301, 302, 303, 307 or 308, found 300"),
        ("respond = 101", "status: expected a number from 200 to 599, found 101"),
        ("respond = \"pong\"", "respond: expected number from 200 to 599, or a table"),
        ("respond = { status = 204, body = \"x\" }", "body: an answer with status 204 No Content has none"),
        ("respond = { body = \"{uri}\" }", "body: the placeholder {uri} is not known"),
        ("respond = { content_type = \"text/html\" }", "content_type: without body"),
        ("respond = { body = \"x\", content_type = \"html\" }", "content_type: expected a media type"),
        ("respond = 404\nconnect_timeout = \"1s\"", "connect_timeout has no meaning for respond; remove it"),
    ] {
        let (_, problems) = read(line);
        assert!(problems.len() == 1 && problems[0].contains(says), "{line}: {problems:#?}");
    }
    let (_, problems) = parse(
        &with_line("[[route]]", "redirect = \"/\"")
            .replace("path = \"/a\"", "path = \"/a\"\nproxy = \"http://a\""),
    );
    assert!(problems[0].contains("either proxy or redirect, not both"), "{problems:#?}");
}

#[test]
fn what_a_route_takes_and_what_is_wrong_with_it() {
    let said = |keys: &str| {
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\ntls = false\n\
             [[route]]\nservice = \"echo\"\n{keys}\n"
        );
        parse(&text)
    };
    let (config, problems) = said(
        "name = \"chat\"\nlistener = \"public\"\nhost = [\"a.test\", \"*.a.test\"]\npath_exact = \"/x/\"\n\
         when = { upgrade = true, method = [\"GET\"], header = { X-Api = [\"2\", \"3\"] }, subprotocol = [\"mqtt\"] }",
    );
    assert_eq!(problems, Vec::<String>::new());
    let addresses: Vec<_> = config.listeners.iter().map(|l| (&*l.name, l.address.port())).collect();
    assert_eq!(addresses, [("public", 1), ("public", 2)]);
    let route = &config.routes[0];
    assert_eq!(route.id.as_str(), "chat");
    let unnamed =
        "*.a.test,a.test=/x/[listener=public,upgrade=true,method=GET,header=x-api,subprotocol=mqtt]";
    assert_eq!(route.matcher.to_string(), unnamed);
    for (keys, says) in [
        ("", ":5:1: [[route]] needs path, for instance path = \"/\""),
        ("path = \"/\"\npath_exact = \"/\"", ":8:14: a route has either path, path_exact or path_regex"),
        ("path_regex = \"/(\"", "path_regex: this is no regular expression: unclosed group"),
        (
            "path_regex = '/(a)'\n[[route]]\npath_regex = '/(b)'\nredirect = \"/{2}\"",
            "{2} is a group of path_regex, which has 1 of them",
        ),
        (
            "path = \"/\"\n[[route]]\npath = \"/y\"\nrespond = { body = \"{1}\" }",
            "{1} is a group of path_regex, which has 0 of them",
        ),
        ("path_regex = '\\.php'", "write \"/.*\\\\.php\""),
        ("path_regex = \"~ ^/x\"", "write the pattern alone, \"^/x\""),
        ("path_exact = \"= /x\"", "found \"= /x\""),
        ("path = \"/\"\nhost = []", "host: the list is empty; leave it out for all"),
        ("path = \"/\"\nhost = [\"a.test\", \"_\"]", "leave host out"),
        (
            "path = \"/\"\nlistener = [\"pubic\"]",
            "listener: no listener has the name \"pubic\"; there are: public",
        ),
        (
            "path = \"/\"\nname = \"a/b\"",
            "name: expected a name of letters, digits, -, _ and ., found \"a/b\"",
        ),
        ("path = \"/\"\nwhen = { method = \"get\" }", "method: expected one of GET, HEAD"),
        (
            "path = \"/\"\nwhen = { upgrade = true, method = \"POST\" }",
            "WebSockets are opened with GET alone",
        ),
        (
            "path = \"/\"\nwhen = { upgrade = false, subprotocol = \"x\" }",
            "only WebSockets have subprotocols",
        ),
        ("path = \"/\"\nwhen = { header = \"X-Api\" }", "header: expected { \"X-Api\" = \"2\" }"),
        (
            "path = \"/\"\nwhen = { header = { \"a b\" = \"2\" } }",
            "header: a b: this is not the name of a field",
        ),
        ("path = \"/\"\nwhen = { header = { a = 2 } }", "header: a: expected a string in quotes"),
        ("path = \"/\"\nwhen = { subprotocol = \"a b\" }", "subprotocol: expected a name such as \"mqtt\""),
        (
            "host = [\"a.test\", \"b.test\"]\npath = \"/\"\n[[route]]\nhost = \"b.test\"\npath = \"/\"\nservice = \"echo\"",
            ":9:1: the route b.test/ exists already (line 5)",
        ),
        (
            "name = \"x\"\npath = \"/\"\n[[route]]\nname = \"x\"\npath = \"/y\"\nservice = \"echo\"",
            "name: another route has the name \"x\" already",
        ),
        (
            "path = \"/\"\nwhen = { header = { a = \"1\" } }\n[[route]]\npath = \"/\"\nwhen = { header = { a = \"2\" } }\nservice = \"echo\"",
            "would show two routes as /[header=a], since values of fields are not shown: give each a name",
        ),
    ] {
        let (_, problems) = said(keys);
        assert!(problems.iter().any(|problem| problem.contains(says)), "{keys}: {problems:?}");
    }
    let (_, problems) = parse(
        "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\ntls = false\n[[listener]]\nname = \"a\"\n\
         address = \"127.0.0.1:2\"\ntls = false\n[[listener]]\naddress = []\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n",
    );
    for says in ["name: another listener has the name \"a\" already", "address: the list is empty"] {
        assert!(problems.iter().any(|problem| problem.contains(says)), "{problems:?}");
    }
}

#[test]
fn files() {
    let read = |line: &str| parse(&with_line("[[route]]", line));
    for line in [
        "files = \"www\"",
        "files = { directory = \"www\", index = [\"index.html\", \"a.htm\"], fallback = \"/app/index.html\" }",
        "files = { directory = \"/srv\", index = [], precompressed = true, cache = \"1h\", listing = true }",
    ] {
        assert_eq!(read(line).1, Vec::<String>::new(), "{line}");
    }
    for (line, says) in [
        ("files = true", "files: expected file, or a table, found true"),
        ("files = {}", "[route.files] needs directory"),
        (
            "files = { directory = \"www\", index = \"../x\" }",
            "index: expected the name of a file in the directory",
        ),
        ("files = { directory = \"www\", fallback = \"/\" }", "fallback: expected the name of a file"),
        ("files = { directory = \"www\", cache = \"off\" }", "cache: expected a duration"),
        ("files = { directory = \"www\", root = \"x\" }", "unknown key \"root\" in [route.files]"),
        ("files = \"www\"\npool = \"off\"", "pool has no meaning for files; remove it"),
    ] {
        let (_, problems) = read(line);
        assert!(problems.len() == 1 && problems[0].contains(says), "{line}: {problems:#?}");
    }
    let (config, _) = read("files = \"www\"");
    let (directory, place) = &config.file_directories[0];
    assert_eq!((directory.ends_with("www"), place.column), (true, 9));
}

#[test]
fn scripts() {
    let read = |lines: &str| parse(&with_line("[[route]]", lines));
    let one = |line: &str| {
        let (config, problems) = read(line);
        assert_eq!(problems, Vec::<String>::new(), "{line}");
        let Action::Fastcgi(scripts) = &config.routes[0].action else { panic!("{config:?}") };
        (**scripts).clone()
    };
    let scripts =
        one("fastcgi = \"unix:/run/php.sock\"\nfiles = { directory = \"/www\", fallback = \"/index.php\" }");
    assert_eq!(scripts.to_string(), "scripts in /www at fastcgi unix:/run/php.sock");
    assert_eq!(scripts.files.index, ["index.php", "index.html"].map(Box::<str>::from));
    assert!(scripts.serves_files && scripts.document_root.is_none() && !scripts.upstream.servers.is_empty());
    assert_eq!(scripts.body_len_max, 1 << 20);
    let scripts = one(
        "fastcgi = { server = [\"a:9000\", \"b:9000\"], root = \"/www\", index = \"app.php\", document_root = \"/app/\" }\n\
         connect_timeout = \"1s\"\nresponse_timeout = \"2s\"\nbuffer_request = \"2MiB\"",
    );
    assert_eq!((scripts.files.index.len(), scripts.document_root.as_deref()), (1, Some("/app")));
    assert!(!scripts.serves_files && scripts.upstream.servers.len() == 2 && scripts.body_len_max == 2 << 20);
    assert_eq!(
        (scripts.upstream.connector.connect_timeout, scripts.upstream.response_timeout),
        (SECOND, 2 * SECOND)
    );
    for (line, says) in [
        ("fastcgi = \"a:9000\"", "[route.fastcgi] needs root"),
        ("fastcgi = { root = \"/www\" }", "[route.fastcgi] needs server"),
        ("fastcgi = { server = \"http://a:9000\", root = \"/www\" }", "leave out \"http://\""),
        ("fastcgi = { server = [], root = \"/www\" }", "server: the list is empty"),
        ("fastcgi = { server = [\"a:1\", \"A:1\"], root = \"/www\" }", "server: A:1 is there twice"),
        ("fastcgi = { server = \"php\", root = \"/www\" }", "no [[upstream]] has the name \"php\""),
        (
            "fastcgi = { server = \"127.0.0.1\", root = \"/www\" }",
            "missing in \"127.0.0.1\": write \"127.0.0.1:9000\"",
        ),
        ("fastcgi = { server = \"9000\", root = \"/www\" }", "write \"127.0.0.1:9000\""),
        (
            "fastcgi = { server = \"a:1\", root = \"/www\", document_root = \"app\" }",
            "expected an absolute path",
        ),
        (
            "fastcgi = { server = \"a:1\", root = \"/x\" }\nfiles = \"/www\"",
            "the route's files say that already",
        ),
        (
            "fastcgi = { server = \"a:1\", root = \"/www\" }\npool = \"off\"",
            "pool has no meaning for fastcgi",
        ),
        ("fastcgi = { server = \"a:1\", root = \"/www\" }\nrespond = 404", "either fastcgi or respond"),
    ] {
        let (_, problems) = read(line);
        assert!(problems.len() == 1 && problems[0].contains(says), "{line}: {problems:#?}");
    }
    for (upstream, says) in [
        ("servers = \"http://a:9000\"", None),
        ("servers = \"https://a:9000\"", Some("has a server with TLS")),
        ("servers = \"http://a:9000/x\"", Some("has a path behind the address")),
        ("servers = \"http://a:9000\"\nprotocol = \"h2\"", Some("has the option protocol")),
        ("servers = \"http://a:9000\"\nproxy_protocol = \"v2\"", Some("has the option proxy_protocol")),
        ("servers = \"http://a:9000\"\nfield_names = \"as-sent\"", Some("has the option field_names")),
        ("servers = \"http://a:9000\"\nsession_lost = \"redial\"", Some("has the option session_lost")),
        ("servers = \"http://a:9000\"\n[upstream.health]\nprobe = \"http\"", Some("is probed over HTTP")),
        ("servers = \"http://a:9000\"\n[upstream.health]\nprobe = \"tcp\"", None),
    ] {
        let file = with_line("[[route]]", "fastcgi = { server = \"php\", root = \"/www\" }");
        let (_, problems) = parse(&format!("{file}\n[[upstream]]\nname = \"php\"\n{upstream}\n"));
        match says {
            None => assert_eq!(problems, Vec::<String>::new(), "{upstream}"),
            Some(says) => {
                assert!(problems.len() == 1 && problems[0].contains(says), "{upstream}: {problems:#?}");
            }
        }
    }
}

#[test]
fn plain_http_and_balancers_of_listeners() {
    let said = |keys: &str| {
        let file = "[[listener]]\naddress = \"127.0.0.1:1\"\n[certificates]\ndirectory = \"certs\"\n\
                    [[listener]]\naddress = \"127.0.0.1:2\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let (tls, plain) = keys.split_once(" / ").unwrap();
        let file = file.replace("127.0.0.1:1\"", &format!("127.0.0.1:1\"\n{tls}"));
        parse(&file.replace("tls = false", &format!("tls = false\n{plain}")))
    };
    let (config, problems) =
        said("plain_http = \"redirect\" / redirect = \"https\"\nproxy_protocol = \"10.0.0.0/8\"");
    assert_eq!(problems, Vec::<String>::new());
    assert!(config.listeners.iter().all(|listener| listener.redirect));
    assert_eq!(config.listeners[1].proxy_protocol, ["10.0.0.0/8".parse().unwrap()]);
    let (config, _) = said("plain_http = \"refuse\" / ");
    assert!(config.listeners.iter().all(|listener| !listener.redirect));
    for (keys, says) in [
        ("redirect = \"https\" / ", "on this one write plain_http = \"redirect\""),
        (" / plain_http = \"redirect\"", "plain_http has no meaning with tls = false"),
        (
            " / redirect = \"http\"",
            "expected \"https\", found \"http\"; for other targets write redirect in a [[route]]",
        ),
        ("plain_http = \"serve\" / ", "plain_http: expected \"refuse\" or \"redirect\""),
        (" / proxy_protocol = [\"balancer\"]", "proxy_protocol: expected an address or a network"),
        ("tls = false / redirect = \"https\"", "redirect: no listener speaks TLS"),
    ] {
        let (_, problems) = said(keys);
        assert!(problems.iter().any(|problem| problem.contains(says)), "{keys}: {problems:?}");
    }
}

#[test]
fn who_may_use_a_route_and_how_much() {
    let said = |keys: &str| {
        let text = "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        parse(&format!("{text}[route.access]\n{keys}\n"))
    };
    let (config, problems) = said(
        "allow = [\"10.0.0.0/8\"]\ndeny = \"10.9.0.0/16\"\nrequests = \"50/s\"\nsessions = 100\nper = \"header:X-Key\"\n\
         max_body = \"10MiB\"",
    );
    assert_eq!(problems, Vec::<String>::new());
    let access = config.routes[0].access.as_ref().unwrap();
    assert!(access.admits([10, 1, 0, 1].into()) && !access.admits([10, 9, 0, 1].into()));
    assert_eq!((access.sessions, access.max_body), (Some(100), Some(10 << 20)));
    for (keys, says) in [
        ("allow = []", "allow: an empty list would refuse every client"),
        ("deny = \"all\"", "deny: "),
        ("requests = 50", "requests: expected a string in quotes"),
        ("requests = \"50\"", "requests: expected a number of times such as \"50/s\""),
        ("sessions = 0", "sessions: expected a number from 1"),
        ("per = \"client\"", "per: nothing is counted"),
        ("requests = \"1/s\"\nper = \"X-Key\"", "or a field such as \"header:X-Api-Key\""),
        ("max_body = \"10\"", "max_body: "),
        ("basic = {}", "[route.access.basic] needs file"),
        ("basic = { file = \"u\", realm = \"\" }", "realm: expected 1 to 256 letters"),
        ("basic = { file = \"u\", user_header = \"Cookie\" }", "clients send this field themselves"),
        ("basic = { file = \"u\", user_header = \"Upgrade\" }", "this field belongs to the connection"),
        ("forward = { url = \"auth\" }", "url: expected an address"),
        ("forward = { url = \"http://a/b#c\" }", "url: "),
        ("forward = { url = \"http://a/b\", ca = \"ca.pem\" }", "ca: the address has no TLS"),
        ("forward = { url = \"http://a\", copy = \"Host\" }", "clients send this field themselves"),
        ("recheck = \"1m\"", "recheck: no server is asked again"),
        ("failures = \"5/m\"", "failures: no password or token is asked for"),
        ("basic = { file = \"u\" }\nfailures = \"5\"", "failures: expected a number of times"),
    ] {
        let (_, problems) = said(keys);
        assert!(problems.iter().any(|problem| problem.contains(says)), "{keys}: {problems:?}");
    }
}

#[test]
fn upstreams_and_what_is_wrong_with_them() {
    let base = "[[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n";
    let route = "[[route]]\npath = \"/\"\nproxy = \"pool\"\n";
    let text = format!(
        "{base}[[upstream]]\nname = \"pool\"\nservers = [\"http://a/x\", {{ address = \"http://b/x\", weight = 3, max_sessions = 9 }}]\n\
         balance = \"hash\"\nhash = \"cookie:user\"\nretry = {{ attempts = 2, on = [\"connect\", \"503\"] }}\n\
         queue = {{ length = 5, timeout = \"1s\" }}\nslow_start = \"30s\"\nconnect_timeout = \"1s\"\npool = \"off\"\n\
         buffer_request = \"4KiB\"\nproxy_protocol = \"v2\"\nsource_addresses = [\"10.0.0.1\", \"fd00::1\"]\n\
         session_lost = \"redial\"\nredial_interval = \"2s\"\nredial_timeout = \"1m\"\nredial_buffer = \"128KiB\"\n\
         redial_repeat = true\nredial_rate = \"50/s\"\n\
         sticky = {{ cookie = \"id\", max_age = \"1d\", key_file = \"keys\" }}\n\
         [upstream.health]\nprobe = \"http\"\npath = \"/h\"\nstatus = 204\npassive = \"off\"\non_down = \"close\"\n\
         {route}connect_timeout = \"7s\"\n"
    );
    let (config, problems) = parse(&text);
    assert_eq!(problems, Vec::<String>::new());
    let upstream = config.routes[0].action.upstream().unwrap();
    let servers: Vec<_> = upstream.servers.iter().map(|s| (s.endpoint.to_string(), s.weight.get())).collect();
    assert_eq!(servers, [("a:80".to_owned(), 1), ("b:80".to_owned(), 3)]);
    assert_eq!(upstream.path.as_ref().unwrap().to_string(), "/x");
    assert_eq!((upstream.passive, upstream.retry.attempts), (None, 2));
    assert_eq!((upstream.connector.connect_timeout.as_secs(), upstream.connector.pooled), (7, false));
    assert_eq!(
        (upstream.buffer_request, upstream.connector.proxy_protocol),
        (Some(4096), Some(ProxyVersion::V2))
    );
    let sources: Vec<_> =
        upstream.first().endpoint.source_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.0.0.1", "fd00::1"]);
    let redial = Redial {
        interval: 2 * SECOND,
        timeout: 60 * SECOND,
        held_max: 128 << 10,
        may_repeat: true,
        pace: Duration::from_millis(20),
        handshakes_max: NonZeroU32::new(50).unwrap(),
    };
    assert_eq!(upstream.redial, Some(redial));
    let sticky = upstream.sticky.as_ref().unwrap();
    assert_eq!((&*sticky.cookie, sticky.max_age), ("id", Some(SECOND * 86400)));
    assert!(sticky.key_file.as_ref().unwrap().ends_with("keys") && sticky.written_at.line > 1);
    assert!(config.routes[0].rewrite.is_some());
    for (upstream, proxy, what) in [
        ("name = \"pool\"\nservers = \"http://a\"\nsticky = { cookie = \"a;b\" }", "\"pool\"", "cookie: "),
        ("", "\"pool\"", "no [[upstream]] has the name \"pool\"; there are: none"),
        (
            "name = \"other\"\nservers = \"http://a\"",
            "\"pool\"",
            "there are: other; for an address write \"http://pool\"",
        ),
        ("name = \"pool\"\nservers = []", "\"pool\"", "servers: the list is empty"),
        (
            "name = \"pool\"\nservers = \"http://a\"\nsource_addresses = \"10.0.0.1:80\"",
            "\"pool\"",
            "write it without a port",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nsource_addresses = [\"::1\", \"eth0\"]",
            "\"pool\"",
            "expected an IP address of this machine, such as \"10.0.0.1\", found \"eth0\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nsource_addresses = \"0.0.0.0\"",
            "\"pool\"",
            "which no connection comes from",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nsource_addresses = [\"10.0.0.1\", \"10.0.0.1\"]",
            "\"pool\"",
            "10.0.0.1 is there twice",
        ),
        ("name = \"pool\"\nservers = \"http://a\"\nsource_addresses = []", "\"pool\"", "the list is empty"),
        (
            "name = \"pool\"\nservers = \"unix:/a\"\nsource_addresses = \"10.0.0.1\"",
            "\"pool\"",
            "connections to a Unix socket come from no address",
        ),
        ("name = \"pool\"\nservers = [\"http://a\", \"http://A\"]", "\"pool\"", "A:80 is there twice"),
        (
            "name = \"pool\"\nservers = [\"http://a\", \"http://b/\"]",
            "\"pool\"",
            "b:80 has /, the first one has none",
        ),
        ("name = \"pool\"\nservers = [{ weight = 2 }]", "\"pool\"", "needs address"),
        (
            "name = \"pool\"\nservers = \"http://a\"\nhash = \"header:x\"",
            "\"pool\"",
            "without balance = \"hash\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nhash = \"ip\"",
            "\"pool\"",
            "expected \"client\", \"header:NAME\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nretry = { on = [\"505\"] }",
            "\"pool\"",
            "a status from \"500\" to \"504\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nredial_repeat = true",
            "\"pool\"",
            "redial_repeat: it has no meaning without session_lost = \"redial\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nsession_lost = \"redial\"\nredial_buffer = \"1MiB\"",
            "\"pool\"",
            "redial_buffer: expected a size from \"1B\" to \"256KiB\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\nsession_lost = \"keep\"",
            "\"pool\"",
            "expected \"close\" or \"redial\"",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\n[upstream.health]\nrise = 1",
            "\"pool\"",
            "rise: it has no meaning without probe",
        ),
        (
            "name = \"pool\"\nservers = \"http://a\"\n[upstream.health]\nprobe = \"tcp\"\npath = \"/\"",
            "\"pool\"",
            "without probe = \"http\" or \"websocket\"",
        ),
        ("name = \"pool\"\nservers = \"http://a\"", "[\"pool\", \"http://b\"]", "a list has addresses only"),
        ("name = \"pool\"\nservers = \"http://a\"", "[]", "the list is empty"),
        (
            "name = \"pool\"\nservers = \"http://a\"\n[upstream.tls]\nserver_name = \"a\"",
            "\"pool\"",
            "tls: no address of a backend has TLS",
        ),
        (
            "name = \"pool\"\nservers = \"https://a\"\n[upstream.tls]\nca = []",
            "\"pool\"",
            "ca: an empty list would trust no backend",
        ),
        (
            "name = \"pool\"\nservers = \"https://a\"\n[upstream.tls]\nserver_name = \"a\"",
            "\"pool\"\ntls = { server_name = \"b\" }",
            "tls: the upstream has [upstream.tls] already",
        ),
    ] {
        let upstream =
            if upstream.is_empty() { String::new() } else { format!("[[upstream]]\n{upstream}\n") };
        let text = format!("{base}{upstream}[[route]]\npath = \"/\"\nproxy = {proxy}\n");
        let (_, problems) = parse(&text);
        assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:#?}");
    }
    let twice =
        format!("{base}{}{route}", "[[upstream]]\nname = \"pool\"\nservers = \"http://a\"\n".repeat(2));
    assert!(parse(&twice).1[0].contains("another upstream has the name"), "{:?}", parse(&twice).1);
}

#[test]
fn when_sessions_have_lines() {
    let sessions = |lines: &str| {
        let (config, problems) =
            parse(&DOCUMENTED.replace("[certificates]", &format!("[log]\n{lines}\n[certificates]")));
        (config.log.sessions, problems)
    };
    let second = Some(SECOND);
    for (lines, open, end, every) in [
        ("", false, true, None),
        ("sessions = []", false, false, None),
        ("sessions = \"every 1s\"", false, false, second),
        ("sessions = [\"open\", \"end\", \"every 10m\"]", true, true, Some(600 * SECOND)),
    ] {
        assert_eq!(sessions(lines), (SessionLines { open, end, every }, vec![]), "{lines}");
    }
    let twice = "sessions = [\"every 1m\", \"every 2m\"]";
    for (lines, expect) in [
        (
            "sessions = \"close\"",
            "expected \"open\", \"end\" or \"every\" and a duration, such as \"every 10m\"",
        ),
        ("sessions = \"every 10\"", "a unit is missing in \"10\""),
        ("sessions = \"every 500ms\"", "write \"every 1s\" or more"),
        (twice, "\"every\" stands there twice"),
        ("format = \"combined\"\nsessions = \"open\"", "\"combined\" has lines for what has ended alone"),
    ] {
        let problems = sessions(lines).1;
        assert!(problems.len() == 1 && problems[0].contains(expect), "{lines}: {problems:?}");
    }
}

#[test]
fn where_access_lines_go() {
    for (access, target) in [
        ("stderr", Ok(AccessTarget::Log)),
        ("off", Ok(AccessTarget::Off)),
        ("syslog", Ok(AccessTarget::Syslog("/dev/log".into()))),
        ("syslog:log.sock", Ok(AccessTarget::Syslog("/etc/wssgate/log.sock".into()))),
        ("./access.log", Ok(AccessTarget::File("/etc/wssgate/./access.log".into()))),
        // It isn't there yet, and has as many letters and digits as a key.
        (
            "/srv/Logs2024/Gateway-EU-West-1/access.log",
            Ok(AccessTarget::File("/srv/Logs2024/Gateway-EU-West-1/access.log".into())),
        ),
        ("syslog:", Err("expected a path")),
        ("journald", Err("expected \"stderr\", \"syslog\", \"off\" or the path of a file")),
    ] {
        let section = format!("[log]\naccess = {access:?}\n[certificates]");
        let (config, problems) = parse(&DOCUMENTED.replace("[certificates]", &section));
        match target {
            Ok(target) => assert_eq!((config.log.access, problems), (target, vec![]), "{access}"),
            Err(expect) => assert!(problems.len() == 1 && problems[0].contains(expect), "{problems:?}"),
        }
    }
}

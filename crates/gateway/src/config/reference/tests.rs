//! The page says what the parser does.

use std::fs;

use super::*;
use crate::config::Config;
use crate::config::tests::with_line;

#[test]
fn the_committed_page_is_the_printed_one() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == reference(),
        "docs/reference.md differs from the options that are declared; run\n    \
         cargo run --quiet -- reference > docs/reference.md"
    );
}

/// What a file comes to, without the places of its values.
fn meaning(text: &str) -> String {
    let (config, problems) = Config::parse(std::path::Path::new("/etc/wssgate.toml"), text);
    assert_eq!(problems, [], "{text}");
    let debug = format!("{config:?}");
    let mut parts = debug.split("Place { file: ");
    let first = parts.next().unwrap().to_owned();
    first + &parts.map(|part| part.split_once('}').unwrap().1).collect::<Vec<_>>().join("_")
}

/// The file without this option: with a line that changes nothing, to have the same sections.
fn without(section: &str, key: &str) -> String {
    let needs = if key.starts_with("redial_") { "session_lost = \"redial\"\n" } else { "" };
    with_line(section, &format!("{needs}# {key} ="))
}

#[test]
fn the_defaults_of_the_page_are_those_of_the_parser() {
    let mut count = 0;
    for section in TopLevel::describe().walk() {
        for option in &section.options {
            if let (Shape::Value { .. }, Default::Value(value)) = (&option.shape, &option.default) {
                let (key, text) = (option.key, toml_text(value));
                // `address` of a listener is in each file, and has no default.
                let with = meaning(&with_line(section.name, &format!("{key} = {text}")));
                assert_eq!(with, meaning(&without(section.name, key)), "{key} = {text} in {}", section.name);
                count += 1;
            }
        }
    }
    assert!(count > 15, "{count}");
}

/// Each default that is told in words, and a file that says the same in a value.
#[test]
fn the_defaults_in_words_are_those_of_the_parser() {
    let described = TopLevel::describe();
    let sections = described.walk();
    let words = sections.iter().flat_map(|section| {
        let options = section.options.iter();
        options
            .filter(|option| matches!(option.default, Default::Words(_)))
            .map(|option| (section.name, option.key))
    });
    let expect = [
        (TOP_LEVEL, "workers", None),
        (TOP_LEVEL, "max_memory", None),
        (TOP_LEVEL, "max_compression_memory", Some("max_compression_memory = \"64MiB\"")),
        (TOP_LEVEL, "trusted_proxies", Some("trusted_proxies = []")),
        (TOP_LEVEL, "include", Some("include = []")),
        ("[[listener]]", "name", None),
        ("[[listener]]", "proxy_protocol", Some("proxy_protocol = []")),
        ("[certificates]", "watch", Some("watch = true")),
        ("[acme]", "names", None), // there is [acme.on_demand]
        ("[acme]", "contact", Some("contact = []")),
        ("[acme]", "directory", Some("directory = \"https://acme-v02.api.letsencrypt.org/directory\"")),
        ("[acme]", "ca", None),
        ("[acme]", "storage", None),
        ("[acme]", "profile", None),
        ("[acme.on_demand]", "names", None),
        ("[acme.on_demand]", "orders", Some("orders = \"60/h\"")),
        ("[dns]", "servers", Some("servers = []")),
        ("[dns]", "resolv_conf", Some("resolv_conf = \"/etc/resolv.conf\"")),
        ("[dns]", "hosts", Some("hosts = \"/etc/hosts\"")),
        ("[log]", "format", None),
        ("[[upstream]]", "buffer_request", None), // by what the servers speak
        ("[[upstream]]", "redial_buffer", Some("redial_buffer = \"64KiB\"")),
        ("[[upstream]]", "redial_rate", Some("redial_rate = \"200/s\"")),
        ("[upstream.sticky]", "cookie", Some("cookie = \"wssgate_server\"")),
        ("[upstream.sticky]", "max_age", None),
        ("[upstream.sticky]", "key_file", None),
        ("[upstream.retry]", "on", None),
        ("[upstream.tls]", "ca", None),
        ("[upstream.tls]", "server_name", Some("server_name = \"w\"")),
        ("[upstream.health]", "path", None),
        ("[upstream.health]", "status", None),
        ("[[route]]", "name", None),
        ("[[route]]", "listener", None),
        ("[[route]]", "host", None),
        ("[[route]]", "rewrite_location", Some("rewrite_location = false")), // nothing is rewritten
        ("[[route]]", "buffer_request", None),                               // as for an upstream
        ("[[route]]", "subprotocols", None), // with a server behind tcp:// alone
        ("[[route]]", "upgrade", Some("upgrade = [\"websocket\"]")),
        ("[route.when]", "method", None),
        ("[route.fastcgi]", "root", None),
        ("[route.fastcgi]", "index", Some("index = \"index.php\"")),
        ("[route.fastcgi]", "fallback", None),
        ("[route.fastcgi]", "document_root", None),
        ("[route.respond]", "content_type", Some("content_type = \"text/plain; charset=utf-8\"")),
        ("[route.cors]", "methods", Some("methods = [\"GET\", \"HEAD\", \"POST\"]")),
        ("[route.compress]", "min_length", Some("min_length = \"1024B\"")),
        ("[route.websocket]", "max_message", Some("max_message = \"off\"")),
        ("[route.websocket]", "compression_history", Some("compression_history = \"4KiB\"")),
        ("[route.websocket]", "origins", None),
        ("[route.tls]", "ca", None),
        ("[route.tls]", "server_name", Some("server_name = \"e\"")),
        ("[route.access]", "allow", None),
        ("[route.access]", "deny", Some("deny = []")),
        ("[route.access]", "failures", Some("failures = \"20/m\"")),
        ("[route.access]", "max_body", Some("max_body = \"off\"")),
        ("[route.access.jwt]", "ca", None),
        ("[route.access.jwt]", "issuer", None),
        ("[route.access.jwt]", "audience", None),
        ("[route.access.jwt]", "from", Some("from = \"header\"")),
        ("[route.access.forward]", "copy", None),
        ("[route.access.forward]", "subject", None),
        ("[route.access.forward]", "ca", None),
        ("[admin]", "host", None),
    ];
    assert_eq!(
        words.collect::<Vec<_>>(),
        expect.map(|(section, key, _)| (section, key)),
        "an option with a default in words needs its case here"
    );
    for (section, key, line) in expect {
        if let Some(line) = line {
            assert_eq!(meaning(&with_line(section, line)), meaning(&without(section, key)), "{line}");
        }
    }
    // Those that no value stands for.
    let base = "[[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n[[certificate]]\nchain = \"c\"\nkey = \"k\"\n\
                [[route]]\npath = \"/\"\nservice = \"echo\"\n";
    let config = Config::from_toml(base, std::path::Path::new("/")).unwrap();
    assert_eq!(config.workers, None);
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = memory.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(config.memory_max.unwrap() <= (total * 1024 / 4).max(4 << 30));
    assert!(!config.watch, "without a directory");
    let route = &config.routes[0];
    assert!(route.matcher.hosts.is_empty() && route.origins.is_none());
    assert_eq!((&*config.listeners[0].name, route.id.as_str()), ("127.0.0.1:80", "/"));
    assert!(route.matcher.listeners.is_empty() && route.matcher.when.methods.is_empty());
    assert!(route.access.is_none(), "every address is let in");
    let limited = format!("{base}[route.websocket]\nmax_message = \"16MiB\"\n");
    assert_eq!(meaning(base), meaning(&limited));
}

#[test]
fn each_option_and_section_is_on_the_page_once() {
    let page = reference();
    for section in TopLevel::describe().walk() {
        let title = if section.name == TOP_LEVEL {
            "## The top level".into()
        } else {
            format!("## `{}`", section.name)
        };
        assert_eq!(page.matches(&title).count(), 1, "{title}");
        let rows = page.split_once(&title).unwrap().1.split("\n## ").next().unwrap();
        for option in section.options.iter().filter(|option| matches!(option.shape, Shape::Value { .. })) {
            assert_eq!(rows.matches(&format!("\n| `{}` |", option.key)).count(), 1, "{}", option.key);
            assert!(option.sentence.ends_with('.'), "{}: {}", option.key, option.sentence);
        }
    }
}

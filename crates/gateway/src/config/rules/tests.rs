//! A configuration of values has the same rules as one of TOML.

use std::sync::Arc;
use std::time::Duration;

use tls_acceptor::{AcceptorSettings, MinVersion, Named, Plan};

use super::*;
use crate::site::matcher::Matcher;
use crate::site::route::Service;
use crate::site::upstream::Upstream;

fn route(text: &str, action: Action) -> Arc<Route> {
    Arc::new(Route::new(Matcher::parse(text).unwrap(), action))
}

fn proxy() -> Action {
    Action::Proxy(Arc::new(Upstream::parse("http://127.0.0.1:8282").unwrap()))
}

fn config() -> Config {
    Config {
        listeners: vec![Listener::tls("127.0.0.1:443".parse().unwrap())],
        certificates: Plan::directory("certs"),
        routes: vec![route("domain.com/wss", proxy()), route("/echo", Action::Service(Service::Echo))],
        ..Config::default()
    }
}

#[test]
fn values_and_toml_come_to_the_same() {
    config().check().unwrap();
    let text = "[[listener]]\naddress = \"127.0.0.1:443\"\n[certificates]\ndirectory = \"certs\"\nwatch = false\n\
                [[route]]\nhost = \"domain.com\"\npath = \"/wss\"\nproxy = \"http://127.0.0.1:8282\"\n\
                [[route]]\npath = \"/echo\"\nservice = \"echo\"\n";
    let (read, problems) = Config::parse(std::path::Path::new(""), text);
    assert_eq!(problems, []);
    read.check().unwrap();
    let made = config();
    let bare = |config: &Config| {
        let listeners: Vec<_> =
            config.listeners.iter().map(|l| (l.address.clone(), l.tls.clone(), l.limits)).collect();
        (
            listeners,
            (config.workers, config.memory_max, config.drain, config.removed_routes, config.takeover_timeout),
            (
                config.admin.clone(),
                config.control.clone(),
                config.ticket_keys.clone(),
                config.trusted_proxies.clone(),
            ),
            (config.certificates.clone(), config.watch),
            format!("{:?}", config.routes),
        )
    };
    assert_eq!(bare(&read), bare(&made));
}

#[test]
fn every_rule_is_asked_for_values() {
    type Change = fn(&mut Config);
    let cases: &[(Change, &str)] = &[
        (
            |c| (c.workers, c.memory_max) = (Some(2), Some(1 << 20)),
            "max_memory: 1048576 bytes are too little for 2",
        ),
        (|c| c.workers = Some(0), "workers: expected at least one"),
        (|c| c.drain.delay = c.drain.timeout, "drain_delay: it is a part of drain_timeout (30s)"),
        (|c| c.drain.close_code = 1000, "drain_close_code: expected 1001"),
        (|c| c.drain.window = Duration::ZERO, "drain_window: expected more than no time"),
        (|c| c.drain.timeout = Duration::ZERO, "drain_timeout: expected more than no time"),
        (
            |c| c.log.sessions.every = Some(Duration::from_millis(999)),
            "sessions: lines of a session come once a second at most",
        ),
        (|c| c.listeners.clear(), "there is no [[listener]]"),
        (|c| c.routes.clear(), "there is no [[route]]"),
        (|c| c.listeners.push(c.listeners[0].clone()), "127.0.0.1:443 is listened on already"),
        (|c| c.certificates = Plan::default(), "a listener with TLS needs certificates"),
        (
            |c| c.certificates.named.push(Named { chain: vec![], key: "k".into(), client_auth: None }),
            "chain: the list is empty",
        ),
        (
            |c| c.listeners[0].tls = Some(AcceptorSettings { alpn: vec![], ..AcceptorSettings::default() }),
            "listener 127.0.0.1:443: alpn: an empty list",
        ),
        (|c| c.listeners[0].limits.header_timeout = Duration::ZERO, "header_timeout: expected more than"),
        (|c| c.routes.push(c.routes[0].clone()), "route domain.com/wss: it exists already"),
        (
            |c| {
                let mut route = Route::new(Matcher::parse("/x").unwrap(), Action::Service(Service::Echo));
                route.policy.limits.message_max = u64::MAX;
                c.routes.push(Arc::new(route));
            },
            "route /x: max_message: messages that end at the gateway",
        ),
        (
            |c| {
                let mut route = Route::new(Matcher::parse("/x").unwrap(), proxy());
                (route.policy.limits.message_max, route.origins) = (0, Some(vec![]));
                c.routes.push(Arc::new(route));
            },
            "route /x: max_message: 0 would refuse every message; write \"off\" for no limit\nroute /x: origins: an empty",
        ),
    ];
    for (change, expect) in cases {
        let mut config = config();
        change(&mut config);
        let problems = config.check().unwrap_err().to_string();
        assert!(problems.contains(expect), "{problems}\n  is not\n{expect}");
    }
    let mut old = config();
    old.listeners[0].tls.as_mut().unwrap().min_version = MinVersion::Tls13;
    old.check().unwrap();
}

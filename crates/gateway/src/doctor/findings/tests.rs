use std::net::Ipv4Addr;

use super::*;
use crate::doctor::facts::{Descriptors, Listening, Owner, Towards};
use crate::ops::control::protocol::{ExpiryInfo, NameInfo, ServerInfo, UpstreamInfo};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn status() -> Status {
    Status { pid: 7, state: "ready".into(), listeners: vec!["0.0.0.0:443".into()], ..Status::default() }
}

/// A machine on which all is well.
fn well() -> Facts {
    Facts {
        gateway: Some(status()),
        descriptors: Some(Descriptors { used: 100, max: 1000 }),
        ports: Some(30_001..=31_000),
        somaxconn: Some(4096),
        overflows: Some([0, 0]),
        conntrack: Some([10, 1000]),
        is_in_step: Some(true),
        has_ipv6: Some(true),
        ..Facts::default()
    }
}

/// The only finding after this change.
#[track_caller]
fn only(change: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = well();
    change(&mut facts);
    let found = judge(&facts);
    let [finding] = &found[..] else { panic!("{found:#?}") };
    assert!(
        AREAS.contains(&finding.area) && !finding.see.is_empty() && !finding.todo.is_empty(),
        "{finding:?}"
    );
    finding.clone()
}

#[track_caller]
fn check(change: impl FnOnce(&mut Facts), level: Level, area: &str, what: &str) {
    let finding = only(change);
    assert_eq!((finding.level, finding.area), (level, area), "{finding:?}");
    assert!(finding.what.contains(what), "no {what:?} in {:?}", finding.what);
}

/// The same about what the gateway says.
#[track_caller]
fn check_status(change: impl FnOnce(&mut Status), level: Level, area: &str, what: &str) {
    check(|facts| change(facts.gateway.as_mut().unwrap()), level, area, what);
}

#[track_caller]
fn fine(change: impl FnOnce(&mut Facts)) {
    let mut facts = well();
    change(&mut facts);
    assert_eq!(judge(&facts), []);
}

fn towards(count: usize) -> Vec<Towards> {
    vec![Towards { from: Ipv4Addr::LOCALHOST.into(), server: address("127.0.0.1:8282"), count }]
}

fn server(state: &str) -> ServerInfo {
    let why = Some("no connection".to_owned()).filter(|_| state == "down");
    ServerInfo { server: "10.0.0.1:80".into(), state: state.into(), why, ..ServerInfo::default() }
}

fn listening(text: &str, waiting: u64, pid: u32, program: &str) -> Listening {
    let owner = Some(Owner { pid, program: program.into() }).filter(|_| pid > 0);
    Listening { address: address(text), waiting, owner }
}

#[test]
fn all_is_well() {
    fine(|_| {});
    fine(|facts| facts.towards = towards(799));
    fine(|facts| facts.conntrack = None);
    fine(|facts| {
        facts.listening =
            vec![listening("0.0.0.0:443", 3, 7, "wssgate"), listening("0.0.0.0:80", 0, 9, "nginx")];
    });
}

#[test]
fn each_thing_is_found() {
    use Level::{Note, Problem, Warning};
    check(
        |facts| (facts.gateway, facts.silence) = (None, "there is no control socket".into()),
        Problem,
        GATEWAY,
        "no control socket",
    );
    check_status(|status| status.state = "starting".into(), Problem, GATEWAY, "starting");
    check_status(
        |status| (status.connections, status.connections_max) = (85, Some(100)),
        Warning,
        GATEWAY,
        "85 of 100",
    );
    check_status(
        |status| (status.connections, status.connections_max) = (99, Some(100)),
        Problem,
        GATEWAY,
        "99 of 100",
    );
    check_status(|status| status.drained = vec!["/chat".into()], Note, GATEWAY, "/chat");
    check_status(|status| status.reloads_refused = 2, Note, CONFIGURATION, "2 reloads");
    check_status(|status| status.log_lines_lost = 9, Warning, LOG, "9 lines");
    let expires = |days| {
        move |status: &mut Status| status.nearest_expiry = Some(ExpiryInfo { name: "a.test".into(), days })
    };
    check_status(expires(3), Warning, CERTIFICATES, "expires in 3 days");
    check_status(expires(-1), Problem, CERTIFICATES, "HAS EXPIRED");
    fine(|facts| expires(30)(facts.gateway.as_mut().unwrap()));
    for (listeners, place) in [
        (&["0.0.0.0:80", "127.0.0.3:443"][..], "127.0.0.3:443"),
        (&["0.0.0.0:8443"], "127.0.0.1:8443"),
        (&["unix:/run/x.sock"], "127.0.0.1:443"),
    ] {
        let finding = only(|facts| {
            let status = facts.gateway.as_mut().unwrap();
            status.listeners = listeners.iter().map(ToString::to_string).collect();
            expires(3)(status);
        });
        assert!(finding.see.contains(&format!("-connect {place} -servername a.test ")), "{}", finding.see);
    }
    check(
        |facts| facts.descriptors = Some(Descriptors { used: 850, max: 1000 }),
        Warning,
        DESCRIPTORS,
        "850 of 1000",
    );
    check(
        |facts| facts.descriptors = Some(Descriptors { used: 999, max: 1000 }),
        Problem,
        DESCRIPTORS,
        "999 of 1000",
    );
    check(|facts| facts.descriptors = None, Note, DESCRIPTORS, "can't be counted");
    check_status(|status| status.connections_max = Some(600), Warning, DESCRIPTORS, "needs up to 1200");
    check(|facts| facts.towards = towards(800), Warning, PORTS, "800 of 1000 ports");
    check(|facts| facts.towards = towards(990), Problem, PORTS, "towards 127.0.0.1:8282");
    check(|facts| facts.overflows = Some([5, 9]), Problem, QUEUES, "4 connections");
    check(|facts| facts.overflows = Some([5, 5]), Note, QUEUES, "none at the moment");
    check(|facts| facts.somaxconn = Some(128), Warning, QUEUES, "somaxconn is 128");
    check(
        |facts| facts.listening = vec![listening("0.0.0.0:443", 200, 7, "wssgate")],
        Problem,
        QUEUES,
        "200 connections wait",
    );
    check(|facts| facts.conntrack = Some([900, 1000]), Warning, CONNTRACK, "900 of 1000");
    check(|facts| facts.conntrack = Some([999, 1000]), Problem, CONNTRACK, "999 of 1000");
    check(|facts| facts.is_in_step = Some(false), Warning, CLOCK, "not kept in step");
    check(|facts| facts.is_in_step = None, Note, CLOCK, "nothing tells");
}

#[test]
fn servers_and_their_names() {
    use Level::{Problem, Warning};
    let with = |states: &'static [&'static str]| {
        move |status: &mut Status| {
            let servers = states.iter().map(|state| server(state)).collect();
            status.upstreams =
                vec![UpstreamInfo { upstream: "chat".into(), servers, ..UpstreamInfo::default() }];
        }
    };
    check_status(
        with(&["down"]),
        Problem,
        SERVERS,
        "10.0.0.1:80 of chat is down: no connection; no server of it is up",
    );
    check_status(with(&["ejected", "up"]), Warning, SERVERS, "is ejected; 1 others are up");
    fine(|facts| with(&["up", "drained"])(facts.gateway.as_mut().unwrap()));
    let names = |found: &'static [&'static str]| {
        move |status: &mut Status| {
            let found = found.iter().map(ToString::to_string).collect();
            let problem = Some("no such name".to_owned());
            let names =
                vec![NameInfo { name: "chat.internal".into(), found, problem, ..NameInfo::default() }];
            status.upstreams = vec![UpstreamInfo { names, ..UpstreamInfo::default() }];
        }
    };
    check_status(names(&[]), Problem, NAMES, "no such name");
    check_status(names(&["10.0.0.1"]), Warning, NAMES, "chat.internal");
}

#[test]
fn what_the_configuration_says() {
    use Level::{Problem, Warning};
    let config = |change: fn(&mut ConfigFacts)| {
        move |facts: &mut Facts| {
            let mut config = ConfigFacts { file: "wssgate.toml".into(), ..ConfigFacts::default() };
            change(&mut config);
            facts.config = Some(config);
        }
    };
    check(
        config(|config| config.problems = vec!["wssgate.toml:1:1: no".into()]),
        Problem,
        CONFIGURATION,
        ":1:1",
    );
    check(
        config(|config| config.certificate_warnings = vec!["its issuer X is missing".into()]),
        Warning,
        CERTIFICATES,
        "missing",
    );
    check(
        config(|config| config.unresolved = vec!["chat.internal can't be resolved".into()]),
        Warning,
        NAMES,
        "chat",
    );
    check(config(|config| config.absent = vec!["there is no socket".into()]), Warning, SERVERS, "no socket");
    check(config(|config| config.warnings = vec!["no route".into()]), Warning, CONFIGURATION, "no route");
    check(
        config(|config| config.expiring = vec!["a.test expires in 5 days".into()]),
        Warning,
        CERTIFICATES,
        "5 days",
    );
    assert_eq!(only(config(|config| config.problems = vec!["x".into()])).see, "wssgate check wssgate.toml");
}

#[test]
fn strangers_on_the_gateways_port() {
    use Level::Problem;
    for (at, is_found) in [
        ("0.0.0.0:443", true),
        ("127.0.0.1:443", true),
        ("[::]:443", true),
        ("[::1]:443", false),
        ("0.0.0.0:444", false),
    ] {
        let stranger = |facts: &mut Facts| facts.listening = vec![listening(at, 0, 9, "nginx")];
        if is_found {
            check(stranger, Problem, ADDRESSES, "nginx (process 9) listens on");
        } else {
            fine(stranger);
        }
    }
    // The gateway itself, another process of it, or one that can't be seen.
    for (pid, program) in [(7, "wssgate"), (8, "wssgate"), (0, "")] {
        fine(|facts| facts.listening = vec![listening("0.0.0.0:443", 0, pid, program)]);
    }
    // Without a gateway, it is in the way of the next one.
    let mut facts = well();
    facts.gateway = None;
    facts.config = Some(ConfigFacts { listeners: vec![address("0.0.0.0:443")], ..ConfigFacts::default() });
    facts.listening = vec![listening("0.0.0.0:443", 0, 0, "")];
    assert!(judge(&facts).iter().any(|finding| finding.what.contains("a program that this user can't see")));
}

#[test]
fn one_family_of_addresses_is_half_of_the_internet() {
    use Level::Warning;
    let listeners = |all: &'static [&'static str]| {
        move |facts: &mut Facts| {
            facts.gateway.as_mut().unwrap().listeners = all.iter().map(ToString::to_string).collect();
            facts.names_with_ipv6 = vec![("a.test".into(), "2001:db8::1".parse().unwrap())];
        }
    };
    check(listeners(&["0.0.0.0:443"]), Warning, ADDRESSES, "IPv4 alone");
    check(listeners(&["[::]:443"]), Warning, ADDRESSES, "takes no IPv4");
    fine(listeners(&["0.0.0.0:443", "[::]:443"]));
    fine(listeners(&["127.0.0.1:443"]));
    let without = |facts: &mut Facts| {
        listeners(&["0.0.0.0:443", "[::]:443"])(facts);
        facts.has_ipv6 = Some(false);
    };
    check(without, Warning, ADDRESSES, "this machine has none");
}

#[test]
fn what_is_not_known_is_not_in_order() {
    assert_eq!(looked_at(&Facts::default()), [GATEWAY]);
    let mut facts = well();
    facts.config = Some(ConfigFacts::default());
    assert_eq!(looked_at(&facts), AREAS);
    facts.conntrack = None;
    assert!(!looked_at(&facts).contains(&CONNTRACK));
}

#[test]
fn the_worst_comes_first() {
    let mut facts = well();
    facts.overflows = Some([1, 1]);
    facts.is_in_step = Some(false);
    facts.conntrack = Some([1000, 1000]);
    let levels: Vec<_> = judge(&facts).iter().map(|finding| finding.level).collect();
    assert_eq!(levels, [Level::Problem, Level::Warning, Level::Note]);
}

//! The file as a whole, and its `http` block.

use super::context::Context;
use super::listeners::{self, Group};
use super::routes;
use super::scope::Scope;
use super::server::Server;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// Directives that stand in a `server` alone, or in something that is included there.
const OF_SERVERS: [&str; 4] = ["location", "listen", "server_name", "proxy_pass"];

pub(super) fn translate<'a>(context: &mut Context<'a>, directives: &'a [Directive]) {
    let main = Scope::default().inside(directives);
    let mut head = std::mem::take(&mut context.site.head);
    for http in main.own_all("http") {
        context.book.mark(http, Outcome::ByItself);
        block(context, &main.inside(http.inside()), &mut head);
        context.finish(http.inside(), &mut head);
    }
    // A file of sites-enabled or conf.d has servers without an http block around them, and some have less.
    if main.own_all("http").next().is_none() {
        let has =
            |names: &[&str]| directives.iter().any(|directive| names.contains(&directive.name.as_str()));
        if has(&OF_SERVERS) && !has(&["server"]) {
            head.comment("the file is a part of a server, which is taken for one on port 80 for every host");
            gather(context, &main);
            let whole = Server::of(context, None, main.clone());
            servers(context, vec![whole], &mut head);
        } else {
            block(context, &main, &mut head);
        }
    }
    process(context, &main, &mut head);
    context.finish(directives, &mut head);
    context.site.head = head;
}

/// What stands in an `http` block.
fn block<'a>(context: &mut Context<'a>, http: &Scope<'a>, head: &mut Section) {
    gather(context, http);
    let found: Vec<_> = http.own_all("server").collect();
    let found = found
        .into_iter()
        .map(|directive| {
            context.book.mark(directive, Outcome::ByItself);
            Server::of(context, Some(directive), http.inside(directive.inside()))
        })
        .collect();
    servers(context, found, head);
    for unused in context.upstreams.unused() {
        let meaning = "no proxy_pass names this upstream, so it is left out";
        context.book.lacks(head, unused, meaning);
        context.book.mark_all(unused.inside(), Outcome::Commented);
    }
    for map in http.own_all("map") {
        let used = map.arg(1);
        if used.ends_with("connection_upgrade") || map.arg(0) == "$http_upgrade" {
            context.book.itself(
                head,
                map,
                "Upgrade and Connection are sent to servers as a handshake needs them",
            );
        } else {
            let meaning =
                format!("there are no variables; what depends on {used} is commented where it stands");
            context.book.lacks(head, map, &meaning);
        }
        context.book.mark_all(map.inside(), Outcome::ByItself);
    }
}

/// Upstreams and zones, which servers name.
fn gather<'a>(context: &mut Context<'a>, http: &Scope<'a>) {
    context.upstreams = super::context::Upstreams::of(http.own());
    for name in ["limit_req_zone", "limit_conn_zone"] {
        for zone in http.own_all(name) {
            let named = zone.args.iter().find_map(|arg| arg.strip_prefix("zone="));
            let named = named.map(|named| named.split(':').next().unwrap_or(named));
            if let Some(named) = named {
                context.zones.insert(named, zone);
            }
        }
    }
}

fn servers<'a>(context: &mut Context<'a>, mut servers: Vec<Server<'a>>, head: &mut Section) {
    let groups: Vec<Group> = listeners::group(&mut servers);
    listeners::write(context, &groups, &servers);
    for index in 0..servers.len() {
        let host = routes::translate(context, &groups, &servers, index);
        context.site.hosts.push(host);
    }
    http_keys(context, &servers, head);
}

/// Keys of the top level, of `[log]` and of `[dns]` that servers may have as well: then the first one counts.
fn http_keys(context: &mut Context<'_>, servers: &[Server<'_>], head: &mut Section) {
    let Some(first) = servers.first() else { return };
    let mut trusted = Vec::new();
    let mut networks = Vec::new();
    for directive in first.scope.all("set_real_ip_from") {
        match directive.arg(0) {
            "unix:" => trusted.push("unix".to_owned()),
            text if text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok() => {
                trusted.push(text.to_owned());
            }
            _ => {
                context.book.misses(head, directive, "trusted_proxies has addresses and networks alone");
                continue;
            }
        }
        networks.push(directive);
    }
    // All servers believe the same proxies here, so those that only some of them believe are none.
    let of = |server: &Server<'_>| -> Vec<String> {
        server.scope.all("set_real_ip_from").iter().map(|directive| directive.arg(0).to_owned()).collect()
    };
    if servers.iter().any(|server| of(server) != of(first)) {
        let meaning = "servers trust others than these: trusted_proxies is one list for all of them, and is left out until \
                       you have written it";
        for directive in servers.iter().flat_map(|server| server.scope.all("set_real_ip_from")) {
            context.book.misses(head, directive, meaning);
        }
        (trusted, networks) = (Vec::new(), Vec::new());
    }
    if let Some(header) = first.scope.find("real_ip_header") {
        match header.arg(0).to_ascii_lowercase().as_str() {
            "x-forwarded-for" | "x-real-ip" => {
                let how =
                    "clients are known by X-Forwarded-For, and by X-Real-IP without it, from trusted_proxies";
                context.book.itself(head, header, how);
            }
            "proxy_protocol" => context.book.itself(head, header, "proxy_protocol of the listener has that"),
            _ => {
                let meaning =
                    "clients behind trusted_proxies are known by X-Forwarded-For; have the proxy send that";
                context.book.misses(head, header, meaning);
            }
        }
    }
    if let Some(directive) = networks.first()
        && !trusted.is_empty()
    {
        context.book.key(head, directive, "trusted_proxies", trusted);
        networks.iter().for_each(|directive| context.book.mark(directive, Outcome::Key));
    }
    let mut dns = std::mem::take(&mut context.site.dns);
    if let Some(resolver) = first.scope.find("resolver") {
        let is_server = |arg: &&String| !arg.contains('=');
        let servers: Vec<String> = resolver.args.iter().filter(is_server).cloned().collect();
        let parses = |text: &String| {
            text.parse::<std::net::IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok()
        };
        let bare = |text: String| {
            text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).map_or(text.clone(), str::to_owned)
        };
        let servers: Vec<String> = servers.into_iter().map(bare).collect();
        if servers.iter().all(parses) && !servers.is_empty() {
            let how = "names are looked up again when their TTL has ended, not by valid=";
            context.book.nearly(&mut dns, resolver, ("servers", servers), how);
        } else {
            context.book.lacks(&mut dns, resolver, "DNS servers are addresses; the system's are asked");
        }
    }
    context.site.dns = dns;
    let mut log = std::mem::take(&mut context.site.log);
    for access in servers.iter().flat_map(|server| server.scope.all("access_log")) {
        if context.book.knows(access) {
            continue;
        }
        let target = access.arg(0);
        if !log.has_no_keys() {
            let meaning = "there is one access log, that of the first server; each line names its route";
            context.book.lacks(&mut log, access, meaning);
        } else if target.contains('$') || target.starts_with("memory:") {
            context.book.misses(&mut log, access, "the access log is a file, stderr, or syslog");
        } else if target == "off" {
            context.book.key(&mut log, access, "access", "off");
        } else {
            let file = match target {
                "/dev/stdout" | "/dev/stderr" => "stderr".to_owned(),
                text if text.starts_with("syslog:") => "syslog".to_owned(),
                text => context.places.prefix(text),
            };
            context.book.key(&mut log, access, "access", file);
            match access.arg(1) {
                "" | "combined" => log.set("format", "combined", Some(&access.at)),
                _ => log.note(
                    "the lines have the gateway's own fields; format = \"combined\" is nginx's usual form",
                ),
            }
        }
    }
    context.site.log = log;
}

/// What stands outside of all blocks.
fn process(context: &mut Context<'_>, main: &Scope<'_>, head: &mut Section) {
    if let Some(workers) = main.own_all("worker_processes").next() {
        match workers.arg(0).parse::<u32>() {
            Ok(count @ 1..=1024) => context.book.key(head, workers, "workers", count),
            _ => context.book.itself(head, workers, "there is one worker for each core"),
        }
    }
    for events in main.own_all("events") {
        context.book.mark(events, Outcome::ByItself);
        context.finish(events.inside(), head);
    }
}

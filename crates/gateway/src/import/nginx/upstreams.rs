//! `upstream`: servers that are named together.

use super::context::Context;
use super::pass::Pass;
use super::scope::Scope;
use super::times;
use crate::import::book::{Book, Outcome};
use crate::import::sheet::{Section, Value, table};
use crate::import::tree::Directive;

/// What `proxy` of a route has: the name of an upstream, which is written if it isn't yet, or an address.
pub(super) fn target<'a>(context: &mut Context<'a>, scope: &Scope<'a>, passed: &Pass) -> String {
    let Pass { is_tls, authority, .. } = passed;
    let Some(upstream) = context.upstreams.find(authority) else {
        let scheme = if *is_tls { "https" } else { "http" };
        let next = scope.find("proxy_next_upstream");
        if let Some(next) = next.filter(|next| !context.book.knows(next)) {
            context.book.mark(next, Outcome::ByItself);
        }
        return match authority.strip_prefix("unix:") {
            Some(_) => authority.clone(),
            None => format!("{scheme}://{authority}"),
        };
    };
    let known = context.upstreams.written.iter().find(|(name, tls, _)| name == authority && tls == is_tls);
    if let Some((.., ours)) = known {
        return ours.clone();
    }
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut ours: String = authority.chars().map(|c| if is_good(c) { c } else { '-' }).take(56).collect();
    while context.upstreams.written.iter().any(|(.., other)| *other == ours) {
        ours.push_str(if *is_tls { "-tls" } else { "-plain" });
    }
    context.upstreams.written.push((authority.clone(), *is_tls, ours.clone()));
    let mut section = Section::new("[[upstream]]");
    section.set("name", ours.clone(), Some(&upstream.at));
    context.book.mark(upstream, Outcome::Key);
    write(&mut context.book, upstream.inside(), *is_tls, &mut section);
    retry(&mut context.book, scope, &mut section);
    context.finish(upstream.inside(), &mut section);
    context.site.upstreams.push(section);
    ours
}

fn write(book: &mut Book, directives: &[Directive], is_tls: bool, section: &mut Section) {
    let scheme = if is_tls { "https" } else { "http" };
    let mut servers = Vec::new();
    for server in directives.iter().filter(|directive| directive.name == "server") {
        let has = |word: &str| server.args.iter().any(|arg| arg == word);
        let value = |key: &str| server.args.iter().find_map(|arg| arg.strip_prefix(key));
        if has("down") {
            book.lacks(section, server, "a server that is down is left out");
            continue;
        }
        if has("backup") {
            let meaning = "there are no servers for the case that all others are down, so it is left out";
            book.misses(section, server, meaning);
            continue;
        }
        let address = server.arg(0);
        let address =
            if address.starts_with("unix:") { address.to_owned() } else { format!("{scheme}://{address}") };
        let mut keys = vec![("address".to_owned(), address.clone().into())];
        if let Some(weight) =
            value("weight=").and_then(|text| text.parse::<u32>().ok()).filter(|weight| *weight > 1)
        {
            keys.push(("weight".to_owned(), weight.min(1000).into()));
        }
        if let Some(sessions) =
            value("max_conns=").and_then(|text| text.parse::<u32>().ok()).filter(|count| *count > 0)
        {
            keys.push(("max_sessions".to_owned(), sessions.into()));
        }
        servers.push(if keys.len() == 1 { address.into() } else { Value::Table(keys) });
        book.mark(server, Outcome::Key);
        let (fails, time) = (value("max_fails="), value("fail_timeout=").and_then(times::duration));
        if fails.is_some() || time.is_some() {
            passive(fails.unwrap_or("1"), time.unwrap_or_else(|| "10s".to_owned()), server, section);
        }
        if let Some(start) = value("slow_start=").and_then(times::duration) {
            section.set("slow_start", start, Some(&server.at));
        }
        if has("resolve") {
            section.set("resolve", "dns", Some(&server.at));
        }
    }
    let is_one = servers.len() == 1;
    section.set("servers", Value::List(servers), None);
    balance(book, directives, is_one, section);
    for directive in directives {
        match directive.name.as_str() {
            "keepalive" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time" => {
                book.itself(section, directive, "connections to servers are kept for later requests (pool)");
            }
            "zone" | "state" => book.itself(section, directive, "all workers share what is known of servers"),
            "ntlm" => book.itself(
                section,
                directive,
                "a connection that a client has logged in is for this client only",
            ),
            "queue" => {
                let timeout =
                    directive.args.iter().find_map(|arg| arg.strip_prefix("timeout=")).unwrap_or("60");
                if let (Ok(length @ 1..), Some(time)) =
                    (directive.arg(0).parse::<u32>(), times::duration(timeout))
                {
                    book.key(
                        section,
                        directive,
                        "queue",
                        table([("length", length.into()), ("timeout", time.into())]),
                    );
                }
            }
            "sticky" => match (directive.arg(0), directive.arg(1)) {
                ("cookie", name) if !name.is_empty() => {
                    let how = "the cookie's value is the gateway's own";
                    book.nearly(section, directive, ("sticky.cookie", name.to_owned()), how);
                }
                _ => book.misses(
                    section,
                    directive,
                    "clients come back by a cookie of the gateway (upstream.sticky)",
                ),
            },
            _ => {}
        }
    }
}

/// When a server is passed over for a while.
fn passive(fails: &str, time: String, server: &Directive, section: &mut Section) {
    let Ok(count) = fails.parse::<u32>() else { return };
    if count == 0 {
        section.note(format!(
            "{}: max_fails=0: servers are not passed over where health doesn't say so",
            server.at
        ));
        return;
    }
    if section.get("health.passive.failures").is_some() {
        return; // what the first server says holds for all
    }
    section.comment(format!(
        "{}: max_fails, fail_timeout: for all servers, and in a row; answers from 500 on count, too",
        server.at
    ));
    section.set("health.passive.failures", count.min(1000), Some(&server.at));
    section.set("health.passive.within", time.clone(), None);
    section.set("health.passive.eject", time, None);
}

fn balance(book: &mut Book, directives: &[Directive], is_one: bool, section: &mut Section) {
    for directive in directives {
        match directive.name.as_str() {
            "least_conn" => return book.key(section, directive, "balance", "least-sessions"),
            "random" => return book.key(section, directive, "balance", "random-two"),
            "ip_hash" => {
                let how = "of IPv4 the whole address counts, and in nginx its first three parts";
                return book.nearly(section, directive, ("balance", "hash"), how);
            }
            "hash" => {
                let key = directive.arg(0);
                let by = match key {
                    "$remote_addr" | "$binary_remote_addr" => Some("client".to_owned()),
                    key => [("$http_", "header"), ("$cookie_", "cookie"), ("$arg_", "query")]
                        .iter()
                        .find_map(|(front, of)| {
                            let name = key.strip_prefix(front)?;
                            Some(format!(
                                "{of}:{}",
                                if *of == "header" { name.replace('_', "-") } else { name.to_owned() }
                            ))
                        }),
                };
                match by {
                    Some(by) => {
                        section.set("balance", "hash", Some(&directive.at));
                        book.key(section, directive, "hash", by);
                    }
                    None => {
                        let what = "a hash is of the client, of a field, a cookie, or a part of the query";
                        book.misses(section, directive, what);
                    }
                }
                return;
            }
            "least_time" => {
                let how =
                    "the server with the fewest sessions and requests is chosen, whatever time they take";
                return book.nearly(section, directive, ("balance", "least-sessions"), how);
            }
            _ => {}
        }
    }
    if !is_one {
        section.comment(
            "nginx asks one server after the other; without the line it is the one with the fewest sessions",
        );
        section.set("balance", "round-robin", None);
    }
}

/// `proxy_next_upstream`, which routes have in nginx.
fn retry(book: &mut Book, scope: &Scope<'_>, section: &mut Section) {
    if let Some(tries) = scope.find("proxy_next_upstream_tries") {
        match tries.arg(0).parse::<u32>() {
            Ok(count @ 1..=10) => book.key(section, tries, "retry.attempts", count),
            _ => book.itself(section, tries, "attempts have a limit of their own"),
        }
    }
    let Some(next) = scope.find("proxy_next_upstream") else { return };
    if next.arg(0) == "off" {
        return book.key(section, next, "retry.attempts", 1);
    }
    let mut on: Vec<Value> = Vec::new();
    for arg in &next.args {
        let words: &[&str] = match arg.as_str() {
            "error" => &["connect", "broken"],
            "timeout" => &["connect"],
            "invalid_header" => &["broken"],
            "http_500" => &["500"],
            "http_502" => &["502"],
            "http_503" => &["503"],
            "http_504" => &["504"],
            _ => &[],
        };
        on.extend(
            words.iter().map(|word| Value::from(*word)).filter(|word| !on.contains(word)).collect::<Vec<_>>(),
        );
    }
    if on.is_empty() {
        return book.misses(section, next, "none of these failures has a counterpart in retry.on");
    }
    let how = "what is not in the list has no counterpart, and requests that may have done something are repeated only if \
               their method allows it";
    book.nearly(section, next, ("retry.on", Value::List(on)), how);
}

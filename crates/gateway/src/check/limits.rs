//! Who may come in, and how much: the options of a configuration that refuse something, in their own words.

use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::Table;
use frame_core::metered::{OnLimit, Rates};

use crate::config::Config;
use crate::ops::table::table;
use crate::site::access::{Access, Per};
use crate::site::auth::Auth;
use crate::site::jwt::source::KeySource;
use crate::site::route::Route;

/// One row for the gateway, and one for each route that has any.
pub(super) fn limits(config: &Config) -> Table {
    let mut table = table(&["of", "who may come in", "how much"]);
    let connections = config.connections_max.map(|max| format!("max_connections {max}"));
    let memory = config.memory_max.map(|max| format!("max_memory {}", ByteSize(max)));
    let all: Vec<_> = connections.into_iter().chain(memory).collect();
    table.add_row(["the gateway", "-", &or_any(&all)]);
    for route in &config.routes {
        let Route { id, access, rates, origins, .. } = &**route;
        let mut who = access.as_deref().map(who).unwrap_or_default();
        who.extend(origins.as_ref().map(|_| "origins".to_owned()));
        let mut much = access.as_deref().map(how_much).unwrap_or_default();
        much.extend(rates.iter().flat_map(|rates| of_sessions(*rates)));
        if !who.is_empty() || !much.is_empty() {
            let row = [id.as_str(), &or_any(&who), &or_any(&much)];
            table.add_row(row.map(|text| config.hidden.hide(text)));
        }
    }
    table
}

fn or_any(words: &[String]) -> String {
    if words.is_empty() { "any".to_owned() } else { words.join(", ") }
}

fn who(access: &Access) -> Vec<String> {
    let lists = [("allow", &access.allow), ("deny", &access.deny)];
    let mut words: Vec<String> =
        lists.iter().filter(|(_, list)| !list.is_empty()).map(|(name, _)| (*name).to_owned()).collect();
    let Some(auth) = &access.auth else { return words };
    let Auth { basic, jwt, forward, recheck, .. } = &**auth;
    words.extend(basic.as_ref().map(|basic| format!("basic {}", basic.users.path.display())));
    words.extend(jwt.as_ref().map(|jwt| match &jwt.keys.source {
        KeySource::File(path) => format!("jwt {}", path.display()),
        KeySource::Url(url) => format!("jwt {}{}", url.endpoint.url(), url.uri.path()),
    }));
    words.extend(
        forward.as_ref().map(|forward| format!("forward {}{}", forward.endpoint.url(), forward.uri.path())),
    );
    words.extend(recheck.map(|interval| format!("recheck {}", time(interval))));
    words
}

fn how_much(access: &Access) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(access.requests.map(|rate| format!("requests {rate}")));
    words.extend(access.handshakes.map(|rate| format!("handshakes {rate}")));
    words.extend(access.sessions.map(|max| format!("sessions {max}")));
    if !words.is_empty() {
        words.push(match &access.per {
            Per::Client => "per client".to_owned(),
            Per::Header(name) => format!("per header:{name}"),
            Per::Subject => "per subject".to_owned(),
        });
    }
    let failures = access.auth.as_ref().and_then(|auth| auth.failures);
    words.extend(failures.map(|rate| format!("failures {rate}")));
    words.extend(access.max_body.map(|max| format!("max_body {}", ByteSize(max))));
    words
}

/// Of each session of a route.
fn of_sessions(rates: Rates) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(rates.messages.map(|rate| {
        let (count, period) = rate.parts();
        format!("messages {count}/{}", unit(period))
    }));
    words.extend(rates.bytes.map(|rate| {
        let (count, period) = rate.parts();
        format!("bytes {}/{}", ByteSize(count.get()), unit(period))
    }));
    words.push(match rates.on_limit {
        OnLimit::Delay => "on_limit delay".to_owned(),
        OnLimit::Close => "on_limit close".to_owned(),
    });
    words
}

/// As durations are written.
pub(super) fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// As rates are written.
fn unit(period: Duration) -> String {
    match period.as_secs() {
        1 => "s".to_owned(),
        60 => "m".to_owned(),
        3600 => "h".to_owned(),
        _ => time(period),
    }
}

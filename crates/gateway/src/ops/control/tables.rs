//! Answers of the control socket as people read them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::Table;
use net_io::unix_now;

use crate::ops::acme::AcmeInfo;
use crate::ops::control::protocol::{
    ControlResponse, DrainReport, ExpiryInfo, Reloaded, ServerInfo, SessionInfo, Status, UpstreamInfo,
};
use crate::ops::table::{section, table};

/// Writes an answer with its sessions; what went wrong goes to `err`.
///
/// # Errors
/// If it can't be written.
pub fn write(
    answer: &ControlResponse,
    sessions: &[SessionInfo],
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<()> {
    for problem in &answer.problems {
        writeln!(err, "{problem}")?;
    }
    if let Some(error) = &answer.error {
        writeln!(err, "wssgate: {error}")?;
    }
    if let Some(status) = &answer.status {
        out.write_all(crate::ops::control::tables::status(status).as_bytes())?;
    }
    if answer.sessions.is_some() {
        out.write_all(list(sessions).as_bytes())?;
    }
    if let Some(upstreams) = &answer.upstreams {
        let lines = |table: &Table| -> String {
            table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
        };
        out.write_all(lines(&servers(upstreams)).as_bytes())?;
        if let Some(names) = names(upstreams) {
            writeln!(out, "\n{}", lines(&names).trim_end())?;
        }
    }
    if let Some(reloaded) = &answer.reload {
        out.write_all(crate::ops::control::tables::reloaded(reloaded).as_bytes())?;
    }
    if let Some(drain) = &answer.drain {
        writeln!(out, "{}", drained(drain))?;
    }
    if let Some(id) = answer.closed {
        writeln!(out, "session {id} will be closed after the message in flight")?;
    }
    match answer.closed_sessions {
        Some(0) => writeln!(out, "there is no such session")?,
        Some(1) => writeln!(out, "1 session will be closed after the message in flight")?,
        Some(count) => writeln!(out, "{count} sessions will be closed after the messages in flight")?,
        None => {}
    }
    Ok(())
}

fn status(status: &Status) -> String {
    let mut text = "Gateway\n".to_owned();
    let mut fact = |what: &str, value: &str| {
        let _ = writeln!(text, "  {what:<14}{value}");
    };
    fact("state", &status.state);
    fact("process", &format!("{}, up {}", status.pid, age(status.uptime_s)));
    fact("version", &status.version);
    fact("generation", &status.generation.to_string());
    fact("reloads", &format!("{} taken, {} refused", status.reloads_taken, status.reloads_refused));
    fact("workers", &status.workers.to_string());
    fact("listeners", &status.listeners.join(", "));
    let of = status.connections_max.map(|max| format!(" of {max} (max_connections)")).unwrap_or_default();
    fact("connections", &format!("{}{of} open, {} so far", status.connections, status.connections_accepted));
    fact("sessions", &status.sessions.to_string());
    if let Some(first) = &status.nearest_expiry {
        fact("first expiry", &expiry(first));
    }
    if !status.drained.is_empty() {
        fact("drained", &status.drained.join(", "));
    }
    text.push('\n');
    let mut routes = table(&["route", "goes to", "sessions", "state"]);
    for route in &status.routes {
        routes.add_row([&route.route, &route.to, &route.sessions.to_string(), &route.state]);
    }
    section(&mut text, "Routes", &routes);
    if !status.upstreams.is_empty() {
        section(&mut text, "Servers", &servers(&status.upstreams));
        if let Some(names) = names(&status.upstreams) {
            section(&mut text, "Names of servers", &names);
        }
    }
    if !status.acme.is_empty() {
        section(&mut text, "Certificates of [acme]", &acme(&status.acme, unix_now()));
    }
    text
}

/// `now` in seconds since 1970.
fn acme(certificates: &[AcmeInfo], now: i64) -> Table {
    let mut rows = table(&["names", "state", "expires", "next order", "failures", "problem"]);
    let ahead = |at: Option<i64>| match at {
        Some(at) if at > now => format!("in {}", age(coarse((at - now).unsigned_abs()))),
        Some(_) => "now".to_owned(),
        None => "-".to_owned(),
    };
    for info in certificates {
        let problem = info.problem.clone().unwrap_or_else(|| "-".to_owned());
        let failures = info.failures.to_string();
        let (expires, next) = (ahead(info.expires), ahead(info.next_order));
        let names = info.names.join("\n") + if info.on_demand { " (on demand)" } else { "" };
        rows.add_row([names, info.state.clone(), expires, next, failures, problem]);
    }
    rows
}

/// Seconds, rounded down to minutes or hours where there are many.
fn coarse(seconds: u64) -> u64 {
    let unit = match seconds {
        0..600 => 1,
        600..172_800 => 60,
        _ => 3600,
    };
    seconds / unit * unit
}

fn server_cell(server: &ServerInfo) -> String {
    match (server.http2_connections, server.http2_streams) {
        (Some(connections), Some(streams)) => {
            format!("{} (HTTP/2: {streams} streams on {connections} connections)", server.server)
        }
        _ => server.server.clone(),
    }
}
/// So many addresses of a name are shown.
const FOUND_SHOWN: usize = 8;

fn servers(upstreams: &[UpstreamInfo]) -> Table {
    let mut rows = table(&[
        "upstream",
        "server",
        "weight",
        "state",
        "sessions",
        "in flight",
        "requests",
        "failures",
        "last probe",
        "why",
    ]);
    for upstream in upstreams {
        let waiting = match upstream.waiting {
            0 => String::new(),
            waiting => format!(" ({waiting} waiting)"),
        };
        for server in &upstream.servers {
            let probe = match (server.probed_ms, &server.probe_problem) {
                (None, _) => "-".to_owned(),
                (Some(ms), None) => format!("good, {} ago", age(ms / 1000)),
                (Some(ms), Some(_)) => format!("bad, {} ago", age(ms / 1000)),
            };
            rows.add_row([
                format!("{}{waiting}", upstream.upstream),
                server_cell(server),
                server.weight.to_string(),
                server.state.clone(),
                server.sessions.to_string(),
                server.in_flight.to_string(),
                server.requests.to_string(),
                server.failures.to_string(),
                probe,
                server.why.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
    }
    rows
}

/// `None`: none is looked up.
fn names(upstreams: &[UpstreamInfo]) -> Option<Table> {
    let mut rows = table(&["name", "found", "resolved", "look-ups", "failures", "last failure"]);
    let mut shown = Vec::new();
    for name in upstreams.iter().flat_map(|upstream| &upstream.names) {
        if shown.contains(&name) {
            continue;
        }
        shown.push(name);
        let found = match &name.found[..] {
            [] => "-".to_owned(),
            [first @ .., _] if first.len() >= FOUND_SHOWN => {
                format!("{}, … ({})", name.found[..FOUND_SHOWN].join(", "), name.found.len())
            }
            all => all.join(", "),
        };
        rows.add_row([
            name.name.clone(),
            found,
            name.resolved_ms.map_or("never".to_owned(), |ms| format!("{} ago", age(ms / 1000))),
            name.lookups.to_string(),
            name.failures.to_string(),
            name.problem.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    (!shown.is_empty()).then_some(rows)
}

fn expiry(first: &ExpiryInfo) -> String {
    let days = if first.days == 1 { "day" } else { "days" };
    format!("in {} {days} ({})", first.days, first.name)
}

/// How it is, and what there is to say of its backends.
fn state(session: &SessionInfo) -> String {
    match (session.redials, &session.no_redial) {
        (Some(redials @ 1..), _) => format!("{} (redials: {redials})", session.state),
        (_, Some(why)) => format!("{} (no redial: {why})", session.state),
        _ => session.state.clone(),
    }
}

fn list(sessions: &[SessionInfo]) -> String {
    let mut rows = table(&[
        "id", "peer", "client", "subject", "route", "goes to", "protocol", "state", "age", "idle",
        "received", "sent",
    ]);
    for session in sessions {
        let mut row = vec![
            session.id.to_string(),
            session.peer.clone(),
            session.client.clone(),
            session.subject.clone().unwrap_or_else(|| "-".to_owned()),
            session.route.clone(),
            session.to.clone(),
            session.protocol.clone(),
            state(session),
            age(session.age_ms / 1000),
        ];
        match &session.traffic {
            Some(traffic) => row.extend([
                age(traffic.idle_ms / 1000),
                format!("{} ({})", traffic.received_messages, ByteSize(traffic.received_bytes)),
                format!("{} ({})", traffic.sent_messages, ByteSize(traffic.sent_bytes)),
            ]),
            None => row.extend(["?", "?", "?"].map(str::to_owned)),
        }
        rows.add_row(row);
    }
    rows.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn reloaded(report: &Reloaded) -> String {
    let mut text = format!("Reloaded: generation {}\n", report.generation);
    let mut fact = |what: &str, value: &str| {
        let _ = writeln!(text, "  {what:<16}{value}");
    };
    for (what, names) in [
        ("names added", &report.names_added),
        ("names removed", &report.names_removed),
        ("names replaced", &report.names_replaced),
        ("names kept", &report.names_kept),
    ] {
        if !names.is_empty() {
            fact(what, &names.join(", "));
        }
    }
    fact("names unchanged", &report.names_unchanged.to_string());
    if let Some(first) = &report.nearest_expiry {
        fact("first expiry", &expiry(first));
    }
    if let Some(key) = &report.ticket_key {
        fact("ticket key", key);
    }
    let (added, removed) = (report.routes_added, report.routes_removed);
    fact("routes", &format!("{} ({added} added, {removed} removed)", report.routes));
    let (added, removed) = (report.listeners_added, report.listeners_removed);
    fact("listeners", &format!("{added} added, {removed} removed"));
    let of = match &report.routes_ended[..] {
        [] => String::new(),
        routes => format!(", of routes that are gone: {}", routes.join(", ")),
    };
    fact("sessions ended", &format!("{}{of}", report.sessions_ended));
    fact("took", &format!("{} ms", report.took_ms));
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn drained(drain: &DrainReport) -> String {
    let DrainReport { target, sessions, .. } = drain;
    if drain.drained {
        let window = humantime::format_duration(Duration::from_millis(drain.window_ms));
        format!(
            "{target} is drained: it gets no new requests; sessions that will be closed within {window}: {sessions}"
        )
    } else {
        format!("{target} is served again")
    }
}

fn age(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

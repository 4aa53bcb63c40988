//! Whatever stands in a value, it is text: each has markup of its own here, and is looked for in what was rendered.

use std::collections::BTreeMap;

use super::facts::{CertificateInfo, Facts, LostInfo, WorkerInfo};
use super::history::{Change, History};
use super::parts::Rendered;
use super::view::SessionQuery;
use super::watch::{Look, Rates, SessionRow};
use super::*;
use crate::ops::control::protocol::{Reloaded, RouteInfo, ServerInfo, SessionInfo, Status, UpstreamInfo};
use crate::ops::ends::EndInfo;
use crate::ops::reloads::ReloadInfo;

/// A value that would be an element and leave every attribute.
fn evil(name: &str) -> String {
    format!("<b {name}>'\"&")
}

/// The same as text.
fn harmless(name: &str) -> String {
    format!("&lt;b {name}&gt;'&quot;&amp;")
}

fn some(name: &str) -> Option<String> {
    Some(evil(name))
}

fn session() -> SessionRow {
    let info = SessionInfo {
        id: 7,
        peer: evil("peer"),
        client: evil("client"),
        route: evil("route"),
        to: evil("to"),
        protocol: evil("protocol"),
        subject: some("subject"),
        state: evil("state"),
        no_redial: some("no_redial"),
        stalled_ms: Some(1),
        ..SessionInfo::default()
    };
    SessionRow { info, rates: Rates { messages: 1.0, received_bytes: 1.0, sent_bytes: 1.0 } }
}

fn look() -> Look {
    let mut history = History::default();
    history.add(0, 1000, &BTreeMap::from([(evil("route"), Change { sessions: 1, ..Change::default() })]));
    Look { number: 1, sessions: vec![session()], history, ..Look::default() }
}

fn facts() -> Facts {
    let server = ServerInfo {
        server: evil("server"),
        state: evil("server_state"),
        why: some("why"),
        probe_problem: some("probe_problem"),
        ..ServerInfo::default()
    };
    let upstream = UpstreamInfo {
        upstream: evil("upstream"),
        balance: evil("balance"),
        waiting: 1,
        servers: vec![server],
        ..UpstreamInfo::default()
    };
    let route = RouteInfo { route: evil("route"), to: evil("to"), sessions: 1, state: "served".to_owned() };
    let status = Status {
        state: evil("gateway_state"),
        listeners: vec![evil("listener")],
        routes: vec![route],
        upstreams: vec![upstream],
        drained: vec![evil("drained")],
        ..Status::default()
    };
    let certificate = CertificateInfo {
        names: vec![evil("certificate_name")],
        key: "RSA",
        issuer: evil("issuer"),
        serial: evil("serial"),
        files: vec![evil("file")],
        not_after: 0,
        days_left: -1,
        is_valid_yet: false,
        is_served: true,
    };
    let lost = LostInfo {
        name: evil("lost_name"),
        files: vec![evil("lost_file")],
        why: evil("lost_why"),
        served_instead: vec![evil("served_instead")],
    };
    let worker = WorkerInfo {
        worker: 0,
        sessions: 1,
        accepted: 1,
        memory_held: 1,
        memory_refused: 1,
        memory_closed: 1,
    };
    let taken = Reloaded {
        names_added: vec![evil("name_added")],
        names_removed: vec![evil("name_removed")],
        names_replaced: vec![evil("name_replaced")],
        names_kept: vec![evil("name_kept")],
        warnings: vec![evil("reload_warning")],
        ..Reloaded::default()
    };
    let reload =
        |taken| ReloadInfo { at: 0, taken, problem_count: 1, problems: vec![evil("reload_problem")] };
    let ended = EndInfo {
        client: evil("ended_client"),
        subject: some("ended_subject"),
        host: evil("host"),
        path: evil("path"),
        route: evil("ended_route"),
        request_id: some("request_id"),
        cause: evil("close_reason"),
        ..EndInfo::default()
    };
    Facts {
        status,
        certificates: vec![certificate],
        not_served: vec![lost],
        certificate_warnings: vec![evil("certificate_warning")],
        workers: vec![worker],
        log_lines_lost: 1,
        reloads: vec![reload(None), reload(Some(taken))],
        ended: vec![ended],
    }
}

#[track_caller]
fn check(rendered: &Rendered, target: &str, names: &[&str]) {
    let page = document::document(Some(rendered), target).into_string();
    assert!(!page.contains("<b ") && !page.contains("'\"&"), "{page}");
    for name in names {
        assert!(page.contains(&harmless(name)), "{name} is not shown: {page}");
    }
    // As viewers get it.
    let message: serde_json::Value = serde_json::from_str(&format!("{{{}}}", rendered.members)).unwrap();
    assert_eq!(message, json!({ "title": rendered.title, "main": rendered.main.0 }));
}

#[test]
fn no_value_is_markup_in_any_view() {
    let (look, facts) = (look(), facts());
    let names = "client route to gateway_state listener upstream balance server server_state why probe_problem drained \
                 certificate_name issuer serial file lost_name lost_file lost_why served_instead certificate_warning \
                 name_added name_removed name_replaced name_kept reload_warning reload_problem \
                 ended_client ended_subject host path ended_route request_id close_reason";
    check(&overview::view(&facts, &look, true), "/", &names.split_whitespace().collect::<Vec<_>>());
    let query = SessionQuery { search: "<b".to_owned(), ..SessionQuery::default() };
    check(&sessions::list(&query, &look), &query.target(), &["client", "subject", "route", "to", "state"]);
    let one = sessions::one(7, Some(&look.sessions[0]), &look, true);
    let names = ["client", "peer", "subject", "route", "to", "protocol", "state", "no_redial"];
    check(&one, "/sessions/7", &names);
    let query = SessionQuery { search: evil("search"), ..SessionQuery::default() };
    check(&sessions::list(&query, &look), &query.target(), &["search"]);
}

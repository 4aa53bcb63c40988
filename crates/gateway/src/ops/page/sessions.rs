//! Sessions: the list, one of them, and those that the overview has.

use maud::{Markup, html};

use crate::ops::control::protocol::SessionInfo;
use crate::ops::ends::EndInfo;
use crate::ops::page::parts::{Rendered, as_of, button};
use crate::ops::page::shown;
use crate::ops::page::table::{Direction, number, table, text};
use crate::ops::page::view::{Column, PAGE_LEN, SessionQuery, bytes, idle, messages};
use crate::ops::page::watch::{Look, SessionRow};

/// Rows of a short list.
pub(super) const TOP: usize = 10;

/// The list that a query asks for.
pub(super) fn list(query: &SessionQuery, look: &Look) -> Rendered {
    let (rows, count, page) = query.select(&look.sessions);
    let columns: Vec<_> = Column::ALL
        .into_iter()
        .map(|column| {
            let direction = if query.is_descending { Direction::Descending } else { Direction::Ascending };
            let now = (query.sort == column).then_some(direction);
            let head = if column.is_number() { number(column.title()) } else { text(column.title()) };
            head.sorts(now, query.sorted_by(column).target())
        })
        .collect();
    let cells: Vec<_> = rows.iter().map(|row| row_of(row)).collect();
    let caption = match count {
        0 => "No sessions".to_owned(),
        _ => format!(
            "Sessions {} to {} of {}",
            shown::count((page * PAGE_LEN + 1) as u64),
            shown::count((page * PAGE_LEN + rows.len()) as u64),
            shown::count(count as u64)
        ),
    };
    let main = html! {
        h1 { "Sessions" }
        form class="search" role="search" method="get" action="/sessions" {
            label for="q" { "Search in sessions" }
            input id="q" name="q" type="search" value=(query.search) maxlength="200"
                placeholder="client, route, backend, subject, state";
            input type="hidden" name="sort" value=(query.sort_key());
            button { "Search" }
        }
        (table(&caption, &columns, &cells))
        (pages(query, count, page))
        (as_of(look))
    };
    Rendered::new(format!("{} · wssgate", shown::counted(count as u64, "session")), main)
}

fn row_of(row: &SessionRow) -> Vec<Markup> {
    let SessionRow { info, rates } = row;
    vec![
        html! { a href={ "/sessions/" (info.id) } { (info.id) } },
        html! { (info.client) },
        html! { (info.subject.as_deref().unwrap_or("–")) },
        html! { (info.route) },
        html! { (info.to) },
        html! { (info.state) },
        html! { (shown::duration(info.age_ms)) },
        html! { (or_busy(idle(info).map(shown::duration))) },
        html! { (shown::byte_rate(rates.bytes())) },
        html! { (or_busy(messages(info).map(shown::count))) },
        html! { (or_busy(bytes(info).map(shown::bytes))) },
        html! { (info.stalled_ms.map_or_else(|| "–".to_owned(), shown::duration)) },
    ]
}

/// A session that was too busy to say.
fn or_busy(value: Option<String>) -> String {
    value.unwrap_or_else(|| "busy".to_owned())
}

fn pages(query: &SessionQuery, count: usize, page: usize) -> Markup {
    let last = count.saturating_sub(1) / PAGE_LEN;
    let to = |page: usize| SessionQuery { page, ..query.clone() }.target();
    html! {
        @if last > 0 {
            nav class="pages" aria-label="Pages of the list" {
                @if page > 0 { a href=(to(0)) { "First" } a href=(to(page - 1)) rel="prev" { "Previous" } }
                span { "page " (shown::count((page + 1) as u64)) " of " (shown::count((last + 1) as u64)) }
                @if page < last { a href=(to(page + 1)) rel="next" { "Next" } a href=(to(last)) { "Last" } }
            }
        }
    }
}

/// Where the sessions are whose rows have all words of `text`.
pub(super) fn found_by(text: &str) -> String {
    SessionQuery { search: text.to_owned(), ..SessionQuery::default() }.target()
}

/// Those that move most at the moment.
pub(super) fn busiest(look: &Look) -> Markup {
    let rows = busiest_of(look).into_iter().map(|row| {
        vec![
            html! { a href={ "/sessions/" (row.info.id) } { (row.info.id) } },
            html! { (row.info.client) },
            html! { (row.info.route) },
            html! { (shown::rate(row.rates.messages)) },
            html! { (shown::byte_rate(row.rates.bytes())) },
        ]
    });
    let columns = [text("Session"), text("Client"), text("Route"), number("Messages"), number("Payload")];
    html! {
        (table("Sessions that move most at the moment", &columns, &rows.collect::<Vec<_>>()))
        p { a href="/sessions?sort=-rate" { "All, by rate" } }
    }
}

/// The same as rows.
pub(super) fn busiest_of(look: &Look) -> Vec<&SessionRow> {
    let busy = look.sessions.iter().filter(|row| row.rates.bytes() > 0.0 || row.rates.messages > 0.0);
    top(busy.collect(), |a, b| b.rates.bytes().total_cmp(&a.rates.bytes()))
}

/// Those whose peers have taken nothing for the longest while something waits for them.
pub(super) fn slowest(look: &Look) -> Markup {
    let rows = slowest_of(look).into_iter().map(|row| {
        vec![
            html! { a href={ "/sessions/" (row.info.id) } { (row.info.id) } },
            html! { (row.info.client) },
            html! { (row.info.route) },
            html! { (row.info.stalled_ms.map_or_else(String::new, shown::duration)) },
        ]
    });
    let columns = [text("Session"), text("Client"), text("Route"), number("Takes nothing for")];
    html! {
        (table("Sessions in which bytes wait for a peer", &columns, &rows.collect::<Vec<_>>()))
        p { a href="/sessions?sort=-stalled" { "All, by how long they are stalled" } }
    }
}

/// The same as rows.
pub(super) fn slowest_of(look: &Look) -> Vec<&SessionRow> {
    let stalled = look.sessions.iter().filter(|row| row.info.stalled_ms.is_some());
    top(stalled.collect(), |a, b| b.info.stalled_ms.cmp(&a.info.stalled_ms))
}

fn top(
    mut rows: Vec<&SessionRow>,
    order: impl Fn(&SessionRow, &SessionRow) -> std::cmp::Ordering,
) -> Vec<&SessionRow> {
    if rows.len() > TOP {
        rows.select_nth_unstable_by(TOP, |a, b| order(a, b));
        rows.truncate(TOP);
    }
    rows.sort_unstable_by(|a, b| order(a, b));
    rows
}

/// Those that have ended last.
pub(super) fn ended(ends: &[EndInfo]) -> Markup {
    let columns = [
        text("When"),
        text("Session"),
        text("Client"),
        text("Asked for"),
        text("Route"),
        number("Code"),
        text("Cause"),
        number("Lived"),
        number("Messages"),
        number("Payload"),
    ];
    let row = |end: &EndInfo| {
        vec![
            html! { time datetime=(shown::moment_machine(end.at)) { (shown::moment(end.at)) } },
            html! {
                @match end.id { Some(id) => (id), None => "–" }
                @if let Some(id) = &end.request_id { span class="why" { " " (id) } }
            },
            html! { (end.client) @if let Some(subject) = &end.subject { span class="why" { " " (subject) } } },
            html! { (end.host) (end.path) },
            html! { (end.route) },
            html! { span.bad[end.is_abnormal] { (end.close_code) } },
            html! { (end.cause) },
            html! { (shown::duration(end.duration_ms)) },
            html! { (shown::count(end.messages)) },
            html! { (shown::bytes(end.bytes)) },
        ]
    };
    html! {
        details {
            summary { "The last " (ends.len()) ", the latest first" }
            (table("Sessions that have ended", &columns, &ends.iter().map(row).collect::<Vec<_>>()))
        }
    }
}

/// One session; `None`: it does not live.
pub(super) fn one(id: u64, row: Option<&SessionRow>, look: &Look, has_actions: bool) -> Rendered {
    let title = format!("Session {id} · wssgate");
    let main = html! {
        p { a href="/sessions" { "All sessions" } }
        h1 { "Session " (id) }
        @match row {
            Some(row) => {
                (facts_of(row))
                @if has_actions && row.info.state != "closing" {
                    p class="needs-script" { (button("Close this session", "close", Some(&id.to_string()))) }
                }
            },
            None => p { "There is no live session " (id) ". If it has ended, its line is in the access log, and the overview has the last 50." },
        }
        (as_of(look))
    };
    Rendered::new(title, main)
}

fn facts_of(row: &SessionRow) -> Markup {
    let SessionRow { info, rates } = row;
    let SessionInfo {
        peer,
        client,
        route,
        to,
        protocol,
        subject,
        state,
        redials,
        no_redial,
        age_ms,
        traffic,
        stalled_ms,
        ..
    } = info;
    let mut pairs: Vec<(&str, String)> = vec![
        ("State", state.clone()),
        ("Client", client.clone()),
        ("Peer of the connection", peer.clone()),
        ("Subject", subject.clone().unwrap_or_else(|| "not known".to_owned())),
        ("Route", route.clone()),
        ("To", to.clone()),
        ("Protocol", protocol.clone()),
        ("Age", shown::duration(*age_ms)),
    ];
    match traffic {
        Some(traffic) => pairs.extend([
            ("Since a message moved", shown::duration(traffic.idle_ms)),
            ("Messages from the client", shown::count(traffic.received_messages)),
            ("Payload from the client", shown::bytes(traffic.received_bytes)),
            ("Messages to the client", shown::count(traffic.sent_messages)),
            ("Payload to the client", shown::bytes(traffic.sent_bytes)),
        ]),
        None => pairs.push(("Traffic", "it was too busy to say".to_owned())),
    }
    pairs.extend([
        ("Messages now", shown::rate(rates.messages)),
        ("From the client now", shown::byte_rate(rates.received_bytes)),
        ("To the client now", shown::byte_rate(rates.sent_bytes)),
        ("A peer takes nothing for", stalled_ms.map_or_else(|| "–".to_owned(), shown::duration)),
    ]);
    pairs.extend(redials.map(|redials| ("Other backends since", shown::count(redials))));
    pairs.extend(no_redial.as_ref().map(|why| ("Can't get another backend", why.clone())));
    html! { dl class="facts" { @for (name, value) in pairs { div { dt { (name) } dd { (value) } } } } }
}

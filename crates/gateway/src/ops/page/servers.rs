//! Servers that requests are passed on to, and how they are.

use maud::{Markup, html};

use crate::ops::control::protocol::{ServerInfo, UpstreamInfo};
use crate::ops::page::parts::{button, state};
use crate::ops::page::shown;
use crate::ops::page::table::{number, table, text};

/// A row for each.
pub(super) fn table_of(upstreams: &[UpstreamInfo], has_actions: bool) -> Markup {
    let columns = [
        text("Server"),
        text("Upstream"),
        text("State"),
        number("Sessions"),
        number("In flight"),
        number("Requests"),
        number("Failures"),
        text("Last probe"),
    ];
    let row = |upstream: &UpstreamInfo, server: &ServerInfo| {
        let drain = if server.state == "drained" { ("Undrain", "undrain") } else { ("Drain", "drain") };
        vec![
            html! { (server.server) },
            html! { (upstream.upstream) " (" (upstream.balance) ")" },
            html! {
                (state(&server.state))
                @if let Some(why) = &server.why { span class="why" { " " (why) } }
                @if has_actions { " " (button(drain.0, drain.1, Some(&server.server))) }
            },
            html! { (shown::count(server.sessions)) },
            html! { (shown::count(server.in_flight)) },
            html! { (shown::count(server.requests)) },
            html! { (shown::count(server.failures)) },
            html! {
                @match server.probed_ms {
                    Some(ms) => { (shown::duration(ms)) " ago" },
                    None => "–",
                }
                @if let Some(problem) = &server.probe_problem { span class="bad" { ": " (problem) } }
            },
        ]
    };
    let all = upstreams
        .iter()
        .flat_map(|upstream| upstream.servers.iter().map(move |server| row(upstream, server)));
    html! {
        (table("Servers that requests are passed on to", &columns, &all.collect::<Vec<_>>()))
        @for upstream in upstreams.iter().filter(|upstream| upstream.waiting > 0) {
            p class="bad" { (shown::count(upstream.waiting)) " requests wait for a server of " (upstream.upstream) "." }
        }
    }
}

//! The view of the gateway as a whole: its numbers, what to look at first, and what its routes carry. Other parts of it are
//! in [`servers`], [`sessions`], [`certificates`] and [`process`].

use maud::{Markup, html};

use crate::ops::control::protocol::RouteInfo;
use crate::ops::page::facts::Facts;
use crate::ops::page::history::{OTHERS, Slot};
use crate::ops::page::parts::{Rendered, as_of, button, state};
use crate::ops::page::table::{number, table, text};
use crate::ops::page::watch::{Look, Rates};
use crate::ops::page::{certificates, graph, process, servers, sessions, shown};

/// The gateway as a whole.
pub(super) fn view(facts: &Facts, look: &Look, has_actions: bool) -> Rendered {
    let status = &facts.status;
    let main = html! {
        h1 { "Overview" }
        (numbers(facts, look))
        (attention(facts))
        section aria-labelledby="traffic" {
            h2 id="traffic" { "Last 15 minutes" }
            (all_routes(look))
            (routes(&status.routes, look, has_actions))
            (graph::legend())
        }
        section aria-labelledby="servers" {
            h2 id="servers" { "Servers" }
            (servers::table_of(&status.upstreams, has_actions))
        }
        div class="pair" {
            section aria-labelledby="busiest" { h2 id="busiest" { "Busiest sessions" } (sessions::busiest(look)) }
            section aria-labelledby="slowest" { h2 id="slowest" { "Slowest clients" } (sessions::slowest(look)) }
        }
        section aria-labelledby="ended" { h2 id="ended" { "Sessions that ended last" } (sessions::ended(&facts.ended)) }
        section aria-labelledby="certificates" {
            h2 id="certificates" { "Certificates" }
            (certificates::loaded(&facts.certificates))
            @if !facts.not_served.is_empty() { (certificates::not_served(&facts.not_served)) }
        }
        div class="pair" {
            section aria-labelledby="listeners" { h2 id="listeners" { "Listeners" } (process::listeners(&status.listeners)) }
            section aria-labelledby="workers" { h2 id="workers" { "Workers" } (process::workers(&facts.workers)) }
        }
        section aria-labelledby="reloads" {
            h2 id="reloads" { "Reloads" }
            @if has_actions { p class="needs-script" { (button("Reload the configuration", "reload", None)) } }
            (process::reloads(&facts.reloads))
        }
        (as_of(look))
    };
    let title = format!("{}: {} · wssgate", status.state, shown::counted(status.sessions as u64, "session"));
    Rendered::new(title, main)
}

fn numbers(facts: &Facts, look: &Look) -> Markup {
    let status = &facts.status;
    let sum = look.rates.values().fold(Rates::default(), |sum, rates| Rates {
        messages: sum.messages + rates.messages,
        received_bytes: sum.received_bytes + rates.received_bytes,
        sent_bytes: sum.sent_bytes + rates.sent_bytes,
    });
    let memory: u64 = facts.workers.iter().map(|worker| worker.memory_held).sum();
    let connections = match status.connections_max {
        Some(max) => format!("{} of {}", shown::count(status.connections), shown::count(max)),
        None => shown::count(status.connections),
    };
    let pairs = [
        ("State", status.state.clone()),
        ("Sessions", shown::count(status.sessions as u64)),
        ("Messages", shown::rate(sum.messages)),
        ("From clients", shown::byte_rate(sum.received_bytes)),
        ("To clients", shown::byte_rate(sum.sent_bytes)),
        ("Connections", connections),
        ("Held in memory", shown::bytes(memory)),
        ("Generation", shown::count(status.generation)),
        ("Up for", shown::duration(status.uptime_s * 1000)),
    ];
    html! { dl class="numbers" { @for (name, value) in pairs { div { dt { (name) } dd { (value) } } } } }
}

fn attention(facts: &Facts) -> Markup {
    let found = facts.attention();
    html! {
        section aria-labelledby="attention" class="attention" {
            h2 id="attention" { "To look at" }
            @if found.is_empty() { p class="good" { "Nothing: servers are up, certificates are valid, the last reload was taken." } }
            ul {
                @for (is_bad, sentence) in found {
                    li.bad[is_bad] { strong { @if is_bad { "Problem: " } @else { "Note: " } } (sentence) }
                }
            }
        }
    }
}

fn all_routes(look: &Look) -> Markup {
    let covered = look.history.covered_ms();
    let mut all = vec![Slot::default(); covered.len()];
    for slots in look.history.series().values() {
        for (sum, slot) in all.iter_mut().zip(slots) {
            sum.normal += slot.normal;
            sum.abnormal += slot.abnormal;
            sum.received_bytes += slot.received_bytes;
            sum.sent_bytes += slot.sent_bytes;
        }
    }
    html! {
        figure {
            figcaption { "All routes" (at_most(graph::peak(&all, covered))) }
            (graph::graph("All routes", &all, covered, graph::LARGE))
            p class="scale" aria-hidden="true" { span { "15 minutes ago" } span { "now" } }
        }
    }
}

fn routes(routes: &[RouteInfo], look: &Look, has_actions: bool) -> Markup {
    let covered = look.history.covered_ms();
    let columns = [
        text("Route"),
        text("To"),
        text("State"),
        number("Sessions"),
        number("Messages"),
        number("Payload"),
        number("Ended"),
        text("Last 15 minutes"),
    ];
    let row = |route: &RouteInfo| {
        let slots = look.history.of(&route.route);
        let rates = look.rates.get(&route.route).copied().unwrap_or_default();
        let abnormal: u32 = slots.iter().map(|slot| slot.abnormal).sum();
        let ended: u32 = abnormal + slots.iter().map(|slot| slot.normal).sum::<u32>();
        let drain = match route.state.as_str() {
            "drained" => Some(("Undrain", "undrain")),
            "served" => Some(("Drain", "drain")),
            _ => None,
        };
        vec![
            html! { a href=(sessions::found_by(&route.route)) { (route.route) } },
            html! { (route.to) },
            html! {
                (state(&route.state))
                @if let Some((text, command)) = drain.filter(|_| has_actions) { " " (button(text, command, Some(&route.route))) }
            },
            html! { (shown::count(route.sessions as u64)) },
            html! { (shown::rate(rates.messages)) },
            html! { (shown::byte_rate(rates.bytes())) },
            html! {
                (shown::count(ended))
                @if abnormal > 0 { span class="bad" { " (" (shown::count(abnormal)) " abnormally)" } }
            },
            html! {
                (graph::graph(&route.route, slots, covered, graph::SMALL))
                span class="peak" { (at_most(graph::peak(slots, covered))) }
            },
        ]
    };
    let others = look.history.of(OTHERS);
    html! {
        (table("Routes, with what they carry", &columns, &routes.iter().map(row).collect::<Vec<_>>()))
        @if !others.is_empty() {
            p { "The busiest 100 routes have graphs; all others together: " (graph::graph(OTHERS, others, covered, graph::SMALL)) }
        }
    }
}

/// The scale of a graph.
fn at_most(peak: f64) -> Markup {
    html! { @if peak >= 0.5 { " at most " (shown::byte_rate(peak)) } @else { " no payload" } }
}

//! The page as HTML: what stands around each view, and the view of everything.
//!
//! Every value goes through maud, which escapes it: what peers have sent can't be markup. There is no script and no style
//! inside the page, so that the policy can forbid both.

use maud::{DOCTYPE, Markup, html};

use crate::ops::control::protocol::{RouteInfo, ServerInfo, UpstreamInfo};
use crate::ops::ends::EndInfo;
use crate::ops::page::facts::{CertificateInfo, EXPIRY_DAYS, Facts};
use crate::ops::page::graph;
use crate::ops::page::history::{OTHERS, Slot};
use crate::ops::page::parts::{Rendered, as_of, button};
use crate::ops::page::sessions;
use crate::ops::page::shown;
use crate::ops::page::table::{number, table, text};
use crate::ops::page::watch::{Look, Rates};
use crate::ops::reloads::ReloadInfo;

/// What is around a view. Without one, the script asks for the token first.
pub(super) fn document(rendered: Option<&Rendered>, path: &str) -> Markup {
    let title = rendered.map_or("wssgate", |rendered| &rendered.title);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
                script src="/live.js" defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    a class="brand" href="/" { "wssgate" }
                    nav aria-label="Views" {
                        a href="/" aria-current=[(path == "/").then_some("page")] { "Overview" }
                        a href="/sessions" aria-current=[path.starts_with("/sessions").then_some("page")] { "Sessions" }
                    }
                    p id="live" role="status" {}
                }
                main id="main" tabindex="-1" {
                    @match rendered {
                        Some(rendered) => (rendered.main),
                        None => (shell()),
                    }
                }
                footer {
                    p { "wssgate " (env!("CARGO_PKG_VERSION")) " · " a href="/status.json" { "this page as JSON" } " · "
                        a href="/metrics" { "metrics" } }
                    noscript { p { "Without scripts this page shows one moment: reload it for another." } }
                }
                p id="news" class="hidden" role="status" aria-live="polite" {}
                dialog id="token" aria-labelledby="token-title" {
                    form method="dialog" {
                        h2 id="token-title" { "Token" }
                        p { "The token is in the file that " code { "token_file" } " in " code { "[admin]" }
                            " names. It stays in this tab's memory, and is gone when the tab is." }
                        label for="token-text" { "Token" }
                        input id="token-text" type="password" autocomplete="off" required;
                        p class="buttons" {
                            button value="yes" { "Go on" }
                            button value="no" formnovalidate { "Cancel" }
                        }
                    }
                }
                dialog id="sure" aria-labelledby="sure-title" {
                    form method="dialog" {
                        h2 id="sure-title" { "Are you sure?" }
                        p id="sure-text" {}
                        p class="buttons" {
                            button value="yes" class="danger" { "Yes" }
                            button value="no" autofocus { "No" }
                        }
                    }
                }
            }
        }
    }
}

/// In place of a view.
fn shell() -> Markup {
    html! {
        h1 { "This page needs a token" }
        noscript {
            p { "Scripts are off, and only they can ask for the token here. "
                "Programs send it as " code { "Authorization: Bearer …" } ", to " code { "/status.json" } " for instance." }
        }
        p class="needs-script" { button data-token { "Enter the token" } }
    }
}

/// The gateway as a whole.
pub(super) fn overview(facts: &Facts, look: &Look, has_actions: bool) -> Rendered {
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
            (servers(&status.upstreams, has_actions))
        }
        div class="pair" {
            section aria-labelledby="busiest" { h2 id="busiest" { "Busiest sessions" } (sessions::busiest(look)) }
            section aria-labelledby="slowest" { h2 id="slowest" { "Slowest clients" } (sessions::slowest(look)) }
        }
        section aria-labelledby="ended" { h2 id="ended" { "Sessions that ended last" } (ended(&facts.ended)) }
        section aria-labelledby="certificates" {
            h2 id="certificates" { "Certificates" }
            (certificates(&facts.certificates))
            @if !facts.not_served.is_empty() { (not_served(facts)) }
        }
        div class="pair" {
            section aria-labelledby="listeners" { h2 id="listeners" { "Listeners" } (listeners(&status.listeners)) }
            section aria-labelledby="workers" { h2 id="workers" { "Workers" } (workers(facts)) }
        }
        section aria-labelledby="reloads" {
            h2 id="reloads" { "Reloads" }
            @if has_actions { p class="needs-script" { (button("Reload the configuration", "reload", None)) } }
            (reloads(&facts.reloads))
        }
        (as_of(look))
    };
    Rendered {
        title: format!("{}: {} · wssgate", status.state, shown::counted(status.sessions as u64, "session")),
        main,
    }
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

fn servers(upstreams: &[UpstreamInfo], has_actions: bool) -> Markup {
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

/// A word that says how something is.
fn state(word: &str) -> Markup {
    let class = match word {
        "up" | "served" | "open" => "is-good",
        "down" | "ejected" | "gone" => "is-bad",
        _ => "is-odd",
    };
    html! { span class={ "state " (class) } { (word) } }
}

fn ended(ends: &[EndInfo]) -> Markup {
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

fn certificates(certificates: &[CertificateInfo]) -> Markup {
    let columns = [
        text("Names"),
        number("Days left"),
        text("Until"),
        text("Key"),
        text("Issuer"),
        text("Serial"),
        text("Files"),
    ];
    let row = |certificate: &CertificateInfo| {
        vec![
            lines(&certificate.names),
            html! {
                span.bad[certificate.days_left <= EXPIRY_DAYS] { (certificate.days_left) }
                @if certificate.days_left < 0 { span class="bad" { " expired" } }
                @if !certificate.is_valid_yet { span class="bad" { " not valid yet" } }
                @if !certificate.is_served { span class="why" { " not served" } }
            },
            html! { time datetime=(shown::moment_machine(certificate.not_after)) { (shown::moment(certificate.not_after)) } },
            html! { (certificate.key) },
            html! { (certificate.issuer) },
            html! { span class="serial" { (certificate.serial) } },
            lines(&certificate.files),
        ]
    };
    table("Certificates that are loaded", &columns, &certificates.iter().map(row).collect::<Vec<_>>())
}

fn not_served(facts: &Facts) -> Markup {
    let columns = [text("Name"), text("Not served"), text("Because it"), text("Served instead")];
    let rows = facts.not_served.iter().map(|lost| {
        vec![html! { (lost.name) }, lines(&lost.files), html! { (lost.why) }, lines(&lost.served_instead)]
    });
    table(
        "Certificates that are valid for a name, and lost it to another",
        &columns,
        &rows.collect::<Vec<_>>(),
    )
}

fn lines(texts: &[String]) -> Markup {
    html! { @for (n, text) in texts.iter().enumerate() { @if n > 0 { br; } (text) } }
}

fn listeners(addresses: &[String]) -> Markup {
    html! { ul class="plain" { @for address in addresses { li { code { (address) } } } } }
}

fn workers(facts: &Facts) -> Markup {
    let columns = [
        text("Worker"),
        number("Sessions"),
        number("Connections so far"),
        number("Held"),
        number("Refused"),
        number("Closed"),
    ];
    let rows = facts.workers.iter().map(|worker| {
        vec![
            html! { (worker.worker) },
            html! { (shown::count(worker.sessions as u64)) },
            html! { (shown::count(worker.accepted)) },
            html! { (shown::bytes(worker.memory_held)) },
            html! { (shown::count(worker.memory_refused)) },
            html! { (shown::count(worker.memory_closed)) },
        ]
    });
    html! {
        (table("Workers, and what they hold for slow peers", &columns, &rows.collect::<Vec<_>>()))
        p class="why" { "Refused and closed: because memory was short (" code { "max_memory" } ")." }
    }
}

fn reloads(reloads: &[ReloadInfo]) -> Markup {
    html! {
        @if reloads.is_empty() { p { "None since this process began." } }
        ol class="reloads" {
            @for reload in reloads {
                li {
                    time datetime=(shown::moment_machine(reload.at)) { (shown::moment(reload.at)) } " "
                    @match &reload.taken {
                        Some(report) => {
                            span class="state is-good" { "taken" }
                            " generation " (report.generation) ", " (report.routes) " routes (+" (report.routes_added) " −"
                            (report.routes_removed) "), listeners +" (report.listeners_added) " −" (report.listeners_removed)
                            ", " (report.sessions_ended) " sessions sent away, in " (shown::duration(report.took_ms))
                            (names("new names", &report.names_added))
                            (names("names gone", &report.names_removed))
                            (names("other certificates for", &report.names_replaced))
                            (names("last good certificates kept for", &report.names_kept))
                            @if !report.warnings.is_empty() { ul { @for warning in &report.warnings { li { (warning) } } } }
                        },
                        None => {
                            span class="state is-bad" { "refused" } " " (shown::counted(reload.problem_count as u64, "problem"))
                            ul { @for problem in &reload.problems { li class="bad" { (problem) } } }
                        },
                    }
                }
            }
        }
    }
}

fn names(what: &str, names: &[String]) -> Markup {
    html! { @if !names.is_empty() { "; " (what) " " (names.join(", ")) } }
}

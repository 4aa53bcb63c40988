//! The process itself: where it listens, what its workers do, and how its reloads went.

use maud::{Markup, html};

use crate::ops::page::facts::WorkerInfo;
use crate::ops::page::shown;
use crate::ops::page::table::{number, table, text};
use crate::ops::reloads::ReloadInfo;

/// Their addresses.
pub(super) fn listeners(addresses: &[String]) -> Markup {
    html! { ul class="plain" { @for address in addresses { li { code { (address) } } } } }
}

/// What each holds.
pub(super) fn workers(all: &[WorkerInfo]) -> Markup {
    let columns = [
        text("Worker"),
        number("Sessions"),
        number("Connections so far"),
        number("Held"),
        number("Refused"),
        number("Closed"),
    ];
    let rows = all.iter().map(|worker| {
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

/// The last ones, the latest first.
pub(super) fn reloads(reloads: &[ReloadInfo]) -> Markup {
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

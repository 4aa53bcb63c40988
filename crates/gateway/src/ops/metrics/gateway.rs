//! The gateway as a whole: its state, its limits, and what became of sessions at takeovers.

use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::page::Page;
use crate::context::counts::RATES;
use crate::net::budget::Pressure;
use crate::net::sweep;
use crate::ops::overview::Overview;
use crate::telemetry::log;

pub(super) fn write(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    page.info("wssgate_build", "The release that runs.", &[("version", env!("CARGO_PKG_VERSION"))])?;
    page.gauge("wssgate_ready", "1 if the gateway is ready, as /readyz answers")?
        .sample(&[], u8::from(overview.readiness().0))?;
    page.gauge(
        "wssgate_generation",
        "Number of the configuration and certificates in use; each reload or renewal adds 1",
    )?
    .sample(&[], overview.generation())?;
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut reloads = page.counter("wssgate_reloads_total", "Reloads of the configuration, by result")?;
    reloads.sample(&[("result", "taken")], load(&overview.reloads_taken))?;
    reloads.sample(&[("result", "refused")], load(&overview.reloads_refused))?;
    page.gauge(
        "wssgate_reload_refused",
        "1 if the last reload was refused: the configuration in use is not the one in the file",
    )?
    .sample(&[], u8::from(overview.is_reload_refused.load(Ordering::Relaxed)))?;
    page.counter(
        "wssgate_log_lines_lost_total",
        "Log lines lost because stderr was read, or the access log written, too slowly",
    )?
    .sample(&[], log::lines_lost() + overview.access_log.lines_lost())?;
    page.counter(
        "wssgate_late_wakeups_total",
        "Sockets with unread bytes but no wake-up, and session timers that fired more than a second late",
    )?
    .sample(&[], sweep::late_wakeups())?;
    memory(page, overview)?;
    connections(page, overview)?;
    limits(page, overview)?;
    takeovers(page, overview)
}

fn pressure(overview: &Overview, of: fn(&Pressure) -> &AtomicU64) -> u64 {
    overview.pressure.iter().map(|worker| of(worker).load(Ordering::Relaxed)).sum()
}

fn memory(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    if let Some(max) = overview.site.load().memory_max {
        page.gauge("wssgate_memory_limit_bytes", "Limit for buffers and unsent bytes (max_memory)")?
            .sample(&[], max)?;
    }
    page.gauge(
        "wssgate_memory_held_bytes",
        "Buffers in use, and bytes that clients and backends have not read yet",
    )?
    .sample(&[], pressure(overview, |worker| &worker.held))?;
    page.counter(
        "wssgate_memory_refused_total",
        "Requests and handshakes refused because max_memory was nearly used up",
    )?
    .sample(&[], pressure(overview, |worker| &worker.refused))?;
    page.counter(
        "wssgate_memory_closed_total",
        "Sessions and connections of slow readers closed because max_memory was nearly used up",
    )?
    .sample(&[], pressure(overview, |worker| &worker.shed))
}

fn connections(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let quotas = &overview.quotas;
    page.gauge("wssgate_connections", "Connections of clients that are open, sessions included")?
        .sample(&[], quotas.connections.load(Ordering::Relaxed))?;
    page.counter(
        "wssgate_connections_waited_total",
        "Connections that had to wait for the end of another, by max_connections",
    )?
    .sample(&[], quotas.connections_waited.load(Ordering::Relaxed))?;
    page.counter("wssgate_connections_accepted_total", "TCP connections accepted from clients")?
        .sample(&[], overview.accepted())?;
    page.counter(
        "wssgate_accept_pauses_total",
        "Attempts to accept a connection that failed because descriptors or memory were exhausted",
    )?
    .sample(&[], overview.shortage.failures())
}

/// Limits of the configuration, by the option that has set them.
fn limits(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let quotas = &overview.quotas;
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    page.counter(
        "wssgate_requests_limited_total",
        "Requests refused with 429, by failures, requests, handshakes or sessions in [route.access]",
    )?
    .sample(&[], load(&quotas.refused))?;
    page.counter(
        "wssgate_rate_clients_forgotten_total",
        "Clients that were forgotten before their rate was free again, because the table of clients was full",
    )?
    .sample(&[], load(&quotas.forgotten))?;
    page.counter(
        "wssgate_sessions_limited_total",
        "Sessions closed with 1008, because the client sent more than messages or bytes in [route.websocket]",
    )?
    .sample(&[], load(&quotas.sessions_limited.closed))?;
    page.counter(
        "wssgate_session_pauses_total",
        "Pauses in reading a WebSocket client, by messages or bytes in [route.websocket]",
    )?
    .sample(&[], load(&quotas.sessions_limited.pauses))?;
    let mut hit = page.counter(
        "wssgate_limits_hit_total",
        "Clients that were refused, paused or closed by a limit, by the option that sets it",
    )?;
    for (place, limit) in RATES.into_iter().enumerate() {
        let refused: u64 = overview.counts.iter().map(|worker| worker.limited[place].get()).sum();
        hit.sample(&[("limit", limit)], refused)?;
    }
    let too_big: u64 = overview.counts.iter().map(|worker| worker.too_big.get()).sum();
    let by_memory = pressure(overview, |worker| &worker.refused) + pressure(overview, |worker| &worker.shed);
    let by_rates = load(&quotas.sessions_limited.closed) + load(&quotas.sessions_limited.pauses);
    hit.sample(&[("limit", "max_connections")], load(&quotas.connections_waited))?;
    hit.sample(&[("limit", "max_memory")], by_memory)?;
    hit.sample(&[("limit", "max_message_size")], too_big)?;
    hit.sample(&[("limit", "messages_or_bytes")], by_rates)?;
    hit.sample(&[("limit", "open_files")], overview.shortage.failures())
}

fn takeovers(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let moves = &overview.moves;
    page.counter(
        "wssgate_sessions_taken_over_total",
        "WebSocket sessions that this process has taken from the one before it",
    )?
    .sample(&[], moves.taken.load(Ordering::Relaxed))?;
    page.counter(
        "wssgate_sessions_lost_total",
        "WebSocket sessions that were lost with a new process that failed during a takeover",
    )?
    .sample(&[], moves.lost.load(Ordering::Relaxed))?;
    let mut left = page.gauge(
        "wssgate_sessions_left_behind",
        "WebSocket sessions that stayed in the old process at the takeover, by reason",
    )?;
    for (reason, count) in moves.left.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        left.sample(&[("reason", reason)], *count)?;
    }
    Ok(())
}

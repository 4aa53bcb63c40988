//! What stands above the first section, and the sections themselves.

use std::path::Path;

use super::document::Document;
use super::kind::{self, CountOrOff, List, OneOf, Options, Table, Tables, Words};
use super::model::{self, CONTROL_SOCKET, Config, ControlSocket};
use super::option::options;
use super::problem::FIRST_LINE;
use super::spec::{At, TOP_LEVEL};
use super::{acme, admin, certificates, dns, listener, log, route, rules, upstream, values};
use crate::site::{Drain, RemovedRoutes, TakeoverSessions};

const WORKERS_MAX: usize = 1024;

impl Words for RemovedRoutes {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[("drain", Self::Drain), ("keep", Self::Keep)];
}

impl Words for TakeoverSessions {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[("move", Self::Move), ("keep", Self::Keep)];
}

options! {
    /// These options stand above the first section of the file.
    struct TopLevel: TOP_LEVEL;

    /// The number of worker threads.
    workers: kind::Number<1, WORKERS_MAX>, otherwise = "one per core";
    /// How much may wait in memory for slow clients and backends, also of messages that are inflated. Each worker needs at least
    /// 4 MiB.
    max_memory: kind::SizeOrOff, otherwise = "a quarter of the machine's memory, or of the limit of the control group";
    /// How much may be kept of earlier messages for the sessions whose `compression` ends at the gateway, for later messages to
    /// refer to. Each worker has its part of it. When that is used up, further sessions compress each message by itself.
    max_compression_memory: kind::SizeOrOff, otherwise = "`\"64MiB\"`";
    /// How many connections of clients may be open, sessions included. Others wait until one ends. Clients that have sent
    /// nothing for a second make room, and then the connection that has waited longest for a request, a second at least.
    max_connections: CountOrOff<1, 100_000_000>, default = None;
    /// The proxies whose `X-Forwarded-*` and `Forwarded` fields are trusted.
    trusted_proxies: List<kind::Network>, otherwise = "none";
    /// The file of the keys that encrypt session tickets. Without it the keys are kept in memory and changed
    /// every six hours.
    ticket_keys: kind::File, optional;
    /// After SIGTERM, `/readyz` says no for this time while connections are still accepted. It is a part of
    /// `drain_timeout`.
    drain_delay: kind::DurationOrZero, default = Drain::DEFAULT.delay;
    /// Closes that are ordered together, by a drain or because a route has gone, are spread evenly over this time.
    drain_window: kind::Duration, default = Drain::DEFAULT.window;
    /// How long a drain may take, from SIGTERM until what is left is cut.
    drain_timeout: kind::Duration, default = Drain::DEFAULT.timeout;
    /// The close code that clients and backends get when the gateway drains.
    drain_close_code: kind::CloseCode, default = Drain::DEFAULT.close_code;
    /// What happens to sessions whose route a reload has removed: they are closed with 1001, or kept.
    removed_routes: OneOf<RemovedRoutes>, default = RemovedRoutes::Drain;
    /// After SIGUSR2, how long the old process keeps what does not move before it drains it.
    takeover_timeout: kind::DurationOrOff, default = Some(Config::TAKEOVER_TIMEOUT);
    /// What happens to WebSockets over HTTP/1.1 after SIGUSR2: they move to the new process, or they stay in the old one.
    /// The new process's configuration counts.
    takeover_sessions: OneOf<TakeoverSessions>, default = TakeoverSessions::Move;
    /// How long a session that is in the middle of a write is waited for before it moves with what is unsent.
    handover_wait: kind::Duration, default = Config::HANDOVER_WAIT;
    /// Whether the memory of the process, which has keys in it, may be dumped, and read by debuggers of the same user.
    /// A gateway that is a part of another program leaves this to the program.
    core_dumps: kind::Boolean, default = false;
    /// More files, whose sections are read as if they stood behind those of this file: names, or patterns with `*`.
    /// Included files have only sections, and include no other files.
    include: List<kind::Files>, otherwise = "none";
    /// Where connections are accepted.
    listener: Tables<listener::ListenerOptions>, optional;
    /// Certificates of a directory.
    certificates: Table<certificates::CertificatesOptions>, optional;
    /// Certificates that are named one by one.
    certificate: Tables<certificates::CertificateOptions>, optional;
    /// Certificates that the gateway orders by itself.
    acme: Table<acme::AcmeOptions>, optional;
    /// How names of backends are looked up.
    dns: Table<dns::DnsOptions>, optional;
    /// The access log.
    log: Table<log::LogOptions>, optional;
    /// Servers that routes name together.
    upstream: Tables<upstream::UpstreamOptions>, optional;
    /// What is served.
    route: Tables<route::RouteOptions>, optional;
    /// Health, metrics, and the page for people.
    admin: Table<admin::AdminOptions>, optional;
    /// The control socket.
    control: Table<ControlOptions>, optional;
}

options! {
    /// The control socket, which `wssgate status` and the other commands use. Without this section there is none,
    /// unless systemd sets `RUNTIME_DIRECTORY`: then it is `control.sock` in that directory.
    struct ControlOptions: "[control]";

    /// The path of the Unix socket.
    socket: kind::SocketPath, default = CONTROL_SOCKET.into();
    /// Whether `wssgate tap` may show the frames of sessions to root and to the gateway's user. A reload turns it on and
    /// off; off ends the taps that run.
    tap: kind::Boolean, default = false;
}

pub(super) fn read(file: &Path, d: &mut Document<'_>, top: TopLevel) -> Config {
    let (workers_place, workers) = (top.place_of("workers"), top.workers.as_ref().map(|at| at.value));
    let memory_max = match &top.max_memory {
        Some(At { value, place }) => {
            if let Some(what) = rules::memory(*value, workers) {
                d.problem(*place, what);
            }
            *value
        }
        None => model::default_memory(workers),
    };
    if let Some(what) = rules::handover_wait(top.handover_wait.value) {
        d.problem(top.handover_wait.place, what);
    }
    let drain = Drain {
        delay: top.drain_delay.value,
        window: top.drain_window.value,
        timeout: top.drain_timeout.value,
        close_code: top.drain_close_code.value,
    };
    if let Some(what) = rules::drain_delay(&drain) {
        d.problem(top.drain_delay.place, what);
    }
    let (has_listener, has_route) = (top.has("listener"), top.has("route"));
    let has_named = top.has("certificate");
    let has_acme = top.has("acme");
    let has_certificates = has_named || has_acme || top.has("certificates");
    let sections = top.listener.map(|at| at.value);
    if !has_listener || sections.as_ref().is_some_and(Vec::is_empty) {
        d.missing(FIRST_LINE, rules::NO_LISTENER);
    }
    let listeners = listener::read(d, sections.unwrap_or_default());
    if let Some(listener) = listeners.iter().find(|listener| listener.tls.is_some() && !has_certificates) {
        d.missing(listener.place, rules::NO_CERTIFICATES);
    }
    if let Some(listener) = listeners.iter().find(|listener| listener.redirect)
        && listeners.iter().all(|listener| listener.tls.is_none())
    {
        d.missing(listener.place, rules::NO_TLS);
    }
    let admin = top.admin.map(|section| admin::read(d, section.value));
    if let Some(admin) = &admin
        && let Some(what) = rules::overlap(&listeners, &admin.address, |other| d.shown(other, admin.place))
    {
        d.problem(admin.place, what);
    }
    let control = top.control.map(|section| {
        let At { value: path, place } = section.value.socket;
        ControlSocket { path, tap: section.value.tap.value, place }
    });
    if let Some(At { value: section, .. }) = top.certificates.as_ref()
        && !section.has("directory")
        && !has_named
        && !has_acme
    {
        let what = "[certificates] needs a directory, or add a [[certificate]] with chain and key";
        d.missing(section.written().place, what);
    }
    let named = top.certificate.map(|at| at.value).unwrap_or_default();
    let acme = top.acme.map(|at| at.value);
    let acme = acme.and_then(|section| acme::read(d, section, acme::default_storage(file), &listeners));
    let (certificates, watch, certificate_places) =
        certificates::read(d, top.certificates.map(|at| at.value), named, acme.as_ref());
    let sections = top.route.map(|at| at.value);
    if !has_route || sections.as_ref().is_some_and(Vec::is_empty) {
        d.missing(FIRST_LINE, rules::NO_ROUTE);
    }
    let upstreams = upstream::read(d, top.upstream.map(|at| at.value).unwrap_or_default());
    let routes = route::read(d, sections.unwrap_or_default(), &listeners, &upstreams);
    Config {
        file: file.to_owned(),
        included: top.include.map(|_| d.included()).unwrap_or_default(),
        unmatched: Vec::new(),
        unexpanded: d.unexpanded().to_vec(),
        hidden: d.take_hidden(),
        workers,
        workers_place,
        memory_max,
        compression_memory_max: match &top.max_compression_memory {
            Some(at) => at.value,
            None => Some(Config::COMPRESSION_MEMORY_MAX),
        },
        connections_max: top.max_connections.value.map(|max| u64::from(max.get())),
        drain,
        removed_routes: top.removed_routes.value,
        admin,
        control,
        takeover_timeout: top.takeover_timeout.value.unwrap_or(values::LONGEST),
        takeover_sessions: top.takeover_sessions.value,
        handover_wait: top.handover_wait.value,
        core_dumps: top.core_dumps.value,
        trusted_proxies: top.trusted_proxies.map(|at| at.value).unwrap_or_default(),
        ticket_keys: top.ticket_keys.map(|at| (at.value, at.place)),
        listeners,
        certificates,
        acme,
        watch,
        certificate_places,
        file_directories: d.take_directories(),
        server_sockets: d.take_sockets(),
        upstreams_unused: upstreams.unused(&routes),
        dns: dns::read(top.dns.map(|at| at.value)),
        log: log::read(d, top.log.map(|at| at.value)),
        routes,
    }
}

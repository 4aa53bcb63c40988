//! `[[listener]]`: where connections are accepted.

use tls_acceptor::{AcceptorSettings, Alpn, MinVersion};

use super::document::Document;
use super::kind::{self, List, OneOf, Options, Words};
use super::model::Listener;
use super::option::options;
use super::rules;
use super::spec::At;
use crate::net::limits::ClientLimits;

pub(super) struct Protocol;

impl Words for Protocol {
    type Value = Alpn;
    const WORDS: &'static [(&'static str, Alpn)] = &[("h2", Alpn::H2), ("http/1.1", Alpn::Http11)];
}

pub(super) struct Version;

impl Words for Version {
    type Value = MinVersion;
    const WORDS: &'static [(&'static str, MinVersion)] =
        &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    const HINT: &'static str = "; older versions are not safe";
}

pub(super) struct OnOff;

impl Words for OnOff {
    type Value = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("on", true), ("off", false)];
}

/// Whether plain HTTP is sent to `https://`.
pub(super) struct PlainHttp;

impl Words for PlainHttp {
    type Value = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("refuse", false), ("redirect", true)];
}

pub(super) struct Https;

impl Words for Https {
    type Value = ();
    const WORDS: &'static [(&'static str, ())] = &[("https", ())];
    const HINT: &'static str = "; for other targets write redirect in a [[route]]";
}

options! {
    /// Where connections are accepted. At least one section is needed.
    struct ListenerOptions: "[[listener]]";

    /// The addresses to listen on. Port 0 lets the system choose a port; no two listeners can have the same
    /// address with port 0, but `127.0.0.1:0` and `127.0.0.2:0` are two. `[::]` is IPv6 only. `"unix:/run/wssgate/http.sock"`
    /// is a Unix socket, which every user of the machine may open who may enter its directory. Its clients are called
    /// `"unix"`: in the log, in lists, and in `trusted_proxies`.
    address: List<kind::ListenAddress>, required = "\"0.0.0.0:443\"";
    /// What routes call it in their `listener`.
    name: kind::Name, otherwise = "its address";
    /// Whether the listener speaks TLS. Without TLS it speaks HTTP/1.1 only.
    tls: kind::Boolean, default = true;
    /// The protocols that are offered over TLS, the preferred one first.
    alpn: List<OneOf<Protocol>>, default = AcceptorSettings::default().alpn;
    /// The oldest version of TLS that is accepted.
    min_version: OneOf<Version>, default = AcceptorSettings::default().min_version;
    /// Whether a client may open WebSockets over HTTP/2 (RFC 8441). With `"off"` browsers open them over HTTP/1.1, and
    /// a takeover can move them to the new process.
    websocket_over_http2: OneOf<OnOff>, default = true;
    /// What happens to plain HTTP on a port that speaks TLS: it gets 400, or is sent to `https://` with 308.
    plain_http: OneOf<PlainHttp>, default = false;
    /// Where requests of a listener without TLS are sent to with 308, host and path kept. Routes that name the listener
    /// come first. Hosts that no route of a listener with TLS serves get 404.
    redirect: OneOf<Https>, optional;
    /// The balancers whose connections begin with a header of the PROXY protocol, version 1 or 2. It is demanded from
    /// them, and from no other client. The address in it counts as the client's.
    proxy_protocol: List<kind::Network>, otherwise = "none";
    /// How long a client may take from the TCP connection to the end of the TLS handshake.
    handshake_timeout: kind::Duration, default = AcceptorSettings::default().handshake_timeout;
    /// How long a client may take to send the head of a request, from its first byte on.
    header_timeout: kind::Duration, default = ClientLimits::DEFAULT.header_timeout;
    /// How long an HTTP/1.1 connection is kept open for the next request.
    keep_alive_timeout: kind::Duration, default = ClientLimits::DEFAULT.keep_alive_timeout;
    /// How many bytes a second a client has to send of a request's body. The first 20 seconds of waiting are free.
    body_rate: kind::RateOrOff, default = ClientLimits::DEFAULT.body_rate;
}

/// The options that only TLS has a use for.
const TLS_ONLY: [&str; 5] =
    ["alpn", "min_version", "websocket_over_http2", "plain_http", "handshake_timeout"];

pub(super) fn read(d: &mut Document<'_>, sections: Vec<ListenerOptions>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for section in sections {
        if !section.tls.value {
            for key in TLS_ONLY.into_iter().filter(|key| section.has(key)) {
                let what = format!("{key} has no meaning with tls = false; remove one of the two");
                d.problem(section.place_of(key), what);
            }
        }
        if section.tls.value && section.redirect.is_some() {
            let what =
                "redirect is for listeners with tls = false; on this one write plain_http = \"redirect\"";
            d.problem(section.place_of("redirect"), what);
        }
        if let Some(what) = rules::alpn(&section.alpn.value) {
            d.problem(section.alpn.place, what);
        }
        let tls = AcceptorSettings {
            alpn: section.alpn.value,
            min_version: section.min_version.value,
            handshake_timeout: section.handshake_timeout.value,
            ..AcceptorSettings::default()
        };
        let limits = ClientLimits {
            header_timeout: section.header_timeout.value,
            keep_alive_timeout: section.keep_alive_timeout.value,
            body_rate: section.body_rate.value,
        };
        if let Some(At { value: name, place }) = &section.name
            && listeners.iter().any(|listener| listener.name == *name)
        {
            d.problem(*place, format!("name: another listener has the name {name:?} already"));
        }
        let Some(At { value: addresses, place }) = section.address else { continue };
        if addresses.is_empty() {
            d.problem(place, "address: the list is empty");
        }
        for address in addresses {
            if let Some(what) = rules::overlap(&listeners, &address, |other| d.shown(other, place)) {
                d.problem(place, what);
            }
            let name = section.name.as_ref().map(|at| at.value.clone());
            let name = name.unwrap_or_else(|| address.to_string().into());
            let tls = section.tls.value.then(|| tls.clone());
            let websocket_over_http2 = section.websocket_over_http2.value;
            let redirect = section.redirect.is_some() || section.plain_http.value;
            let proxy_protocol =
                section.proxy_protocol.as_ref().map(|at| at.value.clone()).unwrap_or_default();
            listeners.push(Listener {
                name,
                address,
                tls,
                limits,
                websocket_over_http2,
                proxy_protocol,
                redirect,
                place,
            });
        }
    }
    listeners
}

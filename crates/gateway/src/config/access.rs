//! `[route.access]`: who may use a route, and how much.

use super::document::Document;
use super::kind::{self, List, Options};
use super::option::options;
use super::spec::At;
use crate::net::networks::Networks;
use crate::site::access::{Access, Per};

options! {
    /// Who may use the route above it, and how much. The order is: `deny` and `allow` (403), `requests` and `sessions`
    /// (429 with Retry-After), preflight requests of `cors`, `max_body` (413). A client's address is that which trusted proxies name.
    struct AccessOptions: "[route.access]";

    /// Only clients of these addresses are let in.
    allow: List<kind::Network>, otherwise = "every address";
    /// Clients of these addresses are not let in, whatever `allow` says.
    deny: List<kind::Network>, otherwise = "none";
    /// How many requests, handshakes of WebSockets included, one client may send. The number of a whole period may come
    /// at once. The gateway knows 65,536 clients at a time in about 1 MiB.
    requests: kind::Frequency, optional;
    /// How many live WebSocket sessions one client may have.
    sessions: kind::Number<1, 1_000_000>, optional;
    /// What one client is: `"client"` is an address (of IPv6 a network of 64 bits), `"header:NAME"` the value of a
    /// field. Clients can write any value, so a proxy in front has to check it.
    per: kind::Per, default = Per::Client;
    /// The longest body of a request. A body without a length is cut off when it becomes longer.
    max_body: kind::SizeOrOff, otherwise = "`\"off\"`";
}

pub(super) fn read(d: &mut Document<'_>, section: &AccessOptions) -> Access {
    if let Some(At { value, place }) = &section.allow
        && value.is_empty()
    {
        d.problem(*place, "allow: an empty list would refuse every client; leave it out to let all in");
    }
    if section.has("per") && !section.has("requests") && !section.has("sessions") {
        d.problem(section.place_of("per"), "per: nothing is counted; write requests or sessions");
    }
    if let Some(At { value: Some(0), place }) = section.max_body {
        d.problem(
            place,
            "max_body: 0 would refuse every body; write \"1B\" or more, or \"off\" for no limit",
        );
    }
    let networks = |option: &Option<At<Vec<ipnet::IpNet>>>| {
        option.as_ref().map(|at| Networks::new(&at.value)).unwrap_or_default()
    };
    Access {
        allow: networks(&section.allow),
        deny: networks(&section.deny),
        requests: section.requests.as_ref().map(|at| at.value),
        sessions: section.sessions.as_ref().and_then(|at| u32::try_from(at.value).ok()),
        per: section.per.value.clone(),
        auth: None,
        max_body: section.max_body.as_ref().and_then(|at| at.value),
    }
}

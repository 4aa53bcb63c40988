//! `[route.when]`: conditions of a route besides its host and path.

use http::Method;

use super::document::Document;
use super::kind::{self, List, Options};
use super::option::options;
use crate::site::matcher::When;

options! {
    /// Conditions of the route above it: `when = { upgrade = true, method = ["GET"] }` is the same. All of them have
    /// to be met.
    struct WhenOptions: "[route.when]";

    /// Whether the request opens a WebSocket.
    upgrade: kind::Boolean, optional;
    /// The methods; `"GET"` stands for `HEAD`, too.
    method: List<kind::Method>, otherwise = "every method";
    /// Fields that the request must have, each with exactly this value, or one of a list.
    header: kind::FieldValues, optional;
    /// Subprotocols of which the client offers at least one.
    subprotocol: List<kind::Token>, optional;
}

pub(super) fn read(d: &mut Document<'_>, section: &WhenOptions) -> When {
    let when = When {
        upgrade: section.upgrade.as_ref().map(|at| at.value),
        methods: section.method.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        headers: section.header.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        subprotocols: section.subprotocol.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
    };
    let may_upgrade = when.methods.is_empty() || when.methods.contains(&Method::GET);
    if when.upgrade == Some(true) && !may_upgrade {
        d.problem(section.place_of("method"), "method: WebSockets are opened with GET alone");
    }
    if when.upgrade == Some(false) && !when.subprotocols.is_empty() {
        d.problem(section.place_of("subprotocol"), "subprotocol: only WebSockets have subprotocols");
    }
    when
}

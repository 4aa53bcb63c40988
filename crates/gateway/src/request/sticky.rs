//! Clients that come back to their server: the cookie is taken out of a request, and put into the answer if it is a new
//! one.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::request::Parts;

use crate::request::reply::Served;
use crate::session::report::Report;
use crate::site::route::Route;
use crate::site::sticky::Sticky;
use crate::site::upstream::Upstream;
use crate::upstream::forward::Hop;

/// What is known of the cookie of a request.
#[derive(Debug)]
pub(super) struct ServerCookie<'a> {
    sticky: &'a Sticky,
    upstream: &'a Upstream,
    cookies: Vec<u128>,
    is_secure: bool,
}

impl<'a> ServerCookie<'a> {
    /// Takes the cookie out of a request. `None`: clients of the route don't come back to their server.
    #[inline]
    pub(super) fn take(route: &'a Arc<Route>, hop: &mut Hop<'_>, head: &mut Parts) -> Option<Self> {
        let upstream = route.action.upstream()?;
        let sticky = upstream.sticky.as_deref()?;
        let is_secure = hop.is_https(&head.headers);
        let cookies = sticky.take(&mut head.headers);
        hop.preferred = upstream.current().marked(&cookies);
        Some(Self { sticky, upstream, cookies, is_secure })
    }

    /// Puts the cookie of the server that has answered into the answer, if the client hasn't got it.
    #[inline]
    pub(super) fn give(this: Option<Self>, route: &Route, report: &Report, served: &mut Served) {
        if let Some(this) = this {
            this.set_cookie(route, report, served);
        }
    }

    fn set_cookie(self, route: &Route, report: &Report, served: &mut Served) {
        let (status, headers) = match served {
            Served::Answer(answer) => (answer.status(), answer.headers_mut()),
            Served::Upgraded(upgraded) => (upgraded.answer.status(), upgraded.answer.headers_mut()),
        };
        // A client is not bound to a server that failed it.
        let Some(server) = report.server().filter(|_| !status.is_server_error()) else { return };
        if let Some(mark) = self.upstream.current().mark(server).filter(|mark| !self.cookies.contains(mark))
            && let Some(field) = self.sticky.field(mark, &route.matcher.path, self.is_secure)
        {
            headers.append(SET_COOKIE, field);
        }
    }
}

//! The page of the admin listener: what the gateway is doing, for people.
//!
//! The gateway renders it, so it is whole without scripts: [`facts`] and [`mod@watch`] (looks at the sessions, with their
//! [`history`]) are what it shows; [`view`] says what is asked for; [`overview`] and [`sessions`] make it,
//! within a [`document`]; [`desk`] gives it to requests and viewers, and [`guard`] says who may see it. Every value goes
//! through maud, which escapes it: what peers have sent can't be markup. The script (`live.js`) opens a
//! WebSocket ([`live`]), over which the same comes every two seconds.

mod certificates;
mod desk;
mod document;
mod facts;
mod graph;
mod guard;
mod history;
mod live;
mod overview;
mod parts;
mod process;
mod reply;
mod servers;
mod sessions;
mod shown;
mod table;
mod view;
pub(crate) mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;

pub(crate) use self::desk::Page;
pub(crate) use self::guard::PageRules;
use self::guard::{Needs, Stranger, bearer};
use self::reply::{Denied, HTML, answer, not_allowed, plain, refusal, secured};
use self::view::View;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// The longest body of a request, in bytes.
const BODY_LEN_MAX: usize = 4096;

impl Page {
    /// Answers a request from `peer` that came to `local`; `None`: there is no such page.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<Response<Full<Bytes>>> {
        let (path, method) = (request.uri().path().to_owned(), request.method().clone());
        let is_read = method == Method::GET || method == Method::HEAD;
        let asset = match &*path {
            "/style.css" => Some(("text/css; charset=utf-8", STYLE)),
            "/live.js" => Some(("text/javascript; charset=utf-8", SCRIPT)),
            _ => None,
        };
        let (name, is_json) = match path.strip_suffix(".json") {
            Some("/status") => ("/", true),
            Some(name) if name != "/" && !name.is_empty() => (name, true),
            _ => (&*path, false),
        };
        let view = View::parse(name, request.uri().query());
        let is_known = view.is_some() || asset.is_some() || matches!(&*path, "/live" | "/actions");
        if !is_known {
            return None;
        }
        let response = match (asset, view) {
            _ if path == "/actions" && method != Method::POST => not_allowed("POST"),
            _ if path != "/actions" && !is_read => not_allowed("GET, HEAD"),
            (Some((kind, text)), _) => answer(StatusCode::OK, kind, text),
            (None, view) => match self.rules().judge(request.headers(), request.version(), peer, local) {
                Err(stranger) => {
                    let status = match stranger {
                        Stranger::NoHost => StatusCode::BAD_REQUEST,
                        Stranger::Host => StatusCode::MISDIRECTED_REQUEST,
                        Stranger::Origin => StatusCode::FORBIDDEN,
                    };
                    plain(status, &stranger.to_string())
                }
                Ok(needs) => match view {
                    Some(view) => self.show(&view, is_json, needs, request.headers(), peer).await,
                    None if path == "/live" => live::upgrade(self, request, needs, peer),
                    None => self.act_on(request, peer).await,
                },
            },
        };
        Some(secured(response))
    }

    async fn show(
        self: &Arc<Self>,
        view: &View,
        is_json: bool,
        needs: Needs,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let token = bearer(headers);
        match self.admit(needs, token, peer) {
            Ok(()) => {}
            // A browser can't say the token before there is a page that asks for it.
            Err(Denied::Missing) if !is_json => {
                return answer(StatusCode::OK, HTML, document::document(None, &view.target()).into_string());
            }
            Err(denied) => return refusal(denied),
        }
        if is_json {
            let look = self.watch.fresh().await;
            return answer(StatusCode::OK, "application/json", self.json(view, &look).await);
        }
        let look = self.watch.fresh().await;
        let rendered = self.render(view, &look).await;
        answer(StatusCode::OK, HTML, document::document(Some(&rendered), &view.target()).into_string())
    }

    /// Changes something, by a POST.
    async fn act_on(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let token = bearer(request.headers()).map(<[u8]>::to_vec);
        if let Err(denied) = self.admit_action(token.as_deref(), peer) {
            return refusal(denied);
        }
        let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
        let body = Limited::new(request.into_body(), BODY_LEN_MAX).collect().await;
        let read = match body {
            Ok(body) if is_json => serde_json::from_slice(&body.to_bytes()).map_err(|e| e.to_string()),
            Ok(_) => Err("its Content-Type is not application/json".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        match read {
            Ok(order) => {
                let done = self.act(&order, peer).await;
                let status = if done.ok { StatusCode::OK } else { StatusCode::CONFLICT };
                answer(status, "application/json", json!(done).to_string())
            }
            Err(why) => plain(
                StatusCode::BAD_REQUEST,
                &format!("expected JSON such as {{\"command\":\"drain\",\"target\":\"/chat\"}}: {why}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;

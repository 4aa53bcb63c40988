//! Viewers: the page over a WebSocket, again after each look.
//!
//! The script sends JSON: `{"open": "/sessions?q=chat", "number": 1, "token": "…"}` first, then `open` for another view and
//! `act` for a command of the control socket's. It gets `{"title", "main", "number"}`, `{"acted": …}`, `{"refused": "…"}`
//! or `{"denied": "…"}`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use frame_core::close::{GOING_AWAY, POLICY_VIOLATION, UNAUTHORIZED};
use frame_core::endpoint::{Endpoint, Message, MessageKind, SessionOver};
use frame_core::handle::SessionHandle;
use frame_core::policy::Policy;
use frame_core::relay::ClientStream;
use frame_core::sequence::Limits;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use upgrade_handler::{Agreed, Handoff, RequestKind, accept, classify, from_hyper};

use crate::net::listening::PeerName;
use crate::ops::control::protocol::Request as ControlRequest;
use crate::ops::page::desk::{Page, VIEWERS_MAX};
use crate::ops::page::guard::{Needs, PageRules};
use crate::ops::page::reply::{Denied, plain};
use crate::ops::page::view::View;
use crate::ops::page::watch::Look;

/// For the first message of a viewer.
const FIRST_TIME: Duration = Duration::from_secs(5);
/// The longest message of a viewer, in bytes.
const MESSAGE_LEN_MAX: u64 = 4096;
const POLICY: Policy = Policy {
    limits: Limits { message_max: MESSAGE_LEN_MAX, deflate: false },
    idle_timeout: None,
    lifetime: None,
    ping_interval: Some(Duration::from_secs(20)),
    pong_timeout: Duration::from_secs(10),
};

/// What a viewer says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    /// A path and a query: it wants to see this.
    open: Option<String>,
    /// Comes back with that view.
    number: u64,
    /// The token, where one is needed.
    token: Option<String>,
    /// It wants this to be done.
    act: Option<ControlRequest>,
}

impl Said {
    fn view(&self) -> Option<View> {
        self.open.as_deref().and_then(View::parse_target)
    }
}

/// Accepts a handshake, if there is a place for one more viewer.
pub(super) fn upgrade(
    page: &Arc<Page>,
    request: Request<Incoming>,
    needs: Needs,
    peer: SocketAddr,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let upgrade = match classify(&head) {
        RequestKind::Upgrade(upgrade) => upgrade,
        RequestKind::Refused(refusal) => return plain(StatusCode::BAD_REQUEST, &refusal.to_string()),
        RequestKind::Plain | RequestKind::Other => {
            let mut response = plain(StatusCode::UPGRADE_REQUIRED, "this is the page's WebSocket");
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            return response;
        }
    };
    let Ok(place) = page.places.clone().try_acquire_owned() else {
        let sentence = format!("{VIEWERS_MAX} viewers are watching already");
        let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, &sentence);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
        return response;
    };
    let upgrading = hyper::upgrade::on(Request::from_parts(head, body));
    let page = page.clone();
    page.tasks.clone().spawn(async move {
        let _place = place;
        let Ok(upgraded) = upgrading.await else { return };
        let Some(io) = from_hyper::<TcpStream>(upgraded) else { return };
        let endpoint = Endpoint::new(ViewerStream(io), POLICY, SessionHandle::new());
        let connection = ViewerConnection { endpoint, needs, peer, rules: page.rules(), page };
        debug!(peer = %PeerName(peer), "a viewer of the page has come");
        connection.serve().await;
        debug!(peer = %PeerName(peer), "a viewer of the page has gone");
    });
    accept(&upgrade, &Agreed::default(), HeaderMap::new()).map(|()| Full::new(Bytes::new()))
}

struct ViewerConnection {
    endpoint: Endpoint<ViewerStream>,
    needs: Needs,
    peer: SocketAddr,
    page: Arc<Page>,
    /// By which it was admitted.
    rules: Arc<PageRules>,
}

impl ViewerConnection {
    async fn serve(mut self) {
        let stop = self.page.stop.clone();
        if stop.run_until_cancelled(self.talk()).await.is_none() {
            self.endpoint.close(GOING_AWAY, "the admin listener closes");
        }
        self.endpoint.end().await;
    }

    async fn talk(&mut self) -> Option<()> {
        let first = timeout(FIRST_TIME, self.endpoint.recv()).await;
        let Ok(first) = first else {
            self.endpoint.close(POLICY_VIOLATION, "nothing was asked for");
            return None;
        };
        let said = self.said(&first?)?;
        if let Err(denied) = self.page.admit(self.needs, said.token.as_deref().map(str::as_bytes), self.peer)
        {
            return self.deny(denied).await;
        }
        let (mut view, mut number) = (said.view().unwrap_or(View::Overview), said.number);
        let (_viewer, mut looks) = self.page.watch.join();
        let look = self.page.watch.fresh().await;
        looks.mark_unchanged();
        self.send_view(&view, number, &look).await.ok()?;
        loop {
            tokio::select! {
                message = self.endpoint.recv() => {
                    let said = self.said(&message?)?;
                    if let Some(next) = said.view() {
                        (view, number) = (next, said.number);
                    }
                    if let Some(order) = &said.act {
                        self.act(order, said.token.as_deref()).await?;
                    }
                    let look = looks.borrow_and_update().clone();
                    self.send_view(&view, number, &look).await.ok()?;
                }
                changed = looks.changed() => {
                    changed.ok()?;
                    self.readmit().await?;
                    let look = looks.borrow_and_update().clone();
                    self.send_view(&view, number, &look).await.ok()?;
                }
            }
        }
    }

    /// `None`: it says nothing that can be understood, and is closed.
    fn said(&mut self, message: &Message) -> Option<Said> {
        let said = serde_json::from_slice(&message.payload).ok();
        if said.is_none() {
            self.endpoint.close(POLICY_VIOLATION, "expected JSON with open, token or act");
        }
        said
    }

    /// A reload may have changed the token: then it is wanted again.
    async fn readmit(&mut self) -> Option<()> {
        let rules = self.page.rules();
        if self.needs == Needs::Token && rules.token != self.rules.token {
            return self.deny(Denied::Wrong).await;
        }
        self.rules = rules;
        Some(())
    }

    async fn deny(&mut self, denied: Denied) -> Option<()> {
        let is_for_token = matches!(denied, Denied::Missing | Denied::Wrong);
        let message = json!({ "denied": denied.to_string(), "wants_token": is_for_token });
        self.send(&message).await.ok()?;
        self.endpoint.close(UNAUTHORIZED, "");
        None
    }

    async fn act(&mut self, order: &ControlRequest, token: Option<&str>) -> Option<()> {
        let message = match self.page.admit_action(token.map(str::as_bytes), self.peer) {
            Ok(()) => json!({ "acted": self.page.act(order, self.peer).await }),
            Err(denied) => {
                json!({ "refused": denied.to_string(), "wants_token": matches!(denied, Denied::Missing | Denied::Wrong) })
            }
        };
        self.send(&message).await.ok()
    }

    async fn send_view(&mut self, view: &View, number: u64, look: &Arc<Look>) -> Result<(), SessionOver> {
        let rendered = self.page.render(view, look).await;
        self.send_text(format!("{{\"number\":{number},{}}}", rendered.members)).await
    }

    async fn send(&mut self, message: &Value) -> Result<(), SessionOver> {
        self.send_text(message.to_string()).await
    }

    async fn send_text(&mut self, text: String) -> Result<(), SessionOver> {
        let payload = BytesMut::from(Bytes::from(text)); // without a copy
        self.endpoint.send(Message { kind: MessageKind::Text, payload }).await
    }
}

/// A viewer's connection.
#[derive(Debug)]
struct ViewerStream(Handoff<TcpStream>);

impl ClientStream for ViewerStream {}

impl AsyncRead for ViewerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ViewerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! A chat with rooms, and its page, on one port: <http://localhost:8080/>.
//!
//! ```sh
//! cargo run -p wss-service --example chat
//! ```
//!
//! `ws://localhost:8080/chat?room=tea&name=ann` opens a session. What it sends goes to its room.

use bytes::Bytes;
use http_body_util::Full;
use wss_service::{
    BoxError, CloseCode, Closed, Handler, HandlerError, Message, Refusal, Request, RequestBody, Response,
    Service, Session, Settings, SlowClient, StatusCode, To,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    Ok(service("127.0.0.1:8080")?.run().await?)
}

/// The sessions, and the page for all other requests. Who is too slow for a room leaves it: the others don't wait.
pub fn service(address: &str) -> Result<Service<Chat>, BoxError> {
    let settings =
        Settings { slow_client: SlowClient::Close(CloseCode::TRY_AGAIN_LATER), ..Settings::default() };
    Ok(Service::bind(address)?.settings(settings).path("/chat").otherwise_fn(page).handler(Chat))
}

async fn page(_: Request<RequestBody>) -> Result<Response<Full<Bytes>>, http::Error> {
    Response::builder().header("content-type", "text/html").body(Full::from(include_str!("chat.html")))
}

/// What becomes of messages.
pub struct Chat;

/// Where a session is, attached to it.
struct Place {
    room: String,
}

impl Handler for Chat {
    async fn on_open(&self, session: &Session) -> Result<(), Refusal> {
        let (Some(room), Some(name)) = (parameter(session, "room"), parameter(session, "name")) else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST).with_body("write /chat?room=…&name=…\n"));
        };
        session.bind_user(name);
        session.join(room);
        session.attach(Place { room: room.to_owned() });
        let here = session.hub().count(To::Group(room));
        session.hub().send_to(To::Group(room), format!("{name} joins, {here} here")).await;
        Ok(())
    }

    async fn on_message(&self, session: &Session, message: Message) -> Result<(), HandlerError> {
        let (Some(text), Some(place), Some(name)) =
            (message.as_text(), session.data_of::<Place>(), session.user())
        else {
            return Err("a session without a room, or a message that is no text".into());
        };
        session.hub().send_to(To::Group(&place.room), format!("{name}: {text}")).await;
        Ok(())
    }

    async fn on_close(&self, session: &Session, _: &Closed) {
        if let (Some(place), Some(name)) = (session.data_of::<Place>(), session.user()) {
            session.hub().send_to(To::Group(&place.room), format!("{name} leaves")).await;
        }
    }
}

/// A parameter of the query, as it is written: this example decodes nothing.
fn parameter<'a>(session: &'a Session, name: &str) -> Option<&'a str> {
    let pairs = session.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).find(|value| !value.is_empty())
}

//! A chat whose rooms span processes: start it several times, on one machine or many, beside one Redis.
//!
//! ```sh
//! redis-server &
//! cargo run -p wss-service --features cluster --example cluster_chat -- redis://localhost/ 127.0.0.1:8081
//! cargo run -p wss-service --features cluster --example cluster_chat -- redis://localhost/ 127.0.0.1:8082
//! ```
//!
//! `ws://localhost:8081/?room=tea&name=ann` opens a session. What it sends goes to its room, `@bob hello` goes to bob, and
//! `/who bob` asks who is here. Behind these arguments may stand `--prefix NAME`, `--ca FILE` (the authority that has signed
//! Redis' certificate), `--certificate FILE --key FILE` (of this process, where Redis asks for one), `--credentials FILE` (NATS).

use std::env;
use std::time::Duration;

use wss_service::{
    BoxError, CloseCode, Cluster, Delivery, Handler, HandlerError, Message, Refusal, Service, Session,
    Settings, SlowClient, StatusCode, To,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [engine, address, options @ ..] = &arguments[..] else {
        return Err("usage: cluster_chat URL ADDRESS [--ca FILE]…".into());
    };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let service = service(address, cluster(engine, options)?)?;
    println!("listening on {}", service.addresses()[0]);
    Ok(service.run().await?)
}

/// Beside which engine.
fn cluster(engine: &str, options: &[String]) -> Result<Cluster, BoxError> {
    let mut cluster = Cluster::connect(engine)?.prefix("chat:").presence_ttl(Duration::from_secs(3));
    let mut certificate = None;
    for option in options.chunks(2) {
        let [name, file] = option else { return Err("an option without its value".into()) };
        cluster = match (name.as_str(), certificate.take()) {
            ("--prefix", None) => cluster.prefix(file),
            ("--ca", None) => cluster.ca_file(file),
            ("--credentials", None) => cluster.credentials_file(file)?,
            ("--key", Some(chain)) => cluster.client_certificate(chain, file),
            ("--certificate", None) => {
                certificate = Some(file.clone());
                cluster
            }
            _ => return Err(format!("{name} is not expected here").into()),
        };
    }
    Ok(cluster)
}

/// One of its processes. Who is too slow for a room leaves it: the others don't wait.
pub fn service(address: &str, cluster: Cluster) -> Result<Service<Chat>, BoxError> {
    let settings =
        Settings { slow_client: SlowClient::Close(CloseCode::TRY_AGAIN_LATER), ..Settings::default() };
    Ok(Service::bind(address)?.settings(settings).cluster(cluster).handler(Chat))
}

/// What becomes of messages.
pub struct Chat;

/// Where a session is, attached to it.
struct Room(String);

impl Handler for Chat {
    async fn on_open(&self, session: &Session) -> Result<(), Refusal> {
        let (Some(room), Some(name)) = (parameter(session, "room"), parameter(session, "name")) else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST).with_body("write /?room=…&name=…\n"));
        };
        session.bind_user(name);
        session.join(room);
        session.attach(Room(room.to_owned()));
        // Without the engine, it hears only this process.
        let _ = session.hub().settle().await;
        Ok(())
    }

    async fn on_message(&self, session: &Session, message: Message) -> Result<(), HandlerError> {
        let (Some(text), Some(room), Some(name)) =
            (message.as_text(), session.data_of::<Room>(), session.user())
        else {
            return Err("a session without a room, or a message that is no text".into());
        };
        let hub = session.hub();
        if let Some(user) = text.strip_prefix("/who ") {
            let said =
                match (hub.is_online_anywhere(user).await, hub.count_everywhere(To::Group(&room.0)).await) {
                    (Ok(is_online), Ok(count)) => {
                        format!("{user} is here: {is_online}; {count} in {}", room.0)
                    }
                    (Err(why), _) | (_, Err(why)) => format!("not known: {why}"),
                };
            session.send(said).await?;
            return Ok(());
        }
        let Delivery { unreached, .. } = match text.strip_prefix('@').and_then(|text| text.split_once(' ')) {
            Some((user, text)) => hub.send_to(To::User(user), format!("{name}, to you: {text}")).await,
            None => hub.send_to(To::Group(&room.0), format!("{name}: {text}")).await,
        };
        if let Some(why) = unreached {
            session.send(format!("heard in this process only: {why}")).await?;
        }
        Ok(())
    }
}

/// A parameter of the query, as it is written: this example decodes nothing.
fn parameter<'a>(session: &'a Session, name: &str) -> Option<&'a str> {
    let pairs = session.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).find(|value| !value.is_empty())
}

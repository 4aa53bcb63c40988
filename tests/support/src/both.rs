//! The same request over HTTP/1.1 and HTTP/2.

use http::{HeaderMap, Method};
use tokio::net::TcpStream;

use crate::BoxIo;
use crate::gateway::Gateway;
use crate::http1::ask;
use crate::http2::Http2;
use crate::tls::Tls;

/// What came back, over either version.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head's fields.
    pub fields: HeaderMap,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// It came to its end.
    pub whole: bool,
}

impl Answer {
    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    /// All values of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.get_all(name).into_iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Asks for a path of `default.test` over HTTP/1.1 at the gateway's second listener and over HTTP/2 at its first, and
/// shows both answers to `check`.
pub async fn both(
    gateway: &Gateway,
    method: Method,
    path: &str,
    fields: &[(&'static str, &str)],
    check: impl Fn(&Answer),
) {
    check(&http1(gateway, &method, path, fields).await);
    check(&http2(gateway, method, path, fields).await);
}

/// Over HTTP/1.1 in plain text.
///
/// # Panics
/// If there is no answer.
pub async fn http1(
    gateway: &Gateway,
    method: &Method,
    path: &str,
    fields: &[(&'static str, &str)],
) -> Answer {
    let mut io: BoxIo = Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap());
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer =
        ask(&mut io, format!("{method} {path} HTTP/1.1\r\nHost: default.test\r\n{fields}\r\n")).await;
    let fields = answer.head.fields.iter();
    let fields =
        fields.map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()));
    Answer { status: answer.status(), fields: fields.collect(), body: answer.body, whole: answer.whole }
}

/// Over HTTP/2.
///
/// # Panics
/// If there is no answer.
pub async fn http2(gateway: &Gateway, method: Method, path: &str, fields: &[(&'static str, &str)]) -> Answer {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, "default.test").await;
    let mut request = client.request(method, path);
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let answer = client.ask(request).await;
    let (status, whole) = (answer.status(), answer.reset.is_none());
    Answer { status, fields: answer.head.headers, body: answer.body, whole }
}

//! Field names as the RFCs spell them.
//!
//! Names are case-insensitive, yet there are backends and clients that only find
//! `Sec-WebSocket-Key` in exactly this spelling. hyper writes names in lower case, or in the
//! spelling of an extension that its parser attaches to a message. That extension can't be made by
//! hand but it can be copied: so a head with the right spellings is parsed once.

use http::{Extensions, Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\
    Host: a\r\n\
    Connection: close\r\n\
    Upgrade: a\r\n\
    Sec-WebSocket-Key: a\r\n\
    Sec-WebSocket-Version: a\r\n\
    Sec-WebSocket-Protocol: a\r\n\
    Sec-WebSocket-Extensions: a\r\n\
    Sec-WebSocket-Accept: a\r\n\
    X-Real-IP: a\r\n\r\n";

/// Extensions for requests and answers that go through hyper connections with
/// `preserve_header_case`; empty if hyper no longer works this way.
pub async fn canonical() -> Extensions {
    let (mut client, server) = tokio::io::duplex(HEAD.len());
    let (tell, mut told) = mpsc::channel(1);
    let service = service_fn(move |request: Request<Incoming>| {
        let _ = tell.try_send(request.extensions().clone());
        async { Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let serve =
        http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(server), service);
    let (_, _) = tokio::join!(
        async {
            let _ = client.write_all(HEAD).await;
            drop(client);
        },
        serve
    );
    told.recv().await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1 as client;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_backend_sees_the_spelling_of_the_rfc() {
        let mut request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        for name in ["sec-websocket-key", "x-real-ip", "cookie"] {
            request.headers_mut().insert(name, "v".parse().unwrap());
        }
        *request.extensions_mut() = canonical().await;
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut sender, connection) = client::Builder::new()
            .preserve_header_case(true)
            .title_case_headers(true)
            .handshake(TokioIo::new(near))
            .await
            .unwrap();
        let mut head = vec![0; 1024];
        let read = async {
            let n = far.read(&mut head).await.unwrap();
            head.truncate(n);
            drop(far);
        };
        let (_, _, ()) = tokio::join!(sender.send_request(request), connection, read);
        let head = String::from_utf8(head).unwrap();
        for line in ["Sec-WebSocket-Key: v\r\n", "X-Real-IP: v\r\n", "Cookie: v\r\n"] {
            assert!(head.contains(line), "{head}");
        }
    }
}

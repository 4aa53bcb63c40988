//! The session of the echo service: it says everything back. Built on `frame_core::endpoint`, and on nothing else.

use frame_core::endpoint::Endpoint;
use frame_core::outcome::Outcome;
use frame_core::relay::ClientStream;

/// Says everything back until the session is over.
pub(super) async fn run<S>(mut endpoint: Endpoint<S>) -> Outcome
where
    S: ClientStream + Send + 'static,
{
    while let Some(message) = endpoint.recv().await {
        if endpoint.send(message).await.is_err() {
            break;
        }
    }
    Box::pin(endpoint.end()).await // in a box, since an idle session is as large as this future
}

//! Sessions over streams that hyper gives away behind its answers.

use frame_core::policy::STALL_MAX;
use frame_core::relay::ClientStream;
use http::{Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio::time::timeout;

use crate::answer::Reply;
use crate::body::{AnswerBody, whole};
use crate::handler::Handler;
use crate::opened::Opened;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::stream::Client;

/// The answer for hyper to send. A session that opens runs in a task of its own, over what `stream` makes of the upgraded
/// connection: so what HTTP needed is freed, and the connection's task ends.
pub(crate) async fn answer_by_hyper<H, S>(
    shared: &Shared<H>,
    reply: Reply<H>,
    upgrading: Option<OnUpgrade>,
    stream: fn(Upgraded) -> Option<S>,
) -> Response<AnswerBody>
where
    H: Handler,
    S: Send + 'static,
    Client<S>: ClientStream,
{
    match (reply, upgrading) {
        (Reply::Answer(answer), _) => answer,
        (Reply::Open(answer, opened), Some(upgrading)) => {
            shared.end.tasks.spawn(run(upgrading, opened, stream));
            answer.map(|()| whole(""))
        }
        (Reply::Open(_, opened), None) => {
            opened.abandon().await;
            let internal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR);
            internal.with_body("the server gives no connection away\n").answer()
        }
    }
}

async fn run<H, S>(upgrading: OnUpgrade, opened: Box<Opened<H>>, stream: fn(Upgraded) -> Option<S>)
where
    H: Handler,
    Client<S>: ClientStream,
{
    // A client that takes nothing of the answer, or of one before it, would have those wait for ever who send to it.
    let upgraded = timeout(STALL_MAX, upgrading).await;
    match upgraded.ok().and_then(Result::ok).and_then(stream) {
        Some(io) => opened.run(Client(io)).await,
        None => opened.abandon().await, // the connection went before the client had the answer
    }
}

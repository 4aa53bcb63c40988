//! What all connections of a service share.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use upgrade_handler::origin::OriginPattern;

use crate::body::{AnswerBody, RequestBody};
use crate::certificates::Certificates;
#[cfg(feature = "cluster")]
use crate::cluster::RunningCluster;
use crate::compression::Compressing;
use crate::hub::Hub;
use crate::settings::Settings;

/// Which requests may open a session.
pub(crate) type Takes = dyn Fn(&Parts) -> bool + Send + Sync;

/// What answers all other requests.
pub(crate) type Otherwise =
    dyn Fn(Request<RequestBody>) -> Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>> + Send + Sync;

/// What all connections share.
pub(crate) struct Shared<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) settings: Settings,
    pub(crate) hub: Hub,
    pub(crate) rules: Rules,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) end: End,
    #[cfg(feature = "cluster")]
    pub(crate) cluster: Option<RunningCluster>,
}

impl<H> Shared<H> {
    /// The other processes hear that this one has no sessions any more. To be called behind a drain.
    pub(crate) async fn leave_cluster(&self) {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.cluster {
            cluster.end().await;
        }
    }
}

/// Who may open a session.
#[derive(Default)]
pub(crate) struct Rules {
    /// `None`: every request.
    pub(crate) takes: Option<Box<Takes>>,
    /// Of pages; none: pages of every origin.
    pub(crate) origins: Vec<OriginPattern>,
    /// In the order of the service's preference.
    pub(crate) subprotocols: Vec<String>,
    /// Proxies that are believed what they say of the client's address.
    pub(crate) trusted: Vec<IpNet>,
    /// Balancers whose connections begin with a header of the PROXY protocol.
    pub(crate) balancers: Vec<IpNet>,
    /// permessage-deflate; `None`: it is not spoken.
    pub(crate) compression: Option<Compressing>,
    /// `None`: there is nothing beside the WebSockets.
    pub(crate) otherwise: Option<Box<Otherwise>>,
}

/// The end of the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct End {
    /// Nothing new is begun.
    pub(crate) draining: CancellationToken,
    /// What is left goes.
    pub(crate) cut: CancellationToken,
    /// Connections and sessions.
    pub(crate) tasks: TaskTracker,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("subprotocols", &self.subprotocols).finish_non_exhaustive()
    }
}

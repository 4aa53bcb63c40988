//! Probes of servers: one task for each server of the process, whatever the number of workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::net::clock;
use crate::site::Site;
use crate::site::endpoint::Endpoint;
use crate::site::health::{OnDown, Probe};
use crate::site::server::ServerState;
use crate::site::upstream::Connector;
use crate::upstream::probe::probe;
use net_io::proxy_protocol::encode_local;

/// A server that probes have found down, whose sessions are to be closed.
pub(super) type Down = Arc<ServerState>;

/// All probes that run.
pub(super) struct Prober {
    running: Vec<Running>,
    /// Where servers go whose sessions are to be closed.
    down: mpsc::UnboundedSender<Down>,
}

struct Running {
    job: Job,
    _task: AbortOnDropHandle<()>,
}

/// What one task does.
#[derive(Clone)]
struct Job {
    upstream: String,
    server: Arc<ServerState>,
    endpoint: Arc<Endpoint>,
    connector: Connector,
    probe: Probe,
    on_down: OnDown,
}

impl Job {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.server, &other.server)
            && self.endpoint == other.endpoint
            && self.connector == other.connector
            && self.probe == other.probe
            && self.on_down == other.on_down
    }

    async fn run(self, down: mpsc::UnboundedSender<Down>) {
        // Spread: servers that came together are not probed together.
        sleep(self.probe.interval.min(Duration::from_secs(1)).mul_f64(rand::random())).await;
        loop {
            let probing = probe(&self.probe.kind, self.connector, &self.endpoint);
            let problem = match timeout(self.probe.timeout, probing).await {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(e.to_string().into_boxed_str()),
                Err(_) => Some(format!("no answer to the probe within {:?}", self.probe.timeout).into()),
            };
            self.probed(problem, &down);
            sleep(self.probe.interval.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
        }
    }

    fn probed(&self, problem: Option<Box<str>>, down: &mpsc::UnboundedSender<Down>) {
        let cause = problem.as_deref().unwrap_or_default().to_owned();
        match self.server.probed(&self.probe, problem, clock::now()) {
            Some(true) => {
                warn!(
                    upstream = self.upstream,
                    backend = %self.endpoint,
                    sessions = self.server.sessions(),
                    cause,
                    "a backend is down"
                );
                if self.on_down == OnDown::Close {
                    let _ = down.send(self.server.clone()); // the gateway is about to end
                }
            }
            Some(false) => info!(upstream = self.upstream, backend = %self.endpoint, "a backend is up again"),
            None => {}
        }
    }
}

impl Prober {
    /// One that probes nothing yet.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Down>) {
        let (down, downs) = mpsc::unbounded_channel();
        (Self { running: Vec::new(), down }, downs)
    }

    /// Where servers go whose sessions are to be closed.
    pub(super) fn downs(&self) -> mpsc::UnboundedSender<Down> {
        self.down.clone()
    }

    /// Probes the servers of `site` from now on. What is probed already goes on as it is.
    pub(super) fn follow(&mut self, site: &Site) {
        let mut old = std::mem::take(&mut self.running);
        for upstream in site.upstreams() {
            let Some(probe) = &upstream.probe else { continue };
            let current = upstream.current();
            for (server, state) in current.servers.iter().zip(current.states()) {
                let job = Job {
                    upstream: upstream.to_string(),
                    server: state.clone(),
                    endpoint: match upstream.connector.proxy_protocol {
                        Some(version) => Arc::new(server.endpoint.for_client(encode_local(version))),
                        None => server.endpoint.clone(),
                    },
                    connector: upstream.connector,
                    probe: probe.clone(),
                    on_down: upstream.on_down,
                };
                let running = match old.iter().position(|running| running.job.is(&job)) {
                    Some(i) => old.swap_remove(i),
                    None => {
                        let task = tokio::spawn(job.clone().run(self.down.clone()));
                        Running { job, _task: AbortOnDropHandle::new(task) }
                    }
                };
                self.running.push(running);
            }
        }
        for Running { job, .. } in old {
            if !self.running.iter().any(|running| Arc::ptr_eq(&running.job.server, &job.server)) {
                job.server.forget_probes(clock::now());
            }
        }
    }
}

//! Sockets that stay open while something happens to their gateway.

use std::time::Duration;

use crate::harness::{Backend, Load};
use crate::job::{Job, Work};
use crate::setup::Site;

/// Messages a second, over all sockets.
const PER_SECOND: u32 = 2000;
/// Between one thing that happens and the next.
pub(crate) const BETWEEN: Duration = Duration::from_secs(1);

/// A load without sockets yet.
pub(crate) async fn load_of_live_sockets<'a>(
    cores: [usize; 2],
    site: &Site,
    backend: &'a Backend,
    port: u16,
) -> anyhow::Result<Load<'a>> {
    let job = Job {
        work: Work::Live { per_second: PER_SECOND },
        port,
        certificate: site.chain.clone(),
        gateway: Vec::new(),
        backend: backend.child.pid.as_raw(),
        cores,
        warm_up: 0.0,
        seconds: 0.0,
        gate: false,
        connections_per_second: None,
    };
    let [_, load_core] = cores;
    Load::start(&job, backend, load_core).await
}

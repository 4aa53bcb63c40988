//! What the gateway is seen and steered by from outside: opened before anything is swapped, so that
//! what can't be opened forbids the reload.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, Problem};
use crate::overview::Overview;
use crate::telemetry::admin::{Admin, Bound};

/// What is open.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// With the address as the configuration has it.
    admin: Option<(SocketAddr, Admin)>,
}

/// What a configuration wants beside what is open already.
#[derive(Debug)]
pub(super) struct Opened {
    admin: Option<Bound>,
}

impl Outside {
    /// Where the admin listener is.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, admin)| admin.local)
    }

    /// Opens what `config` wants and what isn't open yet. `explain` turns an error into a sentence.
    pub(super) fn open(
        &self,
        config: &Config,
        problems: &mut Vec<Problem>,
        explain: impl Fn(SocketAddr, &io::Error) -> String,
    ) -> Opened {
        let wanted = config.admin.filter(|wanted| {
            let open = self.admin.as_ref().map(|(address, _)| *address);
            open != Some(wanted.address)
        });
        let admin = wanted.and_then(|wanted| match Bound::listen(wanted.address) {
            Ok(bound) => Some(bound),
            Err(e) => {
                problems.push(config.problem(wanted.place, explain(wanted.address, &e)));
                None
            }
        });
        Opened { admin }
    }

    /// Serves what was opened for `config`, and closes what it doesn't want any more.
    pub(super) fn settle(&mut self, config: &Config, opened: Opened, overview: &Arc<Overview>) {
        match (config.admin, opened.admin) {
            (Some(wanted), Some(bound)) => match bound.serve(overview.clone()) {
                Ok(admin) => {
                    info!(address = %admin.local, "admin listener");
                    self.admin = Some((wanted.address, admin));
                }
                Err(e) => warn!(address = %wanted.address, cause = %e, "the admin listener was lost"),
            },
            (None, _) => self.admin = None,
            (Some(_), None) => {}
        }
    }
}

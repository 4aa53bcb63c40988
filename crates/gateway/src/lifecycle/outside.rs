//! What the gateway is seen and steered by from outside: opened before anything is swapped, so that
//! what can't be opened forbids the reload.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tracing::{info, warn};

use super::succession::Inherited;
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
        inherited: &mut Inherited,
        problems: &mut Vec<Problem>,
        explain: impl Fn(SocketAddr, &io::Error) -> String,
    ) -> Opened {
        let wanted = config.admin.filter(|wanted| {
            let open = self.admin.as_ref().map(|(address, _)| *address);
            open != Some(wanted.address)
        });
        let admin = wanted.and_then(|wanted| {
            match inherited.listen(wanted.address, 1).and_then(|opened| Bound::new(opened.sockets)) {
                Ok(bound) => Some(bound),
                Err(e) => {
                    problems.push(config.problem(wanted.place, explain(wanted.address, &e)));
                    None
                }
            }
        });
        Opened { admin }
    }

    /// A duplicate of the admin listener's socket, with its address as the configuration has it.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub(super) fn lend(&self) -> io::Result<Option<(SocketAddr, OwnedFd)>> {
        let admin = self.admin.as_ref();
        admin.map(|(address, admin)| Ok((*address, admin.lend()?))).transpose()
    }

    /// Another process is who is to be asked.
    pub(super) fn close(&mut self) {
        self.admin = None;
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

//! What the gateway is seen and steered by from outside: opened before anything is swapped, so that
//! what can't be opened forbids the reload.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tracing::{info, warn};

use crate::config::{Config, ControlSocket, Place, Problem};
use crate::lifecycle::upgrade::new::{BoundListener, Inherited};
use crate::net::listening::ListenAddress;
use crate::ops::admin::{AdminServer, Bound};
use crate::ops::control::server::{Access, Control, PendingControl};
use crate::ops::control::socket::check_free;
use crate::ops::listener_sockets::ListenerSockets;

/// What is open.
#[derive(Debug)]
pub(super) struct Outside {
    /// With the address as the configuration has it.
    admin: Option<(ListenAddress, AdminServer)>,
    control: Option<Control>,
    /// A control socket that is to take its path.
    waiting: Option<PendingControl>,
    /// No old gateway has a say in whose the control socket's path is.
    is_in_charge: bool,
    /// Where the control socket is if the configuration names no path.
    default_control: Option<PathBuf>,
}

/// What a configuration wants beside what is open already.
#[derive(Debug)]
pub(super) struct OpenedOutside {
    admin: Option<Bound>,
    control: Option<PendingControl>,
}

impl Outside {
    /// Nothing. Unless it `is_in_charge` from the beginning, the control socket waits for [`Self::take_control_path`].
    pub(super) fn new(is_in_charge: bool, default_control: Option<PathBuf>) -> Self {
        Self { admin: None, control: None, waiting: None, is_in_charge, default_control }
    }

    /// Where the admin listener is.
    pub(super) fn admin_address(&self) -> Option<&ListenAddress> {
        self.admin.as_ref().map(|(_, admin)| &admin.local)
    }

    /// Opens what `config` wants and what isn't open yet. `explain` turns an error into a sentence.
    pub(super) fn open(
        &self,
        config: &Config,
        inherited: &mut Inherited,
        sockets: &ListenerSockets,
        problems: &mut Vec<Problem>,
        explain: impl Fn(&ListenAddress, &io::Error) -> String,
    ) -> OpenedOutside {
        let wanted = config.admin.as_ref().filter(|wanted| {
            let is_lost = sockets.is_lost(&wanted.address);
            if is_lost {
                warn!(address = %wanted.address, "the socket has been removed or replaced: it is made again");
            }
            is_lost || self.admin.as_ref().map(|(address, _)| address) != Some(&wanted.address)
        });
        let admin = wanted.and_then(|wanted| match inherited.listen(&wanted.address, 1).and_then(bind) {
            Ok(bound) => Some(bound),
            Err(e) => {
                problems.push(config.problem(wanted.place, explain(&wanted.address, &e)));
                None
            }
        });
        let open =
            self.waiting.as_ref().map(PendingControl::path).or(self.control.as_ref().map(Control::path));
        let wanted = self.control_socket(config).filter(|wanted| open != Some(&wanted.path));
        let control = wanted.and_then(|ControlSocket { path, place, .. }| {
            match check_free(&path, inherited.predecessor).and_then(|()| PendingControl::prepare(&path)) {
                Ok(waiting) => Some(waiting),
                Err(e) => {
                    problems.push(config.problem(place, e.to_string()));
                    None
                }
            }
        });
        OpenedOutside { admin, control }
    }

    /// A duplicate of the admin listener's socket, with its address as the configuration has it.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub(super) fn lend(&self) -> io::Result<Option<(ListenAddress, OwnedFd)>> {
        let admin = self.admin.as_ref();
        admin.map(|(address, admin)| Ok((address.clone(), admin.lend()?))).transpose()
    }

    /// Another process is who is to be asked how the service is.
    pub(super) async fn close_admin(&mut self, sockets: &ListenerSockets) {
        if let Some((address, admin)) = self.admin.take() {
            sockets.remove(&address); // unless the other process has it
            admin.close().await;
        }
    }

    /// Another process is who steers the service: the control socket's path is free.
    pub(super) fn close_control(&mut self) {
        (self.control, self.waiting) = (None, None);
    }

    /// Takes the control socket's path, now that no old gateway has a say in whose it is.
    pub(super) fn take_control_path(&mut self, access: &Access) {
        self.is_in_charge = true;
        let Some(waiting) = self.waiting.take() else { return };
        match waiting.serve(access.clone()) {
            Ok(control) => {
                info!(path = %control.path().display(), "control socket");
                self.control = Some(control); // the path of the one before goes with it
            }
            Err(e) => warn!(cause = %e, "the control socket can't be opened"),
        }
    }

    fn control_socket(&self, config: &Config) -> Option<ControlSocket> {
        let default = || {
            let path = self.default_control.clone()?;
            Some(ControlSocket { path, tap: false, place: Place::default() })
        };
        config.control.clone().or_else(default)
    }

    /// Serves what was opened for `config`, and closes what it doesn't want any more.
    pub(super) fn settle(&mut self, config: &Config, opened: OpenedOutside, access: &Access) {
        access.overview.taps.allow(config.control.as_ref().is_some_and(|control| control.tap));
        match (&config.admin, opened.admin) {
            (Some(wanted), Some(bound)) => {
                let admin = bound.serve(access, wanted.into());
                info!(address = %admin.local, "admin listener");
                let before = self.admin.replace((wanted.address.clone(), admin));
                if let Some((address, _)) = before.filter(|(address, _)| *address != wanted.address) {
                    access.overview.sockets.remove(&address);
                }
            }
            (None, _) => {
                if let Some((address, _)) = self.admin.take() {
                    access.overview.sockets.remove(&address);
                }
            }
            (Some(wanted), None) => {
                if let Some((_, admin)) = &self.admin {
                    admin.adopt(wanted.into());
                }
            }
        }
        match (self.control_socket(config), opened.control) {
            (Some(_), Some(waiting)) => self.waiting = Some(waiting),
            (Some(_), None) => {}
            (None, _) => self.close_control(),
        }
        if self.is_in_charge {
            self.take_control_path(access);
        }
    }
}

/// What was opened for the admin listener. Within a runtime.
fn bind(opened: BoundListener) -> io::Result<Bound> {
    let BoundListener { address, local, sockets, claim, is_activated } = opened;
    Bound::new(address, local, sockets, claim, is_activated)
}

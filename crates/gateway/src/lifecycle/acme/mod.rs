//! Certificates that the gateway orders and renews by itself (RFC 8555): one task of the process, on the main thread.
//!
//! The storage is what decides. The task looks at it, orders what is due if no other process does (`storage`: the
//! lock), and puts the certificate there, where the watch over certificate files finds it as it finds every other.
//! Reloads with the same section leave the task alone; at a takeover the old process ends it before the new one begins,
//! which goes on with an order that is open.

mod account;
mod advice;
pub(super) mod attempt;
mod client;
mod command;
mod demand;
mod duty;
mod failure;
mod nonce;
mod order;
mod permission;
mod schedule;
mod standing;
mod storage;

use std::sync::Arc;

use tls_acceptor::Certificates;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use self::demand::{Demands, Desk};
use self::duty::{Beginning, Duty};
use self::permission::Permission;
use crate::config::AcmeSettings;
use crate::ops::acme::AcmeOverview;
use crate::site::on_demand::{Demand, OnDemand};

/// The task, while this process has the duty.
pub(super) struct AcmeKeeper {
    settings: Option<Arc<AcmeSettings>>,
    overview: Arc<AcmeOverview>,
    /// Handshakes for names that have none.
    certificates: Arc<Certificates>,
    /// The storage has other certificates than before.
    changed: Arc<Notify>,
    task: Option<AbortOnDropHandle<()>>,
    is_in_charge: bool,
}

impl AcmeKeeper {
    /// Does nothing before [`Self::take_charge`].
    pub(super) fn new(
        settings: Option<&AcmeSettings>,
        certificates: Arc<Certificates>,
        overview: Arc<AcmeOverview>,
    ) -> Self {
        let settings = settings.cloned().map(Arc::new);
        let keeper = Self {
            settings,
            overview,
            certificates,
            changed: Arc::default(),
            task: None,
            is_in_charge: false,
        };
        drop(keeper.take_demands()); // clients are refused until then
        keeper
    }

    /// Orders from now on.
    pub(super) fn take_charge(&mut self) {
        self.is_in_charge = true;
        self.start(Beginning::Process);
    }

    /// Goes on by other settings.
    pub(super) fn follow(&mut self, settings: Option<&AcmeSettings>) {
        if self.settings.as_deref() == settings {
            return;
        }
        self.settings = settings.cloned().map(Arc::new);
        // Whatever failed before may have been mended by what is written now.
        self.start(Beginning::Settings);
    }

    /// Lets go of the duty: another process has it.
    pub(super) fn stop(&mut self) {
        self.is_in_charge = false;
        self.task = None;
    }

    /// Waits until the storage has other certificates than before.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn start(&mut self, beginning: Beginning) {
        self.task = None;
        self.overview.show(Vec::new());
        let demands_taken = self.take_demands();
        let Some(settings) = self.settings.clone().filter(|_| self.is_in_charge) else { return };
        let (overview, demands) = (self.overview.clone(), Arc::<Demands>::default());
        let desk = settings.on_demand.clone().zip(demands_taken).map(|(on_demand, receiver)| {
            Desk::new(settings.clone(), on_demand, demands.clone(), receiver, overview.clone())
        });
        let permission = settings.on_demand.clone().map(Permission::new);
        let duty = Duty { settings, overview, changed: self.changed.clone(), demands, permission };
        let both = async move {
            match desk {
                Some(desk) => drop(tokio::join!(duty.keep(beginning), desk.keep())),
                None => duty.keep(beginning).await,
            }
        };
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(both)));
    }

    /// From now on handshakes have names ordered, or none, as the settings say. Returns what clients demand.
    fn take_demands(&self) -> Option<mpsc::Receiver<Demand>> {
        let on_demand = self.settings.as_ref().and_then(|settings| settings.on_demand.as_ref());
        self.overview.set_on_demand(on_demand.is_some());
        let (handshakes, receiver) =
            on_demand.map(|on_demand| OnDemand::new(on_demand.allowed.clone())).unzip();
        self.certificates.order_on_demand(handshakes.map(|handshakes| Arc::new(handshakes) as _));
        receiver
    }
}

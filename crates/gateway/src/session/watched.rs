//! What a session asks when it begins, and when it has frozen: whether it is watched.

use frame_core::relay::{ClientStream, Ending};
use frame_core::tap::Watch;

use super::{Other, Session, Special, policy, tapped};

impl Session {
    /// A tap that waits for a session like this one watches it, if it is new.
    pub(super) fn meet_tap(&self) {
        let taps = &self.report.worker().taps;
        if taps.are_wanted() && !self.other.has_begun() {
            let handle = self.registered.handle();
            taps.on_open(self.registered.id(), handle, &self.route.id, self.report.client());
        }
    }

    /// It is watched.
    pub(super) fn is_watched(&self) -> bool {
        self.watch(true).is_some()
    }

    /// Relays as long as it is watched, from where it has frozen; `None`: it is not.
    pub(super) async fn run_tapped(&mut self, client: &mut (dyn ClientStream + Send)) -> Option<Ending> {
        let watch = self.watch(true)?;
        let state = self.other.take_state();
        let Other::Backend(backend) = &mut self.other else { return None };
        let policy = policy(&self.route, self.deflate);
        Some(tapped::run_relay(watch, client, backend, state, policy, self.registered.handle()).await)
    }

    /// How it is watched; `None`: it is not.
    pub(super) fn watch(&self, has_frames: bool) -> Option<Watch> {
        tapped::watch(&self.report, self.deflate, has_frames)
    }
}

impl Other {
    /// The session has begun in another process.
    fn has_begun(&self) -> bool {
        match self {
            Self::Frozen(_) => true,
            Self::Backend(_) | Self::Echo => false,
            Self::Redial(lasting) => lasting.frozen.is_some(),
            Self::Special(special) => match &**special {
                Special::Echo(state) => state.is_some(),
                Special::Tcp(_, state) => state.is_some(),
                Special::Opaque(_, state) => state.is_some(),
            },
        }
    }
}

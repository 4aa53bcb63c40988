//! The end of a service: everybody is told, in order, and what is left is cut.

use std::cmp::Reverse;
use std::pin::{Pin, pin};
use std::time::Duration;

use frame_core::handle::{EndMode, Order};
use tokio::time::{Instant, sleep_until, timeout};

use crate::hub::{Hub, To};
use crate::log;
use crate::session::Session;
use crate::settings::Settings;
use crate::shared::End;

/// Sessions that have not ended in time get a Close anyway if they are between two frames, so long before they are cut.
const LAST_CALL: Duration = Duration::from_secs(2);
/// After the cut, for handlers to come to their end.
const CUT_WAIT: Duration = Duration::from_secs(3);

/// Drains. `hurry`: cut now.
pub(crate) async fn drain(
    hub: &Hub,
    settings: &Settings,
    end: &End,
    mut hurry: Pin<&mut impl Future<Output = ()>>,
) {
    end.draining.cancel();
    end.tasks.close();
    log::stage("draining: nothing more is accepted", hub.count(To::All));
    let deadline = Instant::now() + settings.drain_timeout;
    let half = settings.drain_timeout / 2;
    let in_order = async {
        let mut told = pin!(tell(hub, settings, half));
        let mut all_told = false;
        let last_call = sleep_until(deadline - LAST_CALL.min(half));
        tokio::pin!(last_call);
        loop {
            tokio::select! {
                biased;
                () = end.tasks.wait() => return,
                () = &mut told, if !all_told => all_told = true,
                () = &mut last_call => break,
            }
        }
        for session in hub.sessions(To::All) {
            session.handle().end(Order { code: settings.drain_code.get(), mode: EndMode::Now });
        }
        tokio::select! {
            () = end.tasks.wait() => {}
            () = sleep_until(deadline) => log::stage("drain_timeout: what is left is cut", hub.count(To::All)),
        }
    };
    tokio::select! {
        () = in_order => {}
        () = hurry.as_mut() => log::stage("second signal: what is left is cut", hub.count(To::All)),
    }
    end.cut.cancel();
    let _ = timeout(CUT_WAIT, end.tasks.wait()).await;
    log::stage("drained", hub.count(To::All));
}

/// Orders all sessions to end, at moments that are spread over the window: clients that are all sent away at once come
/// back all at once.
async fn tell(hub: &Hub, settings: &Settings, half: Duration) {
    let now = Instant::now();
    let window = settings.drain_window.min(half); // one that doesn't fit would turn closes into cuts
    let last = now + settings.drain_timeout;
    let mut moments: Vec<(Instant, Session)> = hub
        .sessions(To::All)
        .into_iter()
        .map(|session| (now + window.mul_f64(rand::random::<f64>()), session))
        .collect();
    moments.sort_by_key(|(moment, _)| Reverse(*moment));
    while let Some((moment, session)) = moments.pop() {
        sleep_until(moment).await;
        let within = last.saturating_duration_since(Instant::now());
        session
            .handle()
            .end(Order { code: settings.drain_code.get(), mode: EndMode::AfterMessages { within } });
    }
}

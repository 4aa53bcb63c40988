//! A message from a client to a backend through the relay, so that the price of rates can be counted.

use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use benches::pipe::{Pipe, pipe};
use benches::work::relay::{Middle, ROOM, run as pass_on, step};
use benches::{POLICY, message, runtime};
use frame_core::clock::Exact;
use frame_core::handle::SessionHandle;
use frame_core::metered::{Meter, Metered, OnLimit, Rate, Rates};
use frame_core::relay::relay;

/// The message without a rate.
pub(crate) const PLAIN: &str = "a message of 64 B";
pub(crate) const MESSAGES: &str = "`messages`";
pub(crate) const BYTES: &str = "`bytes`";
pub(crate) const BOTH: &str = "`messages` and `bytes`";

/// Passes on so many messages, with the rates that the row has.
pub(crate) fn run(name: &str, rounds: u64) {
    // It is never reached.
    let rate = Some(Rate::new(NonZeroU64::new(1 << 40).unwrap(), Duration::from_secs(1)));
    let (messages, bytes) = match name {
        MESSAGES => (rate, None),
        BYTES => (None, rate),
        BOTH => (rate, rate),
        _ => (None, None),
    };
    let runtime = runtime();
    let _entered = runtime.enter(); // for timers
    let (client, near_client) = pipe(ROOM);
    let (backend, near_backend) = pipe(ROOM);
    if name == PLAIN {
        return pass(rounds, pass_on(Middle::Relay, near_client, near_backend), &client, &backend);
    }
    let rates = Rates { messages, bytes, on_limit: OnLimit::Delay };
    pass(rounds, pass_on_metered(&rates, near_client, near_backend), &client, &backend);
}

async fn pass_on_metered(rates: &Rates, client: Pipe, mut backend: Pipe) {
    let handle = SessionHandle::new();
    let mut client = Metered::new(client, Meter::new(rates, handle.clone(), Arc::default()));
    relay(&mut client, &mut backend, POLICY, &handle, Exact::begin()).await;
}

fn pass(rounds: u64, middle: impl Future<Output = ()>, client: &Pipe, backend: &Pipe) {
    let mut middle = pin!(middle);
    let wire = message(64, true);
    let mut seen = vec![0; wire.len()];
    for _ in 0..rounds {
        step(middle.as_mut(), client, backend, &wire, &mut seen);
    }
}

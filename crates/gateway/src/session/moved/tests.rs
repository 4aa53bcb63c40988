//! Records of this release, and of those before it: a sample of each version has to be understood for ever.

use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;

use frame_core::deflate::{Budget, Codec, Window};
use frame_core::metered::{OnLimit, Rate, Rates};
use tls_acceptor::{ClientRules, Negotiated};

use super::*;
use crate::context::identity::Identity;
use crate::site::matcher::Matcher;
use crate::test_io::Scene;

/// With secrets that no connection ever had.
const SAMPLE: &str = include_str!("session.hex");
const REDIALLING: &str = include_str!("redialling.hex");
/// Where there are times in them that count on: when the session froze, and its age.
const TIMES: [usize; 2] = [5, 129];
/// Where its report begins.
const REPORT: usize = 48;

fn sample() -> Vec<u8> {
    bytes_of(SAMPLE)
}

fn bytes_of(sample: &str) -> Vec<u8> {
    let lines = sample.lines().filter(|line| !line.starts_with('#'));
    let digits: String = lines.flat_map(str::split_whitespace).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Anything that can be polled for.
fn socket() -> OwnedFd {
    let (near, _far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    near.into()
}

fn restore(scene: &Scene, state: &[u8]) -> Result<(StillSession, Duration), MoveError> {
    let find = |id: &RouteId, leads: Leads<'_>| {
        let Leads::Server(server) = leads else { panic!("{leads:?}") };
        assert_eq!((id.as_str(), server.url().as_str()), ("domain.com/wss", "http://127.0.0.1:8282"));
        let action = scene.worker.site().all_routes()[0].action.clone();
        Some(Arc::new(Route { id: id.clone(), ..Route::new(Matcher::parse("/").unwrap(), action) }))
    };
    put_together(&scene.worker, [socket(), socket()], state, None, find, crate::request::redial::moved::read)
}

#[tokio::test]
async fn a_sample_of_the_format_is_understood_and_written_again() {
    let scene = Scene::new("");
    let state = sample();
    let (session, frozen_at) = restore(&scene, &state).unwrap();
    assert_eq!((frozen_at, session.registered.id()), (Duration::from_secs(5), 4711));
    let who = session.report.who();
    assert_eq!(
        (who.peer.to_string().as_str(), who.client.to_string().as_str()),
        ("192.0.2.7:50122", "198.51.100.9")
    );
    assert!(session.deflate);
    let Still::Relay(_, relay) = &session.still else { panic!("a relay") };
    assert_eq!(relay.snapshot().from_client.messages, 1);
    let again = take_apart(session).unwrap();
    let (mut expect, mut written) = (state, again.state.to_vec());
    for at in TIMES {
        expect[at..at + 8].fill(0);
        written[at..at + 8].fill(0);
    }
    assert_eq!(
        written,
        with_nothing_new(expect),
        "a field was added: keep the sample, and read it as before"
    );
    drop(again);
    assert!(scene.worker.sessions.is_empty());
}

/// What an earlier release has not written of a relay: a section which says that nothing has been measured.
const NOT_MEASURED: [u8; 43] = {
    let mut section = [0; 43];
    section[3] = 39; // its length
    section
};

/// What this release writes of the sample, which is of version 1: behind its report, that there is no identity, no
/// field by which the client is counted, no other protocol, no body, no rules for its certificate, nothing of what its
/// handshake has agreed upon, and no times; behind its relay, that nothing has been measured; at the end, that there is
/// no meter, and no compression.
fn with_nothing_new(mut sample: Vec<u8>) -> Vec<u8> {
    let end = sample.len();
    insert(&mut sample, end, &[0; 2], &[1]);
    insert(&mut sample, end, &NOT_MEASURED, &[1, 474, 479]);
    insert(&mut sample, 249, &[0; 14], &[1, REPORT]);
    sample
}

/// Inserts bytes into sections and fields whose lengths are at `lengths`.
fn insert(sample: &mut Vec<u8>, at: usize, bytes: &[u8], lengths: &[usize]) {
    sample.splice(at..at, bytes.iter().copied());
    for &at in lengths {
        let len =
            u32::from_be_bytes(sample[at..at + 4].try_into().unwrap()) + u32::try_from(bytes.len()).unwrap();
        sample[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
}

#[tokio::test]
async fn who_the_client_is_moves_and_is_not_left_to_an_earlier_release() {
    let scene = Scene::new("");
    let (mut session, _) = restore(&scene, &sample()).unwrap();
    let identity =
        Identity { subject: Some("alice".into()), expiry: Some(1_900_000_000), ..Identity::default() };
    session.report.identified(identity.clone());
    let state = take_apart(session).unwrap().state;
    assert_eq!(state[0], 2, "the session would never end in a release that doesn't know when");
    let (session, _) = restore(&scene, &state).unwrap();
    assert_eq!(session.report.who().identity.as_deref(), Some(&identity));
    // The registry knows it, too.
    assert!(scene.worker.sessions.take_expired(1_899_999_999).is_empty());
    let expired = scene.worker.sessions.take_expired(1_900_000_000);
    assert_eq!(expired.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [4711]);
    assert!(scene.worker.sessions.take_expired(u64::MAX).is_empty(), "each once");
}

#[tokio::test]
async fn what_was_agreed_upon_and_how_long_the_server_took_moves() {
    let scene = Scene::new("");
    let (mut session, _) = restore(&scene, &sample()).unwrap();
    let negotiated = Negotiated::from_bytes([0x13, 1, 0, 0x1D, 2, 1]).unwrap();
    session.report.negotiate_for_test(negotiated);
    session.report.times().connect_us = NonZeroU32::new(412);
    session.report.times().answer_us = NonZeroU32::new(70_000);
    let times = *session.report.times();
    let state = take_apart(session).unwrap().state;
    assert_eq!(state[0], 1, "an earlier release leaves them out");
    let (mut session, _) = restore(&scene, &state).unwrap();
    assert_eq!(*session.report.times(), times);
    let tls = session.report.connection().tls.as_ref().unwrap();
    assert_eq!(tls.negotiated, Some(negotiated));
}

#[tokio::test]
async fn what_a_client_has_used_of_its_rates_moves_and_is_not_left_to_an_earlier_release() {
    let scene = Scene::new("");
    let (mut session, _) = restore(&scene, &sample()).unwrap();
    assert!(session.meter.is_none());
    let two = Rate::new(2.try_into().unwrap(), Duration::from_secs(3600));
    let rates = Rates { messages: Some(two), bytes: None, on_limit: OnLimit::Close };
    session.meter = Some(Meter::new(&rates, session.registered.handle().clone(), Arc::default()));
    let state = take_apart(session).unwrap().state;
    assert_eq!(state[0], 4, "bytes that are held would be lost in a release that doesn't know them");
    let (session, _) = restore(&scene, &state).unwrap();
    let again = take_apart(session).unwrap().state;
    assert_eq!(again[again.len() - 50..], state[state.len() - 50..]);
}

#[tokio::test]
async fn what_is_kept_for_compression_moves_and_is_not_left_to_an_earlier_release() {
    let scene = Scene::new("");
    let (mut session, _) = restore(&scene, &sample()).unwrap();
    assert!(session.deflating.is_none());
    let (from_client, to_client) = (Window { bits: 12, is_kept: true }, Window { bits: 15, is_kept: true });
    let codec = Codec::new(from_client, to_client, 1000, |len| Budget::new(len).share(len)).unwrap();
    session.deflating = Some(Deflating::new(codec, 1000));
    let state = take_apart(session).unwrap().state;
    assert_eq!(state[0], 9, "its client would not be understood by a release that doesn't compress");
    let (session, _) = restore(&scene, &state).unwrap();
    assert_eq!(scene.worker.compression.budget().given(), 4096 + 1000);
    let again = take_apart(session).unwrap().state;
    assert_eq!(again[again.len() - 80..], state[state.len() - 80..]);
    assert_eq!(scene.worker.compression.budget().given(), 0);
}

#[tokio::test]
async fn records_that_are_cut_off_or_too_new_are_refused_and_leave_nothing() {
    let scene = Scene::new("");
    let state = sample();
    for len in 0..state.len() {
        assert!(restore(&scene, &state[..len]).is_err(), "{len}");
    }
    let mut too_new = state.clone();
    too_new[0] = VERSION + 1;
    let error = restore(&scene, &too_new).unwrap_err().to_string();
    assert!(error.contains("needs a reader of version 11"), "{error}");
    // Fields of a later release that can be done without are skipped.
    let mut longer = with_nothing_new(state);
    longer.extend_from_slice(b"later");
    let len = u32::try_from(longer.len() - 5).unwrap();
    longer[1..5].copy_from_slice(&len.to_be_bytes());
    assert!(restore(&scene, &longer).is_ok());
    assert!(scene.worker.sessions.is_empty());
}

/// The server was lost, and is looked for.
#[tokio::test]
async fn a_sample_of_a_session_between_two_servers_is_understood_and_written_again() {
    let scene = Scene::new("");
    let state = bytes_of(REDIALLING);
    let find = |id: &RouteId, leads: Leads<'_>| {
        assert!(id.as_str() == "domain.com/wss" && matches!(leads, Leads::Servers), "{leads:?}");
        let action = scene.worker.site().all_routes()[0].action.clone();
        Some(Arc::new(Route { id: id.clone(), ..Route::new(Matcher::parse("/").unwrap(), action) }))
    };
    let read = crate::request::redial::moved::read;
    let restored = put_together(&scene.worker, [socket(), socket()], &state, None, find, read);
    let (session, _) = restored.unwrap();
    assert_eq!(session.report.client_rules(), Some(ClientRules::from_bytes([7; 16])));
    assert!(matches!(&session.still, Still::Redial(still) if still.server.is_none()));
    let seen = scene.worker.sessions.get(4711).unwrap();
    assert_eq!(seen.who.redial.status().map(|status| status.redials()), Some(2));
    // Of version 6: what was measured of its relay, and what its report says of its handshake and of times, is new.
    let (mut expect, mut written) = (state, take_apart(session).unwrap().state.to_vec());
    insert(&mut expect, 748, &NOT_MEASURED, &[1, 496, 501, 505, 510]);
    insert(&mut expect, 270, &[0; 9], &[1, REPORT]);
    let lived = expect.len() - 9; // it is followed by no meter
    let end = expect.len();
    insert(&mut expect, end, &[0], &[1]); // and no compression
    for at in TIMES.into_iter().chain([lived]) {
        expect[at..at + 8].fill(0);
        written[at..at + 8].fill(0);
    }
    assert_eq!(written, expect, "a field was added: keep the sample, and read it as before");
}

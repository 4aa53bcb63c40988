//! What holds for all sessions and connections of a service.

use std::time::Duration;

use frame_core::policy::Policy;
use frame_core::sequence::Limits;
use tls_acceptor::MinVersion;

use crate::closed::CloseCode;

/// What becomes of a session whose client takes less than is sent to it, when its outbox is full. An awaited send lets what
/// waits be written first; [`Session::try_send`](crate::Session::try_send) and [`Hub::try_send_to`](crate::Hub::try_send_to)
/// don't, so that a loop of them fills the outbox of a fast client, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowClient {
    /// Who sends waits. A client that takes nothing at all for a minute is given up.
    #[default]
    Wait,
    /// The oldest messages that have not left are dropped, so that the newest arrive: for prices and positions.
    DropOldest,
    /// The session ends with this code, for instance [`CloseCode::POLICY_VIOLATION`] or
    /// [`CloseCode::TRY_AGAIN_LATER`]. What was queued is dropped.
    Close(CloseCode),
}

/// Limits and times. Write only what differs:
///
/// ```
/// use std::time::Duration;
/// use wss_service::Settings;
///
/// let settings = Settings { idle_timeout: Some(Duration::from_secs(3600)), ..Settings::default() };
/// assert_eq!(settings.message_max, 16 * 1024 * 1024);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a message from a client, all its fragments counted; longer ones end the session with 1009. 16 MiB.
    pub message_max: u64,
    /// The session ends with 1001 when no message has moved in either direction for so long. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// So long after its beginning the session ends with 1001. `None`: it may live for ever.
    pub lifetime: Option<Duration>,
    /// A client that was silent for so long is sent a ping. 30 s; `None`: no pings.
    pub ping_interval: Option<Duration>,
    /// How long the client then has to answer. 10 s.
    pub pong_timeout: Duration,
    /// Bytes that may wait for one client, the heads of frames counted, in at most one frame for each 64 of them and 16
    /// more. One longer message is taken, too, if nothing else waits. 1 MiB.
    pub outbox_max: usize,
    /// What happens then. [`SlowClient::Wait`].
    pub slow_client: SlowClient,
    /// Connections at the same time; more wait until one of them has ended. `None`: as many as the system has
    /// descriptors for. One over HTTP/2 has up to 256 sessions.
    pub connections_max: Option<usize>,
    /// How long a client may take for a TLS handshake. 10 s.
    pub handshake_timeout: Duration,
    /// How long a client may take for the head of a request, and between two requests of one connection. 10 s.
    pub header_timeout: Duration,
    /// The lowest TLS version that is accepted. 1.2.
    pub min_version: MinVersion,
    /// Closes at the end of the service are spread over so long, so that clients don't all come back at once. 10 s,
    /// and at most half of `drain_timeout`.
    pub drain_window: Duration,
    /// From the beginning of the end to the moment when what is left is cut. 30 s.
    pub drain_timeout: Duration,
    /// What clients are told then. [`CloseCode::GOING_AWAY`]; [`CloseCode::SERVICE_RESTART`] is the other usual one.
    pub drain_code: CloseCode,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_max: 16 * 1024 * 1024,
            idle_timeout: None,
            lifetime: None,
            ping_interval: Some(Duration::from_secs(30)),
            pong_timeout: Duration::from_secs(10),
            outbox_max: 1024 * 1024,
            slow_client: SlowClient::default(),
            connections_max: None,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            min_version: MinVersion::default(),
            drain_window: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            drain_code: CloseCode::GOING_AWAY,
        }
    }
}

/// As good as for ever, and can be added to any moment.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl Settings {
    /// The same with times that moments can be reckoned with: who wants no bound may have written [`Duration::MAX`].
    pub(crate) fn reckonable(self) -> Self {
        let within = |time: Duration| time.min(FOR_EVER);
        Self {
            idle_timeout: self.idle_timeout.map(within),
            lifetime: self.lifetime.map(within),
            ping_interval: self.ping_interval.map(within),
            pong_timeout: within(self.pong_timeout),
            handshake_timeout: within(self.handshake_timeout),
            header_timeout: within(self.header_timeout),
            drain_window: within(self.drain_window),
            drain_timeout: within(self.drain_timeout),
            ..self
        }
    }

    /// What an endpoint demands of a session.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            limits: Limits { message_max: self.message_max, deflate: false },
            idle_timeout: self.idle_timeout,
            lifetime: self.lifetime,
            ping_interval: self.ping_interval,
            pong_timeout: self.pong_timeout,
        }
    }
}

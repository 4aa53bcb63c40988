//! WebSockets over TLS in your own server.
//!
//! This service says "ok" to every message, over TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2, with certificates that are
//! exchanged while it runs:
//!
//! ```no_run
//! use wss_service::{Certificates, Service};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     Service::bind("0.0.0.0:8282")?
//!         .certificates(Certificates::directory("certs")?) // hot: changed files, SIGHUP, or reload()
//!         .on_message(async |session, _message| session.send("ok").await)
//!         .run()
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! # What a program writes
//!
//! - [`Service`]: closures ([`Service::on_message`] and its siblings), or one [`Handler`] where they share something. It runs
//!   to the process's end ([`Service::run`]), or as long as the program says ([`Service::run_until`]).
//! - [`Session`]: one client. Any task may send to it, close it, put it into groups, and attach values to it.
//! - [`Hub`]: all sessions. It sends to one, to a user's, to a group's, to all, and knows who is online, how many there are, and
//!   what has passed ([`Totals`]).
//! - [`Certificates`]: from a directory, from files, with certificates of clients, and how they are read again.
//! - [`Settings`]: limits and times. [`Compression`]: whether and how messages are compressed.
//!
//! Beside the sessions, on the same port, an axum application or any other service answers all other requests
//! ([`Service::otherwise`], [`Service::otherwise_fn`]). A program that accepts connections itself, for instance with
//! `axum::serve`, opens sessions from within a handler of its own ([`Service::attach`]). One that answers handshakes itself,
//! too, and moves sessions to another process has their handler run over its endpoints ([`Attached::run`]).
//!
//! # What is done without being asked
//!
//! - RFC 6455 is kept strictly: a client that breaks a rule gets the close code for it. Messages have a limit, and
//!   memory grows with what a client sends, not with the length that it announces.
//! - Silent clients are pinged, and those that are gone are closed.
//! - For a client that takes less than is sent to it, a bounded number of bytes waits, and then its senders, or what
//!   [`SlowClient`] says.
//! - A panic in a handler ends its session with 1011, and the log says where it was. Other sessions go on.
//! - At SIGTERM nothing more is accepted, and each client gets a Close (1001), at its own moment within ten seconds.
//! - `tracing` gets one line for each session, at its end: who ended it, why, and how much went each way. A program that
//!   shows them has a subscriber, for instance `tracing_subscriber::fmt::init()`. Why a connection came to no session is
//!   said at the level `debug`.
//!
//! # A broadcast
//!
//! A frame is made once and its bytes are shared. For each client it is only sealed and written.
//!
//! ```
//! # async fn broadcast(hub: wss_service::Hub) {
//! use wss_service::To;
//!
//! let delivery = hub.send_to(To::Group("tea"), "the kettle boils").await;
//! println!("queued for {} sessions", delivery.queued);
//! # }
//! ```
//!
//! # More than one process
//!
//! With the feature `cluster`, users and groups span processes, on one machine or many, over a Redis, Valkey or
//! NATS that is there already: `Service::cluster` says which. Its documentation has what holds then, and how a program in any
//! language publishes to a group.
//!
//! # Versions
//!
//! Rust 1.95 or newer, on Linux; tokio with IO and time, current-thread or multi-thread, or a runtime for each core
//! ([`Service::threads`]). One feature, off by default: `cluster`.

#![cfg_attr(docsrs, feature(doc_cfg))]

// The readme has the same fifteen lines.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod answer;
mod attached;
mod body;
mod certificates;
mod client;
mod closed;
#[cfg(feature = "cluster")]
mod cluster;
mod compression;
mod connection;
mod drain;
mod drive;
mod elsewhere;
mod groups;
mod handler;
mod host;
mod hosted;
mod http1;
mod http2;
mod hub;
mod listening;
mod log;
mod message;
mod opened;
mod otherwise;
mod outbox;
mod panics;
mod patience;
mod refusal;
mod service;
mod serving;
mod session;
mod settings;
mod shared;
mod stream;
mod threads;
mod totals;
mod unreached;
mod upgraded;

pub use frame_core::outcome::{Ended, RoundTrips};
pub use frame_core::violation::Violation;
pub use http::request::Parts;
pub use http::{HeaderMap, Request, Response, StatusCode, Version};
pub use ipnet::IpNet;
pub use tls_acceptor::{
    CertName, CertificateProblem, ClientAuthFiles, MinVersion, Named, PeerCertificate, Plan, ReloadReport,
};

pub use self::attached::Attached;
pub use self::body::{AnswerBody, BoxError, RequestBody};
pub use self::certificates::{Certificates, CertificatesError};
pub use self::client::{Peer, Tls};
pub use self::closed::{BadCloseCode, Cause, CloseCode, Closed, Party};
#[cfg(feature = "cluster")]
pub use self::cluster::{Cluster, ClusterState, ClusterUrlError};
pub use self::compression::Compression;
pub use self::handler::{Closures, Handler, HandlerError, IntoHandled};
pub use self::hub::{Delivery, Hub, To};
pub use self::message::{Message, Text};
pub use self::outbox::SendError;
pub use self::refusal::Refusal;
pub use self::service::{AttachError, OriginError, Service};
pub use self::serving::ServeError;
pub use self::session::{BinaryParts, Session, TextParts};
pub use self::settings::{Settings, SlowClient};
pub use self::totals::Totals;
pub use self::unreached::Unreached;

//! TCP in; TLS with the right certificate for each name, swapped under live connections, out.
//!
//! This crate knows rustls and no HTTP. In the order of a connection:
//!
//! - [`pem`], [`material`], [`key_kind`]: files → certificates and keys; [`certificate`], [`chain`],
//!   [`name`], [`cert_set`]: which of them answers for which name, with which issuers;
//!   [`load`](mod@load) does it all at once or says everything that is wrong
//! - [`reload`]: the cell that is swapped, and the report of what changed; [`watch`]: files that
//!   change by themselves; [`expiry`]: when to say that one should
//! - [`waiting`]: clients that have said nothing yet, and which of them goes when there are too many
//! - [`acceptor`]: the handshake under one deadline and with a permit, first flights in turn; [`tickets`], [`ticket_file`]: resumption; [`stream`]: what
//!   comes out, records opened and sealed by this crate; [`error`]: or what doesn't
//!
//! A TLS listener that takes new certificates on SIGHUP:
//!
//! ```no_run
//! # use tls_acceptor::{Acceptor, Certificates, Plan, AcceptorSettings, Tickets};
//! # async fn serve(_: tls_acceptor::Accepted) {}
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = Plan::directory("certs");
//! let certificates = Certificates::load(&plan).map_err(|problems| format!("{problems:?}"))?;
//! let acceptor = Acceptor::new(&AcceptorSettings::default(), certificates.clone(), &Tickets::new()?)?;
//! let listener = tokio::net::TcpListener::bind("[::]:8443").await?;
//! let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
//! loop {
//!     tokio::select! {
//!         _ = hangup.recv() => println!("{:?}", certificates.reload(&plan)),
//!         accepted = listener.accept() => {
//!             let (acceptor, (tcp, peer)) = (acceptor.clone(), accepted?);
//!             let deadline = tokio::time::Instant::now() + acceptor.handshake_timeout();
//!             tokio::spawn(async move {
//!                 tcp.readable().await.ok()?;
//!                 serve(acceptor.accept(tcp, peer.ip(), deadline).await.ok()?).await;
//!                 Some(())
//!             });
//!         }
//!     }
//! }
//! # }
//! ```

pub mod acceptor;
mod assembly;
pub mod cert_set;
pub mod certificate;
pub mod chain;
mod chain_fault;
mod der;
mod directory;
mod early_data;
pub mod error;
pub mod expiry;
mod handshake;
mod hello;
pub mod key_kind;
pub mod load;
pub mod material;
pub mod name;
mod named;
pub mod pem;
mod permits;
mod places;
mod record;
pub mod reload;
mod resolver;
pub mod stream;
#[cfg(test)]
mod test_rig;
pub mod ticket_file;
mod ticket_key;
pub mod tickets;
mod turn;
pub mod waiting;
pub mod watch;

pub use self::acceptor::{Accepted, Acceptor, AcceptorSettings, Alpn, MinVersion, SetupError};
pub use self::cert_set::{CertSet, Selected};
pub use self::certificate::{Certificate, KeyType, Leaf};
pub use self::chain_fault::ChainFault;
pub use self::error::AcceptError;
pub use self::expiry::Expiries;
pub use self::load::{CertificateProblem, Loaded, Named, Plan, Warning, load, renew};
pub use self::name::CertName;
pub use self::reload::{Certificates, Current, ReloadReport};
pub use self::stream::TlsStream;
pub use self::ticket_file::{TicketFileError, TicketKeys};
pub use self::ticket_key::TicketError;
pub use self::tickets::Tickets;
pub use self::waiting::{Client, Place, Waiting};
pub use self::watch::{FileScanner, Look, Watch};

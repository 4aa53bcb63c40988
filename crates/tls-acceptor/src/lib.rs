//! TCP in; TLS with the right certificate for each name, swapped under live connections, out.
//!
//! This crate knows rustls and no HTTP. In the order of a connection:
//!
//! - [`pem`], [`material`], [`key_kind`]: files → certificates and keys; [`certificate`], [`chain`],
//!   [`name`], [`cert_set`]: which of them answers for which name, with which issuers;
//!   [`load`](mod@load) does it all at once or says everything that is wrong
//! - [`reload`]: the cell that is swapped, and the report of what changed; [`watch`]: files that
//!   change by themselves; [`expiry`]: when to say that one should
//! - [`acceptor`]: the handshake under one deadline, first flights in turn; [`tickets`], [`ticket_file`]: resumption; [`stream`]: what
//!   comes out, records opened and sealed by this crate, over [`tcp`]; [`error`]: or what doesn't
//!
//! A TLS listener that takes new certificates on SIGHUP:
//!
//! ```no_run
//! # use tls_acceptor::{Acceptor, Certificates, Plan, Settings, Tickets};
//! # async fn serve(_: tls_acceptor::Accepted) {}
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = Plan::directory("certs");
//! let certificates = Certificates::load(&plan).map_err(|problems| format!("{problems:?}"))?;
//! let acceptor = Acceptor::new(&Settings::default(), certificates.clone(), &Tickets::new()?)?;
//! let listener = tokio::net::TcpListener::bind("[::]:8443").await?;
//! let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
//! loop {
//!     tokio::select! {
//!         _ = hangup.recv() => println!("{:?}", certificates.reload(&plan)),
//!         (permit, tcp) = async { (acceptor.ready().await, listener.accept().await) } => {
//!             let (acceptor, (tcp, _)) = (acceptor.clone(), tcp?);
//!             tokio::spawn(async move { serve(acceptor.accept(permit, tcp).await.ok()?).await; Some(()) });
//!         }
//!     }
//! }
//! # }
//! ```

pub mod acceptor;
pub mod cert_set;
pub mod certificate;
pub mod chain;
mod der;
mod directory;
pub mod error;
pub mod expiry;
mod handshake;
pub mod key_kind;
pub mod load;
pub mod material;
pub mod name;
mod named;
pub mod pem;
mod places;
mod record;
pub mod reload;
mod resolver;
pub mod stream;
pub mod tcp;
#[cfg(test)]
mod test_rig;
pub mod ticket_file;
pub mod tickets;
mod turn;
pub mod watch;

pub use self::acceptor::{Accepted, Acceptor, Alpn, MinVersion, Permit, Settings, SetupError};
pub use self::cert_set::{CertSet, Selected};
pub use self::certificate::{Certificate, KeyType, Leaf};
pub use self::error::AcceptError;
pub use self::expiry::Expiries;
pub use self::load::{Loaded, Named, Plan, Problem, Warning, load, renew};
pub use self::name::CertName;
pub use self::reload::{Certificates, Current, ReloadReport};
pub use self::stream::TlsStream;
pub use self::tcp::Tcp;
pub use self::ticket_file::{TicketFileError, TicketKeys};
pub use self::tickets::{TicketError, Tickets};
pub use self::watch::{Eye, Look, Watch};

//! TCP in; TLS with the right certificate for each name, swapped under live connections, out.
//!
//! This crate knows rustls and no HTTP. In the order of a connection:
//!
//! - `pem`, `material`, `key_kind`: files → certificates and keys; [`Certificate`], `chain`, [`CertName`], [`CertSet`]:
//!   which of them answers for which name, with which issuers; [`load`](fn@load) does it all at once or says everything
//!   that is wrong
//! - [`Certificates`]: the cell that is swapped, and the report of what changed; [`Watch`]: files that change by
//!   themselves; [`Expiries`]: when to say that one should
//! - [`ClientAuth`]: which certificates clients of a name have to show, and [`PeerCertificate`]: which one they have shown
//! - [`Waiting`]: clients that have said nothing yet, and which of them goes when there are too many
//! - [`Acceptor`]: the handshake under one deadline and with a permit, first flights in turn; [`Tickets`],
//!   [`TicketKeys`]: resumption; [`TlsStream`]: what comes out, records opened and sealed by this crate, and
//!   [`TlsState`]: the same on its way to another process;
//!   [`AcceptError`]: or what doesn't
//!
//! [`AnswerChallenges`] proves to an authority that a name leads here (tls-alpn-01).
//!
//! [`SigningKeys`] sign what clients keep for a gateway.
//!
//! The other way round there is [`TlsConnector`]: a TCP connection to a server in, the client's end of a [`TlsStream`]
//! out.
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

mod acceptor;
mod assembly;
mod authorities;
mod cert_set;
mod certificate;
mod chain;
mod chain_fault;
mod challenge;
mod client_auth;
mod connector;
mod demand;
mod der;
mod directory;
mod early_data;
mod error;
mod expiry;
mod handshake;
mod hello;
mod key_kind;
mod load;
mod material;
mod name;
mod named;
mod negotiated;
mod peer_certificate;
mod pem;
mod permits;
mod places;
mod record;
mod reload;
mod resolver;
mod signing;
mod stream;
#[cfg(test)]
mod test_rig;
mod ticket_file;
mod ticket_key;
mod tickets;
mod turn;
mod waiting;
mod watch;

pub use self::acceptor::{Accepted, Acceptor, AcceptorSettings, MinVersion, SetupError};
pub use self::cert_set::{CertSet, Lost, Selected, Why};
pub use self::certificate::{Certificate, CertificateSource, Flaw, KeyType, Leaf, LeafError};
pub use self::chain_fault::ChainFault;
pub use self::challenge::{AnswerChallenges, ChallengeAnswer, ChallengeFuture};
pub use self::client_auth::{ClientAuth, ClientAuthFiles, ClientRules};
pub use self::connector::{
    ClientCertificate, ConnectError, ConnectorError, ConnectorSettings, ServerName, TlsConnector,
};
pub use self::demand::{DemandFuture, Demanded, OrderOnDemand};
pub use self::error::AcceptError;
pub use self::expiry::{Expiries, Expiry, ExpiryLevel};
pub use self::key_kind::KeyKind;
pub use self::load::{Awaited, CertificateProblem, Loaded, Named, Plan, Warning, load, renew};
pub use self::material::{FileError, FileProblem};
pub use self::name::{CertName, normalize};
pub use self::negotiated::{Alpn, Negotiated};
pub use self::peer_certificate::PeerCertificate;
pub use self::pem::{PemError, PemFault};
pub use self::reload::{Certificates, Current, ReloadReport};
pub use self::signing::{MARK_LEN, SigningKeys};
pub use self::stream::{TlsState, TlsStream};
pub use self::ticket_file::{LineError, LineProblem, TicketFileError, TicketKeys};
pub use self::ticket_key::TicketError;
pub use self::tickets::Tickets;
pub use self::waiting::{Client, Place, Waiting};
pub use self::watch::{FileScanner, Look, Watch};

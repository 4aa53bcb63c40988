//! Why a connection did not become a TLS connection.

use std::io;

/// The client's fault, ours, or the clock's.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The handshake was not done by its deadline.
    #[error("the TLS handshake took too long")]
    Timeout,
    /// The client let its handshake lie while others waited for one.
    #[error("the client was silent during its TLS handshake while other clients waited")]
    Shed,
    /// The client went away before the handshake was done.
    #[error("the client went away during the TLS handshake")]
    Gone,
    /// The first byte began no TLS record; the client was sent an answer in plain text.
    #[error("the client spoke plain text on a TLS port (first bytes \"{}\")", began.escape_ascii())]
    NotTls {
        /// What it began with: so much of it as came at once, 16 bytes at most.
        began: Box<[u8]>,
    },
    /// No certificate answers for the name, and there is no default.
    #[error("no certificate for {}", server_name.as_deref().unwrap_or("a client without SNI"))]
    NoCertificate {
        /// What the client asked for.
        server_name: Option<Box<str>>,
    },
    /// It was an authority's, which has validated a name by it (RFC 8737 §3): there is nothing more to be said.
    #[error("an authority has validated {server_name} (tls-alpn-01)")]
    Challenge {
        /// The name.
        server_name: Box<str>,
    },
    /// The two have no application protocol in common (RFC 7301 §3.2).
    #[error("no application protocol in common (ALPN)")]
    NoApplicationProtocol,
    /// The client has to show a certificate, and has none.
    #[error("the client showed no certificate, which {} asks for", server_name.as_deref().unwrap_or("the default name"))]
    NoClientCertificate {
        /// What the client asked for.
        server_name: Option<Box<str>>,
    },
    /// The client's certificate is not one that the name trusts.
    #[error("the client's certificate was refused: {0}")]
    ClientCertificate(rustls::Error),
    /// The client doesn't accept the certificate: it doesn't trust the issuer, or it looks for another name. It says so by
    /// this alert.
    #[error("the client does not accept the certificate (alert {0:?})")]
    Distrusted(rustls::AlertDescription),
    /// The client broke TLS, or the two have nothing else in common.
    #[error("TLS handshake failed: {0}")]
    Tls(rustls::Error),
    /// The network failed.
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(io::Error),
}

impl AcceptError {
    pub(crate) fn of_io(e: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match e.kind() {
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe => Self::Gone,
            _ => Self::Io(e),
        }
    }

    pub(crate) fn of_tls(e: rustls::Error) -> Self {
        match e {
            rustls::Error::NoApplicationProtocol => Self::NoApplicationProtocol,
            rustls::Error::NoCertificatesPresented => Self::NoClientCertificate { server_name: None },
            rustls::Error::AlertReceived(alert) if is_distrust(alert) => Self::Distrusted(alert),
            e @ rustls::Error::InvalidCertificate(_) => Self::ClientCertificate(e),
            e => Self::Tls(e),
        }
    }
}

/// What clients say of a certificate that they don't accept (RFC 8446 §6.2).
fn is_distrust(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
    )
}

//! Why there is no TLS connection to a server.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error};

use crate::material::FileError;

/// Why no server could be reached with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// A file is of no use.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: FileError,
    },
    /// A file of authorities has none.
    #[error("{}: there is no certificate of an authority in it", path.display())]
    NoAuthority {
        /// Which.
        path: PathBuf,
    },
    /// A file has no certificate.
    #[error("{}: there is no certificate in it", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// A file has no key.
    #[error("{}: there is no private key in it", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// The two don't belong together.
    #[error("the key in {} is not the one of the certificate in {}", key.display(), chain.display())]
    OtherKey {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// The system trusts no authority, or its files can't be read.
    #[error(
        "there are no certificates of authorities on this system ({0}); install them (Debian: ca-certificates), or \
         name a file with ca"
    )]
    System(Error),
    /// The cryptographic library can't do what is asked of it.
    #[error("TLS can't be set up: {0}")]
    Tls(Error),
}

/// Why a connection did not become a TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificate is for other names.
    #[error("the server's certificate is for {}, and not for {expected}", Names(presented))]
    Name {
        /// The name that was asked for.
        expected: Box<str>,
        /// The names that are in it.
        presented: Vec<String>,
    },
    /// The certificate is not valid here.
    #[error("the server's certificate for {name} is not valid: {why}{}", hint(why))]
    Certificate {
        /// The name that was asked for.
        name: Box<str>,
        /// What is wrong with it.
        why: CertificateError,
    },
    /// The server gave up.
    #[error("the server ended the TLS handshake (alert {0:?})")]
    Alert(AlertDescription),
    /// The server doesn't choose the protocol that it is offered by ALPN.
    #[error("the server doesn't choose {wanted:?} by ALPN")]
    Protocol {
        /// As ALPN calls it.
        wanted: &'static str,
    },
    /// The server broke TLS, or the two have nothing in common.
    #[error("the TLS handshake with the server failed: {0}")]
    Tls(Error),
    /// The server speaks something else.
    #[error("the server doesn't speak TLS on this port (first bytes \"{}\")", began.escape_ascii())]
    NotTls {
        /// What it began with.
        began: Box<[u8]>,
    },
    /// The server closed the connection.
    #[error("the server closed the connection during the TLS handshake")]
    Gone,
    /// The network failed.
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(#[from] io::Error),
}

impl From<Error> for ConnectError {
    fn from(e: Error) -> Self {
        match e {
            Error::AlertReceived(alert) => Self::Alert(alert),
            e => Self::Tls(e),
        }
    }
}

impl ConnectError {
    /// What rustls says of a connection to `name`.
    pub(super) fn of_tls(e: Error, name: &str) -> Self {
        match e {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
                Self::Name { expected: name.into(), presented }
            }
            Error::InvalidCertificate(why) => Self::Certificate { name: name.into(), why },
            e => e.into(),
        }
    }
}

/// What to do about it.
fn hint(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::UnknownIssuer => "; name the file of the authority that issued it with ca",
        _ => "",
    }
}

/// Names as rustls has them, such as `DnsName("a.test")`, for people.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 4;
        if self.0.is_empty() {
            return f.write_str("no name");
        }
        for (i, name) in self.0.iter().take(SHOWN_MAX).enumerate() {
            let bare = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
            let bare = bare.trim_matches('"');
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, bare.escape_debug())?;
        }
        if self.0.len() > SHOWN_MAX { write!(f, " and {} more", self.0.len() - SHOWN_MAX) } else { Ok(()) }
    }
}

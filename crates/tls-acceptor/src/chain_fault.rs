//! What is wrong with a chain.

use std::fmt;

/// Something about a chain that clients may stumble over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// Nothing but the leaf is there, and it is not its own issuer.
    NoIssuer {
        /// Its name.
        issuer: String,
    },
    /// Certificates of the file that belong to other chains.
    Stray {
        /// Whose the first is.
        name: String,
        /// How many more there are.
        more: usize,
    },
    /// An issuer that is sent and is not valid any more.
    Expired {
        /// Whose it is.
        name: String,
    },
    /// An issuer that is sent and is not valid yet.
    NotYetValid {
        /// Whose it is.
        name: String,
    },
    /// An issuer that is sent and signed with an algorithm that isn't trusted any more.
    WeakSignature {
        /// Whose it is.
        name: String,
        /// Such as SHA-1.
        algorithm: &'static str,
    },
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIssuer { issuer } => write!(
                f,
                "the certificate of its issuer {issuer} is missing, so clients that don't have it refuse the connection; add it after the certificate in the file (the \"full chain\")"
            ),
            Self::Stray { name, more } => {
                write!(f, "the certificate of {name} in the file")?;
                if *more > 0 {
                    write!(f, ", and {more} more,")?;
                }
                f.write_str(" is not part of the chain and is not sent; remove it")
            }
            Self::Expired { name } => {
                write!(f, "the certificate of its issuer {name} HAS EXPIRED; get the new one from the issuer")
            }
            Self::NotYetValid { name } => {
                write!(f, "the certificate of its issuer {name} IS NOT VALID YET")
            }
            Self::WeakSignature { name, algorithm } => write!(
                f,
                "the certificate of its issuer {name} is signed with {algorithm}, which clients refuse; get the new one from the issuer"
            ),
        }
    }
}

//! `wssgate trust`: this machine trusts its development certificate, and `--remove` takes that back.
//!
//! The certificate of the authority lies beside the development certificate, so that it can be taken out of the stores
//! again. Its key never leaves this process, and ends with it: no other certificate can be signed.

mod authority;
mod stores;

use std::fmt::Write;
use std::fs;
use std::io;

use self::authority::Authority;
use self::stores::{Done, Stores};
use crate::quick::certificate::{CertificateError, DevelopmentCertificate};

/// Makes an authority if there is none that is still good, and adds it to the stores; blocks. Returns what a person is
/// told, and whether a store trusts it now.
///
/// # Errors
/// If the certificates can't be made or stored.
pub fn trust() -> Result<(String, bool), CertificateError> {
    let certificate = DevelopmentCertificate::find()?;
    let mut text = String::new();
    let authority = match Authority::read(&certificate) {
        Some(authority) if certificate.has_authority() && certificate.is_good() => authority,
        old => {
            if let Some(old) = old {
                // It has expired, or its certificate has gone.
                report(&mut text, &Stores::of_this_machine().remove(&old));
            }
            let authority = Authority::sign(&certificate)?;
            let _ = writeln!(
                text,
                "made {:?}, which may vouch for localhost and loopback addresses alone, and signed\n  {}\n\
                 with it; its key is thrown away",
                authority.name,
                certificate.chain().display()
            );
            authority
        }
    };
    let done = Stores::of_this_machine().add(&authority);
    report(&mut text, &done);
    let is_trusted = done.iter().any(|done| matches!(done, Done::Changed(_)));
    if is_trusted {
        text.push_str("restart browsers that are open\n");
    }
    Ok((text, is_trusted))
}

/// Takes the authority out of the stores, and its certificate away; blocks. Returns what a person is told, and whether
/// no store trusts it any more.
///
/// # Errors
/// If files can't be changed.
pub fn distrust() -> Result<(String, bool), CertificateError> {
    let certificate = DevelopmentCertificate::find()?;
    let Some(authority) = Authority::read(&certificate) else {
        let file = certificate.authority();
        return Ok((format!("there is no authority of this machine's ({})\n", file.display()), true));
    };
    let done = Stores::of_this_machine().remove(&authority);
    let mut text = String::new();
    report(&mut text, &done);
    let is_everywhere = !done.iter().any(|done| matches!(done, Done::Failed(_)));
    // While a store still has it, the file says what to look for there.
    if is_everywhere {
        match fs::remove_file(&authority.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CertificateError::Io { directory: certificate.directory, error });
            }
            _ => certificate.make()?,
        }
        let _ = writeln!(
            text,
            "{:?} is trusted no more, and the development certificate is a new one",
            authority.name
        );
    }
    Ok((text, is_everywhere))
}

fn report(text: &mut String, done: &[Done]) {
    for done in done {
        let _ = writeln!(text, "{done}");
    }
}

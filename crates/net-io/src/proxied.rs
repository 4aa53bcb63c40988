//! The header of the PROXY protocol in front of a connection, read off its socket.

use std::io::{self, ErrorKind};

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::proxy_protocol::{Header, HeaderFault, HeaderReader};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum NoHeader {
    /// The balancer has hung up.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It sends something else.
    #[error("{0}")]
    Fault(#[from] HeaderFault),
}

/// Takes the header off the connection, and not a byte of what follows.
///
/// # Errors
/// If there is none.
///
/// # Cancel safety
/// A dropped call leaves the connection in the middle of its header: it can only be closed.
pub async fn read_header(tcp: &TcpStream) -> Result<Header, NoHeader> {
    let mut reader = HeaderReader::default();
    let mut buffer = [0; 512];
    loop {
        tcp.readable().await?;
        let seen = match tcp.try_io(Interest::READABLE, || Ok(recv(tcp, &mut buffer, RecvFlags::PEEK)?.0)) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(seen) => seen,
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e.into()),
        };
        let (mut taken, header) = reader.feed(&buffer[..seen])?;
        while taken > 0 {
            taken -= tcp.try_read(&mut buffer[..taken])?; // they are there
        }
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

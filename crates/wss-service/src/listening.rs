//! Sockets that connections are accepted on.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait in the system's queue until they are accepted: when a server starts again, all clients come at
/// once. The system has a bound of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Listens at the first of these addresses that can be had.
///
/// # Errors
/// Of the last one, with the address and what to do.
pub(crate) fn listen(addresses: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let addresses = addresses.to_socket_addrs().map_err(|e| {
        let text = format!("no address to listen at: {e} (an address is HOST:PORT, such as 0.0.0.0:8282)");
        io::Error::new(e.kind(), text)
    })?;
    let mut failed =
        io::Error::new(io::ErrorKind::InvalidInput, "no address to listen at: the name has none");
    for address in addresses {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            Err(e) => {
                failed = io::Error::new(e.kind(), format!("can't listen at {address}: {e}{}", advice(&e)));
            }
        }
    }
    Err(failed)
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections of the process before may linger
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn advice(e: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match e.kind() {
        Kind::AddrInUse => "; another program listens there already, `ss -ltnp` shows which one",
        Kind::AddrNotAvailable => {
            "; no interface of this machine has the address, `ip address` shows which there are"
        }
        Kind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE or root",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: impl ToSocketAddrs, parts: &[&str]) {
        let said = listen(address).unwrap_err().to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }

    #[test]
    fn an_address_that_can_not_be_had_is_named_with_what_to_do() {
        let taken = listen("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        check(address, &[&address.to_string(), "ss -ltnp"]);
        check("192.0.2.1:0", &["192.0.2.1:0", "ip address"]);
        check("8282", &["HOST:PORT"]);
    }

    #[test]
    fn the_next_address_is_tried() {
        let taken = listen("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addresses = [SocketAddr::from(([192, 0, 2, 1], 0)), SocketAddr::from(([127, 0, 0, 1], 0))];
        assert_ne!(listen(&addresses[..]).unwrap().local_addr().unwrap(), taken);
    }
}

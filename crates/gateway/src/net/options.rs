//! Socket options, in one place.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::net::listening::ListenAddress;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// Unsent bytes that the kernel takes for one client. What waits for a slow client waits where the
/// gateway sees it, or a ping would be stuck behind megabytes while its clock runs.
const NOT_SENT_MAX: u32 = 128 * 1024;

/// No delay for small messages, and probes for peers whose machine or network is gone. Options
/// that can't be set are not worth a connection.
pub(crate) fn tune(tcp: &SockRef<'_>) {
    let _ = tcp.set_tcp_nodelay(true);
    probe(tcp);
}

/// The same for a socket that is about to be connected to `peer`: one on this machine can't vanish
/// without a word. The acknowledgement that ends TCP's handshake goes with the request, which is ready.
pub(crate) fn tune_towards(tcp: &SockRef<'_>, peer: IpAddr) {
    let _ = tcp.set_tcp_nodelay(true);
    let _ = tcp.set_tcp_quickack(false);
    if !peer.is_loopback() {
        probe(tcp);
    }
}

/// Makes a connection come from `source`. Its port is chosen when it is connected, so that two connections to two servers
/// may have the same (ip(7), `IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// `AddrNotAvailable`: this machine has no such address.
pub(crate) fn bind_source(tcp: &impl AsFd, source: IpAddr) -> io::Result<()> {
    nix::sys::socket::setsockopt(tcp, IpBindAddressNoPort, &true)?;
    SockRef::from(tcp).bind(&SocketAddr::new(source, 0).into())
}

/// This machine has this address now.
#[must_use]
pub(crate) fn is_local(address: IpAddr) -> bool {
    let bound = open(SocketAddr::new(address, 0), false);
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn probe(tcp: &SockRef<'_>) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    let _ = tcp.set_tcp_keepalive(&probes);
}

/// Sends the acknowledgement that [`tune_towards`] holds back: this server speaks first, and nothing goes with it.
pub(crate) fn acknowledge(tcp: &impl AsFd) {
    let _ = SockRef::from(tcp).set_tcp_quickack(true);
}

/// Makes the coming close a reset: for a peer that has to see that something was cut off.
pub(crate) fn reset_on_close(tcp: &impl AsFd) {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// Two listeners can't have these addresses: they are the same, or one is all of the machine's and
/// the other is one of them.
#[must_use]
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let all = a.ip().is_unspecified() || b.ip().is_unspecified();
    a == b || (all && a.is_ipv4() == b.is_ipv4() && a.port() == b.port() && a.port() != 0)
}

/// Listens on `address`, `workers` times: the kernel spreads connections over the sockets.
///
/// # Errors
/// Also if another process listens there already, even if it would share the port.
pub(crate) fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    // Two gateways that share a port silently would each lose half of the connections. So the
    // port has to be had alone once.
    let probe = open(address, false)?;
    probe.listen(1)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    join(address, workers)
}

/// Why `address` can't be listened on now, if it can't; sockets of this user's that share the port are no
/// obstacle. It doesn't listen.
#[must_use]
pub(crate) fn try_bind(address: SocketAddr) -> Option<io::Error> {
    open(address, true).err()
}

/// Listens on `address`, `more` times, beside sockets of this user's that share the port already.
///
/// # Errors
/// What the system says.
pub(crate) fn join(address: SocketAddr, more: usize) -> io::Result<Vec<StdListener>> {
    (0..more)
        .map(|_| {
            let socket = open(address, true)?;
            prepare(&SockRef::from(&socket));
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Where a listening socket listens.
///
/// # Errors
/// If it is a Unix socket without a path, or with one that is no text.
pub(crate) fn local(socket: &impl AsFd) -> io::Result<ListenAddress> {
    let address = SockRef::from(socket).local_addr()?;
    let unix = || Some(ListenAddress::Unix(address.as_pathname()?.to_str()?.into()));
    let local = address.as_socket().map(ListenAddress::Ip).or_else(unix);
    local.ok_or_else(|| io::Error::other("the socket has no address"))
}

/// Sets the options of a listening socket that another process has opened as on one of our own.
///
/// # Errors
/// What the system says.
pub(crate) fn adopt(listener: &StdListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    prepare(&SockRef::from(listener));
    Ok(())
}

/// Accepted connections inherit all this.
fn prepare(listener: &SockRef<'_>) {
    tune(listener);
    let _ = listener.set_tcp_notsent_lowat(NOT_SENT_MAX);
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a gateway that ended a moment ago are no obstacle.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two listeners, whatever the system's default is.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_collide() {
        for (a, b, expect) in [
            ("127.0.0.1:443", "127.0.0.1:443", true),
            ("127.0.0.1:443", "127.0.0.2:443", false),
            ("127.0.0.1:443", "127.0.0.1:444", false),
            ("0.0.0.0:443", "127.0.0.1:443", true),
            ("0.0.0.0:443", "127.0.0.1:444", false),
            ("[::]:443", "[::1]:443", true),
            ("[::]:443", "0.0.0.0:443", false),
            ("[::]:443", "127.0.0.1:443", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
            ("127.0.0.1:0", "127.0.0.1:0", true),
        ] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((collide(a, b), collide(b, a)), (expect, expect), "{a} {b}");
        }
    }

    #[test]
    fn a_port_is_had_alone_and_then_shared() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listeners = listen(any.parse().unwrap(), 3).unwrap();
            let address = listeners[0].local_addr().unwrap();
            assert!(listeners.iter().all(|l| l.local_addr().unwrap() == address));
            assert_eq!(listen(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(listeners);
            listen(address, 1).unwrap();
        }
    }

    #[test]
    fn accepted_connections_are_tuned() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        let tcp = SockRef::from(&tcp);
        assert!(tcp.tcp_nodelay().unwrap() && tcp.keepalive().unwrap());
        assert_eq!(tcp.tcp_notsent_lowat().unwrap(), NOT_SENT_MAX);
    }

    #[test]
    fn a_source_address_takes_no_port_before_it_is_connected() {
        for (domain, source) in [(Domain::IPV4, "127.0.0.2"), (Domain::IPV6, "::1")] {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
            let source = source.parse().unwrap();
            bind_source(&socket, source).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap(), (source, 0).into());
            assert!(is_local(source));
        }
        assert!(!is_local("198.51.100.77".parse().unwrap()));
    }
}

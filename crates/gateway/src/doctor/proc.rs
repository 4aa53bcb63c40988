//! What the kernel says in `/proc`. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::facts::Towards;

/// The state of a socket that listens.
const LISTEN: u8 = 0x0A;

/// A TCP socket of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TcpSocket {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) is_listening: bool,
    /// Of one that listens: connections that wait to be accepted.
    pub(super) waiting: u64,
    pub(super) inode: u64,
}

/// Those of `/proc/net/tcp` or `/proc/net/tcp6`.
pub(super) fn tcp_sockets(text: &str) -> impl Iterator<Item = TcpSocket> {
    text.lines().skip(1).filter_map(tcp_socket)
}

fn tcp_socket(line: &str) -> Option<TcpSocket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, queues, _, _, _, _, inode, ..] = fields[..] else { return None };
    let is_listening = u8::from_str_radix(state, 16).ok()? == LISTEN;
    let waiting = u64::from_str_radix(queues.split_once(':')?.1, 16).ok()?;
    let (local, remote) = (address(local)?, address(remote)?);
    Some(TcpSocket { local, remote, is_listening, waiting, inode: inode.parse().ok()? })
}

/// `0100007F:1F90`: words as the machine has them in memory.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = if ip.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        let octets: Vec<u8> = words.concat();
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// How many connections lead from each address of the machine to each server, the most first. Those that clients have
/// opened are left out: their local ports are listened on.
pub(super) fn towards(sockets: &[TcpSocket]) -> Vec<Towards> {
    let listened: Vec<u16> =
        sockets.iter().filter(|socket| socket.is_listening).map(|socket| socket.local.port()).collect();
    let mut counts = HashMap::<_, usize>::new();
    for socket in sockets {
        if !socket.is_listening && !listened.contains(&socket.local.port()) {
            *counts.entry((socket.local.ip(), socket.remote)).or_default() += 1;
        }
    }
    let all = counts.into_iter().map(|((from, server), count)| Towards { from, server, count });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|one| (std::cmp::Reverse(one.count), one.server));
    all
}

/// `ListenOverflows` and `ListenDrops` of `/proc/net/netstat`: the larger one, as a drop may count as both.
pub(super) fn overflows(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let pairs: HashMap<&str, &str> = names.split_whitespace().zip(values.split_whitespace()).collect();
    let value = |name: &str| pairs.get(name)?.parse::<u64>().ok();
    value("ListenOverflows").max(value("ListenDrops"))
}

/// The soft limit of `/proc/PID/limits` on open files.
pub(super) fn open_files(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line["Max open files".len()..].split_whitespace().next()?.parse().ok()
}

/// Two numbers with white space between them.
pub(super) fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

/// Some interface of `/proc/net/if_inet6` has an address of global scope.
pub(super) fn has_global_ipv6(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().nth(3) == Some("00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000007 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:C001 0200007F:20A5 01 00000000:00000000 02:000A7D3B 00000000     0        0 4712 2 0000000000000000 20 4 30 10 -1
   2: 0100007F:C002 0200007F:20A5 06 00000000:00000000 03:00000E10 00000000     0        0 0 3 0000000000000000
   3: 0100007F:1F90 0900007F:D001 01 00000000:00000000 02:000A7D3B 00000000     0        0 4713 2 0000000000000000 20 4 30 10 -1
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:C003 0000000000000000FFFF00000200007F:20A5 01 00000000:00000000 00:00000000 00000000     0        0 98 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn sockets() {
        let sockets: Vec<_> = tcp_sockets(TCP).chain(tcp_sockets(TCP6)).collect();
        assert_eq!(sockets.len(), 6);
        let first = &sockets[0];
        assert_eq!((first.local, first.is_listening), ("127.0.0.1:8080".parse().unwrap(), true));
        assert_eq!((first.waiting, first.inode), (7, 4711));
        assert_eq!(sockets[4].local, "[::]:443".parse().unwrap());
        let server = "127.0.0.2:8357".parse().unwrap();
        let from = Ipv4Addr::LOCALHOST.into();
        // Of both tables; the client's connection is not one of them.
        assert_eq!(towards(&sockets), [Towards { from, server, count: 3 }]);
        assert_eq!(tcp_sockets("head\nnonsense\n 1: x y 0A 0:0 0 0 0 0 9\n").count(), 0);
    }

    #[test]
    fn counters_and_limits() {
        let netstat =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops X\nTcpExt: 5 12 13 9\nIpExt: A\nIpExt: 1\n";
        assert_eq!((overflows(netstat), overflows("TcpExt: A\n")), (Some(13), None));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!((open_files(limits), open_files("")), (Some(1024), None));
        assert_eq!((port_range("32768\t60999\n"), port_range("x")), (Some(32768..=60999), None));
        let local = "fe80000000000000000000fffe000001 02 40 20 80 eth0\n00000000000000000000000000000001 01 80 10 80 lo\n";
        assert!(!has_global_ipv6(local));
        assert!(has_global_ipv6(&format!("{local}20010db8000000000000000000000001 02 40 00 80 eth0\n")));
    }
}

//! Sets of addresses. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks, ready to be asked: a look-up costs the logarithm of their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// The first and the last address of each, sorted; none touches another.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// All addresses of `networks`.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
            match (network.network().to_canonical(), network.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits())),
                _ => {} // a network has both its ends in one family
            }
        }
        Self { v4: merged(v4, u32::saturating_add), v6: merged(v6, u128::saturating_add) }
    }

    /// The address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_in(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_in(&self.v6, address.to_bits()),
        }
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn merged<T: Ord + Copy + From<u8>>(mut ranges: Vec<(T, T)>, add: fn(T, T) -> T) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= add(*end, T::from(1)) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn networks(all: &[&str]) -> Networks {
        Networks::new(&all.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_in_and_beside_networks() {
        let all = networks(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "11.0.0.0/8",
            "192.0.2.1/32",
            "2001:db8::/32",
            "::ffff:172.16.0.0/108",
        ]);
        assert_eq!(all.v4.len(), 3, "neighbours are one: {all:?}");
        for (address, expect) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("11.255.255.255", true),
            ("12.0.0.0", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:192.0.2.1", true),
            ("172.31.0.1", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ] {
            assert_eq!(all.contains(address.parse().unwrap()), expect, "{address}");
        }
        assert!(networks(&[]).is_empty() && !networks(&[]).contains(Ipv4Addr::LOCALHOST.into()));
        let whole = networks(&["0.0.0.0/0", "::/0"]);
        assert!(whole.contains(Ipv4Addr::BROADCAST.into()) && whole.contains(Ipv6Addr::LOCALHOST.into()));
    }

    proptest! {
        #[test]
        fn the_set_says_what_each_network_says(
            all in proptest::collection::vec((any::<[u8; 4]>(), 0_u8..=32), 0..8),
            address: [u8; 4],
            near in any::<proptest::sample::Index>(),
            step in -1_i64..=1,
        ) {
            let all: Vec<IpNet> = all.into_iter().map(|(ip, len)| IpNet::new(ip.into(), len).unwrap().trunc()).collect();
            let mut address = Ipv4Addr::from(address);
            if !all.is_empty() && let IpAddr::V4(end) = all[near.index(all.len())].broadcast() {
                address = Ipv4Addr::from(u32::try_from((i64::from(u32::from(end)) + step).rem_euclid(1 << 32)).unwrap());
            }
            let expect = all.iter().any(|network| network.contains(&IpAddr::from(address)));
            prop_assert_eq!(Networks::new(&all).contains(address.into()), expect);
        }
    }
}

//! What is known of names, on its way to another process: their last addresses, since the DNS may not answer there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};
use zeroize::Zeroizing;

use super::{KnownName, Last, Names};
use crate::site::names::{Found, Question, Resolve, Service};

/// What this release knows of a name that comes from another process. Raised with each field that is added.
const VERSION: u8 = 1;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;
/// What a piece begins with. A release that knows no such pieces takes it for the key of an upstream that it doesn't have.
const MARK: &[u8] = b"\nname";
/// Addresses in one piece, so that it fits into a packet, with the longest names. The others are looked up.
const ADDRESSES_MAX: usize = 300;

impl Names {
    /// Writes what was found, for another process: a piece for each name.
    #[must_use]
    pub fn leave(&self, now: Duration) -> Vec<Zeroizing<Vec<u8>>> {
        self.all().iter().filter_map(|name| name.leave(now)).collect()
    }

    /// Knows what [`Self::leave`] wrote, if `is_wanted` says that the name is looked up here. Pieces of something else are
    /// passed over.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(crate) fn arrive(
        &self,
        piece: &[u8],
        is_wanted: impl Fn(&Question) -> bool,
        now: Duration,
    ) -> Result<(), StateError> {
        let mut fields = StateReader::new(piece, u8::MAX)?; // of something else, perhaps
        if fields.bytes()? != MARK {
            return Ok(());
        }
        let mut fields = StateReader::new(piece, VERSION)?;
        fields.bytes()?;
        let name = fields.text()?;
        let resolve = match fields.u8()? {
            0 => Resolve::Host,
            1 => Resolve::Once,
            2 => Resolve::Srv,
            _ => return Err(StateError::Invalid("a kind of name")),
        };
        let question = Question::new(name, resolve);
        let age = fields.duration()?;
        let found = if resolve == Resolve::Srv {
            Found::services(list(&mut fields, service)?)
        } else {
            Found::addresses(list(&mut fields, ip)?)
        };
        if is_wanted(&question) && !found.is_empty() {
            self.add(&question).0.knows(found, now.saturating_sub(age));
        }
        Ok(())
    }
}

impl KnownName {
    fn leave(&self, now: Duration) -> Option<Zeroizing<Vec<u8>>> {
        let (found, resolved) = (self.found()?, self.last().resolved?);
        let mut out = StateWriter::new(NEEDS);
        out.bytes(MARK);
        out.bytes(self.question.name.as_bytes());
        out.u8(match self.question.resolve {
            Resolve::Host | Resolve::Dns => 0,
            Resolve::Once => 1,
            Resolve::Srv => 2,
        });
        out.duration(now.saturating_sub(resolved));
        match &*found {
            Found::Addresses(addresses) => {
                let few = &addresses[..addresses.len().min(ADDRESSES_MAX)];
                write_list(&mut out, few, |out, ip| write_ip(out, *ip));
            }
            Found::Services(services) => {
                let mut left = ADDRESSES_MAX;
                let few: Vec<_> = services
                    .iter()
                    .take_while(|service| {
                        let is_room = service.addresses.len() <= left;
                        left = left.saturating_sub(service.addresses.len());
                        is_room
                    })
                    .collect();
                write_list(&mut out, &few, |out, service| write_service(out, service));
            }
        }
        Some(out.finish())
    }

    /// This was found in another process.
    fn knows(&self, found: Found, resolved: Duration) {
        let (resolved, problem) = (Some(resolved), None);
        *self.lock() = Last { resolved, ended: resolved, problem, failures: 0 };
        self.found.store(Some(Arc::new(found)));
    }
}

fn write_list<T>(out: &mut StateWriter, list: &[T], write: impl Fn(&mut StateWriter, &T)) {
    out.u32(u32::try_from(list.len()).unwrap_or(0)); // a few
    for one in list {
        write(out, one);
    }
}

fn list<'a, T>(
    fields: &mut StateReader<'a>,
    read: impl Fn(&mut StateReader<'a>) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    (0..fields.u32()?).map(|_| read(fields)).collect()
}

fn write_ip(out: &mut StateWriter, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => out.bytes(&ip.octets()),
        IpAddr::V6(ip) => out.bytes(&ip.octets()),
    }
}

fn ip(fields: &mut StateReader<'_>) -> Result<IpAddr, StateError> {
    let bytes = fields.bytes()?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| StateError::Invalid("an address"))
}

fn write_service(out: &mut StateWriter, service: &Service) {
    let Service { priority, host, port, weight, addresses } = service;
    out.section(|out| {
        out.u16(*priority);
        out.bytes(host.as_bytes());
        out.u16(*port);
        out.u16(*weight);
        write_list(out, addresses, |out, ip| write_ip(out, *ip));
    });
}

fn service(fields: &mut StateReader<'_>) -> Result<Service, StateError> {
    let mut fields = fields.section()?;
    Ok(Service {
        priority: fields.u16()?,
        host: fields.text()?.into(),
        port: fields.u16()?,
        weight: fields.u16()?,
        addresses: list(&mut fields, ip)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::known_name::Change;
    use crate::site::names::Unresolved;

    const SECOND: Duration = Duration::from_secs(1);

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn what_was_found_is_known_under_another_clock() {
        let old = Names::default();
        let service = |host: &str, port| Service {
            priority: 1,
            host: host.into(),
            port,
            weight: 5,
            addresses: ips(&["10.0.0.1", "::1"]),
        };
        for (name, resolve, found) in [
            ("app", Resolve::Host, Found::addresses(ips(&["10.0.0.1", "fd00::1"]))),
            ("once", Resolve::Once, Found::addresses(ips(&["10.0.0.1"]))),
            ("_chat._tcp", Resolve::Srv, Found::services(vec![service("a", 1), service("b", 2)])),
            ("gone", Resolve::Host, Found::addresses(ips(&["10.0.0.1"]))),
        ] {
            old.add(&Question::new(name, resolve)).0.settle(Ok(found), SECOND * 1000);
        }
        old.add(&Question::new("unknown", Resolve::Host));
        let new = Names::default();
        let pieces = old.leave(SECOND * 1003);
        assert_eq!(pieces.len(), 4);
        for piece in &pieces {
            new.arrive(piece, |question| &*question.name != "gone", SECOND * 7).unwrap();
            for len in 0..piece.len() {
                assert!(Names::default().arrive(&piece[..len], |_| true, SECOND).is_err(), "{len}");
            }
        }
        assert_eq!(new.all().len(), 3);
        for name in new.all() {
            assert_eq!(name.found(), old.get(&name.question).unwrap().found());
            assert_eq!(name.last().resolved, Some(SECOND * 4));
        }
        // The first look-up is compared with it, and its failure is told.
        let app = new.get(&Question::new("app", Resolve::Host)).unwrap();
        let failed = Unresolved { why: "no answer".to_owned(), for_time: None, is_certain: false };
        assert_eq!(app.settle(Err(&failed), SECOND * 8), Change::Lost);
        assert_eq!(app.addresses("app", 80).len(), 2);
        assert_eq!(app.settle(Ok(Found::addresses(ips(&["10.0.0.9"]))), SECOND * 9), Change::Found);
        assert_eq!(app.losses(), 1);
    }

    #[test]
    fn as_much_as_fits_into_a_packet_is_handed_on() {
        let names = Names::default();
        let many = (0..1000).map(|n: u32| IpAddr::from(n.to_be_bytes())).collect();
        let (name, _) = names.add(&Question::new("app", Resolve::Host));
        name.settle(Ok(Found::addresses(many)), SECOND);
        let new = Names::default();
        new.arrive(&names.leave(SECOND)[0], |_| true, SECOND).unwrap();
        assert_eq!(new.all()[0].addresses("app", 80).len(), ADDRESSES_MAX);
        // What is of something else is passed over.
        let mut out = StateWriter::new(1);
        out.bytes(b"10.0.0.1:80");
        Names::default().arrive(&out.finish(), |_| panic!("it is no name"), SECOND).unwrap();
    }
}

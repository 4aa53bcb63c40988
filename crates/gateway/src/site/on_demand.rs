//! Names that get a certificate when a client asks for them: which these are, and how the demand of a handshake comes to
//! the task that orders.

use std::collections::HashSet;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use tls_acceptor::{CertName, DemandFuture, Demanded, OrderOnDemand};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Handshakes that wait for a certificate at a time. Further clients are refused.
const WAITING_MAX: usize = 256;

/// Longer names are none that are ordered: they, and what is written before and behind them, have to fit into the name of a
/// file (255 bytes).
const NAME_LEN_MAX: usize = 240;

/// The names that may be ordered on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedNames {
    /// `None`: every name.
    list: Option<Arc<HashSet<CertName>>>,
}

impl AllowedNames {
    /// Those of a list, or all.
    #[must_use]
    pub fn new(list: Option<Vec<CertName>>) -> Self {
        Self { list: list.map(|names| Arc::new(names.into_iter().collect())) }
    }

    /// Whether the list has `name`, which is in lower case. No list has what no authority issues certificates for:
    /// addresses, and names without a dot.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let Some((_, parent)) = name.split_once('.').filter(|_| is_host_name(name)) else { return false };
        self.list.as_ref().is_none_or(|list| {
            list.contains(&CertName::Exact(name.into())) || list.contains(&CertName::Wildcard(parent.into()))
        })
    }

    /// The names, in order; `None`: every name.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&CertName>> {
        let mut names: Vec<_> = self.list.as_ref()?.iter().collect();
        names.sort_unstable();
        Some(names)
    }
}

/// A name of the DNS that a host may have (RFC 1123 §2.1), which is also the name of a file and a value of a query.
fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    name.len() <= NAME_LEN_MAX
        && name.bytes().all(is_plain)
        && CertName::parse(name).is_some()
        && name.parse::<IpAddr>().is_err()
}

/// A client waits for the certificate of a name.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) name: Box<str>,
    pub(crate) answer: oneshot::Sender<Demanded>,
}

/// Where handshakes put their demands.
#[derive(Debug)]
pub(crate) struct OnDemand {
    allowed: AllowedNames,
    demands: mpsc::Sender<Demand>,
    waiting: Arc<Semaphore>,
}

impl OnDemand {
    /// The demands for these names come out of the receiver. Without it, all clients are refused that ask for one of them.
    pub(crate) fn new(allowed: AllowedNames) -> (Self, mpsc::Receiver<Demand>) {
        let (demands, receiver) = mpsc::channel(WAITING_MAX);
        (Self { allowed, demands, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }, receiver)
    }
}

impl OrderOnDemand for OnDemand {
    fn demand(&self, name: &str) -> DemandFuture {
        if !self.allowed.allows(name) {
            return Box::pin(ready(Demanded::Unknown));
        }
        let (answer, answered) = oneshot::channel();
        let place = self.waiting.clone().try_acquire_owned().ok();
        let is_sent = place.is_some() && self.demands.try_send(Demand { name: name.into(), answer }).is_ok();
        Box::pin(async move {
            let _place = place;
            if is_sent { answered.await.unwrap_or(Demanded::Refused) } else { Demanded::Refused }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_has_addresses_and_short_names() {
        let all = AllowedNames::new(None);
        let list = ["*.domain.test", "other.test"].map(|name| CertName::parse(name).unwrap());
        let some = AllowedNames::new(Some(list.to_vec()));
        let long = format!("{}.domain.test", "a".repeat(64));
        let longest = format!("{}test", "a.".repeat(118));
        assert_eq!(longest.len(), NAME_LEN_MAX);
        for (name, by_all, by_some) in [
            ("a.domain.test", true, true),
            ("other.test", true, true),
            ("domain.test", true, false),
            ("a.b.domain.test", true, false),
            ("localhost", false, false),
            ("192.0.2.1", false, false),
            ("::1", false, false),
            (".domain.test", false, false),
            ("*.domain.test", false, false),
            ("a_b.domain.test", false, false),
            ("../domain.test", false, false),
            (&long, false, false),
            (&longest, true, false),
            (&format!("a{longest}"), false, false),
            ("", false, false),
        ] {
            assert_eq!((all.allows(name), some.allows(name)), (by_all, by_some), "{name}");
        }
    }

    #[tokio::test]
    async fn clients_beyond_what_may_wait_are_refused() {
        let (on_demand, mut demands) = OnDemand::new(AllowedNames::new(None));
        assert_eq!(on_demand.demand("localhost").await, Demanded::Unknown);
        let waiting: Vec<_> = (0..WAITING_MAX).map(|n| on_demand.demand(&format!("a{n}.test"))).collect();
        assert_eq!(on_demand.demand("b.test").await, Demanded::Refused);
        let first = demands.recv().await.unwrap();
        assert_eq!(&*first.name, "a0.test");
        first.answer.send(Demanded::Issued).unwrap();
        let mut waiting = waiting.into_iter();
        assert_eq!(waiting.next().unwrap().await, Demanded::Issued);
        // Its place is free.
        let again = on_demand.demand("b.test");
        drop(demands);
        assert_eq!(again.await, Demanded::Refused, "nothing takes demands any more");
        for client in waiting {
            assert_eq!(client.await, Demanded::Refused);
        }
    }
}

//! One look-up of a name: in the hosts file, in the DNS, and if no server is configured, also where else the system looks.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::ResolverOpts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, Resolver};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::files::Files;
use super::runtime::Tokio;
use crate::site::names::{Found, Looked, Question, Resolve, Service, TTL_MAX, Unresolved, both};

/// One look-up takes no longer, whatever the servers do.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// For how long an answer counts that says nothing of it.
const SYSTEM_TTL: Duration = Duration::from_secs(30);
/// The targets of one answer whose addresses are looked up.
const TARGETS_MAX: usize = 64;

/// What is asked, with the files as they are.
pub(super) struct Source {
    dns: Resolver<Tokio>,
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
    /// The system may know names that the DNS doesn't (nsswitch.conf(5)).
    asks_system: bool,
}

type Answer = Result<(Found, Duration), Unresolved>;

fn unresolved(why: impl Into<String>) -> Unresolved {
    Unresolved { why: why.into(), for_time: None, is_certain: false }
}

impl Source {
    /// # Errors
    /// If hickory can't work with the files.
    pub(super) fn new(files: Files, asks_system: bool) -> Result<Self, NetError> {
        let Files { config, options, hosts, .. } = files;
        let ResolverOpts { ndots, .. } = options;
        let mut search = config.search().to_vec();
        if search.is_empty() {
            search.extend(config.domain().cloned());
        }
        let dns = Resolver::builder_with_config(config, Tokio).with_options(options).build()?;
        Ok(Self { dns, hosts, search, ndots, asks_system })
    }

    /// Looks a name up. `is_known`: there is an older answer, which is better than half of a new one.
    pub(super) async fn ask(&self, question: &Question, is_known: bool) -> Answer {
        self.dns.clear_cache(); // when to ask again is decided elsewhere, perhaps before the TTL has ended
        let looked = timeout(LOOKUP_TIMEOUT, async {
            if question.resolve == Resolve::Srv {
                return self.services(&question.name, is_known).await;
            }
            let (found, ttl) = self.addresses(&question.name, is_known).await?;
            Ok((Found::addresses(found), ttl))
        });
        looked.await.unwrap_or_else(|_| Err(unresolved(format!("no answer within {LOOKUP_TIMEOUT:?}"))))
    }

    async fn addresses(&self, name: &str, is_known: bool) -> Result<(Vec<IpAddr>, Duration), Unresolved> {
        let missing = match self.addresses_by_dns(name, is_known).await {
            Err(e) if self.asks_system => e,
            looked => return looked,
        };
        match lookup_host((name, 0)).await {
            Ok(found) => Ok((found.map(|address| address.ip()).collect(), SYSTEM_TTL)),
            Err(_) => Err(missing),
        }
    }

    async fn addresses_by_dns(
        &self,
        name: &str,
        is_known: bool,
    ) -> Result<(Vec<IpAddr>, Duration), Unresolved> {
        let candidates = self.candidates(name)?;
        // The file has the name as it is written. It counts for both families: the DNS is not asked for the other.
        let written = Name::from_utf8(name).map_err(|e| unresolved(e.to_string()))?;
        let in_file = |kind| self.hosts.lookup_static_host(&Query::query(written.clone(), kind));
        let in_file = [RecordType::AAAA, RecordType::A].map(in_file);
        if in_file.iter().any(Option::is_some) {
            let [v6, v4] = in_file.map(|lookup| lookup.map_or(Looked::None(None), |found| looked(Ok(found))));
            return both(v6, v4, is_known);
        }
        let mut unknown = None;
        let mut missing = None;
        for name in candidates {
            let (v6, v4) = tokio::join!(
                self.dns.lookup(name.clone(), RecordType::AAAA),
                self.dns.lookup(name, RecordType::A)
            );
            match both(looked(v6), looked(v4), is_known) {
                Err(e) if e.is_certain => missing = Some(e),
                Err(e) => unknown = Some(e),
                found => return found,
            }
        }
        // What isn't known of one of them may be the answer.
        Err(unknown.or(missing).unwrap_or_else(|| unresolved("it is no name")))
    }

    async fn services(&self, name: &str, is_known: bool) -> Answer {
        let mut result = Err(unresolved("it is no name"));
        for name in self.candidates(name)? {
            match self.dns.lookup(name, RecordType::SRV).await {
                Ok(lookup) => return self.targets(&lookup, is_known).await,
                Err(e) => result = Err(failed(&e, "the name has no SRV records")),
            }
        }
        result
    }

    async fn targets(&self, lookup: &Lookup, is_known: bool) -> Answer {
        let mut ttl = left(lookup);
        let mut services = Vec::new();
        let mut problem = None;
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            // "." means that there is no such service (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() => Some(srv),
            _ => None,
        });
        for srv in records.take(TARGETS_MAX) {
            let mut host = srv.target.clone();
            host.set_fqdn(true);
            match self.addresses(&host.to_ascii(), is_known).await {
                Ok((addresses, other)) => {
                    ttl = ttl.min(other);
                    services.push(Service {
                        priority: srv.priority,
                        host: host.to_ascii().trim_end_matches('.').to_ascii_lowercase().into(),
                        port: srv.port,
                        weight: srv.weight,
                        addresses,
                    });
                }
                // A target that has gone is left out; one that isn't known now may be there.
                Err(e) if e.is_certain || !is_known => problem = Some(e),
                Err(e) => return Err(Unresolved { why: format!("its target {host}: {}", e.why), ..e }),
            }
        }
        let found = Found::services(services);
        match (found.is_empty(), problem) {
            (false, _) => Ok((found, ttl)),
            (true, Some(e)) => Err(Unresolved { why: format!("its targets: {}", e.why), ..e }),
            (true, None) => Err(Unresolved {
                why: "the service is not available (RFC 2782: the target is \".\")".to_owned(),
                for_time: Some(ttl),
                is_certain: true,
            }),
        }
    }

    /// The names that are asked for one after the other (resolv.conf(5), `search` and `ndots`).
    fn candidates(&self, name: &str) -> Result<Vec<Name>, Unresolved> {
        let name = Name::from_utf8(name).map_err(|e| unresolved(e.to_string()))?;
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        let mut whole = name.clone();
        whole.set_fqdn(true);
        let is_first = usize::from(name.num_labels()) > self.ndots || name.is_localhost();
        let mut all: Vec<_> =
            self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        for name in &mut all {
            name.set_fqdn(true);
        }
        all.insert(if is_first { 0 } else { all.len() }, whole);
        Ok(all)
    }
}

fn left(lookup: &Lookup) -> Duration {
    lookup.valid_until().saturating_duration_since(Instant::now()).min(TTL_MAX)
}

fn looked(result: Result<Lookup, NetError>) -> Looked {
    match result {
        Ok(lookup) => {
            let found: Vec<_> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            let ttl = left(&lookup);
            if found.is_empty() { Looked::None(Some(ttl)) } else { Looked::Some(found, ttl) }
        }
        Err(e) => {
            let Unresolved { why, for_time, is_certain } = failed(&e, "");
            if is_certain { Looked::None(for_time) } else { Looked::Failed(why) }
        }
    }
}

/// What hickory's error means.
fn failed(error: &NetError, nothing: &str) -> Unresolved {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => Unresolved {
            why: nothing.to_owned(),
            for_time: none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())),
            is_certain: true,
        },
        NetError::Timeout => unresolved("the DNS servers do not answer"),
        e => unresolved(e.to_string()),
    }
}

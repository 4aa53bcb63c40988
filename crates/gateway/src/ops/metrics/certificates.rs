//! Certificates: until when, and those that the gateway orders by itself.

use std::fmt;

use net_io::unix_now;

use super::page::Page;
use crate::ops::acme::{AcmeInfo, AcmeOverview};
use crate::ops::overview::Overview;

pub(super) fn write(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let current = overview.certificates.current();
    let mut served: Vec<_> = current
        .loaded
        .set
        .names()
        .flat_map(|(name, entry)| {
            let name = name.to_string();
            entry.iter().map(move |c| (name.clone(), c.leaf.key_type.as_str(), c.leaf.not_after))
        })
        .collect();
    served.sort_unstable();
    let mut expiry = page.gauge(
        "wssgate_certificate_expiry_timestamp_seconds",
        "Unix time at which a served certificate expires",
    )?;
    for (name, key, not_after) in &served {
        expiry.sample(&[("name", name), ("key", key)], *not_after)?;
    }
    page.gauge(
        "wssgate_certificate_warnings",
        "Number of warnings about the certificates in use; the log and `wssgate check` list them",
    )?
    .sample(&[], current.loaded.warnings.len())?;
    acme(page, &overview.acme)
}

/// Certificates that the gateway orders by itself; each by its first name.
fn acme(page: &mut Page<'_>, overview: &AcmeOverview) -> fmt::Result {
    let certificates = overview.certificates();
    let demands = overview.demands();
    if certificates.is_empty() && demands.is_none() {
        return Ok(());
    }
    let (issued, failed) = overview.orders();
    let mut orders =
        page.counter("wssgate_acme_orders_total", "Orders of certificates by this process, by result")?;
    orders.sample(&[("result", "issued")], issued)?;
    orders.sample(&[("result", "failed")], failed)?;
    let mut family = |name, help, value: &dyn Fn(&AcmeInfo) -> Option<i64>| {
        let mut family = page.gauge(name, help)?;
        for info in certificates.iter().filter(|info| !info.on_demand) {
            if let (Some(name), Some(value)) = (info.names.first(), value(info)) {
                family.sample(&[("name", name)], value)?;
            }
        }
        Ok(())
    };
    family(
        "wssgate_acme_failures",
        "Orders of a certificate in a row that came to nothing, by its first name",
        &|info| Some(info.failures.into()),
    )?;
    family(
        "wssgate_acme_certificate_missing",
        "1 if a name that is ordered has no certificate that is valid now, by the first name",
        &|info| Some(i64::from(info.expires.is_none_or(|at| at <= unix_now()))),
    )?;
    family(
        "wssgate_acme_next_order_timestamp_seconds",
        "When a certificate is ordered next, by its first name",
        &|info| info.next_order,
    )?;
    let Some(demands) = demands else { return Ok(()) };
    let mut demanded = page.counter(
        "wssgate_acme_on_demand_total",
        "Names without a certificate that clients have asked for, by what came of it",
    )?;
    for (result, count) in demands {
        demanded.sample(&[("result", result.as_str())], count)?;
    }
    let mut names =
        page.gauge("wssgate_acme_on_demand_names", "Names that were ordered on demand, by state")?;
    for state in ["valid", "missing", "expired"] {
        let count = certificates.iter().filter(|info| info.on_demand && info.state == state).count();
        names.sample(&[("state", state)], count)?;
    }
    Ok(())
}

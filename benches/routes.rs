//! Which route serves a request, among few and many.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::site::host::HostPattern;
use gateway::site::matcher::{Criteria, Matcher};
use gateway::site::path::{RequestPath, RoutePath};
use gateway::site::route::{Action, Route, Service};
use gateway::site::routes::Routes;
use http::{HeaderMap, Method};

fn route(host: Option<String>, path: &str) -> Arc<Route> {
    let host = host.map(|host| HostPattern::parse(&host).unwrap());
    Arc::new(Route::new(Matcher::new(host, RoutePath::parse(path).unwrap()), Action::Service(Service::Echo)))
}

fn asked<'a>(host: &'a str, path: &'a RequestPath<'a>, headers: &'a HeaderMap) -> Criteria<'a> {
    Criteria { listener: "any", bound: false, host, path, method: &Method::GET, headers, upgrade: false }
}

/// So many hosts with a route each, a tenth of them wildcards, and one route for any host; or as many
/// paths of one host.
fn lookup(c: &mut Criterion) {
    let headers = HeaderMap::new();
    for count in [10, 100, 10_000] {
        let pattern = |i| if i % 10 == 9 { format!("*.host{i}.example") } else { format!("host{i}.example") };
        let mut hosts: Vec<_> = (0..count).map(|i| route(Some(pattern(i)), "/wss")).collect();
        hosts.push(route(None, "/"));
        let hosts = Routes::new(&hosts);
        let paths: Vec<_> = (0..count).map(|i| route(None, &format!("/app{i}/wss"))).collect();
        let paths = Routes::new(&paths);
        let last = count - 1;
        let mut group = c.benchmark_group(format!("route_among_{count}"));
        for (kind, routes, host, path) in [
            ("by_host", &hosts, pattern(last).replace('*', "a"), "/wss/room/7".to_owned()),
            ("for_any_host", &hosts, "elsewhere.example".to_owned(), "/wss/room/7".to_owned()),
            ("by_path", &paths, "elsewhere.example".to_owned(), format!("/app{last}/wss/room/7")),
        ] {
            group.bench_function(kind, |b| {
                b.iter(|| {
                    let path = RequestPath::parse(black_box(&path)).unwrap();
                    routes.find(&asked(black_box(&host), &path, &headers)).is_ok_and(|route| route.is_some())
                });
            });
            let path = RequestPath::parse(&path).unwrap();
            assert!(routes.find(&asked(&host, &path, &headers)).is_ok_and(|route| route.is_some()));
        }
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);

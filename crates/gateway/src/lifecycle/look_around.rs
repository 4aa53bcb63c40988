//! What a configuration names outside of its files, and is not there now: for `wssgate check`, which only warns of it.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::load::Candidate;
use super::resolver::Resolver;
use super::token_keys::try_fetch;
use crate::config::{Config, Place, sockets};
use crate::site::jwt::source::KeySource;

/// How long each thing is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks up names of servers, fetches keys of tokens, and looks for Unix sockets; notes what is missing. Everything at
/// the same time, within some seconds.
pub async fn look_around(candidate: &mut Candidate) {
    let config = &candidate.config;
    let resolver = Resolver::new(mpsc::unbounded_channel().0);
    let names = resolver.prepare(&config.routes, &config.dns);
    let (unresolved, mut absent) = tokio::join!(names, look(config));
    absent.sort_by_key(|(place, _)| *place);
    absent.dedup();
    candidate.absent =
        absent.into_iter().map(|(place, what)| config.problem(place, what).to_string()).collect();
    candidate.unresolved = unresolved;
}

/// What is not there, and where the configuration names it.
async fn look(config: &Config) -> Vec<(Place, String)> {
    let mut looks = JoinSet::new();
    for (path, place) in config.server_sockets.iter().cloned() {
        looks.spawn(async move {
            let slow = format!("the file system of {} does not answer", path.display());
            let found = timeout(PATIENCE, spawn_blocking(move || sockets::problem(&path))).await;
            (place, found.map_or(Some(slow), |found| found.ok().flatten()))
        });
    }
    let auths = config.routes.iter().filter_map(|route| route.access.as_ref()?.auth.as_ref());
    for auth in auths {
        if let Some(forward) = &auth.forward
            && let Some(name) = forward.endpoint.host_name()
        {
            let (host, place) = ((name.to_owned(), forward.endpoint.port()), forward.written_at);
            looks.spawn(async move {
                let name = host.0.clone();
                let cause = match timeout(PATIENCE, lookup_host(host)).await {
                    Ok(Ok(_)) => return (place, None),
                    Ok(Err(e)) => e.to_string(),
                    Err(_) => format!("no answer within {PATIENCE:?}"),
                };
                let what = format!(
                    "forward: the name {name} can't be resolved now: {cause}; until it can, requests get 503"
                );
                (place, Some(what))
            });
        }
        if let Some(jwt) = &auth.jwt
            && let KeySource::Url(url) = &jwt.keys.source
        {
            let (url, place) = (url.clone(), jwt.keys.written_at);
            looks.spawn(async move {
                let failure = try_fetch(&url, PATIENCE).await.err();
                let what = failure.map(|cause| {
                    format!(
                        "jwks: the keys can't be fetched from {}{} now: {cause}; until they can, requests get 503",
                        url.endpoint.url(),
                        url.uri
                    )
                });
                (place, what)
            });
        }
    }
    let mut absent = Vec::new();
    while let Some(looked) = looks.join_next().await {
        if let Ok((place, Some(what))) = looked {
            absent.push((place, what));
        }
    }
    absent
}

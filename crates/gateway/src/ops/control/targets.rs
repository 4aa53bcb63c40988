//! What operators call routes and servers.

use crate::site::Site;

/// What a target is called in the configuration, whose tables may show the name of a variable in it.
pub(super) fn unhidden(site: &Site, target: &str) -> String {
    let ids = site.all_routes().iter().map(|route| route.id.to_string());
    let upstreams = site.upstreams().into_iter();
    let servers =
        upstreams.flat_map(|upstream| upstream.servers.iter().map(|server| server.endpoint.to_string()));
    let mut names = ids.chain(servers);
    names.find(|name| name != target && site.hidden.hide(name) == target).unwrap_or_else(|| target.to_owned())
}

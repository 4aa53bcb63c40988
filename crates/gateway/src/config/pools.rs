//! Warnings about upstreams: settings that can't do what they say. Pure.

use std::collections::HashSet;

use super::Config;
use crate::site::upstream::Upstream;

/// A server with room for fewer than this is probably one whose WebSockets were not thought of.
const SESSIONS_FEW: u32 = 10;

/// What is probably a mistake.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut seen = HashSet::new();
    let upstreams = config.routes.iter().filter_map(|route| route.action.upstream());
    let upstreams = upstreams.filter(|upstream| upstream.name.is_some() && seen.insert(upstream.key()));
    let unused = config.upstreams_unused.iter().map(|name| {
        format!(
            "the upstream {name} is not used: no route has proxy = {name:?}; add one, or remove the section"
        )
    });
    unused.chain(upstreams.flat_map(|upstream| of_one(upstream))).collect()
}

fn of_one(upstream: &Upstream) -> impl Iterator<Item = String> {
    let servers = &upstream.servers;
    let single = match &servers[..] {
        [only] if only.weight.get() > 1 => Some(format!(
            "the upstream {upstream}: the weight of {} has no effect, since it is the only server; remove it",
            only.endpoint
        )),
        _ => None,
    };
    let limited = servers.iter().any(|server| server.sessions_max.is_some());
    let idle_queue = (upstream.queue.is_some() && !limited).then(|| {
        format!(
            "the upstream {upstream}: no request ever waits in its queue, since no server has max_sessions; give the \
             servers one, or remove the queue"
        )
    });
    let few = servers.iter().find(|server| server.sessions_max.is_some_and(|max| max.get() < SESSIONS_FEW));
    let few = few.filter(|_| upstream.queue.is_none()).map(|server| {
        format!(
            "the upstream {upstream}: with max_sessions = {}, {} is soon full, since WebSockets count as long as they \
             live, and what finds no room gets 503; write a larger number, or add a queue",
            server.sessions_max.map_or(0, std::num::NonZeroU32::get),
            server.endpoint
        )
    });
    [single, unmet_weight(upstream), idle_queue, few].into_iter().flatten()
}

/// Each server has a limit, and one of them is full long before the others are.
fn unmet_weight(upstream: &Upstream) -> Option<String> {
    let rooms: Option<Vec<_>> = upstream
        .servers
        .iter()
        .map(|server| Some((u64::from(server.sessions_max?.get()), u64::from(server.weight.get()), server)))
        .collect();
    let rooms = rooms?;
    // Which is full first, and which last, as sessions come by weight: max / weight of each compared.
    let first = rooms.iter().min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)))?;
    let last = rooms.iter().max_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)))?;
    let is_far = last.0 * first.1 >= 2 * first.0 * last.1;
    is_far.then(|| {
        let weights: u64 = rooms.iter().map(|room| room.1).sum();
        let sessions: u64 = rooms.iter().map(|room| room.0).sum();
        format!(
            "the upstream {upstream}: the weight of {} can't be met: by its weight it gets {} of {weights} sessions, and by \
             max_sessions it has room for {} of {sessions}; give it more room, or less weight",
            first.2.endpoint, first.1, first.0
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn warned(upstream: &str) -> Vec<String> {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n[[upstream]]\nname = \"pool\"\n{upstream}\n\
             [[route]]\npath = \"/\"\nproxy = \"pool\"\n[[route]]\npath = \"/b\"\nproxy = \"pool\"\n"
        );
        let (config, problems) = Config::parse(Path::new("test.toml"), &text);
        assert_eq!(problems, []);
        warnings(&config)
    }

    #[test]
    fn what_can_not_be_what_it_says_is_told_once() {
        let two = |a: &str, b: &str| {
            format!("servers = [{{ address = \"http://a\", {a} }}, {{ address = \"http://b\", {b} }}]")
        };
        let queue = "queue = { length = 9, timeout = \"1s\" }\n";
        for (upstream, expect) in [
            ("servers = \"http://a\"".to_owned(), ""),
            (two("weight = 3", "max_sessions = 100"), ""),
            (two("weight = 2, max_sessions = 200", "max_sessions = 190"), ""),
            (queue.to_owned() + &two("weight = 1", "max_sessions = 1"), ""),
            ("servers = [{ address = \"http://a\", weight = 2 }]".to_owned(), "weight of a:80 has no effect"),
            (
                two("weight = 9, max_sessions = 100", "max_sessions = 100"),
                "the weight of a:80 can't be met: by its weight it gets 9 of 10 sessions, and by max_sessions it has room \
                 for 100 of 200",
            ),
            (queue.to_owned() + "servers = \"http://a\"", "no request ever waits in its queue"),
            (two("weight = 1", "max_sessions = 9"), "with max_sessions = 9, b:80 is soon full"),
            (
                "servers = \"http://a\"\n[[upstream]]\nname = \"other\"\nservers = \"http://b\"".to_owned(),
                "the upstream other is not used: no route has proxy = \"other\"",
            ),
        ] {
            let found = warned(&upstream);
            assert_eq!(found.len(), usize::from(!expect.is_empty()), "{upstream}: {found:?}");
            assert!(found.iter().all(|warning| warning.contains(expect)), "{found:?}");
        }
    }
}

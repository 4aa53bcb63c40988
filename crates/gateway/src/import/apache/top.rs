//! The keys of the top level, and of `[log]`.

use super::context::Context;
use super::requirements::networks;
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// Seconds, or another unit, as our durations are written.
pub(super) fn seconds(text: &str) -> Option<String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" | "s" => "s",
        "ms" => "ms",
        "mi" | "min" => "m",
        "h" => "h",
        _ => return None,
    };
    let count = text[..digits].parse::<u32>().ok()?;
    (1..=100_000_000).contains(&count).then(|| format!("{count}{unit}"))
}

pub(super) fn keys<'a>(context: &mut Context<'a>, vhosts: &[Vhost<'a>], head: &mut Section) {
    trusted(context, vhosts, head);
    log(context, vhosts);
}

/// `RemoteIPHeader` and the proxies that it counts from.
fn trusted<'a>(context: &mut Context<'a>, vhosts: &[Vhost<'a>], head: &mut Section) {
    const NAMES: [&str; 2] = ["remoteiptrustedproxy", "remoteipinternalproxy"];
    let of = |found: &Vhost<'a>| -> Vec<&'a Directive> {
        found.scope.every().filter(|directive| NAMES.contains(&directive.name.as_str())).collect()
    };
    let headers: Vec<&Directive> =
        vhosts.iter().filter_map(|found| found.scope.find("remoteipheader")).collect();
    let Some(header) = headers.first().copied() else {
        for directive in vhosts.iter().flat_map(of) {
            context.book.lacks(head, directive, "without RemoteIPHeader no field counts");
        }
        return;
    };
    let texts = |found: &Vhost<'a>| of(found).iter().flat_map(|d| d.args.clone()).collect::<Vec<String>>();
    let first = texts(&vhosts[0]);
    let is_same =
        vhosts.iter().all(|found| texts(found) == first && found.scope.find("remoteipheader").is_some());
    let read = networks(&first.iter().map(String::as_str).collect::<Vec<_>>());
    let what = match read {
        Ok(networks) if is_same && !networks.is_empty() => {
            head.set("trusted_proxies", networks, Some(&header.at));
            vhosts.iter().flat_map(of).for_each(|directive| context.book.mark(directive, Outcome::Key));
            None
        }
        _ if first.is_empty() && is_same => Some(
            "Apache believes this field of every client, since no list says of which; write trusted_proxies",
        ),
        Ok(_) => Some(
            "trusted_proxies hold for all hosts, and not all of these trust the same: write those that are to be",
        ),
        Err(_) => Some("trusted_proxies has addresses and networks alone: write those of your proxies"),
    };
    if let Some(what) = what {
        vhosts
            .iter()
            .flat_map(of)
            .chain([header])
            .for_each(|directive| context.book.misses(head, directive, what));
    }
    for header in headers {
        let is_ours =
            ["x-forwarded-for", "x-real-ip"].iter().any(|ours| header.arg(0).eq_ignore_ascii_case(ours));
        if is_ours {
            let how =
                "clients are known by X-Forwarded-For, and by X-Real-IP without it, from trusted_proxies";
            context.book.itself(head, header, how);
        } else {
            let what =
                "clients behind trusted_proxies are known by X-Forwarded-For; have the proxy send that";
            context.book.misses(head, header, what);
        }
    }
}

/// `CustomLog`: there is one access log.
fn log<'a>(context: &mut Context<'a>, vhosts: &[Vhost<'a>]) {
    let mut section = std::mem::take(&mut context.site.log);
    let all: Vec<&Directive> = vhosts
        .iter()
        .flat_map(|found| ["customlog", "transferlog"].map(|name| found.scope.find(name)))
        .flatten()
        .collect();
    for log in all {
        if context.book.knows(log) {
            continue;
        }
        let path = context.path(log.arg(0)).filter(|_| !log.arg(0).starts_with('|'));
        match (path, section.get("access")) {
            (Some(path), None) => {
                let how = "it is for all hosts, in the format combined";
                context.book.nearly(&mut section, log, ("access", path), how);
                section.set("format", "combined", Some(&log.at));
            }
            (Some(_), Some(_)) => {
                context.book.lacks(&mut section, log, "there is one access log, for all hosts");
            }
            (None, _) => {
                context.book.misses(
                    &mut section,
                    log,
                    "the access log is a file, stderr, or syslog: write its path",
                );
            }
        }
    }
    context.site.log = section;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ours() {
        for (text, expect) in
            [("60", Some("60s")), ("500ms", Some("500ms")), ("5min", Some("5m")), ("0", None), ("x", None)]
        {
            assert_eq!(seconds(text).as_deref(), expect, "{text}");
        }
    }
}

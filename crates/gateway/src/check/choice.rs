//! `wssgate check --request`: which route takes a request, and why the others don't. Pure.

use std::fmt::Write;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};

use crate::config::{Config, Listener};
use crate::ops::table::{section, table};
use crate::site::host::{Host, HostPattern};
use crate::site::matcher::{Criteria, PathMatcher};
use crate::site::path::RequestPath;
use crate::site::route::Route;
use crate::site::routes::Routes;

/// A request of the command line, as far as a route is chosen by it.
struct Written {
    method: Method,
    uri: Uri,
    tls: bool,
    upgrade: bool,
    host: Host,
    headers: HeaderMap,
}

/// What becomes of a request such as `GET https://domain.com/x`, and whether a route takes it. `fields` are lines such
/// as `X-Api: 2`.
///
/// # Errors
/// A sentence about what is wrong with the request.
pub fn choice(config: &Config, request: &str, fields: &[String]) -> Result<(String, bool), String> {
    let written = Written::parse(request, fields)?;
    let listener = written.listener(config)?;
    let mut text = format!("{request} comes to the listener {}", listener.name);
    if *listener.name != listener.address.to_string() {
        let _ = write!(text, " ({})", listener.address);
    }
    let path = match RequestPath::parse(written.uri.path()) {
        Ok(path) => path,
        Err(e) => return Ok((format!("{text} and gets 400: {e}\n"), false)),
    };
    let asked = Criteria {
        listener: &listener.name,
        bound: listener.redirect && listener.tls.is_none(),
        host: &written.host.name,
        path: &path,
        method: &written.method,
        headers: &written.headers,
        upgrade: written.upgrade,
    };
    let routes = Routes::new(&config.routes);
    let chosen = match routes.find(&asked) {
        Ok(chosen) => chosen,
        Err(e) => return Ok((format!("{text} and gets 400: {e}\n"), false)),
    };
    let _ = match chosen {
        Some(chosen) => writeln!(
            text,
            ".\nThe route {} takes it: {}\n",
            config.hidden.hide(chosen.id.as_str()),
            config.hidden.hide(&chosen.action.to_string())
        ),
        None => writeln!(text, ".\nNo route takes it: it gets 404.\n"),
    };
    let mut all = table(&["route", "takes it", "because"]);
    for route in &config.routes {
        let is_chosen = chosen.is_some_and(|chosen| chosen.id == route.id);
        let why = match (route.matcher.explain(&asked), chosen) {
            (Some(mismatch), _) => mismatch.to_string(),
            (None, Some(chosen)) if !is_chosen => {
                format!("{} {}", chosen.id, comes_first(chosen, route, &asked))
            }
            (None, _) => "everything fits".to_owned(),
        };
        all.add_row([
            config.hidden.hide(route.id.as_str()),
            if is_chosen { "yes" } else { "no" }.to_owned(),
            why,
        ]);
    }
    section(&mut text, "Routes", &all);
    Ok((text, chosen.is_some()))
}

impl Written {
    fn parse(request: &str, fields: &[String]) -> Result<Self, String> {
        let example = || format!("--request: expected \"GET https://domain.com/x\", found {request:?}");
        let (method, uri) = request.trim().rsplit_once(' ').unwrap_or(("GET", request.trim()));
        let method: Method = method.trim().parse().map_err(|_| example())?;
        let uri: Uri = uri.parse().map_err(|_| example())?;
        let (tls, upgrade) = match uri.scheme_str() {
            Some("https") => (true, false),
            Some("http") => (false, false),
            Some("wss") => (true, true),
            Some("ws") => (false, true),
            _ => return Err(example()),
        };
        let authority = uri.authority().ok_or_else(example)?;
        let host = HeaderValue::from_str(authority.as_str()).ok().and_then(|field| Host::parse(&field));
        let host = host.ok_or_else(example)?;
        let mut headers = HeaderMap::new();
        for line in fields {
            let field = line.split_once(':').and_then(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_str(value.trim()).ok()?))
            });
            let (name, value) =
                field.ok_or_else(|| format!("--header: expected \"X-Api: 2\", found {line:?}"))?;
            headers.append(name, value);
        }
        Ok(Self { method, uri, tls, upgrade, host, headers })
    }

    /// The listener with the request's port, or else the first that speaks its protocol.
    fn listener<'a>(&self, config: &'a Config) -> Result<&'a Listener, String> {
        let port = self.uri.port_u16().unwrap_or(if self.tls { 443 } else { 80 });
        let mut fitting = config.listeners.iter().filter(|listener| listener.tls.is_some() == self.tls);
        let first = fitting.clone().next();
        fitting.find(|listener| listener.address.port() == port).or(first).ok_or_else(|| {
            let protocol = if self.tls { "TLS" } else { "plain HTTP" };
            format!("--request: no listener speaks {protocol}, so the gateway can't be asked this way")
        })
    }
}

/// Why `chosen` is asked before `other`, which would take the request, too.
fn comes_first(chosen: &Route, other: &Route, asked: &Criteria<'_>) -> &'static str {
    let host = |route: &Route| {
        let hosts = route.matcher.hosts.iter().filter(|host| host.matches(asked.host));
        hosts.map(|host| u8::from(matches!(host, HostPattern::Wildcard(_)))).min().unwrap_or(2)
    };
    let path = |route: &Route| match &route.matcher.path {
        PathMatcher::Exact(_) => (0, 0),
        PathMatcher::Prefix(prefix) => (1, usize::MAX - prefix.to_string().len()),
        PathMatcher::Regex(_) => (2, 0),
    };
    if host(chosen) != host(other) {
        "has a more exact host"
    } else if path(chosen) != path(other) {
        "has a more exact path"
    } else if chosen.matcher.conditions() > other.matcher.conditions() {
        "has more conditions"
    } else {
        "stands before it in the file"
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:443\"\n[certificates]\ndirectory = \"certs\"\n\
        [[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n\
        [[route]]\nname = \"any\"\npath = \"/\"\nservice = \"echo\"\n\
        [[route]]\nname = \"site\"\nhost = [\"domain.com\", \"*.domain.com\"]\npath = \"/\"\nservice = \"echo\"\n\
        [[route]]\nname = \"sockets\"\nhost = \"domain.com\"\npath = \"/\"\nwhen = { upgrade = true }\nproxy = \"http://b:1\"\n\
        [[route]]\nname = \"api\"\nhost = \"domain.com\"\npath = \"/api\"\nwhen = { header = { X-Api = \"2\" } }\nservice = \"echo\"\n\
        [[route]]\nname = \"one\"\nhost = \"domain.com\"\npath_exact = \"/api\"\nlistener = \"127.0.0.1:80\"\nservice = \"echo\"\n";

    /// Each route's name and the reason, behind the name of that which takes the request.
    fn said(request: &str, fields: &[&str]) -> (String, bool) {
        let (config, problems) = Config::parse(Path::new("wssgate.toml"), FILE);
        assert_eq!(problems, []);
        let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
        choice(&config, request, &fields).unwrap()
    }

    #[track_caller]
    fn check(request: &str, fields: &[&str], taken: bool, lines: &[&str]) {
        let (text, takes) = said(request, fields);
        assert_eq!(takes, taken, "{text}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text: Vec<_> = text.lines().map(words).collect();
        for line in lines {
            assert!(text.iter().any(|other| other == line), "{line} is not in {text:#?}");
        }
    }

    #[test]
    fn the_route_that_takes_a_request_and_why_the_others_do_not() {
        check(
            "GET https://domain.com/x",
            &[],
            true,
            &[
                "GET https://domain.com/x comes to the listener public (127.0.0.1:443).",
                "The route site takes it: echo service",
                "any no site has a more exact host",
                "site yes everything fits",
                "sockets no the request opens no WebSocket",
                "api no the path is another one",
                "one no the path is another one",
            ],
        );
        check(
            "wss://domain.com/api",
            &["x-api: 2"],
            true,
            &[
                "The route api takes it: echo service",
                "sockets no api has a more exact path",
                "one no the request comes to another listener",
            ],
        );
        check(
            "wss://domain.com/",
            &[],
            true,
            &["The route sockets takes it: b:1", "site no sockets has more conditions"],
        );
        check(
            "POST http://domain.com/api",
            &["X-Api: 3"],
            true,
            &[
                "POST http://domain.com/api comes to the listener 127.0.0.1:80.",
                "The route one takes it: echo service",
                "api no the field x-api is missing or has another value",
            ],
        );
        check("GET https://domain.com//api", &[], true, &["The route site takes it: echo service"]);
        check(
            "GET https://domain.com/%2e%2e/x",
            &[],
            false,
            &[
                "GET https://domain.com/%2e%2e/x comes to the listener public (127.0.0.1:443) and gets 400: a path must not have . or .. segments, percent-encoded or not",
            ],
        );
    }

    #[test]
    fn requests_that_are_none() {
        let (config, _) = Config::parse(Path::new("wssgate.toml"), FILE);
        for (request, field, why) in [
            ("domain.com/x", "a: b", "expected \"GET https://"),
            ("GET /x", "a: b", "expected \"GET https://"),
            ("GET ftp://domain.com/x", "a: b", "expected \"GET https://"),
            ("G@T https://domain.com/x", "a: b", "expected \"GET https://"),
            ("GET https://domain.com/x", "a", "expected \"X-Api: 2\""),
        ] {
            let error = choice(&config, request, &[field.to_owned()]).unwrap_err();
            assert!(error.contains(why), "{request}: {error}");
        }
        let plain = FILE.replace("127.0.0.1:80\"\ntls = false", "127.0.0.1:80\"");
        let (config, _) = Config::parse(Path::new("wssgate.toml"), &plain);
        let error = choice(&config, "http://domain.com/", &[]).unwrap_err();
        assert!(error.contains("no listener speaks plain HTTP"), "{error}");
    }
}

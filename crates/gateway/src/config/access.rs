//! `[route.access]`: who may use a route, and how much.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use serde_json::Value as Json;

use super::document::Document;
use super::fields;
use super::jwt::{self, JwtOptions};
use super::kind::{self, List, Options, Show, Table, Text};
use super::option::options;
use super::server_url;
use super::spec::At;
use crate::net::networks::Networks;
use crate::site::access::{Access, Per};
use crate::site::auth::{Auth, Basic, Forward, UserFile};
use crate::site::rate::Rate;

/// What holds for `recheck_grace` where nothing is said.
const RECHECK_GRACE: Duration = Duration::from_secs(5 * 60);
/// What holds for `failures` where nothing is said.
const FAILURES: &str = "20/m";

options! {
    /// Who may use the route above it, and how much. The order is: `deny` and `allow` (403), `failures`, `requests`, `handshakes`
    /// and `sessions` (429 with Retry-After), preflight requests of `cors`, `basic` (401), `jwt` (401), `forward`, `requests`, `handshakes` and `sessions` per subject, `max_body` (413). A client's address is that which trusted proxies name.
    struct AccessOptions: "[route.access]";

    /// Only clients of these addresses are let in.
    allow: List<kind::Network>, otherwise = "every address";
    /// Clients of these addresses are not let in, whatever `allow` says.
    deny: List<kind::Network>, otherwise = "none";
    /// How many requests, handshakes of WebSockets included, one client may send. The number of a whole period may come
    /// at once. The gateway knows 65,536 clients at a time in about 1 MiB.
    requests: kind::Frequency, optional;
    /// How many handshakes of WebSockets, and of other upgrades, one client may send. They count as requests, too.
    handshakes: kind::Frequency, optional;
    /// How many live WebSocket sessions one client may have.
    sessions: kind::Number<1, 1_000_000>, optional;
    /// What one client is: `"client"` is an address (of IPv6 a network of 64 bits), `"header:NAME"` the value of a
    /// field, and `"subject"` whom `basic`, `jwt` or `forward` has found out, the address where they have not. Clients can write any value, so a proxy in front has to check it.
    per: kind::Per, default = Per::Client;
    /// Users with passwords.
    basic: Table<BasicOptions>, optional;
    /// Tokens that every request needs.
    jwt: Table<JwtOptions>, optional;
    /// A server that is asked about each request.
    forward: Table<ForwardOptions>, optional;
    /// How often the server of `forward` is asked for live WebSocket sessions again. A session that it refuses ends with
    /// 3000. What a reload says here counts for live sessions, too, but for those that were opened when the route had no
    /// `forward`. A session of a route with `forward` keeps the fields of its request for that, in memory.
    recheck: kind::Duration, optional;
    /// How long a session lives on after the server of `forward` should have been asked for it and could not be.
    recheck_grace: kind::Duration, default = RECHECK_GRACE;
    /// How many wrong passwords and tokens one address may send. After so many, its requests get 429 until the time has
    /// passed.
    failures: FailuresOrOff, otherwise = "`\"20/m\"`";
    /// The longest body of a request. A body without a length is cut off when it becomes longer.
    max_body: kind::SizeOrOff, otherwise = "`\"off\"`";
}

options! {
    /// Users with passwords, by HTTP basic authentication. Use it with TLS only: the password is sent with each request.
    struct BasicOptions: "[route.access.basic]";

    /// The file with the users, as `htpasswd -B` writes it: bcrypt, argon2, `$5$`, `$6$`; apr1 and `{SHA}` with a
    /// warning. It is read at a start and at a reload; sessions of users whose line has changed end with 3000.
    file: kind::File, required = "\"htpasswd\"";
    /// What browsers show when they ask for the password.
    realm: Realm, default = "login".into();
    /// The field in which the backend gets the name of the user, such as `"Remote-User"`. Clients can't send it.
    user_header: FieldToReserve, optional;
    /// Whether the backend gets the client's Authorization field, and so the password.
    pass_password: kind::Boolean, default = false;
}

options! {
    /// A server that is asked about each request: a GET without body, with the fields of the client and `X-Forwarded-Method`,
    /// `-Uri`, `-Host`, `-Proto` and `-For`. After a 2xx the request is served; any other answer goes back to the client
    /// as it is. If the server can't be asked, the client gets 503, or 502 if the answer is no HTTP.
    struct ForwardOptions: "[route.access.forward]";

    /// The address of the server, with path and query.
    url: kind::PlainText, required = "\"http://127.0.0.1:9091/verify\"";
    /// Fields of its answer that the backend gets. Clients can't send them.
    copy: List<FieldToReserve>, otherwise = "none";
    /// Which of these names the user, for the log and `wssgate sessions`.
    subject: FieldToReserve, otherwise = "the first of `copy`";
    /// With `https://`: files with certificates of authorities, of which one has to have issued its certificate.
    ca: List<kind::File>, otherwise = "the authorities that the system trusts";
    /// How long it may take for its answer.
    timeout: kind::Duration, default = Duration::from_secs(2);
}

/// A rate, or `"off"`.
pub(super) struct FailuresOrOff;

impl Text for FailuresOrOff {
    type Value = Option<Rate>;

    fn words() -> String {
        "`\"20/m\"`, or `\"off\"`".to_owned()
    }

    fn parse(text: &str, base: &Path) -> Result<Option<Rate>, String> {
        if text == "off" { Ok(None) } else { kind::Frequency::parse(text, base).map(Some) }
    }
}

/// A text that stands between quotes in a field.
pub(super) struct Realm;

impl Text for Realm {
    type Value = Box<str>;

    fn words() -> String {
        "text".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<Box<str>, String> {
        if text.is_empty() || text.len() > 256 || text.chars().any(|char| !(' '..='~').contains(&char)) {
            return Err("expected 1 to 256 letters, digits, spaces and signs of ASCII".to_owned());
        }
        Ok(text.into())
    }
}

impl Show for Realm {
    fn show(value: &Box<str>) -> Json {
        (&**value).into()
    }
}

/// The name of a field that only the gateway sets.
pub(super) struct FieldToReserve;

impl Text for FieldToReserve {
    type Value = HeaderName;

    fn words() -> String {
        "name of a field".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<HeaderName, String> {
        fields::reserved_name(text)
    }
}

/// What finds out who sends a request; `None`: nothing does.
fn read_auth(d: &mut Document<'_>, section: &mut AccessOptions) -> Option<Box<Auth>> {
    let mut auth = Auth::default();
    if let Some(At { value, .. }) = section.basic.take() {
        auth.basic = read_basic(value);
    }
    if let Some(At { value, .. }) = section.jwt.take() {
        jwt::read(d, value, &mut auth);
    }
    if let Some(At { value, .. }) = section.forward.take() {
        auth.forward = read_forward(d, value);
    }
    auth.recheck = section.recheck.as_ref().map(|at| at.value);
    auth.recheck_grace = section.recheck_grace.value;
    if let Some(At { place, .. }) = section.recheck.as_ref().filter(|_| !section.has("forward")) {
        d.problem(*place, "recheck: no server is asked again; write forward, or remove it");
    }
    let copied = auth.forward.iter().flat_map(|forward| forward.copy.iter().chain(&forward.subject));
    auth.reserved.extend(copied);
    auth.reserved.extend(auth.basic.iter().filter_map(|basic| basic.user_header.as_ref()));
    if auth.basic.is_none() && auth.jwt.is_none() && auth.forward.is_none() {
        let asks = ["basic", "jwt", "forward"].into_iter().any(|key| section.has(key));
        if let Some(At { place, .. }) = section.failures.take().filter(|_| !asks) {
            d.problem(place, "failures: no password or token is asked for; remove it");
        }
        return None;
    }
    auth.failures = section.failures.as_ref().map_or_else(|| Rate::parse(FAILURES), |at| at.value);
    Some(Box::new(auth))
}

fn read_forward(d: &mut Document<'_>, section: ForwardOptions) -> Option<Forward> {
    let url = section.url?;
    let (endpoint, uri) = server_url::read(d, "url", &url, section.ca.as_ref())?;
    let copy = section.copy.map(|at| at.value).unwrap_or_default();
    let subject = section.subject.map(|at| at.value).or_else(|| copy.first().cloned());
    let timeout = section.timeout.value;
    Some(Forward { endpoint, written_at: url.place, uri, copy, subject, timeout })
}

fn read_basic(section: BasicOptions) -> Option<Basic> {
    let At { value: file, place } = section.file?;
    Some(Basic {
        users: UserFile::new(file, place),
        realm: section.realm.value,
        user_header: section.user_header.map(|at| at.value),
        pass_password: section.pass_password.value,
    })
}

pub(super) fn read(d: &mut Document<'_>, mut section: AccessOptions) -> Access {
    if let Some(At { value, place }) = &section.allow
        && value.is_empty()
    {
        d.problem(*place, "allow: an empty list would refuse every client; leave it out to let all in");
    }
    if section.has("per") && !["requests", "handshakes", "sessions"].into_iter().any(|key| section.has(key)) {
        d.problem(section.place_of("per"), "per: nothing is counted; write requests, handshakes or sessions");
    }
    if let Some(At { value: Some(0), place }) = section.max_body {
        d.problem(
            place,
            "max_body: 0 would refuse every body; write \"1B\" or more, or \"off\" for no limit",
        );
    }
    let auth = read_auth(d, &mut section);
    let networks = |option: &Option<At<Vec<ipnet::IpNet>>>| {
        option.as_ref().map(|at| Networks::new(&at.value)).unwrap_or_default()
    };
    Access {
        allow: networks(&section.allow),
        deny: networks(&section.deny),
        requests: section.requests.as_ref().map(|at| at.value),
        handshakes: section.handshakes.as_ref().map(|at| at.value),
        sessions: section.sessions.as_ref().and_then(|at| u32::try_from(at.value).ok()),
        per: section.per.value.clone(),
        auth,
        max_body: section.max_body.as_ref().and_then(|at| at.value),
    }
}

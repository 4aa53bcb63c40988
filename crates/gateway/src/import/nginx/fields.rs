//! `proxy_set_header`, `add_header` and their like: the fields of requests and answers.

use super::context::Context;
use super::here::Here;
use super::pass::Pass;
use super::scope::Scope;
use super::server::Server;
use super::variables::{Facts, Use, template};
use crate::config::is_fixed;
use crate::import::book::Outcome;
use crate::import::sheet::{Section, Value, path};
use crate::import::tree::Directive;

const BY_ITSELF: &str = "the gateway sends this by itself";

/// What the server gets. nginx sends its own name for the server as Host, where nothing is said.
pub(super) fn request<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    scope: &Scope<'a>,
    passed: &Pass,
    pass: &Directive,
    route: &mut Section,
) {
    let mut facts = here.facts.clone();
    facts.constants.insert("proxy_host".to_owned(), passed.authority.clone());
    let names = if pass.name == "grpc_pass" { "grpc_set_header" } else { "proxy_set_header" };
    let set = scope.all(names);
    for directive in &set {
        field(context, directive, &facts, route);
    }
    let says_host = set.iter().any(|directive| directive.arg(0).eq_ignore_ascii_case("host"));
    if !says_host && !passed.authority.starts_with("unix:") {
        route.comment(format!(
            "{}: nginx sends this Host where no proxy_set_header has it; without the line servers get the client's",
            pass.at
        ));
        route.set("request_headers.set.Host", passed.authority.clone(), None);
    }
    for directive in scope.all("proxy_hide_header") {
        hidden(context, directive, route);
    }
}

fn field(context: &mut Context<'_>, directive: &Directive, facts: &Facts, route: &mut Section) {
    let book = &mut context.book;
    let (name, value) = (directive.arg(0), directive.arg(1));
    let of_tls = facts.constants.get("scheme").map(String::as_str);
    match (name.to_ascii_lowercase().as_str(), value) {
        ("upgrade" | "connection", _) => {
            return book.itself(
                route,
                directive,
                "handshakes of WebSockets get what they need, and other requests none of it",
            );
        }
        ("host", "$host" | "$http_host" | "$host:$server_port" | "$http_host:$server_port") => {
            return book.itself(route, directive, "servers get the Host that the client sent, with its port");
        }
        ("x-real-ip", "$remote_addr" | "$realip_remote_addr")
        | ("x-forwarded-for", "$proxy_add_x_forwarded_for" | "$remote_addr")
        | ("x-forwarded-proto", "$scheme")
        | ("x-forwarded-host", "$host" | "$http_host") => {
            let how = "the gateway sends this by itself; what clients send under the name counts from trusted_proxies alone";
            return book.itself(route, directive, how);
        }
        ("x-forwarded-proto", scheme) if of_tls == Some(scheme) => {
            return book.itself(route, directive, BY_ITSELF);
        }
        ("x-forwarded-proto", "$http_x_forwarded_proto" | "$proxy_x_forwarded_proto")
        | ("x-forwarded-for", "$http_x_forwarded_for")
        | ("x-real-ip", "$http_x_real_ip" | "$http_x_forwarded_for") => {
            let how = "what a proxy in front says is passed on if it is one of trusted_proxies";
            return book.itself(route, directive, how);
        }
        ("x-forwarded-port", "$server_port") => {
            return book.key(route, directive, "request_headers.forwarded_port", true);
        }
        ("x-request-id", "$request_id") => {
            return book.key(route, directive, "request_headers.request_id", true);
        }
        ("accept-encoding", "") => {
            let key = "request_headers.remove";
            return add_to_list(context, route, directive, key, name);
        }
        (lower, _) if is_fixed(lower) => {
            return book.itself(
                route,
                directive,
                "this field belongs to the connection, so the gateway writes it itself",
            );
        }
        (lower, value) if value == format!("$http_{}", lower.replace('-', "_")) => {
            return book.itself(route, directive, "fields of clients are passed on");
        }
        _ => {}
    }
    if value.is_empty() {
        return add_to_list(context, route, directive, "request_headers.remove", name);
    }
    put(context, directive, name, value, facts, ("request_headers", "set"), route);
}

/// One more name in a list of names.
fn add_to_list(context: &mut Context<'_>, route: &mut Section, directive: &Directive, key: &str, name: &str) {
    let mut names = match route.get(key) {
        Some(Value::List(names)) => names.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    if !names.contains(&name.into()) {
        names.push(name.into());
    }
    context.book.key(route, directive, key, Value::List(names));
}

/// A field of the server's that clients don't get.
pub(super) fn hidden(context: &mut Context<'_>, directive: &Directive, route: &mut Section) {
    let name = directive.arg(0);
    if is_fixed(name) {
        return context.book.itself(route, directive, "this field belongs to the connection");
    }
    add_to_list(context, route, directive, "response_headers.remove", name);
}

/// A field with its value.
fn put(
    context: &mut Context<'_>,
    directive: &Directive,
    name: &str,
    value: &str,
    facts: &Facts,
    (section, edit): (&str, &str),
    route: &mut Section,
) {
    let book = &mut context.book;
    let value = match template(value, facts, Use::Field) {
        Ok(value) => value,
        Err(unknown) if section == "request_headers" => {
            book.misses(
                route,
                directive,
                &format!("{unknown}, so the field is removed: clients can't write it"),
            );
            return add_to_list(context, route, directive, "request_headers.remove", name);
        }
        Err(unknown) => {
            return book.misses(route, directive, &format!("{unknown}, so the field is left out"));
        }
    };
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_good = http::HeaderName::from_bytes(name.as_bytes()).is_ok()
        && http::HeaderValue::from_str(&value).is_ok()
        && value.is_ascii();
    if !is_good {
        return book.misses(route, directive, "this is not the name and the value of a field in ASCII");
    }
    let key = field_key(section, edit, name);
    match route.get(&key).cloned() {
        None => book.key(route, directive, &key, value),
        // Two of the same name are a list.
        Some(first) => {
            let mut values = match first {
                Value::List(values) => values,
                one => vec![one],
            };
            values.push(value.into());
            book.key(route, directive, &key, Value::List(values));
        }
    }
}

/// What clients get: a block with one `add_header` has none of those around it, as in nginx.
pub(super) fn response<'a>(
    context: &mut Context<'a>,
    server: &Server<'a>,
    scope: &Scope<'a>,
    route: &mut Section,
    has_server: bool,
) {
    let fields = scope.all("add_header");
    let mut is_partly = false;
    for directive in fields {
        let (name, value) = (directive.arg(0), directive.arg(1));
        let lower = name.to_ascii_lowercase();
        if is_fixed(name) {
            let meaning = "this field belongs to the connection, so it can't be set";
            context.book.itself(route, directive, meaning);
            continue;
        }
        if value.is_empty() {
            context.book.itself(route, directive, "nginx sends no field without a value either");
            continue;
        }
        is_partly |= directive.arg(2) != "always";
        // nginx takes it off what the server sends, and has its own: that is one `set`.
        let is_hidden = has_server && text_list(route.get("response_headers.remove")).contains(&lower);
        let edit = if is_hidden || lower == "content-type" { "set" } else { "add" };
        put(context, directive, name, value, &server.facts, ("response_headers", edit), route);
    }
    if is_partly {
        route.note("add_header without `always`: nginx sends these fields with 2xx and 3xx alone, and here all answers have them");
    }
    if has_server && let Some(pass) = scope.find("proxy_pass_header") {
        context.book.mark(pass, Outcome::ByItself);
    }
}

fn text_list(value: Option<&Value>) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.to_ascii_lowercase(),
        _ => String::new(),
    };
    match value {
        Some(Value::List(items)) => items.iter().map(text).collect(),
        Some(one) => vec![text(one)],
        None => Vec::new(),
    }
}

/// The key of a field.
pub(super) fn field_key(section: &str, edit: &str, name: &str) -> String {
    path(&[section, edit, name])
}

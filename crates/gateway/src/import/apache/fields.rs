//! `Header` and `RequestHeader`: the fields of answers and requests.

use super::context::Context;
use super::vhost::Vhost;
use crate::config::is_fixed;
use crate::import::sheet::{Section, Value, path};
use crate::import::tree::Directive;

const BY_ITSELF: &str =
    "the gateway sends this by itself; what clients send under the name counts from trusted_proxies alone";

/// Fields of a route, those of the virtual host first.
pub(super) fn write(
    context: &mut Context<'_>,
    found: &Vhost<'_>,
    sections: &[&Directive],
    route: &mut Section,
    has_server: bool,
) {
    let inside = || sections.iter().flat_map(|section| section.inside());
    let all = |name: &'static str| {
        found.scope.every().chain(inside()).filter(move |directive| directive.name == name)
    };
    let mut is_partly = false;
    for directive in all("header") {
        is_partly |= !directive.arg(0).eq_ignore_ascii_case("always");
        field(context, found, directive, "response_headers", route);
    }
    if is_partly {
        route.note("Header without `always`: Apache leaves these fields out of its own errors, and here all answers have them");
    }
    if has_server {
        for directive in all("requestheader") {
            field(context, found, directive, "request_headers", route);
        }
    }
}

fn field(
    context: &mut Context<'_>,
    found: &Vhost<'_>,
    directive: &Directive,
    section: &str,
    route: &mut Section,
) {
    let mut args: Vec<&str> = directive.args.iter().map(String::as_str).collect();
    if args
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case("always") || word.eq_ignore_ascii_case("onsuccess"))
    {
        args.remove(0);
    }
    // When it is done, and a condition that always holds.
    args.retain(|arg| *arg != "early" && !(*arg == "env=HTTPS" && found.has_tls));
    let [edit, name, rest @ ..] = &args[..] else {
        return context.book.misses(route, directive, "this is not understood");
    };
    let edit = edit.to_ascii_lowercase();
    let name = name.trim_end_matches(':');
    let is_request = section == "request_headers";
    let given = rest.first().copied().unwrap_or("");
    if is_fixed(name) {
        let how = "this field belongs to the connection, so the gateway writes it itself";
        return context.book.itself(route, directive, how);
    }
    if is_request && edit != "unset" && is_known(name, given, found.has_tls) {
        return context.book.itself(route, directive, BY_ITSELF);
    }
    if edit == "unset" {
        return add_to_list(context, route, directive, &format!("{section}.remove"), name);
    }
    let how = match edit.as_str() {
        "set" | "setifempty" => "set",
        "add" | "append" | "merge" => "add",
        _ => {
            return lose(
                context,
                route,
                directive,
                section,
                name,
                "fields are set, added and removed, not edited",
            );
        }
    };
    if rest.len() > 1 {
        return lose(context, route, directive, section, name, "a field has no condition here");
    }
    let Some(value) = value(given, is_request) else {
        return lose(
            context,
            route,
            directive,
            section,
            name,
            "this value of Apache's own has no counterpart",
        );
    };
    let is_good = http::HeaderName::from_bytes(name.as_bytes()).is_ok()
        && http::HeaderValue::from_str(&value).is_ok()
        && value.is_ascii()
        && !value.contains("${");
    if !is_good {
        return lose(
            context,
            route,
            directive,
            section,
            name,
            "this is not the name and the value of a field in ASCII",
        );
    }
    let key = path(&[section, how, name]);
    let before = route.get(&key).cloned().filter(|_| how == "add");
    match before {
        None => context.book.key(route, directive, &key, value),
        Some(first) => {
            let mut values = list(Some(&first));
            values.push(value.into());
            context.book.key(route, directive, &key, Value::List(values));
        }
    }
}

/// The gateway sends this field with this value.
fn is_known(name: &str, value: &str, has_tls: bool) -> bool {
    let is_of_client = value.starts_with('%') || value.starts_with("expr=");
    match name.to_ascii_lowercase().as_str() {
        "x-forwarded-for" | "x-real-ip" | "x-forwarded-host" => is_of_client,
        "x-forwarded-proto" => {
            value.contains("REQUEST_SCHEME")
                || value.eq_ignore_ascii_case(if has_tls { "https" } else { "http" })
        }
        _ => false,
    }
}

/// The value as ours; `None`: there is something in it that has no counterpart.
fn value(text: &str, is_request: bool) -> Option<String> {
    const OURS: [(&str, &str); 8] = [
        ("expr=%{REMOTE_ADDR}", "{client}"),
        ("%{REMOTE_ADDR}s", "{client}"),
        ("expr=%{REQUEST_SCHEME}", "{scheme}"),
        ("expr=%{HTTP_HOST}", "{host}"),
        ("%{SERVER_PORT}s", "{port}"),
        ("%{SSL_CLIENT_S_DN}s", "{certificate_subject}"),
        ("%{SSL_PROTOCOL}s", "{tls_version}"),
        ("%{SSL_TLS_SNI}s", "{server_name}"),
    ];
    if let Some((_, ours)) = OURS.iter().find(|(theirs, _)| *theirs == text).filter(|_| is_request) {
        return Some((*ours).to_owned());
    }
    if text.starts_with("expr=") || text.replace("%%", "").contains('%') {
        return None;
    }
    let text = text.replace("%%", "%").replace('{', "{{");
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A field that is left out. Of a request it is removed, so that clients can't write what a server believes.
fn lose(
    context: &mut Context<'_>,
    route: &mut Section,
    directive: &Directive,
    section: &str,
    name: &str,
    why: &str,
) {
    if section == "request_headers"
        && !directive.args.iter().any(|arg| arg.to_ascii_lowercase().starts_with("edit"))
    {
        context.book.misses(
            route,
            directive,
            &format!("{why}, so the field is removed: clients can't write it"),
        );
        return add_to_list(context, route, directive, "request_headers.remove", name);
    }
    context.book.misses(route, directive, &format!("{why}, so it is left out"));
}

/// One more name in a list of names.
fn add_to_list(context: &mut Context<'_>, route: &mut Section, directive: &Directive, key: &str, name: &str) {
    let mut names = list(route.get(key));
    if !names.contains(&name.into()) {
        names.push(name.into());
    }
    let names = if names.len() == 1 { names.remove(0) } else { Value::List(names) };
    context.book.key(route, directive, key, names);
}

/// The values of a key.
pub(super) fn list(value: Option<&Value>) -> Vec<Value> {
    match value {
        Some(Value::List(items)) => items.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    }
}

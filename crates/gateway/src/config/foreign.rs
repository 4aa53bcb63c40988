//! Keys that a section doesn't have: where they belong, or what to write in place of another program's words.

use super::spec::{SectionSpec, TOP_LEVEL};

/// Words of nginx, Apache, HAProxy and Caddy, and what to write here.
const FOREIGN: &[(&str, &str)] = &[
    ("alias", "write files in [[route]]"),
    ("backend", "write proxy = \"http://127.0.0.1:8080\" in [[route]]"),
    ("bind", "write address in [[listener]]"),
    ("cert", "write chain in [[certificate]], or directory in [certificates]"),
    ("certificate_key", "write key in [[certificate]]"),
    (
        "client_max_body_size",
        "bodies of requests have no limit yet; for WebSockets write max_message in [route.websocket]",
    ),
    ("listen", "write address in [[listener]]"),
    ("location", "write path in [[route]]"),
    ("port", "write it behind the address: address = \"0.0.0.0:443\""),
    ("proxy_connect_timeout", "write connect_timeout in [[route]]"),
    ("proxy_pass", "write proxy in [[route]]"),
    ("proxy_read_timeout", "write response_timeout in [[route]], and idle_timeout in [route.websocket]"),
    ("return", "write redirect or respond in [[route]]"),
    ("reverse_proxy", "write proxy in [[route]]"),
    ("root", "write files in [[route]]"),
    ("server_name", "write host in [[route]]; certificates bring their own names"),
    ("ssl", "write tls in [[listener]]"),
    ("ssl_certificate", "write chain in [[certificate]], or directory in [certificates]"),
    ("ssl_certificate_key", "write key in [[certificate]]"),
    ("ssl_protocols", "write min_version in [[listener]]"),
    ("url", "write path in [[route]]"),
    ("worker_processes", "write workers at the top level"),
];

/// Advice about `key`, which `section` doesn't have: another section has it, or another program.
/// `file` describes every section.
pub(super) fn elsewhere(key: &str, section: &str, file: &SectionSpec) -> Option<String> {
    if let Some((_, instead)) = FOREIGN.iter().find(|(word, _)| *word == key) {
        return Some((*instead).to_owned());
    }
    let has = |spec: &&SectionSpec| spec.options.iter().any(|option| option.key == key);
    let homes: Vec<_> = file.walk().into_iter().filter(has).map(|spec| spec.name).collect();
    match homes[..] {
        [] => None,
        [TOP_LEVEL] => Some(format!(
            "{key} belongs to the top level: write it above the first section, since a key belongs to the \
             section above it"
        )),
        [home] => Some(format!("{key} belongs to {home}")),
        _ if section == "[route.websocket]" && homes.contains(&"[[route]]") => {
            Some(format!("{key} belongs to [[route]]: write it above [route.websocket]"))
        }
        _ => Some(format!("{key} belongs to {}", homes.join(" or "))),
    }
}

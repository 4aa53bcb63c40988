//! Every key of every section, and what other programs call them: for keys that are in the wrong place.

/// The part of the file above its first section.
pub(super) const TOP_LEVEL: &str = "the top level";

/// The sections, as the file calls them, with all their keys. [`Section`](super::raw::Section) asserts in
/// tests that it is asked for no other, and a test asks for all of them.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    (
        TOP_LEVEL,
        &[
            "admin",
            "certificate",
            "certificates",
            "control",
            "drain_close_code",
            "drain_delay",
            "drain_timeout",
            "drain_window",
            "listener",
            "max_memory",
            "removed_routes",
            "route",
            "takeover_timeout",
            "ticket_keys",
            "trusted_proxies",
            "workers",
        ],
    ),
    (
        "[[listener]]",
        &[
            "address",
            "alpn",
            "body_rate",
            "handshake_timeout",
            "header_timeout",
            "keep_alive_timeout",
            "min_version",
            "tls",
        ],
    ),
    ("[certificates]", &["default", "directory", "watch"]),
    ("[[certificate]]", &["chain", "key"]),
    (
        "[[route]]",
        &[
            "connect_timeout",
            "field_names",
            "host",
            "path",
            "pool",
            "proxy",
            "response_timeout",
            "service",
            "websocket",
        ],
    ),
    ("[route.websocket]", &["idle_timeout", "max_message", "origins", "ping_interval", "pong_timeout"]),
    ("[admin]", &["address"]),
    ("[control]", &["socket"]),
];

/// What people write who come from nginx, Apache, HAProxy or Caddy, and what to write here.
const FOREIGN: &[(&str, &str)] = &[
    ("alias", "files are not served yet"),
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
    ("redirect", "redirects are not supported yet"),
    ("reverse_proxy", "write proxy in [[route]]"),
    ("root", "files are not served yet"),
    ("server_name", "write host in [[route]]; certificates bring their own names"),
    ("ssl", "write tls in [[listener]]"),
    ("ssl_certificate", "write chain in [[certificate]], or directory in [certificates]"),
    ("ssl_certificate_key", "write key in [[certificate]]"),
    ("ssl_protocols", "write min_version in [[listener]]"),
    ("upstream", "write the server's address in [[route]]: proxy = \"http://127.0.0.1:8080\""),
    ("url", "write path in [[route]]"),
    ("worker_processes", "write workers at the top level"),
];

/// What to do about `key`, which `section` doesn't have, but another one or another program.
pub(super) fn elsewhere(key: &str, section: &str) -> Option<String> {
    let homes: Vec<_> =
        SECTIONS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name).collect();
    if let Some((_, instead)) = FOREIGN.iter().find(|(word, _)| *word == key) {
        return Some((*instead).to_owned());
    }
    match homes[..] {
        [] => None,
        [TOP_LEVEL] => Some(format!(
            "{key} belongs to the top level: write it above the first section, since a key belongs to the \
             section above it"
        )),
        ["[[route]]"] if section == "[route.websocket]" => {
            Some(format!("{key} belongs to [[route]]: write it above [route.websocket]"))
        }
        [home] => Some(format!("{key} belongs to {home}")),
        _ => Some(format!("{key} belongs to {}", homes.join(" or "))),
    }
}

//! Handlers: which servers run scripts, and what Apache answers itself.

use super::vhost::Vhost;
use crate::import::tree::Directive;

/// The servers that run scripts, with the directives that name them, and their sections.
pub(super) fn scripts<'a>(found: &Vhost<'a>) -> Vec<(String, &'a Directive, Option<&'a Directive>)> {
    let mut scripts = Vec::new();
    for directive in found.scope.every() {
        match directive.name.as_str() {
            "proxypassmatch" => {
                scripts.extend(server(directive.arg(1)).map(|server| (server, directive, None)));
            }
            "addhandler" => {
                scripts.extend(of_handler(directive.arg(0)).map(|server| (server, directive, None)));
            }
            _ => {}
        }
        let nested = directive.inside().iter().filter(|inside| inside.block.is_some());
        for section in nested.chain([directive]) {
            scripts.extend(script(section).map(|(server, handler)| (server, handler, Some(section))));
        }
    }
    scripts
}

/// Something runs scripts.
pub(super) fn has_scripts(found: &Vhost<'_>) -> bool {
    !scripts(found).is_empty()
}

/// The server that runs the scripts of a section (`SetHandler "proxy:unix:/…|fcgi://…"`).
pub(super) fn script(section: &Directive) -> Option<(String, &Directive)> {
    let handler = section.inside().iter().find(|inside| inside.name == "sethandler")?;
    Some((of_handler(handler.arg(0))?, handler))
}

/// The server of a handler such as `proxy:fcgi://…`.
pub(super) fn of_handler(handler: &str) -> Option<String> {
    server(handler.strip_prefix("proxy:")?)
}

/// A server of FastCGI, as our routes name it.
fn server(address: &str) -> Option<String> {
    let server = match address.strip_prefix("unix:") {
        Some(rest) => rest
            .split_once('|')
            .filter(|(_, url)| url.starts_with("fcgi:"))
            .map(|(path, _)| format!("unix:{path}"))?,
        None => address.strip_prefix("fcgi://")?.split('/').next()?.to_owned(),
    };
    (!server.contains(['$', '%'])).then_some(server)
}

/// The address is one of FastCGI.
pub(super) fn is_script(address: &str) -> bool {
    server(address).is_some()
}

/// A handler of Apache's own, such as `server-status`.
pub(super) fn handler(section: &Directive) -> Option<&Directive> {
    let handler = section.inside().iter().find(|inside| inside.name == "sethandler")?;
    let word = handler.arg(0).to_ascii_lowercase();
    (!word.starts_with("proxy:")
        && !matches!(word.as_str(), "none" | "default-handler" | "application/x-httpd-php"))
    .then_some(handler)
}

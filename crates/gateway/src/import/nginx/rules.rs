//! Which directives keep requests out. Pure.

use crate::import::tree::Directive;

/// Directives that keep requests out.
const GUARDS: [&str; 18] = [
    "access_by_lua",
    "access_by_lua_block",
    "access_by_lua_file",
    "auth_basic",
    "auth_digest",
    "auth_gss",
    "auth_jwt",
    "auth_ldap",
    "auth_pam",
    "auth_request",
    "deny",
    "internal",
    "limit_except",
    "modsecurity",
    "satisfy",
    "secure_link",
    "ssl_verify_client",
    "valid_referers",
];

/// It answers with an error of the client's.
fn refuses(directive: &Directive) -> bool {
    directive.name == "return" && directive.arg(0).starts_with('4')
}

/// It keeps requests out.
pub(super) fn is_guard(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "if" => directive.inside().iter().any(refuses),
        name => {
            GUARDS.contains(&name)
                && !matches!(directive.arg(0), "off" | "all" | "optional" | "optional_no_ca" if name != "deny")
        }
    }
}

/// The location keeps requests out.
pub(super) fn keeps_out(location: &Directive) -> bool {
    location.inside().iter().any(|inside| is_guard(inside) || refuses(inside))
}

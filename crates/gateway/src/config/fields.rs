//! `[route.request_headers]`, `[route.response_headers]` and `[route.cors]`.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;
use upgrade_handler::origin::OriginPattern;

use super::document::{Document, describe};
use super::kind::{self, Boolean, Kind, List, Options, Text, noted};
use super::option::options;
use super::spec::{At, Shape};
use crate::site::auth::Reserved;
use crate::site::extras::{Cors, Field, FieldEdits, RequestFields};
use crate::site::template::{OF_FIELD, Placeholder, Template};

options! {
    /// The fields that the backend gets, in requests and in handshakes of WebSockets. Values may have `{client}`, `{host}`,
    /// `{port}`, `{path}`, `{query}`, `{rest}`, `{method}`, `{scheme}`, `{server_name}`, `{tls_version}`, `{request_id}`
    /// and `{upstream}` (the backend's own name). Where the host's certificate has `client_auth`, there are also
    /// `{certificate_subject}` (RFC 4514), `{certificate_fingerprint}` (SHA-256) and `{certificate}` (RFC 9440, for
    /// `Client-Cert`); a field with one of them is removed from every request, and sent if the client has shown a certificate.
    struct RequestHeaderOptions: "[route.request_headers]";

    /// Fields that are put in place of all others of their name. `Host` can be set, too.
    set: FieldTemplates, optional;
    /// Fields that are put beside the others of their name.
    add: FieldTemplates, optional;
    /// Fields that are removed.
    remove: List<FieldToRemove>, optional;
    /// Whether the backend gets `X-Request-Id`, which then is in the log, too. One of a trusted proxy is kept if it has at
    /// most 128 letters, digits, `.`, `_` and `-`.
    request_id: Boolean, default = false;
    /// Whether the backend gets `Forwarded` (RFC 7239) besides `X-Forwarded-For`.
    forwarded: Boolean, default = false;
    /// Whether the backend gets `X-Forwarded-Port`.
    forwarded_port: Boolean, default = false;
}

options! {
    /// The fields that clients get, with the values of `[route.request_headers]`. Strict-Transport-Security is sent over
    /// TLS only.
    struct ResponseHeaderOptions: "[route.response_headers]";

    /// Fields that are put in place of all others of their name.
    set: FieldTemplates, optional;
    /// Fields that are put beside the others of their name.
    add: FieldTemplates, optional;
    /// Fields that are removed.
    remove: List<FieldToRemove>, optional;
}

options! {
    /// What pages of other origins may do (CORS). The gateway answers preflight requests itself.
    struct CorsOptions: "[route.cors]";

    /// The origins whose pages may read the answers; `"*"`: every origin.
    origins: List<CorsOrigin>, required = "\"https://domain.com\"";
    /// The methods that pages may use.
    methods: List<kind::Method>, otherwise = "`[\"GET\", \"HEAD\", \"POST\"]`";
    /// The fields that pages may send besides those that every page may.
    headers: List<kind::Token>, optional;
    /// For how long browsers may remember the answer to a preflight request.
    max_age: kind::Duration, optional;
    /// Whether pages may send cookies and passwords.
    credentials: Boolean, default = false;
}

/// Fields with their values: a table of strings.
pub(super) struct FieldTemplates;

impl Kind for FieldTemplates {
    type Value = Vec<Field>;

    fn shape() -> Shape {
        let text = json!({ "type": "string" });
        let schema: Json = json!({
            "type": "object",
            "additionalProperties": { "anyOf": [text, { "type": "array", "items": text }] },
        });
        Shape::Value { words: "fields with their values, `{ \"X-App\" = \"chat\" }`".to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<Field>> {
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("expected {{ \"X-App\" = \"chat\" }}, found {}", describe(value.get_ref()));
            return noted(document, key, value, Err(what));
        };
        let mut fields = Some(Vec::new());
        for (name, value) in table {
            let spelled = name.get_ref();
            let values = match value.get_ref() {
                DeValue::Array(items) => items.iter().collect(),
                _ => vec![value],
            };
            for value in values {
                let field =
                    noted(document, &format!("{key}: {spelled}"), value, field(spelled, value.get_ref()));
                fields = fields.zip(field).map(|(mut fields, field)| {
                    fields.push(field);
                    fields
                });
            }
        }
        fields
    }
}

fn field(spelled: &str, value: &DeValue<'_>) -> Result<Field, String> {
    let name = field_name(spelled)?;
    let DeValue::String(text) = value else {
        return Err(format!("expected a string in quotes, found {}", describe(value)));
    };
    // The value is not repeated, since it may be a secret.
    if HeaderValue::from_str(text).is_err() || text.trim() != text.as_ref() {
        return Err("a value must be printable ASCII on one line, without blanks at its ends".to_owned());
    }
    let value = Template::parse(text, OF_FIELD)?;
    if value.contains(Placeholder::Upstream) && name != HOST {
        return Err("{upstream} is only for Host".to_owned());
    }
    Ok(Field { name, spelled: spelled.into(), value })
}

/// It belongs to a connection, frames a message, or is of the handshake of a WebSocket.
fn is_of_the_hop(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
        || name.as_str().starts_with("sec-websocket-")
}

/// A field of this name, in whatever case, can't be changed.
pub(crate) fn is_fixed(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| is_of_the_hop(&name) || name == DATE)
}

/// The name of a field that may be changed: not one that belongs to a connection or frames a message (RFC 9110 §7.6.1,
/// RFC 9112 §6), nor one of the handshake of a WebSocket.
pub(super) fn field_name(text: &str) -> Result<HeaderName, String> {
    let name =
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| "this is not the name of a field".to_owned())?;
    if is_of_the_hop(&name) {
        return Err(
            "this field belongs to the connection or to the form of the message, so it can't be changed"
                .to_owned(),
        );
    }
    if name == DATE {
        return Err("Date is sent with every answer, so it can't be changed".to_owned());
    }
    Ok(name)
}

/// The name of a field that only the gateway sets, so that clients can't send it.
pub(super) fn reserved_name(text: &str) -> Result<HeaderName, String> {
    let name = field_name(text).map_err(|what| format!("{text:?}: {what}"))?;
    if [HOST, AUTHORIZATION, COOKIE].contains(&name) {
        return Err(format!(
            "{text:?}: clients send this field themselves; choose another one, such as \"Remote-User\""
        ));
    }
    Ok(name)
}

/// The name of a field that is removed.
pub(super) struct FieldToRemove;

impl Text for FieldToRemove {
    type Value = HeaderName;

    fn words() -> String {
        "name of a field".to_owned()
    }

    fn parse(text: &str, _: &std::path::Path) -> Result<HeaderName, String> {
        let name = field_name(text).map_err(|what| format!("{text:?}: {what}"))?;
        if name == HOST { Err("every request has a Host; set it instead".to_owned()) } else { Ok(name) }
    }
}

/// An origin, or every one.
pub(super) struct CorsOrigin;

impl Text for CorsOrigin {
    type Value = Option<OriginPattern>;

    fn words() -> String {
        "origin, or `\"*\"`".to_owned()
    }

    fn parse(text: &str, _: &std::path::Path) -> Result<Option<OriginPattern>, String> {
        if text == "*" { Ok(None) } else { OriginPattern::parse(text).map(Some) }
    }
}

pub(super) fn request(d: &mut Document<'_>, section: RequestHeaderOptions) -> RequestFields {
    let (forwarded, forwarded_port) = (section.forwarded.value, section.forwarded_port.value);
    let request_id = section.request_id.value;
    if let Some(At { value: fields, place }) = &section.add
        && fields.iter().any(|field| field.name == HOST)
    {
        d.problem(*place, "add: a request has one Host; set it instead");
    }
    let edits = edits(section.set, section.add, section.remove);
    let mut about_client = Reserved::default();
    let of_client = edits.set.iter().chain(&edits.add).filter(|field| field.value.is_about_client());
    about_client.extend(of_client.map(|field| &field.name));
    RequestFields { edits, about_client, forwarded, forwarded_port, request_id }
}

pub(super) fn response(d: &mut Document<'_>, section: ResponseHeaderOptions) -> FieldEdits {
    for At { value: fields, place } in section.set.iter().chain(&section.add) {
        if fields.iter().any(|field| field.name == HOST) {
            d.problem(*place, "Host is a field of requests; write it in [route.request_headers]");
        }
    }
    edits(section.set, section.add, section.remove)
}

fn edits(
    set: Option<At<Vec<Field>>>,
    add: Option<At<Vec<Field>>>,
    remove: Option<At<Vec<HeaderName>>>,
) -> FieldEdits {
    let value = |at: Option<At<Vec<Field>>>| at.map(|at| at.value).unwrap_or_default();
    FieldEdits { remove: remove.map(|at| at.value).unwrap_or_default(), set: value(set), add: value(add) }
}

pub(super) fn cors(d: &mut Document<'_>, section: CorsOptions) -> Option<Cors> {
    let place = section.place_of("credentials");
    let At { value: origins, place: at } = section.origins?;
    if origins.is_empty() {
        d.problem(at, "origins: an empty list would let no page in; leave [route.cors] out instead");
    }
    let origins: Option<Vec<_>> = origins.into_iter().collect();
    let credentials = section.credentials.value;
    if credentials && origins.is_none() {
        // Fetch Standard, "CORS protocol and credentials".
        d.problem(place, "credentials: browsers refuse them together with origins = \"*\"; list the origins");
    }
    let methods = section.methods.map(|at| at.value.iter().map(ToString::to_string).collect::<Vec<_>>());
    let methods = methods.map_or("GET, HEAD, POST".to_owned(), |methods| methods.join(", "));
    let headers =
        section.headers.map(|at| at.value.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let max_age = section.max_age.map(|at| HeaderValue::from(at.value.as_secs()));
    Some(Cors {
        origins,
        methods: HeaderValue::try_from(methods).ok()?,
        headers: headers.and_then(|names| HeaderValue::try_from(names).ok()),
        max_age,
        credentials,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::config::tests::with_line;

    /// The problems of a file.
    fn parse(text: &str) -> Vec<String> {
        let (_, problems) = Config::parse(Path::new("/etc/wssgate/wssgate.toml"), text);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields() {
        let said = |section: &str, line: &str| parse(&with_line(section, line));
        let (request, response, cors) =
            ("[route.request_headers]", "[route.response_headers]", "[route.cors]");
        for (section, line) in [
            (request, "set = { Host = \"{upstream}\", X-Real-IP = \"{client}\", X-Two = [\"1\", \"2\"] }"),
            (request, "add = { Via = \"1.1 {server_name} {tls_version}\" }"),
            (request, "remove = [\"X-Debug\", \"via\"]"),
            (response, "set = { Strict-Transport-Security = \"max-age=63072000\" }"),
            (response, "remove = \"Server\""),
            (cors, "origins = \"*\""),
            (cors, "methods = [\"GET\", \"PUT\"]"),
        ] {
            assert_eq!(said(section, line), Vec::<String>::new(), "{line}");
        }
        for (section, line, says) in [
            (request, "set = \"X-App: chat\"", "set: expected { \"X-App\" = \"chat\" }, found the string"),
            (request, "set = { \"X App\" = \"x\" }", "set: X App: this is not the name of a field"),
            (request, "set = { X-App = 5 }", "set: X-App: expected a string in quotes, found the number 5"),
            (
                request,
                "set = { X-App = \"a\\nb\" }",
                "set: X-App: a value must be printable ASCII on one line",
            ),
            (request, "set = { X-App = \" a\" }", "without blanks at its ends"),
            (
                request,
                "set = { X-App = \"{certificate_issuer}\" }",
                "the placeholder {certificate_issuer} is not known here",
            ),
            (request, "set = { X-App = \"{upstream}\" }", "set: X-App: {upstream} is only for Host"),
            (
                request,
                "set = { Connection = \"close\" }",
                "set: Connection: this field belongs to the connection",
            ),
            (request, "set = { content-length = \"5\" }", "belongs to the connection"),
            (request, "add = { Transfer-Encoding = \"chunked\" }", "belongs to the connection"),
            (request, "add = { Host = \"a\" }", "add: a request has one Host; set it instead"),
            (request, "remove = [\"Host\"]", "remove: every request has a Host; set it instead"),
            (request, "remove = [\"Upgrade\"]", "remove: \"Upgrade\": this field belongs to the connection"),
            (request, "remove = \"Sec-WebSocket-Key\"", "belongs to the connection"),
            (response, "set = { Date = \"now\" }", "Date is sent with every answer"),
            (
                response,
                "set = { Host = \"a\" }",
                "Host is a field of requests; write it in [route.request_headers]",
            ),
            (response, "set = { Sec-WebSocket-Accept = \"a\" }", "belongs to the connection"),
            (cors, "origins = []", "origins: an empty list would let no page in"),
            (
                cors,
                "origins = \"*\"\ncredentials = true",
                "credentials: browsers refuse them together with origins",
            ),
            (cors, "origins = \"domain.com\"", "origins: "),
        ] {
            let problems = said(section, line);
            assert!(problems.len() == 1 && problems[0].contains(says), "{line}: {problems:#?}");
        }
        let no_server =
            "[[route]]\npath = \"/\"\nservice = \"echo\"\nrequest_headers = { request_id = true }\n";
        let problems = parse(no_server);
        assert!(
            problems.iter().any(|what| what.contains("request_headers has no meaning for a service")),
            "{problems:#?}"
        );
    }
}

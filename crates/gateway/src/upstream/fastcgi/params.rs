//! The variables of a request (RFC 3875 §4.1), and how FastCGI encodes them (specification 1.0, §3.4).
//!
//! In: the head of a request as it is sent to servers, and what is known of it. Out: names and values, each behind its
//! length. Refused: nothing; fields whose names would be the same as those of others are [removed](remove_odd_names)
//! before. Pure.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
};
use http::{Version, request};

use crate::net::fields::remove_where;
use crate::site::host::Host;
use crate::upstream::forward::{address_field, append_lines};

/// Room for the variables of most requests.
const VARIABLES_LEN: usize = 2048;
/// The shortest length that needs four bytes.
const LONG: usize = 0x80;

/// What no variable has the value of: it is about the connection, or has a variable of another name.
const LEFT_OUT: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TE, TRAILER];

/// What a script is told about a request besides its fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// The directory of the scripts, as the server knows it, without a slash at the end.
    pub document_root: &'a [u8],
    /// The script, relative to that.
    pub script: &'a [u8],
    /// The path of the route, without a slash at the end: what stands for the directory in URLs.
    pub prefix: &'a str,
    /// The path and the query as the client has sent them.
    pub uri: &'a str,
    /// The version that the client speaks.
    pub version: Version,
    /// The client's connection is encrypted.
    pub https: bool,
    /// The host that was asked for.
    pub host: &'a Host,
    /// The client.
    pub client: IpAddr,
    /// Its port, if that is known.
    pub client_port: Option<u16>,
    /// Where the gateway was asked; `None`: over a Unix socket.
    pub local: Option<SocketAddr>,
    /// The length of the body; `None`: there is none.
    pub body_len: Option<u64>,
    /// Who the client is, as the gateway has found out.
    pub user: Option<&'a str>,
}

/// Removes fields whose names have other characters than letters, digits and `-`. `X_A`, `X.A` and `X-A` would all
/// become `HTTP_X_A`, so that a client could send what only the gateway or another proxy may.
pub(crate) fn remove_odd_names(headers: &mut HeaderMap) {
    remove_where(headers, |name| name.as_str().bytes().any(|b| !b.is_ascii_alphanumeric() && b != b'-'));
}

/// Encodes the variables. `lines` are further fields, as the wire of HTTP/1.1 has them.
#[must_use]
pub(crate) fn variables(head: &mut request::Parts, lines: &[u8], about: &About<'_>) -> Vec<u8> {
    append_lines(lines, &mut head.headers);
    let mut out = Vec::with_capacity(VARIABLES_LEN);
    let (path, query) = about.uri.split_once('?').unwrap_or((about.uri, ""));
    let script_name = [about.prefix.as_bytes(), b"/", about.script].concat();
    let script_filename = [about.document_root, b"/", about.script].concat();
    put("GATEWAY_INTERFACE", b"CGI/1.1", &mut out);
    put("SERVER_SOFTWARE", concat!("wssgate/", env!("CARGO_PKG_VERSION")).as_bytes(), &mut out);
    put("REQUEST_METHOD", head.method.as_str().as_bytes(), &mut out);
    put("REQUEST_URI", about.uri.as_bytes(), &mut out);
    put("QUERY_STRING", query.as_bytes(), &mut out);
    put("DOCUMENT_URI", path.as_bytes(), &mut out);
    put("SCRIPT_NAME", &script_name, &mut out);
    put("SCRIPT_FILENAME", &script_filename, &mut out);
    put("DOCUMENT_ROOT", about.document_root, &mut out);
    let protocol = match about.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    };
    put("SERVER_PROTOCOL", protocol.as_bytes(), &mut out);
    put("REQUEST_SCHEME", if about.https { b"https" } else { b"http" }, &mut out);
    if about.https {
        put("HTTPS", b"on", &mut out);
    }
    put_places(about, &mut out);
    // php-cgi runs nothing without it, unless it is told otherwise: it says that a server has sent it here.
    put("REDIRECT_STATUS", b"200", &mut out);
    if let Some(len) = about.body_len {
        put("CONTENT_LENGTH", len.to_string().as_bytes(), &mut out);
    }
    if let Some(content_type) = head.headers.get(CONTENT_TYPE) {
        put("CONTENT_TYPE", content_type.as_bytes(), &mut out);
    }
    if let Some(user) = about.user {
        put("REMOTE_USER", user.as_bytes(), &mut out);
    }
    for name in head.headers.keys().filter(|name| !LEFT_OUT.contains(name)) {
        put_field(name, &head.headers, &mut out);
    }
    out
}

/// Who asks whom. Name and port are those of the URL, which scripts make other URLs of.
fn put_places(about: &About<'_>, out: &mut Vec<u8>) {
    put("REMOTE_ADDR", address_field(about.client).as_bytes(), out);
    if let Some(port) = about.client_port {
        put("REMOTE_PORT", port.to_string().as_bytes(), out);
    }
    let address = about.local.map(|local| local.ip().to_canonical().to_string());
    if let Some(address) = &address {
        put("SERVER_ADDR", address.as_bytes(), out);
    }
    let name = match &*about.host.name {
        "" => address.as_deref().unwrap_or("localhost"),
        name => name,
    };
    put("SERVER_NAME", name.as_bytes(), out);
    let field = about.host.field.to_str().unwrap_or_default();
    let port = field.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.is_empty());
    let port = port.filter(|port| port.bytes().all(|b| b.is_ascii_digit())); // not a part of an IPv6 address
    put("SERVER_PORT", port.unwrap_or(if about.https { "443" } else { "80" }).as_bytes(), out);
}

/// `HTTP_` and the name of the field (RFC 3875 §4.1.18), with all its values in one (RFC 9110 §5.3).
fn put_field(name: &HeaderName, headers: &HeaderMap, out: &mut Vec<u8>) {
    let mut variable = String::with_capacity(5 + name.as_str().len());
    variable.push_str("HTTP_");
    for c in name.as_str().chars() {
        variable.push(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    }
    let mut values = headers.get_all(name).into_iter();
    let (first, second) = (values.next(), values.next());
    match (first, second) {
        (Some(only), None) => put(&variable, only.as_bytes(), out),
        _ => {
            let between = if *name == COOKIE { &b"; "[..] } else { b", " };
            let all: Vec<_> = headers.get_all(name).into_iter().map(HeaderValue::as_bytes).collect();
            put(&variable, &all.join(between), out);
        }
    }
}

fn put(name: &str, value: &[u8], out: &mut Vec<u8>) {
    for len in [name.len(), value.len()] {
        match u8::try_from(len) {
            Ok(short) if len < LONG => out.push(short),
            _ => {
                let long = u32::try_from(len).unwrap_or(u32::MAX) | 1 << 31;
                out.extend_from_slice(&long.to_be_bytes());
            }
        }
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::Request;
    use proptest::prelude::*;

    use super::*;

    /// Takes pairs apart, as a server does.
    fn pairs(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        fn take_len(bytes: &mut &[u8]) -> usize {
            let is_short = bytes[0] < 0x80;
            let (len, rest) = bytes.split_at(if is_short { 1 } else { 4 });
            *bytes = rest;
            if is_short {
                return len[0].into();
            }
            (u32::from_be_bytes(len.try_into().unwrap()) & !(1 << 31)).try_into().unwrap()
        }
        let mut pairs = Vec::new();
        while !bytes.is_empty() {
            let (name_len, value_len) = (take_len(&mut bytes), take_len(&mut bytes));
            let (name, rest) = bytes.split_at(name_len);
            let (value, rest) = rest.split_at(value_len);
            pairs.push((String::from_utf8(name.to_vec()).unwrap(), value.to_vec()));
            bytes = rest;
        }
        pairs
    }

    fn about(host: &Host) -> About<'_> {
        About {
            document_root: b"/srv/www",
            script: b"admin/index.php",
            prefix: "/blog",
            uri: "/blog/admin/?a=b?c",
            version: Version::HTTP_2,
            https: true,
            host,
            client: "::ffff:192.0.2.7".parse().unwrap(),
            client_port: Some(4711),
            local: Some("10.0.0.1:8443".parse().unwrap()),
            body_len: Some(5),
            user: None,
        }
    }

    fn variables_of(head: &[(&str, &str)], lines: &str, about: &About<'_>) -> BTreeMap<String, String> {
        let mut request = Request::post("/x");
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        remove_odd_names(&mut head.headers);
        let pairs = pairs(&variables(&mut head, lines.as_bytes(), about));
        let count = pairs.len();
        let variables: BTreeMap<_, _> =
            pairs.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect();
        assert_eq!(variables.len(), count, "no variable is there twice");
        variables
    }

    #[test]
    fn what_a_script_is_told() {
        let host = Host::parse(&HeaderValue::from_static("Domain.com:8443")).unwrap();
        let fields = [
            ("host", "Domain.com:8443"),
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("accept", "a"),
            ("accept", "b"),
            ("te", "trailers"),
            ("connection", "TE"),
            ("expect", "100-continue"),
            ("x_odd", "1"),
            ("x.odd", "1"),
            ("via", "1.1 first"),
        ];
        let variables = variables_of(
            &fields,
            "X-Real-IP: 192.0.2.7\r\nVia: 2.0 wssgate\r\nX_Own:  y \r\n",
            &about(&host),
        );
        let expect = [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", concat!("wssgate/", env!("CARGO_PKG_VERSION"))),
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", "/blog/admin/?a=b?c"),
            ("QUERY_STRING", "a=b?c"),
            ("DOCUMENT_URI", "/blog/admin/"),
            ("SCRIPT_NAME", "/blog/admin/index.php"),
            ("SCRIPT_FILENAME", "/srv/www/admin/index.php"),
            ("DOCUMENT_ROOT", "/srv/www"),
            ("SERVER_PROTOCOL", "HTTP/2.0"),
            ("REQUEST_SCHEME", "https"),
            ("HTTPS", "on"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "4711"),
            ("SERVER_ADDR", "10.0.0.1"),
            ("SERVER_NAME", "domain.com"),
            ("SERVER_PORT", "8443"),
            ("REDIRECT_STATUS", "200"),
            ("CONTENT_LENGTH", "5"),
            ("CONTENT_TYPE", "text/plain"),
            ("HTTP_HOST", "Domain.com:8443"),
            ("HTTP_ACCEPT", "a, b"),
            ("HTTP_VIA", "1.1 first, 2.0 wssgate"),
            ("HTTP_X_REAL_IP", "192.0.2.7"),
            ("HTTP_X_OWN", "y"),
        ];
        assert_eq!(variables, expect.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let none = Host::none();
        let about = About {
            https: false,
            version: Version::HTTP_10,
            client_port: None,
            local: None,
            body_len: None,
            user: Some("ada"),
            prefix: "",
            uri: "/",
            ..about(&none)
        };
        let variables = variables_of(&[], "", &about);
        for name in ["HTTPS", "REMOTE_PORT", "SERVER_ADDR", "CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO"] {
            assert!(!variables.contains_key(name), "{name}");
        }
        for (name, value) in [
            ("SERVER_PROTOCOL", "HTTP/1.0"),
            ("SERVER_NAME", "localhost"),
            ("SERVER_PORT", "80"),
            ("QUERY_STRING", ""),
            ("SCRIPT_NAME", "/admin/index.php"),
            ("REMOTE_USER", "ada"),
        ] {
            assert_eq!(variables[name], value, "{name}");
        }
    }

    #[test]
    fn the_port_is_that_of_the_url() {
        for (field, https, port) in [
            ("a", true, "443"),
            ("a", false, "80"),
            ("a:81", true, "81"),
            ("a:", true, "443"),
            ("[::1]", true, "443"),
            ("[::1]:444", true, "444"),
        ] {
            let host = Host::parse(&HeaderValue::from_static(field)).unwrap();
            let variables = variables_of(&[], "", &About { https, ..about(&host) });
            assert_eq!(variables["SERVER_PORT"], port, "{field}");
        }
    }

    proptest! {
        #[test]
        fn pairs_of_any_length_come_apart_again(
            values in proptest::collection::vec("[ -~]{0,3}|[a-z]{126,129}|[a-z]{300}", 0..5),
        ) {
            let mut out = Vec::new();
            for value in &values {
                put("NAME", value.as_bytes(), &mut out);
                put(&value.to_uppercase(), b"v", &mut out);
            }
            let expect = values.iter().flat_map(|value| {
                [("NAME".to_owned(), value.clone().into_bytes()), (value.to_uppercase(), b"v".to_vec())]
            });
            prop_assert_eq!(pairs(&out), expect.collect::<Vec<_>>());
        }

        #[test]
        fn no_field_of_a_client_is_one_of_another_name(name in "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}") {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
            remove_odd_names(&mut headers);
            for name in headers.keys() {
                let mut out = Vec::new();
                put_field(name, &headers, &mut out);
                let variable = &pairs(&out)[0].0;
                prop_assert_eq!(variable, &format!("HTTP_{}", name.as_str().to_uppercase().replace('-', "_")));
            }
        }
    }
}

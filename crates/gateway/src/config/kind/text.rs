//! What is written as a string: words, files, addresses, names.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::value::{Kind, Show, noted};
use crate::config::document::{Document, describe};
use crate::config::spec::Shape;
use crate::config::{secret, values};

/// A kind that is written as a string.
pub(in crate::config) trait Text {
    type Value;

    /// What it is, in words.
    fn words() -> String;

    /// Reads it. Relative paths are relative to `base`.
    fn parse(text: &str, base: &Path) -> Result<Self::Value, String>;

    /// What to write in place of a value that is no string.
    fn no_string(value: &DeValue<'_>) -> String {
        format!("expected a string in quotes, found {}", describe(value))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl<T: Text> Kind for T {
    type Value = T::Value;

    fn shape() -> Shape {
        Shape::Value { words: T::words(), schema: T::schema() }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Self::Value> {
        let read = match value.get_ref() {
            DeValue::String(text) => T::parse(text, document.base(value)),
            other => Err(T::no_string(other)),
        };
        noted(document, key, value, read)
    }
}

/// Words of which one is written.
pub(in crate::config) trait Words {
    type Value: Copy + PartialEq + 'static;
    const WORDS: &'static [(&'static str, Self::Value)];
    /// What to say besides to a word that is none of them.
    const HINT: &'static str = "";
}

/// One of a few words.
pub(in crate::config) struct OneOf<W>(PhantomData<W>);

/// `a, b or c`, each between `quotes`.
fn alternatives<W: Words>(before: &str, after: &str) -> String {
    let words: Vec<_> = W::WORDS.iter().map(|(word, _)| format!("{before}{word}{after}")).collect();
    match &words[..] {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        words => words.concat(),
    }
}

impl<W: Words> Text for OneOf<W> {
    type Value = W::Value;

    fn words() -> String {
        alternatives::<W>("`\"", "\"`")
    }

    fn parse(text: &str, _: &Path) -> Result<W::Value, String> {
        let word = W::WORDS.iter().find(|(word, _)| *word == text);
        word.map(|(_, value)| *value)
            .ok_or_else(|| format!("expected {}, found {text:?}{}", alternatives::<W>("\"", "\""), W::HINT))
    }

    fn schema() -> Json {
        json!({ "enum": W::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }
}

impl<W: Words> Show for OneOf<W> {
    fn show(value: &W::Value) -> Json {
        W::WORDS.iter().find(|(_, other)| other == value).map(|(word, _)| *word).into()
    }
}

/// The name of a file or directory, relative to the configuration.
pub(in crate::config) struct File;

impl Text for File {
    type Value = PathBuf;

    fn words() -> String {
        "file".to_owned()
    }

    fn parse(text: &str, base: &Path) -> Result<PathBuf, String> {
        let path = base.join(text);
        // The name would be repeated in messages, so it must not be the secret itself.
        if secret::is_likely(text) && !path.exists() {
            return Err(
                "expected the name of a file, found what may be the key itself; write it to a file that \
                        only the gateway's user can read (chmod 600), and name that one here"
                    .to_owned(),
            );
        }
        Ok(path)
    }
}

/// The path of a Unix socket, relative to the configuration.
pub(in crate::config) struct SocketPath;

impl Text for SocketPath {
    type Value = PathBuf;

    fn words() -> String {
        "path".to_owned()
    }

    fn parse(text: &str, base: &Path) -> Result<PathBuf, String> {
        match text {
            "" => {
                Err("expected a path such as \"/run/wssgate/control.sock\", found an empty string".to_owned())
            }
            text => File::parse(text, base),
        }
    }
}

impl Show for SocketPath {
    fn show(value: &PathBuf) -> Json {
        value.display().to_string().into()
    }
}

/// A kind that is what one function reads, with nothing to add to it.
macro_rules! text {
    ($(#[doc = $doc:literal])+ $name:ident -> $value:ty, $words:literal, $parse:expr) => {
        $(#[doc = $doc])+
        pub(in crate::config) struct $name;

        impl Text for $name {
            type Value = $value;

            fn words() -> String {
                $words.to_owned()
            }

            fn parse(text: &str, _: &Path) -> Result<$value, String> {
                $parse(text)
            }
        }
    };
}

text!(
    /// Where a listener listens.
    ListenAddress -> crate::net::listening::ListenAddress, "IP address and port, or `unix:` and a path", values::listen_address
);
text!(
    /// A DNS server.
    DnsServer -> std::net::SocketAddr, "IP address, with or without a port", values::dns_server
);
text!(
    /// Where connections come from.
    SourceAddress -> std::net::IpAddr, "IP address", values::source_address
);
text!(
    /// An IP address, or a network.
    Network -> ipnet::IpNet, "IP address or network", values::network
);
text!(
    /// A route's host.
    Host -> crate::site::host::HostPattern, "host name, exact or `\"*.domain.com\"`", values::host
);
text!(
    /// A route's path.
    PathPrefix -> crate::site::path::RoutePath, "path", values::path
);
text!(
    /// The address of a server, which is read when more is known.
    Server -> Box<str>, "`http://`, `https://`, `ws://`, `wss://` or `unix:` address", |text: &str| Ok(text.trim().into())
);
text!(
    /// The server of a route, or the name of an upstream.
    Target -> Box<str>, "`http://`, `https://`, `ws://`, `wss://`, `unix:` or `tcp://` address, or the name of an `[[upstream]]`", |text: &str| {
        Ok(text.trim().into())
    }
);
text!(
    /// A server of FastCGI, or the name of an upstream.
    FastcgiServer -> Box<str>, "`unix:/path`, `host:port`, or the name of an `[[upstream]]`", |text: &str| {
        Ok(text.trim().into())
    }
);
text!(
    /// The path of a probe.
    ProbePath -> Box<str>, "path", values::probe_path
);
text!(
    /// What a hash is made of.
    HashBy -> crate::site::balance::HashKey, "`\"client\"`, `\"header:NAME\"`, `\"cookie:NAME\"` or `\"query:NAME\"`",
    values::hash_key
);
text!(
    /// A backend's name for TLS.
    TlsName -> tls_acceptor::ServerName, "host name or IP address", values::tls_name
);
text!(
    /// What a path is rewritten to, which is read when the route's path is known.
    PathTemplate -> String, "path, which may have `{rest}`, or `{1}` with `path_regex`", |text: &str| Ok(text.to_owned())
);
text!(
    /// Names of files, with patterns.
    Files -> String, "file, or pattern such as `\"sites/*.toml\"`", values::files
);
text!(
    /// A text that is read when more is known.
    PlainText -> String, "text", |text: &str| Ok(text.to_owned())
);
text!(
    /// A media type (RFC 9110 §8.3.1).
    MediaType -> http::HeaderValue, "media type", values::media_type
);
text!(
    /// A route's path that matches itself alone.
    ExactPath -> crate::site::path::ExactPath, "path", values::exact_path
);
text!(
    /// A pattern of paths.
    PathRegex -> crate::site::matcher::PathRegex, "regular expression", values::path_regex
);
text!(
    /// A method of requests.
    Method -> http::Method, "method, such as `\"GET\"`", values::method
);
text!(
    /// A name that the configuration gives to one of its parts.
    Name -> std::sync::Arc<str>, "name", values::name
);
text!(
    /// The name of a listener, which may be its address.
    ListenerName -> std::sync::Arc<str>, "name of a listener", |text: &str| Ok(text.into())
);
text!(
    /// So many in so much time.
    Frequency -> crate::site::rate::Rate, "`\"50/s\"`, `\"600/m\"` or `\"1000/h\"`", values::frequency
);
text!(
    /// What is counted as one client.
    Per -> crate::site::access::Per, "`\"client\"`, `\"subject\"` or `\"header:NAME\"`", values::per
);
text!(
    /// A token (RFC 9110 §5.6.2), such as a subprotocol.
    Token -> Box<str>, "name", values::token
);
text!(
    /// A protocol that HTTP/1.1 can be upgraded to.
    Protocol -> Box<str>, "protocol", values::protocol
);
text!(
    /// A name that certificates are issued for.
    CertificateName -> tls_acceptor::CertName, "host name or IP address", values::certificate_name
);
text!(
    /// Where a page that opens a WebSocket may come from.
    Origin -> upgrade_handler::origin::OriginPattern, "origin", upgrade_handler::origin::OriginPattern::parse
);

impl Show for Per {
    fn show(value: &crate::site::access::Per) -> Json {
        match value {
            crate::site::access::Per::Client => "client".into(),
            crate::site::access::Per::Subject => "subject".into(),
            crate::site::access::Per::Header(name) => format!("header:{name}").into(),
        }
    }
}

impl Show for ListenAddress {
    fn show(value: &crate::net::listening::ListenAddress) -> Json {
        value.to_string().into()
    }
}

impl Show for HashBy {
    fn show(value: &crate::site::balance::HashKey) -> Json {
        value.to_string().into()
    }
}

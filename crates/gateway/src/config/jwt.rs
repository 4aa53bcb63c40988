//! `[route.access.jwt]`: tokens that say who sends a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::document::{Document, describe};
use super::fields::field_name;
use super::file;
use super::kind::{self, Boolean, Kind, List, Options, Text, noted};
use super::model::Config;
use super::option::options;
use super::problem::Problem;
use super::server_url;
use super::spec::{At, Shape};
use crate::site::auth::Auth;
use crate::site::jwt::Jwt;
use crate::site::jwt::place::TokenPlace;
use crate::site::jwt::source::{KeySource, KeyUrl, TokenKeys};
use crate::site::written::Stamp;

/// No set of keys comes near it. In bytes.
pub(crate) const KEYS_LEN_MAX: usize = 1024 * 1024;
/// What holds for `timeout` and `refresh` where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(5);
const REFRESH: Duration = Duration::from_secs(600);

options! {
    /// Tokens (JWT) that every request of the route needs. A token needs `exp`; `nbf` is obeyed. A WebSocket ends with 3000
    /// when its token expires. Without a good token the answer is 401. The token is taken out of the request.
    struct JwtOptions: "[route.access.jwt]";

    /// The public keys of the issuer: a file or the URL of a JWK set, or a key in PEM. A key is used for its own algorithms:
    /// RS and PS, ES256, ES384, EdDSA, and HS for secrets of 32 bytes or more (`"kty": "oct"`). A file that changes is
    /// read again. A URL is fetched at the start, which waits for it for up to 5 s; until its keys have come, requests get
    /// 503. It is fetched again when its answer is no longer good (`max-age`, a minute at least), after `refresh` at the latest,
    /// and at most once a minute when a token names a key that is not known. If that fails, the keys that there are stay in use.
    /// When a key is gone, WebSockets whose tokens named it end with 3000.
    jwks: KeysFrom, required = "\"keys.json\"";
    /// With a URL: how long after the last time the keys are fetched again at the latest.
    refresh: kind::Duration, default = REFRESH;
    /// With a URL: how long its answer may take.
    timeout: kind::Duration, default = TIMEOUT;
    /// With a URL that begins with `https://`: files with certificates of authorities, of which one has to have issued its
    /// certificate.
    ca: List<kind::File>, otherwise = "the authorities that the system trusts";
    /// Tokens have to have one of these as `iss`.
    issuer: List<kind::PlainText>, otherwise = "any";
    /// Tokens have to have one of these in `aud`.
    audience: List<kind::PlainText>, otherwise = "any";
    /// Where tokens are: in `Authorization` (`"header"`), `"cookie:NAME"`, `"query:NAME"`, or in the name of a subprotocol
    /// behind `"subprotocol:PREFIX"`, beside which the client has to offer another one. The first that there is counts.
    from: List<TokenFrom>, otherwise = "`[\"header\"]`";
    /// Claims that the backend gets, and the fields it gets them in: texts as they are, others as JSON. Clients can't
    /// send these fields.
    headers: ClaimFields, optional;
    /// Whether the backend gets a token that came in `Authorization` or in a cookie. Others it never gets.
    pass_token: Boolean, default = false;
}

/// What keys are read from.
pub(super) struct KeysFrom;

/// A file, or a URL as it is written.
pub(super) enum WrittenSource {
    File(PathBuf),
    Url(String),
}

impl Text for KeysFrom {
    type Value = WrittenSource;

    fn words() -> String {
        "file, or `http://` or `https://` address".to_owned()
    }

    fn parse(text: &str, base: &Path) -> Result<WrittenSource, String> {
        match text.split_once("://") {
            Some(("http" | "https", _)) => Ok(WrittenSource::Url(text.to_owned())),
            Some(_) => {
                Err(format!("expected a file, or an address with http:// or https://, found {text:?}"))
            }
            None => kind::File::parse(text, base).map(WrittenSource::File),
        }
    }
}

/// A place of tokens.
pub(super) struct TokenFrom;

impl Text for TokenFrom {
    type Value = TokenPlace;

    fn words() -> String {
        "`\"header\"`, `\"cookie:NAME\"`, `\"query:NAME\"` or `\"subprotocol:PREFIX\"`".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<TokenPlace, String> {
        TokenPlace::parse(text).ok_or_else(|| {
            format!(
                "expected \"header\", or a place such as \"cookie:token\", \"query:token\" or \"subprotocol:bearer.\", \
                 found {text:?}"
            )
        })
    }
}

/// Claims with the names of fields.
pub(super) struct ClaimFields;

impl Kind for ClaimFields {
    type Value = Vec<(Box<str>, HeaderName)>;

    fn shape() -> Shape {
        let schema: Json = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        Shape::Value { words: "claims with fields, `{ sub = \"X-User\" }`".to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Self::Value> {
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("expected {{ sub = \"X-User\" }}, found {}", describe(value.get_ref()));
            return noted(document, key, value, Err(what));
        };
        let mut fields = Some(Vec::new());
        for (claim, value) in table {
            let claim = claim.get_ref();
            let name = match value.get_ref() {
                DeValue::String(text) => field_name(text),
                other => Err(format!("expected the name of a field in quotes, found {}", describe(other))),
            };
            let name = noted(document, &format!("{key}: {claim}"), value, name);
            fields = fields.zip(name).map(|(mut fields, name)| {
                fields.push((claim.as_ref().into(), name));
                fields
            });
        }
        fields
    }
}

pub(super) fn read(d: &mut Document<'_>, section: JwtOptions, auth: &mut Auth) {
    for (key, is_empty) in [
        ("issuer", section.issuer.as_ref().is_some_and(|at| at.value.is_empty())),
        ("audience", section.audience.as_ref().is_some_and(|at| at.value.is_empty())),
        ("from", section.from.as_ref().is_some_and(|at| at.value.is_empty())),
    ] {
        if is_empty {
            d.problem(
                section.place_of(key),
                format!("{key}: an empty list would refuse every token; leave it out"),
            );
        }
    }
    if let Some(At { value: WrittenSource::File(_), .. }) = section.jwks {
        for key in ["refresh", "timeout", "ca"].into_iter().filter(|key| section.has(key)) {
            d.problem(section.place_of(key), format!("{key}: a file of keys needs none; remove it"));
        }
    }
    let Some(At { value: written, place: at }) = section.jwks else { return };
    let source = match written {
        WrittenSource::File(path) => KeySource::File(path),
        WrittenSource::Url(url) => {
            let (endpoint, uri) =
                match server_url::read(d, "jwks", &At { value: url, place: at }, section.ca.as_ref()) {
                    Some(read) => read,
                    None => return,
                };
            let (timeout, refresh) = (section.timeout.value, section.refresh.value);
            KeySource::Url(Arc::new(KeyUrl { endpoint, uri, timeout, refresh }))
        }
    };
    let texts = |option: Option<At<Vec<String>>>| {
        option.map(|at| at.value.into_iter().map(Into::into).collect()).unwrap_or_default()
    };
    let fields = section.headers.map(|at| at.value).unwrap_or_default();
    auth.reserved.extend(fields.iter().map(|(_, name)| name));
    auth.jwt = Some(Jwt {
        keys: Arc::new(TokenKeys::new(source, at)),
        issuers: texts(section.issuer),
        audiences: texts(section.audience),
        places: section.from.map_or_else(|| vec![TokenPlace::Header], |at| at.value),
        fields,
        is_passed: section.pass_token.value,
    });
}

impl Config {
    /// Reads the files of keys for tokens; blocks. Returns what is wrong with them.
    #[must_use]
    pub fn read_token_keys(&self) -> Vec<Problem> {
        let auth = self.routes.iter().filter_map(|route| route.access.as_ref()?.auth.as_ref()?.jwt.as_ref());
        auth.filter_map(|jwt| {
            let KeySource::File(path) = &jwt.keys.source else { return None };
            let what = read_keys(&jwt.keys, path, file::stamp(path)).err()?;
            Some(self.problem(jwt.keys.written_at, format!("jwks: {} {what}", path.display())))
        })
        .collect()
    }
}

/// Reads a file of keys, and says whether a key that there was is gone; blocks.
fn read_keys(keys: &TokenKeys, path: &Path, stamp: Stamp) -> Result<bool, String> {
    match file::read(path, KEYS_LEN_MAX as u64).map(|content| content.bytes) {
        Ok(Some(text)) => keys.use_text(&text, stamp).map_err(str::to_owned),
        Ok(None) => Err("is longer than 1 MiB".to_owned()),
        Err(e) => Err(format!("can't be read: {e}")),
    }
}

/// A file of keys has changed.
pub(crate) struct KeysChange {
    /// Which.
    pub file: PathBuf,
    /// The keys in use are those that it has now, and whether one that there was is gone; or why they are not.
    pub result: Result<bool, String>,
}

/// Reads a file of keys again if it has changed; blocks. `None`: it has not.
pub(crate) fn look_again(keys: &TokenKeys) -> Option<KeysChange> {
    let KeySource::File(path) = &keys.source else { return None };
    let stamp = file::stamp(path); // first: what changes after it is seen the next time
    if stamp == keys.stamp() {
        return None;
    }
    Some(KeysChange { file: path.clone(), result: read_keys(keys, path, stamp) })
}

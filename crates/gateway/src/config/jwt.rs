//! `[route.access.jwt]`: tokens that say who sends a request.

use std::path::Path;
use std::sync::Arc;

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
use super::spec::{At, Shape};
use crate::site::auth::Auth;
use crate::site::jwt::place::TokenPlace;
use crate::site::jwt::{Jwt, KeyFile};

/// No set of keys comes near it.
const FILE_LEN_MAX: u64 = 1024 * 1024;

options! {
    /// Tokens (JWT) that every request of the route needs. A token needs `exp`; `nbf` is obeyed. A WebSocket ends with 3000
    /// when its token expires. Without a good token the answer is 401. The token is taken out of the request.
    struct JwtOptions: "[route.access.jwt]";

    /// The file with the public keys of the issuer: a JWK set, or a key in PEM. A key is used for its own algorithms:
    /// RS and PS, ES256, ES384, EdDSA, and HS for
    /// secrets of 32 bytes or more (`"kty": "oct"`).
    jwks: kind::File, required = "\"keys.json\"";
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
    let Some(At { value: path, place: at }) = section.jwks else { return };
    let texts = |option: Option<At<Vec<String>>>| {
        option.map(|at| at.value.into_iter().map(Into::into).collect()).unwrap_or_default()
    };
    let fields = section.headers.map(|at| at.value).unwrap_or_default();
    auth.reserved.extend(fields.iter().map(|(_, name)| name));
    auth.jwt = Some(Jwt {
        keys: Arc::new(KeyFile::new(path, at)),
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
            let file = &jwt.keys;
            let problem = |what: &str| {
                Some(self.problem(file.written_at, format!("jwks: {} {what}", file.path.display())))
            };
            match file::read(&file.path, FILE_LEN_MAX).map(|content| content.bytes) {
                Ok(Some(text)) => file.use_text(&text).err().and_then(problem),
                Ok(None) => problem("is longer than 1 MiB"),
                Err(e) => problem(&format!("can't be read: {e}")),
            }
        })
        .collect()
    }
}

//! What a server says first, and what it is told then. Pure.

use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use super::url::NatsUrl;

#[derive(Debug, Deserialize)]
pub(super) struct Info {
    #[serde(default)]
    pub(super) tls_required: bool,
    pub(super) max_payload: usize,
    /// What a key has to sign.
    nonce: Option<String>,
}

/// Nothing comes back that was published by this connection.
#[derive(Serialize)]
pub(super) struct Login<'a> {
    verbose: bool,
    pedantic: bool,
    echo: bool,
    tls_required: bool,
    lang: &'a str,
    version: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// There is a key, and nothing to sign.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server asks for no signature: nobody logs in there by an nkey or a JWT")]
pub(super) struct NoNonce;

impl<'a> Login<'a> {
    pub(super) fn new(
        url: &'a NatsUrl,
        credentials: Option<&'a Credentials>,
        info: &Info,
        tls_required: bool,
    ) -> Result<Self, NoNonce> {
        let NatsUrl { user, secret, .. } = url;
        let (pass, auth_token) = if user.is_some() { (secret, &None) } else { (&None, secret) };
        let (mut jwt, mut nkey, mut sig) = (None, None, None);
        if let Some(Credentials { jwt: file_jwt, key }) = credentials {
            sig = Some(key.sign(info.nonce.as_deref().ok_or(NoNonce)?));
            jwt = file_jwt.as_deref();
            nkey = jwt.is_none().then(|| key.public()); // a JWT says whose it is
        }
        Ok(Self {
            verbose: false,
            pedantic: false,
            echo: false,
            tls_required,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            name: env!("CARGO_PKG_NAME"),
            user: user.as_deref(),
            pass: pass.as_deref(),
            auth_token: auth_token.as_deref(),
            jwt,
            nkey,
            sig,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::nkey::{EXAMPLE, NKey};
    use super::*;

    fn login(url: &str, jwt: Option<Option<&str>>, info: &str) -> Result<Value, NoNonce> {
        let url = NatsUrl::parse(url).unwrap().unwrap();
        let credentials = jwt
            .map(|jwt| Credentials { jwt: jwt.map(ToOwned::to_owned), key: NKey::parse(EXAMPLE).unwrap() });
        let info: Info = serde_json::from_str(info).unwrap();
        let login = Login::new(&url, credentials.as_ref(), &info, false)?;
        Ok(serde_json::to_value(login).unwrap())
    }

    #[test]
    fn a_server_is_told_who_logs_in() {
        let info = r#"{"max_payload":1048576,"nonce":"abc","more":[]}"#;
        let beside = ["verbose", "pedantic", "echo", "tls_required", "lang", "version", "name"];
        let said = |url: &str, jwt| {
            let Value::Object(mut said) = login(url, jwt, info).unwrap() else { panic!("no object") };
            beside.iter().for_each(|name| assert!(said.remove(*name).is_some(), "{name}"));
            Value::Object(said)
        };
        assert_eq!(said("nats://a.test", None), json!({}));
        assert_eq!(said("nats://ann:p%40ss@a.test", None), json!({"user": "ann", "pass": "p@ss"}));
        assert_eq!(said("nats://t%40ken@a.test", None), json!({"auth_token": "t@ken"}));
        let key = NKey::parse(EXAMPLE).unwrap();
        let (sig, jwt) = (key.sign("abc"), "eyJ0.eyJq.c2ln");
        assert_eq!(said("nats://a.test", Some(None)), json!({"nkey": key.public(), "sig": sig}));
        assert_eq!(said("nats://a.test", Some(Some(jwt))), json!({"jwt": jwt, "sig": sig}));
        assert_eq!(login("nats://a.test", Some(None), r#"{"max_payload":1}"#), Err(NoNonce));
    }
}

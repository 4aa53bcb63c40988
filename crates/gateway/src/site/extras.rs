//! What a route does besides its action: fields, and CORS. A route without any of it has none of this.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use upgrade_handler::origin::OriginPattern;

use crate::site::auth::Reserved;
use crate::site::template::{Placeholder, Template};

/// What a route does besides its action.
#[derive(Debug, Default)]
pub struct Extras {
    /// The fields that the backend gets.
    pub request: RequestFields,
    /// The fields that clients get.
    pub response: FieldEdits,
    /// Pages of other origins that may read the answers.
    pub cors: Option<Cors>,
    /// Pages in place of errors.
    pub pages: Option<ErrorPages>,
    /// Which answers are compressed.
    pub compress: Option<Compress>,
}

impl Extras {
    /// It does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let RequestFields { edits, about_client: _, forwarded, forwarded_port, request_id } = &self.request;
        let is_plain = edits.is_empty() && !forwarded && !forwarded_port && !request_id;
        is_plain
            && self.response.is_empty()
            && self.cors.is_none()
            && self.pages.is_none()
            && self.compress.is_none()
    }

    /// Some field has the value of the placeholder.
    #[must_use]
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.request.edits.uses(placeholder) || self.response.uses(placeholder)
    }
}

/// Fields of requests.
#[derive(Debug, Default)]
pub struct RequestFields {
    /// Those that the configuration names.
    pub edits: FieldEdits,
    /// Of these, the fields that say what was found out of the client.
    pub about_client: Reserved,
    /// Backends get `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Backends get `X-Forwarded-Port`.
    pub forwarded_port: bool,
    /// Backends get `X-Request-Id`, and the log has it.
    pub request_id: bool,
}

/// Fields that are removed, set and added, in this order.
#[derive(Debug, Default, Clone)]
pub struct FieldEdits {
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Put in place of all fields of their name.
    pub set: Vec<Field>,
    /// Put beside the others of their name.
    pub add: Vec<Field>,
}

impl FieldEdits {
    /// Nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    fn uses(&self, placeholder: Placeholder) -> bool {
        self.set.iter().chain(&self.add).any(|field| field.value.contains(placeholder))
    }
}

/// A field of the configuration.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: HeaderName,
    /// The same as the configuration spells it.
    pub spelled: Box<str>,
    /// Its value.
    pub value: Template,
}

/// Which answers are compressed.
#[derive(Debug)]
pub struct Compress {
    /// Media types; `text/*` stands for all of its kind.
    pub types: Vec<Box<str>>,
    /// Shorter answers are not worth it. In bytes.
    pub min_length: u64,
}

/// Pages in place of errors.
#[derive(Debug, Default)]
pub struct ErrorPages {
    /// By status.
    pub pages: BTreeMap<u16, Page>,
    /// In place of errors of the backend, too.
    pub intercept: bool,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// What it says.
    pub body: Bytes,
    /// What it is.
    pub content_type: HeaderValue,
}

/// What pages of other origins may do (Fetch Standard, "CORS protocol").
#[derive(Debug, Clone)]
pub struct Cors {
    /// `None`: every origin.
    pub origins: Option<Vec<OriginPattern>>,
    /// Access-Control-Allow-Methods.
    pub methods: HeaderValue,
    /// Access-Control-Allow-Headers.
    pub headers: Option<HeaderValue>,
    /// Access-Control-Max-Age.
    pub max_age: Option<HeaderValue>,
    /// Requests may carry cookies and passwords.
    pub credentials: bool,
}

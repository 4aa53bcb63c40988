//! Kinds of values: how each is read, what it is in words, and what it is in JSON Schema.
//!
//! A schema accepts at least what is read without a problem; the tests of `schema` compare the two.

mod amount;
mod basic;
mod section;
mod text;
mod value;

pub(super) use self::amount::{Duration, DurationOrOff, DurationOrZero, RateOrOff, SizeOrOff};
pub(super) use self::basic::{Boolean, CloseCode, List, Number};
pub(super) use self::section::{Options, OrTable, ShortForm, Table, Tables};
pub(super) use self::text::{
    Address, CertificateName, File, Host, MediaType, Network, OneOf, Origin, PathPrefix, PathTemplate,
    PlainText, Server, SocketPath, Words,
};
pub(super) use self::value::{Kind, Show, found_number, integer, noted, read};

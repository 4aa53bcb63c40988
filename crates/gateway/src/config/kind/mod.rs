//! Kinds of values: how each is read, what it is in words, and what it is in JSON Schema.
//!
//! A schema accepts at least what is read without a problem; the tests of `schema` compare the two.

mod amount;
mod basic;
mod fields;
mod section;
mod text;
mod value;

pub(super) use self::amount::{Duration, DurationOrOff, DurationOrZero, RateOrOff, SizeOrOff};
pub(super) use self::basic::{Boolean, CloseCode, Count, CountOrOff, List, Number};
pub(super) use self::fields::FieldValues;
pub(super) use self::section::{EachOrTable, Options, OrTable, ShortForm, Table, Tables};
pub(super) use self::text::{
    CertificateName, DnsServer, ExactPath, FastcgiServer, File, Files, Frequency, HashBy, Host,
    ListenAddress, ListenerName, MediaType, Method, Name, Network, OneOf, Origin, PathPrefix, PathRegex,
    PathTemplate, Per, PlainText, ProbePath, Protocol, Server, SocketPath, SourceAddress, Target, Text,
    TlsName, Token, Words,
};
pub(super) use self::value::{Kind, Show, found_number, integer, noted, read};

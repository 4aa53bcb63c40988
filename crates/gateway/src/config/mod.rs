//! The configuration: read and checked once, then used as it is.
//!
//! In: TOML, or values. Out: a checked [`Config`], or every [`Problem`] at once, each with its place. Unknown keys
//! are errors.
//!
//! Each option is declared once, in the file of its section, by the macro of `option`. The parser, [`reference()`]
//! and [`schema()`] come from that declaration.

mod access;
mod acme;
pub(crate) mod acme_settings;
pub mod across;
pub mod admin;
mod answer;
mod certificates;
mod compress;
mod dns;
mod document;
mod environment;
mod fastcgi;
mod fields;
pub(crate) mod file;
mod files;
mod foreign;
mod include;
pub(crate) mod jwt;
mod kind;
mod listener;
mod log;
mod machine;
mod model;
mod names;
mod on_demand;
mod option;
mod pages;
mod pools;
mod problem;
mod redirects;
mod reference;
mod route;
mod rules;
mod schema;
mod secret;
mod server_tls;
mod server_url;
pub(crate) mod sockets;
mod spec;
mod top_level;
mod upstream;
pub mod users;
mod values;
mod when;

use std::path::Path;

use toml::de::DeTable;

pub use self::acme_settings::{AcmeKeyType, AcmeSettings, ExternalAccount, OnDemandSettings};
pub use self::dns::DnsSettings;
use self::document::{Document, Section};
use self::environment::Variables;
pub(crate) use self::fields::is_fixed;
use self::kind::Options;
pub use self::log::LogSettings;
pub use self::model::{
    Admin, CONTROL_SOCKET, CertificatePlaces, Config, ControlSocket, Listener, NamedPlaces,
};
use self::problem::FIRST_LINE;
pub use self::problem::{Place, Problem, Problems};
pub use self::reference::reference;
pub use self::schema::schema;
use self::top_level::TopLevel;
pub use crate::net::listening::ListenAddress;
pub use crate::telemetry::access::{AccessFormat, AccessTarget, SessionLines};

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_file(file: &Path) -> Result<Self, Problems> {
        checked(Self::read(file))
    }

    /// Checks a configuration's text. Relative paths in it are relative to `directory`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_toml(text: &str, directory: &Path) -> Result<Self, Problems> {
        checked(Self::parse(&directory.join("wssgate.toml"), text))
    }

    /// Checks a configuration that was made of values. One that was read has been checked.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), Problems> {
        let problems = rules::problems(self).into_iter();
        let problems: Vec<_> = problems.map(|what| self.problem(Place::default(), what)).collect();
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Reads and checks a file. What could be understood comes with everything that is wrong; it
    /// is only to be carried out if nothing is.
    #[must_use]
    pub fn read(file: &Path) -> (Self, Vec<Problem>) {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text),
            Err(e) => {
                let (config, _) = Self::parse(file, "");
                let problem = config.problem(FIRST_LINE, format!("can't be read: {e}"));
                (config, vec![problem])
            }
        }
    }

    /// Checks a configuration's text, as [`Self::read`] does. Relative paths in it are relative to `file`, those of a
    /// file that it includes to that one. `"${NAME}"` is a variable of this process's environment.
    #[must_use]
    pub fn parse(file: &Path, text: &str) -> (Self, Vec<Problem>) {
        Self::parse_with(file, text, &|name| std::env::var_os(name))
    }

    fn parse_with(file: &Path, text: &str, variables: &Variables<'_>) -> (Self, Vec<Problem>) {
        let parsed = DeTable::parse_recoverable(text);
        let (included, unmatched) = include::files(file, parsed.0.get_ref(), variables);
        let mut document = Document::new(variables, TopLevel::describe());
        let mut tree = document.add(file, text, parsed);
        include::append(&mut document, tree.get_mut(), &included);
        let section = Section::new(&document, TopLevel::NAME, tree.span(), tree.get_ref());
        let top_level = TopLevel::read(&mut document, &section);
        let config = Self { unmatched, ..top_level::read(file, &mut document, top_level) };
        (config, document.finish())
    }
}

fn checked((config, problems): (Config, Vec<Problem>)) -> Result<Config, Problems> {
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}

#[cfg(test)]
mod tests;

//! Sections, and what the options of a section are to the parser.

use std::marker::PhantomData;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{Kind, noted};
use crate::config::document::{Document, Section, describe};
use crate::config::problem::Place;
use crate::config::spec::{SectionSpec, Shape, Written};

/// The options of one section, as a file has them.
pub(in crate::config) trait Options: Sized {
    /// As messages call the section: `[[listener]]`.
    const NAME: &'static str;
    /// The options that the section can have.
    const KEYS: &'static [&'static str];

    /// Describes the section.
    fn describe() -> SectionSpec;

    /// Reads the section; what is wrong with it is noted in the document.
    fn read(document: &mut Document<'_>, section: &Section<'_>) -> Self;

    /// Where it is written, and which keys it has.
    fn written(&self) -> &Written;

    /// The section can have the key.
    fn declares(key: &str) -> bool {
        Self::KEYS.contains(&key)
    }

    /// The key is there, whatever it holds.
    fn has(&self, key: &str) -> bool {
        debug_assert!(Self::declares(key), "{} declares no {key}", Self::NAME);
        self.written().keys.contains_key(key)
    }

    /// Where the value of the key is; the section's own place if it isn't there.
    fn place_of(&self, key: &str) -> Place {
        debug_assert!(Self::declares(key), "{} declares no {key}", Self::NAME);
        let Written { place, keys } = self.written();
        keys.get(key).copied().unwrap_or(*place)
    }
}

/// A table `[name]`.
pub(in crate::config) struct Table<S>(PhantomData<S>);

impl<S: Options> Kind for Table<S> {
    type Value = S;

    fn shape() -> Shape {
        Shape::Section(S::describe())
    }

    fn read(document: &mut Document<'_>, _: &str, value: &Spanned<DeValue<'_>>) -> Option<S> {
        table(document, value)
    }
}

/// Tables `[[name]]`.
pub(in crate::config) struct Tables<S>(PhantomData<S>);

impl<S: Options> Kind for Tables<S> {
    type Value = Vec<S>;

    fn shape() -> Shape {
        Shape::Sections(S::describe())
    }

    fn read(document: &mut Document<'_>, _: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<S>> {
        let DeValue::Array(items) = value.get_ref() else {
            let place = document.place(Some(value.span()));
            let found = describe(value.get_ref());
            document.problem(place, format!("expected tables {} (two brackets), found {found}", S::NAME));
            return None;
        };
        Some(items.iter().filter_map(|item| table(document, item)).collect())
    }
}

/// Options of which one may stand in place of the whole table: `redirect = "/new"` is
/// `redirect = { to = "/new" }`.
pub(in crate::config) trait ShortForm: Options {
    /// The option.
    const KEY: &'static str;

    /// A value of this type can stand for the table.
    fn is_short(value: &DeValue<'_>) -> bool {
        matches!(value, DeValue::String(_))
    }
}

/// A table, or the value of its [`ShortForm::KEY`].
pub(in crate::config) struct OrTable<S>(PhantomData<S>);

impl<S: ShortForm> Kind for OrTable<S> {
    type Value = S;

    fn shape() -> Shape {
        let section = S::describe();
        let short = section.options.iter().find(|option| option.key == S::KEY);
        match short.map(|option| &option.shape) {
            Some(Shape::Value { words, schema }) => {
                let (words, schema) = (format!("{words}, or a table"), schema.clone());
                Shape::Either { words, schema, section }
            }
            _ => Shape::Section(section),
        }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<S> {
        match value.get_ref() {
            DeValue::Table(_) => table(document, value),
            short if S::is_short(short) => {
                let mut table = DeTable::new();
                table.insert(Spanned::new(value.span(), S::KEY.into()), value.clone());
                Some(S::read(document, &Section::new(document, S::NAME, value.span(), &table)))
            }
            other => {
                let words = match Self::shape() {
                    Shape::Either { words, .. } => words.replace('`', ""),
                    _ => "a table".to_owned(),
                };
                noted(document, key, value, Err(format!("expected {words}, found {}", describe(other))))
            }
        }
    }
}

/// A list in which each is what [`OrTable`] is, or one alone.
pub(in crate::config) struct EachOrTable<S>(PhantomData<S>);

impl<S: ShortForm> Kind for EachOrTable<S> {
    type Value = Vec<S>;

    fn shape() -> Shape {
        match OrTable::<S>::shape() {
            Shape::Either { words, schema, section } => {
                Shape::Each { words: format!("{words}; or a list of them"), schema, section }
            }
            other => other,
        }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<S>> {
        match value.get_ref() {
            DeValue::Array(items) => {
                let read: Vec<_> = items.iter().map(|item| OrTable::<S>::read(document, key, item)).collect();
                read.into_iter().collect()
            }
            _ => OrTable::<S>::read(document, key, value).map(|one| vec![one]),
        }
    }
}

fn table<S: Options>(document: &mut Document<'_>, value: &Spanned<DeValue<'_>>) -> Option<S> {
    match value.get_ref() {
        DeValue::Table(table) => {
            let section = Section::new(document, S::NAME, value.span(), table);
            Some(S::read(document, &section))
        }
        other => {
            let (place, found) = (document.place(Some(value.span())), describe(other));
            document.problem(place, format!("expected a table {}, found {found}", S::NAME));
            None
        }
    }
}

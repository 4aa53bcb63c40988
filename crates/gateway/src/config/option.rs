//! How an option is declared: once, for the parser, `wssgate reference` and `wssgate schema`.
//!
//! [`options!`] takes the options of one section and makes of them a struct that holds what a file says, the
//! function that reads it, and the description of the section. An option can't be read without being described,
//! nor described without being read; one that is read and then not used is a warning of the compiler.

/// Declares the options of a section:
///
/// ```text
/// options! {
///     /// What the section is for.
///     struct ExampleOptions: "[example]";
///
///     /// What the option does.
///     timeout: kind::Duration, default = Duration::from_secs(30);
/// }
/// ```
///
/// After the kind stands `required = "an example"`, `default = a value`, `otherwise = "what holds without it"`,
/// or `optional`. The field is an `At<_>` where there is a default, and an `Option<At<_>>` elsewhere.
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        struct $name:ident: $section:expr;
        $($(#[doc = $sentence:literal])+ $key:ident: $kind:ty, $how:ident $(= $what:expr)?;)+
    ) => {
        $(#[doc = $about])+
        pub(super) struct $name {
            $($(#[doc = $sentence])+ pub(super) $key: options!(@type $how $kind),)+
            written: $crate::config::spec::Written,
        }

        impl $crate::config::kind::Options for $name {
            const NAME: &'static str = $section;
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];

            fn describe() -> $crate::config::spec::SectionSpec {
                $crate::config::spec::SectionSpec {
                    name: Self::NAME,
                    sentence: $crate::config::spec::sentence(&[$($about),+]),
                    options: vec![$($crate::config::spec::OptionSpec {
                        key: stringify!($key),
                        shape: <$kind as $crate::config::kind::Kind>::shape(),
                        default: options!(@describe $how $kind $(, $what)?),
                        sentence: $crate::config::spec::sentence(&[$($sentence),+]),
                    }),+],
                }
            }

            fn read(
                document: &mut $crate::config::document::Document<'_>,
                section: &$crate::config::document::Section<'_>,
            ) -> Self {
                $(
                    options!(@require $how document, section, stringify!($key) $(, $what)?);
                    let $key = $crate::config::kind::read::<$kind>(document, section, stringify!($key));
                    let $key = options!(@default $how section, $key $(, $what)?);
                )+
                section.unknown(document, &[$(stringify!($key)),+]);
                Self { $($key,)+ written: section.written(document) }
            }

            fn written(&self) -> &$crate::config::spec::Written {
                &self.written
            }
        }
    };

    (@type default $kind:ty) => {
        $crate::config::spec::At<<$kind as $crate::config::kind::Kind>::Value>
    };
    (@type $how:ident $kind:ty) => {
        Option<$crate::config::spec::At<<$kind as $crate::config::kind::Kind>::Value>>
    };

    (@describe required $kind:ty, $example:expr) => { $crate::config::spec::Default::Required($example) };
    (@describe default $kind:ty, $value:expr) => {
        $crate::config::spec::Default::Value(<$kind as $crate::config::kind::Show>::show(&$value))
    };
    (@describe otherwise $kind:ty, $words:expr) => { $crate::config::spec::Default::Words($words) };
    (@describe optional $kind:ty) => { $crate::config::spec::Default::Nothing };

    (@require required $document:ident, $section:ident, $key:expr, $example:expr) => {
        $section.require($document, $key, $example)
    };
    (@require $how:ident $document:ident, $section:ident, $key:expr $(, $what:expr)?) => {};

    (@default default $section:ident, $read:expr, $value:expr) => {
        $read.unwrap_or_else(|| $crate::config::spec::At { value: $value, place: $section.place })
    };
    (@default $how:ident $section:ident, $read:expr $(, $what:expr)?) => { $read };
}

pub(super) use options;

//! `wssgate reference`: every option as Markdown. Pure.

use std::fmt::Write;

use super::kind::Options;
use super::spec::{Default, OptionSpec, SectionSpec, Shape, TOP_LEVEL, toml_text};
use super::top_level::TopLevel;

const HEAD: &str = "# Options of the configuration file

This page is printed by `wssgate reference`. `wssgate schema` prints the same as JSON Schema, for editors.

The file is TOML. Unknown keys are errors, and each message names the line. Values are written like this:

- A **duration** has its unit: `\"500ms\"`, `\"30s\"`, `\"1h 30m\"`. It is more than nothing and at most ten years.
- A **size** has its unit: `\"16MiB\"` is 16 × 1,048,576 bytes, `\"16MB\"` is 16,000,000 bytes. A number without a unit is
  bytes, from 1024 on.
- `\"off\"` lifts a limit or turns something off.
- A **file** is relative to the directory of the configuration file.
- A **list** may be a single value.
";

/// Every option, as a page of Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for section in TopLevel::describe().walk() {
        section_of(&mut page, section);
    }
    page
}

fn section_of(page: &mut String, section: &SectionSpec) {
    let title =
        if section.name == TOP_LEVEL { "The top level".to_owned() } else { format!("`{}`", section.name) };
    let _ = write!(page, "\n## {title}\n\n{}\n\n", section.sentence);
    page.push_str("| option | type and range | default | what it does |\n|---|---|---|---|\n");
    for option in &section.options {
        if let Shape::Value { words, .. } | Shape::Either { words, .. } | Shape::Each { words, .. } =
            &option.shape
        {
            let cells = [&format!("`{}`", option.key), words, &default(option), &option.sentence];
            let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
}

fn default(option: &OptionSpec) -> String {
    match &option.default {
        Default::Required(example) => format!("required, for instance `{example}`"),
        Default::Value(value) => format!("`{}`", toml_text(value)),
        Default::Words(words) => (*words).to_owned(),
        Default::Nothing => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests;

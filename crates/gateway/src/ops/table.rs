//! Tables on a terminal.

use std::fmt::Write;

use comfy_table::{Table, presets};

/// Appends a table under its title.
pub(crate) fn section(text: &mut String, title: &str, table: &Table) {
    let _ = writeln!(text, "{title}");
    for line in table.lines() {
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    text.push('\n');
}

/// A table without lines.
#[must_use]
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

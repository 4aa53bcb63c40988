//! Tables that are lists of cards on a narrow screen, and stay tables to a screen reader.

use maud::{Markup, html};

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    name: &'static str,
    /// Its values stand on the right.
    is_number: bool,
    /// The list can be sorted by it: how it is now, and where it is.
    sort: Option<(Option<Direction>, String)>,
}

/// How a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The smallest first.
    Ascending,
    /// The largest first.
    Descending,
}

/// A column of texts.
pub(super) fn text(name: &'static str) -> Column {
    Column { name, is_number: false, sort: None }
}

/// A column of numbers.
pub(super) fn number(name: &'static str) -> Column {
    Column { name, is_number: true, sort: None }
}

impl Column {
    /// By which the list can be sorted, at `target`.
    pub(super) fn sorts(self, now: Option<Direction>, target: String) -> Self {
        Self { sort: Some((now, target)), ..self }
    }
}

/// A table with a caption; the first cell of each row says what the row is about.
pub(super) fn table(caption: &str, columns: &[Column], rows: &[Vec<Markup>]) -> Markup {
    html! {
        table.sortable[columns.iter().any(|column| column.sort.is_some())] role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" { @for column in columns { (head(column)) } }
            }
            tbody role="rowgroup" {
                @for row in rows {
                    tr role="row" {
                        @for (n, (cell, column)) in row.iter().zip(columns).enumerate() {
                            @if n == 0 {
                                th role="rowheader" scope="row" data-label=(column.name) { (cell) }
                            } @else {
                                td.number[column.is_number] role="cell" data-label=(column.name) { (cell) }
                            }
                        }
                    }
                }
                @if rows.is_empty() {
                    tr role="row" { td.none role="cell" colspan=(columns.len()) { "none" } }
                }
            }
        }
    }
}

fn head(column: &Column) -> Markup {
    let now = column.sort.as_ref().and_then(|(now, _)| *now);
    let sorted = now.map(|direction| match direction {
        Direction::Ascending => "ascending",
        Direction::Descending => "descending",
    });
    html! {
        th.number[column.is_number] role="columnheader" scope="col" aria-sort=[sorted] {
            @match &column.sort {
                Some((_, target)) => a href=(target) {
                    (column.name)
                    @match now {
                        Some(Direction::Ascending) => span aria-hidden="true" { " ▲" },
                        Some(Direction::Descending) => span aria-hidden="true" { " ▼" },
                        None => {},
                    }
                },
                None => (column.name),
            }
        }
    }
}
